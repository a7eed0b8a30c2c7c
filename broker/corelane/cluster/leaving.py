"""How nodes leave the cluster, and lost replicas are made anew: what to ask for next; pure.

A decommissioned node is a fact in the fold (node_states.py). Whoever leads the controller's group
asks for the reassignments that empty it, a few at a time, and for the node to be forgotten when it
has nothing more; so the job goes on after the death of anybody. The replicas that a node lost with
its data directory are asked for again in the same way, once it is back with another one.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from corelane.cluster import placement
from corelane.cluster.changes import Topic
from corelane.cluster.commands import Reassign
from corelane.cluster.metadata import Cluster
from corelane.cluster.replicas import PartitionPlan, Place
from corelane.model.ids import NodeId
from corelane.model.record import record

IsUp = Callable[[NodeId], bool]


@record
class Step:
    """What a look at some partitions found."""

    wishes: list[Reassign]
    is_end: bool
    """Those were the last ones."""


class Sweep:
    """One look at all partitions, taken in pieces.

    Nodes that were found to have replicas still, or that cannot be emptied, are remembered.
    """

    def __init__(self, cluster: Cluster, is_up: IsUp) -> None:
        self._cluster = cluster
        self._is_up = is_up
        loads = placement.loads(cluster, is_up)
        self._loads = {load.node: load for load in loads if is_up(load.node)}
        self._partitions = self._each()
        self.busy: set[NodeId] = set()
        """Nodes that leave and have replicas."""
        self.stuck: dict[NodeId, str] = {}
        """Why a replica of a node that leaves goes nowhere."""

    def _each(self) -> Iterator[tuple[Topic, int]]:
        for topic_id in [*self._cluster.topics_by_id]:
            topic = self._cluster.topics_by_id.get(topic_id)
            for number in range(0 if topic is None else len(topic.partitions)):
                topic = self._cluster.topics_by_id.get(topic_id)
                if topic is not None:
                    yield topic, number

    def step(self, partitions_max: int, wishes_max: int) -> Step:
        """Look at some partitions; ask for what is to move of them."""
        wishes: list[Reassign] = []
        looked = 0
        leaving = self._cluster.states.leaving
        for topic, number in islice(self._partitions, partitions_max):
            looked += 1
            plan = topic.partitions[number]
            self.busy |= leaving.keys() & {*plan.nodes}
            places = self._places(plan)
            if places is not None:
                wishes.append(Reassign(topic.topic_id, ((number, places),)))
                if len(wishes) >= wishes_max:
                    return Step(wishes, is_end=False)
        return Step(wishes, is_end=looked < partitions_max)

    def _places(self, plan: PartitionPlan) -> tuple[Place, ...] | None:
        """Return where the replicas of a partition should be instead; None: it is as it should."""
        states, target = self._cluster.states, [*plan.target]
        for at, node in enumerate(target):
            if node in states.leaving:
                other = placement.replacement(target, node, [*self._loads.values()])
                if other is None:
                    self.stuck[node] = "no other node can take its replicas: start one, or add one"
                    continue
                target[at] = other
                self._count(other, leads=at == 0)
        if target != [*plan.target] or self._is_lost(plan):
            return tuple([Place(node, plan.core_on(node)) for node in target])
        return None

    def _is_lost(self, plan: PartitionPlan) -> bool:
        """Say whether a replica is to be made anew where its node has lost it."""
        states = self._cluster.states
        if not states.losses or (plan.change is not None and plan.change.is_switching):
            return False
        members = plan.members if plan.change is None else plan.change.members
        return any(
            states.is_lost(plan.group, member) and self._is_back(NodeId(member & 0xFFFF_FFFF))
            for member in members
        )

    def _is_back(self, node: NodeId) -> bool:
        known = self._cluster.nodes.get(node)
        return known is not None and bool(known.directory) and self._is_up(node)

    def _count(self, node: NodeId, *, leads: bool) -> None:
        load = self._loads[node]
        self._loads[node] = replace(
            load, leader_count=load.leader_count + leads, replica_count=load.replica_count + 1
        )


def decommission_fault(cluster: Cluster, node: NodeId, is_up: IsUp) -> str | None:
    """Return why a node cannot leave the cluster, or None."""
    if node not in cluster.nodes:
        return f"There is no node {node}."
    staying = [
        each for each in cluster.nodes if each != node and cluster.states.takes_replicas(each)
    ]
    if not staying:
        return f"Node {node} is the only one that stays: nobody could take its replicas."
    up = [each for each in staying if is_up(each)]
    for topic in cluster.topics.values():
        most = max(
            (len(plan.target) for plan in topic.partitions if node in plan.target), default=0
        )
        if most > len(staying):
            return (
                f"Topic {topic.name} has {most} replicas, and only {len(staying)} node(s) would be"
                " left. Add a node first, or reassign the topic to fewer replicas."
            )
        if most > len(up):
            return (
                f"Topic {topic.name} has {most} replicas, and of the nodes that stay only"
                f" {len(up)} can be reached. Start the others first."
            )
    return None
