"""Makes record batches for the tests of the C core, good ones and lying ones."""

import struct
from collections.abc import Sequence

from corelane_native import crc32c

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = 61
BASE_TIMESTAMP = 1_700_000_000_000


def uvarint(value: int) -> bytes:
    """Return an unsigned base-128 varint."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint(value: int) -> bytes:
    """Return a zigzag varint of at most 64 bits."""
    return uvarint((value << 1) ^ (value >> 63) if value < 0 else value << 1)


def blob(data: bytes | None) -> bytes:
    """Return nullable bytes behind a varint length."""
    return varint(-1) if data is None else varint(len(data)) + data


def record(
    delta: int,
    key: bytes | None = None,
    value: bytes | None = b"value",
    timestamp_delta: int = 0,
    headers: Sequence[tuple[bytes, bytes | None]] = (),
) -> bytes:
    """Return one record with its length."""
    body = b"\0" + varint(timestamp_delta) + varint(delta) + blob(key) + blob(value)
    body += varint(len(headers)) + b"".join(blob(name) + blob(data) for name, data in headers)
    return varint(len(body)) + body


def batch(records: bytes, record_count: int, **words: int) -> bytes:
    """Return a batch around *records*; *words* replaces what its header says."""
    rest = struct.pack(
        ">hiqqqhii",
        words.get("attributes", 0),
        words.get("last_delta", record_count - 1),
        words.get("base_timestamp", BASE_TIMESTAMP),
        words.get("max_timestamp", BASE_TIMESTAMP),
        words.get("producer_id", -1),
        words.get("producer_epoch", -1),
        words.get("base_sequence", -1),
        words.get("count", record_count),
    )
    rest += records
    length = words.get("length", 9 + len(rest))
    crc = words.get("crc", crc32c(rest))
    magic = words.get("magic", 2)
    return struct.pack(">qiibI", words.get("base_offset", 0), length, -1, magic, crc) + rest


def simple(values: Sequence[bytes], **words: int) -> bytes:
    """Return a good batch of keyless records with these values."""
    records = b"".join(record(delta, None, value) for delta, value in enumerate(values))
    return batch(records, len(values), **words)
