"""The write-ahead log of one core: records into arena chunks, one write in flight at a time.

Invariants (FORMAT.md, W):
W1. A record lies in one chunk and one file; lsns are dense and rise in file order.
W2. A write starts on a fresh 4 KiB block and fills whole blocks; no block is written twice in
    one generation of a file.
W3. One write is in flight; what is put meanwhile goes with the next: group commit.
W4. `durable_upto` of a record is the last lsn known durable when it was put.
W5. A file is used again only when a durable checkpoint no longer needs any of its records.
"""

# performance-critical: see STYLE.md

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from corelane.model.ids import (
    GroupId,
    Index,
    JobId,
    Lsn,
    MemberId,
    Offset,
    Position,
    RecordKind,
    Term,
)
from corelane.storage.chunks import Chunk, Chunks
from corelane.storage.effects import Range, WalWrite
from corelane.storage.layout import (
    BLOCK_BYTES,
    RECORD_ALIGN_BYTES,
    RECORD_HEADER_BYTES,
    blocks_up,
)
from corelane_native import PUTS_MAX, EntryRoom, PlainRequests, Puts, Received

if TYPE_CHECKING:
    from corelane.storage.group_log import GroupLog

RESERVE_BYTES: Final = 256 * 1024
"""Room that produce never takes: votes, tails and truncations always fit."""


class WalFullError(Exception):
    """No prepared file has room: the caller must wait for one, or refuse."""


class PutRun(NamedTuple):
    """Records put one behind another in one chunk, the first of them at *position*."""

    first_lsn: Lsn
    chunk: Chunk
    position: int
    record_count: int


class WalFile:
    """One preallocated file; `generation` rises each time any file is taken into use."""

    __slots__ = ("first_lsn", "generation", "last_lsn", "path", "size_bytes")

    def __init__(self, path: str, size_bytes: int, generation: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.generation = generation
        self.first_lsn = Lsn(0)
        self.last_lsn = Lsn(0)


class PendingWrite:
    """Records put but not yet handed to the disk, all for one file."""

    __slots__ = (
        "chunks",
        "entries",
        "file",
        "lsn_upto",
        "parts",
        "position",
        "size_bytes",
        "votes",
    )

    def __init__(self, file: WalFile, position: Position) -> None:
        self.file = file
        self.position = position
        self.parts: list[Range] = []
        self.chunks: list[Chunk] = []
        self.entries: dict[GroupLog, tuple[Index, int]] = {}
        self.votes: list[tuple[GroupLog, Term, MemberId]] = []
        self.size_bytes = 0
        self.lsn_upto = Lsn(0)


class Wal:
    """The log's writing end. `flight_bytes` counts what is put and not yet durable."""

    def __init__(
        self,
        chunks: Chunks,
        file: WalFile,
        spares: Iterable[WalFile],
        next_lsn: Lsn,
        *,
        generation: int,
    ) -> None:
        assert next_lsn >= 1
        assert generation >= 1
        assert file.size_bytes % BLOCK_BYTES == 0
        self.chunks = chunks
        self.arena = chunks.arena
        self.file = file
        self.spares: deque[WalFile] = deque(spares)
        self.used: deque[WalFile] = deque()  # older files that a checkpoint may still need
        self.next_lsn = next_lsn
        self.durable_lsn = Lsn(next_lsn - 1)
        self.generation = generation
        self.bytes_put = 0
        self.bytes_written = 0
        self.writes = 0
        self.flight_bytes = 0
        self._file_position = 0  # of the end of all records put, rounded up when sealed
        self._chunk: Chunk | None = None
        self._chunk_start = 0
        self._chunk_position = 0
        self._open: PendingWrite | None = None
        self._sealed: deque[PendingWrite] = deque()
        self._in_flight: PendingWrite | None = None
        self._puts = Puts()
        self._gathered = 0  # batches that have their place, and are not copied there yet
        self._gather_chunk: Chunk | None = None
        self._gather_start = 0
        self._gather_end = 0
        self._gather_lsn = Lsn(0)
        file.generation = generation
        file.first_lsn = next_lsn

    # --- room ---

    @property
    def room_bytes(self) -> int:
        """Bytes that fit into the current and the prepared files, less the reserve."""
        room = self.file.size_bytes - self._file_position - RESERVE_BYTES
        for spare in self.spares:
            room += spare.size_bytes
        return room

    def has_room(self, payload_bytes: int) -> bool:
        """Whether a record fits without the reserve, as `put_batch` asks before it puts one."""
        need = RECORD_HEADER_BYTES + payload_bytes + 2 * BLOCK_BYTES
        return bool(self.spares) or (
            self._file_position + need + RESERVE_BYTES <= self.file.size_bytes
        )

    @property
    def has_half_reserve(self) -> bool:
        """Whether more than half of the reserve is left, or of a file that is smaller."""
        left = self.file.size_bytes - self._file_position
        return bool(self.spares) or left > min(RESERVE_BYTES, self.file.size_bytes) // 2

    @property
    def record_bytes_max(self) -> int:
        """The largest payload that fits an ordinary file."""
        biggest = max((f.size_bytes for f in self.spares), default=self.file.size_bytes)
        return biggest - BLOCK_BYTES

    # --- putting ---

    def put(
        self,
        kind: RecordKind,
        term: Term,
        group: GroupId,
        index: Index,
        next_offset: Offset,
        payload: tuple[int, int],
    ) -> tuple[Lsn, Chunk, int]:
        """Put a record whose payload is (address, size); returns lsn, chunk, payload position."""
        address, size_bytes = payload
        assert size_bytes >= 0
        chunk, position = self._place(size_bytes)
        lsn = self.next_lsn
        taken = self.arena.put_record(
            chunk.id, position, kind, self.generation, term, lsn, self.durable_lsn,
            group, index, next_offset, address, size_bytes,
        )  # fmt: skip
        self._placed(lsn, taken)
        return lsn, chunk, position + RECORD_HEADER_BYTES

    def put_batch(
        self,
        term: Term,
        group: GroupId,
        index: Index,
        base_offset: Offset,
        address: int,
        size_bytes: int,
        record_count: int,
        append_time_ms: int,
    ) -> tuple[Lsn, Chunk, int]:
        """Put a Kafka batch, stamped; returns lsn, chunk, payload position.

        Raises WalFullError before it takes of the reserve.
        """
        need = RECORD_HEADER_BYTES + size_bytes + 2 * BLOCK_BYTES
        if not self.spares and self._file_position + need + RESERVE_BYTES > self.file.size_bytes:
            raise WalFullError
        chunk, position = self._place(size_bytes)
        lsn = self.next_lsn
        taken = self.arena.put_batch(
            chunk.id, position, self.generation, term, lsn, self.durable_lsn,
            group, index, base_offset, address, size_bytes, record_count, append_time_ms,
        )  # fmt: skip
        self._placed(lsn, taken)
        return lsn, chunk, position + RECORD_HEADER_BYTES

    def gather_batch(
        self,
        term: Term,
        group: GroupId,
        index: Index,
        base_offset: Offset,
        address: int,
        size_bytes: int,
        record_count: int,
        append_time_ms: int,
    ) -> tuple[Lsn, Chunk, int]:
        """Put a batch as `put_batch` does, but copy it later, by `end_gather`, with others.

        Nothing else may be put, written or read before that; the batch's memory must stay.
        """
        taken = RECORD_HEADER_BYTES + size_bytes
        taken += -taken % RECORD_ALIGN_BYTES
        number = self._gathered
        position = self._chunk_position
        if number in {0, PUTS_MAX} or position + taken > self._gather_end:
            self._begin_gather(size_bytes)
            number, position = 0, self._chunk_position
        self._puts.set(
            number, group, index, base_offset, append_time_ms, address, size_bytes, term,
            record_count,
        )  # fmt: skip
        self._gathered = number + 1
        lsn = self.next_lsn
        pending, chunk = self._open, self._gather_chunk
        assert pending is not None
        assert chunk is not None
        pending.lsn_upto = lsn
        self.next_lsn = Lsn(lsn + 1)
        self.bytes_put += taken
        self._chunk_position = position + taken
        self._file_position += taken
        return lsn, chunk, position + RECORD_HEADER_BYTES

    def _begin_gather(self, size_bytes: int) -> None:
        """Find room for a batch and those after it: up to the end of the chunk, and of the file."""
        self.end_gather()
        reserve = RESERVE_BYTES + 2 * BLOCK_BYTES
        need = RECORD_HEADER_BYTES + size_bytes
        if not self.spares and self._file_position + need + reserve > self.file.size_bytes:
            raise WalFullError
        chunk, position = self._place(size_bytes)
        room = self.file.size_bytes - self._file_position - (0 if self.spares else reserve)
        self._gather_chunk = chunk
        self._gather_start = position
        self._gather_end = min(chunk.capacity, position + max(room, need + RECORD_ALIGN_BYTES))
        self._gather_lsn = self.next_lsn

    def end_gather(self) -> None:
        """Copy what was gathered to where it belongs."""
        if self._gathered == 0:
            return
        assert self._gather_chunk is not None
        assert self._gather_lsn + self._gathered == self.next_lsn, "W1: nothing came between"
        taken = self.arena.put_batches(
            self._gather_chunk.id, self._gather_start, self.generation, self._gather_lsn,
            self.durable_lsn, self._puts, self._gathered,
        )  # fmt: skip
        assert self._gather_start + taken == self._chunk_position
        assert self._file_position <= self.file.size_bytes, "W1: a record lies in one file"
        self._gathered = 0

    def put_plain(
        self,
        plain: PlainRequests,
        term: Term,
        group: GroupId,
        index: Index,
        base_offset: Offset,
        append_time_ms: int,
        first: int,
        first_row: int,
        count: int,
        first_bytes: int,
        entries: EntryRoom,
    ) -> PutRun:
        """Put batches of alike requests, at least the first, as many as one chunk and file take.

        *first_bytes* is the size of the first one, *entries* the tail's room for all. Raises
        WalFullError before it takes of the reserve.
        """
        assert count > 0
        self.end_gather()
        reserve = RESERVE_BYTES + 2 * BLOCK_BYTES
        need = RECORD_HEADER_BYTES + first_bytes
        if not self.spares and self._file_position + need + reserve > self.file.size_bytes:
            raise WalFullError
        chunk, position = self._place(first_bytes)
        room = self.file.size_bytes - self._file_position - (0 if self.spares else reserve)
        limit = min(chunk.capacity, position + max(room, need + RECORD_ALIGN_BYTES))
        lsn = self.next_lsn
        record = (
            self.generation, term, lsn, self.durable_lsn, group, index, base_offset,
            append_time_ms,
        )  # fmt: skip
        put, taken = plain.put(
            self.arena, chunk.id, position, limit, record, first, first_row, count, entries
        )
        assert 0 < put <= count
        self.next_lsn = Lsn(lsn + put - 1)
        self._placed(self.next_lsn, taken)
        return PutRun(lsn, chunk, position, put)

    def put_received(
        self,
        received: Received,
        term: Term,
        group: GroupId,
        index: Index,
        address: int,
        first_row: int,
        row_count: int,
        first_bytes: int,
    ) -> PutRun:
        """Put judged entries of one term, at least the first, as many as one chunk and file take.

        *first_bytes* is the size of the first one's payload. Raises WalFullError before it takes
        of the reserve.
        """
        assert row_count > 0
        reserve = RESERVE_BYTES + 2 * BLOCK_BYTES
        first = RECORD_HEADER_BYTES + first_bytes
        if not self.spares and self._file_position + first + reserve > self.file.size_bytes:
            raise WalFullError
        chunk, position = self._place(first_bytes)
        room = self.file.size_bytes - self._file_position - (0 if self.spares else reserve)
        limit = min(chunk.capacity, position + max(room, first + 8))
        lsn = self.next_lsn
        count, taken = received.put(
            self.arena, chunk.id, position, limit, self.generation, term, lsn, self.durable_lsn,
            group, index, address, first_row, row_count,
        )  # fmt: skip
        assert 0 < count <= row_count
        self.next_lsn = Lsn(lsn + count - 1)
        self._placed(self.next_lsn, taken)
        return PutRun(lsn, chunk, position, count)

    def note_entry(self, log: "GroupLog", index: Index, truncations: int) -> None:
        """Report *log*'s entries up to *index* when the record put last is durable."""
        assert self._open is not None
        assert index >= 1
        self._open.entries[log] = (index, truncations)

    def note_vote(self, log: "GroupLog", term: Term, voted_for: MemberId) -> None:
        """Report this vote when the record put last is durable."""
        assert self._open is not None
        self._open.votes.append((log, term, voted_for))

    def _place(self, payload_bytes: int) -> tuple[Chunk, int]:
        """Find room for one record (invariant W1)."""
        assert self._gathered == 0, "what is gathered is copied first"
        need = RECORD_HEADER_BYTES + payload_bytes + 8
        chunk = self._chunk
        start = self._file_position
        if chunk is None or blocks_up(self._chunk_position + need) > chunk.capacity:
            start = blocks_up(start)  # the run of records in the old chunk is padded
        if blocks_up(start + need) > self.file.size_bytes:
            self._next_file(need)
        if chunk is None or blocks_up(self._chunk_position + need) > chunk.capacity:
            chunk = self._next_chunk(need)
        if self._open is None:
            self._open = PendingWrite(self.file, Position(self._file_position))
        return chunk, self._chunk_position

    def _placed(self, lsn: Lsn, taken_bytes: int) -> None:
        assert self._open is not None
        assert self._open.file is self.file
        assert lsn == self.next_lsn
        assert taken_bytes >= RECORD_HEADER_BYTES
        self._open.lsn_upto = lsn
        self.next_lsn = Lsn(lsn + 1)
        self.bytes_put += taken_bytes
        self._chunk_position += taken_bytes
        self._file_position += taken_bytes
        assert self._file_position <= self.file.size_bytes, "W1: a record lies in one file"

    def _next_file(self, need_bytes: int) -> None:
        fits = [f for f in self.spares if blocks_up(need_bytes) <= f.size_bytes]
        if not fits:
            raise WalFullError
        self._seal()
        spare = fits[0]
        self.spares.remove(spare)
        self.file.last_lsn = Lsn(self.next_lsn - 1)
        self.used.append(self.file)
        self.generation += 1
        assert self.file.last_lsn >= self.file.first_lsn - 1
        assert spare.generation < self.generation, "an old record could be taken for a new one"
        spare.generation = self.generation
        spare.first_lsn = self.next_lsn
        spare.last_lsn = Lsn(0)
        self.file = spare
        self._file_position = 0

    def _next_chunk(self, need_bytes: int) -> Chunk:
        fresh = self.chunks.new(blocks_up(need_bytes))  # may fail: nothing has changed yet
        self._end_part()
        if self._chunk is not None:
            self._chunk.is_closed = True
        self._chunk = fresh
        self._chunk_start = self._chunk_position = 0
        return fresh

    def _end_part(self) -> None:
        """Pad the current run of records to whole blocks and add it to the open write."""
        chunk = self._chunk
        if chunk is None or self._chunk_position == self._chunk_start:
            return
        assert self._open is not None
        end = self.arena.pad(chunk.id, self._chunk_position)
        size = end - self._chunk_start
        assert size > 0
        assert size % BLOCK_BYTES == 0, "W2: whole blocks"
        assert end <= chunk.capacity
        self._open.parts.append((chunk.id, Position(self._chunk_start), size))
        self._open.chunks.append(chunk)
        chunk.writes_open += 1
        self._open.size_bytes += size
        self.flight_bytes += size
        self._file_position = self._open.position + self._open.size_bytes
        self._chunk_start = self._chunk_position = end

    # --- writing ---

    def _seal(self) -> None:
        if self._open is None:
            return
        self._end_part()
        assert self._open.parts, "a write holds a record"
        self._sealed.append(self._open)
        self._open = None

    @property
    def can_write(self) -> bool:
        """Whether something was put and no write is in flight (invariant W3)."""
        return self._in_flight is None and (self._open is not None or bool(self._sealed))

    def take_write(self, job: JobId) -> WalWrite:
        """Return the next write; `can_write` must hold."""
        assert self.can_write
        assert self._gathered == 0, "what is gathered is copied first"
        if not self._sealed:
            self._seal()
        write = self._in_flight = self._sealed.popleft()
        assert write.position % BLOCK_BYTES == 0, "W2: a fresh block"
        assert write.position + write.size_bytes <= write.file.size_bytes
        assert write.lsn_upto > self.durable_lsn, "W1: lsns rise"
        return WalWrite(job, write.file.path, write.position, write.parts, write.lsn_upto)

    def written(self) -> PendingWrite:
        """Take the news that the write in flight is durable; returns what it held."""
        write = self._in_flight
        assert write is not None, "W3: one write is in flight"
        assert write.lsn_upto < self.next_lsn
        self._in_flight = None
        self.durable_lsn = write.lsn_upto
        self.flight_bytes -= write.size_bytes
        assert self.flight_bytes >= 0
        self.bytes_written += write.size_bytes
        self.writes += 1
        for chunk in write.chunks:
            assert chunk.writes_open > 0
            chunk.writes_open -= 1
        return write

    @property
    def is_idle(self) -> bool:
        """Whether everything put is durable."""
        return self.durable_lsn == self.next_lsn - 1

    # --- files ---

    def release_before(self, lsn: Lsn) -> list[WalFile]:
        """Return, and forget, used files all of whose records are older than *lsn* (W5)."""
        assert lsn <= self.next_lsn
        freed = []
        while self.used and self.used[0].last_lsn < lsn:
            freed.append(self.used.popleft())
        return freed
