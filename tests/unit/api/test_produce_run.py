"""Requests of one turn, handled together, are answered and logged as they are one by one."""

import random
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from corelane.api import produce_run
from corelane.model.errors import ErrorCode
from corelane.model.ids import ConnId
from corelane.shard.events import Opened
from corelane.wire.compression import Compression
from corelane.wire.frame import encode_request
from corelane.wire.records import Producer
from tests.unit.api.world import WALL_MS, World, batch_of, produce_request, request_event

CONNECTIONS = (11, 12, 13)
VERSIONS = (3, 5, 7, 8, 9, 12)
TOPICS = ("plain", "other", "tight", "compacted", "stamped", "absent")
HOUR_MS = 3_600_000


def world() -> World:
    made = World()
    made.create_topic("plain", partitions=3)
    made.create_topic("other")
    made.create_topic("tight", max_message_bytes="200")
    made.create_topic("compacted", cleanup_policy="compact")
    made.create_topic("stamped", message_timestamp_type="LogAppendTime")
    made.run([Opened(ConnId(conn), 0, "client") for conn in CONNECTIONS])
    return made


def frames(seed: int) -> Iterator[tuple[int, bytes]]:
    """Make requests of every kind, most of them plain, with the connection of each."""
    chance = random.Random(seed)
    sequences = dict.fromkeys(range(3), 0)
    for number in range(chance.randrange(2, 40)):
        topic = chance.choices(TOPICS, (30, 5, 2, 2, 2, 1))[0]
        producer_id = chance.choice((-1, -1, 0, 1, 2))
        count = chance.randrange(1, 4)
        producer = Producer(-1, -1, -1)
        if producer_id >= 0:
            producer = Producer(producer_id, 0, sequences[producer_id])
            if topic == "plain" and chance.random() < 0.9:  # else it comes again, or out of order
                sequences[producer_id] += count
        batch: bytes | None = batch_of(
            count,
            codec=chance.choice((Compression.NONE, Compression.NONE, Compression.LZ4)),
            timestamp_ms=WALL_MS + chance.choice((0, 0, 0, 0, 2 * HOUR_MS)),
            producer=producer,
            key=chance.choice((b"k", b"k", None)),
            value=bytes(chance.randrange(400)),
        )
        if chance.random() < 0.04:
            assert batch is not None
            batch = chance.choice((None, batch[:-1], batch[:30], batch[:40] + b"x" + batch[41:]))
        partition = 0 if producer_id >= 0 else chance.randrange(4)
        acks = chance.choices((-1, 1, 0, 5), (20, 5, 1, 1))[0]
        message = produce_request(topic, batch, partition=partition, acks=acks)
        if chance.random() < 0.03:
            message.transactional_id = "a"
        version = chance.choice(VERSIONS)
        yield (
            chance.choice(CONNECTIONS),
            encode_request(0, version, number, "c", message)[4:],
        )


def served(together: bool, seed: int) -> tuple[dict[int, bytes], list[bytes]]:
    """Return what each client was answered, and what each partition holds."""
    made = world()
    asked = [*frames(seed)]
    events = [request_event(frame, conn) for conn, frame in asked]
    if not together:
        apis = dict(made.shard.apis)
        apis[0] = replace(apis[0], run=None)
        made.shard.apis = apis
    made.shard.run_max = 64
    made.run([*events])
    answers = {conn: bytes(data) for conn, data in made.inbox.items() if conn in CONNECTIONS}
    logs = []
    for name in TOPICS[:-1]:
        for partition in made.shard.groups.topics[name.encode()].partitions:
            assert partition is not None
            log = partition.log
            data = [
                bytes(made.arena.view(each.chunk.id, each.position, each.size_bytes))
                for each in log.tail
            ]
            logs.append(b"".join(data) + struct.pack("q", log.committed_offset))
    return answers, logs


@pytest.mark.parametrize("seed", range(40))
def test_together_as_one_by_one(seed: int) -> None:
    assert served(together=True, seed=seed) == served(together=False, seed=seed)


def test_a_turn_of_plain_requests_is_one_run() -> None:
    made = world()
    made.shard.run_max = 64
    frame = encode_request(0, 9, 1, "c", produce_request("plain", batch_of()))[4:]
    taken: list[int] = []

    def run(*arguments: object) -> int:
        taken.append(produce_run.handle_run(*arguments))  # type: ignore[arg-type]
        return taken[-1]

    apis = dict(made.shard.apis)
    apis[0] = replace(apis[0], run=run)
    made.shard.apis = apis
    made.run([request_event(frame, 11) for _ in range(50)])
    assert taken == [50]


def test_who_loses_its_leader_is_told_for_each_batch() -> None:
    made = world()
    made.holds_disk = True
    frame = encode_request(0, 9, 1, "c", produce_request("plain", batch_of()))[4:]
    made.step_once([request_event(frame, 11) for _ in range(3)])
    partition = made.shard.groups.topics[b"plain"].partition(0)
    assert partition is not None
    assert len(partition.commit_waits) == 3
    partition.is_dropped = True
    partition.fail_waits()
    made.step_once([])
    for _ in range(3):
        answer = made.receive(0, 9, conn=11)
        assert answer is not None
        row = answer[1].responses[0].partition_responses[0]
        assert row.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert row.base_offset == -1


def test_what_is_not_plain_is_looked_at_a_bounded_number_of_times() -> None:
    made = world()
    made.shard.run_max = 256
    frame = encode_request(0, 9, 1, "c", produce_request("plain", batch_of(), acks=0))[4:]
    made.run([request_event(frame, 11) for _ in range(3)])
    assert made.shard.run_max == 1
