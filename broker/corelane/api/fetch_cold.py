"""A Fetch's reads from disk: asked for when memory has no longer what a client wants."""

# performance-critical: see STYLE.md

from typing import Protocol

import corelane_native as native
from corelane.api.fetch_response import FetchedPartition
from corelane.model.errors import ErrorCode
from corelane.model.ids import ChunkId, Offset
from corelane.model.limits import READ_BYTES_MAX
from corelane.model.record import record
from corelane.shard.effects import Part
from corelane.shard.partition import Partition
from corelane.shard.shard import Shard
from corelane.storage.log_reads import ColdRead
from corelane.storage.reading import ColdResult
from corelane.storage.segments import Segment


class Reader(Protocol):
    """The request for which the disk is read."""

    shard: Shard
    bytes_left: int
    reads_open: int
    chunks_held: list[ChunkId]

    @property
    def unknown(self) -> ErrorCode:
        """The error of a topic that is not there."""

    def found(self, wanted: "Wanted", next_offset: int) -> None:
        """Note that the batches for *wanted* are found; they end before *next_offset*."""

    def read_done(self) -> None:
        """Note that a read is over."""


@record
class Wanted:
    """What a request wants of one partition, and where its answer goes."""

    partition: Partition
    offset: Offset
    offset_max: Offset
    """Batches begin below it, also where the disk has more."""
    bytes_max: int
    out: FetchedPartition


def read_cold(reader: Reader, read: ColdRead, wanted: Wanted, *, is_first: bool) -> None:
    """Have the answer filled with what the disk has, now or in a later turn."""
    limit = max(0, min(wanted.bytes_max, reader.bytes_left, READ_BYTES_MAX))
    if not is_first and limit < read.segment.batch_bytes_max:
        return  # a batch may not fit: this partition is first in the client's next request
    reader.bytes_left -= limit
    shard = reader.shard

    def answered(result: ColdResult) -> None:
        _take(reader, read.segment, result, wanted, limit)
        reader.read_done()

    reader.reads_open += 1
    shard.counts.reads_cold += 1
    try:
        shard.store.reading.read_cold(wanted.partition.log, read, answered)
    except MemoryError:
        reader.reads_open -= 1  # answered empty: the client asks again


def _take(
    reader: Reader, segment: Segment, result: ColdResult, wanted: Wanted, bytes_max: int
) -> None:
    """Cut what the disk returned to whole batches, from the one that holds the offset."""
    shard, partition, out = reader.shard, wanted.partition, wanted.out
    shard.counts.reads_cold_bytes += result.size_bytes
    reader.chunks_held.append(result.chunk)
    if wanted.offset < partition.log.start_offset:  # trimmed meanwhile, its file may be gone
        out.error = ErrorCode.OFFSET_OUT_OF_RANGE
        out.log_start_offset = partition.log.start_offset
        return
    if result.error and partition.is_dropped:
        gone = partition.topic.is_deleted  # else another core has it now
        out.error = reader.unknown if gone else ErrorCode.NOT_LEADER_OR_FOLLOWER
        return
    if result.error:
        shard.damage(partition, segment, f"reading its segment failed with errno {result.error}")
        out.error = ErrorCode.KAFKA_STORAGE_ERROR
        return
    parts, next_offset = _cut(shard, result, (wanted.offset, wanted.offset_max), bytes_max)
    if parts:
        size_bytes = sum(part[2] if isinstance(part, tuple) else len(part) for part in parts)
        out.found(parts, size_bytes)
        reader.found(wanted, next_offset)


def _cut(
    shard: Shard, result: ColdResult, offsets: tuple[Offset, Offset], bytes_max: int
) -> tuple[list[Part], int]:
    """Return the wanted batches as parts, and the offset behind them.

    The last one on disk may end in the suffix, which is less than a block: only that one is
    copied, never the megabytes before it.
    """
    chunk, position = result.chunk, result.position
    address = shard.arena.address(chunk) + position
    run = native.batches_run(address, result.size_bytes, offsets, bytes_max, first_always=True)
    parts: list[Part] = []
    next_offset = run.next_offset
    if run.start >= 0:
        parts.append((chunk, type(position)(position + run.start), run.end - run.start))
    if run.is_cut and result.suffix:
        rest = native.bytes_at(address + run.end, result.size_bytes - run.end) + result.suffix
        left = max(0, bytes_max - run.end)
        is_first = run.end == 0
        more = native.batches_run(
            native.address_of(rest), len(rest), offsets, left, first_always=is_first
        )
        if more.start >= 0:
            parts.append(rest[more.start : more.end])
            next_offset = more.next_offset
    return parts, next_offset
