"""Wall clocks that jump, on any node: nothing is elected, nothing is lost, nobody waits.

Patience is counted by the monotonic clock alone; the time of day stamps records, and no more.
"""

import pytest

from corelane.model.errors import ErrorCode
from tests.simulation.cluster import Cluster
from tests.simulation.test_cluster_storm import produce

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.mark.parametrize("jump_ms", [-400 * DAY_MS, -60_000, 60_000, DAY_MS])
@pytest.mark.parametrize("who", ["leader", "follower"])
def test_a_clock_that_jumps_changes_nothing(jump_ms: int, who: str) -> None:
    cluster = Cluster(11)
    cluster.form()
    cluster.create_topic(cluster.nodes[1], "t", 3)
    leader = cluster.leader(1)
    follower = next(node for node in cluster.up() if node is not leader)
    assert produce(cluster, leader) == 0
    terms = {group: member.raft.term for group, member in leader.members.items()}
    jumping = leader if who == "leader" else follower
    jumping.wall_jump_ms = jump_ms
    # As in Kafka, who is an hour behind takes no records that are stamped with the true time.
    is_refused = jumping is leader and jump_ms < -HOUR_MS
    for _ in range(5):
        code = produce(cluster, leader)
        assert code == (ErrorCode.INVALID_TIMESTAMP if is_refused else ErrorCode.NONE)
        cluster.go(600)
    jumping.wall_jump_ms = 0
    assert produce(cluster, leader) == 0
    cluster.go(2_000)
    assert {group: member.raft.term for group, member in leader.members.items()} == terms
    for node in cluster.up():
        assert node.members[1].log.committed_offset == (2 if is_refused else 7) * 3
