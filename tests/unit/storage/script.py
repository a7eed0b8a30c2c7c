"""The workload that is crashed at every step: random operations on several groups, from a seed."""

import contextlib
import random

from corelane.model.ids import RecordKind
from corelane.storage.group_log import GroupLog
from tests.simulation.sim_disk import PowerCutError, SimDisk
from tests.unit.storage.machine import Held, Machine, Profile, SimDriver

RECOVERIES_MAX = 6


class Script:
    """One seed's workload on one machine."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.rng = random.Random(seed)
        self.actions = (
            (30, self._append),
            (6, self._append_many),
            (5, self._control),
            (3, self._vote),
            (4, self._truncate),
            (3, self._trim),
            (6, self._flush),
            (2, self._create),
            (1, self._drop),
            (10, self._read),
            (5, self._evict),
            (8, self._commit_some),
            (10, self._wait),
        )

    def run(self, actions: int) -> None:
        """Perform that many actions, a turn after each."""
        self.begin()
        for _ in range(actions):
            self.act()

    def begin(self) -> None:
        """Make the first groups."""
        while len(self.machine.store.groups) < 3 and self.machine.has_room():
            self._create()

    def act(self) -> None:
        """Perform one action, and a turn."""
        functions = [function for _, function in self.actions]
        weights = [weight for weight, _ in self.actions]
        self.rng.choices(functions, weights)[0]()
        self.machine.turn()
        if self.rng.random() < 0.6:
            self.machine.commit_all()

    def _log(self) -> GroupLog | None:
        logs = [log for log in self.machine.store.groups.values() if not log.is_leaving]
        return self.rng.choice(logs) if logs else None

    def _append(self) -> None:
        log = self._log()
        if log is not None and log.term and self.machine.has_room():
            size = self.rng.choice(self.machine.profile.batch_bytes)
            late = self.rng.random() < 0.2
            self.machine.append(log, self.rng.randrange(size) + 1, log_append_time=late)

    def _append_many(self) -> None:
        """Several records of several groups in one write."""
        for _ in range(self.rng.randrange(2, 12)):
            self._append()

    def _control(self) -> None:
        log = self._log()
        if log is not None and log.term and self.machine.has_room():
            kind = self.rng.choice((RecordKind.NEW_LEADER, RecordKind.COMMAND))
            for _ in range(self.rng.choice((1, 1, 1, 140))):  # above a block of entry rows
                self.machine.control(log, kind, self.rng.randbytes(self.rng.randrange(60)))

    def _vote(self) -> None:
        log = self._log()
        if log is not None and self.machine.has_room():
            self.machine.vote(log, log.term + self.rng.choice((1, 1, 3)), self.rng.choice((1, 2)))

    def _truncate(self) -> None:
        log = self._log()
        if log is None or log.last_index == log.committed_index or not self.machine.has_room():
            return
        self.machine.truncate(log, self.rng.randrange(log.committed_index, log.last_index) + 1)
        if self.rng.random() < 0.7:
            self.machine.vote(log, log.term + 1, 1)
            self._append()

    def _trim(self) -> None:
        log = self._log()
        if log is None or log.committed_offset <= log.start_offset or not self.machine.has_room():
            return
        start = self.rng.randint(log.start_offset, log.committed_offset)
        if start % 4 == 0:
            start = log.committed_offset  # everything: then also the last segment's files go
        self.machine.control(log, RecordKind.TRIM, start.to_bytes(8, "little"))

    def _flush(self) -> None:
        log = self._log()
        if log is not None:
            log.want_flush()

    def _create(self) -> None:
        if self.machine.has_room() and len(self.machine.store.groups) < 6:
            log = self.machine.create()
            if self.machine.has_room():  # raft appends nothing before it has a term
                self.machine.vote(log, 1, 1)

    def _drop(self) -> None:
        log = self._log()
        if log is not None and self.machine.has_room():
            self.machine.drop(log)

    def _read(self) -> None:
        log = self._log()
        if log is not None and log.start_offset < log.committed_offset:
            offset = self.rng.randrange(log.start_offset, log.committed_offset)
            self.machine.read(log, offset, self.rng.choice((1, 5000, 100_000)))
            if self.rng.random() < 0.3:
                self.machine.find(log, self.machine.stamp - self.rng.randrange(100))

    def _evict(self) -> None:
        self.machine.store.chunks.evict(0)

    def _commit_some(self) -> None:
        log = self._log()
        if log is not None and log.last_index > log.committed_index:
            index = self.rng.randint(log.committed_index, log.last_index)
            self.machine.commit(log, index)

    def _wait(self) -> None:
        for _ in range(self.rng.randrange(8)):
            self.machine.turn()


class Run:
    """A whole story: workload, crash, recoveries with crashes in them, and more workload."""

    def __init__(self, profile: Profile, seed: int, luck: int) -> None:
        self.profile = profile
        self.seed = seed
        self.disk = SimDisk(luck)
        self.disk.tree.corrupts = True
        self.held = Held()
        self.rng = random.Random(luck * 7919 + seed)
        self.crashes = 0

    def machine(self) -> Machine:
        """Return a machine that has just recovered."""
        return Machine(SimDriver(self.disk, self.seed), self.profile, self.held, self.seed)

    def first_life(self, actions: int) -> None:
        """The same for every crash step: that is how the steps are counted."""
        machine = self.machine()
        machine.boot()
        Script(machine, self.seed).run(actions)
        machine.commit_all()
        if self.seed % 3 == 0:
            machine.stop()

    def crash_at(self, step: int, actions: int) -> None:
        """Crash the first life at *step*, recover, and go on."""
        self.disk.steps_left = step
        with contextlib.suppress(PowerCutError):
            self.first_life(actions)
        self.crash()
        machine = self.recovered()
        self.second_life(machine)

    def crash(self) -> None:
        """Kill the process, and sometimes the power with it, or a little later."""
        self.crashes += 1
        self.disk.crash(power=self.rng.random() < 0.7)

    def recovered(self) -> Machine:
        """Recover; the first attempts may crash too."""
        for attempt in range(RECOVERIES_MAX):
            last = attempt == RECOVERIES_MAX - 1
            self.disk.steps_left = -1 if last else self.rng.choice((-1, *range(14)))
            try:
                machine = self.machine()
            except PowerCutError:
                self.crash()
                continue
            self.disk.steps_left = -1
            return machine
        raise AssertionError("unreachable")

    def second_life(self, machine: Machine) -> None:
        """Compare, go on, crash again, compare again, stop cleanly, compare once more."""
        machine.boot(commit_all=self.rng.random() < 0.5)
        if self.rng.random() < 0.3:
            machine.read_everything()
        script = Script(machine, self.seed + 1000)
        script.run(self.rng.choice((0, 3, 25)))
        self.crash()
        machine = self.recovered()
        machine.boot()
        if self.rng.random() < 0.3:
            machine.stop()
            self.crash()
            machine = self.recovered()
            machine.boot()
        machine.read_everything()
        machine.settle()
        machine.check_arena()


def crash_everywhere(profile: Profile, seed: int, *, actions: int, stride: int) -> int:
    """Crash a script at every *stride*-th of its steps; return how many crashes that were."""
    count = Run(profile, seed, 0)
    count.first_life(actions)
    steps = range(seed % stride, count.disk.steps, stride)
    for step in steps:
        try:
            Run(profile, seed, step).crash_at(step, actions)
        except BaseException as fault:
            fault.add_note(
                f"replay: python -m tests.unit.storage.hunt --profile {profile.name} --seed {seed} "
                f"--seeds 1 --actions {actions} --step {step}"
            )
            raise
    return len(steps)
