"""DeleteRecords (key 21), versions 0 to 2: everything of a partition below an offset is forgotten.

v2  flexible. The offset -1 means the high watermark (quirk 14). Answered with the low watermark,
which is the log's start offset, when the new start is committed: no reader, and no later life of
this broker, sees what was below it. The offset may fall inside a batch. An offset below the start
changes nothing and is answered at once.
"""

from corelane.api.fencing import fault_of
from corelane.api.gather import Shape
from corelane.api.gather_rows import Rows, gather_of
from corelane.api.leaders import fault_of_absent
from corelane.model.errors import ErrorCode
from corelane.model.ids import Offset
from corelane.shard.call import Call
from corelane.shard.partition import Partition
from corelane.shard.shard import Shard
from corelane.shard.trimming import trim, wait_for_start
from corelane.wire.compiler import Message, message_type

TO_HIGH_WATERMARK = -1
NO_LOW_WATERMARK = -1
WAIT_MS_MAX = 5 * 60 * 1000

Response = message_type("DeleteRecordsResponse")
TopicRow = message_type("DeleteRecordsResponse.DeleteRecordsTopicResult")
PartitionRow = message_type("DeleteRecordsResponse.DeleteRecordsPartitionResult")


class DeleteRecordsWait:
    """A request whose new starts are being committed."""

    __slots__ = ("call", "is_done", "response", "rows_open", "shard")

    def __init__(self, shard: Shard, call: Call) -> None:
        self.shard = shard
        self.call = call
        self.response = Response()
        self.rows_open = 1  # the request itself, until all its rows were looked at
        self.is_done = False

    def settle(self) -> None:
        """Count one row as decided, and answer after the last."""
        self.rows_open -= 1
        if self.rows_open == 0 and not self.is_done:
            self._answer()

    def expire(self, now_ms: int) -> None:
        """Answer; what is not committed yet has REQUEST_TIMED_OUT, and may still be trimmed."""
        del now_ms
        self.shard.counts.requests_timed_out += 1
        self._answer()

    def _answer(self) -> None:
        self.is_done = True
        if not self.call.slot.connection.is_closed:
            self.call.answer(self.response)


class RowTrim:
    """One partition of the request, while its new start is not committed."""

    __slots__ = ("partition", "row", "start", "wait")

    def __init__(
        self, wait: DeleteRecordsWait, partition: Partition, start: Offset, row: Message
    ) -> None:
        self.wait = wait
        self.partition = partition
        self.start = start
        self.row = row

    def settled(self, *, is_lost: bool) -> None:
        """Take the fate of the TRIM entry."""
        if self.wait.is_done:
            return
        if is_lost:
            self.row.error_code = fault_of(self.partition) or ErrorCode.NOT_LEADER_OR_FOLLOWER
        else:
            assert self.start <= self.partition.log.start_offset, "it is committed, so it acts"
            self.row.error_code = 0
            self.row.low_watermark = self.partition.log.start_offset
        self.wait.settle()


def handle(shard: Shard, call: Call) -> None:
    """Trim what may be trimmed; every partition has an answer of its own."""
    request = call.decode()
    wait = DeleteRecordsWait(shard, call)
    for wanted in request.topics:
        topic_row = TopicRow(name=wanted.name)
        wait.response.topics.append(topic_row)
        topic = shard.groups.topics.get(wanted.name.encode())
        for wish in wanted.partitions:
            row = PartitionRow(partition_index=wish.partition_index, low_watermark=NO_LOW_WATERMARK)
            topic_row.partitions.append(row)
            partition = None if topic is None else topic.partition(wish.partition_index)
            if partition is None:
                row.error_code = fault_of_absent(shard, topic, wish.partition_index)[0]
            else:
                _trim(wait, partition, wish.offset, row)
    if wait.rows_open > 1:
        shard.deadlines.add(shard.now_ms + max(0, min(request.timeout_ms, WAIT_MS_MAX)), wait)
    wait.settle()


def _trim(wait: DeleteRecordsWait, partition: Partition, offset: int, row: Message) -> None:
    """Begin to trim one partition (the order of the checks is Kafka's)."""
    log = partition.log
    row.error_code = fault_of(partition)
    if row.error_code:
        return
    if not partition.topic.settings.is_deleted:
        row.error_code = ErrorCode.POLICY_VIOLATION
        return
    start = log.committed_offset if offset == TO_HIGH_WATERMARK else Offset(offset)
    if not 0 <= start <= log.committed_offset:
        row.error_code = ErrorCode.OFFSET_OUT_OF_RANGE
        return
    if not trim(partition, start):
        row.error_code = ErrorCode.KAFKA_STORAGE_ERROR  # the WAL is full: it may be retried
        return
    if wait_for_start(partition, start, RowTrim(wait, partition, start, row)):
        row.error_code = ErrorCode.REQUEST_TIMED_OUT  # as long as nothing better is known
        wait.rows_open += 1
    else:
        row.low_watermark = log.start_offset


gather = gather_of(
    Rows(
        "DeleteRecords",
        Shape("topics", "name", "partitions", "partition_index"),
        Shape("topics", "name", "partitions", "partition_index"),
        "DeleteRecordsTopicResult",
        "DeleteRecordsPartitionResult",
        handle,
    )
)
"""Answers through a door of the whole node."""
