"""Short cuts for tests that tell one story of one core on a simulated disk."""

from corelane.model.ids import RecordKind
from corelane.storage.group_log import GroupLog
from tests.simulation.sim_disk import SimDisk
from tests.unit.storage.machine import SMALL, Held, Machine, Profile, SimDriver

TURNS_MAX = 50


class Core:
    """One core over several lives."""

    def __init__(self, profile: Profile = SMALL, seed: int = 0) -> None:
        self.disk = SimDisk(seed)
        self.held = Held()
        self.profile = profile
        self.machine = self.start()
        self.machine.boot()
        self.await_room()

    def start(self) -> Machine:
        """Recover; nothing is compared yet."""
        self.machine = Machine(SimDriver(self.disk, 0), self.profile, self.held, 0)
        return self.machine

    def restart(self, *, power: bool = True, commit_all: bool = True) -> Machine:
        """Crash, recover and compare."""
        self.disk.crash(power=power)
        self.start().boot(commit_all=commit_all)
        self.await_room()
        return self.machine

    def await_room(self) -> None:
        """Turn until the next WAL file is there: produce never takes of the first one's reserve."""
        for _ in range(TURNS_MAX):
            if self.machine.store.wal.spares:
                return
            self.machine.turn(everything=True)

    def log(self, term: int = 1) -> GroupLog:
        """Return a new group's log that has a term."""
        log = self.machine.create()
        self.machine.vote(log, term, 1)
        return log

    def checkpoint(self) -> None:
        """Have a checkpoint taken, and wait for it."""
        checkpointing = self.machine.store.checkpointing
        count = checkpointing.count
        checkpointing.wanted = True
        self.machine.settle(lambda: checkpointing.count > count)

    def fill(self, log: GroupLog, wal_bytes: int) -> None:
        """Append and commit batches of about that many bytes together."""
        for _ in range(wal_bytes // 4096):
            while not self.machine.append(log, 3500):
                self.machine.settle()
            self.machine.turn(everything=True)
            self.machine.commit_all()
        self.machine.settle()

    def find(self, kind: RecordKind, group: int) -> tuple[str, int, int]:
        """Return (path, position, lsn) of the newest durable record of a kind of a group."""
        from corelane.storage.dump import wal_files  # noqa: PLC0415

        found = [
            (file.path, entry.position, entry.record.lsn)
            for file in wal_files(self.disk)
            for entry in file.records
            if entry.record.kind == kind and entry.record.group == group
        ]
        return max(found, key=lambda words: words[2])
