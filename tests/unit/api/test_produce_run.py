"""Requests of one turn, handled together, are answered and logged as they are one by one."""

import random
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from corelane.api import produce_run
from corelane.model.errors import ErrorCode
from corelane.model.ids import ConnId, Index
from corelane.shard.events import Opened
from corelane.shard.partition import Partition
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
    """Make requests of every kind, most of them plain, with the connection of each.

    They come in stretches of requests that are alike but for what goes wrong.
    """
    chance = random.Random(seed)
    sequences = dict.fromkeys(range(3), 0)
    number = 0
    for _ in range(chance.randrange(1, 12)):
        topic = chance.choices(TOPICS, (30, 5, 2, 2, 4, 1))[0]
        producer_id = chance.choice((-1, -1, 0, 1, 2))
        partition = 0 if producer_id >= 0 else chance.randrange(4)
        version = chance.choice(VERSIONS)
        acks = chance.choices((-1, 1, 0, 5), (20, 8, 1, 1))[0]
        conn = chance.choice(CONNECTIONS)
        for _ in range(chance.randrange(1, 12)):
            number += 1
            count = chance.randrange(1, 4)
            producer = Producer(-1, -1, -1)
            if producer_id >= 0:
                producer = Producer(producer_id, 0, sequences[producer_id])
                if topic == "plain" and chance.random() < 0.9:  # else again, or out of order
                    sequences[producer_id] += count
            batch: bytes | None = batch_of(
                count,
                codec=chance.choice((Compression.NONE, Compression.NONE, Compression.LZ4)),
                timestamp_ms=WALL_MS + chance.choice((*[0] * 20, 2 * HOUR_MS)),
                producer=producer,
                key=chance.choice((b"k", b"k", None)),
                value=bytes(chance.randrange(400)),
            )
            if chance.random() < 0.03:
                assert batch is not None
                wrong = batch[:40] + b"x" + batch[41:]
                batch = chance.choice((None, batch[:-1], batch[:30], wrong))
            timeout_ms = 1000 if chance.random() < 0.9 else 2000
            message = produce_request(
                topic, batch, partition=partition, acks=acks, timeout_ms=timeout_ms
            )
            if chance.random() < 0.02:
                message.transactional_id = "a"
            if chance.random() < 0.2:
                conn = chance.choice(CONNECTIONS)
            yield conn, encode_request(0, version, number, "c", message)[4:]


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


def three_under_way(acks: int = -1) -> tuple[World, Partition]:
    """Return a world whose disk has not answered three requests that are alike."""
    made = world()
    made.holds_disk = True
    made.shard.run_max = 64
    frame = encode_request(
        0, 9, 1, "c", produce_request("plain", batch_of(2), acks=acks, timeout_ms=1000)
    )[4:]
    made.step_once([request_event(frame, 11) for _ in range(3)])
    partition = made.shard.groups.topics[b"plain"].partition(0)
    assert partition is not None
    waits = partition.sync_waits if acks == 1 else partition.commit_waits
    assert len(waits) == 1, "requests that are alike wait as one"
    return made, partition


def answers(made: World) -> list[tuple[int, int]]:
    """Return (error, base offset) of each answer that came."""
    found = []
    while answer := made.receive(0, 9, conn=11):
        row = answer[1].responses[0].partition_responses[0]
        assert row.log_start_offset == 0
        found.append((row.error_code, row.base_offset))
    return found


def test_who_loses_its_leader_is_told_for_each_batch() -> None:
    made, partition = three_under_way()
    partition.is_dropped = True
    partition.fail_waits()
    made.step_once([])
    assert answers(made) == [(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)] * 3


@pytest.mark.parametrize("acks", [-1, 1])
def test_what_was_durable_when_its_leader_was_lost_is_answered_so(acks: int) -> None:
    made, partition = three_under_way(acks)
    first = partition.log.last_index - 2
    partition.entries_durable(Index(first + 1), partition.raft.truncations)
    assert answers(made) == [], "they leave together"
    partition.is_dropped = True
    partition.fail_waits()
    made.step_once([])
    lost = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)
    assert answers(made) == [(0, 0), (0, 2), lost]
    requests = made.shard.counts.answered
    assert [row[1::2] for row in requests] == [(int(lost[0]), 1), (0, 2)]


def test_what_is_not_durable_in_time_is_told_once() -> None:
    made, _partition = three_under_way()
    made.pass_time(1000)
    assert answers(made) == [(ErrorCode.REQUEST_TIMED_OUT, -1)] * 3
    assert made.shard.counts.requests_timed_out == 3
    made.release_disk()
    assert answers(made) == []


def test_more_than_the_log_has_room_for_is_refused_behind_what_fits() -> None:
    made = world()
    made.shard.run_max = 64
    wal = made.shard.store.wal
    batch = batch_of(value=bytes(150_000))
    frame = encode_request(0, 9, 1, "c", produce_request("plain", batch))[4:]
    wal.spares.clear()
    made.holds_disk = True  # no other file is made
    room = wal.room_bytes // len(batch)
    count = min(room + 3, 64)
    assert count > room > 3
    made.shard.must_defer = lambda size_bytes: False  # type: ignore[method-assign]
    made.step_once([request_event(frame, 11) for _ in range(count)])
    made.release_disk()
    found = answers(made)
    refused = [row for row in found if row[0]]
    good = [row for row in found if not row[0]]
    assert set(refused) == {(ErrorCode.NOT_ENOUGH_REPLICAS, -1)}
    assert sorted(good) == [(0, offset) for offset in range(len(good))]
    assert len(found) == count
    assert found == good + refused


def test_what_is_not_plain_is_looked_at_a_bounded_number_of_times() -> None:
    made = world()
    made.shard.run_max = 256
    frame = encode_request(0, 9, 1, "c", produce_request("plain", batch_of(), acks=0))[4:]
    made.run([request_event(frame, 11) for _ in range(3)])
    assert made.shard.run_max == 1


@pytest.mark.parametrize("version", [-1, -32768, 2, 13])
def test_a_version_that_is_not_served_ends_its_connection_alone(version: int) -> None:
    made = world()
    made.shard.run_max = 64
    message = produce_request("plain", batch_of())
    good = encode_request(0, 9, 1, "c", message)[4:]
    hostile = good[:2] + struct.pack(">h", version) + good[4:]
    made.run([request_event(hostile, 11), request_event(good, 12), request_event(hostile, 13)])
    assert {*made.closed} == {11, 13}
    answer = made.receive(0, 9, conn=12)
    assert answer is not None
    assert answer[1].responses[0].partition_responses[0].error_code == 0
