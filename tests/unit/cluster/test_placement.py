"""Where partitions go, shown on small clusters; the even spread itself is a property."""

from corelane.cluster.placement import NodeLoad, place_core, place_replicas
from corelane.model.ids import GroupId, NodeId


def nodes(*racks: str) -> list[NodeLoad]:
    """Return empty nodes 1, 2, … in these racks."""
    return [NodeLoad(NodeId(number), rack, 0, 0) for number, rack in enumerate(racks, 1)]


def test_one_node_gets_everything() -> None:
    assert place_replicas(3, 1, nodes("")) == [(1,), (1,), (1,)]


def test_leaders_go_round_and_failover_does_not_go_to_one_neighbour() -> None:
    placed = place_replicas(6, 2, nodes("", "", ""))
    assert sorted(leader for leader, _ in placed) == [1, 1, 2, 2, 3, 3]
    assert {follower for leader, follower in placed if leader == 1} == {2, 3}


def test_replicas_are_on_different_racks() -> None:
    for replicas in place_replicas(8, 2, nodes("a", "a", "b", "b")):
        assert {"a" if node < 3 else "b" for node in replicas} == {"a", "b"}


def test_with_fewer_racks_than_replicas_nodes_still_differ() -> None:
    for replicas in place_replicas(4, 3, nodes("a", "a", "b")):
        assert sorted(replicas) == [1, 2, 3]


def test_a_node_that_has_less_gets_more() -> None:
    loads = [NodeLoad(NodeId(1), "", 5, 5), NodeLoad(NodeId(2), "", 0, 0)]
    assert place_replicas(4, 1, loads) == [(2,)] * 4


def test_a_topics_partitions_go_round_the_cores() -> None:
    counts = [0, 0, 0]
    for group in range(1, 10):
        counts[place_core(GroupId(group), counts)] += 1
    assert counts == [3, 3, 3]


def test_a_core_with_clearly_more_than_its_share_is_passed_over() -> None:
    assert place_core(GroupId(3), [9, 5, 5]) == 1
    assert place_core(GroupId(3), [6, 5, 5]) == 0
