"""A node without a majority of its cluster says what it waits for, and when that is over."""

from tests.simulation.cluster import Cluster


def lines_of(cluster: Cluster, number: int) -> list[str]:
    return [text for text in cluster.nodes[number].logs if "majority" in text]


def test_a_lone_node_of_three_says_whom_it_waits_for() -> None:
    cluster = Cluster(5)
    cluster.form()
    cluster.kill(1)
    cluster.kill(3)
    cluster.go(12_000)
    [line] = lines_of(cluster, 2)
    assert "of the nodes 1, 2 and 3, 2 are needed, and 1 and 3 cannot be reached" in line
    cluster.revive(1)
    cluster.go(5_000)
    assert lines_of(cluster, 2)[1:] == ["the cluster has a majority of its nodes again"]


def test_one_that_starts_alone_says_it_too() -> None:
    """It has its directory and was one of three: it is not ready, and looked as if it hung."""
    cluster = Cluster(5)
    cluster.form()
    for number in (1, 2, 3):
        cluster.kill(number)
    cluster.revive(3)
    cluster.go(6_000)
    [line] = lines_of(cluster, 3)
    assert "1 and 2 cannot be reached" in line
    cluster.revive(2)
    cluster.go(5_000)
    assert lines_of(cluster, 3)[1:] == ["the cluster has a majority of its nodes again"]


def test_a_change_of_leaders_is_no_line() -> None:
    cluster = Cluster(5)
    cluster.form()
    cluster.kill(1)
    cluster.go(10_000)
    assert not lines_of(cluster, 2)
    assert not lines_of(cluster, 3)
