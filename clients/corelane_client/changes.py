"""The words for changing partitions, settings and logs, and for asking what they take on disk."""

from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane_client import protocol
from corelane_client.connection import Connection
from corelane_client.errors import ClientError, KafkaError
from corelane_client.leaders import Answers, ask_leaders, only_good, outcome
from corelane_client.pool import Pool
from corelane_client.protocol import Api

END_OF_LOG: Final = -1
"""As the offset of `delete_records`: all that is committed."""
UNKNOWN_BYTES: Final = -1


class Operation(IntEnum):
    """What a change does to a setting; the last two are for lists."""

    SET = 0
    DELETE = 1
    """Back to the broker's own value."""
    APPEND = 2
    SUBTRACT = 3


@record
class ConfigChange:
    """One change of one setting; `value` is None for DELETE."""

    operation: Operation
    name: str
    value: str | None = None


@record
class EpochEnd:
    """The last leader epoch that is not above the one asked for, and where its records end."""

    leader_epoch: int
    end_offset: int


@record
class LogDir:
    """A directory of a broker; sizes are -1 where it does not tell."""

    broker_id: int
    path: str
    error: ClientError | None
    total_bytes: int
    usable_bytes: int
    partitions: dict[tuple[str, int], int]
    """The bytes of each partition."""


def more_partitions(name: str, count: int, timeout_ms: int, validate_only: bool) -> Any:
    """Return the request for *count* partitions in all."""
    row = protocol.message(
        "CreatePartitionsRequest.CreatePartitionsTopic", name=name, count=count, assignments=None
    )
    return protocol.message(
        "CreatePartitionsRequest", topics=[row], timeout_ms=timeout_ms, validate_only=validate_only
    )


def config_changes(
    kind: int, name: str, wanted: Sequence[ConfigChange], validate_only: bool
) -> Any:
    """Return the request for changes of one resource's settings."""
    configs = [
        protocol.message(
            "IncrementalAlterConfigsRequest.AlterableConfig",
            name=each.name,
            config_operation=each.operation,
            value=each.value,
        )
        for each in wanted
    ]
    resource = protocol.message(
        "IncrementalAlterConfigsRequest.AlterConfigsResource",
        resource_type=kind,
        resource_name=name,
        configs=configs,
    )
    return protocol.message(
        "IncrementalAlterConfigsRequest", resources=[resource], validate_only=validate_only
    )


async def delete_records(
    pool: Pool, topic: str, before: Mapping[int, int]
) -> dict[int, int | ClientError]:
    """Ask the leaders to forget what is before an offset; see `Admin.delete_records`."""
    timeout_ms = pool.settings.request_timeout_ms

    async def ask(connection: Connection, led: list[int]) -> Answers[int]:
        rows = [
            protocol.message(
                "DeleteRecordsRequest.DeleteRecordsPartition",
                partition_index=partition,
                offset=before[partition],
            )
            for partition in led
        ]
        row = protocol.message(
            "DeleteRecordsRequest.DeleteRecordsTopic", name=topic, partitions=rows
        )
        body = protocol.message("DeleteRecordsRequest", topics=[row], timeout_ms=timeout_ms)
        answer = await connection.request(Api.DELETE_RECORDS, body, timeout_ms=timeout_ms)
        return {
            each.partition_index: outcome(
                each.error_code, topic, each.partition_index, each.low_watermark
            )
            for found in answer.topics
            for each in found.partitions
        }

    return await ask_leaders(pool, topic, before.keys(), ask)


async def epoch_ends(pool: Pool, topic: str, epochs: Mapping[int, int]) -> dict[int, EpochEnd]:
    """Ask the leaders where the logs of epochs end; see `Admin.epoch_ends`."""

    async def ask(connection: Connection, led: list[int]) -> Answers[EpochEnd]:
        rows = [
            protocol.message(
                "OffsetForLeaderEpochRequest.OffsetForLeaderPartition",
                partition=partition,
                leader_epoch=epochs[partition],
            )
            for partition in led
        ]
        row = protocol.message(
            "OffsetForLeaderEpochRequest.OffsetForLeaderTopic", topic=topic, partitions=rows
        )
        body = protocol.message("OffsetForLeaderEpochRequest", replica_id=-1, topics=[row])
        answer = await connection.request(Api.OFFSET_FOR_LEADER_EPOCH, body)
        return {
            each.partition: outcome(
                each.error_code,
                topic,
                each.partition,
                EpochEnd(each.leader_epoch, each.end_offset),
            )
            for found in answer.topics
            for each in found.partitions
        }

    return only_good(await ask_leaders(pool, topic, epochs.keys(), ask))


async def elect_leaders(
    pool: Pool, topic: str, partitions: Collection[int], *, unclean: bool
) -> dict[int, ClientError | None]:
    """Ask the controller for elections; see `Admin.elect_leaders`."""
    timeout_ms = pool.settings.request_timeout_ms
    row = protocol.message(
        "ElectLeadersRequest.TopicPartitions", topic=topic, partitions=[*partitions]
    )
    body = protocol.message(
        "ElectLeadersRequest",
        election_type=int(unclean),
        topic_partitions=[row],
        timeout_ms=timeout_ms,
    )

    async def attempt() -> Any:
        answer = await pool.request_controller(Api.ELECT_LEADERS, body, timeout_ms)
        if answer.error_code == ErrorCode.NOT_CONTROLLER:
            await pool.refresh(())
        protocol.check(answer.error_code, "election of leaders")
        return answer

    found: dict[int, ClientError | None] = {}
    for result in (await pool.retry(attempt)).replica_election_results:
        for each in result.partition_result:
            what = f"topic {topic!r}, partition {each.partition_id}"
            is_fine = each.error_code in {ErrorCode.NONE, ErrorCode.ELECTION_NOT_NEEDED}
            error = None if is_fine else KafkaError(each.error_code, what, each.error_message)
            found[each.partition_id] = error
    return found


async def log_dirs(pool: Pool, broker_id: int, topics: Collection[str] | None) -> list[LogDir]:
    """Ask one broker what it keeps where; None: of every topic. Raises ClientError."""
    rows = None
    if topics is not None:
        parts = {name: [*(await pool.topic(name)).partitions] for name in topics}
        rows = [
            protocol.message(
                "DescribeLogDirsRequest.DescribableLogDirTopic", topic=name, partitions=partitions
            )
            for name, partitions in parts.items()
        ]
    connection = await pool.connection(broker_id)
    body = protocol.message("DescribeLogDirsRequest", topics=rows)
    answer = await connection.request(Api.DESCRIBE_LOG_DIRS, body)
    protocol.check(answer.error_code, f"directories of broker {broker_id}")
    return [_log_dir(broker_id, row) for row in answer.results]


def _log_dir(broker_id: int, row: Any) -> LogDir:
    what = f"broker {broker_id}, directory {row.log_dir}"
    return LogDir(
        broker_id,
        row.log_dir,
        KafkaError(row.error_code, what) if row.error_code else None,
        row.total_bytes,
        row.usable_bytes,
        {
            (topic.name, each.partition_index): each.partition_size
            for topic in row.topics
            for each in topic.partitions
            if not each.is_future_key
        },
    )
