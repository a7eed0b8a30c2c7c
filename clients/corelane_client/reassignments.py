"""The words for moving replicas between nodes, and for asking what is being moved."""

from collections.abc import Mapping, Sequence
from typing import Any

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane_client import protocol
from corelane_client.errors import KafkaError
from corelane_client.pool import Pool
from corelane_client.protocol import Api


@record
class Reassignment:
    """A partition whose replicas are being changed."""

    topic: str
    partition: int
    replicas: list[int]
    """Those that are to be, then those that go."""
    adding: list[int]
    removing: list[int]


async def alter(
    pool: Pool, topic: str, wanted: Mapping[int, Sequence[int] | None]
) -> dict[int, KafkaError | None]:
    """Ask for other replicas of partitions; see `Admin.reassign_partitions`."""
    timeout_ms = pool.settings.request_timeout_ms
    rows = [
        protocol.message(
            "AlterPartitionReassignmentsRequest.ReassignablePartition",
            partition_index=number,
            replicas=None if brokers is None else [*brokers],
        )
        for number, brokers in wanted.items()
    ]
    row = protocol.message(
        "AlterPartitionReassignmentsRequest.ReassignableTopic", name=topic, partitions=rows
    )
    body = protocol.message(
        "AlterPartitionReassignmentsRequest", timeout_ms=timeout_ms, topics=[row]
    )
    answer = await _ask(pool, Api.ALTER_PARTITION_REASSIGNMENTS, body)
    found: dict[int, KafkaError | None] = {}
    for result in answer.responses:
        for each in result.partitions:
            what = f"topic {topic!r}, partition {each.partition_index}"
            fault = KafkaError(each.error_code, what, each.error_message)
            found[each.partition_index] = fault if each.error_code else None
    return found


async def ongoing(pool: Pool) -> list[Reassignment]:
    """Return what is being moved; see `Admin.list_reassignments`."""
    body = protocol.message(
        "ListPartitionReassignmentsRequest",
        timeout_ms=pool.settings.request_timeout_ms,
        topics=None,
    )
    answer = await _ask(pool, Api.LIST_PARTITION_REASSIGNMENTS, body)
    return [
        Reassignment(
            topic.name,
            each.partition_index,
            [*each.replicas],
            [*each.adding_replicas],
            [*each.removing_replicas],
        )
        for topic in answer.topics
        for each in topic.partitions
    ]


async def _ask(pool: Pool, api: Api, body: Any) -> Any:
    timeout_ms = pool.settings.request_timeout_ms

    async def attempt() -> Any:
        answer = await pool.request_controller(api, body, timeout_ms)
        if answer.error_code == ErrorCode.NOT_CONTROLLER:
            await pool.refresh(())
        protocol.check(answer.error_code, "reassignment", answer.error_message)
        return answer

    return await pool.retry(attempt)
