"""Three simulated nodes: stories of one death each, and a few storms."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.wire.compiler import message_type
from tests.simulation.cluster import NODES, Cluster, SimNode
from tests.simulation.cluster_storm import Storm
from tests.simulation.sim_disk import SimDisk
from tests.unit.api.world import batch_of, produce_request

GROUP = 1
DEATH_MS_MAX = 500
SILENCE_MS_MAX = 3_000


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(7)
    made.form()
    made.create_topic(made.nodes[2], "t", 3)  # through a node that decides nothing
    return made


def produce(cluster: Cluster, node: SimNode, conn: int = 5) -> int:
    """Produce a batch to partition 0 and return the error code."""
    answer = cluster.call(node, produce_request("t", batch_of(3)), 9, conn=conn)
    code: int = answer.responses[0].partition_responses[0].error_code
    return code


def test_leaders_are_the_preferred_replicas(cluster: Cluster) -> None:
    leaders = {group: cluster.leader(group).number for group in (1, 2, 3)}
    assert sorted(leaders.values()) == [*NODES]
    for node in cluster.nodes.values():
        for group, number in leaders.items():
            lead = node.shard.groups.lead_of(node.members[group].group)
            assert lead is not None
            assert lead.node == number


def test_a_dead_leader_is_replaced_at_once_and_comes_home(cluster: Cluster) -> None:
    leader = cluster.leader(GROUP)
    assert produce(cluster, leader) == 0
    cluster.kill(leader.number)
    killed_ms = cluster.now_ms
    successor = cluster.leader(GROUP)
    assert cluster.now_ms - killed_ms <= DEATH_MS_MAX
    assert produce(cluster, successor) == 0
    cluster.revive(leader.number)
    cluster.go(14_000)
    assert cluster.leaders(GROUP) == [leader]
    assert leader.members[GROUP].log.committed_offset == 6


@pytest.mark.parametrize("seed", range(1, 5))
def test_votes_are_not_split_by_those_who_outlive_a_leader(seed: int) -> None:
    """Both hear of its death at once; they look at their deadlines every 50 ms only."""
    cluster = Cluster(seed)
    cluster.form()
    cluster.create_topic(cluster.nodes[2], "t", 3)
    leader = cluster.leader(GROUP)
    term = leader.members[GROUP].raft.term
    cluster.kill(leader.number)
    assert cluster.leader(GROUP).members[GROUP].raft.term == term + 1


def test_a_silent_leader_is_replaced(cluster: Cluster) -> None:
    leader = cluster.leader(GROUP)
    leader.paused_until_ms = cluster.now_ms + 10_000
    paused_ms = cluster.now_ms
    while cluster.leaders(GROUP) in ([leader], []):
        cluster.go(1)
        assert cluster.now_ms - paused_ms <= SILENCE_MS_MAX


def test_a_leader_that_hears_nobody_acknowledges_nothing(cluster: Cluster) -> None:
    leader = cluster.leader(GROUP)
    others = [number for number in NODES if number != leader.number]
    cluster.cut = {(number, leader.number) for number in others}
    leader.ask(produce_request("t", batch_of(3)), 9, 6)
    cluster.go(5_000)
    answer = leader.receive(0, 9, 6)
    assert answer is not None
    assert answer[1].responses[0].partition_responses[0].error_code != 0
    assert leader not in cluster.leaders(GROUP)


def test_without_a_majority_nothing_is_acknowledged(cluster: Cluster) -> None:
    leader = cluster.leader(GROUP)
    for number in NODES:
        if number != leader.number:
            cluster.kill(number)
    leader.ask(produce_request("t", batch_of(3)), 9, 7)
    cluster.go(4_000)
    answer = leader.receive(0, 9, 7)
    assert answer is not None
    assert answer[1].responses[0].partition_responses[0].error_code != 0
    for number in NODES:
        if number != leader.number:
            cluster.revive(number)
    assert produce(cluster, cluster.leader(GROUP), 8) == 0


def test_a_follower_that_was_long_away_catches_up_from_segments(cluster: Cluster) -> None:
    leader = cluster.leader(GROUP)
    away = next(node for node in cluster.nodes.values() if node is not leader)
    cluster.kill(away.number)
    large = batch_of(1, value=b"x" * 900_000)
    for _ in range(100):  # more than the arena holds
        answer = cluster.call(leader, produce_request("t", large), 9, conn=9)
        assert answer.responses[0].partition_responses[0].error_code == 0
    log = leader.members[GROUP].log
    assert log.tail_first > 2, "what the follower needs is in memory no more"
    cluster.revive(away.number)
    cluster.go(6_000)  # 90 MB at the 32 MiB/s that a core asks of each of two others
    assert away.members[GROUP].log.committed_index == log.committed_index


def test_more_replicas_than_the_quorum_can_be_asked_for(cluster: Cluster) -> None:
    row = message_type("CreateTopicsRequest.CreatableTopicConfig")
    topic = message_type("CreateTopicsRequest.CreatableTopic")(
        name="all",
        num_partitions=1,
        replication_factor=3,
        configs=[row(name="min.insync.replicas", value="3")],
    )
    request = message_type("CreateTopicsRequest")(topics=[topic], timeout_ms=5_000)
    assert cluster.call(cluster.nodes[1], request, 7, conn=2).topics[0].error_code == 0
    group = 4
    leader = cluster.leader(group)
    produced = produce_request("all", batch_of(1))
    answer = cluster.call(leader, produced, 9, conn=5)
    assert answer.responses[0].partition_responses[0].error_code == 0
    cluster.kill(next(node.number for node in cluster.nodes.values() if node is not leader))
    cluster.go(12_000)
    answer = cluster.call(cluster.leader(group), produced, 9, conn=6)
    row = answer.responses[0].partition_responses[0]
    assert row.error_code == ErrorCode.NOT_ENOUGH_REPLICAS


def test_a_node_that_lost_its_directory_votes_and_serves_nothing(cluster: Cluster) -> None:
    leader = cluster.leader(GROUP)
    assert produce(cluster, leader) == 0
    lost = next(node for node in cluster.nodes.values() if node is not leader)
    cluster.kill(lost.number)
    lost.disk = SimDisk(99)
    lost.directory = "another"
    cluster.nodes[lost.number] = lost
    cluster.revive(lost.number)
    cluster.go(3_000)
    assert any("another data directory" in line for line in lost.logs)
    assert set(lost.members) <= {0}
    cluster.kill(leader.number)
    cluster.go(5_000)
    assert cluster.leaders(GROUP) == [], "one replica is whole: nobody knows what is committed"
    cluster.revive(leader.number)
    assert produce(cluster, cluster.leader(GROUP), 8) == 0


def test_a_storm() -> None:
    Storm(1).run()
