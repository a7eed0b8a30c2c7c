"""Says what a node waits for while nobody leads the cluster, and whom to start.

On core 0, from the controller's group: without a leader there nothing can be decided, and a node
that starts is not ready before there is one.
"""

from typing import TYPE_CHECKING, Final

from corelane.model.ids import NodeId, node_of

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

PATIENCE_MS: Final = 3_000
"""An election is over by then, where one is possible."""
AGAIN_MS: Final = 30_000
_INFO: Final = 20
_WARNING: Final = 30


class Majority:
    """Whether the cluster has one, as told to people."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self._say_at_ms: int | None = None
        self._is_said = False

    def tick(self) -> None:
        """Look whether the controller's group is led, and say so if it is not for long."""
        now_ms = self._shard.now_ms
        if self._groups.controller.raft.leader is not None:
            if self._is_said:
                self._shard.log(_INFO, "the cluster has a majority of its nodes again")
            self._say_at_ms, self._is_said = None, False
        elif self._say_at_ms is None:
            self._say_at_ms = now_ms + PATIENCE_MS
        elif now_ms >= self._say_at_ms:
            self._say_at_ms = now_ms + AGAIN_MS
            self._is_said = True
            self._shard.log(_WARNING, self._sentence())

    def _sentence(self) -> str:
        own = self._shard.config.node
        voters = [node_of(each) for each in self._groups.controller.raft.configuration.voters]
        if not voters:
            return (
                "waiting for a node that leads the cluster to say who is in it. Start the nodes"
                " that corelane.seeds names, or look at the network to them."
            )
        missing = [node for node in voters if node != own and not self._is_up(node)]
        quorum = len(voters) // 2 + 1
        if len(voters) - len(missing) >= quorum:
            return f"waiting for the nodes {_listed(voters)} to choose which of them leads"
        return (
            f"waiting for a majority: of the nodes {_listed(voters)}, {quorum} are needed, and"
            f" {_listed(missing)} cannot be reached. Start them, or look at the network between."
        )

    def _is_up(self, node: NodeId) -> bool:
        peering = self._groups.peering
        return peering is not None and peering.is_node_up(node)


def _listed(nodes: list[NodeId]) -> str:
    names = [str(node) for node in sorted(nodes)]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
