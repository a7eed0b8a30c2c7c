"""Whole nodes of several cores in storms: a few seeds, those that found a bug, and bugs to find."""

from collections.abc import Callable
from pathlib import Path

import pytest

from corelane.raft.leadership import Leadership
from corelane.storage.group_log import GroupLog
from tests.simulation import fleet_storm
from tests.simulation.fleet import Fleet
from tests.simulation.fleet_checks import Checks, watching

SEEDS = range(4_001, 4_005)
SHORT = 4_000
KEPT = 8_000
"""Any change of the product gives a seed another story: long ones are for hunts."""
FOUND = Path(__file__).with_name("fleet_seeds.txt")


def found_seeds() -> list[int]:
    lines = FOUND.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fleet_weathers_a_storm(seed: int) -> None:
    storm = fleet_storm.run_seed(seed, SHORT)
    assert storm.fleet.event_count >= SHORT
    assert storm.checks.looks > 100
    assert storm.checks.sweeps >= SHORT // 1_000


@pytest.mark.parametrize("seed", found_seeds())
def test_a_seed_that_found_a_bug_finds_none_any_more(seed: int) -> None:
    fleet_storm.run_seed(seed, KEPT)


def test_a_seed_tells_the_same_story_twice() -> None:
    one, two = (fleet_storm.run_seed(4_010, 2_000) for _ in range(2))
    assert one.story == two.story
    assert one.fleet.event_count == two.fleet.event_count
    assert one.world.values == two.world.values


def test_a_failure_names_the_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(storm: fleet_storm.Storm) -> None:
        raise AssertionError(f"seed {storm.seed} is bad")

    monkeypatch.setattr(fleet_storm.Storm, "_compare", fail)
    with pytest.raises(AssertionError, match="seed 4001 is bad") as caught:
        fleet_storm.run_seed(4_001, 500)
    command = "python -m tests.simulation.fleet_storm --count 1 --seed 4001 --events 500 --trace"
    assert command in caught.value.__notes__[0]


def test_nodes_of_unequal_core_counts_are_one_cluster() -> None:
    fleet = Fleet(1, (1, 3, 2), Checks())
    with watching():
        fleet.run(10_000)
    known = {len(core.shard.groups.cluster.nodes) for core in fleet.cores()}
    assert (len(fleet.cores()), known) == (6, {3})


def _own_copy_alone(self: Leadership, durable_index: int, *_: object) -> int:
    return durable_index


def _commits_all(original: Callable[..., None]) -> Callable[..., None]:
    def commit(self: GroupLog, index: int) -> None:
        original(self, self.last_index if index else index)

    return commit


@pytest.mark.parametrize(
    ("owner", "name", "planted"),
    [
        (Leadership, "committed_by_quorum", _own_copy_alone),
        (GroupLog, "commit", _commits_all(GroupLog.commit)),
    ],
    ids=["commits without a quorum", "commits what raft did not"],
)
def test_it_finds_a_planted_bug(
    owner: type, name: str, planted: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, planted)
    assert any(_fails(seed) for seed in range(1, 9))


def _fails(seed: int) -> bool:
    try:
        fleet_storm.run_seed(seed, SHORT)
    except Exception:  # noqa: BLE001 whatever a planted bug leads to is looked at
        return True
    return False
