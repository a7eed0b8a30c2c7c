"""Plain Produce requests decoded together, and batches put together: as each of them alone."""

import random

import pytest

from corelane.wire.frame import encode_request
from corelane_native import (
    FRAME_PLACE,
    PLAIN_MAX,
    PUTS_MAX,
    Arena,
    PlainRequests,
    PlainRow,
    PlainRun,
    Puts,
    address_of,
    decode_produce,
)
from tests.unit.api.world import batch_of, produce_request

HEAD_BYTES = 8 + 2 + len("client")
VERSIONS = (3, 7, 8, 9, 12)


def frame(version: int, acks: int = -1, topic: str = "topic", count: int = 1) -> bytes:
    message = produce_request(topic, batch_of(count), partition=count, acks=acks)
    return encode_request(0, version, 7, "client", message)[4:]


def together(frames: list[bytes], version: int) -> tuple[int, list[PlainRow]]:
    places = b"".join(FRAME_PLACE.pack(address_of(each), len(each)) for each in frames)
    plain = PlainRequests()
    runs = plain.decode(places, len(frames), version)
    if not runs:
        return 0, []
    count = sum(run[1] for run in runs)
    heads = plain.heads(0, count)
    rows = plain.rows(0, sum(run[3] for run in runs))
    assert sum(head[3] for head in heads) == len(rows)
    assert [head[0] for head in heads] == [address_of(each) for each in frames[:count]]
    look_at_runs(runs, rows)
    return count, rows


def look_at_runs(runs: list[PlainRun], rows: list[PlainRow]) -> None:
    """Judge that each run begins where the one before ends, and what it says of its batches."""
    at = row_at = 0
    for first, count, first_row, row_count, is_alike, largest, total, records, *times in runs:
        assert (first, first_row) == (at, row_at)
        at, row_at = at + count, row_at + row_count
        mine = rows[first_row:row_at]
        assert is_alike == (len(mine) == count)
        if is_alike:
            assert len({row[2] for row in mine}) == 1
            assert all(row[15] for row in mine[1:])
            assert largest == max(row[6] for row in mine)
            assert total == sum(row[6] for row in mine)
            assert records == sum(row[7] for row in mine)
            assert times == [min(row[13] for row in mine), max(row[13] for row in mine)]


@pytest.mark.parametrize("version", VERSIONS)
def test_rows_are_those_of_each_request(version: int) -> None:
    frames = [frame(version, count=count) for count in (1, 2, 3)]
    count, rows = together(frames, version)
    assert count == 3
    body_at = HEAD_BYTES + (version >= 9)
    for each, row in zip(frames, rows, strict=True):
        alone = decode_produce(address_of(each), len(each), body_at, version)
        assert alone is not None
        assert [row[:15]] == alone[3]


def test_a_topic_that_comes_again_is_marked() -> None:
    frames = [frame(9, topic=topic) for topic in ("a", "a", "b", "bb", "bb")]
    assert [row[15] for row in together(frames, 9)[1]] == [0, 1, 0, 0, 1]


@pytest.mark.parametrize("acks", [0, 2, -2])
def test_a_run_ends_before_a_request_with_other_acks(acks: int) -> None:
    assert together([frame(9), frame(9, acks), frame(9)], 9)[0] == 1


def test_a_transaction_is_not_plain() -> None:
    message = produce_request("topic", batch_of())
    message.transactional_id = "it"
    assert together([encode_request(0, 9, 7, "client", message)[4:]], 9)[0] == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_request_is_plain_only_if_it_is_good_alone(version: int, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        damaged = bytearray(frame(version))
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(8, len(damaged))] = chance.randrange(256)
        data = bytes(damaged[: chance.choice((len(damaged), chance.randrange(8, len(damaged))))])
        count, rows = together([data], version)
        if count:
            alone = decode_produce(address_of(data), len(data), body_of(data, version), version)
            assert alone is not None
            assert [row[:15] for row in rows] == alone[3]
            assert all(row[3] == 0 for row in rows)


def body_of(data: bytes, version: int) -> int:
    at = 10 + max(0, int.from_bytes(data[8:10], "big", signed=True))
    if version >= 9:
        tags = data[at]
        at += 1
        for _ in range(tags):
            at += 1
            at += 1 + data[at]
    return at


def test_more_than_fit_are_left_for_the_next_call() -> None:
    one = frame(9)
    assert together([one] * (PLAIN_MAX + 5), 9)[0] == PLAIN_MAX


@pytest.mark.parametrize("append_time_ms", [-1, 1_700_000_000_123])
def test_batches_put_together_are_the_bytes_of_each_put_alone(append_time_ms: int) -> None:
    arena, puts = Arena(8 << 20), Puts()
    chunks = [arena.chunk_new(1 << 20) for _ in range(2)]
    batches = [batch_of(1 + number % 3, value=bytes(number)) for number in range(PUTS_MAX)]
    position = 0
    for number, batch in enumerate(batches):
        place = (address_of(batch), len(batch))
        puts.set(number, 5 + number, 70 + number, 900, append_time_ms, *place, 3, number % 3 + 1)
        position += arena.put_batch(
            chunks[0], position, 2, 3, 40 + number, 39, 5 + number, 70 + number, 900,
            *place, number % 3 + 1, append_time_ms,
        )  # fmt: skip
    taken = arena.put_batches(chunks[1], 0, 2, 40, 39, puts, PUTS_MAX)
    assert taken == position
    assert bytes(arena.view(chunks[1], 0, taken)) == bytes(arena.view(chunks[0], 0, taken))


def test_batches_that_do_not_fit_their_chunk_are_refused() -> None:
    arena, puts = Arena(1 << 20, chunk_bytes=4096), Puts()
    chunk, batch = arena.chunk_new(4096), batch_of(value=bytes(3000))
    for number in range(2):
        puts.set(number, 1, 1, 0, -1, address_of(batch), len(batch), 1, 1)
    with pytest.raises(AssertionError, match="do not fit"):
        arena.put_batches(chunk, 0, 1, 1, 0, puts, 2)
