"""Leaders that were deposed and do not know it: what they say to clients that ask them."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.wire.compiler import Message, message_type
from tests.simulation.cluster import NODES, Cluster, SimNode
from tests.simulation.storm_commits import (
    COMMIT_VERSION,
    FETCH_VERSION,
    Commits,
    FetchGroup,
    FetchRequest,
    FetchTopic,
    Partition,
    Request,
    Topic,
)
from tests.unit.api.world import batch_of, produce_request

PAUSE_MS = 4_000
GROUP = 1
"""Of the topic's one partition."""


def ends_request() -> Message:
    partition = message_type("ListOffsetsRequest.ListOffsetsPartition")(timestamp=-1)
    topic = message_type("ListOffsetsRequest.ListOffsetsTopic")(name="t", partitions=[partition])
    return message_type("ListOffsetsRequest")(replica_id=-1, topics=[topic])


def end_at(cluster: Cluster, node: SimNode) -> Message:
    row: Message = cluster.call(node, ends_request(), 7, conn=50).topics[0].partitions[0]
    return row


def produce(cluster: Cluster) -> None:
    request = produce_request("t", batch_of())
    answer = cluster.call(cluster.leader(GROUP), request, 9, conn=60)
    assert answer.responses[0].partition_responses[0].error_code == 0


def formed(settings: str) -> Cluster:
    cluster = Cluster(5, settings=settings)
    cluster.form()
    cluster.create_topic(cluster.nodes[1], "t", 1)
    cluster.leader(GROUP)
    produce(cluster)
    cluster.go(500)
    return cluster


def depose(cluster: Cluster, group: int) -> SimNode:
    """Stop a leader and cut it off until another one leads."""
    former = cluster.leader(group)
    others = [number for number in NODES if number != former.number]
    former.paused_until_ms = cluster.now_ms + PAUSE_MS
    for other in others:
        cluster.cut |= {(former.number, other), (other, former.number)}
    while all(node is former for node in cluster.leaders(group)):
        cluster.go(1)
    return former


@pytest.mark.parametrize("consistency", ["linearizable", "lease"])
def test_a_leader_back_from_a_pause_does_not_name_the_end_it_knows(consistency: str) -> None:
    """Others lead since, and have acknowledged more; it may not even hear of that."""
    cluster = formed(f'corelane.read.consistency = "{consistency}"')
    former = depose(cluster, GROUP)
    (leader,) = [node for node in cluster.leaders(GROUP) if node is not former]
    request = produce_request("t", batch_of())
    answer = cluster.call(leader, request, 9, conn=61)
    assert answer.responses[0].partition_responses[0].error_code == 0
    assert end_at(cluster, leader).offset == 2
    cluster.go(max(0, former.paused_until_ms - cluster.now_ms) + 1)  # it knows of its pause now
    assert former.members[GROUP].serves, "it believes to lead"
    row = end_at(cluster, former)
    assert row.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_as_kafka_it_would_name_an_old_end() -> None:
    """What the setting is there for: this is how stale a leader's word can be without it."""
    cluster = formed('corelane.read.consistency = "leader"')
    former = depose(cluster, GROUP)
    (leader,) = [node for node in cluster.leaders(GROUP) if node is not former]
    request = produce_request("t", batch_of())
    cluster.call(leader, request, 9, conn=61)
    assert end_at(cluster, former).offset == 1


@pytest.mark.parametrize("consistency", ["linearizable", "lease", "leader"])
def test_whoever_leads_answers_at_once(consistency: str) -> None:
    """A round of heartbeats is made for who waits: nobody waits for the next one due."""
    cluster = formed(f'corelane.read.consistency = "{consistency}"')
    leader = cluster.leader(GROUP)
    before_ms = cluster.now_ms
    for _ in range(20):
        assert end_at(cluster, leader).offset == 1
    assert cluster.now_ms - before_ms < 20 * 75, "rounds are due every 100 ms"


def test_a_deposed_coordinator_does_not_say_what_was_committed() -> None:
    """H1 and Q1: an offset that was acknowledged elsewhere is never taken back here."""
    cluster = formed("")
    commits = Commits(cluster, GROUP + 1)
    commits.create(cluster.nodes[1])
    group = commits.raft_group("one")
    cluster.leader(group)
    commit(cluster, cluster.leader(group), 10)
    former = depose(cluster, group)
    (leader,) = [node for node in cluster.leaders(group) if node is not former]
    cluster.go(100)
    commit(cluster, leader, 20)
    assert committed(cluster, leader) == (0, 20)
    assert former.members[group].serves, "it believes to coordinate"
    assert committed(cluster, former)[0] == ErrorCode.NOT_COORDINATOR


def commit(cluster: Cluster, node: SimNode, offset: int) -> None:
    row = Partition(partition_index=0, committed_offset=offset, committed_metadata="")
    request = Request(group_id="one", topics=[Topic(name="t", partitions=[row])])
    answer = cluster.call(node, request, COMMIT_VERSION, conn=70)
    assert answer.topics[0].partitions[0].error_code == 0


def committed(cluster: Cluster, node: SimNode) -> tuple[int, int]:
    wish = FetchGroup(group_id="one", topics=[FetchTopic(name="t", partition_indexes=[0])])
    answer = cluster.call(node, FetchRequest(groups=[wish]), FETCH_VERSION, conn=80)
    found = answer.groups[0]
    if found.error_code:
        return found.error_code, -1
    return 0, found.topics[0].partitions[0].committed_offset
