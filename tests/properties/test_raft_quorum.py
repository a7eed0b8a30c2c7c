"""Quorums against a version that tries every subset; 1 to 7 voters.

Method: a script with three voters cannot tell `n // 2 + 1` from `n // 3 + 1`; these can.
"""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from corelane.raft.quorum import RoundResult, quorum_size, quorum_value, round_result

VOTERS = st.integers(min_value=1, max_value=7)
VALUES = st.lists(st.integers(min_value=0, max_value=9), min_size=1, max_size=7)


def majorities(count: int) -> list[tuple[int, ...]]:
    """Return every set of voters that is more than half of them."""
    sizes = [size for size in range(count + 1) if size > count - size]
    return [subset for size in sizes for subset in combinations(range(count), size)]


@given(VOTERS)
def test_any_two_quorums_share_a_voter_and_none_is_larger_than_needed(count: int) -> None:
    size = quorum_size(count)
    quorums = [set(subset) for subset in combinations(range(count), size)]
    assert all(one & other for one in quorums for other in quorums)
    smaller = [set(subset) for subset in combinations(range(count), size - 1)]
    assert any(not one & other for one in smaller for other in smaller)


@given(VALUES)
def test_the_value_of_a_quorum_is_what_some_majority_has_reached(values: list[int]) -> None:
    dumb = max(min(values[voter] for voter in subset) for subset in majorities(len(values)))
    assert quorum_value(values) == dumb


@given(VALUES)
def test_the_order_of_voters_does_not_matter(values: list[int]) -> None:
    assert quorum_value(sorted(values)) == quorum_value(sorted(values, reverse=True))


@given(st.lists(st.sampled_from(["granted", "rejected", "silent"]), min_size=1, max_size=7))
def test_a_round_is_won_or_lost_when_the_silent_cannot_change_it(answers: list[str]) -> None:
    voters = range(len(answers))
    granted = {voter for voter in voters if answers[voter] == "granted"}
    rejected = {voter for voter in voters if answers[voter] == "rejected"}
    quorums = [set(subset) for subset in majorities(len(answers))]
    is_won = any(quorum <= granted for quorum in quorums)
    can_win = any(not quorum & rejected for quorum in quorums)
    result = round_result(len(answers), granted, rejected)
    assert (result is RoundResult.WON) == is_won
    assert (result is RoundResult.LOST) == (not can_win)
