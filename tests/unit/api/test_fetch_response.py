"""The Fetch answer written by hand is, byte for byte, what the message table says.

Batches are not bytes there but places in arena chunks; here a part (chunk, position, size) stands
for as many bytes of that chunk's number, and the parts are joined as a socket would join them.
"""

import random
import struct

import pytest

from corelane.api import fetch_response
from corelane.api.fetch_response import Endpoint, FetchedPartition, FetchedTopic, LeaderHint
from corelane.model.ids import ChunkId, Position
from corelane.shard.effects import Part
from corelane.wire.compiler import Message, message_type, response_codec

VERSIONS = range(4, 18)
CORRELATION = 0x7FFF_FFFE
HINT = LeaderHint(7, 2**31 - 1)
ENDPOINTS = [Endpoint(7, "größe.example", 65_535, "rack-1"), Endpoint(2**31 - 1, "h", 1, None)]

Response = message_type("FetchResponse")
Topic = message_type("FetchResponse.FetchableTopicResponse")
Partition = message_type("FetchResponse.PartitionData")
Leader = message_type("FetchResponse.LeaderIdAndEpoch")
Aborted = message_type("FetchResponse.AbortedTransaction")
Node = message_type("FetchResponse.NodeEndpoint")


def joined(parts: list[Part]) -> bytes:
    return b"".join(p if isinstance(p, bytes) else bytes((p[0],)) * p[2] for p in parts)


def fetched(partition: int, *sizes: int, hint: LeaderHint | None = None) -> FetchedPartition:
    """Return a row whose records lie in as many chunks as there are *sizes*."""
    row = FetchedPartition(partition)
    row.high_watermark = 2**63 - 1
    row.last_stable_offset = 12
    row.log_start_offset = 5
    row.parts = [(ChunkId(number + 1), Position(64), size) for number, size in enumerate(sizes)]
    row.size_bytes = sum(sizes)
    row.leader = hint
    return row


def refused(partition: int, error: int, hint: LeaderHint | None = None) -> FetchedPartition:
    row = FetchedPartition(partition)
    row.error = error
    row.leader = hint
    return row


def aborting(partition: int, *sizes: int) -> FetchedPartition:
    row = fetched(partition, *sizes)
    row.aborted = TRANSACTIONS
    return row


def by_table(
    version: int, error: int, topics: list[FetchedTopic], endpoints: list[Endpoint]
) -> bytes:
    """Return the frame the generated codec makes."""

    def row(given: FetchedPartition) -> Message:
        hint = given.leader
        return Partition(
            partition_index=given.partition,
            error_code=given.error,
            high_watermark=given.high_watermark,
            last_stable_offset=given.last_stable_offset,
            log_start_offset=given.log_start_offset,
            aborted_transactions=[
                Aborted(producer_id=producer_id, first_offset=first_offset)
                for producer_id, first_offset in given.aborted
            ],
            records=joined(given.parts),
            current_leader=Leader()
            if hint is None
            else Leader(leader_id=hint.leader_id, leader_epoch=hint.leader_epoch),
        )

    def topic(given: FetchedTopic) -> Message:
        rows = [row(p) for p in given.partitions]
        if version >= 13:
            return Topic(topic_id=given.name_or_id, partitions=rows)
        return Topic(topic=given.name_or_id.decode(), partitions=rows)

    message = Response(
        error_code=error,
        responses=[topic(t) for t in topics],
        node_endpoints=[
            Node(node_id=e.broker_id, host=e.host, port=e.port, rack=e.rack) for e in endpoints
        ],
    )
    body = response_codec(1, version)
    raw = struct.pack(">i", CORRELATION) + (b"\0" if version >= 12 else b"") + body.encode(message)
    return struct.pack(">i", len(raw)) + raw


A, B = b"0123456789abcdef", b"fedcba9876543210"
TRANSACTIONS = [(4_711, 0), (2**62, 2**40), (1, 2**41)]
CASES: dict[str, tuple[int, list[FetchedTopic], list[Endpoint]]] = {
    "nothing": (0, [], []),
    "a session error": (71, [], []),
    "a topic without partitions": (0, [FetchedTopic(A, [])], []),
    "no records": (0, [FetchedTopic(A, [fetched(0)])], []),
    "records": (0, [FetchedTopic(A, [fetched(0, 61)])], []),
    "records in pieces": (0, [FetchedTopic(A, [fetched(0, 100, 1, 28_000)])], []),
    "records of aborted transactions": (
        0,
        [FetchedTopic(A, [aborting(0, 100), fetched(1, 9), aborting(2)])],
        [],
    ),
    "an error with hints": (0, [FetchedTopic(A, [refused(3, 6, HINT)])], ENDPOINTS),
    "records and hints": (
        0,
        [FetchedTopic(A, [fetched(0, 126, hint=HINT), refused(1, 6, HINT)])],
        ENDPOINTS[:1],
    ),
    "several topics": (
        0,
        [
            FetchedTopic(A, [fetched(0, 127), fetched(1), refused(2, 1), fetched(3, 9, 9)]),
            FetchedTopic(B, [refused(2**31 - 1, 3)]),
            FetchedTopic(A, [fetched(7, 16_383)]),
        ],
        [],
    ),
    "many partitions": (0, [FetchedTopic(A, [fetched(p, p % 3) for p in range(200)])], []),
    "many topics": (0, [FetchedTopic(A, [fetched(0, 7)])] * 150, []),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_the_frame_is_that_of_the_table(name: str, version: int) -> None:
    error, topics, endpoints = CASES[name]
    # Before version 7 there is no place for the error; before 12 none for a hint.
    parts = fetch_response.encode(version, CORRELATION, error, topics, endpoints)
    assert joined(parts) == by_table(version, error, topics, endpoints)


@pytest.mark.parametrize("version", VERSIONS)
def test_random_answers_are_those_of_the_table(version: int) -> None:
    rng = random.Random(version)
    for _ in range(60):
        topics = []
        for _topic in range(rng.randrange(4)):
            rows = []
            for partition in range(rng.randrange(140) if rng.random() < 0.1 else rng.randrange(4)):
                sizes = [rng.choice((1, 61, 126, 127, 20_000)) for _ in range(rng.randrange(3))]
                row = fetched(partition, *sizes)
                row.error = rng.randrange(-1, 120)
                row.high_watermark = rng.randrange(-1, 2**63)
                row.last_stable_offset = rng.randrange(-1, 2**63)
                row.log_start_offset = rng.randrange(-1, 2**63)
                if rng.random() < 0.3:
                    row.leader = LeaderHint(rng.randrange(2**31), rng.randrange(2**31))
                rows.append(row)
            name = b"n" * (16 if version >= 13 else rng.choice((1, 126, 127, 249)))
            topics.append(FetchedTopic(name, rows))
        endpoints = rng.sample(ENDPOINTS, rng.randrange(3))
        parts = fetch_response.encode(version, CORRELATION, 0, topics, endpoints)
        assert joined(parts) == by_table(version, 0, topics, endpoints)


@pytest.mark.parametrize("version", [4, 11, 12, 17])
def test_records_are_pointed_at_and_never_copied(version: int) -> None:
    row = fetched(0, 5_000_000, 3_000_000)
    parts = fetch_response.encode(version, 1, 0, [FetchedTopic(A, [row])], [])
    assert [p for p in parts if not isinstance(p, bytes)] == row.parts
    assert sum(len(p) for p in parts if isinstance(p, bytes)) < 200
    size = struct.unpack_from(">i", joined(parts))[0]
    assert size == len(joined(parts)) - 4
