"""DescribeProducers (key 61, KIP-664): who writes to a partition, and whose transaction is open."""

from corelane.api.fencing import fault_of
from corelane.api.gather import Shape
from corelane.api.gather_rows import Rows, gather_of
from corelane.api.leaders import fault_of_absent
from corelane.model.errors import ERRORS
from corelane.shard.call import Call
from corelane.shard.partition import Partition
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

Response = message_type("DescribeProducersResponse")
TopicRow = message_type("DescribeProducersResponse.TopicResponse")
PartitionRow = message_type("DescribeProducersResponse.PartitionResponse")
ProducerRow = message_type("DescribeProducersResponse.ProducerState")

_NONE = -1


def handle(shard: Shard, call: Call) -> None:
    """Answer for every partition that is named."""
    response = Response()
    for wanted in call.decode().topics:
        rows: list[Message] = []
        response.topics.append(TopicRow(name=wanted.name, partitions=rows))
        topic = shard.groups.topics.get(wanted.name.encode())
        for number in wanted.partition_indexes:
            partition = None if topic is None else topic.partition(number)
            error: int
            if partition is None:
                error = fault_of_absent(shard, topic, number)[0]
            else:
                error = fault_of(partition)
            row = PartitionRow(partition_index=number, error_code=error)
            if error:
                row.error_message = ERRORS[error].sentence
            else:
                assert partition is not None
                row.active_producers = _producers(partition)
            rows.append(row)
    call.answer(response)


def _producers(partition: Partition) -> list[Message]:
    """Return who is remembered, by their sequence numbers or by their transactions."""
    found: dict[int, Message] = {}
    for last in partition.producers.describe():
        found[last.producer_id] = ProducerRow(
            producer_id=last.producer_id,
            producer_epoch=last.producer_epoch,
            last_sequence=(last.base_sequence + last.record_count - 1) & 0x7FFF_FFFF,
            last_timestamp=last.max_timestamp_ms,
            coordinator_epoch=_NONE,
            current_txn_start_offset=_NONE,
        )
    for each in partition.transactions.describe():
        standing = each.standing
        row = found.get(each.producer_id)
        if row is None:
            row = found[each.producer_id] = ProducerRow(
                producer_id=each.producer_id, last_timestamp=standing.used_ms
            )
        row.producer_epoch = max(row.producer_epoch, standing.epoch)
        row.coordinator_epoch = standing.coordinator_term
        row.current_txn_start_offset = (
            _NONE if standing.first_offset is None else standing.first_offset
        )
    return [found[producer_id] for producer_id in sorted(found)]


gather = gather_of(
    Rows(
        "DescribeProducers",
        Shape("topics", "name", "partition_indexes", ""),
        Shape("topics", "name", "partitions", "partition_index"),
        "TopicResponse",
        "PartitionResponse",
        handle,
    )
)
"""Answers through a door of the whole node."""
