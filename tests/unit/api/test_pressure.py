"""Produce when the log has little room: order, answers and what may still be written."""

import pytest

from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.ids import ConnId
from corelane.shard.events import Closed, Event, Opened, Request
from corelane.storage.dump import wal_files
from corelane.storage.effects import WalPrepare
from corelane.wire.frame import encode_request
from corelane.wire.records import Producer
from corelane_native import address_of
from tests.unit.api.world import World, batch_of, delete_topic, produce_request

KIB = 1024


@pytest.fixture
def world() -> World:
    """A world in which no further file of the log gets prepared, for now."""
    made = World()
    made.create_topic("t")
    made.holds_disk, made.kinds_held = True, (WalPrepare,)
    return made


def fill(world: World, room_bytes: int) -> None:
    """Produce until the log has room for *room_bytes* at the most."""
    spares = world.shard.store.wal.spares
    spares.clear()
    while world.shard.store.wal.room_bytes > room_bytes:
        world.produce("t", batch_of(1, value=bytes(10 * KIB)))


def frames(world: World, batches: list[bytes], acks: int = -1) -> list[bytes]:
    """Return Produce frames, as they lie in a connection's receive buffer."""
    return [
        encode_request(0, 9, number, "test", produce_request("t", batch, acks=acks))[4:]
        for number, batch in enumerate(batches)
    ]


def take(world: World, frames: list[bytes], conn: int = 2) -> None:
    """Let one turn take all the frames, as one drain of the socket does."""
    requests: list[Event] = [Opened(ConnId(conn), 0, "client")]
    for number, frame in enumerate(frames):
        requests.append(Request(ConnId(conn), address_of(frame), len(frame), 0, 9, number))
    world.run(requests)


def errors(world: World, count: int, conn: int = 2) -> list[int]:
    found = []
    for _ in range(count):
        answer = world.receive(0, 9, conn)
        assert answer is not None, "an answer is missing"
        found.append(answer[1].responses[0].partition_responses[0].error_code)
    return found


def test_a_small_request_never_overtakes_a_large_one_that_waits_for_room(world: World) -> None:
    fill(world, 700 * KIB)
    first = batch_of(1, value=bytes(800 * KIB), producer=Producer(7, 0, 0))
    second = batch_of(1, producer=Producer(7, 0, 1))
    take(world, frames(world, [first, second]))
    world.release_disk()
    world.pass_time(limits.TICK_MS)
    assert errors(world, 2) == [0, 0]


def test_a_client_that_wants_no_answers_is_read_again_after_it_waited_for_room(
    world: World,
) -> None:
    fill(world, 100 * KIB)
    count = limits.CONNECTION_REQUESTS_MAX + 1
    take(world, frames(world, [batch_of(1, value=bytes(40 * KIB))] * count, acks=0))
    connection = world.shard.connections[ConnId(2)]
    assert connection.is_paused
    world.release_disk()
    world.pass_time(limits.TICK_MS)
    assert not connection.is_paused


@pytest.mark.parametrize("acks", [0, 1])
def test_what_waited_for_room_is_written_though_its_client_has_left(
    world: World, acks: int
) -> None:
    """With acks=0 nothing tells a client that it left too early: what came whole counts."""
    fill(world, 100 * KIB)
    first_offset = world.fetch("t", 0).high_watermark
    take(world, frames(world, [batch_of(1, value=bytes(200 * KIB))] * 3, acks=acks))
    world.run([Closed(ConnId(2), "the client closed")])
    assert world.fetch("t", 0).high_watermark == first_offset
    world.release_disk()
    world.pass_time(limits.TICK_MS)
    assert world.fetch("t", 0).high_watermark == first_offset + 3


def test_a_request_that_can_never_fit_is_answered_and_holds_up_nobody(world: World) -> None:
    world.release_disk()
    world.holds_disk = False
    row = type(produce_request("t", None).topic_data[0].partition_data[0])
    request = produce_request("t", None)
    batch = batch_of(1, value=bytes(1000 * KIB))
    request.topic_data[0].partition_data = [row(index=0, records=batch)] * 28
    world.send(request, 9, conn=2)
    world.send(produce_request("t", batch_of()), 9, conn=3)
    for _ in range(100):
        world.pass_time(limits.TICK_MS)
    assert world.receive(0, 9, conn=2) is not None
    assert errors(world, 1, conn=3) == [0]


def test_a_full_log_still_takes_commands_until_its_reserve_is_short(world: World) -> None:
    """A core that has no room for a vote or a command left could only die."""
    fill(world, 100 * KIB)
    errors = [world.create_topic(f"topic-{number}").error_code for number in range(200)]
    assert errors[0] == 0
    assert errors[-1] == ErrorCode.KAFKA_STORAGE_ERROR, "the client tries again later"
    delete_topic(world, "topic-0")
    world.release_disk()
    assert world.create_topic("late").error_code == 0


def test_a_reader_may_ask_for_more_than_memory_holds(world: World) -> None:
    world.kinds_held = ()
    for _ in range(30):
        world.produce("t", batch_of(1, value=bytes(1000 * KIB)))
    for _ in range(3):  # the first makes room for the second: what is in it is flushed
        world.shard.store.chunks.evict(0)
        world.run([])
    hoard = [world.arena.chunk_new(1024 * KIB) for _ in range(20)]
    row = world.fetch("t", 0, partition_max_bytes=2**31 - 1, max_bytes=2**31 - 1)
    assert len(row.records) > 1000 * KIB
    for chunk in hoard:
        world.arena.release(chunk)


def test_a_damaged_partition_keeps_neither_memory_nor_log_from_the_others(world: World) -> None:
    world.release_disk()
    world.create_topic("good")
    for number in range(6):
        world.produce("t", batch_of(1, value=b"record %d" % number))
        world.produce("good", batch_of(1))
    (file,) = [file for file in wal_files(world.disk) if file.records]
    partition = world.shard.groups.topics[b"t"].partitions[0]
    assert partition is not None
    found = [e for e in file.records if e.kind == "BATCH" and e.group == partition.group][3]
    world.disk.flip(file.path, found.record.payload_at + 70)
    world.crash()
    assert world.fetch("t", 0).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    for _ in range(200):
        assert world.produce("good", batch_of(1, value=bytes(1000 * KIB))).error_code == 0
    world.crash()
    assert world.fetch("t", 0).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert world.fetch("good", 0).high_watermark == 206
