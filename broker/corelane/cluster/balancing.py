"""How nodes that have too little come to their share: which replicas to move there; pure.

A node that has joined has nothing, and stays so: new partitions alone would go there. Its share is
taken from the nodes that have most, one replica of a partition at a time, until nobody has two more
than it has. Leaders are evened out with it, by moving leading replicas or by changing who is
preferred.

Invariants:
B1. Two replicas are never on one node, and on no fewer racks than before.
B2. Only nodes that are to be filled get anything; nobody gives when it has not two more.
B3. Each move makes the sum of the squares of what nodes have smaller, so planning ends; a plan of
    what a plan has brought about is empty.
"""

from collections.abc import Callable, Collection

from corelane.cluster.metadata import Cluster
from corelane.model.ids import GroupId, NodeId, TopicId
from corelane.model.record import record

IsUp = Callable[[NodeId], bool]


@record
class Move:
    """A partition whose replicas are to be elsewhere, or in another order."""

    group: GroupId
    topic_id: TopicId
    number: int
    before: tuple[NodeId, ...]
    after: tuple[NodeId, ...]


def waits_for(cluster: Cluster, is_up: IsUp) -> str | None:
    """Return why nothing should be moved for now, or None: copying is for healthy clusters."""
    states = cluster.states
    if states.leaving:
        return f"node {min(states.leaving)} is being decommissioned: that comes first"
    away = [node for node in sorted(cluster.nodes) if not is_up(node)]
    if away:
        return f"node {away[0]} cannot be reached: start it, or decommission it"
    return None


def plan(cluster: Cluster, fill: Collection[NodeId], is_up: IsUp) -> list[Move]:
    """Return all moves that bring the nodes in *fill* to their share, in a good order.

    Looks at every partition once, as placing a topic does.
    """
    states = cluster.states
    takers = {
        node
        for node in fill
        if node in cluster.nodes
        and states.takes_replicas(node)
        and node not in states.drained
        and is_up(node)
    }
    return _Planner(cluster, takers).plan() if takers else []


class _Planner:
    """The cluster while moves are being found."""

    def __init__(self, cluster: Cluster, takers: Collection[NodeId]) -> None:
        self._cluster = cluster
        self._takers = sorted(takers)
        nodes = [node for node in sorted(cluster.nodes) if cluster.states.takes_replicas(node)]
        # A node without a rack is a failure domain of its own.
        self._racks = {node: cluster.nodes[node].rack or f"\0{node}" for node in cluster.nodes}
        self._counts = dict.fromkeys(nodes, 0)
        self._leads = dict.fromkeys(nodes, 0)
        self._targets: dict[GroupId, tuple[NodeId, ...]] = {}
        self._held: dict[NodeId, list[GroupId]] = {node: [] for node in nodes}
        """What each node had at first, the same number of each topic before the next one."""
        self._looked: dict[tuple[NodeId, NodeId, bool], int] = {}
        """So much of what a node had is known not to go to another one."""
        self._moved: dict[GroupId, None] = {}
        for _, _, group in sorted(
            (number, topic.name, partition.group)
            for topic in cluster.topics.values()
            for number, partition in enumerate(topic.partitions)
        ):
            self._take_in(group)

    def _take_in(self, group: GroupId) -> None:
        plan = self._cluster.plan_of(group)
        assert plan is not None
        for position, node in enumerate(plan.target):
            if node in self._counts:
                self._counts[node] += 1
                self._leads[node] += position == 0
        if plan.change is None:  # B2: what is being moved counts, and is left alone
            self._targets[group] = plan.target
            for node in plan.target:
                if node in self._held:
                    self._held[node].append(group)

    def plan(self) -> list[Move]:
        """Find moves until there are none."""
        open_takers = [*self._takers]
        while open_takers:
            taker = min(open_takers, key=lambda node: (self._counts[node], node))
            if not self._give(taker):
                open_takers.remove(taker)
        for taker in self._takers:
            self._give_leads(taker)
        return [self._move(group) for group in self._moved if self._is_changed(group)]

    def _is_changed(self, group: GroupId) -> bool:
        before = self._cluster.plan_of(group)
        return before is not None and before.target != self._targets[group]

    def _move(self, group: GroupId) -> Move:
        found = self._cluster.partition_of(group)
        assert found is not None
        topic, number = found
        before = topic.partitions[number].target
        return Move(group, topic.topic_id, number, before, self._targets[group])

    def _give(self, taker: NodeId) -> bool:
        """Move one replica to a node, from whoever has most; False: there is none to move."""
        counts = self._counts
        givers = [node for node in counts if counts[node] - counts[taker] >= 2]
        for giver in sorted(givers, key=lambda node: (-counts[node], node)):
            wants_lead = self._leads[giver] - self._leads[taker] >= 2
            for is_lead in (wants_lead, not wants_lead):
                group = self._find(giver, taker, is_lead=is_lead)
                if group is not None:
                    self._replace(group, giver, taker)
                    return True
        return False

    def _find(self, giver: NodeId, taker: NodeId, *, is_lead: bool) -> GroupId | None:
        """Return the next group that a node leads, or follows, and another one may have instead."""
        key, held = (giver, taker, is_lead), self._held[giver]
        for at in range(self._looked.get(key, 0), len(held)):
            target = self._targets[held[at]]
            if giver not in target or (target[0] == giver) != is_lead:
                continue
            if self._may_replace(target, giver, taker):
                self._looked[key] = at + 1
                return held[at]
        self._looked[key] = len(held)
        return None

    def _may_replace(self, target: tuple[NodeId, ...], giver: NodeId, taker: NodeId) -> bool:
        if taker in target:
            return False
        after = {self._racks.get(taker if node == giver else node) for node in target}
        return len(after) >= len({self._racks.get(node) for node in target})  # B1

    def _replace(self, group: GroupId, giver: NodeId, taker: NodeId) -> None:
        former = self._targets[group]
        target = [taker if node == giver else node for node in former]
        self._counts[giver] -= 1
        self._counts[taker] += 1
        if former[0] == giver:
            self._leads[giver] -= 1
            leader = min(target, key=lambda node: (self._leads.get(node, 0), node != taker))
            target.remove(leader)
            target.insert(0, leader)
            if leader in self._leads:
                self._leads[leader] += 1
        self._held[taker].append(group)
        self._targets[group] = tuple(target)
        self._moved[group] = None

    def _give_leads(self, taker: NodeId) -> None:
        """Prefer a node as the leader of some of what it has, until nobody leads two more."""
        leads = self._leads
        for group in self._held[taker]:
            target = self._targets[group]
            if taker not in target or target[0] == taker:
                continue
            if leads.get(target[0], 0) - leads[taker] >= 2:
                leads[target[0]] -= 1
                leads[taker] += 1
                rest = [node for node in target if node != taker]
                self._targets[group] = (taker, *rest)
                self._moved[group] = None
