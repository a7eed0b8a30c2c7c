"""DeleteRecords, and what readers see of a log whose beginning is gone, by one shard."""

from typing import Any

import pytest

from corelane.cluster.changes import TopicDeleted
from corelane.model.errors import ErrorCode
from corelane.shard.partition import Partition
from corelane.storage.effects import Read, SearchRead
from corelane.wire.compiler import Message, message_type
from corelane.wire.compression import Compression
from tests.unit.api.world import WALL_MS, World, batch_of, delete_topic

SMALL = str(64 * 1024)


@pytest.fixture
def world() -> World:
    made = World()
    made.create_topic("t", 2, internal_segment_bytes=SMALL)
    return made


def delete_request(offset: int, *, topic: str = "t", partition: int = 0, **more: Any) -> Message:
    row = message_type("DeleteRecordsRequest.DeleteRecordsPartition")
    named = message_type("DeleteRecordsRequest.DeleteRecordsTopic")(
        name=topic, partitions=[row(partition_index=partition, offset=offset)]
    )
    return message_type("DeleteRecordsRequest")(topics=[named], **{"timeout_ms": 5000} | more)


def delete(world: World, offset: int, *, version: int = 2, conn: int = 1, **more: Any) -> Message:
    """Delete the records of one partition below *offset*; return its row of the answer."""
    answer = world.call(delete_request(offset, **more), version, conn)
    row: Message = answer.topics[0].partitions[0]
    return row


def part(world: World, topic: str = "t") -> Partition:
    found = world.shard.groups.topics[topic.encode()].partition(0)
    assert found is not None
    return found


def fill(world: World, count: int, *, value_bytes: int = 20_000, step_ms: int = 10) -> None:
    """Produce batches of two records, *step_ms* apart, and push them out of memory."""
    for number in range(count):
        at_ms = WALL_MS + 2 * number * step_ms
        batch = batch_of(2, value=bytes(value_bytes), timestamp_ms=at_ms, step_ms=step_ms)
        assert world.produce("t", batch).base_offset == 2 * number
    go_cold(world)


def go_cold(world: World) -> None:
    """Have everything of the first partition in its segments, and nothing of it in memory."""
    for _ in range(4):  # the chunk of memory that is written to stays
        world.produce("t", batch_of(1, value=bytes(500_000)), partition=1)
    world.shard.store.checkpointing.wanted = True
    world.run([])
    world.shard.store.chunks.evict(0)
    assert part(world).log.tail_offset == part(world).log.committed_offset


@pytest.mark.parametrize("version", range(3))
def test_records_below_an_offset_go_and_stay_gone(world: World, version: int) -> None:
    for _ in range(5):
        world.produce("t", batch_of(10))
    row = delete(world, 23, version=version)
    assert (row.error_code, row.low_watermark) == (0, 23)
    for _ in range(2):
        assert world.offset_at("t", -2).offset == 23
        below = world.fetch("t", 22)
        assert (below.error_code, below.log_start_offset) == (ErrorCode.OFFSET_OUT_OF_RANGE, 23)
        there = world.fetch("t", 23)
        assert (there.error_code, there.log_start_offset, there.high_watermark) == (0, 23, 50)
        assert there.records, "the batch that holds the offset, as it was written"
        world.crash()
    assert world.produce("t", batch_of(1), version=5).log_start_offset == 23


def test_minus_one_is_the_high_watermark(world: World) -> None:
    world.produce("t", batch_of(7))
    assert delete(world, -1).low_watermark == 7
    assert (world.offset_at("t", -2).offset, world.offset_at("t", -1).offset) == (7, 7)
    assert world.produce("t", batch_of(1)).base_offset == 7
    assert world.fetch("t", 7).error_code == 0


@pytest.mark.parametrize("offset", [8, 2**62, -2])
def test_what_is_not_there_cannot_be_deleted(world: World, offset: int) -> None:
    world.produce("t", batch_of(7))
    row = delete(world, offset)
    assert (row.error_code, row.low_watermark) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
    assert world.offset_at("t", -2).offset == 0


def test_what_is_deleted_already_is_answered_with_where_the_log_begins(world: World) -> None:
    world.produce("t", batch_of(7))
    delete(world, 5)
    lsn = world.shard.store.wal.next_lsn
    row = delete(world, 3)
    assert (row.error_code, row.low_watermark) == (0, 5)
    assert world.shard.store.wal.next_lsn == lsn, "nothing is written for it"


def test_a_compacted_topic_keeps_its_records_unless_it_deletes_too(world: World) -> None:
    world.create_topic("c", cleanup_policy="compact")
    world.create_topic("cd", cleanup_policy="compact,delete")
    for topic in ("c", "cd"):
        world.produce(topic, batch_of(3))
    assert delete(world, 1, topic="c").error_code == ErrorCode.POLICY_VIOLATION
    assert delete(world, 1, topic="cd").error_code == 0


def test_each_partition_has_its_own_answer(world: World) -> None:
    world.produce("t", batch_of(4), partition=1)
    request = delete_request(2, partition=1)
    row = type(request.topics[0].partitions[0])
    request.topics[0].partitions += [
        row(partition_index=0, offset=1),
        row(partition_index=7, offset=0),
    ]
    request.topics.append(type(request.topics[0])(name="x", partitions=[row(partition_index=0)]))
    topics = world.call(request, 2).topics
    assert [(r.partition_index, r.error_code) for r in topics[0].partitions] == [
        (1, 0),
        (0, ErrorCode.OFFSET_OUT_OF_RANGE),
        (7, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ]
    assert topics[1].partitions[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_it_is_answered_when_the_new_start_is_durable_and_not_before(world: World) -> None:
    world.produce("t", batch_of(7))
    world.holds_disk = True
    world.send(delete_request(5), 2, conn=2)
    world.send(delete_request(4), 2, conn=3)
    assert world.receive(21, 2, conn=2) is None
    assert part(world).log.start_offset == 0
    world.release_disk()
    for conn in (2, 3):
        answer = world.receive(21, 2, conn=conn)
        assert answer is not None
        row = answer[1].topics[0].partitions[0]
        assert (row.error_code, row.low_watermark) == (0, 5)
    assert world.shard.counts.trims == 1, "one entry for both"


def test_one_that_is_not_committed_in_time_is_answered_so_and_may_still_happen(
    world: World,
) -> None:
    world.produce("t", batch_of(7))
    world.holds_disk = True
    world.send(delete_request(5, timeout_ms=200), 2, conn=2)
    world.pass_time(300)
    answer = world.receive(21, 2, conn=2)
    assert answer is not None
    row = answer[1].topics[0].partitions[0]
    assert (row.error_code, row.low_watermark) == (ErrorCode.REQUEST_TIMED_OUT, -1)
    world.release_disk()
    assert world.offset_at("t", -2).offset == 5


def test_a_topic_deleted_meanwhile_answers_all_who_wait(world: World) -> None:
    world.produce("t", batch_of(7))
    world.holds_disk = True
    world.send(delete_request(5), 2, conn=2)
    world.shard.groups.changed(TopicDeleted(world.shard.groups.cluster.topics["t"]))
    world.run([])
    answer = world.receive(21, 2, conn=2)
    assert answer is not None
    row = answer[1].topics[0].partitions[0]
    assert row.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_full_log_takes_no_more_of_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.produce("t", batch_of(7))
    wal = world.shard.store.wal
    monkeypatch.setattr(type(wal), "room_bytes", property(lambda _self: -200_000))
    assert delete(world, 5).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    monkeypatch.undo()
    assert delete(world, 5).low_watermark == 5


# --- files that go while somebody reads them ---


def test_a_fetch_of_a_file_that_goes_meanwhile_is_out_of_range_and_no_damage(world: World) -> None:
    fill(world, 20)
    world.holds_disk, world.kinds_held = True, (SearchRead, Read)
    world.send(world.fetch_request("t", 0), 12, conn=2)
    assert world.held, "the batch is read from disk"
    assert delete(world, 31).low_watermark == 31
    world.shard.store.checkpointing.wanted = True
    world.run([])
    assert len(world.disk.names(part(world).log.descriptor.directory)) < 10
    world.release_disk()
    answer = world.receive(1, 12, conn=2)
    assert answer is not None
    row = answer[1].responses[0].partitions[0]
    assert (row.error_code, row.log_start_offset) == (ErrorCode.OFFSET_OUT_OF_RANGE, 31)
    assert not [line for line in world.logs if "offline" in line]
    assert world.fetch("t", 31).error_code == 0


def test_a_time_looked_for_in_a_file_that_goes_meanwhile_is_found_behind_it(world: World) -> None:
    fill(world, 20)
    world.holds_disk, world.kinds_held = True, (SearchRead, Read)
    request = world_request(WALL_MS)
    world.send(request, 7, conn=2)
    assert world.held
    delete(world, 31)
    world.shard.store.checkpointing.wanted = True
    world.run([])
    world.release_disk()
    answer = world.receive(2, 7, conn=2)
    assert answer is not None
    row = answer[1].topics[0].partitions[0]
    assert (row.error_code, row.offset, row.timestamp) == (0, 31, WALL_MS + 310)
    assert part(world).serves


def test_files_of_deleted_records_are_removed_without_more_writes(world: World) -> None:
    fill(world, 20)
    directory = part(world).log.descriptor.directory
    before = len(world.disk.names(directory))
    delete(world, -1)
    interval_ms = world.config.log.retention_check_interval_ms
    world.pass_time(interval_ms + 1000)
    world.pass_time(1000)
    assert before > 6
    assert len([n for n in world.disk.names(directory) if n.endswith(".log")]) == 0


# --- times ---


def world_request(timestamp: int) -> Message:
    inner = message_type("ListOffsetsRequest.ListOffsetsPartition")(timestamp=timestamp)
    row = message_type("ListOffsetsRequest.ListOffsetsTopic")(name="t", partitions=[inner])
    return message_type("ListOffsetsRequest")(replica_id=-1, topics=[row])


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_time_below_the_start_leads_to_the_start(world: World, *, is_cold: bool) -> None:
    """Also inside a batch, and where whole batches below the start have such records."""
    if is_cold:
        fill(world, 6, value_bytes=9000)
    else:
        for number in range(6):
            world.produce("t", batch_of(2, timestamp_ms=WALL_MS + 20 * number, step_ms=10))
    for start in (1, 4, 7):
        assert delete(world, start).low_watermark == start
        row = world.offset_at("t", 0)
        assert (row.offset, row.timestamp) == (start, WALL_MS + 10 * start)
        later = world.offset_at("t", WALL_MS + 95)
        assert (later.offset, later.timestamp) == (10, WALL_MS + 100)
        assert world.offset_at("t", WALL_MS + 111).offset == -1


@pytest.mark.parametrize("is_cold", [False, True])
@pytest.mark.parametrize("codec", [Compression.NONE, Compression.GZIP])
def test_times_that_go_back_are_found_behind_a_trimmed_newest_one(
    world: World, codec: Compression, *, is_cold: bool
) -> None:
    """The rows of a segment only tell of the newest time so far: batches are walked there."""
    times = (500, 9000, 100, 300, 200, 300)
    for time in times:
        batch = batch_of(2, timestamp_ms=time, step_ms=1, codec=codec, value=bytes(9000))
        world.produce("t", batch)
    if is_cold:
        go_cold(world)
    delete(world, 3)  # the second record of the newest batch is left
    assert (world.offset_at("t", 200).offset, world.offset_at("t", -3).offset) == (3, 3)
    delete(world, 4)
    found = [
        (row.offset, row.timestamp) for row in (world.offset_at("t", t) for t in (101, 200, 302))
    ]
    assert found == [(5, 101), (6, 300), (-1, -1)]
    newest = world.offset_at("t", -3)
    assert (newest.offset, newest.timestamp) == (7, 301)
    delete(world, -1)
    assert (world.offset_at("t", 0).offset, world.offset_at("t", -3).offset) == (-1, -1)


def test_special_times_have_versions_they_are_known_from(world: World) -> None:
    assert world.offset_at("t", -3, version=6).error_code == ErrorCode.UNSUPPORTED_VERSION
    for timestamp in (-4, -5, -6, -99):
        assert world.offset_at("t", timestamp).error_code == ErrorCode.UNSUPPORTED_VERSION


def test_a_partition_named_twice_is_refused(world: World) -> None:
    request = world_request(-1)
    request.topics[0].partitions *= 2
    rows = world.call(request, 7).topics[0].partitions
    assert [row.error_code for row in rows] == [ErrorCode.INVALID_REQUEST] * 2


# --- OffsetForLeaderEpoch ---


def epoch_end(world: World, epoch: int, *, version: int = 4, **more: Any) -> Message:
    row = message_type("OffsetForLeaderEpochRequest.OffsetForLeaderPartition")
    topic = message_type("OffsetForLeaderEpochRequest.OffsetForLeaderTopic")(
        topic="t", partitions=[row(**{"partition": 0, "leader_epoch": epoch} | more)]
    )
    request = message_type("OffsetForLeaderEpochRequest")(topics=[topic])
    found: Message = world.call(request, version).topics[0].partitions[0]
    return found


@pytest.mark.parametrize("version", range(2, 5))
def test_where_an_epoch_ended(world: World, version: int) -> None:
    first = world.offset_at("t", -1).leader_epoch
    world.produce("t", batch_of(3))
    world.crash()
    world.crash()  # an epoch without records
    world.produce("t", batch_of(2))
    ends = [
        (row.leader_epoch, row.end_offset)
        for row in (
            epoch_end(world, epoch, version=version) for epoch in range(first - 1, first + 4)
        )
    ]
    assert ends == [(first - 1, 0), (first, 3), (first, 3), (first + 2, 5), (-1, -1)]
    delete(world, 3)
    row = epoch_end(world, first, version=version)
    assert (row.leader_epoch, row.end_offset) == (first, 3)
    delete(world, 4)
    row = epoch_end(world, first, version=version)
    assert (row.leader_epoch, row.end_offset) == (first, 4)


def test_who_asks_with_another_epoch_than_the_leaders_is_fenced(world: World) -> None:
    world.crash()
    now = world.offset_at("t", -1).leader_epoch
    older = epoch_end(world, now, current_leader_epoch=now - 1)
    assert (older.error_code, older.end_offset) == (ErrorCode.FENCED_LEADER_EPOCH, -1)
    newer = epoch_end(world, now, current_leader_epoch=now + 1)
    assert newer.error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert epoch_end(world, now, current_leader_epoch=now).error_code == 0
    assert epoch_end(world, now, partition=5).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    delete_topic(world, "t")
    assert epoch_end(world, now).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
