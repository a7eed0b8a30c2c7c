"""Retention by age and size, by one shard whose clock the test moves."""

from collections import Counter

import pytest

from corelane.shard import retention
from corelane.shard.partition import Partition
from corelane.storage.wal import Wal
from tests.unit.api.transactions import TransactionWorld, Writer
from tests.unit.api.world import WALL_MS, World, batch_of

INTERVAL_MS = 1000
SETTINGS = f'"log.retention.check.interval.ms" = {INTERVAL_MS}\n'
HOUR_MS = 3_600_000
VALUE_BYTES = 10_000


@pytest.fixture
def world() -> World:
    return World(SETTINGS)


def part(world: World, topic: str = "t", number: int = 0) -> Partition:
    found = world.shard.groups.topics[topic.encode()].partition(number)
    assert found is not None
    return found


def produce(world: World, count: int, *, topic: str = "t", partition: int = 0) -> None:
    """Produce single records of now."""
    for _ in range(count):
        batch = batch_of(1, value=bytes(VALUE_BYTES), timestamp_ms=world.wall_ms)
        assert world.produce(topic, batch, partition=partition).error_code == 0


def flush(world: World) -> None:
    world.shard.store.checkpointing.wanted = True
    world.run([])


def passes(world: World, count: int = 2) -> None:
    """Let so many passes happen."""
    for _ in range(count):
        world.pass_time(INTERVAL_MS)
        world.pass_time(100)


def start(world: World, topic: str = "t") -> int:
    return int(world.offset_at(topic, -2).offset)


def test_size_trims_whole_segments_and_leaves_at_least_the_limit(world: World) -> None:
    limit = 100_000
    world.create_topic("t", internal_segment_bytes="35000", retention_bytes=str(limit))
    produce(world, 30)
    flush(world)
    ends = [segment.base_offset for segment in part(world).log.segments.items]
    passes(world)
    size = part(world).log.next_offset - start(world)
    assert start(world) in ends
    assert limit <= size * (VALUE_BYTES + 80) < limit + 36_000
    before = start(world)
    passes(world)
    assert start(world) == before, "nothing more to gain"
    world.crash()
    assert start(world) == before


def test_age_trims_everything_of_a_quiet_partition_down_to_its_last_record(world: World) -> None:
    """Never flushed, in no segment, nothing written any more: it goes all the same, as Kafka's."""
    world.create_topic("t", retention_ms=str(HOUR_MS))
    produce(world, 3)
    world.pass_time(HOUR_MS - 5000)
    passes(world)
    assert start(world) == 0
    world.pass_time(6000)
    passes(world)
    assert start(world) == 3
    produce(world, 1)
    passes(world)
    assert (start(world), world.offset_at("t", -1).offset) == (3, 4)


def test_a_young_record_in_the_same_segment_keeps_the_old_ones(world: World) -> None:
    world.create_topic("t", retention_ms=str(HOUR_MS))
    produce(world, 3)
    world.pass_time(HOUR_MS // 2)
    produce(world, 1)
    world.pass_time(HOUR_MS * 3 // 4)
    passes(world)
    assert start(world) == 0


def test_segment_ms_lets_old_records_of_a_quiet_partition_go(world: World) -> None:
    """A roll is due at the next append; what is not written yet is written to see it."""
    world.create_topic("t", retention_ms=str(HOUR_MS), segment_ms=str(HOUR_MS // 4))
    produce(world, 3)
    world.pass_time(HOUR_MS // 2)
    produce(world, 1)
    world.pass_time(HOUR_MS * 3 // 4)
    passes(world, 3)
    assert start(world) == 3


def test_no_limit_and_compacted_topics_are_left_alone(world: World) -> None:
    world.create_topic("forever", retention_ms="-1", internal_segment_bytes="35000")
    world.create_topic(
        "compact", cleanup_policy="compact", retention_ms="1000", internal_segment_bytes="35000"
    )
    world.create_topic(
        "both", cleanup_policy="compact,delete", retention_ms="1000", internal_segment_bytes="35000"
    )
    for topic in ("forever", "compact", "both"):
        produce(world, 10, topic=topic)
    flush(world)
    world.pass_time(30 * 24 * HOUR_MS)
    passes(world)
    assert [start(world, topic) for topic in ("forever", "compact", "both")] == [0, 0, 10]


def test_many_partitions_are_looked_at_a_few_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3 * retention.SLICE_PARTITIONS
    world.create_topic("t", count, retention_ms=str(HOUR_MS))
    for number in range(0, count, 7):
        produce(world, 1, partition=number)
    looked_at = retention.Retention._look_at
    turns: Counter[int] = Counter()

    def counted(self: retention.Retention, partition: Partition) -> None:
        turns[world.now_ms] += 1
        looked_at(self, partition)

    monkeypatch.setattr(retention.Retention, "_look_at", counted)
    world.wall_ms += 2 * HOUR_MS
    passes(world, 1)
    assert world.shard.counts.trims == len(range(0, count, 7))
    assert turns.total() == count
    assert max(turns.values()) <= retention.SLICE_PARTITIONS


def test_without_room_in_the_log_a_later_pass_trims(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.create_topic("t", retention_ms=str(HOUR_MS))
    produce(world, 3)
    world.wall_ms += 2 * HOUR_MS
    with monkeypatch.context() as patch:
        patch.setattr(Wal, "room_bytes", property(lambda _self: -200_000))
        passes(world)
        assert part(world).log.start_offset == 0
    passes(world)
    assert start(world) == 3


def test_limits_of_the_broker_count_where_a_topic_has_none() -> None:
    world = World(SETTINGS + f'"log.retention.ms" = {HOUR_MS}\n')
    world.create_topic("t")
    produce(world, 1)
    world.pass_time(2 * HOUR_MS)
    passes(world)
    assert start(world) == 1
    assert world.wall_ms > WALL_MS


def test_records_of_an_open_transaction_are_kept_until_it_is_decided() -> None:
    """A trim is never above the last stable offset (multiraft.md E)."""
    world = TransactionWorld(SETTINGS)
    world.create_topic("t", internal_segment_bytes="35000", retention_bytes="50000")
    produce(world, 5)
    Writer(world, 7).write(value=bytes(VALUE_BYTES))
    produce(world, 20)
    flush(world)
    passes(world)
    assert 0 < start(world) <= 5
    assert world.ends[0] == 5
    world.marker(7)
    passes(world)
    assert start(world) > 5
