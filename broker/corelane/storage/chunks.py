"""Arena chunks in the order in which they were filled, and what still needs each of them.

Invariants:
K1. A chunk is released when it is closed, its WAL writes are durable, and no log names it.
K2. Chunks are evicted oldest first; one with unflushed entries is never evicted.
K3. What answers hold (chunks read from disk, and evicted ones that are still being sent) is not
    the log's: the log neither gives way to it nor stops for it.
"""

# performance-critical: see STYLE.md

from collections import deque
from typing import Final, Protocol

from corelane.model.ids import ChunkId
from corelane.model.limits import MIB
from corelane_native import Arena


class Holder(Protocol):
    """A group log with entries in a chunk."""

    def forget(self, chunk: "Chunk") -> None:
        """Drop the flushed entries that lie in *chunk*, which are the log's oldest."""

    def want_flush(self) -> None:
        """Flush soon: the arena needs the memory."""


SPARE_BYTES: Final = 16 * MIB
"""Of memory that nobody holds: the next chunks need none from the system."""


class Chunk:
    """A chunk that WAL records are put into, or that recovery loaded entries into."""

    __slots__ = ("capacity", "holders", "id", "is_closed", "unflushed", "writes_open")

    def __init__(self, chunk_id: ChunkId, capacity: int) -> None:
        self.id = chunk_id
        self.capacity = capacity
        self.holders: dict[Holder, None] = {}
        self.unflushed = 0
        self.writes_open = 0
        self.is_closed = False


class Chunks:
    """All chunks of one core's log, oldest first."""

    __slots__ = ("_lent", "arena", "fifo", "lent_bytes")

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.fifo: deque[Chunk] = deque()
        self._lent: dict[ChunkId, int] = {}
        self.lent_bytes = 0

    @property
    def log_bytes(self) -> int:
        """Bytes in use but for what answers hold."""
        return self.arena.bytes_in_use - self.lent_bytes

    def lend(self, chunk: ChunkId) -> None:
        """Count *chunk* as an answer's until nobody holds it any more."""
        assert chunk not in self._lent
        size_bytes = self.arena.capacity(chunk)
        self._lent[chunk] = size_bytes
        self.lent_bytes += size_bytes

    def take_back(self) -> None:
        """Forget the lent chunks that were given back; a look at each, at most one a megabyte."""
        references = self.arena.references
        for chunk in [chunk for chunk in self._lent if not references(chunk)]:
            self.lent_bytes -= self._lent.pop(chunk)
        assert self.lent_bytes >= 0

    def new(self, bytes_min: int) -> Chunk:
        """Return a new chunk; MemoryError when the arena is full and nothing can be evicted."""
        chunk_id = self.take(bytes_min)
        chunk = Chunk(chunk_id, self.arena.capacity(chunk_id))
        assert chunk.capacity >= bytes_min
        self.fifo.append(chunk)
        return chunk

    def take(self, bytes_min: int) -> ChunkId:
        """Return memory that the caller owns one reference on; evicts, and raises, as `new`."""
        assert bytes_min >= 0
        try:
            return ChunkId(self.arena.chunk_new(bytes_min))
        except MemoryError:
            self.evict(bytes_kept_max=0)
            return ChunkId(self.arena.chunk_new(bytes_min))

    def evict(self, bytes_kept_max: int) -> None:
        """Release the oldest chunks until at most *bytes_kept_max* are in use, as far as may be.

        The flushed tail is kept in memory for readers only while there is room (DESIGN §6).
        """
        before = self.log_bytes
        self._evict(bytes_kept_max)
        if self.log_bytes < before:
            self.arena.trim(SPARE_BYTES)

    def _evict(self, bytes_kept_max: int) -> None:
        fifo = self.fifo
        while fifo and self.log_bytes > bytes_kept_max:
            chunk = fifo[0]
            if not chunk.is_closed or chunk.writes_open:
                return
            if chunk.unflushed:
                for holder in list(chunk.holders):
                    holder.want_flush()
                return
            assert chunk.unflushed == 0, "K2: nothing unflushed is evicted"
            fifo.popleft()
            for holder in chunk.holders:
                holder.forget(chunk)
            chunk.holders.clear()
            self.arena.release(chunk.id)
            if self.arena.references(chunk.id):
                self.lend(chunk.id)
