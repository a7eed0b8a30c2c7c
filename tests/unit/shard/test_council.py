"""Who votes in the controller's group, as a table."""

import pytest

from corelane.model.ids import MemberId, NodeId, incarnation_of, node_of
from corelane.raft.membership import Configuration
from corelane.shard.council import Bench, Wanted, is_short, member_of_directory, plan


def nodes(*numbers: int) -> tuple[MemberId, ...]:
    return tuple(MemberId(number) for number in numbers)


@pytest.mark.parametrize(
    ("voters", "learners", "registered", "expected"),
    [
        ((1,), (), (1,), False),
        ((1,), (), (1, 2), True),  # it is to listen, first
        ((1,), (2,), (1, 2), False),
        ((1,), (2, 3), (1, 2, 3), True),
        ((1, 2, 3), (), (1, 2, 3), False),
        ((1, 2, 3), (), (1, 2, 3, 4), True),
        ((1, 2, 3), (4,), (1, 2, 3, 4), False),
        ((1, 2, 3), (4, 5, 6, 7), tuple(range(1, 8)), True),
    ],
)
def test_a_council_is_short_until_all_are_there_that_should(
    voters: tuple[int, ...], learners: tuple[int, ...], registered: tuple[int, ...], expected: bool
) -> None:
    current = Configuration(nodes(*voters), (), nodes(*learners))
    assert is_short(current, Bench(nodes(*registered), ())) == expected


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
    assert plan(current, Bench(nodes(*registered), nodes(*ready))) == expected


@pytest.mark.parametrize(
    ("voters", "learners", "bench", "wanted"),
    [
        # A voter of a node that is no more goes, and a learner comes in its place.
        ((1, 2, 3), (4,), Bench(nodes(1, 2, 4), nodes(1, 2, 4)), ((1, 2, 4), ())),
        ((1, 2, 3), (), Bench(nodes(1, 2), nodes(1, 2)), ((1, 2), ())),
        ((1, 2, 3), (4, 5), Bench(nodes(1, 2, 3, 5), nodes(1, 2)), ((1, 2, 3), (5,))),
        # One that is about to be taken out listens until then.
        (
            (1, 2, 3),
            (4,),
            Bench(nodes(1, 2, 3, 4), nodes(1, 2, 3, 4), (), nodes(2)),
            ((1, 4, 3), ()),
        ),
        ((1, 4, 3), (2,), Bench(nodes(1, 2, 3, 4), nodes(1, 2, 3, 4), (), nodes(2)), None),
        # One that was silent for long gives way, but only to another.
        (
            (1, 2, 3),
            (4,),
            Bench(nodes(1, 2, 3, 4), nodes(1, 2, 4), nodes(3)),
            ((1, 2, 4), ()),
        ),
        ((1, 2, 3), (), Bench(nodes(1, 2, 3), nodes(1, 2), nodes(3)), None),
        ((1,), (), Bench((), ()), None),
    ],
)
def test_voters_that_go(
    voters: tuple[int, ...],
    learners: tuple[int, ...],
    bench: Bench,
    wanted: tuple[tuple[int, ...], tuple[int, ...]] | None,
) -> None:
    current = Configuration(nodes(*voters), (), nodes(*learners))
    expected = None if wanted is None else Wanted(nodes(*wanted[0]), nodes(*wanted[1]))
    assert plan(current, bench) == expected


def test_another_directory_is_another_member() -> None:
    """Bug 13 of the list: member ids are never used again (multiraft A7)."""
    first = member_of_directory(NodeId(7), "one")
    assert first == member_of_directory(NodeId(7), "one")
    assert node_of(first) == 7
    assert incarnation_of(first) > 0
    assert first != member_of_directory(NodeId(7), "two")
