"""Nodes are brought to their share of replicas: simulated stories of the balancer."""

from collections import Counter

from corelane.shard.events import OperatorRequest
from tests.simulation.cluster import Cluster
from tests.simulation.test_cluster_storm import produce

PARTITIONS = 8


def grown(settings: str = "") -> Cluster:
    """Return four nodes with a topic that was made when there were three."""
    cluster = Cluster(5, settings=settings, numbers=(1, 2, 3, 4))
    late = cluster.nodes[4]
    late.is_up = False
    for _ in range(100):
        cluster.go(100)
        if len(cluster.nodes[1].shard.groups.controller.raft.configuration.voters) == 3:
            break
    cluster.create_topic(cluster.nodes[2], "t", PARTITIONS, 3)
    assert produce(cluster, cluster.leader(1)) == 0
    cluster.revive(4)
    return cluster


def placed(cluster: Cluster) -> list[tuple[int, ...]]:
    topic = cluster.nodes[1].shard.groups.cluster.topics["t"]
    return [each.replicas for each in topic.partitions]


def held(cluster: Cluster) -> Counter[int]:
    return Counter(node for nodes in placed(cluster) for node in nodes)


def is_filling(cluster: Cluster) -> bool:
    return bool(cluster.nodes[1].shard.groups.cluster.states.filling)


def settle(cluster: Cluster, ms_max: int = 40_000) -> None:
    """Let time pass until every node has its share, and nothing is being moved."""
    for _ in range(ms_max // 250):
        cluster.go(250)
        known = cluster.nodes[1].shard.groups.cluster
        if 4 in known.nodes and not is_filling(cluster) and not known.changing:
            return
    raise AssertionError(f"still being filled: {held(cluster)}")


def ask(cluster: Cluster, action: str, through: int = 2) -> dict[str, str]:
    """Have an operator rebalance, through any node."""
    node = cluster.nodes[through]
    node.operated.clear()
    node.mail.append(OperatorRequest(7, "rebalance", {"action": action}))
    for _ in range(8_000):
        cluster.go(1)
        if node.operated:
            assert node.operated[0].error == "", node.operated[0].sentence
            return node.operated[0].values
    raise AssertionError("nobody answers the operator")


def test_a_node_that_joins_gets_its_share_by_itself() -> None:
    cluster = grown()
    settle(cluster)
    assert held(cluster) == {1: 6, 2: 6, 3: 6, 4: 6}
    assert Counter(nodes[0] for nodes in placed(cluster))[4] == 2
    for group in range(1, PARTITIONS + 1):
        assert cluster.leader(group).members[group].log.committed_offset == (3 if group == 1 else 0)


def test_it_goes_on_when_the_controllers_leader_dies() -> None:
    cluster = grown()
    for _ in range(200):
        cluster.go(20)
        if cluster.nodes[2].shard.groups.cluster.changing:
            break
    leader = cluster.leader(0).number
    cluster.kill(leader)
    cluster.go(3_000)
    cluster.revive(leader)
    settle(cluster)
    assert held(cluster) == {1: 6, 2: 6, 3: 6, 4: 6}


def test_it_waits_while_a_node_is_away() -> None:
    cluster = grown('corelane.partition.balancer = "off"')
    cluster.go(1_500)
    before = placed(cluster)
    cluster.kill(3)
    cluster.go(500)
    ask(cluster, "start")
    cluster.go(1_500)
    assert placed(cluster) == before
    assert "node 3 cannot be reached" in ask(cluster, "plan")["waits"]
    cluster.revive(3)
    settle(cluster)
    assert held(cluster)[4] == 6


def test_where_it_is_off_an_operator_sees_the_plan_and_has_it_carried_out() -> None:
    cluster = grown('corelane.partition.balancer = "off"')
    cluster.go(2_500)
    assert held(cluster)[4] == 0
    told = ask(cluster, "plan")
    assert told["moves"] == str(sum(name.startswith("move ") for name in told)) == "6"
    topic, number, before, after = told["move 0000"].split()
    assert (topic, before) == ("t", ",".join(map(str, placed(cluster)[int(number)])))
    assert "4" in after.split(",")
    ask(cluster, "start")
    assert is_filling(cluster)
    ask(cluster, "cancel")
    assert not is_filling(cluster)
    ask(cluster, "start", through=3)
    settle(cluster)
    assert held(cluster) == {1: 6, 2: 6, 3: 6, 4: 6}
    assert ask(cluster, "plan")["moves"] == "0"
