"""This node's place in the cluster: its entry in the registry, and what it asks the controller for.

On core 0. Whoever leads the controller's group decides; a node that does not asks the one that
does (`calls.py`), again and again until the fold shows what was asked for.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from corelane.cluster.commands import (
    ClusterCreated,
    Command,
    Endpoint,
    NodeRegistered,
    ProducerIdBlock,
)
from corelane.cluster.metadata import Change, Refused
from corelane.model import limits
from corelane.model.ids import CoreId
from corelane.shard.controller import Applied

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

RETRY_MS: Final = 500


class Proposer(Protocol):
    """Who brings commands to the node that leads the controller's group."""

    def propose(self, command: Command, applied: Applied) -> None:
        """Have a command decided there; *applied* hears of it as from `Controller.propose`."""


class Registration:
    """What core 0 of a node wants the controller's log to say of it."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self._ask_at_ms = 0

    def took_lead(self) -> None:
        """This core decides now: the cluster has a name, and this node its entry."""
        if self._groups.cluster.cluster_id is None:
            self._propose(ClusterCreated(self._shard.config.cluster_id), _ignored)
        self._register()

    def tick(self) -> None:
        """Ask for what is missing, now and then."""
        now_ms = self._shard.now_ms
        if now_ms >= self._ask_at_ms:
            self._ask_at_ms = now_ms + RETRY_MS
            self._register()

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

        self._propose(ProducerIdBlock(self._shard.config.node, core, first, count), applied)

    def _register(self) -> None:
        node = self._wanted()
        if self._groups.cluster.nodes.get(node.node) != node:
            self._propose(node, _ignored)

    def _propose(self, command: Command, applied: Applied) -> None:
        """Propose here, or where the controller's leader is."""
        groups = self._groups
        if groups.controller.serves or groups.peering is None:
            groups.controller.propose(command, applied)
        elif self._shard.calls is not None:
            self._shard.calls.propose(command, applied)
        else:
            applied(None)

    def _wanted(self) -> NodeRegistered:
        config = self._shard.config
        endpoints = tuple(
            Endpoint(listener.name, broker.host, broker.port, broker.broker_id % 1000)
            for listener in config.listeners
            for broker in listener.brokers
        )
        peer = config.peer
        host, port = ("", 0) if peer is None else (peer.host, peer.port)
        return NodeRegistered(
            config.node, config.config.node.rack, config.core_count, endpoints, host, port
        )


def _ignored(changes: object) -> None:
    """The proposer has nobody to tell."""
