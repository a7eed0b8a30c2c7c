"""The entries of a log that are in memory: rows in C, each with its chunk.

Who looks at many of them takes rows, made as they are taken, or lets C look; `Entry` is for one.
"""

# performance-critical: see STYLE.md

from collections.abc import Iterator
from typing import NamedTuple

from corelane.model.ids import Lsn, Offset, Term
from corelane.storage.chunks import Chunk
from corelane_native import EntryRow, EntryRows


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


class Tail:
    """Entries in index order; `native` has the rows, where a chunk is its id."""

    __slots__ = ("_chunks", "native")

    def __init__(self) -> None:
        self.native = EntryRows()
        self._chunks: dict[int, Chunk] = {}

    def __len__(self) -> int:
        return len(self.native)

    def __getitem__(self, at: int) -> Entry:
        return self._entry(self.native.row(at if at >= 0 else at + len(self.native)))

    def __iter__(self) -> Iterator[Entry]:
        return self.slice(0, len(self.native))

    def slice(self, at: int, end: int) -> Iterator[Entry]:
        """Return the entries from *at* to before *end*, made as they are taken."""
        return map(self._entry, self.native.rows(at, end))

    def _entry(self, row: EntryRow) -> Entry:
        next_offset, newest, lsn, chunk, position, size_bytes, term, kind = row
        return Entry(
            Term(term), kind, Offset(next_offset), self._chunks[chunk], position, size_bytes,
            newest, Lsn(lsn),
        )  # fmt: skip

    def lie_in(self, chunk: Chunk) -> None:
        """Know *chunk*, before entries that lie in it are added to `native`."""
        self._chunks[chunk.id] = chunk

    def append(self, entry: Entry) -> None:
        """Add an entry."""
        self._chunks[entry.chunk.id] = entry.chunk
        self.native.add(_row(entry))

    def replace(self, at: int, entry: Entry) -> None:
        """Have an entry lie elsewhere."""
        self._chunks[entry.chunk.id] = entry.chunk
        self.native.replace(at, _row(entry))

    def by_chunk(self, at: int, end: int) -> Iterator[tuple[Chunk, int]]:
        """Return the chunks of the entries from *at* to before *end*, each with how many follow."""
        while at < end:
            count = self.native.same_chunk(at, end)
            yield self._chunks[self.native.row(at)[3]], count
            at += count

    def forget(self, chunk: Chunk) -> tuple[int, int]:
        """Drop the oldest entries as far as they lie in *chunk*, which is let go.

        Returns how many these were, and where the last of them ended.
        """
        native, count, end = self.native, 0, 0
        if len(native) and native.row(0)[3] == chunk.id:
            count = native.same_chunk(0, len(native))
            end = native.row(count - 1)[0]
            native.drop_first(count)
        self._chunks.pop(chunk.id, None)
        return count, end

    def clear(self) -> list[Chunk]:
        """Drop all; return the chunks."""
        chunks = [*self._chunks.values()]
        self._chunks.clear()
        self.native = EntryRows()
        return chunks


def _row(entry: Entry) -> EntryRow:
    return (
        entry.next_offset, entry.max_timestamp, entry.lsn, entry.chunk.id, entry.position,
        entry.size_bytes, entry.term, entry.kind,
    )  # fmt: skip
