"""ListOffsets (key 2), versions 1 to 7: the offset of a time, or of an end of the log.

v1  one offset per partition.  v2  isolation level: records of transactions count when these have
committed, so that the end is the last stable offset.  v4  leader epoch (KIP-320).  v6  flexible.
v7  the record with the largest timestamp (-3, KIP-734). Tiered timestamps (-4 and below, v8) are
not served, and named in answer with UNSUPPORTED_VERSION.

By timestamp the answer is the first record of that time or later, found inside its batch (which
may need decompression, done off the loop), never below the log start; -1/-1 when there is none
(quirk 33). The leader epoch is that of the offset, the current one only for the end (quirk 34).
"""

from collections import Counter
from functools import partial

from corelane.api.fencing import fault_of
from corelane.api.fetch import READ_COMMITTED
from corelane.api.gather import Shape
from corelane.api.gather_rows import Rows, gather_of
from corelane.api.leaders import fault_of_absent
from corelane.api.time_lookup import NewestLookUp, TimeLookUp
from corelane.model.errors import ErrorCode
from corelane.model.ids import Offset, Term
from corelane.model.limits import INT16_MAX
from corelane.model.record import record
from corelane.shard.call import Call
from corelane.shard.partition import Partition
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
NOTHING = -1
FROM_VERSION = {LATEST: 1, EARLIEST: 1, MAX_TIMESTAMP: 7}
"""The version from which on a special timestamp is known."""

Response = message_type("ListOffsetsResponse")
TopicRow = message_type("ListOffsetsResponse.ListOffsetsTopicResponse")
PartitionRow = message_type("ListOffsetsResponse.ListOffsetsPartitionResponse")


@record
class Asked:
    """What is asked of one partition."""

    partition: Partition
    wish: Message
    is_committed: bool

    @property
    def end(self) -> Offset:
        """Return where that ends which the client may see."""
        if self.is_committed:
            return self.partition.last_stable_offset
        return self.partition.log.committed_offset


class OffsetsWait:
    """A request whose time look-ups are under way."""

    __slots__ = ("call", "response", "rows_open", "shard")

    def __init__(self, shard: Shard, call: Call, response: Message) -> None:
        self.shard = shard
        self.call = call
        self.response = response
        self.rows_open = 1

    def settle(self) -> None:
        """Count one row as found, and answer after the last."""
        self.rows_open -= 1
        if self.rows_open == 0 and not self.call.slot.connection.is_closed:
            self.call.answer(self.response)


def handle(shard: Shard, call: Call) -> None:
    """Answer every partition; look-ups by time may take further turns."""
    request = call.decode()
    response = Response()
    named = Counter(
        (topic.name, wish.partition_index) for topic in request.topics for wish in topic.partitions
    )
    wait = OffsetsWait(shard, call, response)
    is_committed = request.isolation_level == READ_COMMITTED
    for topic_wish in request.topics:
        rows: list[Message] = []
        response.topics.append(TopicRow(name=topic_wish.name, partitions=rows))
        topic = shard.groups.topics.get(topic_wish.name.encode())
        for wish in topic_wish.partitions:
            row = PartitionRow(
                partition_index=wish.partition_index, timestamp=NOTHING, offset=NOTHING
            )
            rows.append(row)
            partition = None if topic is None else topic.partition(wish.partition_index)
            if partition is None:
                row.error_code = fault_of_absent(shard, topic, wish.partition_index)[0]
                continue
            row.error_code = _fault(call.version, wish, named[topic_wish.name, row.partition_index])
            row.error_code = row.error_code or fault_of(partition, wish.current_leader_epoch)
            if not row.error_code:
                wait.rows_open += 1
                asked = Asked(partition, wish, is_committed=is_committed)
                read = partial(_read, wait, asked, row)
                shard.groups.reads.when_current(partition, read)
    wait.settle()


def _read(wait: OffsetsWait, asked: Asked, row: Message, is_current: bool) -> None:
    """Answer a row if this core leads for certain (KIP-207 knows new leaders, not deposed ones)."""
    row.error_code = fault_of(asked.partition, asked.wish.current_leader_epoch)
    if not (is_current or row.error_code):
        row.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER
    if not row.error_code:
        _answer_row(wait, asked, row)
    wait.settle()


def _fault(version: int, wish: Message, times_named: int) -> int:
    if times_named > 1:
        return ErrorCode.INVALID_REQUEST
    if wish.timestamp < 0 and version < FROM_VERSION.get(wish.timestamp, INT16_MAX):
        return ErrorCode.UNSUPPORTED_VERSION
    return 0


def _answer_row(wait: OffsetsWait, asked: Asked, row: Message) -> None:
    partition, timestamp = asked.partition, asked.wish.timestamp
    log = partition.log
    if timestamp == LATEST:
        row.offset = asked.end
        row.leader_epoch = partition.raft.term
    elif timestamp == EARLIEST:
        row.offset = log.start_offset
        row.leader_epoch = _epoch_of(partition, log.start_offset)
    elif log.start_offset < asked.end:
        wait.rows_open += 1
        found = partial(_found, wait, asked, row)
        if timestamp == MAX_TIMESTAMP:
            NewestLookUp(wait.shard, partition, row, found).begin()
        else:
            TimeLookUp(wait.shard, partition, timestamp, row, found).begin()


def _found(wait: OffsetsWait, asked: Asked, row: Message) -> None:
    """Tell of no record that the client may not see, as Kafka does not."""
    if row.offset >= asked.end:
        row.offset = row.timestamp = row.leader_epoch = NOTHING
    wait.settle()


def _epoch_of(partition: Partition, offset: int) -> Term:
    """Return the epoch of *offset*; an empty log has no record to take one from."""
    log = partition.log
    if offset >= log.committed_offset:
        return partition.raft.term
    return log.epoch_of(Offset(offset))


gather = gather_of(
    Rows(
        "ListOffsets",
        Shape("topics", "name", "partitions", "partition_index"),
        Shape("topics", "name", "partitions", "partition_index"),
        "ListOffsetsTopicResponse",
        "ListOffsetsPartitionResponse",
        handle,
    )
)
"""Answers through a door of the whole node."""
