"""Cores in a storm: some seeds, those that found something, and planted bugs that must be found."""

import pytest

from corelane.shard.links import Link
from corelane.shard.moves import Moves
from tests.simulation.node_storm import Storm

SEEDS = (
    *range(1, 11),
    75,  # memory of a request given back too early, by the test
    110,  # an older HOMES met a group that had come meanwhile
    112,  # a HELLO that crossed a parcel was taken for an answer to it
)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_doubled_whatever_the_weather(seed: int) -> None:
    Storm(seed, 3).run()


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
