"""What the cluster in memory answers to those who change it: as Kafka does, without its disks."""

from typing import TYPE_CHECKING, Any

from corelane.model.errors import ErrorCode
from corelane.wire.compiler import message_type
from corelane_client.protocol import Api

if TYPE_CHECKING:
    from tests.unit.client.fake import Cluster

SETTINGS = {"retention.ms", "segment.ms", "cleanup.policy"}


def new(name: str, /, **fields: Any) -> Any:
    return message_type(name)(**fields)


def answer(cluster: "Cluster", broker_id: int, api: Api, request: Any) -> Any:
    """Do what an administrator asks for."""
    match api:
        case Api.CREATE_PARTITIONS:
            rows = [_more_partitions(cluster, request, row) for row in request.topics]
            return new("CreatePartitionsResponse", results=rows)
        case Api.INCREMENTAL_ALTER_CONFIGS:
            rows = [_alter(cluster, request, row) for row in request.resources]
            return new("IncrementalAlterConfigsResponse", responses=rows)
        case Api.DELETE_RECORDS:
            topics = [_delete_records(cluster, broker_id, row) for row in request.topics]
            return new("DeleteRecordsResponse", topics=topics)
        case Api.OFFSET_FOR_LEADER_EPOCH:
            topics = [_epoch_ends(cluster, broker_id, row) for row in request.topics]
            return new("OffsetForLeaderEpochResponse", topics=topics)
        case Api.DESCRIBE_LOG_DIRS:
            return _log_dirs(cluster, broker_id, request)
        case Api.ELECT_LEADERS:
            return _elect(cluster, request)
        case _:
            raise AssertionError(api)


def _more_partitions(cluster: "Cluster", request: Any, row: Any) -> Any:
    found = new("CreatePartitionsResponse.CreatePartitionsTopicResult", name=row.name)
    if row.name not in cluster.topics:
        found.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return found
    count = len(cluster.topics[row.name])
    if row.count <= count:
        found.error_code = ErrorCode.INVALID_PARTITIONS
        found.error_message = f"it has {count} partitions already"
    elif not request.validate_only:
        kept = cluster.topics[row.name]
        made = cluster.topic(row.name, row.count)
        made[:count] = kept
    return found


def _alter(cluster: "Cluster", request: Any, row: Any) -> Any:
    found = new(
        "IncrementalAlterConfigsResponse.AlterConfigsResourceResponse",
        resource_type=row.resource_type,
        resource_name=row.resource_name,
        error_message=None,
    )
    if row.resource_name not in cluster.topics:
        found.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return found
    changed = dict(cluster.configs.get(row.resource_name, {}))
    for each in row.configs:
        if each.name not in SETTINGS:
            found.error_code = ErrorCode.INVALID_CONFIG
            found.error_message = f"there is no setting {each.name}"
            return found
        _apply(changed, each)
    if not request.validate_only:
        cluster.configs[row.resource_name] = changed
    return found


def _apply(configs: dict[str, str | None], change: Any) -> None:
    old = (configs.get(change.name) or "").split(",") if change.name in configs else []
    match change.config_operation:
        case 0:
            configs[change.name] = change.value
        case 1:
            configs.pop(change.name, None)
        case 2:
            configs[change.name] = ",".join([*old, change.value])
        case 3:
            configs[change.name] = ",".join(each for each in old if each != change.value)


def _delete_records(cluster: "Cluster", broker_id: int, topic: Any) -> Any:
    rows = []
    for each in topic.partitions:
        row = new(
            "DeleteRecordsResponse.DeleteRecordsPartitionResult",
            partition_index=each.partition_index,
            low_watermark=-1,
        )
        log = cluster.topics[topic.name][each.partition_index]
        offset = log.end if each.offset == -1 else each.offset
        if cluster.leaders[topic.name, each.partition_index] != broker_id:
            row.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER
        elif offset > log.end:
            row.error_code = ErrorCode.OFFSET_OUT_OF_RANGE
        else:
            log.start = row.low_watermark = max(log.start, offset)
        rows.append(row)
    return new("DeleteRecordsResponse.DeleteRecordsTopicResult", name=topic.name, partitions=rows)


def _epoch_ends(cluster: "Cluster", broker_id: int, topic: Any) -> Any:
    rows = []
    for each in topic.partitions:
        row = new("OffsetForLeaderEpochResponse.EpochEndOffset", partition=each.partition)
        if cluster.leaders[topic.topic, each.partition] != broker_id:
            row.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER
        else:
            row.leader_epoch = 0
            row.end_offset = cluster.topics[topic.topic][each.partition].end
        rows.append(row)
    name = "OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult"
    return new(name, topic=topic.topic, partitions=rows)


def _log_dirs(cluster: "Cluster", broker_id: int, request: Any) -> Any:
    wanted = None if request.topics is None else {row.topic for row in request.topics}
    topics = []
    for name, logs in cluster.topics.items():
        rows = [
            new(
                "DescribeLogDirsResponse.DescribeLogDirsPartition",
                partition_index=number,
                partition_size=sum(map(len, log.batches)),
            )
            for number, log in enumerate(logs)
            if cluster.leaders[name, number] == broker_id
        ]
        if rows and (wanted is None or name in wanted):
            row = new("DescribeLogDirsResponse.DescribeLogDirsTopic", name=name, partitions=rows)
            topics.append(row)
    result = new(
        "DescribeLogDirsResponse.DescribeLogDirsResult",
        log_dir="/data",
        topics=topics,
        total_bytes=1000,
        usable_bytes=900,
    )
    return new("DescribeLogDirsResponse", results=[result])


def _elect(cluster: "Cluster", request: Any) -> Any:
    results = []
    for row in request.topic_partitions:
        parts = []
        for number in row.partitions:
            part = new("ElectLeadersResponse.PartitionResult", partition_id=number)
            part.error_message = None
            is_there = (row.topic, number) in cluster.leaders
            part.error_code = (
                ErrorCode.ELECTION_NOT_NEEDED if is_there else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            )
            parts.append(part)
        name = "ElectLeadersResponse.ReplicaElectionResult"
        results.append(new(name, topic=row.topic, partition_result=parts))
    return new("ElectLeadersResponse", replica_election_results=results)
