"""Where partitions go: over racks and nodes first, then over the cores of a node; pure.

Two replicas are never on one node, and on one rack only when there are more replicas than racks.
Nodes that cannot be reached or are drained get replicas only where the others are too few, as in
Kafka (StripedReplicaPlacer: fenced brokers last).
Leaders (the first replica of each) are evened out before replicas, because leaders do the work.
"""

from collections.abc import Callable, Sequence

from corelane.cluster.metadata import Cluster
from corelane.model.ids import CoreId, GroupId, NodeId
from corelane.model.record import record


@record
class NodeLoad:
    """A node that may take partitions, and what it has already."""

    node: NodeId
    rack: str
    leader_count: int
    replica_count: int
    is_last: bool = False
    """It cannot be reached, or is drained: others come first."""


class _Place:
    """A node while partitions are being placed."""

    __slots__ = ("is_last", "leader_count", "node", "position", "rack", "replica_count")

    def __init__(self, position: int, load: NodeLoad) -> None:
        self.position = position
        self.node = load.node
        # A node without a rack is a failure domain of its own.
        self.rack = load.rack or f"\0{load.node}"
        self.leader_count = load.leader_count
        self.replica_count = load.replica_count
        self.is_last = load.is_last


def loads(cluster: Cluster, is_up: Callable[[NodeId], bool] | None = None) -> list[NodeLoad]:
    """Return the nodes that take replicas, with the leaders and replicas they are preferred for.

    *is_up* says whether a node can be reached; without it all can.
    """
    leaders = dict.fromkeys(cluster.nodes, 0)
    replicas = dict.fromkeys(cluster.nodes, 0)
    if len(cluster.nodes) > 1:  # with one node there is nothing to even out
        for topic in cluster.topics.values():
            for partition in topic.partitions:
                for position, node in enumerate(partition.target):
                    if node in replicas:
                        replicas[node] += 1
                        leaders[node] += position == 0
    return [
        NodeLoad(
            node,
            registered.rack,
            leaders[node],
            replicas[node],
            is_last=node in cluster.states.drained or not (is_up is None or is_up(node)),
        )
        for node, registered in sorted(cluster.nodes.items())
        if cluster.states.takes_replicas(node)
    ]


def place_replicas(
    partition_count: int, replica_count: int, nodes: Sequence[NodeLoad]
) -> list[tuple[NodeId, ...]]:
    """Return the nodes of each new partition, the preferred leader first.

    Needs at least *replica_count* nodes. Deterministic: same loads, same places.
    """
    assert partition_count > 0
    assert 0 < replica_count <= len(nodes)
    places = [_Place(position, load) for position, load in enumerate(nodes)]
    return [_place(number, replica_count, places) for number in range(partition_count)]


def _place(number: int, replica_count: int, places: list[_Place]) -> tuple[NodeId, ...]:
    leader = min(places, key=lambda place: (place.is_last, place.leader_count, place.replica_count))
    leader.leader_count += 1
    leader.replica_count += 1
    chosen = [leader]
    # Followers start at another distance from the leader each round, so that the partitions a
    # node leads do not all fail over to the same other node.
    turn = leader.position + 1 + number // len(places)
    while len(chosen) < replica_count:
        racks = {place.rack for place in chosen}
        follower = min(
            (place for place in places if place not in chosen),
            key=lambda place: (
                place.is_last,
                place.rack in racks,
                place.replica_count,
                (place.position - turn) % len(places),
            ),
        )
        follower.replica_count += 1
        chosen.append(follower)
    return tuple(place.node for place in chosen)


def replacement(
    target: Sequence[NodeId], leaves: NodeId, nodes: Sequence[NodeLoad]
) -> NodeId | None:
    """Return the node that should have the replica of one that *leaves*; None: there is no other.

    Racks first, as for new partitions; then leaders where the replica leads, then replicas.
    """
    racks = {load.node: load.rack or f"\0{load.node}" for load in nodes}
    used = {racks.get(node) for node in target if node != leaves}
    leads = target[0] == leaves
    free = [load for load in nodes if load.node not in target]
    best = min(
        free,
        key=lambda load: (
            load.is_last,
            racks[load.node] in used,
            load.leader_count if leads else 0,
            load.replica_count,
            load.node,
        ),
        default=None,
    )
    return None if best is None else best.node


def place_core(group: GroupId, group_counts: Sequence[int]) -> CoreId:
    """Return the core of a node that should serve *group*; `group_counts[i]` is core i's load.

    A node's own, soft choice. Groups are numbered one after the other, so that the group's number
    modulo the cores spreads a topic's partitions evenly and gives the replicas of a group the same
    core on nodes with as many cores. A core with clearly more than its share is passed over.
    """
    assert group_counts
    preferred = group % len(group_counts)
    least = min(group_counts)
    if group_counts[preferred] <= least + 1 + least // 8:
        return CoreId(preferred)
    return CoreId(group_counts.index(least))
