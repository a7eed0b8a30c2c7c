"""Who votes in the controller's group, as a table."""

import pytest

from corelane.model.ids import MemberId
from corelane.raft.membership import Configuration
from corelane.shard.council import Wanted, plan


def nodes(*numbers: int) -> tuple[MemberId, ...]:
    return tuple(MemberId(number) for number in numbers)


@pytest.mark.parametrize(
    ("voters", "learners", "registered", "ready", "wanted"),
    [
        ((1,), (), (1,), (1,), None),
        ((1,), (), (1, 2), (1,), ((1,), (2,))),
        ((1,), (2,), (1, 2), (1, 2), None),  # of two voters both would be needed
        ((1,), (2,), (1, 2, 3), (1, 2), ((1,), (2, 3))),
        ((1,), (2, 3), (1, 2, 3), (1, 2), None),
        ((1,), (2, 3), (1, 2, 3), (1, 2, 3), ((1, 2, 3), ())),
        ((1, 2, 3), (), (1, 2, 3), (1,), None),
        ((1, 2, 3), (), (1, 2, 3, 4), (1, 2, 3), ((1, 2, 3), (4,))),
        ((1, 2, 3), (4,), (1, 2, 3, 4), (1, 2, 3, 4), None),
        ((2,), (1, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4), ((2, 1, 3), (4,))),
        ((1, 2, 3), (4, 5, 6, 7), tuple(range(1, 8)), (4, 6), ((1, 2, 3, 4, 6), (5, 7))),
        ((1, 2, 3), (4, 5, 6, 7), tuple(range(1, 8)), (4,), None),
    ],
)
def test_plan(
    voters: tuple[int, ...],
    learners: tuple[int, ...],
    registered: tuple[int, ...],
    ready: tuple[int, ...],
    wanted: tuple[tuple[int, ...], tuple[int, ...]] | None,
) -> None:
    current = Configuration(nodes(*voters), (), nodes(*learners))
    expected = None if wanted is None else Wanted(nodes(*wanted[0]), nodes(*wanted[1]))
    assert plan(current, nodes(*registered), nodes(*ready)) == expected
