"""The arena: limits, references, and the bytes it writes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane_native import Arena, address_of, bytes_at, check_batch, crc32c
from tests.unit.native import batches

MIB = 1024 * 1024
HEADER = struct.Struct("<IIIIQQQQqB7x")


def words(arena: Arena, chunk: int, position: int) -> tuple[int, ...]:
    """Return the header words of the record at *position*, its CRC checked."""
    crc, length, *rest = HEADER.unpack(arena.view(chunk, position, HEADER.size))
    assert crc == crc32c(arena.view(chunk, position + 4, HEADER.size + length - 4))
    return (length, *rest)


def test_a_chunk_is_aligned_and_as_large_as_asked() -> None:
    arena = Arena(8 * MIB)
    small, large = arena.chunk_new(1), arena.chunk_new(MIB + 1)
    assert arena.address(small) % 4096 == arena.address(large) % 4096 == 0
    assert arena.capacity(small) == MIB
    assert arena.capacity(large) == MIB + 4096
    assert arena.bytes_in_use == 2 * MIB + 4096


def test_the_limit_holds_and_a_release_makes_room() -> None:
    arena = Arena(2 * MIB)
    first, _second = arena.chunk_new(1), arena.chunk_new(1)
    with pytest.raises(MemoryError):
        arena.chunk_new(1)
    arena.release(first)
    arena.chunk_new(1)
    with pytest.raises(MemoryError):
        arena.chunk_new(3 * MIB)


def test_kept_chunks_make_way_for_one_of_another_size() -> None:
    arena = Arena(4 * MIB)
    chunks = [arena.chunk_new(1) for _ in range(4)]
    for chunk in chunks:
        arena.release(chunk)
    assert arena.bytes_in_use == 0
    assert arena.bytes_mapped == 4 * MIB
    big = arena.chunk_new(3 * MIB)
    assert arena.bytes_mapped == 4 * MIB
    arena.release(big)
    arena.trim(MIB)
    assert arena.bytes_mapped <= MIB
    arena.trim()
    assert arena.bytes_mapped == 0


def test_a_chunk_lives_as_long_as_somebody_holds_it() -> None:
    arena = Arena(2 * MIB)
    chunk = arena.chunk_new(1)
    arena.retain(chunk)
    arena.release(chunk)
    assert arena.references(chunk) == 1
    arena.release(chunk)
    assert arena.references(chunk) == 0
    for use in (arena.release, arena.retain, arena.address, arena.capacity):
        with pytest.raises(AssertionError):
            use(chunk)


def test_an_id_is_never_used_twice() -> None:
    arena = Arena(2 * MIB)
    seen = set()
    for _ in range(100):
        chunk = arena.chunk_new(1)
        arena.release(chunk)
        seen.add(chunk)
    assert len(seen) == 100
    with pytest.raises(AssertionError):
        arena.write(chunk, 0, b"gone")


@given(st.binary(max_size=300), st.integers(1, 255), st.integers(0, 2**31 - 1))
def test_a_record_reads_back(payload: bytes, kind: int, term: int) -> None:
    arena = Arena(MIB)
    chunk = arena.chunk_new(1)
    arena.write(chunk, 0, b"\xaa" * 1024)
    size = arena.put_record(
        chunk, 8, kind, 3, term, 2**63, 17, 2**64 - 1, 99, -5, address_of(payload), len(payload)
    )
    assert size == (64 + len(payload) + 7) // 8 * 8
    assert words(arena, chunk, 8) == (
        len(payload), 3, term, 2**63, 17, 2**64 - 1, 99, -5, kind,
    )  # fmt: skip
    written = bytes(arena.view(chunk, 8, size))
    assert written[64 : 64 + len(payload)] == payload
    assert not any(written[64 + len(payload) :])
    assert arena.view(chunk, 8 + size, 1)[0] == 0xAA


def test_a_batch_is_stamped_and_its_own_crc_stays_right() -> None:
    arena = Arena(MIB)
    chunk = arena.chunk_new(1)
    batch = batches.simple([b"x" * size for size in (0, 1, 1000)])
    size = arena.put_batch(
        chunk, 64, 3, 7, 40, 39, 5, 6, 1000, address_of(batch), len(batch), 3, -1
    )
    assert words(arena, chunk, 64) == (len(batch), 3, 7, 40, 39, 5, 6, 1003, 1)
    stored = bytes(arena.view(chunk, 64 + 64, len(batch)))
    assert stored[:8] == struct.pack(">q", 1000)
    assert stored[8:12] == batch[8:12]
    assert stored[12:16] == struct.pack(">i", 7)
    assert stored[16:] == batch[16:]
    assert size % 8 == 0


@pytest.mark.parametrize("size", [1, 5000, 100_000])
def test_log_append_time_changes_the_batch_and_its_crc(size: int) -> None:
    arena = Arena(MIB)
    chunk = arena.chunk_new(1)
    batch = batches.simple([b"x" * size])
    arena.put_batch(chunk, 0, 1, 1, 1, 0, 1, 1, 0, address_of(batch), len(batch), 1, 1234)
    words(arena, chunk, 0)
    stored = bytes(arena.view(chunk, 64, len(batch)))
    assert stored[21:23] == b"\0\x08"
    assert stored[35:43] == struct.pack(">q", 1234)
    assert stored[17:21] == struct.pack(">I", crc32c(stored[21:]))
    check = check_batch(address_of(stored), len(stored), -1, 2)
    assert (check.error, check.max_timestamp) == (0, 1234)


def test_padding_reaches_the_next_block_and_only_that() -> None:
    arena = Arena(MIB)
    chunk = arena.chunk_new(1)
    arena.write(chunk, 0, b"\xff" * 12_288)
    assert arena.pad(chunk, 100) == 4096
    assert arena.pad(chunk, 8192) == 8192
    content = bytes(arena.view(chunk, 0, 12_288))
    assert content == b"\xff" * 100 + bytes(3996) + b"\xff" * 8192


def test_gather_copies_parts_in_order() -> None:
    arena = Arena(4 * MIB)
    source, other, target = (arena.chunk_new(1) for _ in range(3))
    arena.write(source, 0, b"0123456789")
    arena.write(other, 100, b"abcdef")
    parts = [(source, 2, 3), (other, 100, 6), (source, 0, 1), (other, 0, 0)]
    assert arena.gather(target, 5, parts) == 10
    assert bytes(arena.view(target, 5, 10)) == b"234abcdef0"
    assert arena.gather(target, 0, []) == 0


def test_what_does_not_fit_is_refused_and_writes_nothing_outside() -> None:
    arena = Arena(2 * MIB, 4096)
    chunk = arena.chunk_new(1)
    data = bytes(4096)
    for position in (8, 4096, 2**40, 2**63):
        with pytest.raises(AssertionError):
            arena.write(chunk, position, data)
        with pytest.raises(AssertionError):
            arena.put_record(chunk, position, 1, 1, 1, 1, 1, 1, 1, 1, address_of(data), 4096)
    with pytest.raises(AssertionError):
        arena.put_record(chunk, 4, 1, 1, 1, 1, 1, 1, 1, 1, address_of(data), 1)
    with pytest.raises(AssertionError):
        arena.put_batch(chunk, 0, 1, 1, 1, 1, 1, 1, 1, address_of(data), 60, 1, -1)
    with pytest.raises(AssertionError):
        arena.gather(chunk, 4000, [(chunk, 0, 97)])
    with pytest.raises(AssertionError):
        arena.pad(chunk, 4097)
    with pytest.raises(AssertionError):
        arena.view(chunk, 4000, 97)


def test_bytes_at_copies_what_lies_at_an_address() -> None:
    data = bytearray(b"some bytes")
    copy = bytes_at(address_of(data) + 5, 5)
    data[:] = bytes(len(data))
    assert copy == b"bytes"
    assert bytes_at(0, 0) == b""
