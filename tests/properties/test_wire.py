"""The primitives of the wire against dumb versions of themselves, and frames against any bytes."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane.wire import primitives
from corelane.wire.compiler import message_type, request_codec
from corelane.wire.errors import DecodeError
from corelane.wire.frame import client_id_of, decode_response, encode_request, request_body_at

UINT32 = st.integers(0, 2**32 - 1)
TEXT = st.text(max_size=300) | st.none()
BLOB = st.binary(max_size=300) | st.none()
NOISE = st.binary(max_size=60)


def dumb_uvarint(value: int) -> bytes:
    """Return the varint by its definition: seven bits a byte, the lowest first."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    return bytes(g | 0x80 for g in groups[:-1]) + bytes(groups[-1:])


@given(value=UINT32, before=NOISE, after=NOISE)
def test_a_varint_is_read_and_written_as_defined(value: int, before: bytes, after: bytes) -> None:
    out = bytearray(before)
    primitives.write_uvarint(out, value)
    assert bytes(out) == before + dumb_uvarint(value)
    data = bytes(out) + after
    assert primitives.read_uvarint(data, len(before)) == (value, len(out))
    assert primitives.read_uvarint(memoryview(data), len(before)) == (value, len(out))


@given(data=NOISE)
def test_any_bytes_are_a_varint_of_32_bits_or_refused(data: bytes) -> None:
    try:
        value, end = primitives.read_uvarint(data, 0)
    except (DecodeError, IndexError):
        return
    assert 0 <= value < 2**32
    assert 0 < end <= 5


@given(value=st.integers(2**32, 2**35 - 1))
def test_a_varint_over_32_bits_is_refused(value: int) -> None:
    with pytest.raises(DecodeError, match="more than"):
        primitives.read_uvarint(dumb_uvarint(value), 0)


Reader = Callable[[primitives.Buffer, int], tuple[object, int]]
STRINGS: list[tuple[Callable[[bytearray, str | None], None], Reader]] = [
    (primitives.write_string, primitives.read_string),
    (primitives.write_compact_string, primitives.read_compact_string),
]
BLOBS: list[tuple[Callable[[bytearray, primitives.Buffer | None], None], Reader]] = [
    (primitives.write_bytes, primitives.read_bytes),
    (primitives.write_compact_bytes, primitives.read_compact_bytes),
]


@pytest.mark.parametrize(("write", "read"), STRINGS)
@given(value=TEXT, before=NOISE, after=NOISE)
def test_text_comes_back(
    write: Callable[[bytearray, str | None], None],
    read: Reader,
    value: str | None,
    before: bytes,
    after: bytes,
) -> None:
    out = bytearray(before)
    write(out, value)
    assert read(bytes(out) + after, len(before)) == (value, len(out))
    for size in range(len(before), len(out)):
        with pytest.raises((DecodeError, IndexError, struct.error, UnicodeDecodeError)):
            read(bytes(out[:size]), len(before))


@pytest.mark.parametrize(("write", "read"), BLOBS)
@given(value=BLOB, before=NOISE, after=NOISE)
def test_bytes_come_back_and_are_copies(
    write: Callable[[bytearray, primitives.Buffer | None], None],
    read: Reader,
    value: bytes | None,
    before: bytes,
    after: bytes,
) -> None:
    out = bytearray(before)
    write(out, value)
    buffer = bytearray(bytes(out) + after)
    found, end = read(memoryview(buffer), len(before))
    buffer[:] = bytes(len(buffer))
    assert (found, end) == (value, len(out))
    assert found is None or type(found) is bytes


@given(
    tags=st.dictionaries(UINT32, st.binary(max_size=40), max_size=12),
    before=NOISE,
    after=NOISE,
)
def test_tags_come_back_in_order(tags: dict[int, bytes], before: bytes, after: bytes) -> None:
    out = bytearray(before)
    primitives.write_tags(out, sorted(tags.items()))
    data = bytes(out) + after
    found, end = primitives.read_tags(data, len(before))
    assert end == len(out)
    assert [(tag, data[at : at + size]) for tag, at, size in found] == sorted(tags.items())


@given(
    client_id=st.text(max_size=50) | st.none(),
    correlation=st.integers(-(2**31), 2**31 - 1),
    names=st.lists(st.text(max_size=40), max_size=5),
    version=st.integers(0, 13),
)
def test_a_request_frame_comes_back(
    client_id: str | None, correlation: int, names: list[str], version: int
) -> None:
    topic = message_type("MetadataRequest.MetadataRequestTopic")
    message = message_type("MetadataRequest")(topics=[topic(name=n) for n in names])
    body = request_codec(3, version)
    frame = encode_request(3, version, correlation, client_id, message)
    assert struct.unpack_from(">ihhi", frame) == (len(frame) - 4, 3, version, correlation)
    assert client_id_of(frame[4:]) == client_id
    at = request_body_at(memoryview(frame)[4:], is_flexible=body.is_flexible)
    assert body.decode(memoryview(frame)[4:], at) == (message, len(frame) - 4)


@given(frame=st.binary(max_size=80), is_flexible=st.booleans())
def test_any_frame_has_a_body_within_it_or_is_refused(frame: bytes, is_flexible: bool) -> None:
    try:
        at = request_body_at(frame, is_flexible=is_flexible)
    except DecodeError:
        return
    assert 10 <= at <= len(frame)


@given(frame=st.binary(max_size=120), key=st.sampled_from([0, 1, 3, 18, 19]))
def test_any_answer_is_read_or_refused(frame: bytes, key: int) -> None:
    for version in (4, 9 if key != 18 else 3):
        if key == 19 and version > 7:
            continue
        try:
            decode_response(key, version, frame)
        except DecodeError:
            continue
