"""Cores in a storm: some seeds, those that found something, and planted bugs that must be found."""

import pytest

from corelane.shard.groups import Groups
from corelane.shard.links import Link
from corelane.shard.moves import Moves
from corelane.storage.layout import LayoutError
from corelane.storage.wal_scan import CorruptWalError
from tests.simulation.node_storm import Storm
from tests.simulation.sim_disk import SimDisk

SEEDS = (
    *range(1, 11),
    75,  # memory of a request given back too early, by the test
    110,  # an older HOMES met a group that had come meanwhile
    112,  # a HELLO that crossed a parcel was taken for an answer to it
)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_doubled_whatever_the_weather(seed: int) -> None:
    Storm(seed, 3).run()


@pytest.mark.parametrize("seed", range(1, 13))
def test_power_cuts_and_other_numbers_of_cores_lose_nothing_either(seed: int) -> None:
    storm = Storm(seed, 3, has_power_cuts=True)
    storm.run()
    assert storm.power_cuts > 0


def storms(count: int) -> None:
    for seed in range(1, count + 1):
        Storm(seed, 3, has_power_cuts=True).run()


def test_a_log_that_is_not_synced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimDisk, "wal_is_synced", False)
    with pytest.raises((AssertionError, CorruptWalError, LayoutError)):
        storms(5)


def test_a_copy_that_a_move_left_behind_and_is_taken_for_the_group_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Invariant N2: of two cores that own a group the one with the higher revision has it."""
    right = Groups.owned
    monkeypatch.setattr(Groups, "owned", lambda self: dict.fromkeys(right(self), 1))
    with pytest.raises(AssertionError):
        storms(12)


def test_a_hello_that_is_taken_for_an_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Moves.sibling_back

    def hasty(self: Moves, link: Link, owned: dict[int, int]) -> None:
        for leaving in self._leaving.values():
            if leaving.sent_over is link:
                leaving.sent_over = Link(link.shard, link.conn, link.core, -1, is_retired=False)
        right(self, link, owned)  # type: ignore[arg-type]

    monkeypatch.setattr(Moves, "sibling_back", hasty)
    with pytest.raises(AssertionError, match="C1"):
        Storm(112, 3).run()
