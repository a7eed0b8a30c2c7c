"""The bytes of every frame between nodes, pinned: two versions must understand each other.

Method: one frame of each kind against its bytes; then every bit of every frame flipped, every cut,
and bodies that are wrong under a right checksum: all are refused with the one declared error.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane.model import limits
from corelane.shard.peers.frames import (
    HEAD_BYTES,
    LENGTH_BYTES,
    FrameError,
    Kind,
    check_length,
    decode,
    encode,
    encode_parts,
)
from corelane_native import Arena
from tests.unit.shard.peers.samples import BODIES, FRAMES, decode_body

PINNED = {
    # length, kind, flags, number, checksum; then the body
    Kind.HELLO: (
        "00000046 0001 0000 00000009 640163a9"
        "434c505201000100000102030405060708090a0b0c0d0e0f01000000020004007b68e5cf8b010000"
        "0300000002000200e82306006e6f64652d31"
    ),
    Kind.WELCOME: (
        "00000046 0002 0000 00000009 423c9770"
        "434c505201000100000102030405060708090a0b0c0d0e0f01000000020004007b68e5cf8b010000"
        "0300000002000200e82306006e6f64652d31"
    ),
    Kind.REFUSE: (
        "00000032 0003 0000 00000009 fddd1123"
        "06001a0005000000000000004e6f6465203320686173206e6f20636f7265203720686572652e"
    ),
    Kind.MESSAGES: (
        "0000007b 0010 0000 00000009 2e09b00a"
        "e8030000000000000200000000000000070000000000000001000000000000000300000000000000"
        "15000000000000000800000000000000010000000000000003000000010000000a00000000000000"
        "02030000000400000000000000050000000000000009030000000600000001"
    ),
    Kind.BEAT: (
        "0000006c 0020 0000 00000009 adc66082"
        "0b000000000000004d00000005000000fffffffffa0000000900000001000000020000000100000007000000"
        "00000000030000002800000000000000000000000001000009000000000000000000000007000000"
        "000000000000000002000000"
    ),
    Kind.BEAT_ANSWER: (
        "0000004c 0021 0000 00000009 94bf47bf"
        "0c000000000000004d00000001000000010000000100000007000000000000000300000000000000"
        "000100000a00000007000000000000000200000000000000"
    ),
    Kind.ENDED: ("0000001a 0022 0000 00000009 4b8b97b30100000003007b68e5cf8b010000"),
    Kind.LEADS: (
        "00000048 0030 0000 00000009 489dfb1e"
        "02000000070000000000000003000000020000000100000002000200010000000300000008000000"
        "0000000001000000000000000100000000000000"
    ),
    Kind.CALL: "0000001c 0040 0000 00000009 7bae7383 07000000000000000400000077686174",
    Kind.RETURN: "0000001c 0041 0000 00000009 6c5f0a82 07000000000000000400000074686174",
}
BYTES_MAX = 4096
KINDS = [*Kind]


def fault_of(kind: Kind, body: memoryview) -> str:
    """Return the sentence that refuses a body, or "none"."""
    try:
        decode_body(kind, body)
    except FrameError as fault:
        return str(fault)
    return "none"


def test_every_kind_is_pinned() -> None:
    assert PINNED.keys() == FRAMES.keys() == set(Kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_has_these_bytes_and_means_the_same_when_read(kind: Kind) -> None:
    assert FRAMES[kind].hex() == PINNED[kind].replace(" ", "")
    data = bytes.fromhex(PINNED[kind])
    assert int.from_bytes(data[:LENGTH_BYTES], "big") == len(data) - LENGTH_BYTES
    frame = decode(data[LENGTH_BYTES:], BYTES_MAX)
    assert (frame.kind, frame.number) == (kind, 9)
    assert decode_body(kind, frame.body) == decode_body(kind, memoryview(BODIES[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_refused(kind: Kind) -> None:
    data = FRAMES[kind][LENGTH_BYTES:]
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError):
            decode(bytes(flipped), BYTES_MAX)


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_and_every_longer_frame_is_refused(kind: Kind) -> None:
    data = FRAMES[kind][LENGTH_BYTES:]
    for size in range(len(data)):
        with pytest.raises(FrameError):
            decode(data[:size], BYTES_MAX)
    with pytest.raises(FrameError):
        decode(data + b"\0", BYTES_MAX)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_under_a_right_checksum_is_read_or_refused(kind: Kind) -> None:
    """A peer's bug, not the wire's: whatever it is, it is no other error than the declared one."""
    body = BODIES[kind]
    for bit in range(8 * len(body)):
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        assert fault_of(kind, memoryview(flipped)).endswith((".", "none"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_body_and_every_longer_one_is_refused(kind: Kind) -> None:
    body = BODIES[kind]
    for wrong in [*(body[:size] for size in range(len(body))), body + b"\0"]:
        with pytest.raises(FrameError):
            decode_body(kind, memoryview(wrong))


@given(kind=st.sampled_from(KINDS), body=st.binary(max_size=200))
def test_garbage_under_a_right_checksum_is_read_or_refused(kind: Kind, body: bytes) -> None:
    frame = decode(encode(kind, 0, body)[LENGTH_BYTES:], BYTES_MAX)
    assert frame.body == body
    assert fault_of(kind, frame.body).endswith((".", "none"))


@given(data=st.binary(max_size=100))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode(data, BYTES_MAX)


@given(
    kind=st.sampled_from(KINDS),
    number=st.integers(min_value=0, max_value=(1 << 32) - 1),
    pieces=st.lists(st.binary(max_size=50), min_size=1, max_size=6),
)
def test_a_frame_of_parts_is_the_frame_of_their_bytes(
    kind: Kind, number: int, pieces: list[bytes]
) -> None:
    arena = Arena(1 << 20)
    chunk = arena.chunk_new(4096)
    position = 0
    parts: list[bytes | tuple[int, int, int]] = []
    for place, piece in enumerate(pieces[1:]):
        if place % 2:
            parts.append(piece)
        else:
            arena.write(chunk, position, piece)
            parts.append((chunk, position, len(piece)))
            position += len(piece)
    made = encode_parts(kind, number, pieces[0], parts, arena)  # type: ignore[arg-type]
    whole = b"".join(part if isinstance(part, bytes) else bytes(arena.view(*part)) for part in made)
    assert whole == encode(kind, number, b"".join(pieces))


def test_unknown_kinds_and_flags_are_refused() -> None:
    data = bytearray(encode(Kind.BEAT, 0, b""))
    with pytest.raises(FrameError, match="checksum"):
        decode(bytes(data[LENGTH_BYTES:-1]) + b"\1", BYTES_MAX)
    strange = encode(99, 0, b"")  # type: ignore[arg-type]
    with pytest.raises(FrameError, match="unknown kind 99"):
        decode(strange[LENGTH_BYTES:], BYTES_MAX)


@pytest.mark.parametrize("length", [-1, 0, HEAD_BYTES - 1, limits.KIB + 1, 1 << 31])
def test_an_impossible_length_is_refused_before_the_frame_is_there(length: int) -> None:
    with pytest.raises(FrameError, match="impossible"):
        check_length(length, limits.KIB)
