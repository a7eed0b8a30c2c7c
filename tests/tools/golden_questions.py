"""Requests of our own for tests/tools/record_golden.py: each API in each version, once or twice.

They name what the clients made before (topics, groups). An API that is not here is asked with a
message of defaults; Kafka's refusal of it is as good an answer to decode as any.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from corelane.wire.compiler import Message, message_type
from corelane.wire.compression import Compression
from corelane.wire.records import BatchBuilder, encode_batch

TOPIC: Final = "golden-confluent"
GROUP: Final = "golden-confluent"
NOBODY: Final = "nobody"
TIME_MS: Final = 1_700_000_000_000


def question(name: str, version: int) -> Iterator[Message]:
    """Yield requests of one API, fit for a version."""
    make = QUESTIONS.get(name)
    if make is None:
        yield message_type(f"{name}Request")()
        return
    for fields in make(version):
        yield built(f"{name}Request", fields)


def built(path: str, fields: dict[str, Any]) -> Message:
    """Return a message; a list of (struct name, fields) becomes a list of structs."""
    root = path.split(".", maxsplit=1)[0]
    made = {}
    for name, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], tuple):
            made[name] = [built(f"{root}.{kind}", inner) for kind, inner in value]
        else:
            made[name] = value
    return message_type(path)(**made)


def records() -> bytes:
    """Return a batch of two records."""
    builder = BatchBuilder()
    builder.append(TIME_MS, b"key", b"value", (("header", b"x"),))
    builder.append(TIME_MS + 1, None, None, ())
    return encode_batch(builder.payload(Compression.NONE))


Questions = Iterator[dict[str, Any]]


def _produce(version: int) -> Questions:
    for topic in (TOPIC, NOBODY):
        row = ("PartitionProduceData", {"index": 0, "records": records()})
        place = ("TopicProduceData", {"name": topic, "partition_data": [row]})
        yield {"acks": -1, "timeout_ms": 5000, "topic_data": [place]}


def _fetch(version: int) -> Questions:
    row = ("FetchPartition", {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 500})
    topic = ("FetchTopic", {"topic": TOPIC, "topic_id": b"nobody knows it!", "partitions": [row]})
    yield {"max_wait_ms": 10, "min_bytes": 1, "max_bytes": 500, "topics": [topic]}


def _list_offsets(version: int) -> Questions:
    rows = [
        ("ListOffsetsPartition", {"partition_index": p, "timestamp": t})
        for p, t in ((0, -1), (1, TIME_MS), (9, -2))
    ]
    yield {"replica_id": -1, "topics": [("ListOffsetsTopic", {"name": TOPIC, "partitions": rows})]}


def _metadata(version: int) -> Questions:
    topics = [("MetadataRequestTopic", {"name": name}) for name in (TOPIC, NOBODY)]
    more = {"allow_auto_topic_creation": False, "include_topic_authorized_operations": True}
    yield {"topics": topics, **more}


def _offset_commit(version: int) -> Questions:
    rows = [
        (
            "OffsetCommitRequestPartition",
            {"partition_index": 0, "committed_offset": 3, "committed_metadata": "m"},
        )
    ]
    topic = ("OffsetCommitRequestTopic", {"name": TOPIC, "partitions": rows})
    yield {
        "group_id": "golden-own",
        "generation_id_or_member_epoch": -1,
        "retention_time_ms": -1,
        "topics": [topic],
    }


def _offset_fetch(version: int) -> Questions:
    if version < 8:
        topic = {"name": TOPIC, "partition_indexes": [0, 1]}
        yield {"group_id": "golden-own", "topics": [("OffsetFetchRequestTopic", topic)]}
        return
    topic = {"name": TOPIC, "partition_indexes": [0, 1]}
    groups = [
        (
            "OffsetFetchRequestGroup",
            {"group_id": g, "topics": [("OffsetFetchRequestTopics", topic)]},
        )
        for g in ("golden-own", NOBODY)
    ]
    yield {"groups": groups}


def _find_coordinator(version: int) -> Questions:
    yield {"key": GROUP, "coordinator_keys": [GROUP, NOBODY]} if version >= 4 else {"key": GROUP}


def _join_group(version: int) -> Questions:
    protocol = ("JoinGroupRequestProtocol", {"name": "range", "metadata": b"opaque"})
    yield {
        "group_id": f"golden-join-{version}",
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 10_000,
        "protocol_type": "connect",  # Kafka parses the metadata of "consumer"
        "protocols": [protocol],
        "reason": "because",
    }


def _member(version: int) -> Questions:
    yield {"group_id": GROUP, "generation_id": 1, "member_id": NOBODY}


def _leave_group(version: int) -> Questions:
    members = [("MemberIdentity", {"member_id": NOBODY, "reason": "done"})]
    yield (
        {"group_id": GROUP, "member_id": NOBODY, "members": members}
        if version >= 3
        else {
            "group_id": GROUP,
            "member_id": NOBODY,
        }
    )


def _sync_group(version: int) -> Questions:
    rows = [("SyncGroupRequestAssignment", {"member_id": NOBODY, "assignment": b"opaque"})]
    yield {"group_id": GROUP, "generation_id": 1, "member_id": NOBODY, "assignments": rows}


def _create_topics(version: int) -> Questions:
    config = ("CreatableTopicConfig", {"name": "retention.ms", "value": "7200000"})
    fresh = {"name": f"golden-v{version}", "num_partitions": 2, "replication_factor": 1}
    manual = ("CreatableReplicaAssignment", {"partition_index": 0, "broker_ids": [1]})
    topics = [
        ("CreatableTopic", fresh | {"configs": [config]}),
        (
            "CreatableTopic",
            {
                "name": f"golden-manual-{version}",
                "num_partitions": -1,
                "replication_factor": -1,
                "assignments": [manual],
            },
        ),
        ("CreatableTopic", {"name": TOPIC, "num_partitions": 1, "replication_factor": 1}),
        ("CreatableTopic", {"name": "not/legal", "num_partitions": 1, "replication_factor": 1}),
    ]
    yield {"topics": topics, "timeout_ms": 5000, "validate_only": False}


def _delete_topics(version: int) -> Questions:
    topics = [("DeleteTopicState", {"name": n}) for n in (f"golden-v{version}", NOBODY)]
    names = [f"golden-v{version}", NOBODY]
    yield (
        {"topics": topics, "timeout_ms": 5000}
        if version >= 6
        else {
            "topic_names": names,
            "timeout_ms": 5000,
        }
    )


def _delete_records(version: int) -> Questions:
    row = ("DeleteRecordsPartition", {"partition_index": 1, "offset": 1})
    yield {"topics": [("DeleteRecordsTopic", {"name": TOPIC, "partitions": [row]})]}


def _offset_for_leader_epoch(version: int) -> Questions:
    row = ("OffsetForLeaderPartition", {"partition": 0, "leader_epoch": 0})
    yield {"topics": [("OffsetForLeaderTopic", {"topic": TOPIC, "partitions": [row]})]}


def _describe_configs(version: int) -> Questions:
    keys = ["retention.ms", "cleanup.policy", "compression.type"]
    topic = {"resource_type": 2, "resource_name": TOPIC, "configuration_keys": keys}
    broker = {"resource_type": 4, "resource_name": "1", "configuration_keys": ["log.retention.ms"]}
    resources = [("DescribeConfigsResource", fields) for fields in (topic, broker)]
    yield {"resources": resources, "include_synonyms": True, "include_documentation": True}


def _alter_configs(version: int) -> Questions:
    config = ("AlterableConfig", {"name": "retention.ms", "value": "7200000"})
    resource = {"resource_type": 2, "resource_name": TOPIC, "configs": [config]}
    yield {"resources": [("AlterConfigsResource", resource)], "validate_only": True}


def _create_partitions(version: int) -> Questions:
    topic = {"name": TOPIC, "count": 3, "assignments": None}
    yield {"topics": [("CreatePartitionsTopic", topic)], "timeout_ms": 5000, "validate_only": True}


def _describe_topic_partitions(version: int) -> Questions:
    topics = [("TopicRequest", {"name": name}) for name in (TOPIC, NOBODY)]
    yield {"topics": topics, "response_partition_limit": 1}


def _describe_producers(version: int) -> Questions:
    yield {"topics": [("TopicRequest", {"name": TOPIC, "partition_indexes": [0, 1]})]}


def _update_features(version: int) -> Questions:
    # Without leave to go down it is refused, and nothing else asks for a level of this broker.
    for level in (0, 9):
        row = {"feature": "transaction.version", "max_version_level": level}
        yield {"feature_updates": [("FeatureUpdateKey", row)]}


def _only(**fields: Any) -> Callable[[int], Questions]:
    def make(version: int) -> Questions:
        yield fields

    return make


QUESTIONS: Final[dict[str, Callable[[int], Questions]]] = {
    "UpdateFeatures": _update_features,
    "Produce": _produce,
    "Fetch": _fetch,
    "ListOffsets": _list_offsets,
    "Metadata": _metadata,
    "OffsetCommit": _offset_commit,
    "OffsetFetch": _offset_fetch,
    "FindCoordinator": _find_coordinator,
    "JoinGroup": _join_group,
    "Heartbeat": _member,
    "LeaveGroup": _leave_group,
    "SyncGroup": _sync_group,
    "DescribeGroups": _only(groups=[GROUP, NOBODY]),
    "SaslHandshake": _only(mechanism="PLAIN"),
    "ApiVersions": _only(client_software_name="golden", client_software_version="1"),
    "CreateTopics": _create_topics,
    "DeleteTopics": _delete_topics,
    "DeleteRecords": _delete_records,
    "InitProducerId": _only(transaction_timeout_ms=1000),
    "OffsetForLeaderEpoch": _offset_for_leader_epoch,
    "DescribeConfigs": _describe_configs,
    "AlterConfigs": _alter_configs,
    "IncrementalAlterConfigs": _alter_configs,
    "CreatePartitions": _create_partitions,
    "DescribeAcls": _only(
        resource_type_filter=1, pattern_type_filter=1, operation=1, permission_type=1
    ),
    "DescribeTopicPartitions": _describe_topic_partitions,
    "DescribeProducers": _describe_producers,
    "DescribeTransactions": _only(transactional_ids=["golden-confluent", NOBODY]),
    "DeleteGroups": _only(groups_names=["golden-own", NOBODY]),
    "ConsumerGroupDescribe": _only(group_ids=["golden-java", NOBODY]),
    "ConsumerGroupHeartbeat": _only(
        group_id="golden-848",
        member_id="member-of-our-own",
        rebalance_timeout_ms=10_000,
        subscribed_topic_names=[TOPIC],
        topic_partitions=[],
    ),
}
