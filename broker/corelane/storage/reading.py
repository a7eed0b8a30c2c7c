"""Reads of batches that memory has no longer, within the memory that answers may hold.

A client that takes its answer slowly holds what was read for it. So there is a limit to what all
answers hold together; above it a read waits until another answer has left, the first come first.
The log's own memory is never touched by that (invariant K3 of chunks.py): fifty clients that asked
for 50 MB each once stopped all producers for a second.
"""

# performance-critical: see STYLE.md

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from corelane.model.ids import ChunkId, Position
from corelane.model.limits import MIB, READ_BYTES_MAX, READS_WAITING_MAX
from corelane.model.record import record
from corelane.storage.effects import DiskDone, Read, SearchRead
from corelane.storage.group_log import GroupLog
from corelane.storage.log_reads import ColdRead
from corelane.storage.news import NOTHING, News

if TYPE_CHECKING:
    from corelane.storage.store import CoreStore

SHARED_READ_BYTES: Final = 1 * MIB
"""One read while others need memory too: what clients ask of a partition by default."""


@record
class ColdResult:
    """Batches read from disk: *size_bytes* of them at *position* in *chunk*, then *suffix*.

    The receiver owns one reference on *chunk*. *error* is an errno: the group is damaged.
    """

    chunk: ChunkId
    position: Position
    size_bytes: int
    suffix: bytes
    error: int


ReadDone = Callable[[ColdResult], None]


class Reading:
    """The cold reads of one core: those under way, and those that wait for memory."""

    def __init__(self, store: "CoreStore") -> None:
        self._store = store
        self._waiting: deque[tuple[GroupLog, ColdRead, ReadDone]] = deque()

    @property
    def bytes_max(self) -> int:
        """What answers may hold together."""
        return self._store.arena_bytes // 4

    @property
    def lent_bytes(self) -> int:
        """What answers hold now; what is read for followers has a limit of its own."""
        return self._store.chunks.lent_bytes - self._store.shipping.held_bytes

    @property
    def is_waiting(self) -> bool:
        """Whether a read waits for memory."""
        return bool(self._waiting)

    @property
    def is_short(self) -> bool:
        """Whether answers that nobody takes are in somebody's way."""
        return self.is_waiting or self.lent_bytes > self.bytes_max

    @property
    def answer_bytes_max(self) -> int:
        """How much of the log one answer may name now: each leaves room for more of its size."""
        return max(SHARED_READ_BYTES, (self.bytes_max - self.lent_bytes) // 4)

    def read_cold(self, log: GroupLog, cold: ColdRead, done: ReadDone) -> None:
        """Have batches read, at most `READ_BYTES_MAX` but for a larger first one.

        *done* is called now or in a later turn. Raises MemoryError when too many wait already.
        """
        assert cold.bytes_max >= 0
        assert cold.start <= cold.segment.log.size_bytes
        if len(self._waiting) >= READS_WAITING_MAX:
            raise MemoryError("too many reads wait for memory")
        self._waiting.append((log, cold, done))
        self.advance()

    def advance(self) -> None:
        """Begin the reads that there is memory for."""
        while self._waiting:
            _log, cold, done = self._waiting[0]
            room = self._room(cold)
            chunk = self._memory(room)
            if chunk is None:
                return
            self._waiting.popleft()
            self._begin(cold, done, chunk, room)

    def _room(self, cold: ColdRead) -> int:
        is_shared = self.lent_bytes > self.bytes_max // 4
        bytes_max = SHARED_READ_BYTES if is_shared else READ_BYTES_MAX
        return max(min(cold.bytes_max, bytes_max), cold.segment.batch_bytes_max)

    def _memory(self, room: int) -> ChunkId | None:
        """Return a chunk that an answer may hold; one read is always allowed, however large."""
        chunks = self._store.chunks
        if self.lent_bytes and self.lent_bytes + room > self.bytes_max:
            return None
        try:
            chunk = chunks.take(room)
        except MemoryError:
            return None
        chunks.lend(chunk)
        return chunk

    def keep(self, address: int, size_bytes: int) -> ChunkId | None:
        """Return a copy of an answer that another core has read; None: there is no memory for it.

        One reference is the caller's. It counts as what answers hold.
        """
        chunk = self._memory(size_bytes)
        if chunk is not None:
            self._store.arena.copy(chunk, address, size_bytes)
        return chunk

    def _begin(self, cold: ColdRead, done: ReadDone, chunk: ChunkId, room: int) -> None:
        store = self._store
        segment = cold.segment
        stream = segment.log
        frontier, suffix = stream.frontier, stream.remainder

        def answered(answer: DiskDone) -> News:
            done(_stitched(chunk, answer, frontier, suffix))
            return NOTHING

        if cold.start < 0:
            store.emit(
                SearchRead(
                    store.job(answered), segment.path(segment.rows), segment.rows_on_disk,
                    cold.column, cold.key, segment.path(stream), frontier, room, chunk,
                )
            )  # fmt: skip
            return
        size = max(0, min(room, frontier - cold.start))
        if size == 0:
            done(ColdResult(chunk, Position(0), 0, suffix[cold.start - frontier :], 0))
            return

        def read(answer: DiskDone) -> News:
            value = (0, cold.start, size)
            done(_stitched(chunk, DiskDone(answer.job, answer.error, value), frontier, suffix))
            return NOTHING

        path = segment.path(stream)
        store.emit(Read(store.job(read), path, Position(cold.start), size, chunk))


def _stitched(chunk: ChunkId, done: DiskDone, frontier: int, suffix: bytes) -> ColdResult:
    """Join what the disk had with the remainder that was in memory when the read was issued."""
    if done.error:
        return ColdResult(chunk, Position(0), 0, b"", done.error)
    assert done.value is not None
    _row, start, size = done.value
    assert 0 <= size <= max(0, frontier - start), "S2: a file holds whole blocks up to the frontier"
    if start + size < frontier:
        return ColdResult(chunk, Position(0), size, b"", 0)
    # An entry whose row is on disk may lie in the remainder of `.log`.
    return ColdResult(chunk, Position(0), size, suffix[max(0, start - frontier) :], 0)
