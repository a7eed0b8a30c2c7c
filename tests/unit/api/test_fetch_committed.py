"""What readers of committed transactions see, from memory and from segments."""

import random
from typing import Any

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.ids import Offset
from corelane.wire.compiler import Message, message_type
from corelane.wire.records import batch_records, split_batches
from tests.unit.api.transactions import NONE, TransactionWorld, Writer
from tests.unit.api.world import WALL_MS

COMMITTED = 1
SEGMENT_BYTES = "4096"


@pytest.fixture
def world() -> TransactionWorld:
    made = TransactionWorld()
    assert made.create_topic("t", internal_segment_bytes=SEGMENT_BYTES).error_code == 0
    return made


def flush(world: TransactionWorld) -> None:
    """Have everything that is committed in segments, and none of it in memory after a start."""
    world.shard.store.checkpointing.wanted = True
    world.run([])
    world.crash()
    assert world.partition().log.tail_offset == world.ends[1]


def fetch(world: TransactionWorld, offset: int, **fields: Any) -> Message:
    return world.fetch("t", offset, isolation_level=COMMITTED, **fields)


def visible(row: Message, offset: int) -> list[tuple[int, bytes | None]]:
    """Return the records as Java's CompletedFetch takes them: the abort list in order, by heap."""
    aborted = sorted(
        ((each.first_offset, each.producer_id) for each in row.aborted_transactions or ()),
    )
    given = [(each.first_offset, each.producer_id) for each in row.aborted_transactions or ()]
    assert given == aborted, "in the order of first offsets"
    active: set[int] = set()
    found: list[tuple[int, bytes | None]] = []
    for batch in split_batches(row.records or b""):
        while aborted and aborted[0][0] <= batch.last_offset:
            active.add(aborted.pop(0)[1])
        producer_id = batch.producer.producer_id
        if batch.is_control:
            (marker,) = batch_records(batch, "t", 0)
            assert marker.key is not None
            if marker.key[3] == 0:
                active.discard(producer_id)
            continue
        if batch.is_transactional and producer_id in active:
            continue
        found += [(r.offset, r.value) for r in batch_records(batch, "t", 0) if r.offset >= offset]
    return found


def test_open_and_aborted_transactions_are_not_seen(world: TransactionWorld) -> None:
    first, second = Writer(world, 1), Writer(world, 2)
    first.write(value=b"a")
    second.write(value=b"b")
    world.marker(1, commits=False)
    assert fetch(world, 0).last_stable_offset == 1
    row = fetch(world, 0)
    assert (row.high_watermark, len(row.records)) == (3, len(first.batch()))
    assert visible(row, 0) == []
    assert visible(world.fetch("t", 0), 0) == [(0, b"a"), (1, b"b")], "who wants all sees all"
    assert world.fetch("t", 0).last_stable_offset == 1, "and is told the same end"
    world.marker(2)
    assert visible(fetch(world, 0), 0) == [(1, b"b")]


@pytest.mark.parametrize("version", [4, 5, 11, 12, 17])
def test_aborted_transactions_are_told_in_every_version(
    world: TransactionWorld, version: int
) -> None:
    Writer(world, 1).write(value=b"a")
    world.marker(1, commits=False)
    row = fetch(world, 0, version=version)
    assert [(e.producer_id, e.first_offset) for e in row.aborted_transactions] == [(1, 0)]
    assert not world.fetch("t", 0, version=version).aborted_transactions


def test_only_what_lies_in_the_answer_is_told(world: TransactionWorld) -> None:
    """Lists without that filter grow with the log (and told librdkafka of pids far ahead)."""
    writer = Writer(world, 1)
    for _ in range(10):
        assert writer.write(value=b"x") is NONE
        world.marker(1, commits=False)
    one = fetch(world, 0, partition_max_bytes=1, max_bytes=1)
    assert [each.first_offset for each in one.aborted_transactions] == [0]
    rest = fetch(world, 14)
    assert [each.first_offset for each in rest.aborted_transactions] == [14, 16, 18]
    inside = fetch(world, 15)
    assert [each.first_offset for each in inside.aborted_transactions] == [14, 16, 18]


def test_segments_are_read_up_to_the_last_stable_offset_and_no_further(
    world: TransactionWorld,
) -> None:
    """What is flushed is committed in raft's sense, and may be of an open transaction."""
    first, second = Writer(world, 1), Writer(world, 2)
    for number in range(20):
        assert first.write(value=b"a%d" % number) is NONE
        assert world.marker(1, commits=number % 2 == 0) == [NONE]
    assert second.write(value=b"open") is NONE
    for _ in range(20):
        assert first.write(value=bytes(300)) is NONE
        assert world.marker(1) == [NONE]
    flush(world)
    assert world.ends == (40, 81)
    found, offset = [], 0
    while offset < 40:
        row = fetch(world, offset, partition_max_bytes=1_000)
        assert row.error_code == 0
        assert row.records, "whoever reads below the end gets on"
        assert max(batch.last_offset for batch in split_batches(row.records)) < 40
        found += visible(row, offset)
        offset = max(batch.last_offset for batch in split_batches(row.records)) + 1
    assert [value for _, value in found] == [b"a%d" % number for number in range(0, 20, 2)]
    assert not fetch(world, 40).records
    assert fetch(world, 60).error_code == 0, "below the high watermark nothing is out of range"
    assert fetch(world, 82).error_code == ErrorCode.OFFSET_OUT_OF_RANGE
    world.marker(2, commits=False)
    row = fetch(world, 40)
    assert [each.first_offset for each in row.aborted_transactions] == [40]


def test_a_reader_that_waits_is_woken_by_the_marker_and_not_by_records(
    world: TransactionWorld,
) -> None:
    writer = Writer(world, 1)
    writer.write(value=b"a")
    request = world.fetch_request("t", 0, isolation_level=COMMITTED, max_wait_ms=10_000)
    world.send(request, 12, conn=5)
    assert world.receive(1, 12, 5) is None
    for _ in range(3):
        writer.write()
        assert world.receive(1, 12, 5) is None, "these are not for it"
        deadline_ms = world.shard.next_deadline_ms()
        assert deadline_ms is None or deadline_ms > world.now_ms + 10, "nor does it spin"
    world.marker(1)
    answer = world.receive(1, 12, 5)
    assert answer is not None
    assert len(visible(answer[1].responses[0].partitions[0], 0)) == 4


def test_bytes_that_may_not_be_seen_do_not_count_as_enough(world: TransactionWorld) -> None:
    Writer(world, 1).write(value=bytes(1_000))
    world.produce("t", Writer(world, 2).batch(plain=True, value=bytes(1_000)))
    fields = {"isolation_level": COMMITTED, "max_wait_ms": 500, "min_bytes": 100}
    world.send(world.fetch_request("t", 0, **fields), 12, conn=5)
    assert world.receive(1, 12, 5) is None
    world.pass_time(600)
    answer = world.receive(1, 12, 5)
    assert answer is not None
    row = answer[1].responses[0].partitions[0]
    assert (row.records, row.last_stable_offset) == (b"", 0)


def ends_at(world: TransactionWorld, timestamp: int, isolation: int) -> Message:
    part = message_type("ListOffsetsRequest.ListOffsetsPartition")(timestamp=timestamp)
    topic = message_type("ListOffsetsRequest.ListOffsetsTopic")(name="t", partitions=[part])
    request = message_type("ListOffsetsRequest")(
        replica_id=-1, isolation_level=isolation, topics=[topic]
    )
    row: Message = world.call(request, 7).topics[0].partitions[0]
    return row


def test_the_end_for_a_reader_of_committed_transactions_is_the_last_stable_offset(
    world: TransactionWorld,
) -> None:
    plain = Writer(world, 9)
    world.produce("t", plain.batch(2, plain=True))
    world.wall_ms += 1_000
    Writer(world, 1).write(value=b"a")
    for isolation, end, by_time, newest in ((0, 3, 2, 2), (COMMITTED, 2, -1, -1)):
        assert ends_at(world, -1, isolation).offset == end
        assert ends_at(world, -2, isolation).offset == 0
        found = ends_at(world, WALL_MS + 500, isolation)
        assert found.offset == by_time
        assert (found.timestamp == -1) == (by_time == -1)
        assert ends_at(world, -3, isolation).offset == newest
        assert ends_at(world, WALL_MS, isolation).offset == 0


@pytest.mark.parametrize("seed", range(6))
def test_readers_see_what_was_committed_once_and_in_order_from_wherever_they_begin(
    world: TransactionWorld, seed: int
) -> None:
    """Against a second version that knows every fate, with flushes, trims and crashes between."""
    rng = random.Random(seed)
    writers = [Writer(world, number) for number in range(1, 5)]
    open_by: dict[int, list[tuple[int, bytes]]] = {}
    committed: list[tuple[int, bytes]] = []
    counter = 0
    for _ in range(120):
        match rng.randrange(12):
            case 0:
                flush(world)
            case 1 if rng.random() < 0.3:
                world.crash()
            case 2 if rng.random() < 0.5:
                partition = world.partition()
                upto = world.ends[0]
                if upto > partition.log.start_offset:
                    partition.propose_start(
                        Offset(rng.randint(partition.log.start_offset + 1, upto))
                    )
                    world.run([])
            case 3 | 4 | 5:
                if open_by:
                    producer_id = rng.choice(sorted(open_by))
                    commits = rng.random() < 0.5
                    assert world.marker(producer_id, commits=commits) == [NONE]
                    made = open_by.pop(producer_id)
                    committed += made if commits else []
            case _:
                writer = rng.choice(writers)
                counter += 1
                value = b"%d" % counter + bytes(rng.choice([0, 0, 400]))
                offset = world.ends[1]
                assert writer.write(value=value) is NONE
                open_by.setdefault(writer.producer_id, []).append((offset, value))
    stable, start = world.ends[0], world.partition().log.start_offset
    want = sorted(each for each in committed if start <= each[0] < stable)
    for begin in {start, *(rng.randint(start, stable) for _ in range(5))}:
        found: list[tuple[int, bytes | None]] = []
        offset = begin
        while offset < stable:
            row = fetch(world, offset, partition_max_bytes=rng.choice([1, 500, 5_000]))
            assert row.last_stable_offset == stable
            assert row.records
            found += visible(row, offset)
            offset = max(batch.last_offset for batch in split_batches(row.records)) + 1
        assert offset <= stable
        assert found == [each for each in want if each[0] >= begin]
