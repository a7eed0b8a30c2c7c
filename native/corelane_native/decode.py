"""Decoding Produce and Fetch requests into flat rows, with a verdict on every batch."""

# performance-critical: see STYLE.md

import errno
import struct
from collections.abc import Iterator
from typing import Final

from corelane_native._core import ffi, lib
from corelane_native.batch import PRODUCE_ROW

ROWS_MAX: Final = 100_000
"""Partitions in one request; one with more is treated as malformed."""

ProduceRow = tuple[
    int, int, int, int, int, int, int, int, int, int, int, int, int, int, int
]  # fmt: skip
"""(topic_at, topic_bytes, partition, error, reason, batch_at, batch_bytes, record_count,
attributes, producer_id, producer_epoch, base_sequence, base_timestamp, max_timestamp, keyless)"""

FetchRow = tuple[int, int, int, int, int, int, int, int]
"""(topic_at, topic_bytes, partition, current_leader_epoch, fetch_offset, last_fetched_epoch,
log_start_offset, partition_max_bytes)"""

Produce = tuple[int, int, str | None, list[ProduceRow]]
"""(acks, timeout_ms, transactional_id, rows)"""

Fetch = tuple[int, int, int, int, int, int, bytes, int, Iterator[FetchRow], int]
"""(max_wait_ms, min_bytes, max_bytes, isolation, session_id, session_epoch, rack, row_count,
rows, forgotten_count)"""

FETCH_ROW: Final = struct.Struct("@iiiiqiqi4x")
PRODUCE_HEAD: Final = struct.Struct("@iiiii4x")
FETCH_HEAD: Final = struct.Struct("@iiiiiiiiii")

_ROWS_FIRST: Final = 256


class _Rows:
    """Rows that C fills, kept between calls; grown once, to the limit, by the first that needs it.

    So the decoders are for one thread at a time.
    """

    def __init__(self, row_type: str) -> None:
        self._type = row_type
        self._size = ffi.sizeof(row_type)
        self.count_max = 0
        self.grow(_ROWS_FIRST)

    def grow(self, count_max: int) -> None:
        self.count_max = count_max
        self.rows = ffi.new(f"{self._type}[]", count_max)
        self._view = memoryview(ffi.buffer(self.rows))

    def first(self, count: int) -> memoryview:
        return self._view[: count * self._size]


_produce_rows = _Rows("cl_produce_row")
_fetch_rows = _Rows("cl_fetch_row")
_produce_head = ffi.new("cl_produce *")
_fetch_head = ffi.new("cl_fetch *")
_produce_head_bytes = ffi.buffer(_produce_head)
_fetch_head_bytes = ffi.buffer(_fetch_head)


def decode_produce(address: int, size: int, body_at: int, version: int) -> Produce | None:
    """Decode a Produce request (3 to 12) whose body starts at *body_at* of the frame.

    Every batch is judged in the same call, as `check_batch` does but without a size limit: one
    bad partition never spoils another. Positions in rows count from the frame's first byte.
    Returns None for a malformed request: its connection is to be closed.
    """
    rows, head = _produce_rows, _produce_head
    status = lib.cl_decode_produce(address, size, body_at, version, head, rows.rows, rows.count_max)
    if status == -errno.ENOSPC and rows.count_max < ROWS_MAX:
        rows.grow(ROWS_MAX)
        return decode_produce(address, size, body_at, version)
    if status < 0:
        return None
    acks, timeout_ms, id_at, id_bytes, count = PRODUCE_HEAD.unpack(_produce_head_bytes)
    transactional_id = None
    if id_bytes >= 0:
        try:
            transactional_id = _text(address + id_at, id_bytes)
        except UnicodeDecodeError:
            return None
    return acks, timeout_ms, transactional_id, list(PRODUCE_ROW.iter_unpack(rows.first(count)))


def decode_fetch(address: int, size: int, body_at: int, version: int) -> Fetch | None:
    """Decode a Fetch request (4 to 17) whose body starts at *body_at* of the frame.

    From version 13 on a row's topic is its 16-byte id. Rows are made as they are taken, so that
    a request of very many can be looked at piece by piece. Returns None for a malformed request.
    """
    rows, head = _fetch_rows, _fetch_head
    status = lib.cl_decode_fetch(address, size, body_at, version, head, rows.rows, rows.count_max)
    if status == -errno.ENOSPC and rows.count_max < ROWS_MAX:
        rows.grow(ROWS_MAX)
        return decode_fetch(address, size, body_at, version)
    if status < 0:
        return None
    *words, rack_at, rack_bytes, count, forgotten = FETCH_HEAD.unpack(_fetch_head_bytes)
    rack = ffi.buffer(ffi.cast("char *", address + rack_at), rack_bytes)[:]
    max_wait_ms, min_bytes, max_bytes, isolation, session_id, session_epoch = words
    found = FETCH_ROW.iter_unpack(bytes(rows.first(count)))
    return (
        max_wait_ms, min_bytes, max_bytes, isolation, session_id, session_epoch, rack, count, found,
        forgotten,
    )  # fmt: skip


def _text(address: int, size: int) -> str:
    return ffi.buffer(ffi.cast("char *", address), size)[:].decode()
