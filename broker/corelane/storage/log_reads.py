"""What is read of a group's log by offset and by time: committed batches, and where terms end."""

# performance-critical: see STYLE.md

from bisect import bisect_right

from corelane.model.ids import ChunkId, Index, Offset, Position, RecordKind, Term
from corelane.model.limits import FETCH_PARTS_MAX
from corelane.model.record import record
from corelane.storage.effects import Range
from corelane.storage.layout import NO_TIMESTAMP
from corelane.storage.segments import (
    COLUMN_MAX_TIMESTAMP,
    COLUMN_NEXT_OFFSET,
    Segment,
    Segments,
)
from corelane.storage.tail import Tail


@record
class MemoryRead:
    """Whole batches in memory; they stay valid while references on their chunks are held."""

    parts: list[Range]
    size_bytes: int
    next_offset: Offset


@record
class ColdRead:
    """Batches on disk: hand this to `Reading.read_cold` to have them read."""

    segment: Segment
    column: int
    key: int
    start: int
    """Where in `.log` the first batch starts; -1: ask the disk's rows with column and key."""
    bytes_max: int


class LogReads:
    """The reading half of a `GroupLog`, which says what these are."""

    segments: Segments
    start_offset: Offset
    committed_index: Index
    committed_offset: Offset
    term_starts: list[tuple[Term, Index, Offset]]
    tail: Tail
    tail_first: Index
    tail_offset: Offset

    def read(
        self, offset: Offset, bytes_max: int, offset_max: Offset, *, at_least_one: bool
    ) -> MemoryRead | ColdRead | None:
        """Return whole batches from the one that holds *offset*, all below *offset_max*.

        From memory at most `FETCH_PARTS_MAX` of them.
        None: there are none, or the first exceeds *bytes_max* and *at_least_one* is false.
        """
        assert self.start_offset <= offset
        assert offset_max <= self.committed_offset, "only what is committed is read"
        if offset >= offset_max:
            return None
        if offset >= self.tail_offset:
            at = self.tail.native.find(offset)
            return self._read_tail(at, bytes_max, offset_max, at_least_one=at_least_one)
        found = self.segments.holding(offset)
        assert found >= 0, "an offset above the start has a segment"
        return self._cold(self.segments.items[found], COLUMN_NEXT_OFFSET, offset, bytes_max)

    def _read_tail(
        self, at: int, bytes_max: int, offset_max: Offset, *, at_least_one: bool
    ) -> MemoryRead | None:
        parts: list[Range] = []
        total = 0
        next_offset = Offset(0)
        rows = self.tail.native.rows(at, len(self.tail))
        for end, _newest, _lsn, chunk, position, size_bytes, _term, kind in rows:
            if end > offset_max:
                break
            if kind != RecordKind.BATCH:
                continue
            if len(parts) >= FETCH_PARTS_MAX:
                break
            if total + size_bytes > bytes_max and (parts or not at_least_one):
                break
            parts.append((ChunkId(chunk), Position(position), size_bytes))
            total += size_bytes
            next_offset = Offset(end)
        return MemoryRead(parts, total, next_offset) if parts else None

    def _cold(self, segment: Segment, column: int, key: int, bytes_max: int) -> ColdRead:
        in_memory = segment.search_remainder(column, key)
        start = -1 if in_memory is None else in_memory[0]
        return ColdRead(segment, column, key, start, bytes_max)

    def find_timestamp(
        self, timestamp: int, offset_min: Offset, offset_max: Offset
    ) -> MemoryRead | ColdRead | None:
        """Return the first batch below *offset_max* with a record of *timestamp* or later.

        It ends above *offset_min*, but may begin below it, and one on disk may even end there:
        the rows of a segment tell of the newest time so far. Then there may be another behind it.
        """
        assert self.start_offset <= offset_min
        if offset_min < self.tail_offset:
            at = self.segments.holding(offset_min)
            assert at >= 0, "an offset above the start has a segment"
            for segment in self.segments.items[at:]:
                ends_before_tail = segment.base_offset < self.tail_offset
                if segment.max_timestamp >= timestamp and ends_before_tail:
                    size = segment.batch_bytes_max
                    return self._cold(segment, COLUMN_MAX_TIMESTAMP, timestamp, size)
        first = self.tail.native.find(offset_min)
        for number, entry in enumerate(self.tail.slice(first, len(self.tail)), first):
            if entry.next_offset > offset_max:
                return None
            if entry.max_timestamp >= timestamp and entry.kind == RecordKind.BATCH:
                return self._read_tail(number, 0, offset_max, at_least_one=True)
        return None

    def newest_timestamp(self, offset_min: Offset) -> int:
        """Return the newest timestamp of committed batches that end above *offset_min*, about.

        It may be of a record before *offset_min* in the same segment. -1: there is none.
        """
        newest = NO_TIMESTAMP
        if offset_min < self.tail_offset:
            segments = self.segments.items[max(0, self.segments.holding(offset_min)) :]
            newest = max((segment.max_timestamp for segment in segments), default=NO_TIMESTAMP)
        first = self.tail.native.find(offset_min)
        end = self.committed_index + 1 - self.tail_first
        return max(newest, self.tail.native.sums(first, max(first, end))[2])

    def epoch_end_offset(self, term: Term) -> tuple[Term, Offset]:
        """Return (term, end offset) for OffsetForLeaderEpoch (quirk 35); (-1, -1): unknown.

        As Kafka's LeaderEpochFileCache: a term that has no record, or none above the log start,
        is as if it had never been, but for the newest.
        """
        starts = self.term_starts
        if not starts or term > starts[-1][0]:
            return Term(-1), Offset(-1)
        at = bisect_right(starts, term, key=lambda start: start[0])
        if at == len(starts):
            return starts[-1][0], self.committed_offset
        end = max(starts[at][2], self.start_offset)
        while at > 0 and starts[at - 1][2] >= starts[at][2]:
            at -= 1  # no record of it
        if at == 0 or end == self.start_offset:
            return term, end
        return starts[at - 1][0], end

    def epoch_of(self, offset: Offset) -> Term:
        """Return the leader epoch under which *offset* was written; the newest for the end."""
        at = bisect_right(self.term_starts, offset, key=lambda start: start[2]) - 1
        return self.term_starts[at][0] if at >= 0 else Term(0)

    def tail_index_at(self, offset: Offset) -> Index:
        """Return the index of the first tail entry that ends above *offset*."""
        return Index(self.tail_first + self.tail.native.find(offset))

    def chunk_ids(self, parts: list[Range]) -> list[ChunkId]:
        """Return the chunks of *parts*, each once, in order."""
        return list(dict.fromkeys(part[0] for part in parts))
