"""When members of raft groups were heard, as the tables of heartbeats have it."""

# performance-critical: see STYLE.md

from corelane.model.ids import GroupId, MemberId, NodeId, Term, incarnation_of, node_of
from corelane.shard.peers.fitness import Fitness
from corelane.shard.peers.peers import Peers
from corelane.shard.peers.watch import patience_ms


class PeerContacts:
    """What raft asks (`raft.config.Contacts`), answered from the sessions with peer cores."""

    def __init__(self, peers: Peers, fitness: Fitness) -> None:
        self._peers = peers
        self._fitness = fitness

    def leader_heard_ms(self, group: GroupId, term: Term, leader: MemberId) -> int:
        """Return when a leader last listed the group; a very small number for never."""
        return self._peers.leader_heard_ms(group, term, *_place(leader))

    def follower_heard_ms(self, group: GroupId, term: Term, follower: MemberId) -> int:
        """Return when the round was sent in which a follower last listed the group."""
        return self._peers.follower_heard_ms(group, term, *_place(follower))

    def patience_ms(self) -> int:
        """Return how much longer than on time this core waits before it stands (W3)."""
        own = self._peers.watch
        return own.election_timeout_ms() - own.base_ms

    def quorum_patience_ms(self) -> int:
        """Return how much longer than on time a leader here waits to be followed (W3)."""
        base_ms = self._peers.watch.base_ms
        return patience_ms(base_ms, self._fitness.lag_ms) - base_ms

    def confirmed_ms(self, group: GroupId, term: Term, follower: MemberId) -> int:
        """Return the same for reads: what was sent before a pause does not count (W4)."""
        return self._peers.lease_from_ms(group, term, *_place(follower))


def _place(member: MemberId) -> tuple[NodeId, int]:
    return node_of(member), incarnation_of(member)
