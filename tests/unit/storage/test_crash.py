"""A crash at any step of storage's life, recovery included, loses nothing and invents nothing.

Method: `script.py` runs random operations from a seed on a simulated disk. The first run counts
its steps; then each step is one run that crashes there, with luck of its own for what survives,
recovers (crashing in that too), goes on, crashes again. `machine.py` compares everything with a
model. Here a share of steps and seeds; `python -m tests.unit.storage.hunt` for the rest.
"""

import pytest

from tests.unit.storage.machine import LARGE, SMALL
from tests.unit.storage.script import Run, crash_everywhere


@pytest.mark.parametrize("seed", range(10))
def test_small_files_crashed_at_every_second_step(seed: int) -> None:
    crash_everywhere(SMALL, seed, actions=100, stride=2)


@pytest.mark.parametrize("seed", range(100, 106))
def test_a_long_life_crashed_here_and_there(seed: int) -> None:
    crash_everywhere(SMALL, seed, actions=300, stride=13)


@pytest.mark.parametrize("seed", range(2))
def test_batches_larger_than_a_file_crashed_here_and_there(seed: int) -> None:
    crash_everywhere(LARGE, seed, actions=60, stride=5)


def test_the_script_does_what_it_is_for() -> None:
    """Every path of storage is on the way: otherwise the crashes prove little."""
    seen: dict[str, int] = {}
    for seed in range(6):
        run = Run(SMALL, seed, 0)
        run.first_life(250)
        for kind, count in run.disk.performed.items():
            seen[kind] = seen.get(kind, 0) + count
    for kind in ("WalWrite", "SegmentWrite", "SearchRead", "WalPrepare"):
        assert seen[kind] > 10, kind
    for kind in ("Sync", "CheckpointWrite", "Unlink", "Read"):
        assert seen[kind] > 1, kind
