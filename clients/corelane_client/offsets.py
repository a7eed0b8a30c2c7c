"""Places in a partition that are not numbers, and the offsets they stand for."""

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from corelane.model.record import record
from corelane_client import protocol
from corelane_client.connection import Connection
from corelane_client.leaders import Answers, ask_leaders, only_good, outcome
from corelane_client.pool import Pool
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

    async def ask(connection: Connection, led: list[int]) -> Answers[Resolved]:
        answer = await connection.request(
            Api.LIST_OFFSETS, _question(topic, at, led, isolation_level)
        )
        return {
            row.partition_index: outcome(
                row.error_code, topic, row.partition_index, Resolved(row.offset, row.timestamp)
            )
            for each in answer.topics
            for row in each.partitions
        }

    return only_good(await ask_leaders(pool, topic, partitions, ask))


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
