"""Leaderships go home: back to the replica that is first in its group's list, a few at a time.

A node that was away leads nothing when it is back, and the others do its work until its
leaderships are handed back: not before it has been up for a while and has everything, and never
so many at once that clients would notice (DESIGN section 7: all of them within a minute).
"""

from typing import TYPE_CHECKING, Final

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


class Homecoming:
    """The leaderships of one core that others are preferred for."""

    def __init__(self, shard: "Shard", groups: "Groups", peering: "Peering") -> None:
        self._shard = shard
        self._groups = groups
        self._peering = peering
        self._up_since_ms: dict[PeerId, int] = {}
        self._look_at_ms = 0
        self._at_once = AT_ONCE_MIN
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

    def turn(self) -> None:
        """Hand over some of what others should lead, now and then."""
        now_ms = self._shard.now_ms
        if self._is_all_home or now_ms < self._look_at_ms:
            return
        self._look_at_ms = now_ms + LOOK_MS
        members = self._groups.members.values()
        away = [each for each in members if each.raft.is_leader and _is_away(each)]
        self._is_all_home = not away
        astray = [each for each in away if self._is_astray(each)]
        if not astray:
            self._at_once = AT_ONCE_MIN
            return
        self._at_once = max(self._at_once, len(astray) // ROUNDS)
        for member in astray[: self._at_once]:
            member.step(now_ms, TransferLeadership(member.raft.configuration.voters[0]))

    def _is_astray(self, member: "Member") -> bool:
        raft = member.raft
        if not member.serves or raft.configuration.is_joint:
            return False
        home = raft.configuration.voters[0]
        if not raft.is_caught_up(home):
            return False
        peer = self._peering.place_of(member.group, home)
        since_ms = self._up_since_ms.get(peer)
        is_back = since_ms is not None and self._shard.now_ms - since_ms >= UP_MS_MIN
        return is_back and self._peering.peers.may_take_over(peer)


def _is_away(leader: "Member") -> bool:
    voters = leader.raft.configuration.voters
    return voters[0] != leader.raft.self_id
