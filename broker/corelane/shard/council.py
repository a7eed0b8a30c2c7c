"""Who votes in the controller's group: three nodes, five of seven or more; all others listen. Pure.

Every registered node has the controller's log, as a learner at least. Learners that have all of it
become voters until there are enough, and never so that the number of voters is even: of two voters
both are needed, so a second one alone would make the cluster weaker, not stronger. A voter that is
to go, or that was not heard for long, gives its place to a learner that is there; who leaves the
cluster goes when nobody is needed in its place.
"""

import hashlib
from collections.abc import Collection
from typing import Final

from corelane.model.ids import MemberId, NodeId, member_id
from corelane.model.record import record
from corelane.raft.membership import Configuration

VOTERS: Final = 3
VOTERS_OF_MANY: Final = 5
MANY_NODES: Final = 7
PATIENCE_MS: Final = 300_000
"""A voter that was silent for so long gives way, if there is another one."""


@record
class Wanted:
    """The members to change to."""

    voters: tuple[MemberId, ...]
    learners: tuple[MemberId, ...]


@record
class Bench:
    """Who could be a member."""

    members: Collection[MemberId]
    """One of each registered node."""
    ready: Collection[MemberId]
    """Those that are heard and have the whole log."""
    missed: Collection[MemberId] = ()
    """Those that were not heard for `PATIENCE_MS`."""
    leaving: Collection[MemberId] = ()
    """Those whose node is about to be taken out: they listen until then."""


def member_of_directory(node: NodeId, directory: str) -> MemberId:
    """Return the member that a node with that data directory is in the controller's group.

    A node learns of its cluster only from this group's log, so nobody can tell it beforehand which
    member it is. With another directory it is another one, and never takes the place of the first.
    """
    digest = hashlib.sha256(directory.encode()).digest()
    return member_id(node, int.from_bytes(digest[:4], "big") >> 1 or 1)


def plan(current: Configuration, bench: Bench) -> Wanted | None:
    """Return the next change of members, or None where they are as they should be."""
    assert not current.is_joint
    wanted, members = {*bench.members}, {*current.members}
    gone = tuple(each for each in current.learners if each not in wanted)
    missing = sorted(wanted - members)
    if missing or gone:
        staying = tuple(each for each in current.learners if each in wanted)
        return Wanted(current.voters, (*staying, *missing))
    count = VOTERS_OF_MANY if len(wanted - {*bench.leaving}) >= MANY_NODES else VOTERS
    candidates = sorted({*current.learners} & {*bench.ready} - {*bench.leaving})
    going = [each for each in current.voters if each not in wanted or each in bench.leaving]
    missed = [each for each in current.voters if each in bench.missed and each not in going]
    if going:
        return _without(current, going[0], candidates, may_be_fewer=True)
    if missed and candidates:
        return _without(current, missed[0], candidates, may_be_fewer=False)
    size = min(count, len(current.voters) + len(candidates))
    size -= 1 - size % 2
    added = tuple(candidates[: max(0, size - len(current.voters))])
    if not added:
        return None
    learners = tuple(node for node in current.learners if node not in added)
    return Wanted((*current.voters, *added), learners)


def is_short(current: Configuration, bench: Bench) -> bool:
    """Say whether a node is no member yet, or fewer vote than should: soon there may be more."""
    members = {*bench.members}
    staying = len(members - {*bench.leaving})
    count = min(VOTERS_OF_MANY if staying >= MANY_NODES else VOTERS, staying)
    return not members <= {*current.members} or len(current.voters) < count - (1 - count % 2)


def _without(
    current: Configuration, goes: MemberId, candidates: list[MemberId], *, may_be_fewer: bool
) -> Wanted | None:
    """Return the members without one voter, and another in its place where there is one.

    It is taken in as a learner again where it is still to listen.
    """
    voters = [*current.voters]
    if candidates:
        voters[voters.index(goes)] = candidates[0]
    elif may_be_fewer and len(voters) > 1:
        voters.remove(goes)
    else:
        return None
    learners = tuple(each for each in current.learners if each not in voters)
    return Wanted(tuple(voters), learners)
