"""Entries that another replica sent: judged, and made WAL records of, without a look at each."""

# performance-critical: see STYLE.md

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from corelane_native._core import ffi, lib
from corelane_native.batch import BATCH_REASONS

if TYPE_CHECKING:
    from corelane_native.arena import Arena

RECEIVED_REASONS: Final[dict[int, str]] = {
    **BATCH_REASONS,
    lib.CL_RECEIVED_CUT: "An entry is longer than what was sent.",
    lib.CL_RECEIVED_KIND_WRONG: "An entry is of no kind that entries have.",
    lib.CL_RECEIVED_OFFSET_WRONG: "A batch does not begin at the offset where the log ends.",
    lib.CL_RECEIVED_TERM_WRONG: "A batch is stamped with another term than its entry has.",
}
"""What a person should know about each reason; 0 (good entries) has no sentence."""

_ROW: Final = struct.Struct("@qqQII")
_RUN: Final = struct.Struct("@QqIi")
_RECORD: Final = struct.Struct("@IIIIQQQQqq")


class ReceivedRun(NamedTuple):
    """How far entries of one term are good, and why the next one is not."""

    position: int
    next_offset: int
    row_count: int
    reason: int


class Received:
    """The rows of one payload of entries; used again for the next one. For one thread."""

    __slots__ = ("_bytes", "_record", "_record_bytes", "_rows", "_run", "_run_bytes", "rows_max")

    def __init__(self, rows_max: int) -> None:
        assert rows_max > 0
        self.rows_max = rows_max
        self._rows = ffi.new("cl_received[]", rows_max)
        self._run = ffi.new("cl_received_run *")
        self._run_bytes = ffi.buffer(self._run)
        self._record = ffi.new("cl_record *")
        self._record_bytes = ffi.buffer(self._record)
        self._bytes = ffi.new("uint64_t *")

    def check(
        self,
        address: int,
        size_bytes: int,
        position: int,
        term: int,
        next_offset: int,
        first_row: int,
        rows_max: int,
    ) -> ReceivedRun:
        """Judge at most *rows_max* entries of *term* from *position* on into rows."""
        assert 0 <= first_row <= first_row + rows_max <= self.rows_max
        assert position <= size_bytes
        _RUN.pack_into(self._run_bytes, 0, position, next_offset, 0, 0)
        lib.cl_received_check(
            address, size_bytes, term, self._run, self._rows + first_row, rows_max
        )
        return ReceivedRun(*_RUN.unpack(self._run_bytes))

    def rows(self, count: int) -> list[tuple[int, int, int, int, int]]:
        """Return (next offset, newest timestamp, position, size, kind) of the first rows."""
        assert 0 <= count <= self.rows_max
        size_bytes = count * _ROW.size
        return list(_ROW.iter_unpack(ffi.buffer(self._rows, size_bytes))) if count else []

    def put(
        self,
        arena: "Arena",
        chunk: int,
        position: int,
        limit: int,
        generation: int,
        term: int,
        lsn: int,
        durable_upto: int,
        group: int,
        index: int,
        address: int,
        first_row: int,
        row_count: int,
    ) -> tuple[int, int]:
        """Write rows as WAL records that end within *limit*; returns (how many, their bytes).

        *lsn* and *index* are the first one's; both rise by one each.
        """
        assert 0 <= first_row <= first_row + row_count <= self.rows_max
        _RECORD.pack_into(
            self._record_bytes, 0,
            0, generation, term, 0, lsn, durable_upto, group, index, 0, -1,
        )  # fmt: skip
        count = lib.cl_arena_put_received(
            arena.handle, chunk, position, limit, self._record, address,
            self._rows + first_row, row_count, self._bytes,
        )  # fmt: skip
        assert count >= 0, f"{row_count} entries at {position} of chunk {chunk}: {count}"
        return count, self._bytes[0]
