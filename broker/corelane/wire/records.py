"""Record batches of Kafka's message format 2, made for Produce and taken apart after Fetch.

    0 base offset i64 · 8 length i32 (of what follows) · 12 leader epoch i32 · 16 magic i8 = 2
    17 crc u32 (crc32c of everything after it) · 21 attributes i16 · 23 last offset delta i32
    27 base timestamp i64 · 35 max timestamp i64 · 43 producer id i64 · 51 producer epoch i16
    53 base sequence i32 · 57 record count i32 · 61 records, compressed as one block

Attributes: bits 0-2 codec, 3 log append time, 4 transactional, 5 control.
"""

import struct
from collections.abc import Iterator
from dataclasses import field
from typing import Final

from corelane.model.record import record
from corelane.wire.compression import Compression, CompressionError, compress, decompress
from corelane.wire.errors import DecodeError
from corelane.wire.primitives import read_varint

Headers = tuple[tuple[str, bytes | None], ...]

HEADER_BYTES: Final = 61
MAGIC: Final = 2
NO_PRODUCER: Final = -1

_FRONT = struct.Struct(">qiibI")
_COVERED = struct.Struct(">hiqqqhii")
_LENGTH_AT: Final = 8
_LENGTH_END: Final = 12
_COVERED_AT: Final = 21
_CODEC_MASK: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08
TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20
_NULL: Final = b"\x01"  # the varint of -1, which stands for null

assert _FRONT.size == _COVERED_AT
assert _COVERED_AT + _COVERED.size == HEADER_BYTES


class CorruptBatchError(ValueError):
    """The bytes of a batch are not what their checksum or their format promises."""


@record
class Origin:
    """What the records of one batch share: who wrote it, and how."""

    leader_epoch: int
    attributes: int
    """Kafka's bits: the codec, the kind of timestamp, transactional, control."""
    producer_id: int
    producer_epoch: int


NO_ORIGIN: Final = Origin(-1, 0, NO_PRODUCER, -1)
"""Of a record that was not read from a log."""


@record
class Record:
    """One record as a consumer sees it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    origin: Origin = field(default_factory=lambda: NO_ORIGIN, compare=False)


@record
class Producer:
    """Who writes a batch, and how many records it wrote to this partition before."""

    producer_id: int
    epoch: int
    base_sequence: int


ANONYMOUS: Final = Producer(NO_PRODUCER, -1, -1)


class BatchBuilder:
    """Collects the records of one batch; `payload` closes it."""

    __slots__ = ("_base_timestamp_ms", "_max_timestamp_ms", "_records", "count")

    def __init__(self) -> None:
        self.count = 0
        self._records = bytearray()
        self._base_timestamp_ms = 0
        self._max_timestamp_ms = 0

    @property
    def size_bytes(self) -> int:
        """The bytes of the batch, were it sent now and not compressed."""
        return HEADER_BYTES + len(self._records)

    def append(
        self, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        """Add one record after the others."""
        assert timestamp_ms >= 0
        if self.count == 0:
            self._base_timestamp_ms = timestamp_ms
            self._max_timestamp_ms = timestamp_ms
        elif timestamp_ms > self._max_timestamp_ms:
            self._max_timestamp_ms = timestamp_ms
        body = b"".join(
            (
                b"\x00",
                varint(timestamp_ms - self._base_timestamp_ms),
                varint(self.count),
                _sized(key),
                _sized(value),
                _headers(headers) if headers else b"\x00",
            )
        )
        self._records += varint(len(body))
        self._records += body
        self.count += 1

    def payload(self, codec: Compression) -> "Payload":
        """Return the batch but for what is known only when it is sent; nothing is added after."""
        assert self.count > 0
        return Payload(
            codec,
            self.count,
            self._base_timestamp_ms,
            self._max_timestamp_ms,
            compress(codec, bytes(self._records)),
        )


@record
class Payload:
    """A closed batch without its producer's numbers, which a retry may change."""

    codec: Compression
    count: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    records: bytes

    @property
    def size_bytes(self) -> int:
        """The bytes of the whole batch on the wire."""
        return HEADER_BYTES + len(self.records)


def encode_batch(payload: Payload, producer: Producer = ANONYMOUS, attributes: int = 0) -> bytes:
    """Return the batch as Produce carries it: base offset 0, the leader's epoch unknown.

    *attributes* are the bits beside the codec.
    """
    covered = _COVERED.pack(
        payload.codec | attributes,
        payload.count - 1,
        payload.base_timestamp_ms,
        payload.max_timestamp_ms,
        producer.producer_id,
        producer.epoch,
        producer.base_sequence,
        payload.count,
    )
    crc = _crc32c(payload.records, _crc32c(covered))
    length = HEADER_BYTES - _LENGTH_END + len(payload.records)
    return b"".join((_FRONT.pack(0, length, -1, MAGIC, crc), covered, payload.records))


@record
class Batch:
    """The header of one fetched batch with its records, still compressed."""

    base_offset: int
    leader_epoch: int
    attributes: int
    last_offset_delta: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer: Producer
    count: int
    records: bytes

    @property
    def last_offset(self) -> int:
        """The offset of the last record the batch was made with; the next batch is above it."""
        return self.base_offset + self.last_offset_delta

    @property
    def is_control(self) -> bool:
        """It says what became of a transaction and holds nothing for users."""
        return bool(self.attributes & _CONTROL)

    @property
    def is_transactional(self) -> bool:
        """Its records count only if their transaction committed."""
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def codec(self) -> Compression:
        """How the records are compressed; raises CorruptBatchError for a codec nobody knows."""
        number = self.attributes & _CODEC_MASK
        if number > max(Compression):
            raise CorruptBatchError(f"codec {number} is not known")
        return Compression(number)


def split_batches(data: bytes) -> Iterator[Batch]:
    """Yield the batches of a fetched record set, each with its checksum verified.

    A batch cut off at the end is legal in Kafka (the byte limit fell inside) and left out.
    Raises CorruptBatchError.
    """
    at = 0
    while at + HEADER_BYTES <= len(data):
        base_offset, length, leader_epoch, magic, crc = _FRONT.unpack_from(data, at)
        end = at + _LENGTH_END + length
        if magic != MAGIC:
            raise CorruptBatchError(f"offset {base_offset} has message format {magic}, not {MAGIC}")
        if length < HEADER_BYTES - _LENGTH_END:
            raise CorruptBatchError(f"the batch at offset {base_offset} claims {length} bytes")
        if end > len(data):
            return
        if _crc32c(memoryview(data)[at + _COVERED_AT : end]) != crc:
            raise CorruptBatchError(f"the checksum of the batch at offset {base_offset} is wrong")
        fields = _COVERED.unpack_from(data, at + _COVERED_AT)
        attributes, last_delta, base_time, max_time, producer_id, epoch, sequence, count = fields
        producer = Producer(producer_id, epoch, sequence)
        yield Batch(
            base_offset,
            leader_epoch,
            attributes,
            last_delta,
            base_time,
            max_time,
            producer,
            count,
            data[at + HEADER_BYTES : end],
        )
        at = end


def batch_records(batch: Batch, topic: str, partition: int) -> list[Record]:
    """Return the records of *batch* in order of their offsets. Raises CorruptBatchError."""
    try:
        return _walk(batch, decompress(batch.codec, batch.records), topic, partition)
    except (CompressionError, DecodeError, IndexError) as error:
        raise CorruptBatchError(f"the batch at offset {batch.base_offset}: {error}") from error


def _walk(batch: Batch, data: bytes, topic: str, partition: int) -> list[Record]:
    """Take the plain *data* apart. An index error means that it ended too early."""
    records: list[Record] = []
    is_append_time = bool(batch.attributes & _LOG_APPEND_TIME)
    base_offset = batch.base_offset
    base_time = batch.base_timestamp_ms
    writer = batch.producer
    origin = Origin(batch.leader_epoch, batch.attributes, writer.producer_id, writer.epoch)
    at = 0
    for _ in range(batch.count):
        length, at = read_varint(data, at)
        end = at + length
        at += 1  # the record's own attributes: none are defined
        time_delta, at = read_varint(data, at)
        offset_delta, at = read_varint(data, at)
        key, at = _read_sized(data, at)
        value, at = _read_sized(data, at)
        header_count, at = read_varint(data, at)
        headers, at = _read_headers(data, at, header_count) if header_count else ((), at)
        if at != end:
            raise CorruptBatchError(f"a record of the batch at offset {base_offset} has a bad size")
        time_ms = batch.max_timestamp_ms if is_append_time else base_time + time_delta
        offset = base_offset + offset_delta
        records.append(Record(topic, partition, offset, time_ms, key, value, headers, origin))
    if at != len(data):
        raise CorruptBatchError(f"the batch at offset {base_offset} has more than it counts")
    return records


def varint(value: int) -> bytes:
    """Return *value* as Kafka writes it: zigzag, seven bits a byte, low bits first."""
    left = (value << 1) ^ (value >> 63)
    if left < 0x80:
        return _ONE_BYTE[left]
    parts = bytearray()
    while left >= 0x80:
        parts.append((left & 0x7F) | 0x80)
        left >>= 7
    parts.append(left)
    return bytes(parts)


_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(0x80))


def _sized(data: bytes | None) -> bytes:
    """Return *data* after its length."""
    return _NULL if data is None else varint(len(data)) + data


def _headers(headers: Headers) -> bytes:
    """Return the headers after their count."""
    parts = [varint(len(headers))]
    for name, value in headers:
        parts += (_sized(name.encode()), _sized(value))
    return b"".join(parts)


def _read_sized(data: bytes, at: int) -> tuple[bytes | None, int]:
    """Return the bytes at *at*, and where they end."""
    size, at = read_varint(data, at)
    if size < 0:
        return None, at
    end = at + size
    if end > len(data):
        raise IndexError("it ends too early")
    return data[at:end], end


def _read_headers(data: bytes, at: int, count: int) -> tuple[Headers, int]:
    """Return *count* headers, and where they end."""
    if not 0 <= count <= len(data) - at:
        raise IndexError(f"it cannot hold {count} headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, at = _read_sized(data, at)
        value, at = _read_sized(data, at)
        headers.append(((name or b"").decode(errors="replace"), value))
    return tuple(headers), at


def _crc32c(data: bytes | memoryview, value: int = 0) -> int:
    """Return the checksum; its module takes longer to import than a core has for its start."""
    from crc32c import crc32c  # noqa: PLC0415 - see above

    return crc32c(data, value)
