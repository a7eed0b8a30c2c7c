"""Leaderships go home: back to the replica that is first in its group's list, a few at a time.

A node that was away leads nothing when it is back, and the others do its work until its
leaderships are handed back: not before it has been up and punctual for a while and has
everything, and never so many at once that clients would notice (DESIGN section 7: all of them
within a minute). One that did not get there is tried again ever later, behind all others.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from corelane.model.ids import GroupId, node_of
from corelane.model.record import record
from corelane.raft.events import TransferLeadership
from corelane.shard.peers.events import Up, Verdict
from corelane.shard.peers.hello import PeerId

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.member import Member
    from corelane.shard.peering import Peering
    from corelane.shard.shard import Shard

UP_MS_MIN: Final = 10_000
LOOK_MS: Final = 500
ROUNDS: Final = 60
"""All that is to go home goes in so many looks: in half a minute."""
AT_ONCE_MIN: Final = 4
RETRY_MS: Final = 5_000
"""After a first try; twice as long after each that follows."""
RETRY_MS_MAX: Final = 300_000
HURRY_MS: Final = 5_000
"""How long the wish of an operator is tried to be fulfilled."""


@record
class _Tried:
    """Hand-overs of a group."""

    count: int
    last_ms: int

    @property
    def again_ms(self) -> int:
        """Return when it is tried again."""
        return self.last_ms + min(RETRY_MS << min(self.count - 1, 10), RETRY_MS_MAX)


class Homecoming:
    """The leaderships of one core that others are preferred for."""

    def __init__(self, shard: "Shard", groups: "Groups", peering: "Peering") -> None:
        self._shard = shard
        self._groups = groups
        self._peering = peering
        self._up_since_ms: dict[PeerId, int] = {}
        self._look_at_ms = 0
        self._at_once = AT_ONCE_MIN
        self._tried: dict[GroupId, _Tried] = {}
        self._hurried: dict[GroupId, int] = {}
        self._is_all_home = False

    def led(self) -> None:
        """A member has become a leader, or its members have changed."""
        self._is_all_home = False

    def judged(self, peer: PeerId, verdict: Verdict) -> None:
        """Take note since when a peer core can be reached."""
        if isinstance(verdict, Up):
            self._up_since_ms.setdefault(peer, self._shard.now_ms)
        else:
            self._up_since_ms.pop(peer, None)

    def wanted(self, groups: Iterable[GroupId]) -> None:
        """An operator wants the preferred replicas of these groups to lead now."""
        until_ms = self._shard.now_ms + HURRY_MS
        for group in groups:
            if group in self._groups.members:
                self._hurried[group] = until_ms
        self._look_at_ms = 0
        self._is_all_home = False

    def turn(self) -> None:
        """Hand over some of what others should lead, now and then."""
        now_ms = self._shard.now_ms
        if self._is_all_home or now_ms < self._look_at_ms:
            return
        self._look_at_ms = now_ms + LOOK_MS
        if self._hurried:
            self._hurry()
        members = self._groups.members.values()
        away = [each for each in members if each.raft.is_leader and _is_away(each)]
        self._is_all_home = not away
        astray = [each for each in away if self._is_astray(each)]
        if not astray:
            self._at_once = AT_ONCE_MIN
            self._tried = {
                group: each
                for group, each in self._tried.items()
                if now_ms - each.last_ms < 2 * RETRY_MS_MAX
            }
            return
        self._at_once = max(self._at_once, len(astray) // ROUNDS)
        if self._tried:
            astray.sort(key=self._last_tried_ms)  # stable: the first of the list first
        for member in astray[: self._at_once]:
            self._hand_over(member)

    def _hurry(self) -> None:
        now_ms = self._shard.now_ms
        for group, until_ms in [*self._hurried.items()]:
            member = self._groups.members.get(group)
            if member is None or not member.raft.is_leader or now_ms >= until_ms:
                del self._hurried[group]
            elif self._has_home(member, 0, is_wanted=True):
                self._hand_over(member)

    def _hand_over(self, member: "Member") -> None:
        now_ms, former = self._shard.now_ms, self._tried.get(member.group)
        self._tried[member.group] = _Tried(1 if former is None else former.count + 1, now_ms)
        member.step(now_ms, TransferLeadership(member.raft.configuration.voters[0]))

    def _last_tried_ms(self, member: "Member") -> int:
        tried = self._tried.get(member.group)
        return -1 if tried is None else tried.last_ms

    def _is_astray(self, member: "Member") -> bool:
        tried = self._tried.get(member.group)
        if tried is not None and self._shard.now_ms < tried.again_ms:
            return False
        return self._has_home(member, UP_MS_MIN)

    def _has_home(self, member: "Member", up_ms_min: int, *, is_wanted: bool = False) -> bool:
        """Say whether another one is preferred to lead, and could.

        It has everything. Under load nobody else may ever be seen to: if this is *wanted* it is
        enough to be in sync, as it catches up in a moment while nothing is appended.
        """
        raft = member.raft
        if not member.serves or raft.configuration.is_joint or raft.is_transferring:
            return False
        home = raft.configuration.voters[0]
        if not raft.is_caught_up(home) and not (
            is_wanted and home in raft.in_sync(self._shard.now_ms)
        ):
            return False
        if node_of(home) in self._groups.cluster.states.drained:
            return False
        peer = self._peering.whereabouts.of(member.group, home)
        since_ms = self._up_since_ms.get(peer)
        is_back = since_ms is not None and self._shard.now_ms - since_ms >= up_ms_min
        return is_back and self._peering.fitness.is_steady(peer, up_ms_min)


def _is_away(leader: "Member") -> bool:
    voters = leader.raft.configuration.voters
    return voters[0] != leader.raft.self_id
