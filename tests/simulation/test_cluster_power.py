"""Three nodes that lose power in the middle of writes: a storm, and what a storm must contain."""

import pytest

from tests.simulation.cluster_power import PowerCluster, run_seed
from tests.simulation.test_cluster_storm import GROUP, produce


def test_nothing_acknowledged_is_lost_when_all_lose_power() -> None:
    storm = run_seed(1)
    assert storm.blackouts > 0
    assert storm.stalls > 0
    assert storm.cluster.power_cuts > storm.blackouts


def test_a_record_is_acknowledged_when_its_writes_are_durable_and_not_before() -> None:
    cluster = PowerCluster(5)
    cluster.form()
    cluster.create_topic(cluster.nodes[1], "t", 1)
    leader = cluster.leader(GROUP)
    for node in cluster.slow.values():
        node.stalled_until_ms = cluster.now_ms + 300
    began_ms = cluster.now_ms
    assert produce(cluster, leader) == 0
    assert cluster.now_ms - began_ms >= 300


def test_a_seed_decides_everything() -> None:
    said = []
    for _ in range(2):
        cluster = PowerCluster(9)
        cluster.form()
        cluster.kill(2)
        cluster.go(500)
        said.append([(node.disk.steps, node.disk.bytes_used) for node in cluster.nodes.values()])
    assert said[0] == said[1]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_power_cut_leaves_a_node_that_starts_again(number: int) -> None:
    cluster = PowerCluster(number)
    cluster.form()
    cluster.kill(number)
    cluster.revive(number)
    cluster.go(3_000)
    assert cluster.nodes[number] in cluster.up()
    assert cluster.leader(0)
