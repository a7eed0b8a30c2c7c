"""Plain Produce requests of one turn: decoded together, put into the log and answered together.

What C finds stays with C; Python looks at runs of requests, and at single ones where it must.
"""

# performance-critical: see STYLE.md

import struct
from typing import TYPE_CHECKING, Final

from corelane_native._core import ffi, lib

if TYPE_CHECKING:
    from corelane_native.arena import Arena

PLAIN_MAX: Final = 256
"""Requests that `PlainRequests.decode` looks at, at most."""

ROWS_MAX: Final = 1024
"""Batches of them together; a request with more is not plain."""

ANSWER_BYTES_MAX: Final = 1024
"""Of an answer that `PlainRequests.answers` repeats: names of topics have 249 bytes at most."""

FRAME_PLACE: Final = struct.Struct("@QQ")
"""Address and size of a frame."""

PlainHead = tuple[int, int, int, int, int]
"""(address, acks, timeout_ms, row_count, correlation_id)"""

PlainRow = tuple[
    int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int
]  # fmt: skip
"""A `ProduceRow`, and whether (1) its topic is that of the row before it."""

PlainRun = tuple[int, int, int, int, int, int, int, int, int, int]
"""(first, count, first_row, row_count, is_alike, batch_bytes_max, batch_bytes, record_count,
oldest, newest): requests that follow one another, alike or alone."""

_HEAD: Final = struct.Struct("@Qiiii")
_ROW: Final = struct.Struct("@iiihhiiiiqiiqqii")
_RUN: Final = struct.Struct("@IIIIIiqqqq")
_RECORD: Final = struct.Struct("@IIIIQQQQqq")


class PlainRequests:
    """The requests that were decoded last. Their frames are borrowed. For one thread."""

    __slots__ = (
        "_answers",
        "_answers_bytes",
        "_bytes",
        "_count",
        "_heads",
        "_heads_view",
        "_record",
        "_record_bytes",
        "_rows",
        "_rows_view",
        "_runs",
        "_runs_view",
    )

    def __init__(self) -> None:
        self._heads = ffi.new("cl_plain[]", PLAIN_MAX)
        self._heads_view = memoryview(ffi.buffer(self._heads))
        self._rows = ffi.new("cl_produce_row[]", ROWS_MAX)
        self._rows_view = memoryview(ffi.buffer(self._rows))
        self._runs = ffi.new("cl_plain_run[]", PLAIN_MAX)
        self._runs_view = memoryview(ffi.buffer(self._runs))
        self._answers = ffi.new("char[]", PLAIN_MAX * ANSWER_BYTES_MAX)
        self._answers_bytes = ffi.buffer(self._answers)
        self._record = ffi.new("cl_record *")
        self._record_bytes = ffi.buffer(self._record)
        self._count = ffi.new("uint32_t *")
        self._bytes = ffi.new("uint64_t *")

    def decode(self, frames: bytes, count: int, version: int) -> list[PlainRun]:
        """Decode Produce requests of one version, whole frames, for as long as they are plain.

        *frames* are *count* of `FRAME_PLACE`. Plain is what needs no more than to be appended, as
        far as can be told without a topic: no error, no transaction, acks 1 or -1.
        """
        count = min(count, PLAIN_MAX)
        plain = lib.cl_decode_plain(
            frames, count, version, self._heads, self._rows, ROWS_MAX, self._runs, self._count
        )
        if plain == 0:
            return []
        return list(_RUN.iter_unpack(self._runs_view[: self._count[0] * _RUN.size]))

    def head(self, number: int) -> PlainHead:
        """Return what there is to know of one request."""
        head: PlainHead = _HEAD.unpack_from(self._heads_view, number * _HEAD.size)
        return head

    def heads(self, first: int, count: int) -> list[PlainHead]:
        """Return what there is to know of requests from *first* on."""
        view = self._heads_view[first * _HEAD.size : (first + count) * _HEAD.size]
        return list(_HEAD.iter_unpack(view))

    def rows(self, first: int, count: int) -> list[PlainRow]:
        """Return the rows from *first* on; those of a request follow those of the one before."""
        view = self._rows_view[first * _ROW.size : (first + count) * _ROW.size]
        return list(_ROW.iter_unpack(view))

    def row(self, number: int) -> PlainRow:
        """Return one row."""
        row: PlainRow = _ROW.unpack_from(self._rows_view, number * _ROW.size)
        return row

    def put(
        self,
        arena: "Arena",
        chunk: int,
        position: int,
        limit: int,
        record: tuple[int, int, int, int, int, int, int, int],
        first: int,
        first_row: int,
        count: int,
        entries: ffi.CData,
    ) -> tuple[int, int]:
        """Write the batches of alike requests as WAL records that end within *limit*.

        *record* is (generation, term, lsn, durable_upto, group, index, base_offset,
        append_time_ms) of the first one, and lsn, index and offset rise. *entries* has room for
        *count* of the tail's. Returns how many, and their bytes.
        """
        generation, term, lsn, durable_upto, group, index, base_offset, append_time_ms = record
        _RECORD.pack_into(
            self._record_bytes, 0,
            1, generation, term, 0, lsn, durable_upto, group, index, base_offset, append_time_ms,
        )  # fmt: skip
        put = lib.cl_arena_put_plain(
            arena.handle, chunk, position, limit, self._record, self._heads + first,
            self._rows + first_row, count, entries, self._bytes,
        )  # fmt: skip
        assert put >= 0, f"{count} batches at {position} of chunk {chunk}: {put}"
        return put, self._bytes[0]

    def answers(
        self,
        answer: bytes,
        offset_at: int,
        first: int,
        first_row: int,
        count: int,
        base_offset: int,
    ) -> tuple[bytes, int]:
        """Return the answers to alike requests behind one another, and where their offsets end.

        Each is *answer* with its own correlation id, and its own base offset at *offset_at*.
        """
        size_bytes = len(answer)
        assert size_bytes <= ANSWER_BYTES_MAX
        assert 0 < count <= PLAIN_MAX
        end = lib.cl_plain_answers(
            answer, size_bytes, offset_at, self._heads + first, self._rows + first_row, count,
            base_offset, self._answers,
        )  # fmt: skip
        return self._answers_bytes[: size_bytes * count], end
