"""Moving committed entries from the arena to a group's segments, one group at a time each.

Invariants:
F1. Only committed entries are written, in index order (S1).
F2. A group has at most one flush under way; its effect on the log is taken when every write of
    it is answered, never before.
F3. A flush that fails for want of space changes nothing: the entries stay in arena and WAL.
"""

# performance-critical: see STYLE.md

from collections.abc import Callable
from typing import Final

from corelane.model.ids import ChunkId, Index, JobId, Offset, Position, RecordKind, Term
from corelane.model.limits import SEGMENT_WRITE_BYTES_MAX
from corelane.storage.effects import SegmentWrite
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import (
    BLOCK_BYTES,
    CONTROL_HEADER,
    NO_TIMESTAMP,
    ROW,
    ROW_BYTES,
    blocks_up,
)
from corelane.storage.segments import Segment, Stream, split_blocks
from corelane.storage.tail import Entry
from corelane_native import COLLECT_MAX, Arena, Collecting, bytes_at, crc32c

EXACT_SIZE_OPEN: Final = -1


class StreamWrite:
    """What a flush does to one stream: *whole* bytes more on disk, then a new remainder."""

    __slots__ = ("frontier", "remainder", "stream", "truncate_to", "written")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.written = b""
        self.frontier = stream.frontier
        self.remainder = stream.remainder
        self.truncate_to = EXACT_SIZE_OPEN


class Flush:
    """One flush under way: its writes, and what becomes of the log when all are answered."""

    __slots__ = (
        "batch_bytes_max",
        "chunk",
        "entry_bytes",
        "entry_count",
        "first_at",
        "first_timestamp",
        "is_failed",
        "jobs",
        "last_index",
        "last_offset",
        "last_term",
        "log",
        "log_bytes",
        "log_life",
        "max_timestamp",
        "paths",
        "seals",
        "segment",
        "writes",
    )

    def __init__(self, log: GroupLog, segment: Segment) -> None:
        self.log = log
        self.log_life = log.life
        self.segment = segment
        self.entry_count = 0
        self.first_at = 0  # of the tail as it was when the flush began
        self.jobs: set[JobId] = set()
        self.paths: list[str] = []  # what it writes to
        self.chunk: ChunkId | None = None
        self.writes = [StreamWrite(stream) for stream in segment.streams]
        self.seals = False
        self.is_failed = False
        self.log_bytes = 0
        self.entry_bytes = 0
        self.last_index = log.flushed_index
        self.last_offset: Offset = log.flushed_offset
        self.last_term: Term = log.flushed_term
        self.max_timestamp = segment.max_timestamp
        self.first_timestamp = segment.first_timestamp
        self.batch_bytes_max = segment.batch_bytes_max


def plan(log: GroupLog, arena: Arena) -> Flush | None:
    """Return the next flush of *log*, or None when everything committed is flushed.

    Raises MemoryError when the arena has no room to gather the bytes in.
    """
    assert not log.is_flushing, "F2: one flush of a group at a time"
    assert log.flushed_index <= log.committed_index
    if log.flushed_index == log.committed_index:
        return _closing(log, log.segments.items[-1]) if log.wants_seal else None
    segment = _active(log)
    assert segment.base_index + segment.row_count == log.flushed_index + 1
    first = log.entry(Index(log.flushed_index + 1))
    if _must_roll(log, segment, first):
        return _closing(log, segment)
    flush = Flush(log, segment)
    rows, controls = _collect(log, flush)
    assert flush.entry_count
    assert flush.last_index <= log.committed_index, "F1: only committed entries"
    _gather(arena, flush)
    for write, added in ((flush.writes[1], rows), (flush.writes[2], b"".join(controls))):
        write.written, write.remainder = split_blocks(write.stream, added)
        write.frontier += len(write.written)
    return flush


def _collect(log: GroupLog, flush: Flush) -> tuple[bytes, list[bytes]]:
    """Choose the entries of *flush*; return their rows, and control entries."""
    begin = flush.segment.log.size_bytes
    at = log.flushed_index + 1 - log.tail_first
    upto = min(log.committed_index + 1 - log.tail_first, at + COLLECT_MAX)
    # Where the log begins now is behind what is flushed, the segment that ends there is closed.
    closed_at = log.start_offset if log.flushed_offset < log.start_offset else NO_TIMESTAMP
    given = Collecting(
        begin, SEGMENT_WRITE_BYTES_MAX, max(0, log.segment_bytes - begin), log.segment_ms,
        closed_at, flush.first_timestamp, flush.max_timestamp, flush.batch_bytes_max,
        flush.last_offset, flush.last_term,
    )  # fmt: skip
    found, rows = log.tail.native.collect(at, upto, given)
    controls: list[bytes] = []
    if found.batches < found.entries:
        for index, entry in enumerate(
            log.tail.slice(at, at + found.entries), log.flushed_index + 1
        ):
            if entry.kind != RecordKind.BATCH:
                payload = log.control_payload(Index(index))
                head = CONTROL_HEADER.pack(index, entry.kind, len(payload))
                controls.append(head + payload + crc32c(head + payload).to_bytes(4, "little"))
    flush.first_at, flush.entry_count = at, found.entries
    flush.log_bytes, flush.entry_bytes = found.log_bytes, found.all_bytes
    flush.max_timestamp, flush.batch_bytes_max = found.newest, found.biggest
    flush.first_timestamp = found.oldest
    flush.last_index = Index(flush.last_index + found.entries)
    flush.last_offset, flush.last_term = Offset(found.last_offset), Term(found.last_term)
    return rows, controls


def _active(log: GroupLog) -> Segment:
    items = log.segments.items
    if items and not items[-1].is_sealed:
        return items[-1]
    segment = Segment(log.segments.directory, Index(log.flushed_index + 1), log.flushed_offset)
    log.segments.append(segment)
    log.is_dirty = True  # a row may name it before anything of it is written
    return segment


def is_left_behind(log: GroupLog) -> bool:
    """Whether the last segment's file ends just where the log begins now."""
    items = log.segments.items
    has_file = bool(items) and not items[-1].is_sealed and items[-1].log.frontier > 0
    return has_file and log.flushed_offset == log.start_offset


def _must_roll(log: GroupLog, segment: Segment, entry: Entry) -> bool:
    """Kafka rolls by size and by the age of records, as their timestamps tell it.

    And where all of a file lies below the log's start and nothing behind it does: so it can go.
    """
    if is_left_behind(log):
        return True
    size = segment.log.size_bytes
    if size == 0 or entry.kind != RecordKind.BATCH:
        return False
    if size + entry.size_bytes > log.segment_bytes:
        return True
    first = segment.first_timestamp
    return first != NO_TIMESTAMP and entry.max_timestamp - first > log.segment_ms


def _closing(log: GroupLog, segment: Segment) -> Flush:
    """Return the flush that closes *segment*."""
    flush = Flush(log, segment)
    flush.seals = True
    for write in flush.writes:
        _seal(write)
    return flush


def _seal(write: StreamWrite) -> None:
    """Write the remainder as a padded block and cut the file to its exact size (S3)."""
    stream = write.stream
    if not stream.remainder:
        return
    padding = bytes(blocks_up(len(stream.remainder)) - len(stream.remainder))
    write.written = stream.remainder + padding
    write.frontier = write.truncate_to = stream.size_bytes
    write.remainder = b""


def _gather(arena: Arena, flush: Flush) -> None:
    """Copy the batches behind one another, after what the `.log` stream's remainder holds."""
    if not flush.log_bytes:
        return
    write = flush.writes[0]
    old = write.stream.remainder
    total = len(old) + flush.log_bytes
    chunk = ChunkId(arena.chunk_new(blocks_up(total)))
    if old:
        arena.write(chunk, 0, old)
    at = flush.first_at
    copied = flush.log.tail.native.gather(arena, chunk, len(old), at, at + flush.entry_count)
    assert copied == flush.log_bytes
    whole = total - total % 4096
    write.remainder = bytes_at(arena.address(chunk) + whole, total - whole)
    write.frontier += whole
    flush.chunk = chunk


def effects(flush: Flush, arena: Arena, next_job: Callable[[], JobId]) -> list[SegmentWrite]:
    """Return the writes of *flush*; none when everything still fits the remainders."""
    out = []
    for number, write in enumerate(flush.writes):
        stream = write.stream
        if number == 0 and not flush.seals:
            size = write.frontier - stream.frontier
            chunk, at = flush.chunk, 0
        else:
            size = len(write.written)
            chunk, at = _place(flush, arena, write.written) if size else (None, 0)
        if size == 0:
            continue
        assert chunk is not None
        assert size % BLOCK_BYTES == 0
        assert stream.frontier % BLOCK_BYTES == 0, "S2: whole blocks"
        job = next_job()
        flush.jobs.add(job)
        out.append(
            SegmentWrite(
                job, flush.segment.path(stream), Position(stream.frontier), chunk, Position(at),
                size, write.truncate_to,
            )
        )  # fmt: skip
    return out


def _place(flush: Flush, arena: Arena, data: bytes) -> tuple[ChunkId, int]:
    """Put *data* into memory of its own, which the store releases when the flush is over."""
    chunk = ChunkId(arena.chunk_new(len(data)))
    arena.write(chunk, 0, data)
    flush.log.store.borrow(flush, chunk)
    return chunk, 0


class NextJob:
    """Hands out job ids."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0

    def __call__(self) -> JobId:
        self.last += 1
        return JobId(self.last)


def finish(flush: Flush) -> None:
    """Take note that every write of *flush* was answered well (invariant F2)."""
    log, segment = flush.log, flush.segment
    assert not flush.jobs, "F2: every write is answered"
    assert not flush.is_failed, "F3"
    assert not segment.is_sealed
    for write in flush.writes:
        if write.stream is segment.rows and write.written and not flush.seals:
            last = ROW.unpack_from(write.written, len(write.written) - ROW_BYTES)
            segment.disk_row = (last[0], last[1], last[2])
        write.stream.frontier = write.frontier
        write.stream.remainder = write.remainder
    if flush.seals:
        segment.is_sealed = True
        log.is_dirty = True  # its remainders need not be kept any more
        segment.disk_row = (log.flushed_offset, segment.log.frontier, segment.max_timestamp)
        return
    segment.max_timestamp = flush.max_timestamp
    segment.first_timestamp = flush.first_timestamp
    segment.batch_bytes_max = flush.batch_bytes_max
    if log.is_dropped:
        return
    assert flush.last_index == log.flushed_index + flush.entry_count
    assert flush.last_index <= log.committed_index, "F1"
    assert flush.last_offset >= log.flushed_offset
    at = log.flushed_index + 1 - log.tail_first
    for chunk, count in log.tail.by_chunk(at, at + flush.entry_count):
        chunk.unflushed -= count
        assert chunk.unflushed >= 0
    log.unflushed_bytes -= flush.entry_bytes
    assert log.unflushed_bytes >= 0
    log.flushed_index = flush.last_index
    log.flushed_offset = flush.last_offset
    log.flushed_term = flush.last_term
    log.is_dirty = True
