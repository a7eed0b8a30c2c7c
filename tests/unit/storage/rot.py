"""Storage on a disk that rots: a sector of one file is another one when a core starts.

    python -m tests.unit.storage.hunt --rot --seeds 100      a hunt

A life of random operations ends with a crash; then a bit or a sector of what was durable changes.
What was promised must be there, or the damage must be known: the core does not start, and changes
nothing; or it names the groups concerned, and all others are whole. What rots in segments is read
by nobody at a start: there `dump-log` must find it, and all the rest must be as it was. FORMAT.md
says what cannot be found: what rots in the write that was synced last.
"""

import contextlib
import random
from typing import Final

from corelane.model.ids import GroupId, Lsn
from corelane.storage.checkpoint import SLOTS
from corelane.storage.dump import Report, WalFileDump, verify, wal_files
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import LayoutError
from corelane.storage.recovery import WAL_DIRECTORY
from corelane.storage.segments import Segment
from corelane.storage.wal_scan import CorruptWalError
from corelane_native import bytes_at
from tests.simulation.sim_disk import PowerCutError, SimDisk
from tests.simulation.sim_tree import SECTOR
from tests.unit.storage.machine import SMALL, Held, Machine, Profile, SimDriver
from tests.unit.storage.model import Drop, Entry
from tests.unit.storage.script import Script

ROWS: Final = ".entries"
"""A number in it may be another one that is as good, as FORMAT.md says."""


class RottenMachine(Machine):
    """A core that has started from a disk of which *rotten* is not what was written."""

    rotten = ""

    def _check_segment(self, segment: Segment, entries: list[Entry]) -> None:
        if self.rotten not in {segment.path(stream) for stream in segment.streams}:
            super()._check_segment(segment, entries)


class RotRun:
    """A life, its end, one bad sector, and the next start."""

    def __init__(self, seed: int, luck: int, profile: Profile = SMALL) -> None:
        self.seed = seed
        self.profile = profile
        self.disk = SimDisk(luck)
        self.held = Held()
        self.rng = random.Random(luck * 7919 + seed)
        self.path = ""
        self.bytes = range(0)
        """The bytes from the first to the last one that is another."""
        self.told_upto = 0
        """Up to where records that are whole say that it was on disk: a loss is seen."""
        self.outcome = ""
        """What became of it: refused, damaged, found by dump-log, or of no account."""

    def machine(self) -> RottenMachine:
        """Return a machine that has just recovered."""
        return RottenMachine(SimDriver(self.disk, self.seed), self.profile, self.held, self.seed)

    def first_life(self, actions: int) -> None:
        """The same for every end."""
        machine = self.machine()
        machine.boot()
        Script(machine, self.seed).run(actions)

    def run(self, step: int, actions: int) -> None:
        """Live up to *step*, crash, rot, start."""
        self.disk.steps_left = step
        with contextlib.suppress(PowerCutError):
            self.first_life(actions)
        self.disk.crash(power=self.rng.random() < 0.5)
        self.disk.steps_left = -1
        before, files = self._contents(), wal_files(self.disk)
        self._rot()
        if not self.path:
            return
        self.told_upto = max((self._claim(file) for file in files), default=0)
        report = verify(self.disk)
        rotten = self._contents()
        try:
            machine = self.machine()
        except (CorruptWalError, LayoutError):
            assert report.problems, "dump-log finds what a start finds"
            assert self._contents() == rotten, "nothing is changed"
            self.outcome = "refused"
            for path, content in before.items():  # another sector was good: all is there again
                self._put(path, content)
            self.path = ""
            machine = self.machine()
            machine.boot()
            machine.read_everything()
            return
        self._compare(machine, report)

    def _claim(self, file: WalFileDump) -> int:
        """Return what the records of a file say that are as they were."""
        rotten = self.bytes if file.path == self.path else range(0)
        return max(
            (
                each.record.durable_upto
                for each in file.records
                if rotten.stop <= each.position
                or rotten.start >= each.record.payload_at + each.record.payload_bytes
            ),
            default=0,
        )

    def _contents(self) -> dict[str, bytes]:
        files = self.disk.tree.files
        return {path: bytes(file.seen) for path, file in files.items() if not file.is_directory}

    def _put(self, path: str, content: bytes) -> None:
        file = self.disk.tree.files[path]
        file.durable[:] = content
        file.seen[:] = content

    def _rot(self) -> None:
        rng = self.rng
        kinds = (WAL_DIRECTORY + "/", SLOTS[0][:-1], "partitions/")
        files = {path: data for path, data in sorted(self._contents().items()) if any(data)}
        chosen = rng.choices(kinds, (6, 1, 3))[0]
        paths = [path for path in files if path.startswith(chosen)]
        if not paths:
            return
        self.path = rng.choice(paths)
        content = bytearray(files[self.path])
        used = len(content.rstrip(b"\0"))
        at = rng.randrange(used)
        sector = slice(at // SECTOR * SECTOR, min(at // SECTOR * SECTOR + SECTOR, len(content)))
        size_bytes = sector.stop - sector.start
        match rng.randrange(5):
            case 0:
                content[sector] = rng.randbytes(size_bytes)
            case 1:
                content[sector] = bytes(size_bytes)
            case 2:  # a write that went astray: what stands elsewhere
                other = rng.randrange(used) // SECTOR * SECTOR
                content[sector] = content[other : other + size_bytes].ljust(size_bytes, b"\0")
            case _:
                content[at] ^= 1 << rng.randrange(8)
        if content == files[self.path]:
            self.path = ""
            return
        former = files[self.path]
        changed = [at for at, byte in enumerate(content) if byte != former[at]]
        self.bytes = range(changed[0], changed[-1] + 1)
        self._put(self.path, bytes(content))

    # --- what is left ---

    def _compare(self, machine: RottenMachine, report: Report) -> None:
        machine.rotten = self.path
        damaged = set(machine.recovered.damaged)
        assert report.problems or not damaged, "dump-log finds what a start finds"
        last = machine.store.wal.next_lsn - 1
        assert last >= self.told_upto, f"recovered to {last}, {self.told_upto} was on disk"
        self.outcome = "damaged" if damaged else "of no account"
        ever = self._ever()
        dropped = {each.group for each in self.held.history if isinstance(each.op, Drop)}
        machine.cut_history(Lsn(last))
        for group, log in machine.store.groups.items():
            if group in damaged:
                self._check_damaged(machine, log, ever)
            elif group in machine.groups:
                kept = self.held.committed
                kept[group] = min(kept.get(group, 0), machine.groups[group].last_index)
                machine._compare(log, machine.groups[group], commit_all=True)
            else:
                # The record of its end is what rots; who ended it does so again.
                assert group in dropped, f"group {group} was never made"
        missing = machine.groups.keys() - machine.store.groups.keys()
        assert not missing, f"groups {missing} are not there"
        if self.path.startswith("partitions/") and self._is_in_use(machine):
            self.outcome = "found by dump-log"
            is_found = any(self.path in problem for problem in report.problems)
            assert is_found or self.path.endswith(ROWS), (
                f"{self.path} is rotten, and nobody says so"
            )

    def _ever(self) -> dict[tuple[GroupId, int, int], list[bytes]]:
        """Return all that was ever appended, by group, index and term."""
        found: dict[tuple[GroupId, int, int], list[bytes]] = {}
        for logged in self.held.history:
            if isinstance(logged.op, Entry):
                key = (logged.group, logged.op.index, logged.op.term)
                found.setdefault(key, []).append(logged.op.payload)
        return found

    def _check_damaged(
        self,
        machine: Machine,
        log: GroupLog,
        ever: dict[tuple[GroupId, int, int], list[bytes]],
    ) -> None:
        """What it still has was once appended there; nothing is made up."""
        for at, entry in enumerate(log.tail):
            address = machine.arena.address(entry.chunk.id) + entry.position
            payload = bytes_at(address, entry.size_bytes) if entry.size_bytes else b""
            key = (log.group, log.tail_first + at, int(entry.term))
            assert payload in ever.get(key, []), f"entry {key} was never appended"

    def _is_in_use(self, machine: Machine) -> bool:
        """Whether a log has what has changed, within what it says that it has written."""
        for log in machine.store.groups.values():
            for segment in log.segments.items:
                for stream in segment.streams:
                    if segment.path(stream) == self.path:
                        return self.bytes.start < stream.frontier
        return False


def rot(seed: int, step: int, actions: int, luck: int = 0) -> RotRun:
    """Run one; a failure says how to see it again."""
    run = RotRun(seed, step + luck)
    try:
        run.run(step, actions)
    except BaseException as fault:
        fault.add_note(
            f"{run.path}, {run.bytes}\nreplay: python -m tests.unit.storage.hunt --rot "
            f"--seed {seed} --seeds 1 --actions {actions} --step {step} --luck {luck}"
        )
        raise
    return run


def rot_everywhere(seed: int, *, actions: int, stride: int) -> list[RotRun]:
    """End a life at every *stride*-th of its steps, and rot then; return what was run."""
    count = RotRun(seed, 0)
    count.first_life(actions)
    return [rot(seed, step, actions) for step in range(seed % stride, count.disk.steps, stride)]
