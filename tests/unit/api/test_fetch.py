"""Fetch and ListOffsets: quirks 26 to 36 as they apply to one voter, by one shard."""

import struct

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.ids import ConnId
from corelane.model.limits import FETCH_PARTS_MAX
from corelane.shard.events import Closed, Event, Opened
from corelane.wire.batch import batch_header, whole_batches
from corelane.wire.compiler import Message, message_type
from corelane.wire.compression import Compression
from corelane.wire.frame import encode_request
from tests.unit.api.world import (
    MIB,
    WALL_MS,
    World,
    batch_of,
    key_of,
    produce_request,
    references,
    request_event,
)


@pytest.fixture
def world() -> World:
    made = World()
    made.create_topic("t", 2)
    return made


def bases(records: bytes) -> list[int]:
    return [head.base_offset for _at, head in whole_batches(records, len(records))]


@pytest.mark.parametrize("version", range(4, 18))
def test_the_batch_that_holds_the_offset_is_returned_unchanged(world: World, version: int) -> None:
    for _ in range(3):
        world.produce("t", batch_of(10))
    row = world.fetch("t", 14, version=version)
    assert bases(bytes(row.records)) == [10, 20]
    assert (row.high_watermark, row.last_stable_offset) == (30, 30)


def test_the_first_batch_comes_whole_whatever_the_limits(world: World) -> None:
    world.produce("t", batch_of(1, value=bytes(100_000)))
    world.produce("t", batch_of(1, value=bytes(100)), partition=1)
    row = world.fetch("t", 0, max_bytes=10, partition_max_bytes=1)
    assert len(row.records) > 100_000


def test_later_partitions_obey_the_limits_in_request_order(world: World) -> None:
    for partition in (0, 1):
        world.produce("t", batch_of(1, value=bytes(1000)), partition=partition)
    request = world.fetch_request("t", 0, max_bytes=1500)
    inner = type(request.topics[0].partitions[0])
    request.topics[0].partitions = [
        inner(partition=number, fetch_offset=0, partition_max_bytes=MIB) for number in (1, 0)
    ]
    rows = world.call(request, 12).responses[0].partitions
    assert [row.partition_index for row in rows] == [1, 0]
    assert len(rows[0].records) > 1000
    assert not rows[1].records


def test_a_fetch_waits_for_data_and_a_commit_wakes_it(world: World) -> None:
    world.send(world.fetch_request("t", 0, max_wait_ms=5000), 12, conn=2)
    assert not world.inbox.get(2)
    world.produce("t", batch_of(2))
    answer = world.receive(1, 12, conn=2)
    assert answer is not None
    assert bases(bytes(answer[1].responses[0].partitions[0].records)) == [0]


def test_uncommitted_records_are_not_visible(world: World) -> None:
    world.holds_disk = True
    world.send(produce_request("t", batch_of(2)), 9)
    row = world.call(world.fetch_request("t", 0), 12, conn=2).responses[0].partitions[0]
    assert (row.high_watermark, row.records) == (0, b"")
    world.release_disk()
    row = world.call(world.fetch_request("t", 0), 12, conn=3).responses[0].partitions[0]
    assert row.high_watermark == 2


def test_min_bytes_are_waited_for_until_the_deadline(world: World) -> None:
    world.produce("t", batch_of(1))
    world.send(world.fetch_request("t", 0, max_wait_ms=300, min_bytes=10_000), 12, conn=2)
    assert not world.inbox.get(2)
    world.produce("t", batch_of(1))
    assert not world.inbox.get(2)
    world.pass_time(400)
    answer = world.receive(1, 12, conn=2)
    assert answer is not None
    assert bases(bytes(answer[1].responses[0].partitions[0].records)) == [0, 1]


def test_an_error_is_answered_at_once(world: World) -> None:
    row = world.fetch("t", 5, max_wait_ms=5000)
    assert row.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
    row = world.fetch("t", 0, partition=9, max_wait_ms=5000)
    assert row.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_unknown_topics_by_name_and_by_id(world: World) -> None:
    assert world.fetch("x", 0).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert world.fetch("x", 0, version=13).error_code == ErrorCode.UNKNOWN_TOPIC_ID


def test_leader_epochs_are_checked(world: World) -> None:
    world.crash()
    epoch = world.offset_at("t", -1).leader_epoch
    assert epoch >= 2, "every leadership has a term of its own"
    older = world.fetch("t", 0, current_leader_epoch=epoch - 1)
    newer = world.fetch("t", 0, current_leader_epoch=epoch + 1)
    assert older.error_code == ErrorCode.FENCED_LEADER_EPOCH
    assert newer.error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert world.fetch("t", 0, current_leader_epoch=epoch).error_code == 0


def test_no_preferred_replica_is_named(world: World) -> None:
    assert world.fetch("t", 0).preferred_read_replica == -1


def test_a_connection_that_closes_while_it_waits_leaves_nothing_behind(world: World) -> None:
    world.send(world.fetch_request("t", 0, max_wait_ms=60_000), 12, conn=2)
    world.run([Closed(ConnId(2), "gone")])
    world.produce("t", batch_of(1))
    partition = world.shard.groups.topics[b"t"].partition(0)
    assert partition is not None
    assert not partition.fetch_waits


def test_old_data_is_read_from_disk_and_the_same_from_memory(world: World) -> None:
    """Enough to roll segments (internal.segment.bytes) and to push chunks out of the arena."""
    world.create_topic("cold", internal_segment_bytes=str(3 * MIB))
    count = 110
    batches = [batch_of(5, value=bytes([n]) * 100_000) for n in range(count)]
    for batch in batches:
        world.produce("cold", batch)
    partition = world.shard.groups.topics[b"cold"].partition(0)
    assert partition is not None
    cold = partition.log.tail_offset
    assert cold > 0, "the beginning is no longer in memory"
    for offset in range(0, count * 5, 3):
        raw = bytes(world.fetch("cold", offset).records)
        head = batch_header(raw)
        number = offset // 5
        assert head.base_offset == number * 5
        assert raw[16 : head.size_bytes] == batches[number][16:]
    world.crash()
    for offset in (0, cold - 1, cold, count * 5 - 1):
        raw = bytes(world.fetch("cold", offset).records)
        assert batch_header(raw).base_offset == offset // 5 * 5


# --- ListOffsets (quirks 33 and 34) ---


@pytest.mark.parametrize("codec", Compression)
def test_a_timestamp_is_resolved_inside_the_batch(world: World, codec: Compression) -> None:
    start = WALL_MS - 100_000
    for number in range(5):
        world.produce("t", batch_of(10, codec=codec, timestamp_ms=start + number * 100, step_ms=10))
    for offset in (0, 7, 10, 23, 49):
        time = start + offset // 10 * 100 + offset % 10 * 10
        row = world.offset_at("t", time)
        assert (row.offset, row.timestamp) == (offset, time)
        assert world.offset_at("t", time - 5).offset == offset
    after = world.offset_at("t", start + 1000)
    assert (after.offset, after.timestamp, after.error_code) == (-1, -1, 0)


def test_the_largest_timestamp_is_found_wherever_it_is(world: World) -> None:
    for time in (500, 900, 700):
        world.produce("t", batch_of(2, timestamp_ms=time))
    row = world.offset_at("t", -3)
    assert (row.offset, row.timestamp) == (3, 901)


def test_ends_and_epochs(world: World) -> None:
    assert (world.offset_at("t", -1).offset, world.offset_at("t", -2).offset) == (0, 0)
    world.produce("t", batch_of(4))
    first_epoch = world.offset_at("t", -2).leader_epoch
    world.crash()
    assert world.offset_at("t", -2).leader_epoch == first_epoch, "the epoch of that offset"
    assert world.offset_at("t", -1).leader_epoch == first_epoch + 1, "the current one at the end"
    assert world.offset_at("t", WALL_MS).leader_epoch == first_epoch


@pytest.mark.parametrize("version", range(1, 8))
def test_every_version_of_list_offsets(world: World, version: int) -> None:
    world.produce("t", batch_of(4))
    assert world.offset_at("t", -1, version=version).offset == 4


def test_nothing_is_served_before_the_own_term_entry_is_committed(world: World) -> None:
    """A new leader must not serve before it knows what is committed (quirk 32)."""
    world.produce("t", batch_of(3))
    world.holds_disk = True
    with pytest.raises(AssertionError):
        world.crash()  # the world wants it ready, but its votes cannot become durable
    assert not world.shard.is_ready
    assert not any(
        partition is not None and partition.serves
        for topic in world.shard.groups.topics.values()
        for partition in topic.partitions
    )


def test_frames_of_random_bytes_never_hurt_others(world: World) -> None:
    for number in range(300):
        raw = world.random.randbytes(world.random.randrange(8, 200))
        key = [0, 1, 2, 3, 18, 19, 20, 22, 32, 60, 10][number % 11]
        frame = struct.pack(">hh", key, number % 13) + raw
        world.send_frame(frame, conn=10 + number)
    assert world.produce("t", batch_of()).error_code == 0


def test_fetches_of_one_connection_are_looked_at_one_after_the_other(world: World) -> None:
    """Or a later answer would show an older high watermark (found by simulation)."""
    world.send(world.fetch_request("t", 0, max_wait_ms=500, min_bytes=10_000), 12, conn=2)
    world.send(world.fetch_request("t", 0, max_wait_ms=0), 12, conn=2)
    world.produce("t", batch_of(3))
    world.pass_time(600)
    seen = []
    for _ in range(2):
        answer = world.receive(1, 12, conn=2)
        assert answer is not None
        seen.append(answer[1].responses[0].partitions[0].high_watermark)
    assert seen == [3, 3]


def test_more_than_the_answer_may_hold_is_not_waited_for(world: World) -> None:
    world.produce("t", batch_of(1, value=bytes(5000)))
    row = world.fetch("t", 0, max_wait_ms=60_000, min_bytes=10_000, max_bytes=4000)
    assert len(row.records) > 5000


def test_a_fetch_of_very_many_partitions_takes_several_turns(world: World) -> None:
    """Others are served between them; the answer is the same."""
    world.create_topic("wide", partitions=1000)
    for partition in (0, 500, 999):
        world.produce("wide", batch_of(2), partition=partition)
    parts = [
        message_type("FetchRequest.FetchPartition")(partition=at, partition_max_bytes=MIB)
        for at in range(1000)
    ]
    row = message_type("FetchRequest.FetchTopic")(topic="wide", partitions=parts)
    request = message_type("FetchRequest")(topics=[row], max_bytes=50 * MIB)
    before = world.now_ms
    answer = world.call(request, 4)
    assert world.now_ms - before >= 1000 // 128, "the world steps once a millisecond"
    rows = answer.responses[0].partitions
    assert [each.partition_index for each in rows] == list(range(1000))
    assert [each.partition_index for each in rows if each.records] == [0, 500, 999]


def wide_request(count: int, **fields: object) -> Message:
    """Return a fetch of *count* partitions of the topic "wide"."""
    inner = message_type("FetchRequest.FetchPartition")
    parts = [inner(partition=at, partition_max_bytes=MIB) for at in range(count)]
    row = message_type("FetchRequest.FetchTopic")(topic="wide", partitions=parts)
    return message_type("FetchRequest")(**{"topics": [row], "max_bytes": 50 * MIB, **fields})


def frame_of(message: Message, version: int) -> bytes:
    return encode_request(key_of(message), version, 1, "test", message)[4:]


def test_a_commit_while_a_wide_fetch_still_looks_at_other_partitions_wakes_it(world: World) -> None:
    world.create_topic("wide", partitions=400)
    world.run([Opened(ConnId(2), 0, "reader"), Opened(ConnId(3), 0, "writer")])
    fetch = frame_of(wide_request(400, max_wait_ms=60_000, min_bytes=1), 12)
    produce = frame_of(produce_request("wide", batch_of(2), partition=3), 9)
    assert world.step_once([request_event(fetch, 2)]) == []
    events = world.step_once([request_event(produce, 3)])
    events = world.step_once(events)
    assert world.inbox[3], "committed"
    assert world.shard.slices, "it still looks"
    world.run(events)
    answer = world.receive(1, 12, conn=2)
    assert answer is not None
    assert [row.partition_index for row in answer[1].responses[0].partitions if row.records] == [3]


def test_min_bytes_count_over_the_partitions_that_were_woken(world: World) -> None:
    world.create_topic("wide", partitions=100)
    world.send(wide_request(100, max_wait_ms=60_000, min_bytes=5000), 12, conn=2)
    for partition in (7, 93, 7):
        world.produce("wide", batch_of(1, value=bytes(2000)), partition=partition)
        waiting = partition == 7 and not world.inbox.get(2)
    assert not waiting
    answer = world.receive(1, 12, conn=2)
    assert answer is not None
    found = [row.partition_index for row in answer[1].responses[0].partitions if row.records]
    assert found == [7, 93]


def test_a_partition_named_twice_is_not_waited_for(world: World) -> None:
    request = world.fetch_request("t", 0, max_wait_ms=60_000)
    parts = request.topics[0].partitions
    parts.append(parts[0])
    rows = world.call(request, 12, conn=2).responses[0].partitions
    assert [row.error_code for row in rows] == [0, 0]
    partition = world.shard.groups.topics[b"t"].partition(0)
    assert partition is not None
    assert not partition.fetch_waits


def test_a_wide_fetch_whose_client_leaves_midway_leaves_nothing_behind(world: World) -> None:
    world.create_topic("wide", partitions=400)
    for partition in (0, 399):
        world.produce("wide", batch_of(2), partition=partition)
    before = references(world)
    fetch = frame_of(wide_request(400), 12)
    for turns in range(1, 10):
        conn = 10 + turns
        world.run([Opened(ConnId(conn), 0, "reader")])
        events: list[Event] = [request_event(fetch, conn)]
        for _ in range(turns):
            events = world.step_once(events)
        world.run([*events, Closed(ConnId(conn), "gone")])
        assert references(world) == before
        assert not world.shard.slices


def test_an_answer_names_a_bounded_number_of_small_batches(world: World) -> None:
    """Half a million of them in one answer would be a turn of a tenth of a second."""
    count = FETCH_PARTS_MAX + 10
    for _ in range(count):
        world.produce("t", batch_of(1))
    first = bases(bytes(world.fetch("t", 0, max_bytes=50 * MIB).records))
    assert first == list(range(FETCH_PARTS_MAX))
    rest = bases(bytes(world.fetch("t", FETCH_PARTS_MAX, max_bytes=50 * MIB).records))
    assert rest == list(range(FETCH_PARTS_MAX, count))
    patient = world.fetch("t", 0, max_wait_ms=60_000, min_bytes=10 * MIB, max_bytes=50 * MIB)
    assert len(patient.records) > 0, "it would wait for what never comes"
