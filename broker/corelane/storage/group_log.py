"""The log of one raft group: its tail in memory, its segments, and the way between them.

Invariants (FORMAT.md, G):
G1. `tail` holds the entries from `tail_first` to `last_index`, none missing; every entry above
    `flushed_index` is in it.
G2. flushed_index <= committed_index <= last_index.
G3. Offsets are dense: an entry's first offset is the next offset of the entry before it.
G4. Entries that are not committed for long are put into the WAL again, all that are left of them.
"""

# performance-critical: see STYLE.md

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Final

from corelane.model.ids import ChunkId, Index, Lsn, MemberId, Offset, Position, RecordKind, Term
from corelane.model.record import record
from corelane.raft import membership
from corelane.raft.loss import Loss
from corelane.storage import receiving
from corelane.storage.chunks import Chunk
from corelane.storage.configurations import Configurations, Configured
from corelane.storage.entries import (
    ENTRIES_MAX,
    ENTRY_HEAD,
    ENTRY_HEAD_BYTES,
    ColdEntries,
    EntryPart,
    MemoryEntries,
    cold_span,
)
from corelane.storage.layout import (
    NO_TIMESTAMP,
    RECORD_ALIGN_BYTES,
    RECORD_HEADER_BYTES,
    Descriptor,
)
from corelane.storage.log_reads import LogReads
from corelane.storage.segments import Segments
from corelane.storage.tail import Entry, Tail
from corelane_native import PlainRequests, PlainRow, address_of, bytes_at

if TYPE_CHECKING:
    from corelane.storage.store import CoreStore

FLUSH_BYTES: Final = 256 * 1024
"""Committed bytes of a group above which they go to its segment: large writes, few of them."""
TAIL_TRIM_MIN: Final = 64


@record
class LogState:
    """What recovery knows of a log before its tail is loaded."""

    term: Term
    voted_for: MemberId
    flushed_index: Index
    flushed_offset: Offset
    flushed_term: Term
    first_index: Index
    first_term: Term
    start_offset: Offset
    max_timestamp: int
    term_starts: list[tuple[Term, Index, Offset]]
    configurations: list[Configured] = field(default_factory=list)


class GroupLog(LogReads):
    """One group's log; implements raft's `LogView`. Made by `CoreStore` and recovery only."""

    def __init__(self, store: "CoreStore", descriptor: Descriptor, state: LogState) -> None:
        assert 1 <= state.first_index <= state.flushed_index + 1
        assert state.flushed_term <= state.term or state.term == 0
        self.store = store
        self.descriptor = descriptor
        self.group = descriptor.group
        self.life = 0  # how often it began anew
        self.truncations = 0
        self.is_flushing = False
        self.is_flush_wanted = False
        self.segment_bytes = 1 << 30
        self.segment_ms = 1 << 62
        self.is_dropped = False
        self.is_leaving = False  # for another core: nothing is appended, the last segment closed
        self.tail_lsn = Lsn(0)
        self.last_lsn = Lsn(0)  # of anything this group put
        self.renewed_lsn = Lsn(0)  # of the last RENEW record
        self.loss: Loss | None = None  # what it says is not made good yet
        self._begin(state)

    def _begin(self, state: LogState) -> None:
        self.segments = Segments(self.descriptor.directory)
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
        self.configured = Configurations(state.configurations)
        self.tail = Tail()
        self.tail_first = Index(state.flushed_index + 1)
        self.tail_offset = state.flushed_offset  # first offset of the tail
        self.uncommitted_bytes = 0
        self.unflushed_bytes = 0
        self.damage = ""  # why recovery found it damaged; kept in checkpoints
        self.is_dirty = False  # something flushed since the last TAIL record
        self.fold_index = Index(0)  # of the fold that it began with: there may be no entry of it

    # --- raft's view ---

    def term_at(self, index: Index) -> Term:
        """Return the term of an entry from first_index - 1 to last_index; 0 for index 0."""
        starts = self.term_starts
        if starts and starts[-1][1] <= index <= self.last_index and index >= self.first_index:
            return starts[-1][0]  # nearly always: of the last term that the log has
        at = index - self.tail_first
        if 0 <= at < len(self.tail):
            return Term(self.tail.native.row(at)[6])
        if index == 0:
            return Term(0)
        if index == self.first_index - 1:
            return self.first_term
        assert self.first_index <= index <= self.last_index, f"no entry {index}"
        found = bisect_right(starts, index, key=lambda start: start[1]) - 1
        assert found >= 0
        return starts[found][0]

    def span(self, first_index: Index, bytes_max: int) -> tuple[Index, int]:
        """Return (last index, bytes) of the longest run from *first_index* within *bytes_max*.

        At least one entry, at most `ENTRIES_MAX`. A guess where the entries are on disk.
        """
        at = first_index - self.tail_first
        if at < 0:
            cold = self._cold_entries(first_index, self.last_index, bytes_max)
            return cold.last_index, bytes_max
        total = 0
        last = Index(first_index - 1)
        for row in self.tail.native.rows(at, at + ENTRIES_MAX):
            if total and total + row[5] > bytes_max:
                break
            total += row[5]
            last = Index(last + 1)
        return last, total

    def entries(
        self, first_index: Index, last_index: Index, bytes_max: int
    ) -> MemoryEntries | ColdEntries | None:
        """Return entries from *first_index* to *last_index*, or fewer: whole ones, at least one.

        Those within *bytes_max*, and a larger first one; those of the disk may be fewer than
        `span` said. None: they were trimmed, and only a snapshot can bring what they said.
        """
        assert self.first_index <= self.last_index + 1
        assert first_index <= last_index <= self.last_index
        if first_index < self.first_index:
            return None
        at = first_index - self.tail_first
        if at < 0:
            return self._cold_entries(first_index, last_index, bytes_max)
        parts: list[EntryPart] = []
        total = 0
        index = first_index
        count = min(last_index + 1 - first_index, ENTRIES_MAX)
        for _offset, _newest, _lsn, chunk, position, size, _term, kind in self.tail.native.rows(
            at, at + count
        ):
            if parts and total + ENTRY_HEAD_BYTES + size > bytes_max:
                break
            parts.append(ENTRY_HEAD.pack(kind, size))
            if size:
                parts.append((ChunkId(chunk), Position(position), size))
            total += ENTRY_HEAD_BYTES + size
            index = Index(index + 1)
        return MemoryEntries(Index(index - 1), total, parts)

    def _cold_entries(self, first_index: Index, last_index: Index, bytes_max: int) -> ColdEntries:
        segment, end = self.segments.holding_index(first_index)
        upto = Index(min(last_index, self.tail_first - 1, end))
        last = cold_span(segment, first_index, upto, bytes_max)
        return ColdEntries(segment, first_index, last, bytes_max)

    @property
    def configuration(self) -> Configured:
        """The configuration in force at the end of the log; index 0: the descriptor's members."""
        return self.configured.current

    def configurations(
        self, first_index: Index, last_index: Index, /
    ) -> Sequence[tuple[Index, membership.Configuration]]:
        """Return the CONFIG entries in a range, for raft; nearly always there are none."""
        if self.configured.current[0] < first_index:
            return ()
        found = self.configured.between(first_index, last_index)
        return [(index, membership.decode(payload)) for index, payload in found]

    # --- writing ---

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

    def gather_batch(
        self, term: Term, row: PlainRow, address: int, append_time_ms: int
    ) -> tuple[Index, Offset]:
        """Append a batch as `append_batch` does; its bytes follow with `Wal.end_gather`.

        *row* says what it is. This is `append_batch`, `_appended` and `load` in one: it is done
        for every batch of a busy core.
        """
        assert term >= self.last_term, "terms never go back"
        assert not self.is_leaving, "what is appended now would stay behind"
        size_bytes, record_count = row[6], row[7]
        index = Index(self.last_index + 1)
        base_offset = self.next_offset
        wal = self.store.wal
        lsn, chunk, position = wal.gather_batch(
            term, self.group, index, base_offset, address, size_bytes, record_count, append_time_ms
        )
        next_offset = Offset(base_offset + record_count)
        newest = row[13] if append_time_ms < 0 else append_time_ms
        self.tail.append(
            Entry(term, RecordKind.BATCH, next_offset, chunk, position, size_bytes, newest, lsn)
        )
        chunk.unflushed += 1
        chunk.holders[self] = None
        if term != self.last_term:
            self.term_starts.append((term, index, base_offset))
            self.last_term = term
        self.last_index = index
        self.next_offset = next_offset
        self.uncommitted_bytes += size_bytes
        self.last_lsn = lsn
        wal.note_entry(self, index, self.truncations)
        return index, base_offset

    def append_plain(
        self,
        term: Term,
        plain: PlainRequests,
        requests: tuple[int, int, int],
        first_bytes: int,
        append_time_ms: int,
    ) -> int:
        """Append batches of alike requests, as many as go into one chunk; returns how many.

        *requests* are (number of the first, of its row, how many), *first_bytes* the first
        batch's. Raises WalFullError or MemoryError where not even that fits; nothing has changed.
        """
        assert term >= self.last_term, "terms never go back"
        assert not self.is_leaving, "what is appended now would stay behind"
        base_offset, first_index = self.next_offset, Index(self.last_index + 1)
        first, first_row, count = requests
        wal = self.store.wal
        rows = self.tail.native
        lsn, chunk, _position, put = wal.put_plain(
            plain, term, self.group, first_index, base_offset, append_time_ms, first, first_row,
            count, first_bytes, rows.room(count),
        )  # fmt: skip
        self.tail.lie_in(chunk)
        before = len(rows)
        rows.wrote(put)
        chunk.unflushed += put
        chunk.holders[self] = None
        if term != self.last_term:
            self.term_starts.append((term, first_index, base_offset))
            self.last_term = term
        self.last_index = Index(self.last_index + put)
        self.next_offset = Offset(rows.row(before + put - 1)[0])
        self.uncommitted_bytes += rows.sums(before, before + put)[0]
        self.last_lsn = Lsn(lsn + put - 1)
        wal.note_entry(self, self.last_index, self.truncations)
        return put

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
        if kind == RecordKind.CONFIG:
            self.configured.appended(index, payload)
        return index, lsn

    def append_received(
        self,
        runs: Sequence[receiving.TermRun],
        first_index: Index,
        payload: bytes | memoryview,
    ) -> tuple[Index, Lsn]:
        """Append what a leader sent, as a follower; returns the last index that is here now, lsn.

        *payload* has the entries of *runs* from the first run's index on, as they travel
        (entries.py); those before *first_index*, the first one missing, are passed over. Where
        room ends the last index is lower than was sent. Raises WalFullError or MemoryError where
        not even one fits, and `MalformedEntriesError`; nothing has changed then.
        """
        return receiving.append_received(self, runs, first_index, payload)

    def vote(self, term: Term, voted_for: MemberId) -> Lsn:
        """Put a VOTE record; reported by the store when it is durable."""
        assert term >= self.term, "terms never go back"
        assert not self.is_leaving, "the other core would not know of the vote"
        payload = voted_for.to_bytes(8, "little", signed=True)
        wal = self.store.wal
        lsn, _chunk, _position = wal.put(
            RecordKind.VOTE, term, self.group, self.last_index, self.next_offset,
            (address_of(payload), len(payload)),
        )  # fmt: skip
        self.term = term
        self.voted_for = voted_for
        wal.note_vote(self, term, voted_for)
        self._touched(lsn)
        return lsn

    def truncate(self, from_index: Index) -> Lsn:
        """Cut the uncommitted entries from *from_index* on, here and, by a record, in the WAL.

        Raises WalFullError or MemoryError where there is no room even in the reserve; nothing
        has changed then.
        """
        assert self.committed_index < from_index <= self.last_index + 1, "committed ones stay"
        at = from_index - self.tail_first
        assert at >= 0
        next_offset = self.tail[at - 1].next_offset if at else self.tail_offset
        lsn, _chunk, _position = self.store.wal.put(
            RecordKind.TRUNCATE, self.term, self.group, from_index, next_offset, (0, 0)
        )
        for entry in self.tail.slice(at, len(self.tail)):
            entry.chunk.unflushed -= 1
            self.uncommitted_bytes -= entry.size_bytes
        self.tail.native.cut(at)
        self.last_index = Index(from_index - 1)
        self.next_offset = next_offset
        self.last_term = self.tail[-1].term if len(self.tail) else self.term_at(self.last_index)
        while self.term_starts and self.term_starts[-1][1] >= from_index:
            self.term_starts.pop()
        self.configured.truncated(from_index)
        self.truncations += 1
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
        chunk = entry.chunk
        chunk.unflushed += 1
        chunk.holders[self] = None
        if entry.term != self.last_term:
            self.term_starts.append((entry.term, index, self.next_offset))
            self.last_term = entry.term
        self.last_index = index
        self.next_offset = entry.next_offset
        self.uncommitted_bytes += entry.size_bytes

    def load_received(
        self,
        term: Term,
        rows: list[tuple[int, int, int, int, int]],
        chunk: Chunk,
        position: int,
        lsn: Lsn,
    ) -> None:
        """Add entries that lie in *chunk* as WAL records from *position* on, the first at *lsn*.

        *rows* are (next offset, newest timestamp, -, size, kind).
        """
        assert rows[0][0] >= self.next_offset, "G3: offsets are dense"
        if term != self.last_term:
            self.term_starts.append((term, Index(self.last_index + 1), self.next_offset))
            self.last_term = term
        add, total = self.tail.native.add, 0
        self.tail.lie_in(chunk)
        for next_offset, newest, _at, size, kind in rows:
            at = position + RECORD_HEADER_BYTES
            add((next_offset, newest, lsn, chunk.id, at, size, term, kind))
            total += size
            position = -(-(at + size) // RECORD_ALIGN_BYTES) * RECORD_ALIGN_BYTES
            lsn = Lsn(lsn + 1)
        chunk.unflushed += len(rows)
        chunk.holders[self] = None
        self.last_index = Index(self.last_index + len(rows))
        self.next_offset = Offset(rows[-1][0])
        self.uncommitted_bytes += total

    def let_go(self) -> None:
        """Give back the memory of the tail, of a log that ends or begins anew."""
        for chunk, count in self.tail.by_chunk(
            self.flushed_index + 1 - self.tail_first, len(self.tail)
        ):
            chunk.unflushed -= count
        for chunk in self.tail.clear():
            chunk.holders.pop(self, None)

    def begin_anew(self, state: LogState, fold_index: Index, lsn: Lsn) -> None:
        """Be what the INSTALL record at *lsn* says, and nothing of what it was (N1)."""
        self.let_go()
        self._begin(state)
        self.fold_index = fold_index
        self.life += 1
        self.truncations += 1  # what was put before is reported with the older count
        self.tail_lsn = lsn  # replay of this group starts at its INSTALL record
        self._touched(lsn)

    def put_again(self, index: Index) -> None:
        """Put an unflushed entry into the WAL again (G4), and so all behind it, one by one.

        Raises WalFullError or MemoryError where room ends. No checkpoint may have a row of this
        log between: what is put again stands behind what follows it.
        """
        assert index > self.flushed_index
        assert not self.is_flushing, "what is under way tells of the chunks that it reads"
        at = index - self.tail_first
        entry = self.tail[at]
        address = self.store.arena.address(entry.chunk.id) + entry.position
        lsn, chunk, position = self.store.wal.put(
            RecordKind(entry.kind), entry.term, self.group, index, entry.next_offset,
            (address, entry.size_bytes),
        )  # fmt: skip
        self.tail.replace(at, entry._replace(chunk=chunk, position=position, lsn=lsn))
        entry.chunk.unflushed -= 1
        chunk.unflushed += 1
        chunk.holders[self] = None
        self._touched(lsn)

    # --- committing and flushing ---

    def commit(self, index: Index) -> None:
        """Take note that everything up to *index* is committed: readable, and due for segments."""
        assert self.committed_index <= index <= self.last_index
        first = self.committed_index + 1 - self.tail_first
        end = index + 1 - self.tail_first
        start = self.start_offset
        bytes_committed, trims, newest = self.tail.native.sums(first, end)
        self.max_timestamp = max(self.max_timestamp, newest)
        for entry in self.tail.slice(first, end) if trims else ():
            self.committed_offset = entry.next_offset
            if entry.kind == RecordKind.TRIM:
                self._trim(entry)
        if first < end:
            self.committed_offset = Offset(self.tail.native.row(end - 1)[0])
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
        self.configured.began_at(index)

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
        count, end = self.tail.forget(chunk)
        if count:
            self.tail_offset = Offset(end)
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
