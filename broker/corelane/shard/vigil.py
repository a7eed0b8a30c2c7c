"""Whose time must be looked at: not that of groups for which a peer's heartbeats stand.

A frame that repeats the last one says of all its groups at once that their leader, or their
followers, are there. So nobody looks at the deadline of such a group: it rests until the frames
fall silent, or stop listing it, or its own member changes its mind. Idle groups cost nothing but
their row in those frames.

Invariants:
V1. A group rests only while its member follows, or leads and does not hand over, and the frames
    that it rests on list it at its term: its deadline then lies a whole election time-out behind
    the last of them.
V2. It is looked at again within `SWEEP_MS` of the moment at which one of these frames is missing
    for `PEER_SILENT_MS`, which is earlier than any deadline that V1 allows.
V3. Whoever changes role, term, leader or members, or begins to hand over, says so (`awake`).
"""

# performance-critical: see STYLE.md

from collections.abc import Iterable
from typing import Final

from corelane.model import limits
from corelane.model.ids import GroupId, MemberId, Term, incarnation_of, node_of
from corelane.raft.events import Tick
from corelane.raft.state import NEVER_MS
from corelane.shard.member import Member
from corelane.shard.peers.beats import mark
from corelane.shard.peers.peers import Peers
from corelane.shard.peers.roll import Roll

SWEEP_MS: Final = 50
"""How late an election may begin."""
ELECTION_TIMEOUT_MS: Final = 1_000
_TICK: Final = Tick()

assert limits.PEER_SILENT_MS + SWEEP_MS < ELECTION_TIMEOUT_MS, "V2"
assert 3 * limits.PEER_LATE_MS_MAX < ELECTION_TIMEOUT_MS


class _Resting:
    """The groups that rest on the frames of one peer."""

    __slots__ = ("groups", "losses")

    def __init__(self, losses: int) -> None:
        self.groups: set[GroupId] = set()
        self.losses = losses


class Vigil:
    """The members of one core that have company, and which of them are looked at."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._awake: dict[GroupId, Member] = {}
        self._asleep: dict[GroupId, tuple[Member, tuple[Roll, ...]]] = {}
        self._rolls: dict[Roll, _Resting] = {}

    @property
    def is_needed(self) -> bool:
        """Whether anybody's deadline has to be looked at every `SWEEP_MS`."""
        return bool(self._awake)

    def awake(self, member: Member) -> None:
        """Look at the deadline of a member from now on."""
        self._unrest(member.group)
        self._awake[member.group] = member

    def forget(self, group: GroupId) -> None:
        """A member is here no more."""
        self._unrest(group)
        self._awake.pop(group, None)

    def sweep(self, now_ms: int) -> None:
        """Let the members whose deadline has come act."""
        for roll, resting in [*self._rolls.items()]:
            if resting.losses != roll.losses or not _is_fresh(roll, now_ms):
                for group in [*resting.groups]:
                    self.awake(self._asleep[group][0])
        due = [each for each in self._awake.values() if each.raft.deadline_ms <= now_ms]
        for member in due:
            if takes_part(member):
                member.step(now_ms, _TICK)
                self._rest_if_heard(member, now_ms)
        alone = [each for each in self._awake.values() if each.raft.deadline_ms >= NEVER_MS]
        for member in alone:
            self._rest(member, ())

    def _rest_if_heard(self, member: Member, now_ms: int) -> None:
        """Let a member rest whose deadline has moved on because it heard, or was heard (V1)."""
        raft = member.raft
        if self._awake.get(member.group) is not member or raft.leader is None:
            return
        if raft.recollection is not None:
            return  # it has something to say (raft/loss.py, L5)
        if not raft.is_leader:
            heard = [each.heard for each in self._peers.sessions(node_of(raft.leader))]
            roll = _listing(heard, member.group, raft.term, raft.leader)
            if roll is not None and _is_fresh(roll, now_ms):
                self._rest(member, (roll,))
            return
        if raft.is_transferring or raft.configuration.is_joint:
            return
        rolls: list[Roll] = []
        is_heard = {raft.self_id: 1}
        for voter in raft.configuration.voters:
            if voter != raft.self_id:
                answers = [each.answers for each in self._peers.sessions(node_of(voter))]
                roll = _listing(answers, member.group, raft.term, voter)
                is_heard[voter] = 0
                if roll is not None and _is_fresh(roll, now_ms):
                    is_heard[voter] = 1
                    rolls.append(roll)
        if raft.configuration.quorum_value(is_heard):
            self._rest(member, tuple(rolls))

    def _rest(self, member: Member, rolls: tuple[Roll, ...]) -> None:
        group = member.group
        del self._awake[group]
        self._asleep[group] = (member, rolls)
        for roll in rolls:
            resting = self._rolls.get(roll)
            if resting is None:
                resting = self._rolls[roll] = _Resting(roll.losses)
            resting.groups.add(group)

    def _unrest(self, group: GroupId) -> None:
        for roll in self._asleep.pop(group, (None, ()))[1]:
            groups = self._rolls[roll].groups
            groups.discard(group)
            if not groups:
                del self._rolls[roll]


def _listing(rolls: Iterable[Roll], group: GroupId, term: Term, member: MemberId) -> Roll | None:
    """Return which of a node's frames list a group at that term, for that member."""
    wanted = mark(term, incarnation_of(member))
    return next((roll for roll in rolls if roll.marks.get(group) == wanted), None)


def _is_fresh(roll: Roll, now_ms: int) -> bool:
    return now_ms - roll.at_ms < limits.PEER_SILENT_MS


def takes_part(member: Member) -> bool:
    """Whether a member may act at all: it is whole, and not on its way to another core."""
    return not member.is_damaged and not member.log.is_leaving
