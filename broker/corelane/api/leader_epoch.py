"""OffsetForLeaderEpoch (key 23), versions 2 to 4: where a leader epoch ended (KIP-320).

v3  replica id.  v4  flexible. Consumers ask before they go on after a change of leader, and find
out with the answer whether what they read was cut. Epochs are this log's terms (quirk 35).
"""

from corelane.api.fencing import fault_of
from corelane.api.gather import Shape
from corelane.api.gather_rows import Rows, gather_of
from corelane.api.leaders import fault_of_absent
from corelane.model.ids import Term
from corelane.shard.call import Call
from corelane.shard.partition import Partition
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

Response = message_type("OffsetForLeaderEpochResponse")
TopicRow = message_type("OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult")
PartitionRow = message_type("OffsetForLeaderEpochResponse.EpochEndOffset")


def handle(shard: Shard, call: Call) -> None:
    """Answer every partition."""
    request = call.decode()
    response = Response()
    for wanted in request.topics:
        rows: list[Message] = []
        response.topics.append(TopicRow(topic=wanted.topic, partitions=rows))
        topic = shard.groups.topics.get(wanted.topic.encode())
        for wish in wanted.partitions:
            row = PartitionRow(partition=wish.partition)
            rows.append(row)
            partition = None if topic is None else topic.partition(wish.partition)
            if partition is None:
                row.error_code = fault_of_absent(shard, topic, wish.partition)[0]
            else:
                _answer(partition, wish, row)
    call.answer(response)


def _answer(partition: Partition, wish: Message, row: Message) -> None:
    row.error_code = fault_of(partition, wish.current_leader_epoch)
    if not row.error_code:
        found = partition.log.epoch_end_offset(Term(wish.leader_epoch))
        row.leader_epoch, row.end_offset = found


gather = gather_of(
    Rows(
        "OffsetForLeaderEpoch",
        Shape("topics", "topic", "partitions", "partition"),
        Shape("topics", "topic", "partitions", "partition"),
        "OffsetForLeaderTopicResult",
        "EpochEndOffset",
        handle,
    )
)
"""Answers through a door of the whole node."""
