"""Who votes in the controller's group: three nodes, five of seven or more; all others listen. Pure.

Every registered node has the controller's log, as a learner at least. Learners that have all of it
become voters until there are enough, and never so that the number of voters is even: of two voters
both are needed, so a second one alone would make the cluster weaker, not stronger.
"""

from collections.abc import Collection
from typing import Final

from corelane.model.ids import MemberId
from corelane.model.record import record
from corelane.raft.membership import Configuration

VOTERS: Final = 3
VOTERS_OF_MANY: Final = 5
MANY_NODES: Final = 7


@record
class Wanted:
    """The members to change to."""

    voters: tuple[MemberId, ...]
    learners: tuple[MemberId, ...]


def plan(
    current: Configuration, nodes: Collection[MemberId], ready: Collection[MemberId]
) -> Wanted | None:
    """Return the next change of members, or None where they are as they should be.

    *nodes* are registered; *ready* are those that are heard and have the whole log.
    """
    assert not current.is_joint
    missing = sorted(set(nodes) - set(current.members))
    if missing:
        return Wanted(current.voters, (*current.learners, *missing))
    count = VOTERS_OF_MANY if len(nodes) >= MANY_NODES else VOTERS
    candidates = sorted(set(current.learners) & set(ready))
    wanted = min(count, len(current.voters) + len(candidates))
    wanted -= 1 - wanted % 2
    added = tuple(candidates[: max(0, wanted - len(current.voters))])
    if not added:
        return None
    learners = tuple(node for node in current.learners if node not in added)
    return Wanted((*current.voters, *added), learners)
