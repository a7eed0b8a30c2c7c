"""ListOffsets (key 2), versions 1 to 7: the offset of a time, or of an end of the log.

v1  one offset per partition.  v2  isolation level.  v4  leader epoch (KIP-320).  v6  flexible.
v7  the record with the largest timestamp (-3, KIP-734). Tiered timestamps (-4 and below, v8) are
not served.

By timestamp the answer is the first record of that time or later, found inside its batch (which
may need decompression, done off the loop), never below the log start; -1/-1 when there is none
(quirk 33). The leader epoch is that of the offset, the current one only for the end (quirk 34).
"""

from corelane.api.gather import Shape
from corelane.api.gather_rows import Rows, gather_of
from corelane.api.leaders import fault_of_absent
from corelane.model.errors import ErrorCode
from corelane.model.ids import Offset, Term
from corelane.model.limits import REQUEST_BYTES_MAX
from corelane.shard.call import Call
from corelane.shard.events import WorkDone
from corelane.shard.partition import Partition
from corelane.shard.shard import Shard
from corelane.storage.group_log import ColdRead, MemoryRead
from corelane.storage.store import ColdResult
from corelane.wire.batch import FoundRecord, batch_header, first_record_at, whole_batches
from corelane.wire.compiler import Message, message_type
from corelane_native import bytes_at

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
NOTHING = -1
DECOMPRESSED_BYTES_MAX = REQUEST_BYTES_MAX
_NO_EPOCH = -1

Response = message_type("ListOffsetsResponse")
TopicRow = message_type("ListOffsetsResponse.ListOffsetsTopicResponse")
PartitionRow = message_type("ListOffsetsResponse.ListOffsetsPartitionResponse")


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
    wait = OffsetsWait(shard, call, response)
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
            error = _fault(partition, wish.current_leader_epoch)
            if error:
                row.error_code = error
                continue
            _answer_row(wait, partition, wish.timestamp, row)
    wait.settle()


def _fault(partition: Partition, epoch: int) -> int:
    if partition.is_damaged:
        return ErrorCode.KAFKA_STORAGE_ERROR
    if not partition.serves:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    if epoch not in {_NO_EPOCH, partition.raft.term}:
        newer = epoch > partition.raft.term
        return ErrorCode.UNKNOWN_LEADER_EPOCH if newer else ErrorCode.FENCED_LEADER_EPOCH
    return 0


def _answer_row(wait: OffsetsWait, partition: Partition, timestamp: int, row: Message) -> None:
    log = partition.log
    if timestamp == LATEST:
        row.offset = log.committed_offset
        row.leader_epoch = partition.raft.term
    elif timestamp == EARLIEST:
        row.offset = log.start_offset
        row.leader_epoch = _epoch_of(partition, log.start_offset)
    elif timestamp == MAX_TIMESTAMP:
        if log.max_timestamp >= 0 and log.start_offset < log.committed_offset:
            TimeLookUp(wait, partition, log.max_timestamp, row).begin()
    elif timestamp < 0:
        row.error_code = ErrorCode.UNSUPPORTED_VERSION
    else:
        TimeLookUp(wait, partition, timestamp, row).begin()


def _epoch_of(partition: Partition, offset: int) -> Term:
    """Return the epoch of *offset*; an empty log has no record to take one from."""
    log = partition.log
    if offset >= log.committed_offset:
        return partition.raft.term
    return log.epoch_of(Offset(offset))


class TimeLookUp:
    """The search for the first record of a time: batch by index, then record inside the batch."""

    __slots__ = ("batch", "partition", "row", "timestamp", "wait")

    def __init__(
        self, wait: OffsetsWait, partition: Partition, timestamp: int, row: Message
    ) -> None:
        self.wait = wait
        self.partition = partition
        self.timestamp = timestamp
        self.row = row
        self.batch = b""

    def begin(self) -> None:
        """Find the batch, in memory or on disk."""
        shard, log = self.wait.shard, self.partition.log
        self.wait.rows_open += 1
        found = log.find_timestamp(self.timestamp, log.committed_offset)
        if isinstance(found, MemoryRead):
            chunk, position, size = found.parts[0]
            self._look_inside(bytes_at(shard.arena.address(chunk) + position, size))
        elif isinstance(found, ColdRead):
            try:
                shard.store.read_cold(log, found, self._read)
            except MemoryError:
                self.row.error_code = ErrorCode.REQUEST_TIMED_OUT
                self.wait.settle()
        else:
            self.wait.settle()

    def _read(self, result: ColdResult) -> None:
        shard = self.wait.shard
        if result.error:
            if self.partition.is_dropped:
                self.row.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            else:
                why = f"reading its segment failed with errno {result.error}"
                shard.damage(self.partition, why)
                self.row.error_code = ErrorCode.KAFKA_STORAGE_ERROR
            shard.arena.release(result.chunk)
            self.wait.settle()
            return
        view = shard.arena.view(result.chunk, result.position, result.size_bytes)
        data = bytes(view) + result.suffix
        shard.arena.release(result.chunk)
        for at, head in whole_batches(data, 0):
            self._look_inside(data[at : at + head.size_bytes])
            return
        self.wait.settle()

    def _look_inside(self, batch: bytes) -> None:
        head = batch_header(batch)
        self.batch = batch
        delta_min = max(0, self.partition.log.start_offset - head.base_offset)
        arguments = (batch, self.timestamp, DECOMPRESSED_BYTES_MAX, delta_min)
        self.wait.shard.work(first_record_at, arguments, self._found)

    def _found(self, done: WorkDone) -> None:
        found = done.value
        head = batch_header(self.batch)
        if isinstance(found, FoundRecord):
            self.row.offset = head.base_offset + found.offset_delta
            self.row.timestamp = found.timestamp
            self.row.leader_epoch = head.leader_epoch
        elif done.failure is not None:
            # The batch was stored as the producer sent it; its first record is near enough.
            self.row.offset = max(head.base_offset, self.partition.log.start_offset)
            self.row.timestamp = head.max_timestamp
            self.row.leader_epoch = head.leader_epoch
        self.wait.settle()


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
