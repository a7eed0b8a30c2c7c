"""The broker in simulation: seeds that must pass, and planted bugs that must be found.

A seed that once failed stays in seeds.txt with the bug it found.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from corelane.api.produce_append import RowAppend
from corelane.model.ids import Index
from corelane.producers.sequences import ACCEPT, ProducerTable
from corelane.shard import groups
from corelane.storage.effects import DiskDone, WalWrite
from corelane.storage.group_log import GroupLog
from tests.simulation.sim_disk import Queue, SimDisk
from tests.simulation.world import run_seed

SEEDS_PER_RUN = 40
HUNT_SEEDS_MAX = 60


def known_seeds() -> list[int]:
    """Return the seeds that found bugs."""
    lines = (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("seed", known_seeds())
def test_a_seed_that_found_a_bug_stays_good(seed: int) -> None:
    run_seed(seed)


@pytest.mark.parametrize("first", range(100, 100 + SEEDS_PER_RUN, 10))
def test_ten_seeds(first: int) -> None:
    for seed in range(first, first + 10):
        run_seed(seed)


def test_the_same_seed_gives_the_same_run() -> None:
    traces = [run_seed(4).simulator.trace for _ in range(2)]
    assert traces[0] == traces[1]


def answer_early(patch: pytest.MonkeyPatch) -> None:
    """Answer a produce when its batch was appended, not when it is durable."""
    append = RowAppend._append

    def early(self: RowAppend, address: int, max_timestamp_ms: int, keyless: int) -> None:
        append(self, address, max_timestamp_ms, keyless)
        for waits in (self.partition.commit_waits, self.partition.sync_waits):
            if waits and waits[-1][1] is self:
                waits.pop()
                self.settled(is_lost=False)

    patch.setattr(RowAppend, "_append", early)


def never_sync(patch: pytest.MonkeyPatch) -> None:
    """Say that a WAL write is durable while the disk may still lose it."""
    complete = SimDisk.complete

    def unsynced(self: SimDisk, queue: Queue) -> DiskDone:
        effect = self.queues[queue][0]
        if isinstance(effect, WalWrite):
            self._step()
            self.queues[queue].popleft()
            self._perform(effect)
            return DiskDone(effect.job, 0)
        return complete(self, queue)

    patch.setattr(SimDisk, "complete", unsynced)


def forget_producers(patch: pytest.MonkeyPatch) -> None:
    """Do not fold the recovered tail into the producers' table."""
    patch.setattr(groups, "_refold", lambda *_arguments: None)


def take_duplicates(patch: pytest.MonkeyPatch) -> None:
    """Append whatever an idempotent producer sends."""
    patch.setattr(ProducerTable, "check", lambda *_arguments: ACCEPT)


def show_uncommitted(patch: pytest.MonkeyPatch) -> None:
    """Let readers see what was only appended."""
    load = GroupLog.load

    def visible(self: GroupLog, index: Index, entry: object) -> None:
        load(self, index, entry)  # type: ignore[arg-type]
        self.committed_offset = self.next_offset

    patch.setattr(GroupLog, "load", visible)


BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "answer early": answer_early,
    "never sync": never_sync,
    "forget producers": forget_producers,
    "take duplicates": take_duplicates,
    "show uncommitted": show_uncommitted,
}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    for seed in range(1, HUNT_SEEDS_MAX):
        try:
            run_seed(seed)
        except AssertionError:
            return
    pytest.fail(f"{HUNT_SEEDS_MAX} seeds did not find: {name}")
