"""Moves that bring nodes to their share, for random clusters: even, few, safe, and they end."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from corelane.cluster.balancing import plan
from corelane.cluster.commands import CreateTopic, DrainNode, NodeRegistered, Reassign
from corelane.cluster.metadata import Cluster
from corelane.cluster.replicas import PartitionPlan, Place
from corelane.model.ids import GroupId, Index, NodeId, TopicId

RACKS = ("", "", "a", "b", "c")


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Return nodes on racks, and topics that lie anywhere on the first few of them."""
    made = Cluster()
    count = draw(st.integers(1, 6))
    settled = draw(st.integers(1, count))
    for number in range(1, count + 1):
        rack = draw(st.sampled_from(RACKS))
        made.apply(next_index(made), NodeRegistered(NodeId(number), rack, 1, ()))
    for name in draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=4)):
        replicas = draw(st.integers(1, min(settled, 4)))
        nodes = st.permutations(range(1, settled + 1))
        partitions = tuple(
            PartitionPlan(
                GroupId(made.next_group + number),
                tuple(NodeId(node) for node in draw(nodes)[:replicas]),
            )
            for number in range(draw(st.integers(1, 12)))
        )
        topic_id = TopicId(name.encode() * 16)
        made.apply(next_index(made), CreateTopic(name, topic_id, partitions, {}))
    return made


def next_index(cluster: Cluster) -> Index:
    return Index(cluster.applied_index + 1)


def all_nodes(cluster: Cluster) -> set[NodeId]:
    return {*cluster.nodes}


def targets(cluster: Cluster) -> dict[GroupId, tuple[NodeId, ...]]:
    return {
        each.group: each.replicas for topic in cluster.topics.values() for each in topic.partitions
    }


def held(placed: dict[GroupId, tuple[NodeId, ...]], cluster: Cluster) -> Counter[NodeId]:
    counts = Counter(dict.fromkeys(cluster.nodes, 0))
    counts.update(node for nodes in placed.values() for node in nodes)
    return counts


def led(placed: dict[GroupId, tuple[NodeId, ...]], cluster: Cluster) -> Counter[NodeId]:
    counts = Counter(dict.fromkeys(cluster.nodes, 0))
    counts.update(nodes[0] for nodes in placed.values())
    return counts


def squares(counts: Counter[NodeId]) -> int:
    return sum(count * count for count in counts.values())


def racks(cluster: Cluster, nodes: tuple[NodeId, ...]) -> int:
    return len({cluster.nodes[node].rack or node for node in nodes})


def is_up(node: NodeId) -> bool:
    return node > 0


def after(cluster: Cluster, fill: set[NodeId]) -> dict[GroupId, tuple[NodeId, ...]]:
    """Return where everything is once the plan is carried out, each move checked."""
    placed = targets(cluster)
    for move in plan(cluster, fill, is_up):
        topic, number = cluster.partition_of(move.group) or (None, 0)
        assert topic is not None
        assert (topic.topic_id, number) == (move.topic_id, move.number)
        assert move.before == placed[move.group], "a partition is moved once"
        assert move.after != move.before
        assert len({*move.after}) == len(move.after) == len(move.before), "B1"
        assert {*move.after} - {*move.before} <= fill, "B2"
        assert racks(cluster, move.after) >= racks(cluster, move.before), "B1"
        placed[move.group] = move.after
    return placed


@given(clusters(), st.data())
def test_a_plan_is_safe_and_evens_out(cluster: Cluster, data: st.DataObject) -> None:
    fill = data.draw(st.sets(st.sampled_from(sorted(all_nodes(cluster)))))
    before, placed = targets(cluster), after(cluster, fill)
    assert squares(held(placed, cluster)) <= squares(held(before, cluster)), "B3"
    counts, former = held(placed, cluster), held(before, cluster)
    for giver in [node for node in cluster.nodes if counts[node] < former[node]]:
        assert counts[giver] > min(former.values()), "nobody gives what it needs itself"
    moved = sum(len({*placed[group]} - {*before[group]}) for group in before)
    gained = sum(max(0, counts[node] - former[node]) for node in cluster.nodes)
    assert moved == gained, "no replica is moved twice, or for another"


@given(clusters())
def test_without_racks_everybody_comes_to_its_share(cluster: Cluster) -> None:
    for number, node in enumerate([*cluster.nodes.values()]):
        cluster.apply(next_index(cluster), NodeRegistered(NodeId(number + 1), "", 1, ()))
        assert node.node == number + 1
    counts = held(after(cluster, all_nodes(cluster)), cluster)
    widest = max((len(nodes) for nodes in targets(cluster).values()), default=1)
    if widest == 1:
        assert max(counts.values()) - min(counts.values()) <= 1
    leads = led(after(cluster, all_nodes(cluster)), cluster)
    assert squares(leads) <= squares(led(targets(cluster), cluster)) or widest > 1


@given(clusters(), st.data())
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(
    cluster: Cluster, data: st.DataObject
) -> None:
    fill = data.draw(st.sets(st.sampled_from(sorted(all_nodes(cluster)))))
    again = Cluster()
    for node in cluster.nodes.values():
        again.apply(next_index(again), node)
    placed = after(cluster, fill)
    for topic in cluster.topics.values():
        partitions = tuple(
            PartitionPlan(each.group, placed[each.group]) for each in topic.partitions
        )
        command = CreateTopic(topic.name, topic.topic_id, partitions, {})
        again.apply(next_index(again), command)
    replica_moves = [move for move in plan(again, fill, is_up) if {*move.after} != {*move.before}]
    assert replica_moves == []


def with_topic(nodes: int, replicas: list[tuple[int, ...]]) -> Cluster:
    """Return nodes without racks, and a topic whose partitions have these replicas."""
    made = Cluster()
    for number in range(1, nodes + 1):
        made.apply(next_index(made), NodeRegistered(NodeId(number), "", 1, ()))
    partitions = tuple(
        PartitionPlan(GroupId(number), tuple(map(NodeId, each)))
        for number, each in enumerate(replicas, 1)
    )
    made.apply(next_index(made), CreateTopic("t", TopicId(b"t" * 16), partitions, {}))
    return made


def test_a_node_that_joins_gets_its_share_of_replicas_and_leaders() -> None:
    cluster = with_topic(4, [(1, 2, 3), (2, 3, 1), (3, 1, 2), (1, 3, 2)] * 2)
    placed = after(cluster, {NodeId(4)})
    assert held(placed, cluster) == {1: 6, 2: 6, 3: 6, 4: 6}
    assert led(placed, cluster)[NodeId(4)] == 2


def test_what_is_being_moved_is_left_alone_and_counts_where_it_goes() -> None:
    cluster = with_topic(3, [(1,), (1,), (2,)])
    places = ((0, (Place(NodeId(3)),)),)
    cluster.apply(next_index(cluster), Reassign(TopicId(b"t" * 16), places))
    assert plan(cluster, {NodeId(3)}, is_up) == []


def test_drained_and_dead_nodes_get_nothing() -> None:
    cluster = with_topic(3, [(1,)] * 6)
    cluster.apply(next_index(cluster), DrainNode(NodeId(3), 9))
    moves = plan(cluster, {NodeId(2), NodeId(3)}, lambda node: node != 2)
    assert moves == []
