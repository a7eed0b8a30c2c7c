"""The workload of three replicas, one of which is crashed at every step."""

import random
from typing import Final

from corelane.model.ids import GroupId, RecordKind
from tests.simulation.sim_disk import PowerCutError
from tests.unit.storage.machine import SMALL, Profile
from tests.unit.storage.replicas import COUNT, NOBODY, Replicas

RECOVERIES_MAX: Final = 5
UNCOMMITTED_BYTES_MAX: Final = 48 * 1024
"""Of a group: as raft's limit keeps it so that a log never pins all of the WAL."""
BYTES_MAX: Final = (1, 3000, 20_000, 100_000)


class ReplicaScript:
    """One seed's workload."""

    def __init__(self, replicas: Replicas, seed: int) -> None:
        self.replicas = replicas
        self.rng = random.Random(seed)
        self.actions = (
            (24, self._append),
            (4, self._control),
            (30, self._replicate),
            (3, self._elect),
            (4, self._trim),
            (5, self._flush),
            (5, self._evict),
            (2, self._checkpoint),
            (3, self._read),
            (10, self._wait),
        )

    def run(self, actions: int) -> None:
        """Perform that many actions, a turn after each."""
        functions = [function for _, function in self.actions]
        weights = [weight for weight, _ in self.actions]
        for _ in range(actions):
            self.rng.choices(functions, weights)[0](self.rng.choice(self.replicas.groups))
            self.replicas.turn()

    def _append(self, group: GroupId) -> None:
        leader = self.replicas.leaders[group]
        if leader == NOBODY:
            self._elect(group)
            return
        machine, log = self.replicas.machines[leader], self.replicas.log(leader, group)
        for _ in range(self.rng.choice((1, 1, 2, 8))):
            if machine.has_room() and log.uncommitted_bytes < UNCOMMITTED_BYTES_MAX:
                size = self.rng.randrange(self.rng.choice(machine.profile.batch_bytes)) + 1
                machine.append(log, size, log_append_time=self.rng.random() < 0.2)

    def _control(self, group: GroupId) -> None:
        leader = self.replicas.leaders[group]
        if leader == NOBODY or not self.replicas.machines[leader].has_room():
            return
        kind = self.rng.choice((RecordKind.COMMAND, RecordKind.CONFIG))
        for _ in range(self.rng.choice((1, 1, 40))):
            payload = self.rng.randbytes(self.rng.randrange(1, 60))
            self.replicas.machines[leader].control(self.replicas.log(leader, group), kind, payload)
            kind = RecordKind.COMMAND

    def _replicate(self, group: GroupId) -> None:
        target = self.rng.choice((0, 1, 1, 2, 2, 2)) if group else self.rng.choice((0, 0, 1, 2))
        self.replicas.replicate(group, target, self.rng.choice(BYTES_MAX))

    def _elect(self, group: GroupId) -> None:
        self.replicas.elect(group, self.rng.randrange(COUNT))

    def _trim(self, group: GroupId) -> None:
        leader = self.replicas.leaders[group]
        if leader == NOBODY or not self.replicas.machines[leader].has_room():
            return
        log = self.replicas.log(leader, group)
        if log.start_offset < log.committed_offset:
            start: int = log.committed_offset
            if self.rng.random() < 0.5:
                start = self.rng.randint(log.start_offset, log.committed_offset)
            payload = start.to_bytes(8, "little")
            self.replicas.machines[leader].control(log, RecordKind.TRIM, payload)

    def _flush(self, group: GroupId) -> None:
        self.replicas.log(self.rng.randrange(COUNT), group).want_flush()

    def _evict(self, _group: GroupId) -> None:
        self.rng.choice(self.replicas.machines).store.chunks.evict(0)

    def _checkpoint(self, _group: GroupId) -> None:
        self.rng.choice(self.replicas.machines).store.checkpointing.wanted = True

    def _read(self, group: GroupId) -> None:
        machine = self.rng.choice(self.replicas.machines)
        log = machine.store.groups[group]
        if log.start_offset < log.committed_offset:
            offset = self.rng.randrange(log.start_offset, log.committed_offset)
            machine.read(log, offset, self.rng.choice((1, 5000)))

    def _wait(self, _group: GroupId) -> None:
        for _ in range(self.rng.randrange(6)):
            self.replicas.turn()


class ReplicaRun:
    """A whole story: a workload, a crash of one, recoveries, more workload, another crash."""

    def __init__(self, seed: int, luck: int, profile: Profile = SMALL) -> None:
        self.replicas = Replicas(profile, seed, luck)
        self.seed = seed
        self.rng = random.Random(luck * 7919 + seed)

    def first_life(self, actions: int) -> None:
        """The same for every crash: that is how the steps are counted."""
        self.replicas.start()
        ReplicaScript(self.replicas, self.seed).run(actions)

    def crash_at(self, victim: int, step: int, actions: int) -> None:
        """Crash the first life at a step of one replica's disk, recover, and go on."""
        disk = self.replicas.disks[victim]
        disk.steps_left = step
        try:
            self.first_life(actions)
        except PowerCutError:
            pass
        else:
            disk.steps_left = -1
        if len(self.replicas.machines) < COUNT:
            return  # it was in the very first start, which another test crashes
        self.crash(victim)
        ReplicaScript(self.replicas, self.seed + 1000).run(self.rng.choice((0, 5, 30)))
        self.crash(self.rng.randrange(COUNT))
        self.replicas.check()

    def crash(self, victim: int) -> None:
        """Kill a replica, with its power or without, and recover; which may crash, too."""
        disk = self.replicas.disks[victim]
        disk.crash(power=self.rng.random() < 0.7)
        for attempt in range(RECOVERIES_MAX):
            last = attempt == RECOVERIES_MAX - 1
            disk.steps_left = -1 if last else self.rng.choice((-1, *range(14)))
            try:
                machine = self.replicas.recover(victim)
            except PowerCutError:
                disk.crash(power=self.rng.random() < 0.7)
                continue
            break
        disk.steps_left = -1
        self.replicas.machines[victim] = machine
        self.replicas.restart(victim)


def crash_replica(seed: int, victim: int, step: int, actions: int, luck: int = 0) -> ReplicaRun:
    """Crash a script at one step of one replica; a failure says how to see it again."""
    run = ReplicaRun(seed, step + luck)
    try:
        run.crash_at(victim, step, actions)
    except BaseException as fault:
        fault.add_note(
            f"replay: python -m tests.unit.storage.hunt --replicas --seed {seed} --seeds 1 "
            f"--actions {actions} --core {victim} --step {step} --luck {luck}"
        )
        raise
    return run


def crash_everywhere(seed: int, *, actions: int, stride: int) -> list[ReplicaRun]:
    """Crash a script at every *stride*-th step of each replica; return what was run."""
    count = ReplicaRun(seed, 0)
    count.first_life(actions)
    runs = [count]
    for victim in range(COUNT):
        steps = range(seed % stride, count.replicas.disks[victim].steps, stride)
        runs += [crash_replica(seed, victim, step, actions) for step in steps]
    return runs
