"""What a client may wish for when it reassigns replicas: checks, and the places to propose.

The errors are Kafka's (ReplicationControlManager); the sentences say what speaks against it.
"""

from collections.abc import Callable, Sequence

from corelane.cluster.creation import Refusal
from corelane.cluster.metadata import Cluster
from corelane.cluster.replicas import ANY_CORE, PartitionPlan, Place
from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.ids import BROKERS_PER_NODE, BrokerId, NodeId

IsUp = Callable[[NodeId], bool]


def plan_reassignment(
    cluster: Cluster,
    plan: PartitionPlan,
    brokers: Sequence[BrokerId] | None,
    is_up: IsUp,
    *,
    may_resize: bool = True,
) -> tuple[Place, ...] | Refusal:
    """Return where the replicas of a partition are to be; none: its change is called off.

    *is_up* says whether a node can be reached.
    """
    if brokers is None:
        if plan.change is None:
            said = "No reassignment of this partition is under way."
            return Refusal(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, said)
        return ()
    fault = _fault(cluster, brokers, is_up)
    if fault is not None:
        return Refusal(ErrorCode.INVALID_REPLICA_ASSIGNMENT, fault)
    if not may_resize and len(brokers) != len(plan.target):
        return Refusal(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"The replication factor would change from {len(plan.target)} to {len(brokers)},"
            " which the request does not allow.",
        )
    return tuple([_place(cluster, broker) for broker in brokers])


def _fault(cluster: Cluster, brokers: Sequence[BrokerId], is_up: IsUp) -> str | None:
    if not brokers:
        return "A partition needs at least one replica."
    if len(brokers) > limits.REPLICAS_MAX:
        return f"{len(brokers)} replicas are asked for; a partition can have {limits.REPLICAS_MAX}."
    nodes: list[NodeId] = []
    for broker in brokers:
        node = NodeId(broker // BROKERS_PER_NODE)
        if broker < 0 or node not in cluster.nodes:
            return f"There is no broker {broker}: no node {node} is registered."
        cores = {each.core for each in cluster.nodes[node].endpoints}
        if cores and broker % BROKERS_PER_NODE not in cores:
            return f"There is no broker {broker}: node {node} has no such core."
        if node in nodes:
            return f"Two replicas would be on node {node}: brokers are its cores ({[*brokers]})."
        if not cluster.states.takes_replicas(node):
            return f"Node {node} is being decommissioned: it gets no replicas."
        nodes.append(node)
    up = [node for node in nodes if is_up(node)]
    if len(up) < len(nodes) // 2 + 1:
        away = ", ".join(str(node) for node in nodes if node not in up)
        return (
            f"The partition would have no quorum: of its {len(nodes)} replicas those on node(s)"
            f" {away} cannot be reached. Start them first, or choose others."
        )
    return None


def _place(cluster: Cluster, broker: BrokerId) -> Place:
    node, core = NodeId(broker // BROKERS_PER_NODE), broker % BROKERS_PER_NODE
    has_core = core < cluster.nodes[node].core_count
    return Place(node, core if has_core else ANY_CORE)
