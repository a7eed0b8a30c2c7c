"""A group's segments: three append-only streams each, written in whole blocks.

Invariants (FORMAT.md, S):
S1. Segments hold committed entries only, in index order; nothing is ever cut from their end.
S2. A file holds `frontier` bytes, whole 4 KiB blocks; the rest of its stream is the remainder,
    in memory here and in the WAL (a TAIL record or the entries themselves).
S3. A sealed segment's files have their exact sizes and no remainder.
S4. Writing the same entries again from an older frontier gives the same bytes (recovery).
"""

# performance-critical: see STYLE.md

from bisect import bisect_right
from typing import Final

from corelane.model.ids import Index, Offset
from corelane.storage.layout import (
    NO_TIMESTAMP,
    ROW,
    ROW_BYTES,
    ROWS_HEADER,
    ROWS_MAGIC,
    ROWS_VERSION,
    blocks_down,
)
from corelane_native import address_of, crc32c, entries_search

OFFSET_DIGITS: Final = 20
COLUMN_NEXT_OFFSET: Final = 0
COLUMN_MAX_TIMESTAMP: Final = 2


class Stream:
    """One file of a segment: what is on disk, and the remainder that fills no block yet."""

    __slots__ = ("frontier", "remainder", "suffix")

    def __init__(self, suffix: str, frontier: int = 0, remainder: bytes = b"") -> None:
        self.suffix = suffix
        self.frontier = frontier
        self.remainder = remainder

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole stream."""
        return self.frontier + len(self.remainder)


class Segment:
    """A run of entries from `base_index`, whose first record has `base_offset`."""

    __slots__ = (
        "base_index",
        "base_offset",
        "batch_bytes_max",
        "control",
        "control_marks",
        "directory",
        "disk_row",
        "first_timestamp",
        "is_sealed",
        "log",
        "max_timestamp",
        "rows",
    )

    def __init__(self, directory: str, base_index: Index, base_offset: Offset) -> None:
        assert base_index >= 1
        assert base_offset >= 0
        self.directory = directory
        self.base_index = base_index
        self.base_offset = base_offset
        self.log = Stream("log")
        self.rows = Stream("entries", 0, rows_header(base_index, base_offset))
        self.control = Stream("control")
        self.max_timestamp = NO_TIMESTAMP
        self.first_timestamp = NO_TIMESTAMP
        self.batch_bytes_max = 0
        # (next offset, end position, running max timestamp) of the last row on disk
        self.disk_row: tuple[int, int, int] = (base_offset, 0, NO_TIMESTAMP)
        self.is_sealed = False
        self.control_marks: list[tuple[int, int]] = []  # (index, position) of some entries there

    def path(self, stream: Stream) -> str:
        """Return a stream's file, named by the base offset as Kafka does.

        A segment is sealed only when it holds records, so base offsets never repeat.
        """
        return f"{self.directory}/{self.base_offset:0{OFFSET_DIGITS}d}.{stream.suffix}"

    @property
    def streams(self) -> tuple[Stream, Stream, Stream]:
        """The three streams, in the order of a TAIL record."""
        return self.log, self.rows, self.control

    @property
    def paths(self) -> list[str]:
        """The names of the files that exist."""
        return [self.path(s) for s in self.streams if s.frontier]

    @property
    def row_count(self) -> int:
        """Entries in this segment."""
        return self.rows.size_bytes // ROW_BYTES - 1

    @property
    def rows_on_disk(self) -> int:
        """Entries whose row is in the file."""
        return max(0, self.rows.frontier // ROW_BYTES - 1)

    def search_remainder(self, column: int, key: int) -> tuple[int, int] | None:
        """Find an entry among the rows in memory: (start position, end position) in `.log`.

        None: it lies among the rows on disk, or nowhere.
        """
        rows = self.rows.remainder
        head = 0 if self.rows.frontier else ROW_BYTES
        count = (len(rows) - head) // ROW_BYTES
        if count <= 0:
            return None
        data = rows[head:]
        found = entries_search(address_of(data), count, column, key)
        if found == count:
            return None
        end = ROW.unpack_from(data, found * ROW_BYTES)[1]
        if found == 0:
            return self._before_memory(column, key, end)
        return ROW.unpack_from(data, (found - 1) * ROW_BYTES)[1], end

    def _before_memory(self, column: int, key: int, end: int) -> tuple[int, int] | None:
        """Answer a hit on the first row in memory: it is right only if no row on disk matches."""
        if self.rows_on_disk and _matches(self.disk_row, column, key):
            return None
        return self.disk_row[1], end


def _matches(words: tuple[int, int, int], column: int, key: int) -> bool:
    return words[0] > key if column == COLUMN_NEXT_OFFSET else words[2] >= key


def rows_header(base_index: Index, base_offset: Offset) -> bytes:
    """Return row 0 of an `.entries` file."""
    head = ROWS_HEADER.pack(ROWS_MAGIC, ROWS_VERSION, base_index, base_offset, 0, 0)
    return ROWS_HEADER.pack(ROWS_MAGIC, ROWS_VERSION, base_index, base_offset, crc32c(head[:24]), 0)


class Segments:
    """The segments of one group, oldest first; the last one is written to."""

    __slots__ = ("_bases", "directory", "items")

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.items: list[Segment] = []
        self._bases: list[int] = []

    def append(self, segment: Segment) -> None:
        """Add the newest segment."""
        if self.items:
            assert segment.base_index > self.items[-1].base_index
            assert segment.base_offset >= self.items[-1].base_offset
        self.items.append(segment)
        self._bases.append(segment.base_offset)

    def drop_first(self) -> Segment:
        """Forget the oldest segment."""
        assert self.items[0].is_sealed, "the last segment is written to"
        del self._bases[0]
        return self.items.pop(0)

    def holding(self, offset: Offset) -> int:
        """Return the position in `items` of the segment that holds *offset*; -1: before all.

        Of several with the same base offset the last one holds the records.
        """
        return bisect_right(self._bases, offset) - 1

    def holding_index(self, index: Index) -> tuple[Segment, Index]:
        """Return the segment that holds entry *index*, and its last entry's index."""
        at = bisect_right(self.items, index, key=lambda segment: segment.base_index) - 1
        assert at >= 0, f"entry {index} is before all segments"
        segment = self.items[at]
        last = Index(segment.base_index + segment.row_count - 1)
        assert index <= last, f"entry {index} is in no segment"
        return segment, last


def split_blocks(stream: Stream, added: bytes) -> tuple[bytes, bytes]:
    """Return (whole blocks to write at the frontier, new remainder) for bytes in memory."""
    assert blocks_down(stream.frontier) == stream.frontier, "S2: whole blocks"
    data = stream.remainder + added
    whole = blocks_down(len(data))
    return data[:whole], data[whole:]
