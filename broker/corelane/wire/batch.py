"""Record batches (format 2) as the broker must look at them: headers, and a record by its time.

0 base offset i64 · 8 length i32 (of what follows) · 12 leader epoch i32 · 16 magic i8 = 2
17 crc u32 · 21 attributes i16 · 23 last offset delta i32 · 27 base timestamp i64
35 max timestamp i64 · 43 producer id i64 · 51 producer epoch i16 · 53 base sequence i32
57 record count i32 · 61 records, compressed as one block
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from corelane.model.record import record
from corelane.wire.compression import Compression, CompressionError, decompress
from corelane.wire.errors import DecompressError
from corelane.wire.primitives import read_varint
from corelane_native import BATCH_REASONS, walk_records

HEADER_BYTES: Final = 61
LENGTH_END: Final = 12
CODEC_MASK: Final = 0x07
LOG_APPEND_TIME: Final = 0x08
NOT_FOUND: Final = -1
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")

assert _HEADER.size == HEADER_BYTES


class BatchHeader(NamedTuple):
    """The 61 bytes before a batch's records."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size_bytes(self) -> int:
        """The whole batch."""
        return self.length + LENGTH_END


@record
class FoundRecord:
    """A record by its time: how far behind the batch's base offset, and its timestamp."""

    offset_delta: int
    timestamp: int


@record
class RecordsFault:
    """Why a batch's records are not acceptable."""

    sentence: str


def batch_header(data: bytes | memoryview, position: int = 0) -> BatchHeader:
    """Return the header at *position*; struct.error where it is cut."""
    return BatchHeader._make(_HEADER.unpack_from(data, position))


def whole_batches(data: bytes | memoryview, bytes_max: int) -> Iterator[tuple[int, BatchHeader]]:
    """Yield (position, header) of the whole batches in *data*.

    Ends before the batch that would pass *bytes_max*, but yields the first whatever its size.
    Ends also where a length is too small for a batch: it would not lead on.
    """
    at = 0
    while at + HEADER_BYTES <= len(data):
        head = batch_header(data, at)
        end = at + head.size_bytes
        if end < at + HEADER_BYTES or end > len(data) or (at and end > bytes_max):
            return
        yield at, head
        at = end


@record
class WalkedBatches:
    """What a walk over batches came to."""

    found_at: int
    found_size_bytes: int
    """0: none was found."""
    next_offset: int
    """Behind the last batch that was looked at."""
    newest: int
    """The largest timestamp of those that were not found; -1: there were none."""


def walk_batches(data: bytes, timestamp: int, offset_min: int) -> WalkedBatches:
    """Look for the first batch that ends at *offset_min* or above and has that time or later.

    Pure, and bounded by *data*.
    """
    next_offset, newest = -1, -1
    for at, head in whole_batches(data, len(data)):
        next_offset = head.base_offset + head.last_offset_delta + 1
        if next_offset <= offset_min:
            continue
        if head.max_timestamp >= timestamp:
            return WalkedBatches(at, head.size_bytes, next_offset, newest)
        newest = max(newest, head.max_timestamp)
    return WalkedBatches(0, 0, next_offset, newest)


def _plain_records(batch: bytes, attributes: int, bytes_max: int) -> bytes:
    codec = attributes & CODEC_MASK
    if codec > max(Compression):
        raise DecompressError(f"compression codec {codec} is unknown")
    try:
        return decompress(Compression(codec), batch[HEADER_BYTES:], bytes_max)
    except CompressionError as fault:
        raise DecompressError(str(fault)) from fault


def first_record_at(
    batch: bytes, timestamp: int, bytes_max: int, delta_min: int = 0
) -> FoundRecord | None:
    """Return the first record of *timestamp* or later, from *delta_min* on; pure and bounded.

    Raises DecompressError when the records are damaged or larger than *bytes_max*.
    """
    head = batch_header(batch)
    if head.attributes & LOG_APPEND_TIME:
        # All records have the batch's time.
        late = head.max_timestamp >= timestamp
        return FoundRecord(delta_min, head.max_timestamp) if late else None
    plain = _plain_records(batch, head.attributes, bytes_max)
    walk = walk_records(plain, head.record_count, head.base_timestamp, timestamp)
    if walk.reason:
        raise DecompressError(BATCH_REASONS[walk.reason])
    if walk.found_delta == NOT_FOUND:
        return None
    if walk.found_delta >= delta_min:
        return FoundRecord(walk.found_delta, walk.found_timestamp)
    # The log starts inside the batch, above the first match: look at each record from there.
    for delta, at in timestamps(plain, head.base_timestamp):
        if delta >= delta_min and at >= timestamp:
            return FoundRecord(delta, at)
    return None


def timestamps(plain: bytes, base_timestamp: int) -> Iterator[tuple[int, int]]:
    """Yield (offset delta, timestamp) of records that were walked and found good."""
    at = 0
    while at < len(plain):
        size, at = read_varint(plain, at)
        time_delta, inner = read_varint(plain, at + 1)
        offset_delta, _ = read_varint(plain, inner)
        yield offset_delta, base_timestamp + time_delta
        at += size


@record
class PlainRecords:
    """The records of a batch, decompressed, walked and found good."""

    data: bytes
    max_timestamp: int


def plain_records(
    batch: bytes, bytes_max: int, *, keys_needed: bool
) -> RecordsFault | PlainRecords:
    """Decompress and walk the records of a batch; pure and bounded."""
    head = batch_header(batch)
    try:
        plain = _plain_records(batch, head.attributes, bytes_max)
    except DecompressError as fault:
        return RecordsFault(str(fault))
    walk = walk_records(plain, head.record_count, head.base_timestamp)
    if walk.reason:
        return RecordsFault(BATCH_REASONS[walk.reason])
    if keys_needed and walk.keyless:
        return RecordsFault("a record without a key cannot enter a compacted topic")
    return PlainRecords(plain, walk.max_timestamp)


def check_compressed(batch: bytes, bytes_max: int, *, keys_needed: bool) -> RecordsFault | int:
    """Walk the records of a compressed batch; return the true maximum timestamp or the fault.

    Pure and bounded: for strict and compacted topics, off the loop.
    """
    found = plain_records(batch, bytes_max, keys_needed=keys_needed)
    return found.max_timestamp if isinstance(found, PlainRecords) else found
