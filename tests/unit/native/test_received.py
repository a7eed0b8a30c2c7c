"""Entries of another replica, judged and put by the C core, on good and on hostile input."""

import random
import struct

import pytest

from corelane_native import RECEIVED_REASONS, Arena, Received, address_of, bytes_at, crc32c

HEAD = struct.Struct("<BxxxI")
RECORD = struct.Struct("<IIIIQQQQqB7x")
ROWS_MAX = 16
TERM = 7


def batch(base_offset: int, record_count: int, body: bytes) -> bytes:
    """Return a stamped batch whose records are just bytes."""
    rest = struct.pack(">hiqqqhii", 0, record_count - 1, 5, 9, -1, -1, -1, record_count) + body
    head = struct.pack(">qiib", base_offset, 49 + len(body), TERM, 2)
    return head + struct.pack(">I", crc32c(rest)) + rest


def entry(kind: int, payload: bytes) -> bytes:
    return HEAD.pack(kind, len(payload)) + payload


def good() -> list[tuple[int, bytes]]:
    return [(1, batch(100, 3, b"abc")), (3, b"command"), (2, b""), (1, batch(103, 2, b"defghij"))]


def test_rows_say_what_entries_are() -> None:
    payload = b"".join(entry(*words) for words in good())
    received = Received(ROWS_MAX)
    run = received.check(address_of(payload), len(payload), 0, TERM, 100, 0, ROWS_MAX)
    assert run == (len(payload), 105, 4, 0)
    rows = received.rows(4)
    assert [row[0] for row in rows] == [103, 103, 103, 105]
    assert [row[1] for row in rows] == [9, -1, -1, 9]
    assert [payload[row[2] : row[2] + row[3]] for row in rows] == [words[1] for words in good()]
    assert [row[4] for row in rows] == [1, 3, 2, 1]


def test_rows_are_put_as_records_as_far_as_there_is_room() -> None:
    payload = b"".join(entry(*words) for words in good())
    received, arena = Received(ROWS_MAX), Arena(1 << 20, 1 << 16)
    received.check(address_of(payload), len(payload), 0, TERM, 100, 0, ROWS_MAX)
    chunk = arena.chunk_new(1)
    sizes = [-(-(64 + len(words[1])) // 8) * 8 for words in good()]
    for room in range(sum(sizes) + 20):
        count, taken = received.put(
            arena, chunk, 64, 64 + room, 5, TERM, 900, 899, 3, 40, address_of(payload), 0, 4
        )
        fits = [n for n in range(5) if sum(sizes[:n]) <= room]
        assert (count, taken) == (fits[-1], sum(sizes[: fits[-1]]))
    at = arena.address(chunk) + 64
    for number, (kind, data) in enumerate(good()):
        words = RECORD.unpack(bytes_at(at, 64))
        next_offset = (103, 103, 103, 105)[number]
        assert words[1:] == (
            len(data), 5, TERM, 900 + number, 899, 3, 40 + number, next_offset, kind,
        )  # fmt: skip
        assert words[0] == crc32c(bytes_at(at + 4, 60 + len(data)))
        assert bytes_at(at + 64, len(data)) == data
        at += sizes[number]


def test_no_more_rows_are_filled_than_there_are() -> None:
    payload = entry(2, b"") * 20
    received = Received(ROWS_MAX)
    run = received.check(address_of(payload), len(payload), 0, TERM, 0, 0, ROWS_MAX)
    assert run == (8 * ROWS_MAX, 0, ROWS_MAX, 0)


@pytest.mark.parametrize("seed", range(20))
def test_hostile_bytes_are_never_read_past_their_end(seed: int) -> None:
    rng, received = random.Random(seed), Received(ROWS_MAX)
    source = b"".join(entry(*words) for words in good())
    for _ in range(300):
        data = bytearray(source[: rng.randrange(1, len(source) + 1)])
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            data[4:8] = rng.randbytes(4)
        exact = bytes(data)
        run = received.check(address_of(exact), len(exact), 0, TERM, 100, 0, ROWS_MAX)
        assert run.position <= len(exact)
        assert run.reason == 0 or run.reason in RECEIVED_REASONS
        assert run.reason or run.position == len(exact)
