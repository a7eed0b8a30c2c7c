"""Words for stories about replicas that move: requests to a simulated cluster, and waiting."""

from collections.abc import Sequence

from corelane.cluster.replicas import PartitionPlan
from corelane.wire.compiler import Message, message_type
from tests.simulation.cluster import Cluster

Request = message_type("AlterPartitionReassignmentsRequest")
Topic = message_type("AlterPartitionReassignmentsRequest.ReassignableTopic")
Partition = message_type("AlterPartitionReassignmentsRequest.ReassignablePartition")
ListRequest = message_type("ListPartitionReassignmentsRequest")


def reassign(
    cluster: Cluster, partition: int, nodes: Sequence[int] | None, *, through: int = 1
) -> tuple[int, str | None]:
    """Ask for the replicas of a partition of topic t on *nodes*, or to call a change off (None)."""
    brokers = None if nodes is None else [node * 1_000 for node in nodes]
    row = Partition(partition_index=partition, replicas=brokers)
    request = Request(topics=[Topic(name="t", partitions=[row])])
    answer = cluster.call(cluster.nodes[through], request, 1, conn=70 + through)
    assert answer.error_code == 0, answer.error_message
    found = answer.responses[0].partitions[0]
    return found.error_code, found.error_message


def ongoing(cluster: Cluster, *, through: int = 1) -> list[Message]:
    """Return the rows of ListPartitionReassignments."""
    answer = cluster.call(cluster.nodes[through], ListRequest(topics=None), 0, conn=80 + through)
    assert answer.error_code == 0, answer.error_message
    return [row for topic in answer.topics for row in topic.partitions]


def plan(cluster: Cluster, partition: int, *, node: int = 1) -> PartitionPlan:
    """Return what a node knows of the replicas of a partition of topic t."""
    return cluster.nodes[node].shard.groups.cluster.topics["t"].partitions[partition]


def wait_done(cluster: Cluster, partition: int, nodes: Sequence[int], ms_max: int = 30_000) -> None:
    """Wait until every living node knows the replicas to be on *nodes*, and has acted on it."""
    end_ms = cluster.now_ms + ms_max
    while True:
        cluster.go(10)
        up = [each for each in cluster.up() if each.shard.groups.cluster.topics]
        plans = [plan(cluster, partition, node=each.number) for each in up]
        group = partition + 1
        here = {each.number for each in cluster.up() if group in each.shard.store.groups}
        wanted = {each.number for each in cluster.up()} & {*nodes}
        is_done = all(one.replicas == tuple(nodes) and one.change is None for one in plans)
        if here == wanted and len(up) == len(cluster.up()) and is_done:
            return
        assert cluster.now_ms < end_ms, f"replicas on {here}, not on {nodes}: {plans}"
