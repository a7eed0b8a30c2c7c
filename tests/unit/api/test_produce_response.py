"""The Produce answer written by hand is, byte for byte, what the message table says."""

import random
import struct

import pytest

from corelane.api import produce_response
from corelane.api.fetch_response import Endpoint, LeaderHint
from corelane.api.produce_response import ProducedPartition, ProducedTopic
from corelane.wire.compiler import Message, message_type, response_codec
from corelane.wire.frame import decode_response

VERSIONS = range(3, 12)
CORRELATION = 0x7FFF_FFFE
HINT = LeaderHint(7, 2**31 - 1)
ENDPOINTS = [Endpoint(7, "größe.example", 65_535, "rack-1"), Endpoint(2**31 - 1, "h", 1, None)]

Response = message_type("ProduceResponse")
Topic = message_type("ProduceResponse.TopicProduceResponse")
Partition = message_type("ProduceResponse.PartitionProduceResponse")
Leader = message_type("ProduceResponse.LeaderIdAndEpoch")
Node = message_type("ProduceResponse.NodeEndpoint")


def written(partition: int) -> ProducedPartition:
    row = ProducedPartition(partition)
    row.base_offset = 2**63 - 1
    row.log_append_time_ms = 1_700_000_000_000
    row.log_start_offset = 17
    return row


def refused(partition: int, sentence: str, hint: LeaderHint | None = None) -> ProducedPartition:
    row = ProducedPartition(partition)
    row.refuse(6, sentence)
    row.leader = hint
    return row


def by_table(
    version: int, topics: list[ProducedTopic], endpoints: list[Endpoint]
) -> tuple[bytes, Message]:
    """Return the frame the generated codec makes, and its message."""

    def row(given: ProducedPartition) -> Message:
        hint = given.leader
        return Partition(
            index=given.partition,
            error_code=given.error,
            base_offset=given.base_offset,
            log_append_time_ms=given.log_append_time_ms,
            log_start_offset=given.log_start_offset,
            error_message=given.sentence or None,
            current_leader=Leader()
            if hint is None
            else Leader(leader_id=hint.leader_id, leader_epoch=hint.leader_epoch),
        )

    message = Response(
        responses=[
            Topic(name=t.name.decode(), partition_responses=[row(p) for p in t.partitions])
            for t in topics
        ],
        node_endpoints=[
            Node(node_id=e.broker_id, host=e.host, port=e.port, rack=e.rack) for e in endpoints
        ],
    )
    body = response_codec(0, version)
    raw = struct.pack(">i", CORRELATION) + (b"\0" if version >= 9 else b"") + body.encode(message)
    return struct.pack(">i", len(raw)) + raw, message


CASES: dict[str, tuple[list[ProducedTopic], list[Endpoint]]] = {
    "nothing": ([], []),
    "a topic without partitions": ([ProducedTopic(b"empty", [])], []),
    "one": ([ProducedTopic(b"orders", [written(0)])], []),
    "an error with a sentence": ([ProducedTopic(b"t", [refused(3, "Größe: too large.")])], []),
    "an error without": ([ProducedTopic(b"t", [refused(3, "")])], []),
    "hints": ([ProducedTopic(b"t", [refused(3, "not here", HINT), written(4)])], ENDPOINTS),
    "several topics": (
        [
            ProducedTopic(b"a", [written(0), refused(2**31 - 1, "no"), written(2)]),
            ProducedTopic("é".encode() * 100, [refused(1, "x" * 500, HINT)]),
            ProducedTopic(b"", [written(9)]),
        ],
        ENDPOINTS[:1],
    ),
    "many partitions": ([ProducedTopic(b"t", [written(p) for p in range(200)])], []),
    "many topics": ([ProducedTopic(b"t%d" % i, [written(0)]) for i in range(150)], []),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_the_frame_is_that_of_the_table(name: str, version: int) -> None:
    topics, endpoints = CASES[name]
    made = produce_response.encode(version, CORRELATION, topics, endpoints)
    assert made == by_table(version, topics, endpoints)[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_random_answers_are_those_of_the_table(version: int) -> None:
    rng = random.Random(version)
    for _ in range(60):
        topics = []
        for number in range(rng.randrange(4)):
            rows = []
            for partition in range(rng.randrange(140) if rng.random() < 0.1 else rng.randrange(4)):
                row = ProducedPartition(partition)
                row.error = rng.randrange(-1, 120)
                row.base_offset = rng.randrange(-1, 2**63)
                row.log_append_time_ms = rng.randrange(-1, 2**63)
                row.log_start_offset = rng.randrange(-1, 2**63)
                row.sentence = rng.choice(("", "no", "y" * 126, "y" * 127, "y" * 1000))
                if rng.random() < 0.3:
                    row.leader = LeaderHint(rng.randrange(2**31), rng.randrange(2**31))
                rows.append(row)
            topics.append(ProducedTopic(b"n" * rng.choice((1, 126, 127, 249, number + 1)), rows))
        endpoints = rng.sample(ENDPOINTS, rng.randrange(3))
        made = produce_response.encode(version, CORRELATION, topics, endpoints)
        assert made == by_table(version, topics, endpoints)[0]


@pytest.mark.parametrize("version", [8, 11])
def test_a_sentence_too_long_is_cut(version: int) -> None:
    row = refused(0, "x" * 2000)
    frame = produce_response.encode(version, 1, [ProducedTopic(b"t", [row])], [])
    _correlation, message = decode_response(0, version, frame[4:])
    assert message.responses[0].partition_responses[0].error_message == "x" * 1000


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("count", [1, 3, 200])
def test_an_answer_without_error_is_the_same_frame(version: int, count: int) -> None:
    topic = ProducedTopic(b"t" * count, [written(number) for number in range(count)])
    short = produce_response.encode_good(version, CORRELATION, topic)
    assert short == produce_response.encode(version, CORRELATION, [topic], [])
