"""Asks a cluster about its transactions, and ends those that nobody else would."""

from collections.abc import Collection, Sequence
from typing import Any

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane_client import protocol
from corelane_client.connection import Connection
from corelane_client.coordinators import Kind, at_coordinator
from corelane_client.errors import ClientError, KafkaError
from corelane_client.group_offsets import Place
from corelane_client.leaders import Answers, ask_leaders, only_good, outcome
from corelane_client.pool import Pool
from corelane_client.protocol import Api, check
from corelane_client.subscriptions import places


@record
class TransactionListing:
    """A transactional id as ListTransactions names it."""

    transactional_id: str
    producer_id: int
    state: str
    coordinator: int


@record
class TransactionDescription:
    """A transactional id as its coordinator describes it."""

    transactional_id: str
    coordinator: int
    state: str
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    start_ms: int
    """When the open transaction began, in milliseconds since 1970; -1: none is open."""
    partitions: frozenset[Place]


@record
class ActiveProducer:
    """A producer that a partition remembers."""

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_timestamp_ms: int
    coordinator_epoch: int
    transaction_start: int
    """The first offset of its open transaction; -1: it has none."""


@record
class Filter:
    """Which transactions to list; empty: all."""

    states: Sequence[str] = ()
    producer_ids: Sequence[int] = ()


async def list_transactions(pool: Pool, wanted: Filter) -> list[TransactionListing]:
    """Return the transactional ids of all coordinators, by name. Raises ClientError."""
    body = protocol.message(
        "ListTransactionsRequest",
        state_filters=[*wanted.states],
        producer_id_filters=[*wanted.producer_ids],
    )

    async def attempt() -> dict[str, TransactionListing]:
        await pool.refresh(())
        found: dict[str, TransactionListing] = {}
        for broker_id in pool.brokers:
            answer = await (await pool.connection(broker_id)).request(Api.LIST_TRANSACTIONS, body)
            check(answer.error_code, f"broker {broker_id}")
            if answer.unknown_state_filters:
                names = ", ".join(answer.unknown_state_filters)
                raise ClientError(
                    f"no transaction has the state {names}",
                    "States are Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit,"
                    " CompleteAbort, PrepareEpochFence and Dead.",
                )
            for row in answer.transaction_states:
                found[row.transactional_id] = TransactionListing(
                    row.transactional_id, row.producer_id, row.transaction_state, broker_id
                )
        return found

    found = await pool.retry(attempt)
    return [found[name] for name in sorted(found)]


async def describe_transaction(pool: Pool, name: str) -> TransactionDescription:
    """Return what the coordinator of a transactional id knows. Raises ClientError."""

    async def ask(connection: Connection, coordinator: int) -> TransactionDescription:
        body = protocol.message("DescribeTransactionsRequest", transactional_ids=[name])
        answer = await connection.request(Api.DESCRIBE_TRANSACTIONS, body)
        (row,) = answer.transaction_states
        check(row.error_code, f"transactional id {name!r}")
        return TransactionDescription(
            name,
            coordinator,
            row.transaction_state,
            row.producer_id,
            row.producer_epoch,
            row.transaction_timeout_ms,
            row.transaction_start_time_ms,
            places({topic.topic: topic.partitions for topic in row.topics}),
        )

    return await at_coordinator(pool, Kind.TRANSACTION, name, ask)


async def describe_producers(
    pool: Pool, topic: str, partitions: Collection[int] | None = None
) -> dict[int, list[ActiveProducer]]:
    """Return the producers that each partition (None: all) remembers. Raises ClientError."""

    async def ask(connection: Connection, led: list[int]) -> Answers[list[ActiveProducer]]:
        row = protocol.message(
            "DescribeProducersRequest.TopicRequest", name=topic, partition_indexes=led
        )
        body = protocol.message("DescribeProducersRequest", topics=[row])
        answer = await connection.request(Api.DESCRIBE_PRODUCERS, body)
        return {
            each.partition_index: outcome(
                each.error_code, topic, each.partition_index, _producers(each)
            )
            for found in answer.topics
            for each in found.partitions
        }

    return only_good(await ask_leaders(pool, topic, partitions, ask))


async def abort_in_partition(pool: Pool, place: Place, producer: ActiveProducer) -> None:
    """End a producer's transaction in one partition, whatever its coordinator says.

    Raises ClientError.
    """
    topic, number = place
    row = protocol.message(
        "WriteTxnMarkersRequest.WritableTxnMarkerTopic", name=topic, partition_indexes=[number]
    )
    marker = protocol.message(
        "WriteTxnMarkersRequest.WritableTxnMarker",
        producer_id=producer.producer_id,
        producer_epoch=producer.producer_epoch,
        transaction_result=False,
        coordinator_epoch=max(producer.coordinator_epoch, 0),
        topics=[row],
    )
    body = protocol.message("WriteTxnMarkersRequest", markers=[marker])

    async def ask(connection: Connection, _led: list[int]) -> Answers[None]:
        answer = await connection.request(Api.WRITE_TXN_MARKERS, body)
        return {
            each.partition_index: outcome(each.error_code, topic, each.partition_index, None)
            for found in answer.markers
            for rows in found.topics
            for each in rows.partitions
        }

    only_good(await ask_leaders(pool, topic, [number], ask))


async def abort_of(pool: Pool, name: str) -> int:
    """Abort what is open under a transactional id and fence its producer; return the new epoch.

    Raises ClientError, also where there is no such id.
    """
    timeout_ms = (await describe_transaction(pool, name)).timeout_ms

    async def ask(connection: Connection, _coordinator: int) -> int:
        body = protocol.message(
            "InitProducerIdRequest",
            transactional_id=name,
            transaction_timeout_ms=timeout_ms,
        )
        answer = await connection.request(Api.INIT_PRODUCER_ID, body)
        check(answer.error_code, f"transactional id {name!r}")
        return int(answer.producer_epoch)

    return await at_coordinator(pool, Kind.TRANSACTION, name, ask)


async def is_coordinated(pool: Pool, place: Place, producer_id: int) -> bool:
    """Return whether some coordinator still means to end a producer's transaction there.

    If not it hangs: only an operator ends it. Raises ClientError.
    """
    for listed in await list_transactions(pool, Filter(producer_ids=(producer_id,))):
        try:
            found = await describe_transaction(pool, listed.transactional_id)
        except KafkaError as error:
            if error.code != ErrorCode.TRANSACTIONAL_ID_NOT_FOUND:
                raise
            continue
        if found.producer_id == producer_id and place in found.partitions:
            return True
    return False


def _producers(row: Any) -> list[ActiveProducer]:
    return [
        ActiveProducer(
            each.producer_id,
            each.producer_epoch,
            each.last_sequence,
            each.last_timestamp,
            each.coordinator_epoch,
            each.current_txn_start_offset,
        )
        for each in row.active_producers
    ]
