"""A node id whose data directory is gone, while nobody remembers how far its replicas were.

A leader that lived on would refuse to begin at the start again with a follower that it knows to
have more. After a restart of everything it is the registered directory alone that tells.
"""

import pytest

from tests.simulation.cluster import NODES, Cluster, SimNode
from tests.simulation.sim_disk import SimDisk
from tests.simulation.test_cluster_storm import GROUP, produce


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(11)
    made.form()
    made.create_topic(made.nodes[1], "t", 3)
    return made


def lose(cluster: Cluster, node: SimNode) -> None:
    """Stop all nodes, and start them again: one of them with nothing."""
    for number in NODES:
        cluster.kill(number)
    node.disk = SimDisk(99)
    node.directory = "another"
    for number in NODES:
        cluster.revive(number)
    cluster.go(6_000)


def test_an_empty_directory_under_a_known_id_has_no_vote_in_what_it_has_lost(
    cluster: Cluster,
) -> None:
    assert produce(cluster, cluster.leader(GROUP)) == 0
    lost = cluster.nodes[3]
    lose(cluster, lost)
    assert set(lost.members) <= {0}
    others = [node for node in cluster.up() if node is not lost]
    leader = cluster.leader(GROUP)
    assert leader in others
    assert produce(cluster, leader, 8) == 0
    cluster.kill(leader.number)
    cluster.go(6_000)
    assert cluster.leaders(GROUP) == [], "of two nodes one has lost what it promised"
