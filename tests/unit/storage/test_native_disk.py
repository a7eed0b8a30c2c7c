"""The crash script against the real thing: C threads, O_DIRECT, a directory of the system's.

Method: `script.py` as in `test_crash.py`, on `runtime.disk.NativeDisk` in a temporary directory.
At a random turn the core is abandoned: what was not handed over never happens, what was handed
over is finished or not, nobody hears of it. Then `OsDisk` recovers and everything is compared.
A power cut cannot be made here; that is what `SimDisk` is for.
"""

import os
import random
import select
from pathlib import Path

import pytest

from corelane.runtime.disk import NativeDisk
from corelane.storage.disk import OsDisk
from corelane.storage.dump import open_core, verify
from corelane.storage.effects import DiskDone, DiskEffect, WalWrite
from corelane_native import Arena
from tests.unit.storage.machine import LARGE, SMALL, Driver, Held, Machine, Profile
from tests.unit.storage.pair import Pair
from tests.unit.storage.pair_script import BOTH, PairRun
from tests.unit.storage.script import Script

WAIT_MS = 10_000
TURNS_BUSY = 1000


class AbandonedError(Exception):
    """The core is gone from one turn to the next."""


class NativeDriver(Driver):
    """Hands effects to the C threads of one life."""

    def __init__(self, root: Path, seed: int, effects_left: int = -1) -> None:
        self.disk = OsDisk(root)
        self.root = root
        self.rng = random.Random(seed)
        self.effects_left = effects_left
        self.effects = 0
        self.outstanding = 0
        self.native: NativeDisk | None = None
        self.done: list[DiskDone] = []
        self.poll = select.poll()
        self.tokens: dict[int, int] = {}

    def submit(self, effect: DiskEffect, arena: Arena) -> None:
        native = self._threads(arena)
        self.effects += 1
        if self.effects_left == 0:
            raise AbandonedError
        self.effects_left -= 1
        native.performers[type(effect)](effect)
        if isinstance(effect, WalWrite):  # sometimes made inline, sometimes by the thread
            done = native.end_turn(self.rng.choice((0, TURNS_BUSY)))
            if done is not None:
                self.done.append(done)
                return
        self.outstanding += 1

    def _threads(self, arena: Arena) -> NativeDisk:
        if self.native is None:
            self.native = NativeDisk(self.root, arena, pytest.fail)
            for token, worker in enumerate(self.native._workers):
                self.poll.register(worker.eventfd, select.POLLIN)
                self.tokens[worker.eventfd] = token
        return self.native

    def completions(self, *, everything: bool) -> list[DiskDone]:
        done, self.done = self.done, []
        if self.native is None or self.outstanding == 0:
            return done
        wait_ms = WAIT_MS if everything and not done else 1
        for fd, _events in self.poll.poll(wait_ms):
            os.eventfd_read(fd)
            found = self.native.reap(self.tokens[fd])
            self.outstanding -= len(found)
            done += found
        return done

    def close(self) -> None:
        """Let the threads finish what they have; nobody hears of it."""
        if self.native is not None:
            self.native.close()
            self.native = None


class Lives:
    """The lives of one core directory."""

    def __init__(self, root: Path, profile: Profile, seed: int) -> None:
        self.root = root
        self.profile = profile
        self.seed = seed
        self.held = Held()
        self.rng = random.Random(seed)
        self.driver = NativeDriver(root, 0)

    def start(self, effects_left: int = -1) -> Machine:
        """Recover and compare."""
        self.driver = NativeDriver(self.root, self.seed, effects_left)
        machine = Machine(self.driver, self.profile, self.held, self.seed)
        machine.boot(commit_all=self.rng.random() < 0.5)
        return machine

    def live(self, effects_left: int, actions: int) -> bool:
        """Live until abandoned; False if the life ended before."""
        try:
            machine = self.start(effects_left)
            Script(machine, self.rng.randrange(1 << 30)).run(actions)
        except AbandonedError:
            return True
        finally:
            self.driver.close()
        return False


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "core-00"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("seed", range(12))
def test_a_core_abandoned_again_and_again_loses_nothing(root: Path, seed: int) -> None:
    lives = Lives(root, SMALL, seed)
    for _ in range(6):
        lives.live(lives.rng.randrange(1, 30), 120)
    # How many effects a life has depends on the real threads: a few are in every one.
    assert lives.live(2, 120), "a life of 120 actions ended before its third effect"
    machine = lives.start()
    machine.read_everything()
    machine.stop()
    lives.driver.close()
    assert verify(open_core(root)).problems == []
    machine = lives.start()
    machine.read_everything()
    machine.settle()
    machine.check_arena()
    lives.driver.close()


class NativePair(Pair):
    """Two cores on real directories beside one another."""

    def __init__(self, root: Path, seed: int) -> None:
        super().__init__(SMALL, seed)
        self.roots = [root / f"core-{core:02d}" for core in BOTH]
        self.drivers = [NativeDriver(each, seed) for each in self.roots]
        for each in self.roots:
            each.mkdir()

    def recover(self, core: int) -> Machine:
        self.drivers[core] = NativeDriver(self.roots[core], self.seed)
        return Machine(self.drivers[core], self.profile, self.helds[core], self.seed + core)

    def close(self) -> None:
        """Abandon both: what was handed over is finished, nobody hears of it."""
        for driver in self.drivers:
            driver.close()


@pytest.mark.parametrize("seed", range(4))
def test_groups_move_between_two_cores_that_are_abandoned_again_and_again(
    tmp_path: Path, seed: int
) -> None:
    pair = NativePair(tmp_path, seed)
    run = PairRun(seed, 0)
    run.pair = pair
    pair.start()
    for life in range(4):
        run.live(60, seed + 10 * life)
        pair.close()
        pair.restart(BOTH)
    pair.settle(pair.machines[1].has_room)
    log = pair.machines[1].create()  # how many moved above depends on the real threads
    pair.machines[1].vote(log, 1, 1)
    while not pair.machines[1].append(log, 3000):
        pair.turn(everything=True)
    assert pair.move(log, 1).why == ""
    pair.check()
    pair.close()
    for each in pair.roots:
        assert verify(open_core(each)).problems == []


@pytest.mark.parametrize("seed", range(2))
def test_batches_larger_than_a_file(root: Path, seed: int) -> None:
    lives = Lives(root, LARGE, seed)
    for _ in range(3):
        lives.live(lives.rng.randrange(5, 60), 50)
    machine = lives.start()
    machine.read_everything()
    lives.driver.close()
