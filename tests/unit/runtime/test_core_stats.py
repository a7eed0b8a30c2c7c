"""What a core says of itself: gathered from a real shard, and bounded by topics."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from corelane.cluster.topic_config import TopicSettings
from corelane.model.ids import GroupId, TopicId
from corelane.model.metrics import (
    LATENCY_BOUNDS_US,
    OTHER_TOPICS,
    TOPICS_SHOWN_MAX,
    Histogram,
    ShardCounts,
    ShardGauges,
)
from corelane.runtime import core_stats
from corelane.runtime.core_stats import LOOK_EVERY_BEATS, CoreStats, TopicShare
from corelane.shard.partition import Topic
from tests.unit.api.transactions import TransactionWorld, Writer
from tests.unit.api.world import World, batch_of


class FakeNet:
    refused = 0

    def stats(self) -> Any:
        return SimpleNamespace(
            bytes_in=11, bytes_out=12, refused=self.refused, receive_bytes=13, connections=1
        )


def stats_of(world: World, net: FakeNet | None = None) -> CoreStats:
    disk = SimpleNamespace(wal_write_us=Histogram(LATENCY_BOUNDS_US), segment_writes=4)
    return CoreStats(world.shard, cast("Any", net or FakeNet()), cast("Any", disk), world.arena)


def test_a_core_that_did_something_says_so() -> None:
    world = World()
    world.create_topic("t", 3)
    world.produce("t", batch_of(3))
    world.fetch("t", 0)
    flat = stats_of(world).values()
    expected = {
        "topics": 1,
        "partitions": 3,
        "partitions_led": 3,
        "groups": 4,
        "damaged": 0,
        "connections/PLAINTEXT": 1,
        "topic_records_in/t": 3,
        "topic_records_out/t": 3,
        "bytes_received": 11,
        "segment_writes": 4,
        "is_disk_full": 0,
    }
    assert {key: flat[key] for key in expected} == expected
    assert flat["log_bytes/t"] == len(batch_of(3)), "what is not in a segment yet counts too"
    assert flat["rss_bytes"] > 1 << 20
    assert flat["cpu_us"] > 0


def test_connections_that_the_net_refused_are_of_no_listener() -> None:
    net = FakeNet()
    world = World()
    assert "connections_accepted//refused" not in stats_of(world, net).values()
    net.refused = 3
    assert stats_of(world, net).values()["connections_accepted//refused"] == 3


def test_a_group_that_has_just_been_made_is_not_told_as_leaderless() -> None:
    world = World()
    world.create_topic("t", 2)
    stats = stats_of(world)
    members = world.shard.groups.members
    opening = [
        SimpleNamespace(is_damaged=False, serves=False, follows=False),
        SimpleNamespace(is_damaged=True, serves=False, follows=False),
    ]
    members[GroupId(max(members) + 1)] = cast("Any", opening[0])
    members[GroupId(max(members) + 1)] = cast("Any", opening[1])
    assert (stats.groups_offline(), stats.groups_opening()) == (1, 0)
    for _ in range(LOOK_EVERY_BEATS - 1):
        assert (stats.groups_offline(), stats.groups_opening()) == (1, 0)
    assert (stats.groups_offline(), stats.groups_opening()) == (1, 1), "it still has no leader"
    opening[0].serves = True
    for _ in range(LOOK_EVERY_BEATS):
        stats.groups_offline()
    assert stats.groups_opening() == 0


class Topics:
    """Topics that come, work and go."""

    def __init__(self) -> None:
        self.topics: dict[bytes, Topic] = {}
        self.share = TopicShare()

    def create(self, name: str) -> Topic:
        topic = Topic(name, TopicId(name.encode()), cast("TopicSettings", None))
        self.topics[topic.topic_id] = topic
        return topic

    def shown(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return bytes in and log bytes by topic."""
        counts, gauges = ShardCounts(), ShardGauges()
        self.share.gather(self.topics, counts, gauges)
        return counts.topic_bytes_in, gauges.log_bytes


def test_topics_beyond_the_limit_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_stats, "TOPICS_SHOWN_MAX", 2)
    topics = Topics()
    for number, name in enumerate("abcd", 1):
        topics.create(name).counts.bytes_in = number
    bytes_in, log_bytes = topics.shown()
    assert bytes_in == {"a": 1, "b": 2, OTHER_TOPICS: 3 + 4}
    assert log_bytes == {"a": 0, "b": 0, OTHER_TOPICS: 0}


def test_a_sum_of_topics_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_stats, "TOPICS_SHOWN_MAX", 1)
    topics = Topics()
    for name in "abc":
        topics.create(name).counts.bytes_in = 5
    assert topics.shown()[0] == {"a": 5, OTHER_TOPICS: 10}
    del topics.topics[b"b"]
    assert topics.shown()[0] == {"a": 5, OTHER_TOPICS: 10}, "what was done stays done"
    del topics.topics[b"a"]
    topics.create("d").counts.bytes_in = 1
    assert topics.shown()[0] == {"d": 1, OTHER_TOPICS: 10}, "c keeps its place among the others"
    del topics.topics[b"c"]
    del topics.topics[b"d"]
    assert topics.shown()[0] == {OTHER_TOPICS: 10}


def test_the_numbers_of_one_core_are_few_however_many_topics_there_are() -> None:
    topics = Topics()
    for number in range(3 * TOPICS_SHOWN_MAX):
        topics.create(f"t{number}").counts.bytes_in = 1
    bytes_in, log_bytes = topics.shown()
    assert len(bytes_in) == len(log_bytes) == TOPICS_SHOWN_MAX + 1
    assert sum(bytes_in.values()) == 3 * TOPICS_SHOWN_MAX


def test_how_far_readers_of_committed_records_are_behind_is_told() -> None:
    """A partition with an open transaction, as long as there is one."""
    world = TransactionWorld()
    world.create_topic("t", 3)
    writer = Writer(world, 7)
    writer.write(5, number=1)
    flat = stats_of(world).values()
    assert {key: value for key, value in flat.items() if "unstable" in key} == {
        "unstable_records/t/1": 5
    }
    assert flat["transaction_age_us/t/1"] == 0
    for _ in range(4):
        world.pass_time(10_000)
    assert stats_of(world).values()["transaction_age_us/t/1"] >= 20_000_000
    world.marker(7, number=1)
    assert "unstable_records/t/1" not in stats_of(world).values()
