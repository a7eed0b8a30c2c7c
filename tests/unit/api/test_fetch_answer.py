"""What one core writes as a Fetch answer another one reads again, wherever its pieces lie."""

import random

import pytest

from corelane.api.fetch_answer import read
from corelane.api.fetch_response import (
    Endpoint,
    FetchedPartition,
    FetchedTopic,
    LeaderHint,
    encode,
)
from corelane.model.ids import ChunkId, Position
from corelane.shard.answer import Answer
from corelane.shard.effects import Part
from corelane_native import Arena

MIB = 1024 * 1024
VERSIONS = range(4, 18)
ENDPOINTS = [Endpoint(7, "größe.example", 65_535, "rack-1"), Endpoint(2**31 - 1, "h", 1, None)]


@pytest.fixture
def arena() -> Arena:
    return Arena(8 * MIB)


def answer_of(rng: random.Random, arena: Arena, chunk: ChunkId, version: int) -> list[FetchedTopic]:
    """Return topics with rows of every kind; batches are bytes, or lie in *chunk*."""
    topics = []
    for number in range(rng.randrange(4)):
        name = bytes([number]) * 16 if version >= 13 else b"topic-%d" % number
        rows = []
        for partition in range(rng.randrange(1, 200)):
            row = FetchedPartition(partition)
            row.error = rng.choice([0, 0, 1, 6])
            row.high_watermark, row.last_stable_offset = rng.randrange(2**40), rng.randrange(99)
            row.log_start_offset = rng.randrange(99) if version >= 5 else -1
            sizes = [rng.choice([1, 127, 128, 20_000]) for _ in range(rng.choice([0, 0, 1, 3]))]
            parts: list[Part] = [
                rng.randbytes(size)
                if rng.randrange(3) == 0
                else (chunk, Position(rng.randrange(MIB - size)), size)
                for size in sizes
            ]
            if parts:
                row.found(parts, sum(sizes))
                count = rng.choice([0, 0, 1, 200])
                row.aborted = [(rng.randrange(2**62), rng.randrange(2**62)) for _ in range(count)]
            if version >= 12 and row.error == 6:
                row.leader = LeaderHint(rng.randrange(2**31), rng.randrange(2**31))
            rows.append(row)
        topics.append(FetchedTopic(name, rows))
    return topics


def joined(arena: Arena, parts: list[Part]) -> bytes:
    return b"".join(part if isinstance(part, bytes) else arena.view(*part) for part in parts)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", range(5))
def test_it_is_read_as_it_was_written(arena: Arena, version: int, seed: int) -> None:
    rng = random.Random(seed)
    chunk = ChunkId(arena.chunk_new(MIB))
    arena.write(chunk, 0, rng.randbytes(MIB))
    topics = answer_of(rng, arena, chunk, version)
    ends = ENDPOINTS if version >= 16 and seed % 2 else []
    parts = encode(version, 5, 0, topics, ends)
    frame = joined(arena, parts)
    first = parts[0]
    assert isinstance(first, bytes)
    whole = ChunkId(arena.chunk_new(len(frame)))
    arena.write(whole, 0, frame)
    cut = rng.randrange(4, len(frame))
    ways: list[list[Part]] = [
        [first[4:], *parts[1:]],
        [(whole, Position(4), len(frame) - 4)],
        [frame[4:cut], frame[cut:]] if cut < len(frame) else [frame[4:]],
    ]
    for way in ways:
        found = read(version, Answer(way, [whole]), arena)
        assert found.chunks == [whole]
        assert found.endpoints == ends
        assert joined(arena, encode(version, 5, 0, found.topics, found.endpoints)) == frame
