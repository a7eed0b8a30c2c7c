"""This node's place in the cluster: its entry in the registry, and what it asks the controller for.

On core 0. Whoever leads the controller's group decides; a node that does not asks the one that
does (`calls.py`), again and again until the fold shows what was asked for.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from corelane.cluster.changes import Change, Refused
from corelane.cluster.commands import (
    ClusterCreated,
    DrainNode,
    Endpoint,
    NodeRegistered,
    ProducerIdBlock,
)
from corelane.cluster.node_states import other_directory_sentence
from corelane.model import limits
from corelane.model.features import TRANSACTION_VERSION
from corelane.model.ids import CONTROLLER_GROUP, CoreId, MemberId, NodeId, Term, node_of
from corelane.raft.events import ChangeMembers
from corelane.shard import council
from corelane.shard.balancer import Balancer
from corelane.shard.controller import Applied
from corelane.shard.council import Bench
from corelane.shard.moving_out import MovingOut

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

RETRY_MS: Final = 500
HURRY_MS: Final = 10_000
"""So long after a change of the registry the council is looked at every `HURRIED_MS`."""
HURRIED_MS: Final = 20
_ERROR: Final = 40


class Registration:
    """What core 0 of a node wants the controller's log to say of it."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self._ask_at_ms = 0
        self._said = ""
        self._moving_out = MovingOut(shard, groups)
        self._balancer = Balancer(shard, groups)
        self.patience_ms = council.PATIENCE_MS
        self._is_short = False
        self._hurry_at_ms = 0
        self._hurry_until_ms = 0
        self._heard_term = Term(0)
        self._heard_ms: dict[MemberId, int] = {}

    @property
    def stuck(self) -> dict[NodeId, str]:
        """Why nodes are not empty, or not full yet, where somebody must do something about it."""
        return self._balancer.stuck | self._moving_out.stuck

    def took_lead(self) -> None:
        """This core decides now: the cluster has a name, and this node its entry."""
        if self._groups.cluster.cluster_id is None:
            self._groups.propose(ClusterCreated(self._shard.config.cluster_id), _ignored)
        self._register()

    def nodes_changed(self) -> None:
        """The registry has changed: a node that joins should vote as soon as it has everything."""
        self._is_short = True
        self._hurry_until_ms = self._shard.now_ms + HURRY_MS

    def tick(self) -> None:
        """Ask for what is missing, now and then."""
        self._moving_out.turn()
        self._balancer.turn()
        now_ms = self._shard.now_ms
        if now_ms >= self._ask_at_ms:
            self._ask_at_ms = now_ms + RETRY_MS
            self._register()
            self._council()
            self._end_drain()
        elif self._is_short and self._hurry_at_ms <= now_ms < self._hurry_until_ms:
            self._hurry_at_ms = now_ms + HURRIED_MS
            self._council()

    @property
    def is_resized(self) -> bool:
        """Whether this start has another number of cores than the registry knows."""
        config = self._shard.config
        known = self._groups.cluster.nodes.get(config.node)
        return known is not None and known.core_count != config.core_count

    def propose_producer_ids(self, core: CoreId) -> None:
        """Have a block of producer ids granted to *core* of this node."""
        groups = self._groups
        count = limits.PRODUCER_ID_BLOCK_COUNT
        first = groups.cluster.next_producer_id
        if groups.controller.serves:
            first = groups.reservations.producer_ids(count)

        def applied(changes: Sequence[Change] | None) -> None:
            # Another node may have asked for the same block, which it then has.
            if changes is None or any(isinstance(change, Refused) for change in changes):
                groups.siblings.ids_refused(core)

        self._groups.propose(ProducerIdBlock(self._shard.config.node, core, first, count), applied)

    def _register(self) -> None:
        node = self._wanted()
        if self._groups.cluster.nodes.get(node.node) != node and not self.is_foreign:
            self._groups.propose(node, self._registered)

    def say_again(self, applied: Applied) -> None:
        """Have decided what the registry says already: who hears of that has all before it."""
        known = self._groups.cluster.nodes.get(self._shard.config.node)
        if known is None:
            applied(None)
        else:
            self._groups.propose(known, applied)

    def _end_drain(self) -> None:
        """A drain ends with the life of the node that it was asked for."""
        config = self._shard.config
        life = self._groups.cluster.states.drained.get(config.node)
        if life is not None and config.peer is not None and life != config.peer.boot:
            self._groups.propose(DrainNode(config.node, 0), _ignored)

    def _registered(self, changes: Sequence[Change] | None) -> None:
        """Say once why this node is not let in; it asks again all the same."""
        refused = next((each for each in changes or () if isinstance(each, Refused)), None)
        if refused is not None and refused.sentence != self._said:
            self._said = refused.sentence
            self._shard.log(_ERROR, refused.sentence)

    def stands_down(self) -> bool:
        """Say whether to open nothing: this directory is not the registered one, or not yet.

        The fold may be known in part only when it is first acted on; that it names this very
        directory shows that no other one made promises in this node's name.
        """
        config, sentence = self._shard.config, other_directory_sentence(self._shard.config.node)
        if config.peer is None:
            return False
        if not self.is_foreign:
            return config.node not in self._groups.cluster.nodes
        if self._groups.siblings.is_controller and self._said != sentence:
            self._said = sentence
            self._groups.controller.is_damaged = True
            self._shard.log(_ERROR, sentence)
        return True

    @property
    def is_foreign(self) -> bool:
        """Whether this node's id is registered with another data directory: that one's is lost."""
        peer = self._shard.config.peer
        known = self._groups.cluster.nodes.get(self._shard.config.node)
        return (
            peer is not None and known is not None and known.directory not in {"", peer.directory}
        )

    def _council(self) -> None:
        """As the controller's leader, have the right nodes vote in its group."""
        controller = self._groups.controller
        raft = controller.raft
        if not controller.serves or raft.membership.is_changing(raft.committed_index):
            return
        now_ms = self._shard.now_ms
        members = [each for each in map(self._member, self._groups.cluster.nodes.values()) if each]
        in_sync = {*raft.in_sync(now_ms)}
        bench = Bench(
            members,
            [member for member in members if member in in_sync and self._has_all(member)],
            [member for member in raft.configuration.voters if self._is_missed(member)],
            [member for member in members if self._moving_out.is_empty(node_of(member))],
        )
        wanted = council.plan(raft.configuration, bench)
        self._is_short = wanted is not None or council.is_short(raft.configuration, bench)
        if wanted is not None:
            controller.step(now_ms, ChangeMembers(wanted.voters, wanted.learners))

    def _member(self, node: NodeRegistered) -> MemberId | None:
        """Return which member of the controller's group a node is, or is to be; None: none yet."""
        own = council.member_of_directory(node.node, node.directory)
        if node.node not in self._groups.cluster.states.losses:
            for member in self._groups.controller.raft.configuration.members:
                if node_of(member) == node.node:
                    return member
        return own if node.directory else None

    def _is_missed(self, member: MemberId) -> bool:
        """Say whether a member has not been heard for long, by this leader."""
        raft, now_ms = self._groups.controller.raft, self._shard.now_ms
        peering = self._groups.peering
        if member == raft.self_id or peering is None:
            return False
        if self._heard_term != raft.term:
            self._heard_term, self._heard_ms = raft.term, {}
        asked = (CONTROLLER_GROUP, raft.term, member)
        heard_ms = peering.contacts.follower_heard_ms(*asked)
        since_ms = self._heard_ms.setdefault(member, now_ms)
        self._heard_ms[member] = max(since_ms, heard_ms)
        return now_ms - self._heard_ms[member] >= self.patience_ms

    def _has_all(self, member: MemberId) -> bool:
        raft = self._groups.controller.raft
        return member == raft.self_id or raft.is_caught_up(member)

    def _wanted(self) -> NodeRegistered:
        config = self._shard.config
        endpoints = tuple(
            Endpoint(listener.name, broker.host, broker.port, broker.broker_id % 1000)
            for listener in config.listeners
            for broker in listener.brokers
        )
        peer = config.peer
        node = NodeRegistered(
            config.node,
            config.config.node.rack,
            config.core_count,
            endpoints,
            transaction_version=TRANSACTION_VERSION,
        )
        if peer is None:
            return node
        return replace(node, peer_host=peer.host, peer_port=peer.port, directory=peer.directory)


def _ignored(changes: object) -> None:
    """The proposer has nobody to tell."""
