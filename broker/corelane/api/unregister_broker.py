"""UnregisterBroker (key 64), version 0: a node is part of the cluster no more (KIP-500).

`kafka-cluster unregister --id N` asks for it, when a node is gone for good. It leaves what
`corelane cluster decommission` leaves in the end: no node, and no replica on it. Kafka also takes
out a node that has replicas, which then count as missing for ever; here a partition's members are
its quorum, so that is refused, and the sentence says which replica it is and what to do instead. A
node that is there, and has none, is taken out as by a decommission: without a moment in which the
controller's group counts on a voter that has left.
"""

from corelane.api.proposing import propose
from corelane.cluster.commands import Command, DecommissionNode, NodeForgotten
from corelane.cluster.leaving import decommission_fault
from corelane.model.errors import ErrorCode
from corelane.model.ids import NodeId
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import message_type

Response = message_type("UnregisterBrokerResponse")


def handle(shard: Shard, call: Call) -> None:
    """Judge the wish, have it decided, and say what became of it."""
    node: int = call.decode().broker_id

    def told(error: int, sentence: str) -> None:
        message = sentence if error else None
        call.answer(Response(error_code=error, error_message=message))

    groups = shard.groups
    if groups.takes_commands and node not in groups.cluster.nodes:
        told(ErrorCode.BROKER_ID_NOT_REGISTERED, f"Node {node} is not registered.")
        return
    fault = _fault(shard, NodeId(node))
    if fault is not None:
        told(ErrorCode.INVALID_REQUEST, fault)
        return
    wish: Command = NodeForgotten(NodeId(node))
    if groups.takes_commands and groups.is_node_up(NodeId(node)):
        wish = DecommissionNode(NodeId(node), is_wanted=True)
    propose(shard, wish, told)


def _fault(shard: Shard, node: NodeId) -> str | None:
    groups = shard.groups
    if not groups.takes_commands:
        return None  # which is what is said then
    replica = groups.cluster.replica_on(node)
    if replica is not None:
        return (
            f"Node {node} has a replica of {replica}, without which its quorum is smaller: move"
            f" all it has elsewhere with `corelane cluster decommission {node}`, which also"
            " unregisters it."
        )
    return decommission_fault(groups.cluster, node, groups.is_node_up)
