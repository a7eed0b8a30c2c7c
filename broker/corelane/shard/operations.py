"""What an operator can have a core do: a table of verbs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from corelane.model.ids import CoreId, NodeId
from corelane.shard import balancer, node_operations
from corelane.shard.effects import OperatorAnswer
from corelane.shard.events import OperatorRequest

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

Verb = Callable[["Shard", OperatorRequest], None]


def operate(shard: "Shard", request: OperatorRequest) -> None:
    """Do what is asked and answer, now or later."""
    verb = VERBS.get(request.verb)
    if verb is None:
        _answer(shard, request, "INVALID_REQUEST", f"there is no verb {request.verb!r}")
    else:
        verb(shard, request)


def _move(shard: "Shard", request: OperatorRequest) -> None:
    """Move a partition to another core of this node (arguments topic, partition, core)."""
    groups, arguments = shard.groups, request.arguments
    core_count = shard.config.core_count
    try:
        number, core = int(arguments["partition"]), int(arguments["core"])
    except (KeyError, ValueError):
        _answer(shard, request, "INVALID_REQUEST", "partition and core must be numbers")
        return
    topic = groups.cluster.topics.get(arguments.get("topic", ""))
    if topic is None or not 0 <= number < len(topic.partitions):
        _answer(shard, request, "UNKNOWN_TOPIC_OR_PARTITION", "there is no such partition")
    elif not 0 <= core < core_count:
        said = f"core {core} is not one of this node's: 0 to {core_count - 1}"
        _answer(shard, request, "INVALID_REQUEST", said)
    elif not (groups.siblings.is_controller and groups.siblings.is_settled):
        _answer(shard, request, "COORDINATOR_NOT_AVAILABLE", "not every core is there yet: retry")
    else:

        def told(why: str) -> None:
            _answer(shard, request, "REQUEST_TIMED_OUT" if why else "", why)

        groups.moves.want(topic.partitions[number].group, CoreId(core), told)


def _retired_gone(shard: "Shard", request: OperatorRequest) -> None:
    """Expect nothing more of a retired core (argument core)."""
    shard.groups.siblings.retired_gone(CoreId(int(request.arguments["core"])))
    _answer(shard, request, "", "")


def _node(shard: "Shard", request: OperatorRequest) -> None:
    """Drain a node, take it out, or begin it anew (arguments node, action)."""
    try:
        node = NodeId(int(request.arguments["node"]))
    except (KeyError, ValueError):
        _answer(shard, request, "INVALID_REQUEST", "node must be a number")
        return

    def told(error: str, sentence: str) -> None:
        _answer(shard, request, error, sentence)

    node_operations.act(shard.groups, request.arguments.get("action", ""), node, told)


def _nodes(shard: "Shard", request: OperatorRequest) -> None:
    """Tell what is known of the cluster's nodes, and why those that leave are still there."""
    values = node_operations.states(shard.groups)
    stuck = shard.groups.registration.stuck
    values |= {f"stuck {node}": why for node, why in stuck.items()}
    shard.effects.append(OperatorAnswer(request.number, "", "", values))


def _rebalance(shard: "Shard", request: OperatorRequest) -> None:
    """Bring all nodes to their share of replicas, or tell what is to be moved (argument action)."""

    def told(error: str, sentence: str, values: dict[str, str]) -> None:
        shard.effects.append(OperatorAnswer(request.number, error, sentence, values))

    balancer.rebalance(shard.groups, request.arguments.get("action", ""), told)


def _leave(shard: "Shard", request: OperatorRequest) -> None:
    """Hand over what is led here before a stop, and tell how much still could be (values left)."""
    peering = shard.groups.peering
    left = 0 if peering is None else peering.duties.leave()
    shard.effects.append(OperatorAnswer(request.number, "", "", {"left": str(left)}))


def _answer(shard: "Shard", request: OperatorRequest, error: str, sentence: str) -> None:
    shard.effects.append(OperatorAnswer(request.number, error, sentence, {}))


VERBS: Final[dict[str, Verb]] = {
    "leave": _leave,
    "move": _move,
    "node": _node,
    "nodes": _nodes,
    "rebalance": _rebalance,
    "retired_gone": _retired_gone,
}
