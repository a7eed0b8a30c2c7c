"""AddPartitionsToTxn (24), AddOffsetsToTxn (25), EndTxn (26): one transaction, step by step.

AddPartitionsToTxn: v2 PRODUCER_FENCED, v3 flexible, v4 several transactions at once and questions
only (brokers ask so), v5 TRANSACTION_ABORTABLE. AddOffsetsToTxn and EndTxn: v2 PRODUCER_FENCED, v3
flexible, v4 TRANSACTION_ABORTABLE. EndTxn v5 gives each transaction an epoch of its own (KIP-890).
"""

from corelane.api.group_calls import routed, split_by_key
from corelane.api.leaders import exists
from corelane.api.transaction_calls import abortable_at_version, ask, consult, is_late
from corelane.model.errors import ErrorCode
from corelane.model.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from corelane.producers.transactions.records import Partition
from corelane.producers.transactions.requests import (
    AddPartitions,
    Answer,
    EndTransaction,
    PartitionsAnswer,
    ProducerAnswer,
    VerifyPartitions,
    error_at_version,
)
from corelane.shard.call import Call
from corelane.shard.key_hash import partition_number
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

_SEVERAL_FROM = 4
_BUMPS_FROM = 5
_PLAIN, _STRICT = 1, 2

AddResponse = message_type("AddPartitionsToTxnResponse")
AddedTransaction = message_type("AddPartitionsToTxnResponse.AddPartitionsToTxnResult")
AddedTopic = message_type("AddPartitionsToTxnResponse.AddPartitionsToTxnTopicResult")
AddedPartition = message_type("AddPartitionsToTxnResponse.AddPartitionsToTxnPartitionResult")
OffsetsResponse = message_type("AddOffsetsToTxnResponse")
EndResponse = message_type("EndTxnResponse")

Errors = dict[Partition, ErrorCode]


def add_partitions(shard: Shard, call: Call) -> None:
    """Make partitions part of transactions, or say whether they are."""
    request = call.decode()
    if call.version >= _SEVERAL_FROM:
        _Several(shard, call, request)
        return
    topics = request.v3_and_below_topics
    places = _places(topics)
    unknown = _unknown(shard, places)
    if unknown:
        call.answer(AddResponse(results_by_topic_v3_and_below=_rows(topics, unknown, call.version)))
        return
    name = request.v3_and_below_transactional_id
    producer = (request.v3_and_below_producer_id, request.v3_and_below_producer_epoch)
    if is_late(shard, call, name, producer):
        return

    def told(answer: Answer | ErrorCode) -> Message:
        errors = _errors(places, answer)
        return AddResponse(results_by_topic_v3_and_below=_rows(topics, errors, call.version))

    ask(shard, call, name, AddPartitions(name, *producer, places, _PLAIN), told)


class _Several:
    """A request about several transactions, each of which its coordinator decides about."""

    def __init__(self, shard: Shard, call: Call, request: Message) -> None:
        self._shard = shard
        self._call = call
        self._rows: list[Message] = []
        self._open = 1
        for row in request.transactions:
            self._open += 1
            self._begin(row)
        self._close()

    def _begin(self, asked: Message) -> None:
        row = AddedTransaction(transactional_id=asked.transactional_id)
        self._rows.append(row)
        places = _places(asked.topics)

        def told(answer: Answer | ErrorCode) -> None:
            row.topic_results = _rows(asked.topics, _errors(places, answer), self._call.version)
            self._close()

        name, producer = asked.transactional_id, (asked.producer_id, asked.producer_epoch)
        if asked.verify_only:
            consult(self._shard, name, VerifyPartitions(name, *producer, places), told)
            return
        unknown = _unknown(self._shard, places)
        if unknown:
            row.topic_results = _rows(asked.topics, unknown, self._call.version)
            self._close()
            return
        consult(self._shard, name, AddPartitions(name, *producer, places, _STRICT), told)

    def _close(self) -> None:
        self._open -= 1
        if self._open == 0 and not self._call.slot.connection.is_closed:
            self._call.answer(AddResponse(results_by_transaction=self._rows))


def _places(topics: list[Message]) -> tuple[Partition, ...]:
    return tuple((topic.name, number) for topic in topics for number in topic.partitions)


def _unknown(shard: Shard, places: tuple[Partition, ...]) -> Errors:
    """Return the errors of all where some partition does not exist, as Kafka does; else none."""
    topics = shard.groups.topics
    missing = {place for place in places if not exists(topics.get(place[0].encode()), place[1])}
    if not missing:
        return {}
    unknown, others = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.OPERATION_NOT_ATTEMPTED
    return {place: unknown if place in missing else others for place in places}


def _errors(places: tuple[Partition, ...], answer: Answer | ErrorCode) -> Errors:
    if isinstance(answer, ErrorCode):
        return dict.fromkeys(places, answer)
    assert isinstance(answer, PartitionsAnswer)
    return dict(zip(places, answer.errors, strict=True))


def _rows(topics: list[Message], errors: Errors, version: int) -> list[Message]:
    return [
        AddedTopic(
            name=topic.name,
            results_by_partition=[
                AddedPartition(
                    partition_index=number,
                    partition_error_code=_known(errors[topic.name, number], version),
                )
                for number in topic.partitions
            ],
        )
        for topic in topics
    ]


def _known(error: ErrorCode, version: int) -> ErrorCode:
    error = error_at_version(error, "AddPartitionsToTxn", version)
    return abortable_at_version(error, "AddPartitionsToTxn", version)


def add_offsets(shard: Shard, call: Call) -> None:
    """Make the partition that coordinates a group part of the transaction."""
    request = call.decode()
    topic = shard.groups.topics.get(OFFSETS_TOPIC.encode())
    # Made when the group's coordinator is looked for, which clients do after this.
    count = shard.config.config.groups.partition_count if topic is None else len(topic.partitions)
    place = (OFFSETS_TOPIC, partition_number(request.group_id, count))
    name = request.transactional_id
    wish = AddPartitions(name, request.producer_id, request.producer_epoch, (place,), _PLAIN)
    if is_late(shard, call, name, (request.producer_id, request.producer_epoch)):
        return

    def told(answer: Answer | ErrorCode) -> Message:
        error = _errors((place,), answer)[place]
        return OffsetsResponse(error_code=error_at_version(error, "AddOffsetsToTxn", call.version))

    ask(shard, call, name, wish, told)


def end(shard: Shard, call: Call) -> None:
    """Commit or abort."""
    request = call.decode()
    name = request.transactional_id
    producer = (request.producer_id, request.producer_epoch)
    if call.version < _BUMPS_FROM and is_late(shard, call, name, producer):
        return
    wish = EndTransaction(
        name,
        request.producer_id,
        request.producer_epoch,
        request.committed,
        _STRICT if call.version >= _BUMPS_FROM else _PLAIN,
    )

    def told(answer: Answer | ErrorCode) -> Message:
        if isinstance(answer, ErrorCode):
            return EndResponse(error_code=answer)
        assert isinstance(answer, ProducerAnswer)
        if answer.error:
            return EndResponse(error_code=error_at_version(answer.error, "EndTxn", call.version))
        return EndResponse(producer_id=answer.producer_id, producer_epoch=answer.epoch)

    ask(shard, call, name, wish, told)


def name_of(request: Message) -> str:
    """Return the transactional id that a request is about."""
    name: str = request.transactional_id
    return name


def _added_name(request: Message) -> str:
    name: str = request.v3_and_below_transactional_id
    return name


_gather_one = routed(add_partitions, _added_name, TRANSACTIONS_TOPIC)
_gather_several = split_by_key(
    add_partitions,
    "transactions",
    "results_by_transaction",
    lambda row: str(getattr(row, "transactional_id", "")),
    TRANSACTIONS_TOPIC,
)


def gather_add_partitions(shard: Shard, call: Call) -> None:
    """Answer through a door of the whole node."""
    (_gather_several if call.version >= _SEVERAL_FROM else _gather_one)(shard, call)


gather_add_offsets = routed(add_offsets, name_of, TRANSACTIONS_TOPIC)
gather_end = routed(end, name_of, TRANSACTIONS_TOPIC)
