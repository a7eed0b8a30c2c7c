"""Who belongs to a raft group: configurations as values, and which of them is in force.

A change of voters goes through *joint consensus* (section 6; thesis section 4.3): an entry with
both sets, during which every decision needs a majority of each, then an entry with the new one.
New voters are learners first (thesis section 4.2.1): they have the log before they count.

Invariants:
C1. "A server always uses the latest configuration in its log, regardless of whether the entry is
    committed" (section 6): in force from its append, and the one before it again when it is
    truncated.
C2. At most one configuration is not committed, and none is proposed before the leader has
    committed an entry of its own term (the bug found in single-server changes in 2015).
C3. A member that has left never comes back under the same id: ids carry an incarnation.
"""

import struct
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from corelane.model.ids import Index, MemberId
from corelane.model.limits import REPLICAS_MAX
from corelane.model.record import record
from corelane.raft.quorum import RoundResult, quorum_value, round_result

VERSION: Final = 1
_HEAD: Final = struct.Struct("<BBBB")  # version, counts of voters, outgoing voters and learners
_MEMBER: Final = struct.Struct("<q")


class ConfigurationError(ValueError):
    """Bytes that are no configuration."""


@record
class Configuration:
    """The members of a group; the order of *voters* is the order of preference to lead."""

    voters: tuple[MemberId, ...]
    outgoing: tuple[MemberId, ...] = ()
    """The voters before, while a change of them is under way; empty otherwise."""
    learners: tuple[MemberId, ...] = ()
    """Have the log and no vote."""

    @property
    def is_joint(self) -> bool:
        """Whether decisions need two majorities."""
        return bool(self.outgoing)

    @property
    def members(self) -> tuple[MemberId, ...]:
        """Everybody who gets the log, each once, voters first."""
        return tuple(dict.fromkeys((*self.voters, *self.outgoing, *self.learners)))

    def is_voter(self, member: MemberId) -> bool:
        """Whether *member* has a vote, in either half."""
        return member in self.voters or member in self.outgoing

    def rank(self, member: MemberId) -> int:
        """Return the place in the order of preference; those that leave come last."""
        if member in self.voters:
            return self.voters.index(member)
        return len(self.voters)

    def quorum_value(self, values: Mapping[MemberId, int]) -> int:
        """Return the largest number that a quorum has reached: of each half, where there are two.

        Every voter has one of *values*.
        """
        reached = quorum_value([values[voter] for voter in self.voters])
        if self.outgoing:
            reached = min(reached, quorum_value([values[voter] for voter in self.outgoing]))
        return reached

    def result(self, granted: Collection[MemberId], rejected: Collection[MemberId]) -> RoundResult:
        """Say where a round of voting stands: won by both halves, lost by either."""
        results = {_half(half, granted, rejected) for half in (self.voters, self.outgoing) if half}
        if RoundResult.LOST in results:
            return RoundResult.LOST
        return RoundResult.WON if results == {RoundResult.WON} else RoundResult.OPEN


def _half(
    voters: tuple[MemberId, ...], granted: Collection[MemberId], rejected: Collection[MemberId]
) -> RoundResult:
    yes = [voter for voter in voters if voter in granted]
    no = [voter for voter in voters if voter in rejected]
    return round_result(len(voters), yes, no)


def check(configuration: Configuration) -> None:
    """Assert the relations between the members; a replica that knows none yet has no voters."""
    voters, outgoing, learners = (
        configuration.voters,
        configuration.outgoing,
        configuration.learners,
    )
    for half in (voters, outgoing, learners):
        assert len(half) <= REPLICAS_MAX
        assert len(set(half)) == len(half), "a member is named twice"
    assert not set(learners) & {*voters, *outgoing}, "a learner has no vote"
    assert voters or not (outgoing or learners), "members without a voter"


def change_fault(
    current: Configuration, voters: tuple[MemberId, ...], learners: tuple[MemberId, ...]
) -> str | None:
    """Return why *current* cannot be changed to these members, or None."""
    if not voters:
        return "a group needs a voter"
    if len(voters) > REPLICAS_MAX or len(learners) > REPLICAS_MAX:
        return f"a group has at most {REPLICAS_MAX} voters, and as many learners"
    if len({*voters, *learners}) != len(voters) + len(learners):
        return "a member is named twice"
    if not set(voters) <= {*current.voters, *current.learners}:
        return "a new voter must be a learner first"
    return None


def changed(
    current: Configuration, voters: tuple[MemberId, ...], learners: tuple[MemberId, ...]
) -> Configuration:
    """Return the configuration that leads from *current* to these members."""
    assert not current.is_joint, "C2"
    assert change_fault(current, voters, learners) is None
    if set(voters) == set(current.voters):
        return Configuration(voters, (), learners)
    staying = tuple(each for each in learners if each not in current.voters)
    return Configuration(voters, current.voters, staying)


def left(joint: Configuration) -> Configuration:
    """Return the configuration that ends a change: the new voters alone."""
    assert joint.is_joint
    return Configuration(joint.voters, (), joint.learners)


def encode(configuration: Configuration) -> bytes:
    """Return the payload of a CONFIG entry."""
    check(configuration)
    halves = (configuration.voters, configuration.outgoing, configuration.learners)
    members = b"".join([_MEMBER.pack(member) for half in halves for member in half])
    return _HEAD.pack(VERSION, *map(len, halves)) + members


def decode(data: bytes) -> Configuration:
    """Return the configuration that `encode` wrote; raises ConfigurationError."""
    try:
        version, *counts = _HEAD.unpack_from(data)
    except struct.error as error:
        raise ConfigurationError("a configuration is cut") from error
    if version != VERSION:
        raise ConfigurationError(f"a configuration of version {version}")
    if len(data) != _HEAD.size + sum(counts) * _MEMBER.size:
        raise ConfigurationError("a configuration with more or fewer members than it says")
    members = [MemberId(member) for (member,) in _MEMBER.iter_unpack(data[_HEAD.size :])]
    voters, outgoing = counts[0], counts[0] + counts[1]
    found = Configuration(
        tuple(members[:voters]), tuple(members[voters:outgoing]), tuple(members[outgoing:])
    )
    try:
        check(found)
    except AssertionError as fault:
        raise ConfigurationError(f"a configuration that cannot be: {fault}") from None
    return found


class Membership:
    """The configurations of one log from the last committed one on; the last is in force (C1)."""

    __slots__ = ("_entries", "current", "index")

    def __init__(self, first: Configuration, later: Iterable[tuple[Index, Configuration]]) -> None:
        check(first)
        self._entries: list[tuple[Index, Configuration]] = [(Index(0), first)]
        self.current = first
        self.index = Index(0)
        for index, configuration in later:
            self.appended(index, configuration)

    def appended(self, index: Index, configuration: Configuration) -> None:
        """Put a configuration in force that was appended at *index*."""
        assert index > self.index, "configurations come in the order of the log"
        check(configuration)
        self._entries.append((index, configuration))
        self.index, self.current = self._entries[-1]

    def truncated(self, from_index: Index) -> bool:
        """Return to the configuration before *from_index*; say whether that is another one."""
        former = self.index
        while self._entries[-1][0] >= from_index:
            self._entries.pop()
            assert self._entries, "what is committed is never truncated"
        self.index, self.current = self._entries[-1]
        return self.index != former

    def committed(self, index: Index) -> None:
        """Forget the configurations that can never be in force again."""
        entries = self._entries
        while len(entries) > 1 and entries[1][0] <= index:
            entries.pop(0)

    def may_stand(self, member: MemberId) -> bool:
        """Whether *member* may stand for election.

        Also one that its latest configuration leaves out, while that may be truncated again: "a
        server that is not part of its own latest configuration should still start new elections,
        as it might still be needed until the Cnew entry is committed" (thesis section 4.2.2).
        Found by simulation: it alone had that entry, would not stand, and could vote for nobody.
        """
        return any(configuration.is_voter(member) for _index, configuration in self._entries)

    def is_changing(self, committed_index: Index) -> bool:
        """Whether a change is under way: nothing else may be proposed (C2)."""
        return self.current.is_joint or self.index > committed_index
