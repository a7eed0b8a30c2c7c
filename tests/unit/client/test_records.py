"""Record batches: what is built can be read, and another's reader agrees; damage is told."""

import struct

import crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record import MemoryRecords

from corelane.wire.compression import Compression
from corelane.wire.primitives import read_varint
from corelane.wire.records import (
    HEADER_BYTES,
    BatchBuilder,
    CorruptBatchError,
    Headers,
    Producer,
    batch_records,
    encode_batch,
    split_batches,
    varint,
)

Row = tuple[int, bytes | None, bytes | None, Headers]

maybe_bytes = st.none() | st.binary(max_size=200)
headers = st.lists(st.tuples(st.text(max_size=8), maybe_bytes), max_size=3).map(tuple)
rows = st.lists(
    st.tuples(st.integers(0, 2**41), maybe_bytes, maybe_bytes, headers), min_size=1, max_size=20
)


def build(records: list[Row], codec: Compression = Compression.NONE) -> bytes:
    builder = BatchBuilder()
    for row in records:
        builder.append(*row)
    return encode_batch(builder.payload(codec), Producer(4000, 2, 77))


def with_crc(batch: bytes) -> bytes:
    """Return *batch* with a checksum that fits, as a lying producer would send it."""
    crc = struct.pack(">I", crc32c.crc32c(batch[21:]))
    return batch[:17] + crc + batch[21:]


@given(value=st.integers(-(2**63), 2**63 - 1))
def test_a_varint_is_read_back(value: int) -> None:
    data = varint(value)
    assert read_varint(data + b"\xff", 0) == (value, len(data))


@given(records=rows, codec=st.sampled_from(Compression))
def test_a_batch_is_read_back(records: list[Row], codec: Compression) -> None:
    (batch,) = split_batches(build(records, codec))
    read = batch_records(batch, "t", 3)
    assert [(r.timestamp_ms, r.key, r.value, r.headers) for r in read] == records
    assert [r.offset for r in read] == list(range(len(records)))
    assert {(r.topic, r.partition) for r in read} == {("t", 3)}
    assert batch.producer == Producer(4000, 2, 77)
    assert batch.max_timestamp_ms == max(row[0] for row in records)
    assert batch.last_offset == len(records) - 1


@given(records=rows, codec=st.sampled_from(Compression))
def test_another_client_reads_the_same(records: list[Row], codec: Compression) -> None:
    """kafka-python has its own reader, so it cannot share our mistakes."""
    batch = MemoryRecords(build(records, codec)).next_batch()
    assert batch is not None
    assert batch.validate_crc()
    read = [(r.timestamp, r.key, r.value, tuple(r.headers)) for r in batch]
    assert read == records


def test_the_size_is_known_while_the_batch_grows() -> None:
    builder = BatchBuilder()
    for number in range(100):
        builder.append(number, b"key", b"value" * number, (("name", None),))
    size_bytes = builder.size_bytes
    payload = builder.payload(Compression.NONE)
    assert size_bytes == payload.size_bytes == len(encode_batch(payload))


def test_a_batch_cut_off_by_the_byte_limit_is_left_out() -> None:
    batch = build([(1, None, b"v", ())])
    for length in (10, HEADER_BYTES, len(batch) - 1):
        assert len(list(split_batches(batch + batch[:length]))) == 1


def test_a_flipped_bit_is_found() -> None:
    batch = bytearray(build([(1, None, b"v", ())]))
    batch[-2] ^= 1
    with pytest.raises(CorruptBatchError, match="checksum"):
        list(split_batches(bytes(batch)))


def test_an_old_message_format_is_named() -> None:
    batch = bytearray(build([(1, None, b"v", ())]))
    batch[16] = 1
    with pytest.raises(CorruptBatchError, match="format 1"):
        list(split_batches(bytes(batch)))


def test_an_unknown_codec_is_named() -> None:
    batch = bytearray(build([(1, None, b"v", ())]))
    batch[22] |= 7
    (read,) = split_batches(with_crc(bytes(batch)))
    with pytest.raises(CorruptBatchError, match="codec 7"):
        batch_records(read, "t", 0)


def test_log_append_time_goes_for_all_records() -> None:
    batch = bytearray(build([(1, None, b"a", ()), (5, None, b"b", ())]))
    batch[22] |= 8
    batch[35:43] = struct.pack(">q", 777)
    (read,) = split_batches(with_crc(bytes(batch)))
    assert [r.timestamp_ms for r in batch_records(read, "t", 0)] == [777, 777]


@given(records=rows, noise=st.data())
def test_a_lie_behind_a_good_checksum_is_an_error_or_harmless(
    records: list[Row], noise: st.DataObject
) -> None:
    batch = bytearray(build(records))
    at = noise.draw(st.integers(HEADER_BYTES, len(batch) - 1))
    batch[at] = noise.draw(st.integers(0, 255))
    (read,) = split_batches(with_crc(bytes(batch)))
    try:
        assert len(batch_records(read, "t", 0)) == len(records)
    except CorruptBatchError as error:
        assert "offset 0" in str(error)  # noqa: PT017  (the other outcome is good too)
