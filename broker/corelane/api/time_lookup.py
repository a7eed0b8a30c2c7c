"""The search for the first record of a time: the batch by index, then the record inside it.

The rows of a segment tell of the newest time so far, so an index leads straight to the batch where
that time is first reached. Only behind such a batch (it may lie below the log's start, or the
record in it) no row tells more: there, batches are read and looked at one after the other.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from corelane.api.fencing import fault_of
from corelane.model.errors import ErrorCode
from corelane.model.ids import Offset
from corelane.model.limits import REQUEST_BYTES_MAX
from corelane.shard.events import WorkDone
from corelane.shard.partition import Partition
from corelane.shard.shard import Shard
from corelane.storage.log_reads import ColdRead, MemoryRead
from corelane.storage.reading import ColdResult
from corelane.wire.batch import (
    FoundRecord,
    WalkedBatches,
    batch_header,
    first_record_at,
    walk_batches,
    whole_batches,
)
from corelane.wire.compiler import Message
from corelane_native import bytes_at

DECOMPRESSED_BYTES_MAX: Final = REQUEST_BYTES_MAX
WALK_BYTES: Final = 512 * 1024
NONE: Final = -1


class TimeLookUp:
    """Looks for the first record at or above the log start of a time or later."""

    __slots__ = ("batch", "done", "newest", "offset", "partition", "row", "shard", "timestamp")

    def __init__(
        self,
        shard: Shard,
        partition: Partition,
        timestamp: int,
        row: Message,
        done: Callable[[], None],
    ) -> None:
        self.shard = shard
        self.partition = partition
        self.timestamp = timestamp
        self.row = row
        self.done = done
        self.offset = Offset(0)  # below it nothing is looked for any more
        self.newest = NONE  # of the batches that were walked in vain
        self.batch = b""

    def begin(self) -> None:
        """Look from `offset` on; `done` is called now or in a later turn, with the row filled."""
        log = self.partition.log
        if self._is_over():
            return
        self.offset = max(self.offset, log.start_offset)
        found = log.find_timestamp(self.timestamp, self.offset, log.committed_offset)
        if isinstance(found, MemoryRead):
            chunk, position, size = found.parts[0]
            self._look_inside(bytes_at(self.shard.arena.address(chunk) + position, size))
        elif isinstance(found, ColdRead):
            self._read(found, self._searched)
        else:
            self._nothing()

    def _is_over(self) -> bool:
        """Whether the partition cannot be asked any more."""
        self.row.error_code = fault_of(self.partition)
        if self.row.error_code:
            self.done()
        return bool(self.row.error_code)

    def _nothing(self) -> None:
        """There is no such record."""
        self.done()

    def _read(self, cold: ColdRead, then: Callable[[bytes], None]) -> None:
        try:
            reading = self.shard.store.reading
            reading.read_cold(self.partition.log, cold, partial(self._was_read, cold, then))
        except MemoryError:
            self.row.error_code = ErrorCode.REQUEST_TIMED_OUT
            self.done()

    def _was_read(self, cold: ColdRead, then: Callable[[bytes], None], result: ColdResult) -> None:
        arena, partition = self.shard.arena, self.partition
        view = arena.view(result.chunk, result.position, 0 if result.error else result.size_bytes)
        data = bytes(view) + result.suffix
        arena.release(result.chunk)
        if not result.error:
            then(data)
        elif partition.is_dropped or self.offset < partition.log.start_offset:
            self.begin()  # its file went meanwhile
        else:
            why = f"reading its segment failed with errno {result.error}"
            self.shard.damage(partition, cold.segment, why)
            self.row.error_code = ErrorCode.KAFKA_STORAGE_ERROR
            self.done()

    def _searched(self, data: bytes) -> None:
        """Look into the batch that the index led to, or walk on where it is no longer wanted."""
        for at, head in whole_batches(data, 0):
            if head.base_offset + head.last_offset_delta >= self.offset:
                self._look_inside(data[at : at + head.size_bytes])
            else:
                self._walk()
            return
        self._nothing()

    def _walk(self) -> None:
        if self._is_over():
            return
        log = self.partition.log
        self.offset = max(self.offset, log.start_offset)
        read = log.read(self.offset, WALK_BYTES, log.committed_offset, at_least_one=True)
        if isinstance(read, ColdRead):
            self._read(read, self._walk_through)
        else:
            self.begin()  # what is in memory is found without a walk

    def _walk_through(self, data: bytes) -> None:
        arguments = (data, self.timestamp, self.offset)
        self.shard.work(walk_batches, arguments, partial(self._walked, data))

    def _walked(self, data: bytes, done: WorkDone) -> None:
        walked = done.value
        assert isinstance(walked, WalkedBatches)
        self.newest = max(self.newest, walked.newest)
        if walked.found_size_bytes:
            end = walked.found_at + walked.found_size_bytes
            self._look_inside(data[walked.found_at : end])
        elif walked.next_offset > self.offset:
            self.offset = Offset(walked.next_offset)
            self.begin()
        else:
            self._nothing()

    def _look_inside(self, batch: bytes) -> None:
        head = batch_header(batch)
        self.batch = batch
        delta_min = max(0, self.offset - head.base_offset)
        arguments = (batch, self.timestamp, DECOMPRESSED_BYTES_MAX, delta_min)
        self.shard.work(first_record_at, arguments, self._found)

    def _found(self, done: WorkDone) -> None:
        """Answer with the record, or look behind this batch: the record lay below `offset`."""
        found, head = done.value, batch_header(self.batch)
        start = self.partition.log.start_offset
        if isinstance(found, FoundRecord):
            offset, timestamp = head.base_offset + found.offset_delta, found.timestamp
        elif done.failure is not None:
            # The batch was stored as the producer sent it; its first record is near enough.
            offset, timestamp = max(head.base_offset, self.offset), head.max_timestamp
        else:
            offset, timestamp = NONE, NONE
        if offset >= start:
            self.row.offset = offset
            self.row.timestamp = timestamp
            self.row.leader_epoch = head.leader_epoch
            self.done()
            return
        if offset == NONE:
            self.offset = Offset(head.base_offset + head.last_offset_delta + 1)
        self.begin()  # else the log start has passed it meanwhile


class NewestLookUp(TimeLookUp):
    """Looks for the record with the largest timestamp (KIP-734)."""

    __slots__ = ("is_last_attempt",)

    def __init__(
        self, shard: Shard, partition: Partition, row: Message, done: Callable[[], None]
    ) -> None:
        newest = partition.log.newest_timestamp(partition.log.start_offset)
        super().__init__(shard, partition, newest, row, done)
        self.is_last_attempt = newest == NONE

    def _nothing(self) -> None:
        """The newest record was trimmed: on the way it was seen what is the newest of the rest."""
        log = self.partition.log
        self.offset = max(self.offset, log.start_offset)
        rest = max(self.newest, log.newest_timestamp(self.offset))
        if self.is_last_attempt or rest == NONE:
            self.done()
            return
        self.is_last_attempt = True
        self.timestamp = rest
        self.offset = log.start_offset
        self.begin()
