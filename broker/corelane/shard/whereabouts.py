"""On which core of another node a member is: heard of, or guessed and asked for.

A message finds a member on whichever core of its node it comes to: that core passes it on, and
what the member answers says where it is. A row of a heartbeat finds nobody elsewhere, and one that
only follows, as a new replica does, says nothing by itself. So whoever leads and does not hear a
follower although its node answers asks for it: with a heartbeat that is a message of its own.

Invariants:
K1. A member on any core of a node that answers is found, whatever was lost: it is asked for until
    it is heard.
K2. Such a heartbeat reaches a member only if it was passed on. Where the leader has the right core
    already, the frames of the session speak, and only those (`peers/watch.py`, W2).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from corelane.model import limits
from corelane.model.ids import CONTROLLER_GROUP, CoreId, GroupId, MemberId, NodeId, node_of
from corelane.shard.peers.data_link import Address, DataLink
from corelane.shard.peers.events import Up
from corelane.shard.peers.hello import PeerId

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.member import Member
    from corelane.shard.peering import Peering

ASKING_ROUND: Final = 0
"""Of a heartbeat that is a message; the frames of sessions are numbered from 1."""


class Whereabouts:
    """Where the members are that this core's members speak with."""

    def __init__(self, groups: "Groups", peering: "Peering") -> None:
        self._groups = groups
        self._peering = peering

    def of(self, group: GroupId, member: MemberId) -> PeerId:
        """Return the core that has a member of a group, or should have it."""
        node = node_of(member)
        return (node, self.core(group, node))

    def core(self, group: GroupId, node: NodeId) -> CoreId:
        """Return which core of a node has its replica, or should, by how groups are placed."""
        if group == CONTROLLER_GROUP:
            return CoreId(0)
        core = self._peering.leads.home(group, node)
        return CoreId(group % self.core_count(node)) if core is None else core

    def core_count(self, node: NodeId) -> int:
        """Return how many cores serve on a node, as it registered; one, if it did not."""
        known = self._groups.cluster.nodes.get(node)
        return 1 if known is None else known.core_count

    def ask(self, leader: "Member", now_ms: int) -> None:
        """Ask for the followers of a leader that are not heard although their nodes are (K1)."""
        raft, group, contacts = leader.raft, leader.group, self._peering.contacts
        for follower in newest(raft.configuration.members):
            if follower == raft.self_id:
                continue
            heard_ms = contacts.follower_heard_ms(group, raft.term, follower)
            if now_ms - heard_ms < limits.PEER_SILENT_MS:
                continue
            link = self._way_to(self.of(group, follower))
            if link is not None:
                address = Address(group, raft.self_id, follower)
                link.put(now_ms, address, raft.heartbeat(follower, ASKING_ROUND))

    def _way_to(self, supposed: PeerId) -> DataLink | None:
        """Return the link to the core that should have a member, or to one that knows who has."""
        peers = self._peering.peers
        for at in (supposed, (supposed[0], CoreId(0))):
            if isinstance(peers.verdict(at), Up):
                return peers.data(at)
        return None


def newest(members: Iterable[MemberId]) -> Iterable[MemberId]:
    """Return one member of each node: of two the newer one lives, the other's disk was lost."""
    return {node_of(each): each for each in sorted(members)}.values()
