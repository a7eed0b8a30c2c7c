"""The rows by which this core's leaders are named in the heartbeats to their followers' cores.

Invariants:
A1. A leader that is new, or whose members or their cores changed, has its rows with this turn.
A2. What a row says is committed is brought up to date when a heartbeat is about to leave, not with
    every commit: nobody reads it before.
"""

# performance-critical: see STYLE.md

from typing import TYPE_CHECKING

from corelane.model.ids import GroupId, NodeId, incarnation_of
from corelane.shard.member import Member
from corelane.shard.peers.hello import PeerId
from corelane.shard.peers.peers import Peers
from corelane.shard.whereabouts import Whereabouts, newest

if TYPE_CHECKING:
    from corelane.shard.groups import Groups


class LedRows:
    """The leaders of one core, each with the peers that beat for it."""

    def __init__(self, groups: "Groups", peers: Peers, whereabouts: Whereabouts) -> None:
        self._groups = groups
        self._peers = peers
        self._whereabouts = whereabouts
        self._late: dict[GroupId, Member] = {}  # whose rows are not up to date
        self._committed: dict[GroupId, Member] = {}  # the same, but only a heartbeat needs them
        self._placed: dict[GroupId, dict[NodeId, PeerId]] = {}

    def put(self, member: Member) -> None:
        """Bring the rows of a leader up to date with this turn."""
        self._late[member.group] = member

    def committed(self, member: Member) -> None:
        """Bring the rows of a leader up to date before they are read (A2)."""
        if self._placed.get(member.group):  # nobody else has a row of who stands alone
            self._committed[member.group] = member

    def drop(self, group: GroupId) -> None:
        """Name a group no more: it is not led here."""
        for peer in self._placed.pop(group, {}).values():
            self._drop_row(group, peer)
        self._late.pop(group, None)
        self._committed.pop(group, None)

    def peers_of(self, group: GroupId) -> list[PeerId]:
        """Return the cores that are told of a group."""
        return [*self._placed.get(group, {}).values()]

    def groups_at(self, node: NodeId) -> list[GroupId]:
        """Return the groups led here that a core of *node* is told of."""
        return [group for group, placed in self._placed.items() if node in placed]

    def turn(self, now_ms: int) -> None:
        """Put what is to be put before this turn's heartbeats."""
        if self._committed and self._peers.is_beat_due(now_ms):
            committed, self._committed = self._committed, {}
            self._late.update(committed)
        if self._late:
            late, self._late = self._late, {}
            for member in late.values():
                self._place(member)

    def _place(self, member: Member) -> None:
        """Have a leader's row in the frames to the cores that have its followers."""
        raft, group = member.raft, member.group
        if not raft.is_leader or self._groups.members.get(group) is not member:
            return
        placed = self._placed.setdefault(group, {})
        former = dict(placed)
        placed.clear()
        for follower in newest(raft.configuration.members):
            if follower == raft.self_id:
                continue
            peer = self._whereabouts.of(group, follower)
            session = self._peers.session(peer)
            if session is None:
                self._late[group] = member  # it is not registered yet, or no more
                continue
            committed = raft.heartbeat(follower, 0).committed_index
            incarnations = (incarnation_of(raft.self_id), incarnation_of(follower))
            session.led.put(group, raft.term, committed, incarnations)
            placed[peer[0]] = peer
        for node, peer in former.items():
            if placed.get(node) != peer:
                self._drop_row(group, peer)

    def _drop_row(self, group: GroupId, peer: PeerId) -> None:
        session = self._peers.session(peer)
        if session is not None:
            session.led.drop(group)
