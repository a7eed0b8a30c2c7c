"""The log of one raft group: its tail in memory, its segments, and the way between them.

Invariants (FORMAT.md, G):
G1. `tail` holds the entries from `tail_first` to `last_index`, none missing; every entry above
    `flushed_index` is in it.
G2. flushed_index <= committed_index <= last_index.
G3. Offsets are dense: an entry's first offset is the next offset of the entry before it.
"""

# performance-critical: see STYLE.md

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from corelane.model.ids import ChunkId, Index, Lsn, NodeId, Offset, Position, RecordKind, Term
from corelane.model.limits import FETCH_PARTS_MAX
from corelane.model.record import record
from corelane.storage.chunks import Chunk
from corelane.storage.effects import Range
from corelane.storage.layout import NO_TIMESTAMP, Descriptor
from corelane.storage.segments import (
    COLUMN_MAX_TIMESTAMP,
    COLUMN_NEXT_OFFSET,
    Segment,
    Segments,
)
from corelane_native import address_of, bytes_at

if TYPE_CHECKING:
    from corelane.raft.membership import Configuration
    from corelane.storage.store import CoreStore

FLUSH_BYTES: Final = 256 * 1024
"""Committed bytes of a group above which they go to its segment: large writes, few of them."""
TAIL_TRIM_MIN: Final = 64


class Entry(NamedTuple):
    """One raft entry in memory; its payload is (chunk, position, size_bytes)."""

    term: Term
    kind: int
    next_offset: Offset
    chunk: Chunk
    position: int
    size_bytes: int
    max_timestamp: int
    lsn: Lsn


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


@record
class LogState:
    """What recovery knows of a log before its tail is loaded."""

    term: Term
    voted_for: NodeId
    flushed_index: Index
    flushed_offset: Offset
    flushed_term: Term
    first_index: Index
    first_term: Term
    start_offset: Offset
    max_timestamp: int
    term_starts: list[tuple[Term, Index, Offset]]


class GroupLog:
    """One group's log; implements raft's `LogView`. Made by `CoreStore` and recovery only."""

    def __init__(self, store: "CoreStore", descriptor: Descriptor, state: LogState) -> None:
        assert 1 <= state.first_index <= state.flushed_index + 1
        assert state.flushed_term <= state.term or state.term == 0
        self.store = store
        self.descriptor = descriptor
        self.group = descriptor.group
        self.segments = Segments(descriptor.directory)
        self.term = state.term
        self.voted_for = state.voted_for
        self.first_index = state.first_index
        self.first_term = state.first_term  # of the entry before first_index
        self.last_index = state.flushed_index
        self.last_term = state.flushed_term
        self.next_offset = state.flushed_offset
        self.start_offset = state.start_offset
        self.committed_index = state.flushed_index
        self.committed_offset = state.flushed_offset
        self.flushed_index = state.flushed_index
        self.flushed_offset = state.flushed_offset
        self.flushed_term = state.flushed_term
        self.max_timestamp = state.max_timestamp  # of committed batches
        self.term_starts = state.term_starts
        self.truncations = 0
        self.tail: list[Entry] = []
        self.tail_first = Index(state.flushed_index + 1)
        self.tail_offset = state.flushed_offset  # first offset of the tail
        self._next_offsets: list[int] = []
        self.uncommitted_bytes = 0
        self.unflushed_bytes = 0
        self.segment_bytes = 1 << 30
        self.segment_ms = 1 << 62
        self.is_flushing = False
        self.is_flush_wanted = False
        self.damage = ""  # why recovery found it damaged; kept in checkpoints
        self.is_dropped = False
        self.is_leaving = False  # for another core: nothing is appended, the last segment closed
        self.is_dirty = False  # something flushed since the last TAIL record
        self.tail_lsn = Lsn(0)
        self.last_lsn = Lsn(0)  # of anything this group put

    # --- raft's view ---

    def term_at(self, index: Index) -> Term:
        """Return the term of an entry from first_index - 1 to last_index; 0 for index 0."""
        at = index - self.tail_first
        if 0 <= at < len(self.tail):
            return self.tail[at].term
        if index == 0:
            return Term(0)
        if index == self.first_index - 1:
            return self.first_term
        assert self.first_index <= index <= self.last_index, f"no entry {index}"
        starts = self.term_starts
        found = bisect_right(starts, index, key=lambda start: start[1]) - 1
        assert found >= 0
        return starts[found][0]

    def span(self, first_index: Index, bytes_max: int) -> tuple[Index, int]:
        """Return (last index, bytes) of the longest run from *first_index* within *bytes_max*."""
        total = 0
        at = max(0, first_index - self.tail_first)
        last = Index(first_index - 1)
        for entry in self.tail[at:]:
            if total and total + entry.size_bytes > bytes_max:
                break
            total += entry.size_bytes
            last = Index(last + 1)
        return last, total

    # --- writing ---

    def configurations(
        self, first_index: Index, last_index: Index, /
    ) -> Sequence[tuple[Index, "Configuration"]]:
        """Return the CONFIG entries in a range; there are none while every group has one voter."""
        del first_index, last_index
        return ()

    def append_batch(
        self,
        term: Term,
        address: int,
        size_bytes: int,
        record_count: int,
        max_timestamp: int,
        append_time_ms: int,
    ) -> tuple[Index, Offset, Lsn]:
        """Append a checked batch as the leader of *term*; returns index, first offset and lsn."""
        assert term >= self.last_term, "terms never go back"
        assert not self.is_leaving, "what is appended now would stay behind"
        assert record_count > 0
        index = Index(self.last_index + 1)
        base_offset = self.next_offset
        lsn, chunk, position = self.store.wal.put_batch(
            term, self.group, index, base_offset, address, size_bytes, record_count, append_time_ms
        )
        if append_time_ms >= 0:
            max_timestamp = append_time_ms
        entry = Entry(
            term, RecordKind.BATCH, Offset(base_offset + record_count), chunk, position,
            size_bytes, max_timestamp, lsn,
        )  # fmt: skip
        self._appended(index, entry)
        return index, base_offset, lsn

    def append_control(self, term: Term, kind: RecordKind, payload: bytes) -> tuple[Index, Lsn]:
        """Append a control entry as the leader of *term*."""
        assert term >= self.last_term, "terms never go back"
        assert not self.is_leaving, "what is appended now would stay behind"
        assert kind != RecordKind.BATCH
        index = Index(self.last_index + 1)
        where = (address_of(payload), len(payload)) if payload else (0, 0)
        lsn, chunk, position = self.store.wal.put(
            kind, term, self.group, index, self.next_offset, where
        )
        entry = Entry(
            term, kind, self.next_offset, chunk, position, len(payload), NO_TIMESTAMP, lsn
        )
        self._appended(index, entry)
        return index, lsn

    def vote(self, term: Term, voted_for: NodeId) -> Lsn:
        """Put a VOTE record; reported by the store when it is durable."""
        assert term >= self.term, "terms never go back"
        assert not self.is_leaving, "the other core would not know of the vote"
        self.term = term
        self.voted_for = voted_for
        payload = voted_for.to_bytes(8, "little", signed=True)
        wal = self.store.wal
        lsn, _chunk, _position = wal.put(
            RecordKind.VOTE, term, self.group, self.last_index, self.next_offset,
            (address_of(payload), len(payload)),
        )  # fmt: skip
        wal.note_vote(self, term, voted_for)
        self._touched(lsn)
        return lsn

    def truncate(self, from_index: Index) -> Lsn:
        """Cut the uncommitted entries from *from_index* on, here and, by a record, in the WAL."""
        assert from_index > self.committed_index, "committed entries are never cut"
        at = from_index - self.tail_first
        assert at >= 0
        for entry in self.tail[at:]:
            entry.chunk.unflushed -= 1
            self.uncommitted_bytes -= entry.size_bytes
        del self.tail[at:], self._next_offsets[at:]
        self.last_index = Index(from_index - 1)
        self.next_offset = Offset(self._next_offsets[-1]) if self.tail else self.tail_offset
        self.last_term = self.tail[-1].term if self.tail else self.term_at(self.last_index)
        while self.term_starts and self.term_starts[-1][1] >= from_index:
            self.term_starts.pop()
        self.truncations += 1
        lsn, _chunk, _position = self.store.wal.put(
            RecordKind.TRUNCATE, self.term, self.group, from_index, self.next_offset, (0, 0)
        )
        self._touched(lsn)
        return lsn

    def _appended(self, index: Index, entry: Entry) -> None:
        self.load(index, entry)
        self.store.wal.note_entry(self, index, self.truncations)
        self._touched(entry.lsn)

    def _touched(self, lsn: Lsn) -> None:
        self.last_lsn = lsn

    def load(self, index: Index, entry: Entry) -> None:
        """Add an entry that is in its chunk already (the end of an append, and recovery)."""
        assert index == self.last_index + 1
        assert entry.next_offset >= self.next_offset, "G3: offsets are dense"
        self.tail.append(entry)
        self._next_offsets.append(entry.next_offset)
        chunk = entry.chunk
        chunk.unflushed += 1
        chunk.holders[self] = None
        if entry.term != self.last_term:
            self.term_starts.append((entry.term, index, self.next_offset))
            self.last_term = entry.term
        self.last_index = index
        self.next_offset = entry.next_offset
        self.uncommitted_bytes += entry.size_bytes

    # --- committing and flushing ---

    def commit(self, index: Index) -> None:
        """Take note that everything up to *index* is committed: readable, and due for segments."""
        assert self.committed_index <= index <= self.last_index
        first = self.committed_index + 1 - self.tail_first
        bytes_committed = 0
        start = self.start_offset
        for entry in self.tail[first : index + 1 - self.tail_first]:
            bytes_committed += entry.size_bytes
            self.max_timestamp = max(self.max_timestamp, entry.max_timestamp)
            if entry.kind == RecordKind.TRIM:
                self._trim(entry)
            self.committed_offset = entry.next_offset
        self.committed_index = index
        assert self.flushed_index <= self.committed_index, "G2"
        assert self.committed_offset <= self.next_offset
        self.uncommitted_bytes -= bytes_committed
        assert self.uncommitted_bytes >= 0
        self.unflushed_bytes += bytes_committed
        self.is_dirty = True
        # After a trim of all that is flushed the last segment is rolled, so that it can go too.
        is_left_behind = start < self.start_offset >= self.flushed_offset
        if self.unflushed_bytes >= FLUSH_BYTES or is_left_behind:
            self.want_flush()

    def _trim(self, entry: Entry) -> None:
        start = int.from_bytes(self._payload(entry), "little", signed=True)
        if start > self.start_offset:
            assert start <= self.committed_offset, "a trim never passes the commit point"
            self.start_offset = Offset(start)
            self.store.trimmed(self)

    def began_at(self, index: Index, term_before: Term) -> None:
        """Take note that the first segment begins at *index*, behind an entry of *term_before*."""
        assert self.first_index < index <= self.flushed_index + 1
        self.first_index = index
        self.first_term = term_before
        known = bisect_right(self.term_starts, index, key=lambda start: start[1]) - 1
        if known > 0:
            del self.term_starts[:known]  # that of the first entry is still asked for

    def want_flush(self) -> None:
        """Flush soon what is committed; a flush under way asks again itself when it is over."""
        if self.is_flush_wanted or self.is_flushing or self.is_dropped:
            return
        if self.flushed_index < self.committed_index or self.wants_seal:  # else for ever again
            self.is_flush_wanted = True
            self.store.flush_queue.append(self)

    @property
    def wants_seal(self) -> bool:
        """Whether the last segment is to be closed although nothing follows it."""
        items = self.segments.items
        if not self.is_leaving or not items or items[-1].is_sealed:
            return False
        return items[-1].log.size_bytes > 0

    def forget(self, chunk: Chunk) -> None:
        """Drop the tail's oldest entries as long as they lie in *chunk* (all are flushed)."""
        count = 0
        for entry in self.tail:
            if entry.chunk is not chunk:
                break
            count += 1
        if count:
            assert len(self._next_offsets) == len(self.tail)
            self.tail_offset = self.tail[count - 1].next_offset
            del self.tail[:count], self._next_offsets[:count]
            self.tail_first = Index(self.tail_first + count)
        assert self.tail_first <= self.flushed_index + 1, "unflushed entries were forgotten"

    # --- reading ---

    def entry(self, index: Index) -> Entry:
        """Return an entry of the tail."""
        assert index >= self.tail_first, f"entry {index} is not in memory"
        return self.tail[index - self.tail_first]

    def control_payload(self, index: Index) -> bytes:
        """Return the payload of a control entry of the tail."""
        return self._payload(self.entry(index))

    def _payload(self, entry: Entry) -> bytes:
        if entry.size_bytes == 0:
            return b""
        arena = self.store.arena
        return bytes_at(arena.address(entry.chunk.id) + entry.position, entry.size_bytes)

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
            at = bisect_right(self._next_offsets, offset)
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
        tail = self.tail
        for number in range(at, len(tail)):
            entry = tail[number]
            if entry.next_offset > offset_max:
                break
            if entry.kind != RecordKind.BATCH:
                continue
            if len(parts) >= FETCH_PARTS_MAX:
                break
            if total + entry.size_bytes > bytes_max and (parts or not at_least_one):
                break
            parts.append((entry.chunk.id, Position(entry.position), entry.size_bytes))
            total += entry.size_bytes
            next_offset = entry.next_offset
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
        first = bisect_right(self._next_offsets, offset_min)
        for number in range(first, len(self.tail)):
            entry = self.tail[number]
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
        first = bisect_right(self._next_offsets, offset_min)
        for entry in self.tail[first : self.committed_index + 1 - self.tail_first]:
            newest = max(newest, entry.max_timestamp)
        return newest

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
        return Index(self.tail_first + bisect_left(self._next_offsets, offset + 1))

    def chunk_ids(self, parts: list[Range]) -> list[ChunkId]:
        """Return the chunks of *parts*, each once, in order."""
        return list(dict.fromkeys(part[0] for part in parts))
