"""What a majority of voters says: two calculations, checked against a dumb version in the tests.

Nothing here can act. A joint configuration is the smaller answer of its two halves, so it will
call these twice.
"""

from collections.abc import Collection, Sequence
from enum import Enum, auto


class RoundResult(Enum):
    """Where a round of voting stands."""

    OPEN = auto()
    WON = auto()
    LOST = auto()


def quorum_size(voter_count: int) -> int:
    """Return how many voters make a majority; of 4 it is 3, never half."""
    assert voter_count > 0
    return voter_count // 2 + 1


def quorum_value(values: Sequence[int]) -> int:
    """Return the largest number that a quorum of *values* (one per voter) has reached.

    With match indexes this is the paper's "N such that a majority of matchIndex[i] >= N"
    (figure 2); with times of contact, the last time at which a quorum had been heard.
    """
    assert values
    return sorted(values)[(len(values) - 1) // 2]


def round_result(
    voter_count: int, granted: Collection[object], rejected: Collection[object]
) -> RoundResult:
    """Say whether a round is decided, by the distinct voters that answered so far."""
    assert len(granted) + len(rejected) <= voter_count
    quorum = quorum_size(voter_count)
    if len(granted) >= quorum:
        return RoundResult.WON
    if voter_count - len(rejected) < quorum:
        return RoundResult.LOST
    return RoundResult.OPEN
