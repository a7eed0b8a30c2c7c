"""What an operator can have done with a node of the cluster: drain it, take it out, begin it anew.

Any node takes the wish, judges it by what it knows, and has it decided by the controller; the
outcome is a fact of the fold, which everybody acts on.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from corelane.cluster.changes import Change, Refused
from corelane.cluster.commands import (
    Command,
    DecommissionNode,
    DirectoryLost,
    DrainNode,
    NodeForgotten,
    Reassign,
)
from corelane.cluster.leaving import decommission_fault
from corelane.model.ids import CONTROLLER_GROUP, CoreId, NodeId
from corelane.model.record import record

if TYPE_CHECKING:
    from corelane.shard.groups import Groups

Told = Callable[[str, str], None]
"""Hears the name of the error, empty when it is done, and a sentence."""


@record
class Fault:
    """Why a wish cannot be granted."""

    error: str
    sentence: str


def act(groups: "Groups", action: str, node: NodeId, told: Told) -> None:
    """Have something done with a node; *told* hears what became of it."""
    if not groups.siblings.is_controller or not groups.takes_commands:
        told("COORDINATOR_NOT_AVAILABLE", "the controller's group has no leader yet: retry")
        return
    verb = ACTIONS.get(action)
    if verb is None:
        told("INVALID_REQUEST", f"there is no action {action!r}: {', '.join(ACTIONS)}")
        return
    if node not in groups.cluster.nodes:
        told("BROKER_ID_NOT_REGISTERED", f"There is no node {node}.")
        return
    wish = verb(groups, node)
    if isinstance(wish, Fault):
        told(wish.error, wish.sentence)
        return

    def applied(changes: Sequence[Change] | None) -> None:
        refused = next((each for each in changes or () if isinstance(each, Refused)), None)
        if changes is None:
            said = "the controller changed, nobody knows if it was done: look, and ask again"
            told("COORDINATOR_NOT_AVAILABLE", said)
        elif refused is not None:
            told(refused.error.name, refused.sentence)
        else:
            told("", "")

    groups.propose(wish, applied)


def _drain(groups: "Groups", node: NodeId) -> Command | Fault:
    config, peering = groups.shard.config, groups.peering
    if config.peer is None or peering is None or len(groups.cluster.nodes) < 2:
        return Fault("INVALID_REQUEST", f"Node {node} is alone: nobody else could lead.")
    others = [each for each in groups.cluster.nodes if each != node and groups.is_node_up(each)]
    drained = groups.cluster.states.drained
    if not [each for each in others if each not in drained]:
        return Fault(
            "INVALID_REQUEST",
            f"No other node could lead: those that can be reached ({_listed(others)}) are drained."
            if others
            else "No other node can be reached that could lead.",
        )
    if node == config.node:
        return DrainNode(node, config.peer.boot)
    session = peering.peers.session((node, CoreId(0)))
    if session is None or not session.boot or session.gone is not None:
        return Fault("INVALID_REQUEST", f"Node {node} cannot be reached: it leads nothing.")
    return DrainNode(node, session.boot)


def _undrain(groups: "Groups", node: NodeId) -> Command | Fault:
    return DrainNode(node, 0)


def _decommission(groups: "Groups", node: NodeId) -> Command | Fault:
    fault = decommission_fault(groups.cluster, node, groups.is_node_up)
    if fault is not None:
        return Fault("INVALID_REQUEST", fault)
    return DecommissionNode(node, is_wanted=True)


def _recommission(groups: "Groups", node: NodeId) -> Command | Fault:
    """Call it off; what is on its way from the node stays there as far as it can."""
    cluster = groups.cluster
    if node not in cluster.states.leaving:
        return Fault("INVALID_REQUEST", f"Node {node} is not being decommissioned.")
    for group in cluster.changing:
        found = cluster.partition_of(group)
        if found is not None and node in found[0].partitions[found[1]].removing:
            groups.propose(Reassign(found[0].topic_id, ((found[1], ()),)), _ignored)
    return DecommissionNode(node, is_wanted=False)


def _replace_disk(groups: "Groups", node: NodeId) -> Command | Fault:
    sessions = () if groups.peering is None else groups.peering.peers.sessions(node)
    serves = any(each.answers.marks or each.heard.marks for each in sessions)
    if node == groups.shard.config.node or (serves and groups.is_node_up(node)):
        return Fault(
            "INVALID_REQUEST",
            f"Node {node} serves with the data directory that is registered: it is not lost. Stop"
            " the node first, if it is to begin anew.",
        )
    cluster = groups.cluster
    known = cluster.nodes[node]
    if not known.directory:
        return Fault("INVALID_REQUEST", f"Node {node} may come back with an empty disk already.")
    if node in cluster.states.losses and groups.is_node_up(node):
        return Fault(
            "INVALID_REQUEST",
            f"Node {node} has come back with another data directory already, and is being made"
            " anew. Stop it first, if that one is lost too.",
        )
    for topic in cluster.topics.values():
        for number, plan in enumerate(topic.partitions):
            if node in plan.replicas and not _has_quorum_without(groups, plan.replicas, node):
                return Fault(
                    "INVALID_REQUEST",
                    f"Partition {topic.name}-{number} would have no quorum: of its replicas on"
                    f" nodes {_listed(plan.replicas)} too few can be reached. Start the others"
                    f" first, or delete the topic if only node {node} had its records.",
                )
    return DirectoryLost(node, known.directory)


def _has_quorum_without(groups: "Groups", nodes: Sequence[NodeId], lost: NodeId) -> bool:
    up = [each for each in nodes if each != lost and groups.is_node_up(each)]
    return len(up) > len(nodes) // 2


def _forget(groups: "Groups", node: NodeId) -> Command | Fault:
    if groups.is_node_up(node):
        return Fault("INVALID_REQUEST", f"Node {node} is there: decommission it instead.")
    return NodeForgotten(node)


def _listed(nodes: Sequence[NodeId]) -> str:
    return ", ".join(map(str, nodes))


def _ignored(changes: object) -> None:
    """The fold tells."""


ACTIONS: Final[dict[str, Callable[["Groups", NodeId], Command | Fault]]] = {
    "drain": _drain,
    "undrain": _undrain,
    "decommission": _decommission,
    "recommission": _recommission,
    "replace-disk": _replace_disk,
    "forget": _forget,
}


def states(groups: "Groups") -> dict[str, str]:
    """Return what is known of each node, as rows of `key=value` words by node."""
    cluster = groups.cluster
    leader = groups.controller_node()
    found: dict[str, str] = {}
    for node, known in sorted(cluster.nodes.items()):
        words = [
            f"up={int(groups.is_node_up(node))}",
            f"drained={int(node in cluster.states.drained)}",
            f"leaving={int(node in cluster.states.leaving)}",
            f"filling={int(node in cluster.states.filling)}",
            f"lost={int(not known.directory and node in cluster.states.losses)}",
            f"controller={int(node == leader)}",
            f"voter={int(_votes(groups, node))}",
        ]
        found[str(node)] = " ".join(words)
    return found


def _votes(groups: "Groups", node: NodeId) -> bool:
    member = groups.members.get(CONTROLLER_GROUP)
    if member is None:
        return False
    return any(voter & 0xFFFF_FFFF == node for voter in member.raft.configuration.voters)
