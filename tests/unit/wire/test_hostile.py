"""Bytes from an enemy: a DecodeError or a message, never anything else, and never much memory.

What decodes is encoded again and decodes to the same: so nothing half-checked gets through.
"""

import math
import random
import time
import tracemalloc

import pytest

from corelane.model import limits
from corelane.wire.compiler import Codec, codec, request_codec, within
from corelane.wire.errors import DecodeError
from corelane.wire.primitives import write_uvarint
from corelane.wire.schema import Field, schemas
from tests.unit.wire.oracle import Draw, all_versions

SHORT_WORDS = ("", "a", "orders", "größe")
MIB = 1024 * 1024
FLIPS = 12
NOISES = 6
SIZES = {"bool": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8}
SIZES |= {"float64": 8, "uuid": 16}


def sample(name: str, version: int, rng: random.Random) -> bytes:
    draw = Draw(schemas()[name], version, rng)
    draw.words = SHORT_WORDS
    draw.blob_sizes = (0, 1, 12)
    draw.elements_max = 2
    return codec(name, version).encode(draw.message().ours)


def judge(body: Codec, data: bytes) -> None:
    """Decode *data*; what is accepted must survive another round."""
    try:
        message, end = body.decode(data)
    except DecodeError:
        return
    assert end <= len(data)
    try:
        raw = body.encode(message)
    except UnicodeEncodeError:
        pytest.fail(f"a string was decoded that cannot be encoded: {message}")
    again = body.decode(raw)
    assert again[1] == len(raw)
    assert again[0] == message or "nan" in repr(message)


@pytest.mark.parametrize("name", schemas())
def test_a_message_cut_at_any_byte_is_refused(name: str) -> None:
    rng = random.Random(name)
    for version in range(schemas()[name].versions[0], schemas()[name].versions[1] + 1):
        body = codec(name, version)
        raw = sample(name, version, rng)
        for size in range(len(raw)):
            with pytest.raises(DecodeError, match=f"{name} v{version}"):
                body.decode(raw[:size])


@pytest.mark.parametrize("name", schemas())
def test_noise_and_damage_do_nothing_worse_than_being_refused(name: str) -> None:
    rng = random.Random(name)
    for version in range(schemas()[name].versions[0], schemas()[name].versions[1] + 1):
        body = codec(name, version)
        for _ in range(NOISES):
            judge(body, rng.randbytes(rng.randrange(200)))
            few = bytes(rng.choices((0, 1, 2, 3, 127, 128, 255), k=rng.randrange(100)))
            judge(body, few)
        raw = sample(name, version, rng)
        for _ in range(FLIPS if raw else 0):
            damaged = bytearray(raw)
            at = rng.randrange(len(raw))
            damaged[at : at + rng.choice((1, 2, 4))] = rng.randbytes(rng.choice((1, 2, 4, 5)))
            judge(body, bytes(damaged))


@pytest.mark.parametrize("count", [b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff\xff\xff\xfe"])
def test_an_absurd_count_is_refused_before_anything_is_allocated(count: bytes) -> None:
    with pytest.raises(DecodeError, match="elements are announced"):
        request_codec(3, 1).decode(count + bytes(100))


@pytest.mark.parametrize("size", [b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff\xff\xff\xfe"])
def test_an_absurd_length_of_bytes_is_refused(size: bytes) -> None:
    with pytest.raises(DecodeError, match="bytes"):
        request_codec(36, 0).decode(size + bytes(100))


def test_a_varint_that_does_not_end_or_fit_is_refused() -> None:
    for raw in (b"\xff" * 5, b"\xff" * 100, b"\x80" * 4 + b"\x10" + bytes(9)):
        with pytest.raises(DecodeError, match="a varint has more than"):
            request_codec(3, 9).decode(raw)


@pytest.mark.parametrize("raw", [b"\xc3", b"\xed\xa0\x80", b"\xff\xfe"])
def test_text_that_is_not_utf_8_is_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="utf-8"):
        request_codec(17, 0).decode(len(raw).to_bytes(2, "big") + raw)


def test_a_string_longer_than_kafka_allows_is_refused_however_it_is_framed() -> None:
    # Kafka's own generated code refuses over 32767 bytes in compact strings too.
    body = request_codec(3, 9)

    def named(size: int) -> bytes:
        out = bytearray(b"\x02")
        write_uvarint(out, size + 1)
        return bytes(out) + b"x" * size + bytes(5)

    assert len(body.decode(named(32_767))[0].topics[0].name) == 32_767
    with pytest.raises(DecodeError, match="a string has the length 32768"):
        body.decode(named(32_768))


def test_every_element_of_an_array_takes_a_byte_so_a_count_is_bounded_by_what_arrived() -> None:
    for name, version in all_versions():
        schema = schemas()[name]
        flexible = within(version, schema.flexible)
        fields = list(schema.fields)
        while fields:
            field = fields.pop()
            if within(version, field.versions) and field.fields:
                fields += field.fields
                assert bytes_min(field.fields, version, flexible) >= 1, (name, version, field.name)


def bytes_min(fields: list[Field], version: int, flexible: bool) -> int:
    """Return the fewest bytes a struct takes."""
    total = int(flexible)
    for field in fields:
        if within(version, field.versions) and not within(version, field.tagged):
            total += 1 if field.is_array or field.fields else SIZES.get(field.kind, 1)
    return total


def flood(name: str, version: int, size_bytes: int) -> bytes:
    """Return a request of *size_bytes* whose first array claims all of the bytes as elements."""
    if codec(name, version).is_flexible:
        head = bytearray()
        write_uvarint(head, size_bytes - 5 + 1)
        return bytes(head) + bytes(size_bytes - len(head))
    return (size_bytes - 4).to_bytes(4, "big") + bytes(size_bytes - 4)


FLOODS = [
    ("MetadataRequest", 1),  # two bytes an element
    ("MetadataRequest", 9),
    ("DescribeTopicPartitionsRequest", 0),
    ("CreateTopicsRequest", 7),
    ("DeleteRecordsRequest", 2),
    ("DescribeConfigsRequest", 4),
    ("ListConfigResourcesRequest", 1),  # an array of int8
]


@pytest.mark.parametrize(("name", "version"), FLOODS)
def test_a_full_frame_of_tiny_elements_costs_little_memory_and_time(
    name: str, version: int
) -> None:
    body = codec(name, version)
    frame = flood(name, version, limits.REQUEST_BYTES_MAX)
    tracemalloc.start()
    started_s = time.process_time()
    with pytest.raises(DecodeError, match="elements"):
        body.decode(memoryview(frame))
    took_s = time.process_time() - started_s
    _now, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < limits.REQUEST_BYTES_MAX
    assert took_s < 5  # a bound in kind: without the cap it is minutes


def nested(topics: int, partitions: int) -> bytes:
    """Return DeleteRecords v0 with that many topics of that many partitions."""
    topic = bytes(2) + partitions.to_bytes(4, "big") + bytes(12) * partitions
    return topics.to_bytes(4, "big") + topic * topics + bytes(4)


def test_elements_are_counted_over_the_whole_request_however_they_are_nested() -> None:
    body = request_codec(21, 0)
    rows = limits.REQUEST_ROWS_MAX
    assert len(body.decode(nested(rows, 1))[0].topics) == rows
    for topics, partitions in ((1, 2 * rows), (2 * rows + 1, 0), (2, rows), (1000, 200)):
        with pytest.raises(DecodeError, match="200000 elements"):
            body.decode(nested(topics, partitions))


def test_an_answer_may_have_more_elements_than_a_request() -> None:
    body = codec("MetadataResponse", 0)
    replicas = 300_000
    partition = bytes(10) + replicas.to_bytes(4, "big") + bytes(4) * replicas + bytes(4)
    raw = bytes(4) + (1).to_bytes(4, "big") + bytes(4) + (1).to_bytes(4, "big") + partition
    message, end = body.decode(raw)
    assert end == len(raw)
    assert len(message.topics[0].partitions[0].replica_nodes) == replicas


def test_a_float_that_is_no_number_passes() -> None:
    entry = bytes(4) + (1).to_bytes(4, "big") + b"\x00\x01k" + b"\x7f\xf8" + bytes(6) + b"\x00"
    message, _end = request_codec(49, 0).decode((1).to_bytes(4, "big") + entry + b"\x00")
    assert math.isnan(message.entries[0].ops[0].value)
