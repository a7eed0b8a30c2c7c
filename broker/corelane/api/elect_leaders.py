"""ElectLeaders (key 43), versions 0 to 2: have the preferred replica lead, or any (unclean).

v1  election types (KIP-460), a top-level error.  v2  flexible. null means every partition. While
each partition has one replica, that one leads or nobody can: a leader is never replaced by a
replica that lacks acknowledged records, so an unclean election is as good as a clean one.
"""

from collections.abc import Iterable

from corelane.api.leaders import lead_of
from corelane.model.errors import ErrorCode
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

PREFERRED = 0
UNCLEAN = 1
_UNAVAILABLE = {
    PREFERRED: ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE,
    UNCLEAN: ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE,
}

Response = message_type("ElectLeadersResponse")
TopicRow = message_type("ElectLeadersResponse.ReplicaElectionResult")
PartitionRow = message_type("ElectLeadersResponse.PartitionResult")


def handle(shard: Shard, call: Call) -> None:
    """Answer for each partition whether an election was needed, or can help."""
    request = call.decode()
    if not shard.groups.takes_commands:
        call.answer(Response(error_code=ErrorCode.NOT_CONTROLLER))
        return
    kind = request.election_type
    response = Response()
    if kind not in _UNAVAILABLE:
        response.error_code = ErrorCode.INVALID_REQUEST
    cluster = shard.groups.cluster
    wanted: list[tuple[str, Iterable[int]]]
    if request.topic_partitions is None:
        wanted = [(name, range(len(topic.partitions))) for name, topic in cluster.topics.items()]
    else:
        wanted = [(row.topic, row.partitions) for row in request.topic_partitions]
    for name, numbers in wanted:
        rows = [_row(shard, kind, name, number) for number in numbers]
        if request.topic_partitions is None:
            # Asked for everything, Kafka names every topic, but only those partitions of it that
            # it did something about.
            rows = [row for row in rows if row.error_code != ErrorCode.ELECTION_NOT_NEEDED]
        response.replica_election_results.append(TopicRow(topic=name, partition_result=rows))
    call.answer(response)


def _row(shard: Shard, kind: int, name: str, number: int) -> Message:
    topic = shard.groups.cluster.topics.get(name)
    if kind not in _UNAVAILABLE:
        error, said = ErrorCode.INVALID_REQUEST, f"Unknown election type {kind}"
    elif topic is None or not 0 <= number < len(topic.partitions):
        error, said = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "there is no such partition"
    elif lead_of(shard, topic.partitions[number].group) is not None:
        error, said = ErrorCode.ELECTION_NOT_NEEDED, "its preferred replica leads already"
    else:
        error = _UNAVAILABLE[kind]
        said = "its only replica cannot lead now: see the broker's health"
    return PartitionRow(partition_id=number, error_code=error, error_message=said)
