"""The leader of the controller's group empties nodes that leave, and lets them go.

What to ask for is decided in cluster/leaving.py.

Invariants:
Z1. Nothing is remembered between two lives: what is to be done is in the fold.
Z2. These jobs ask for no more while `UNDER_WAY_MAX` partitions are being reassigned, so that who
    reassigns by hand, or calls a job off, need not wait for all of it.
"""

from typing import TYPE_CHECKING, Final

from corelane.cluster.commands import NodeForgotten
from corelane.cluster.leaving import Sweep
from corelane.model.ids import NodeId, node_of

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

LOOK_MS: Final = 250
UNDER_WAY_MAX: Final = 64
PARTITIONS_PER_LOOK: Final = 1_000
_INFO: Final = 20


class MovingOut:
    """What the controller's leader does for nodes that leave, or that lost their disk."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self._look_at_ms = 0
        self._sweep: Sweep | None = None
        self.stuck: dict[NodeId, str] = {}
        """Why a node that leaves is not empty yet, where something must be done about it."""
        self._empty: set[NodeId] = set()

    def turn(self) -> None:
        """Look at some partitions, now and then; on core 0."""
        now_ms, cluster = self._shard.now_ms, self._groups.cluster
        if now_ms < self._look_at_ms:
            return
        self._look_at_ms = now_ms + LOOK_MS
        if not self._groups.controller.serves or not (
            cluster.states.leaving or cluster.states.losses
        ):
            self._sweep = None
            self.stuck, self._empty = {}, set()
            return
        if self._sweep is None:
            self._sweep = Sweep(cluster, self._groups.is_node_up)
        room = UNDER_WAY_MAX - len(cluster.changing)
        if room <= 0:
            return
        step = self._sweep.step(PARTITIONS_PER_LOOK, room)
        for wish in step.wishes:
            self._groups.propose(wish, _ignored)
        if step.is_end:
            self._ended(self._sweep)
            self._sweep = None

    def is_empty(self, node: NodeId) -> bool:
        """Say whether a node leaves and was found to have no replicas: it is to vote no more."""
        return node in self._empty

    def _ended(self, sweep: Sweep) -> None:
        """All partitions were looked at: let go who has none, and no vote in the controller."""
        groups = self._groups
        self.stuck = sweep.stuck
        self._empty = {node for node in groups.cluster.states.leaving if node not in sweep.busy}
        configuration = groups.controller.raft.configuration
        voters = {node_of(each) for each in (*configuration.voters, *configuration.outgoing)}
        for node in self._empty - voters:
            self._shard.log(_INFO, f"node {node} has no replicas any more: it leaves the cluster")
            groups.propose(NodeForgotten(node), _ignored)


def _ignored(changes: object) -> None:
    """The fold tells."""
