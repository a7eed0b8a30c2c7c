"""Kafka's primitive types: readers return (value, next position), writers append to a bytearray.

Readers raise DecodeError, IndexError or struct.error on bytes that end too early; `Codec.decode`
turns all of them into DecodeError. Nothing is allocated by a length that was only claimed.
"""

# performance-critical: see STYLE.md

import struct
from typing import Final

from corelane.wire.errors import DecodeError

Buffer = bytes | memoryview
UUID_BYTES: Final = 16
UVARINT_BYTES_MAX: Final = 5
VARINT_BYTES_MAX: Final = 10
STRING_BYTES_MAX: Final = 0x7FFF
"""Kafka's bound, for compact strings too: it neither writes nor reads a longer one."""

TAGS_MAX: Final = 1000
_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")


def read_uvarint(data: Buffer, at: int) -> tuple[int, int]:
    """Read an unsigned LEB128 varint of at most 32 bits (KIP-482)."""
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    for shift in range(7, 7 * UVARINT_BYTES_MAX, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0xFFFFFFFF:
                raise DecodeError("a varint has more than 32 bits")
            return value, at
    raise DecodeError("a varint has more than five bytes")


def write_uvarint(out: bytearray, value: int) -> None:
    """Append an unsigned LEB128 varint."""
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def uvarint(value: int) -> bytes:
    """Return an unsigned LEB128 varint."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    write_uvarint(out, value)
    return bytes(out)


def read_varint(data: Buffer, at: int) -> tuple[int, int]:
    """Read a number of a record: zigzag, at most ten bytes (message format 2)."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at
    value = byte & 0x7F
    for shift in range(7, 7 * VARINT_BYTES_MAX, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
    raise DecodeError("a number has more than ten bytes")


def take(data: Buffer, at: int, size: int) -> tuple[bytes, int]:
    """Copy *size* bytes."""
    end = at + size
    if end > len(data):
        raise DecodeError(f"{size} bytes are announced, {len(data) - at} are left")
    return bytes(data[at:end]), end


def read_string(data: Buffer, at: int) -> tuple[str | None, int]:
    """Read an int16-length string; -1 is null."""
    (size,) = _INT16.unpack_from(data, at)
    return _text(data, at + 2, size)


def read_compact_string(data: Buffer, at: int) -> tuple[str | None, int]:
    """Read a string whose length + 1 is an unsigned varint; 0 is null."""
    size, at = read_uvarint(data, at)
    return _text(data, at, size - 1)


def _text(data: Buffer, at: int, size: int) -> tuple[str | None, int]:
    if size == -1:
        return None, at
    if not 0 <= size <= STRING_BYTES_MAX:
        raise DecodeError(f"a string has the length {size}")
    raw, at = take(data, at, size)
    return raw.decode(), at


def read_bytes(data: Buffer, at: int) -> tuple[bytes | None, int]:
    """Read int32-length bytes; -1 is null."""
    (size,) = _INT32.unpack_from(data, at)
    return _blob(data, at + 4, size)


def read_compact_bytes(data: Buffer, at: int) -> tuple[bytes | None, int]:
    """Read bytes whose length + 1 is an unsigned varint; 0 is null."""
    size, at = read_uvarint(data, at)
    return _blob(data, at, size - 1)


def _blob(data: Buffer, at: int, size: int) -> tuple[bytes | None, int]:
    if size < 0:
        if size == -1:
            return None, at
        raise DecodeError(f"bytes have the length {size}")
    return take(data, at, size)


def read_count(data: Buffer, at: int) -> tuple[int, int]:
    """Read an int32 array count; -1 is null. Every element takes at least a byte."""
    (count,) = _INT32.unpack_from(data, at)
    return _checked_count(data, at + 4, count)


def read_compact_count(data: Buffer, at: int) -> tuple[int, int]:
    """Read an array count + 1 as an unsigned varint; 0 is null."""
    count, at = read_uvarint(data, at)
    return _checked_count(data, at, count - 1)


def _checked_count(data: Buffer, at: int, count: int) -> tuple[int, int]:
    if count < -1 or count > len(data) - at:
        raise DecodeError(f"{count} elements are announced, {len(data) - at} bytes are left")
    return count, at


def read_tags(data: Buffer, at: int) -> tuple[list[tuple[int, int, int]], int]:
    """Read a tag section: [(tag, position, size)]; unknown ones are for skipping (quirk 6)."""
    count, at = read_uvarint(data, at)
    if count > TAGS_MAX:
        raise DecodeError(f"{count} tagged fields, at most {TAGS_MAX} are read")
    found = []
    previous = -1
    for _ in range(count):
        tag, at = read_uvarint(data, at)
        size, at = read_uvarint(data, at)
        if tag <= previous:
            raise DecodeError(f"tagged field {tag} follows {previous}")
        if size > len(data) - at:
            raise DecodeError(f"tagged field {tag} announces {size} bytes")
        found.append((tag, at, size))
        previous = tag
        at += size
    return found, at


def write_string(out: bytearray, value: str | None) -> None:
    """Append an int16-length string."""
    if value is None:
        out += b"\xff\xff"
        return
    raw = value.encode()
    out += _INT16.pack(len(raw))
    out += raw


def write_compact_string(out: bytearray, value: str | None) -> None:
    """Append a compact string."""
    if value is None:
        out.append(0)
        return
    raw = value.encode()
    if len(raw) > STRING_BYTES_MAX:
        raise struct.error(f"a string of {len(raw)} bytes fits no message")
    write_uvarint(out, len(raw) + 1)
    out += raw


def write_bytes(out: bytearray, value: Buffer | None) -> None:
    """Append int32-length bytes."""
    if value is None:
        out += b"\xff\xff\xff\xff"
        return
    out += _INT32.pack(len(value))
    out += value


def write_compact_bytes(out: bytearray, value: Buffer | None) -> None:
    """Append compact bytes."""
    if value is None:
        out.append(0)
        return
    write_uvarint(out, len(value) + 1)
    out += value


def write_count(out: bytearray, count: int) -> None:
    """Append an array count; -1 is null."""
    out += _INT32.pack(count)


def write_compact_count(out: bytearray, count: int) -> None:
    """Append a compact array count; -1 is null."""
    write_uvarint(out, count + 1)


def write_tags(out: bytearray, tags: list[tuple[int, bytes]]) -> None:
    """Append a tag section; *tags* rise."""
    write_uvarint(out, len(tags))
    for tag, raw in tags:
        write_uvarint(out, tag)
        write_uvarint(out, len(raw))
        out += raw
