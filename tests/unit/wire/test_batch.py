"""Batches as their makers write them, and as liars do; a record is found by its time.

The search by time is compared with the dumb way: unpack everything, take the first that matches.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiokafka.record.default_records import (
    DefaultRecordBatchBuilder as AiokafkaBuilder,
)
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPythonBuilder

from corelane.model.errors import ErrorCode
from corelane.wire.batch import (
    LOG_APPEND_TIME,
    FoundRecord,
    RecordsFault,
    batch_header,
    check_compressed,
    first_record_at,
    timestamps,
    whole_batches,
)
from corelane.wire.compression import Compression, compress
from corelane.wire.errors import DecompressError
from corelane.wire.records import ANONYMOUS, BatchBuilder, Producer, encode_batch
from corelane_native import address_of, check_batch
from tests.unit.native.batches import BASE_TIMESTAMP, batch, record, varint

BYTES_MAX = 1_000_000
Rows = Sequence[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes]]]]


def timed(deltas: Sequence[int], codec: Compression = Compression.NONE, **words: int) -> bytes:
    """Return a batch whose records have these times after BASE_TIMESTAMP."""
    plain = b"".join(record(i, b"k", timestamp_delta=d) for i, d in enumerate(deltas))
    words = {"max_timestamp": BASE_TIMESTAMP + max(deltas)} | words
    attributes = words.pop("attributes", 0) | codec
    return batch(compress(codec, plain), len(deltas), attributes=attributes, **words)


def by_corelane(rows: Rows, codec: Compression) -> bytes:
    builder = BatchBuilder()
    for timestamp, key, value, headers in rows:
        builder.append(timestamp, key, value, tuple(headers))
    return encode_batch(builder.payload(codec), ANONYMOUS)


def by_python_client(make: Callable[..., Any]) -> Callable[[Rows, Compression], bytes]:
    def build(rows: Rows, codec: Compression) -> bytes:
        builder = make(
            magic=2, compression_type=codec.value, is_transactional=0, producer_id=-1,
            producer_epoch=-1, base_sequence=-1, batch_size=10_000_000,
        )  # fmt: skip
        for offset, (timestamp, key, value, headers) in enumerate(rows):
            assert builder.append(offset, timestamp, key, value, headers) is not None
        return bytes(builder.build())

    return build


BUILDERS: dict[str, Callable[[Rows, Compression], bytes]] = {
    "corelane_client": by_corelane,
    "kafka-python": by_python_client(KafkaPythonBuilder),
    "aiokafka": by_python_client(AiokafkaBuilder),
}
ROWS: dict[str, Rows] = {
    "one": [(BASE_TIMESTAMP, None, b"value", [])],
    "keys, nulls and headers": [
        (BASE_TIMESTAMP, b"key", b"value", [("header", b"x"), ("", b"")]),
        (BASE_TIMESTAMP + 5, b"", None, []),
        (BASE_TIMESTAMP + 1, b"key", b"", [("größe", b"\xff" * 300)]),
    ],
    "times that fall": [(BASE_TIMESTAMP - 1000 * i, b"k", b"v", []) for i in range(5)],
    "many": [(BASE_TIMESTAMP + i, b"%d" % i, b"v" * (i % 200), []) for i in range(3000)],
}


@pytest.mark.parametrize("codec", Compression)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("maker", BUILDERS)
def test_batches_of_python_clients_are_good(maker: str, rows: str, codec: Compression) -> None:
    made = BUILDERS[maker](ROWS[rows], codec)
    verdict = check_batch(address_of(made), len(made))
    assert (verdict.error, verdict.reason) == (0, 0)
    assert verdict.record_count == len(ROWS[rows])
    newest = max(row[0] for row in ROWS[rows])
    assert check_compressed(made, BYTES_MAX, keys_needed=False) == newest
    head = batch_header(made)
    assert (head.size_bytes, head.record_count) == (len(made), len(ROWS[rows]))
    assert (head.magic, head.producer_id) == (2, -1)
    # kafka-python keeps a batch plain that compression would not shrink.
    assert head.attributes & 7 in ({codec, 0} if maker == "kafka-python" else {codec})


def test_a_producer_of_ours_is_known_by_its_batch() -> None:
    builder = BatchBuilder()
    builder.append(1, b"k", b"v", ())
    made = encode_batch(builder.payload(Compression.ZSTD), Producer(7, 3, 2**31 - 1))
    verdict = check_batch(address_of(made), len(made))
    assert verdict.error == 0
    assert (verdict.producer_id, verdict.producer_epoch, verdict.base_sequence) == (
        7,
        3,
        2**31 - 1,
    )


@pytest.mark.parametrize("codec", Compression)
@given(
    deltas=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=30),
    wanted=st.integers(-(2**40) - 1, 2**40 + 1),
    delta_min=st.integers(0, 31),
)
def test_the_first_record_at_a_time_is_the_first(
    codec: Compression, deltas: list[int], wanted: int, delta_min: int
) -> None:
    made = timed(deltas, codec)
    matching = [i for i, d in enumerate(deltas) if d >= wanted and i >= delta_min]
    expected = FoundRecord(matching[0], BASE_TIMESTAMP + deltas[matching[0]]) if matching else None
    assert first_record_at(made, BASE_TIMESTAMP + wanted, BYTES_MAX, delta_min) == expected


@pytest.mark.parametrize("delta_min", [0, 2])
def test_with_log_append_time_every_record_has_the_time_of_its_batch(delta_min: int) -> None:
    made = timed([0, 5, 9], attributes=LOG_APPEND_TIME, max_timestamp=BASE_TIMESTAMP + 100)
    found = FoundRecord(delta_min, BASE_TIMESTAMP + 100)
    for wanted in (0, 1, 100):
        assert first_record_at(made, BASE_TIMESTAMP + wanted, 1, delta_min) == found
    assert first_record_at(made, BASE_TIMESTAMP + 101, 1, delta_min) is None


@given(deltas=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20))
def test_timestamps_of_any_size_are_read(deltas: list[int]) -> None:
    plain = b"".join(record(i, timestamp_delta=d) for i, d in enumerate(deltas))
    assert list(timestamps(plain, 7)) == [(i, 7 + d) for i, d in enumerate(deltas)]


# Records that lie, by name: what is in the batch that announces two records.
GOOD = record(0, b"k") + record(1, b"k")
LIES = {
    "a record too few": record(0, b"k"),
    "a record too many": GOOD + record(2, b"k"),
    "nothing": b"",
    "a delta again": record(0, b"k") + record(0, b"k"),
    "a delta left out": record(0, b"k") + record(2, b"k"),
    "a negative delta": record(-1, b"k") + record(0, b"k"),
    "bytes after the last": GOOD + b"\0",
    "a length beyond the end": varint(1000) + GOOD[1:],
    "a negative length": varint(-5) + GOOD[1:],
    "a varint without end": b"\xff" * 20,
    "cut inside a record": GOOD[:-1],
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("codec", Compression)
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_under_compression_is_found(lie: str, codec: Compression) -> None:
    made = batch(compress(codec, LIES[lie]), 2, attributes=int(codec))
    fault = check_compressed(made, BYTES_MAX, keys_needed=False)
    assert isinstance(fault, RecordsFault)
    assert fault.sentence.endswith(".")
    with pytest.raises(DecompressError):
        first_record_at(made, 0, BYTES_MAX)


@pytest.mark.parametrize("codec", Compression)
def test_a_record_without_a_key_is_a_fault_where_keys_are_needed(codec: Compression) -> None:
    plain = record(0, b"") + record(1, None)
    made = batch(compress(codec, plain), 2, attributes=int(codec))
    assert check_compressed(made, BYTES_MAX, keys_needed=False) == BASE_TIMESTAMP
    fault = check_compressed(made, BYTES_MAX, keys_needed=True)
    assert isinstance(fault, RecordsFault)
    assert "without a key" in fault.sentence
    keyed = batch(compress(codec, GOOD), 2, attributes=int(codec))
    assert check_compressed(keyed, BYTES_MAX, keys_needed=True) == BASE_TIMESTAMP


def test_the_newest_time_is_that_of_the_records_not_of_the_header() -> None:
    made = timed([0, 50, 3], Compression.GZIP, max_timestamp=1)
    assert check_compressed(made, BYTES_MAX, keys_needed=False) == BASE_TIMESTAMP + 50


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_a_codec_nobody_knows_is_a_fault(codec: int) -> None:
    made = batch(GOOD, 2, attributes=codec)
    fault = check_compressed(made, BYTES_MAX, keys_needed=False)
    assert isinstance(fault, RecordsFault)
    assert f"codec {codec} is unknown" in fault.sentence
    with pytest.raises(DecompressError, match=f"codec {codec} is unknown"):
        first_record_at(made, 0, BYTES_MAX)
    assert check_batch(address_of(made), len(made)).error == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE


@pytest.mark.parametrize("codec", Compression)
def test_records_that_unpack_beyond_the_bound_are_a_fault(codec: Compression) -> None:
    made = batch(compress(codec, GOOD), 2, attributes=int(codec))
    with pytest.raises(DecompressError, match="over 10 bytes"):
        first_record_at(made, 0, 10)
    fault = check_compressed(made, 10, keys_needed=False)
    assert isinstance(fault, RecordsFault)
    assert check_compressed(made, len(GOOD), keys_needed=False) == BASE_TIMESTAMP


@pytest.mark.parametrize("codec", Compression)
@given(data=st.data())
def test_damage_is_a_fault_or_harmless_and_never_anything_else(
    codec: Compression, data: st.DataObject
) -> None:
    packed = bytearray(compress(codec, GOOD * 3))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    count = data.draw(st.sampled_from([-1, 0, 1, 2, 6, 2**31 - 1]))
    made = batch(bytes(packed), count, attributes=int(codec), last_delta=0)
    verdict = check_compressed(made, BYTES_MAX, keys_needed=True)
    assert isinstance(verdict, RecordsFault | int)
    try:
        first_record_at(made, BASE_TIMESTAMP + 1, BYTES_MAX, 1)
    except DecompressError:
        assert isinstance(verdict, RecordsFault)


@given(sizes=st.lists(st.integers(0, 300), max_size=8), bytes_max=st.integers(0, 2500))
def test_whole_batches_end_before_the_bound_but_never_before_the_first(
    sizes: list[int], bytes_max: int
) -> None:
    made = [batch(b"r" * size, 1, base_offset=i) for i, size in enumerate(sizes)]
    joined = b"".join(made)
    found = list(whole_batches(joined, bytes_max))
    assert [head.base_offset for _, head in found] == list(range(len(found)))
    ends = [at + head.size_bytes for at, head in found]
    assert all(end <= bytes_max for end in ends[1:])
    assert len(found) >= min(1, len(made))
    if len(found) < len(made):
        assert len(b"".join(made[: len(found) + 1])) > bytes_max
    for cut in (1, 60, 62):
        assert len(list(whole_batches(joined[:-cut], 10**9))) == sum(
            len(b"".join(made[: i + 1])) <= len(joined) - cut for i in range(len(made))
        )


@pytest.mark.parametrize("length", [-(2**31), -12, -1, 0, 48])
def test_a_batch_shorter_than_its_header_ends_the_walk(length: int) -> None:
    liar = batch(b"", 1, length=length)
    assert list(whole_batches(liar + bytes(500), 10**9)) == []


def test_a_header_that_is_cut_is_a_struct_error() -> None:
    with pytest.raises(struct.error):
        batch_header(bytes(60))
