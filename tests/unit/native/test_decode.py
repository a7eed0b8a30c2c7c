"""Produce and Fetch requests: every version against kio, every cut, and every lie."""

import importlib
import io
import struct
import uuid
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kio.serial import entity_writer

from corelane_native import ROWS_MAX, address_of, decode_fetch, decode_produce
from corelane_native._core import ffi
from corelane_native.decode import FETCH_HEAD, FETCH_ROW, PRODUCE_HEAD, Fetch, Produce
from tests.unit.native.batches import BASE_TIMESTAMP, batch, record, simple, uvarint

HEAD = b"\0\0\0\x0b\0\0\0\x01\0\0"
TOPIC_ID = uuid.UUID(int=0x0123456789ABCDEF0011223344556677)


def encoded(message: Any) -> bytes:
    """Return a frame: a request head of ten bytes and kio's encoding of *message*."""
    buffer = io.BytesIO()
    entity_writer(type(message))(buffer, message)
    return HEAD + buffer.getvalue()


def made(kind: Any, **values: Any) -> Any:
    """Return kio's *kind* with those of *values* that its version has."""
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})


def produce_frame(
    version: int, topics: list[tuple[str, list[tuple[int, bytes | None]]]], **values: Any
) -> bytes:
    """Return a Produce request."""
    schema: Any = importlib.import_module(f"kio.schema.produce.v{version}.request")
    words = {"acks": -1, "timeout": timedelta(milliseconds=1500)} | values
    data = tuple(
        schema.TopicProduceData(
            name=name,
            partition_data=tuple(
                schema.PartitionProduceData(index=index, records=records)
                for index, records in partitions
            ),
        )
        for name, partitions in topics
    )
    return encoded(made(schema.ProduceRequest, topic_data=data, **words))


def fetch_frame(version: int, partitions: list[dict[str, Any]], **values: Any) -> bytes:
    """Return a Fetch request for one topic."""
    schema: Any = importlib.import_module(f"kio.schema.fetch.v{version}.request")
    rows = tuple(made(schema.FetchPartition, **partition) for partition in partitions)
    topic = made(schema.FetchTopic, topic="orders", topic_id=TOPIC_ID, partitions=rows)
    forgotten: tuple[Any, ...] = ()
    if version >= 7:
        forgotten = (
            made(schema.ForgottenTopic, topic="old", topic_id=TOPIC_ID, partitions=(1, 2, 3)),
        )
    words = {
        "replica_id": -1,
        "max_wait": timedelta(milliseconds=500),
        "min_bytes": 7,
        "max_bytes": 52_428_800,
        "isolation_level": 1,
        "session_id": 99,
        "session_epoch": 4,
        "rack_id": "rack-é",
        "cluster_id": "cluster" if version % 2 else None,
    } | values
    request = made(schema.FetchRequest, topics=(topic,), forgotten_topics_data=forgotten, **words)
    return encoded(request)


def produce(frame: bytes, version: int) -> Produce | None:
    """Decode a frame that lies at the very end of its memory."""
    copy = bytes(bytearray(frame))
    return decode_produce(address_of(copy), len(copy), len(HEAD), version)


def fetch(frame: bytes, version: int) -> Fetch | None:
    """Decode a frame that lies at the very end of its memory."""
    copy = bytes(bytearray(frame))
    return decode_fetch(address_of(copy), len(copy), len(HEAD), version)


GOOD = batch(
    record(0, b"k", b"v", 3) + record(1, None), 2, producer_id=9, producer_epoch=1, base_sequence=5
)


@pytest.mark.parametrize("version", range(3, 12))
def test_produce_is_read_as_kio_writes_it(version: int) -> None:
    topics: list[tuple[str, list[tuple[int, bytes | None]]]] = [
        ("first", [(0, GOOD), (7, simple([b"x" * 300]))]),
        ("sécond", [(3, None)]),
        ("none", []),
    ]
    frame = produce_frame(version, topics, transactional_id="tx-ü", acks=1)
    answer = produce(frame, version)
    assert answer is not None
    acks, timeout_ms, transactional_id, rows = answer
    assert (acks, timeout_ms, transactional_id) == (1, 1500, "tx-ü")
    assert [frame[row[0] : row[0] + row[1]].decode() for row in rows] == ["first"] * 2 + ["sécond"]
    assert [row[2] for row in rows] == [0, 7, 3]
    assert [row[3] for row in rows] == [0, 0, 87]
    assert frame[rows[0][5] : rows[0][5] + rows[0][6]] == GOOD
    assert rows[0][7:] == (2, 0, 9, 1, 5, BASE_TIMESTAMP, BASE_TIMESTAMP + 3, 1)
    assert rows[2][6] == 0


@pytest.mark.parametrize("version", [3, 9])
def test_one_bad_partition_never_spoils_another(version: int) -> None:
    bad = bytearray(GOOD)
    bad[-1] ^= 1
    partitions: list[tuple[int, bytes | None]] = [
        (0, GOOD), (1, bytes(bad)), (2, GOOD + GOOD), (3, b""), (4, GOOD), (5, b"\xff" * 17),
    ]  # fmt: skip
    answer = produce(produce_frame(version, [("t", partitions)]), version)
    assert answer is not None
    assert [row[3] for row in answer[3]] == [0, 2, 87, 87, 0, 87]


def test_zstd_is_refused_before_version_7() -> None:
    data = batch(b"compressed", 1, attributes=4)
    for version in range(3, 12):
        answer = produce(produce_frame(version, [("t", [(0, data)])]), version)
        assert answer is not None
        assert answer[3][0][3] == (76 if version < 7 else 0)


@pytest.mark.parametrize("version", range(3, 12))
def test_every_cut_of_a_produce_request_is_malformed(version: int) -> None:
    frame = produce_frame(version, [("t", [(0, GOOD), (1, None)])], transactional_id="tx")
    assert produce(frame, version) is not None
    for size in range(len(HEAD), len(frame)):
        assert produce(frame[:size], version) is None
    assert produce(frame + b"\0", version) is None


FETCHED = {
    "partition": 3,
    "current_leader_epoch": 11,
    "fetch_offset": 2**40,
    "last_fetched_epoch": 10,
    "log_start_offset": 5,
    "partition_max_bytes": 1_048_576,
    "replica_directory_id": TOPIC_ID,
}


@pytest.mark.parametrize("version", range(4, 18))
def test_fetch_is_read_as_kio_writes_it(version: int) -> None:
    frame = fetch_frame(version, [FETCHED, FETCHED | {"partition": 4}])
    answer = fetch(frame, version)
    assert answer is not None
    *head, rack, count, found, forgotten = answer
    rows = list(found)
    assert len(rows) == count
    session = [99, 4] if version >= 7 else [0, -1]
    assert (forgotten > 0) == (version >= 7)
    assert head == [500, 7, 52_428_800, 1, *session]
    assert rack == ("rack-é".encode() if version >= 11 else b"")
    topic_at, topic_bytes, *words = rows[0]
    expected = TOPIC_ID.bytes if version >= 13 else b"orders"
    assert frame[topic_at : topic_at + topic_bytes] == expected
    assert words == [
        3,
        11 if version >= 9 else -1,
        2**40,
        10 if version >= 12 else -1,
        5 if version >= 5 else -1,
        1_048_576,
    ]
    assert [row[2] for row in rows] == [3, 4]


@pytest.mark.parametrize("version", range(4, 18))
def test_every_cut_of_a_fetch_request_is_malformed(version: int) -> None:
    frame = fetch_frame(version, [FETCHED])
    for size in range(len(HEAD), len(frame)):
        assert fetch(frame[:size], version) is None
    assert fetch(frame + b"\0", version) is None


def test_unknown_tags_are_stepped_over() -> None:
    tags = b"\x02\x05\x03abc\x7f\x00"
    partition = struct.pack(">i", 6) + uvarint(len(GOOD) + 1) + GOOD + tags
    frame = HEAD + b"\0" + struct.pack(">hi", -1, 9) + b"\x02\x02t\x02" + partition + tags + tags
    answer = produce(frame, 9)
    assert answer is not None
    assert answer[3][0][2:4] == (6, 0)
    assert produce(frame[:-1], 9) is None


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",  # a string of -2 bytes
        b"\xff\xff\0\1\0\0\0\0\x7f\xff\xff\xff",  # two billion topics
        b"\xff\xff\0\1\0\0\0\0\xff\xff\xff\xff",  # null topics
        b"\xff\xff\0\1\0\0\0\0\0\0\0\1\xff\xff\0\0\0\0",  # a topic without a name
        b"\xff\xff\0\1\0\0\0\0\0\0\0\1\0\1t\0\0\0\1\0\0\0\0\x7f\xff\xff\xff",  # 2 GiB of records
        b"\xff\xff\0\1\0\0\0\0\0\0\0\1\0\1t\0\0\0\1\0\0\0\0\xff\xff\xff\xfe",  # -2 of records
        b"\0\1\xff\0\1\0\0\0\0\0\0\0\0",  # a transactional id that is not UTF-8
    ],
)
def test_lying_lengths_are_malformed(body: bytes) -> None:
    assert produce(HEAD + body, 3) is None


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff\x0f", b"\xff" * 10, b"\x80", b"\x80" * 5])
def test_lying_compact_lengths_are_malformed(length: bytes) -> None:
    assert produce(HEAD + length + b"\0" * 20, 9) is None
    assert fetch(HEAD + b"\0" * 21 + length, 13) is None


def test_the_number_of_rows_is_bounded() -> None:
    entry = b"\0\0\0\x01\xff\xff\xff\xff"
    for count, malformed in [(ROWS_MAX, False), (ROWS_MAX + 1, True)]:
        body = b"\xff\xff\0\1\0\0\0\0\0\0\0\1\0\1t" + struct.pack(">i", count) + entry * count
        answer = produce(HEAD + body, 3)
        assert (answer is None) == malformed
        assert answer is None or len(answer[3]) == count


@given(st.binary(max_size=300), st.integers(3, 12))
def test_random_bytes_never_hurt_produce(body: bytes, version: int) -> None:
    produce(HEAD + body, version)


@given(st.binary(max_size=300), st.integers(4, 17))
def test_random_bytes_never_hurt_fetch(body: bytes, version: int) -> None:
    fetch(HEAD + body, version)


@given(st.integers(3, 12), st.data())
def test_a_changed_byte_never_hurts(version: int, data: st.DataObject) -> None:
    frame = bytearray(produce_frame(version, [("t", [(0, GOOD)]), ("u", [(1, GOOD)])]))
    at = data.draw(st.integers(len(HEAD), len(frame) - 1))
    frame[at] = data.draw(st.integers(0, 255))
    produce(bytes(frame), version)


def test_the_layouts_are_those_of_c() -> None:
    assert FETCH_ROW.size == ffi.sizeof("cl_fetch_row")
    assert FETCH_HEAD.size == ffi.sizeof("cl_fetch")
    assert PRODUCE_HEAD.size == ffi.sizeof("cl_produce")
