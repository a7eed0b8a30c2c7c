"""Replicas that lose what they promised, in bad weather: short seeds, and planted bugs found."""

from collections.abc import Callable

import pytest

from corelane.raft.core import RaftGroup
from corelane.raft.loss import Recollection
from tests.simulation.raft_losses import run_seed

SEEDS = 30


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_a_group_keeps_its_promises_though_one_forgets_some(seed: int) -> None:
    run_seed(seed)


def test_the_seeds_lose_something() -> None:
    runs = [run_seed(seed) for seed in range(1, 26)]
    assert sum(run.losses for run in runs) > 10
    assert sum(run.entries_lost for run in runs) > 50


def _admits(self: Recollection, *_last: object) -> bool:
    return True


def _ends_at_once(self: RaftGroup) -> None:
    if not self.is_asking:
        self.recollection = None


@pytest.mark.parametrize(
    ("owner", "name", "planted", "seeds"),
    [
        (Recollection, "admits", _admits, (114,)),
        (RaftGroup, "_look_for_losses", _ends_at_once, (150,)),
    ],
)
def test_planted_bugs_are_found(
    owner: type,
    name: str,
    planted: Callable[..., object],
    seeds: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seeds that were found to show them; each of them passes without the bug."""
    monkeypatch.setattr(owner, name, planted)
    for seed in seeds:
        with pytest.raises(AssertionError):
            run_seed(seed)
