"""The leader of the controller's group brings nodes to their share of replicas, a few at a time.

What to move is decided in cluster/balancing.py, and carried out as any reassignment, whose copying
waits for the rate that the new replica's core asks for (lanes.py).

Invariants:
L1. Nothing is remembered between two lives: which nodes are to be filled is in the fold, and what
    is missing is seen from where replicas are.
L2. No more is asked for while `UNDER_WAY_MAX` partitions are being reassigned, by whomever.
L3. A move is asked for only where its partition is still as it was when it was planned.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from corelane.cluster import balancing
from corelane.cluster.balancing import Move
from corelane.cluster.changes import Change, Refused
from corelane.cluster.commands import FillNode, Reassign
from corelane.cluster.node_states import ASKED
from corelane.cluster.replicas import Place
from corelane.model.ids import NodeId

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

LOOK_MS: Final = 250
UNDER_WAY_MAX: Final = 16
DESCRIBED_MAX: Final = 200
"""More moves than that are counted, not told one by one."""
_INFO: Final = 20

Told = Callable[[str, str, dict[str, str]], None]
"""Hears the name of the error, empty when it is done, a sentence, and what is to be told."""


class Balancer:
    """What the controller's leader does for nodes that have too little."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self._look_at_ms = 0
        self._moves: deque[Move] | None = None
        self.stuck: dict[NodeId, str] = {}
        """Why a node does not get its share."""

    def turn(self) -> None:
        """Ask for some moves, now and then; on core 0."""
        now_ms, groups = self._shard.now_ms, self._groups
        if now_ms < self._look_at_ms:
            return
        self._look_at_ms = now_ms + LOOK_MS
        fill = self._wanted() if groups.controller.serves else []
        if not fill:
            self._moves, self.stuck = None, {}
            return
        why = balancing.waits_for(groups.cluster, groups.is_node_up)
        self.stuck = {} if why is None else dict.fromkeys(fill, f"it is not filled yet: {why}")
        if why is None:
            self._go_on(fill)

    def _wanted(self) -> list[NodeId]:
        """Return the nodes to fill: those that joined only where the setting says so."""
        states = self._groups.cluster.states
        is_on = self._shard.config.config.replication.balancer == "on"
        return [node for node, why in states.filling.items() if is_on or why == ASKED]

    def _go_on(self, fill: list[NodeId]) -> None:
        groups = self._groups
        if self._moves is None:
            moves = balancing.plan(groups.cluster, fill, groups.is_node_up)
            drained = groups.cluster.states.drained
            if not moves and not groups.cluster.changing:
                for node in [each for each in fill if each not in drained]:
                    groups.propose(FillNode(node, is_wanted=False), _ignored)
                return
            if moves:
                text = f"{len(moves)} partitions go to node(s) {_listed(fill)}, a few at a time"
                self._shard.log(_INFO, text)
            self._moves = deque(moves)
        for _ in range(UNDER_WAY_MAX - len(groups.cluster.changing)):  # L2
            if not self._moves:
                break
            self._ask(self._moves.popleft())
        if not self._moves and not groups.cluster.changing:
            self._moves = None  # what has changed meanwhile is seen by another plan

    def _ask(self, move: Move) -> None:
        plan = self._groups.cluster.plan_of(move.group)
        if plan is None or plan.change is not None or plan.replicas != move.before:  # L3
            return
        places = tuple([Place(node) for node in move.after])
        self._groups.propose(Reassign(move.topic_id, ((move.number, places),)), _ignored)


def rebalance(groups: "Groups", action: str, told: Told) -> None:
    """Have all nodes brought to their share, or not any more, or tell what would be moved."""
    if not groups.siblings.is_controller or not groups.takes_commands:
        told("COORDINATOR_NOT_AVAILABLE", "the controller's group has no leader yet: retry", {})
        return
    cluster = groups.cluster
    everybody = [node for node in sorted(cluster.nodes) if cluster.states.takes_replicas(node)]
    if action == "plan":
        told("", "", _described(groups, everybody))
        return
    if action not in {"start", "cancel"}:
        told("INVALID_REQUEST", f"there is no action {action!r}: plan, start, cancel", {})
        return
    left = [*(everybody if action == "start" else cluster.states.filling)]
    if not left:
        told("INVALID_REQUEST", "No node is being brought to its share of replicas.", {})
        return

    def next_one(changes: Sequence[Change] | None) -> None:
        refused = next((each for each in changes or () if isinstance(each, Refused)), None)
        if changes is None:
            said = "the controller changed, nobody knows if it was done: look, and ask again"
            told("COORDINATOR_NOT_AVAILABLE", said, {})
        elif refused is not None:
            told(refused.error.name, refused.sentence, {})
        elif left:
            groups.propose(FillNode(left.pop(), is_wanted=action == "start"), next_one)
        else:
            told("", "", {})

    next_one(())


def _described(groups: "Groups", fill: list[NodeId]) -> dict[str, str]:
    cluster = groups.cluster
    moves = balancing.plan(cluster, fill, groups.is_node_up)
    values = {
        "moves": str(len(moves)),
        "waits": balancing.waits_for(cluster, groups.is_node_up) or "",
    }
    for at, move in enumerate(moves[:DESCRIBED_MAX]):
        name = cluster.topics_by_id[move.topic_id].name
        before, after = _listed([*move.before]), _listed([*move.after])
        values[f"move {at:04}"] = f"{name} {move.number} {before} {after}"
    return values


def _listed(nodes: list[NodeId]) -> str:
    return ",".join(map(str, nodes))


def _ignored(changes: object) -> None:
    """The fold tells."""
