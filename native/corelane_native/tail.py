"""Rows of the entries that a log has in memory: C's array of them, which grows at the end."""

# performance-critical: see STYLE.md

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from corelane_native._core import ffi, lib

if TYPE_CHECKING:
    from corelane_native.arena import Arena

COLLECT_MAX: Final = 4096
"""Entries that `EntryRows.collect` takes at once, at most."""

EntryRow = tuple[int, int, int, int, int, int, int, int]
"""(next_offset, max_timestamp, lsn, chunk, position, size_bytes, term, kind)"""

EntryRoom = ffi.CData
"""Where C may write entries."""

_ENTRY: Final = struct.Struct("@qqQqIIII")
_SUMS: Final = struct.Struct("@QQq")
_COLLECTED: Final = struct.Struct("@QQQqqqqQqQQQQQ")
_ROW_BYTES: Final = 32
_FIRST_CAPACITY: Final = 4
_SPARE_RATIO: Final = 8
"""Memory is given back when only so little of it is in use."""


class Collecting(NamedTuple):
    """What a segment has, and what may be added to it."""

    begin: int
    bytes_max: int
    segment_left: int
    segment_ms: int
    closed_at: int
    oldest: int
    newest: int
    biggest: int
    last_offset: int
    last_term: int


class Collected(NamedTuple):
    """What of a tail goes to a segment; the first five are as they are with that."""

    oldest: int
    newest: int
    biggest: int
    last_offset: int
    last_term: int
    entries: int
    batches: int
    log_bytes: int
    all_bytes: int


_sums = ffi.new("cl_tail_sums *")
_sums_bytes = ffi.buffer(_sums)
_collected = ffi.new("cl_collected *")
_collected_bytes = ffi.buffer(_collected)
_segment_rows = ffi.new("char[]", COLLECT_MAX * _ROW_BYTES)
_segment_rows_bytes = ffi.buffer(_segment_rows)


class EntryRows:
    """An array of entries, for one thread; those at its beginning and its end may be dropped."""

    __slots__ = ("_array", "_capacity", "_count", "_first", "_view")

    def __init__(self) -> None:
        self._count = 0
        self._first = 0  # those before it were dropped
        self._make(_FIRST_CAPACITY)

    def _make(self, capacity: int) -> None:
        self._capacity = capacity
        self._array = ffi.new("cl_entry[]", capacity)
        self._view = memoryview(ffi.buffer(self._array))

    def __len__(self) -> int:
        return self._count

    def add(self, row: EntryRow) -> None:
        """Put an entry behind the others."""
        at = self._first + self._count
        if at == self._capacity:
            at = self._with_room(1)
        _ENTRY.pack_into(self._view, at * _ENTRY.size, *row)
        self._count += 1

    def room(self, count: int) -> ffi.CData:
        """Return where *count* more entries may be written, which `wrote` then counts."""
        at = self._first + self._count
        if at + count > self._capacity:
            at = self._with_room(count)
        return self._array + at

    def wrote(self, count: int) -> None:
        """Take in entries that were written to `room`."""
        self._count += count
        assert self._first + self._count <= self._capacity

    def _with_room(self, count: int) -> int:
        """Move the entries to where as many more have room; return where these begin."""
        old = self._view[self._first * _ENTRY.size : (self._first + self._count) * _ENTRY.size]
        self._make(max(2 * self._count, self._count + count, _FIRST_CAPACITY))
        self._view[: len(old)] = old
        self._first = 0
        return self._count

    def row(self, at: int) -> EntryRow:
        """Return one entry."""
        assert 0 <= at < self._count
        found: EntryRow = _ENTRY.unpack_from(self._view, (self._first + at) * _ENTRY.size)
        return found

    def rows(self, at: int, end: int) -> Iterator[EntryRow]:
        """Return the entries from *at* to before *end*, made as they are taken."""
        assert 0 <= at <= self._count
        start = self._first + at
        end = self._first + max(at, min(end, self._count))
        return _ENTRY.iter_unpack(self._view[start * _ENTRY.size : end * _ENTRY.size])

    def replace(self, at: int, row: EntryRow) -> None:
        """Write an entry anew."""
        assert 0 <= at < self._count
        _ENTRY.pack_into(self._view, (self._first + at) * _ENTRY.size, *row)

    def drop_first(self, count: int) -> None:
        """Forget the first *count* entries."""
        assert 0 <= count <= self._count
        self._first += count
        self._count -= count
        if self._capacity > _SPARE_RATIO * max(self._count, _FIRST_CAPACITY):
            self._with_room(0)

    def cut(self, count: int) -> None:
        """Keep the first *count* entries."""
        assert 0 <= count <= self._count
        self._count = count

    def find(self, offset: int) -> int:
        """Return the number of the first entry that ends above *offset*."""
        return lib.cl_tail_find(self._array + self._first, self._count, offset)

    def same_chunk(self, at: int, end: int) -> int:
        """Return how many entries from *at* to before *end* lie in the first one's chunk."""
        assert 0 <= at <= end <= self._count
        return lib.cl_tail_same_chunk(self._array + self._first + at, end - at)

    def sums(self, at: int, end: int) -> tuple[int, int, int]:
        """Return (bytes, trims, newest timestamp) of the entries from *at* to before *end*."""
        assert 0 <= at <= end <= self._count
        lib.cl_tail_sum(self._array + self._first + at, end - at, _sums)
        found: tuple[int, int, int] = _SUMS.unpack(_sums_bytes)
        return found

    def collect(self, at: int, end: int, given: Collecting) -> tuple[Collected, bytes]:
        """Choose entries from *at* on for a segment, and return their rows of it."""
        assert 0 <= at < end <= self._count
        assert end - at <= COLLECT_MAX
        _COLLECTED.pack_into(_collected_bytes, 0, *given, 0, 0, 0, 0)
        lib.cl_tail_collect(self._array + self._first + at, end - at, _collected, _segment_rows)
        found = Collected(*_COLLECTED.unpack(_collected_bytes)[5:])
        return found, _segment_rows_bytes[: found.entries * _ROW_BYTES]

    def gather(self, arena: "Arena", chunk: int, position: int, at: int, end: int) -> int:
        """Copy the batches from *at* to before *end* behind one another; return their bytes."""
        assert 0 <= at <= end <= self._count
        copied = lib.cl_arena_gather_batches(
            arena.handle, chunk, position, self._array + self._first + at, end - at
        )
        assert copied >= 0, f"batches do not fit chunk {chunk}, or lie in none: {copied}"
        return copied
