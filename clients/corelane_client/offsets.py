"""Places in a partition that are not numbers, and the offsets they stand for."""

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane_client import protocol
from corelane_client.errors import ClientError, KafkaError, no_partition
from corelane_client.pool import NO_BROKER, Pool
from corelane_client.protocol import Api

NO_OFFSET: Final = -1
_BEGINNING_TIME: Final = -2
_END_TIME: Final = -1


class Edge(Enum):
    """The ends of a partition: its first record, and where the next one will be."""

    BEGINNING = "beginning"
    END = "end"


@record
class AtTime:
    """The first record whose timestamp is not older, in milliseconds since 1970."""

    time_ms: int


Place = Edge | AtTime


@record
class Resolved:
    """An offset with the record's timestamp; both -1 when there is no record as young as that."""

    offset: int
    timestamp_ms: int


async def list_offsets(
    pool: Pool,
    topic: str,
    at: Place,
    partitions: Sequence[int] | None = None,
    isolation_level: int = 0,
) -> dict[int, Resolved]:
    """Return the offset of *at* in each partition of *topic*, asked of each one's leader.

    Errors that may pass are tried again. Raises ClientError.
    """
    found: dict[int, Resolved] = {}

    async def attempt() -> None:
        known = (await pool.topic(topic)).partitions
        wanted = [*known] if partitions is None else [*partitions]
        for partition in wanted:
            if partition not in known:
                raise no_partition(topic, len(known), partition)
        by_leader: dict[int, list[int]] = {}
        for partition in wanted:
            if partition not in found:
                by_leader.setdefault(pool.leader_of(topic, partition), []).append(partition)
        try:
            for leader, led in by_leader.items():
                found.update(
                    await _ask(pool, topic, leader, _question(topic, at, led, isolation_level))
                )
        except ClientError:
            await pool.refresh((topic,))
            raise

    await pool.retry(attempt)
    return {partition: found[partition] for partition in sorted(found)}


async def _ask(pool: Pool, topic: str, leader: int, question: Any) -> dict[int, Resolved]:
    """Ask one leader about its partitions."""
    if leader == NO_BROKER:
        raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic {topic!r}")
    connection = await pool.connection(leader)
    answer = await connection.request(Api.LIST_OFFSETS, question)
    found: dict[int, Resolved] = {}
    for row in (row for each in answer.topics for row in each.partitions):
        protocol.check(row.error_code, f"topic {topic!r}, partition {row.partition_index}")
        found[row.partition_index] = Resolved(row.offset, row.timestamp)
    return found


def _question(topic: str, at: Place, partitions: list[int], isolation_level: int) -> Any:
    match at:
        case Edge.BEGINNING:
            time_ms = _BEGINNING_TIME
        case Edge.END:
            time_ms = _END_TIME
        case AtTime():
            time_ms = at.time_ms
    rows = [
        protocol.message(
            "ListOffsetsRequest.ListOffsetsPartition", partition_index=each, timestamp=time_ms
        )
        for each in partitions
    ]
    row = protocol.message("ListOffsetsRequest.ListOffsetsTopic", name=topic, partitions=rows)
    return protocol.message(
        "ListOffsetsRequest", replica_id=-1, isolation_level=isolation_level, topics=[row]
    )
