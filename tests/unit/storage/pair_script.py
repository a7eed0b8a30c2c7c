"""The workload of two cores that groups move between, which is crashed at every step."""

import errno
import random
from collections.abc import Callable
from typing import Final

from corelane.storage.effects import LinkFiles
from tests.simulation.sim_disk import PowerCutError
from tests.unit.storage.machine import SMALL, Profile
from tests.unit.storage.pair import Pair
from tests.unit.storage.script import Script

RECOVERIES_MAX = 5
BOTH: Final = [0, 1]


class PairScript(Script):
    """One core's part: as any core's, but a group that is dropped is promised no more."""

    def __init__(self, pair: Pair, core: int, seed: int) -> None:
        super().__init__(pair.machines[core], seed)
        self.pair = pair
        self.core = core

    def _drop(self) -> None:
        log = self._log()
        if log is not None and self.machine.has_room():
            self.pair.dropped.add(log.group)
            self.pair.promised.pop(log.group, None)
            self.machine.drop(log)

    def move(self) -> None:
        """Begin to move a group, if there is one all of which is committed."""
        machine = self.machine
        logs = [
            log
            for log in machine.store.groups.values()
            if log.group and not log.is_leaving and log.committed_index == log.last_index
            if machine.durable[log.group] == log.last_index
        ]
        if logs:
            self.pair.begin_move(self.rng.choice(logs), self.core)


class PairRun:
    """A whole story: a workload, a crash of one or both, recoveries, and more workload."""

    def __init__(self, seed: int, luck: int, profile: Profile = SMALL) -> None:
        self.pair = Pair(profile, luck)
        self.pair.rng = random.Random(seed)
        self.seed = seed
        self.rng = random.Random(luck * 7919 + seed)
        self.moves = 0
        self.refused = 0

    def live(self, actions: int, seed: int) -> None:
        """Act on both cores in turn."""
        scripts = [PairScript(self.pair, core, seed + core) for core in BOTH]
        rng = random.Random(seed)
        for script in scripts:
            self.pair.settle(script.machine.has_room)
            script.begin()
        for _ in range(actions):
            script = rng.choice(scripts)
            if rng.random() < 0.25:
                script.move()
            elif rng.random() < 0.03:
                script.machine.store.checkpointing.wanted = True
            elif rng.random() < 0.04:
                self.pair.disks[script.core].fail(LinkFiles, errno.EMLINK, partly=True)
            else:
                script.act()
            for _ in range(rng.choice((1, 1, 3))):
                self.pair.turn(everything=rng.random() < 0.3)
            for move in self.pair.moves:
                self.moves += move.is_over and not move.why
                self.refused += move.is_over and "EMLINK" in move.why
            self.pair.moves = [move for move in self.pair.moves if not move.is_over]

    def first_life(self, actions: int) -> None:
        """The same for every crash: that is how the steps are counted."""
        self.pair.start()
        self.live(actions, self.seed)

    def crash_at(self, core: int, step: int, actions: int) -> None:
        """Crash the first life at a step of a core's disk, recover, and go on."""
        self.pair.disks[core].steps_left = step
        try:
            self.first_life(actions)
        except PowerCutError:
            pass
        else:
            self.pair.disks[core].steps_left = -1
        if len(self.pair.machines) < 2:  # it was in the very first start
            self.pair.machines = []
            self.pair.power_cut()
            self.pair.disks[core].steps_left = -1
            self.pair.start()
            return
        self.recover(self.crash(core))
        self.live(self.rng.choice((0, 3, 15)), self.seed + 1000)
        self.recover(self.crash(self.rng.choice(BOTH)))
        self.pair.check()

    def crash(self, core: int) -> list[int]:
        """Kill one core or both, with the power or without; return who is dead."""
        how: Callable[[], list[int]] = self.rng.choice(
            (self._power, self._power, self._kill_both, lambda: self._kill(core))
        )
        return how()

    def _power(self) -> list[int]:
        self.pair.power_cut()
        return BOTH

    def _kill_both(self) -> list[int]:
        for disk in self.pair.disks:
            disk.crash(power=False)
        return BOTH

    def _kill(self, core: int) -> list[int]:
        self.pair.disks[core].crash(power=False)
        return [core]

    def recover(self, dead: list[int]) -> None:
        """Recover the dead; the first attempts may crash too."""
        disks = self.pair.disks
        for attempt in range(RECOVERIES_MAX):
            last = attempt == RECOVERIES_MAX - 1
            for core in dead:
                disks[core].steps_left = -1 if last else self.rng.choice((-1, *range(14)))
            try:
                for core in dead:
                    self.pair.recover(core)
            except PowerCutError:
                if dead == BOTH and self.rng.random() < 0.6:
                    self._power()
                for core in dead:
                    self._kill(core)
                continue
            break
        for core in dead:
            disks[core].steps_left = -1
        self.pair.restart(dead, imports_first=self.rng.random() < 0.5)


def crash_pair(seed: int, core: int, step: int, actions: int, luck: int = 0) -> None:
    """Crash a script at one step of one core; a failure says how to see it again."""
    try:
        PairRun(seed, step + luck).crash_at(core, step, actions)
    except BaseException as fault:
        fault.add_note(
            f"replay: python -m tests.unit.storage.hunt --pair --seed {seed} --seeds 1 "
            f"--actions {actions} --core {core} --step {step} --luck {luck}"
        )
        raise


def crash_everywhere(seed: int, *, actions: int, stride: int) -> int:
    """Crash a script at every *stride*-th step of each core; return how many crashes that were."""
    count = PairRun(seed, 0)
    count.first_life(actions)
    done = 0
    for core in BOTH:
        for step in range(seed % stride, count.pair.disks[core].steps, stride):
            crash_pair(seed, core, step, actions)
            done += 1
    return done
