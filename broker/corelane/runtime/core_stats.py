"""What one core has counted, gathered when somebody asks: from the shard, the net and the disk."""

import os
import time
from collections.abc import Mapping
from typing import Final

from corelane.api.table import API_TABLE
from corelane.model.metrics import (
    OTHER_TOPICS,
    TOPICS_SHOWN_MAX,
    UNSTABLE_SHOWN_MAX,
    ShardCounts,
    ShardGauges,
)
from corelane.runtime.disk import NativeDisk
from corelane.runtime.stats import Names, flatten
from corelane.shard.partition import Partition, Topic
from corelane.shard.shard import Shard
from corelane_native import Arena, Net

API_NAMES: Final = {key: row.name for key, row in API_TABLE.items()}
LOOK_EVERY_BEATS: Final = 5
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class CoreStats:
    """Reads counters that others keep; counts nothing itself."""

    def __init__(self, shard: Shard, net: Net, disk: NativeDisk, arena: Arena) -> None:
        self._shard = shard
        self._net = net
        self._disk = disk
        self._arena = arena
        self._names = Names(API_NAMES, [each.name for each in shard.config.listeners])
        self._first_lsn = shard.store.wal.durable_lsn
        self._topics = TopicShare()
        self._beats = 0
        self._offline = 0
        self._opening: set[int] = set()
        self._opening_long = 0

    def values(self) -> dict[str, float]:
        """Return everything as flat numbers (`stats.flatten`)."""
        counts = self._shard.counts
        net = self._net.stats()
        counts.bytes_received = net.bytes_in
        counts.bytes_sent = net.bytes_out
        store = self._shard.store
        counts.wal_writes = store.wal.writes
        counts.wal_bytes = store.wal.bytes_written
        counts.wal_write_us = self._disk.wal_write_us
        counts.segment_writes = self._disk.segment_writes
        counts.segment_bytes = store.segment_bytes_written
        counts.trimmed_bytes = store.segment_bytes_trimmed
        counts.wal_records = store.wal.durable_lsn - self._first_lsn
        counts.checkpoints = store.checkpointing.count
        counts.fetch_sessions_evicted = self._shard.fetch_sessions.evicted
        counts.cpu_us = time.process_time_ns() // 1000
        gauges = self._gauges()
        self._topics.gather(self._shard.groups.topics_by_id, counts, gauges)
        flat = flatten(counts, gauges, self._names)
        if net.refused:
            flat["connections_accepted//refused"] = net.refused  # C knows no listener's name
        return flat

    def groups_offline(self) -> int:
        """Return how many groups here are damaged, as of a few heartbeats ago."""
        self._look()
        return self._offline

    def damaged_names(self) -> tuple[str, ...]:
        """Return what is said of replicas here that are being repaired."""
        return self._shard.groups.repairs.names()

    def groups_opening(self) -> int:
        """Return how many groups here have had no leader for some heartbeats."""
        return self._opening_long

    def _look(self) -> None:
        """Look at every group now and then: there may be many."""
        if self._beats % LOOK_EVERY_BEATS == 0:
            members = self._shard.groups.members
            repairs = self._shard.groups.repairs.open
            self._offline = sum(
                member.is_damaged and group not in repairs for group, member in members.items()
            )
            opening = {
                int(group)
                for group, member in members.items()
                if not (member.serves or member.follows or member.is_damaged)
            }
            self._opening_long = len(opening & self._opening)
            self._opening = opening
        self._beats += 1

    def _gauges(self) -> ShardGauges:
        gauges = ShardGauges()
        shard = self._shard
        net = self._net.stats()
        members = [each for each in shard.groups.members.values() if isinstance(each, Partition)]
        gauges.connections = dict.fromkeys(range(len(self._names.listeners)), 0)
        for connection in shard.connections.values():
            if connection.conn >= 0:  # the others are visitors of siblings
                gauges.connections[connection.listener // 2] += 1
                gauges.requests_waiting += connection.waiting
        topics = shard.groups.topics_by_id.values()
        gauges.topics = len(topics)
        gauges.partitions = sum(len(topic.partitions) for topic in topics)
        gauges.groups = len(shard.groups.members)
        gauges.partitions_led = sum(member.serves for member in members)
        repairs = shard.groups.repairs.open
        offline = sum(member.is_damaged and member.group not in repairs for member in members)
        gauges.damaged = offline + len(repairs)
        gauges.fetch_sessions = len(shard.fetch_sessions)
        gauges.fetch_session_rows = shard.fetch_sessions.row_count
        _tell_unstable(members, shard.now_ms, gauges)
        gauges.producers = sum(len(member.producers) for member in members)
        gauges.segments = sum(len(member.log.segments.items) for member in members)
        gauges.arena_bytes = self._arena.bytes_in_use
        gauges.receive_bytes = net.receive_bytes
        gauges.wal_flight_bytes = shard.store.wal.flight_bytes
        gauges.is_disk_full = int(shard.store.is_full)
        gauges.rss_bytes = resident_bytes()
        return gauges


def _tell_unstable(members: list[Partition], now_ms: int, gauges: ShardGauges) -> None:
    """Fill in how far readers of committed records are behind, where they are."""
    behind = [
        (each.log.committed_offset - each.last_stable_offset, each)
        for each in members
        if each.transactions.open_count and each.serves
    ]
    behind.sort(key=lambda row: -row[0])
    for count, each in behind[:UNSTABLE_SHOWN_MAX]:
        name, number = each.topic.name, each.number
        gauges.unstable_records.setdefault(name, {})[number] = count
        age_us = each.transactions.oldest_ms(now_ms) * 1000
        gauges.transaction_age_us.setdefault(name, {})[number] = age_us


class TopicShare:
    """Which topics have numbers of their own; those of all others are added up.

    Invariant T1: a topic keeps its place until it is deleted, so that no sum ever goes back.
    """

    def __init__(self) -> None:
        self._shown: dict[bytes, Topic] = {}
        self._others: dict[bytes, Topic] = {}
        self._gone = [0, 0, 0, 0]

    def gather(
        self, topics: Mapping[bytes, Topic], counts: ShardCounts, gauges: ShardGauges
    ) -> None:
        """Fill in what is counted by topic."""
        self._follow(topics)
        columns = (
            counts.topic_bytes_in,
            counts.topic_records_in,
            counts.topic_bytes_out,
            counts.topic_records_out,
        )
        for column in columns:
            column.clear()
        for topic in self._shown.values():
            gauges.log_bytes[topic.name] = log_bytes(topic)
            for column, count in zip(columns, _counts_of(topic), strict=True):
                if count:
                    column[topic.name] = count
        if self._others or any(self._gone):
            gauges.log_bytes[OTHER_TOPICS] = sum(map(log_bytes, self._others.values()))
            rows = [self._gone, *map(_counts_of, self._others.values())]
            for number, column in enumerate(columns):
                column[OTHER_TOPICS] = sum(row[number] for row in rows)

    def _follow(self, topics: Mapping[bytes, Topic]) -> None:
        for topic_id in self._shown.keys() - topics.keys():
            del self._shown[topic_id]
        for topic_id in self._others.keys() - topics.keys():
            last = _counts_of(self._others.pop(topic_id))
            self._gone = [before + more for before, more in zip(self._gone, last, strict=True)]
        for topic_id, topic in topics.items():
            if topic_id not in self._shown and topic_id not in self._others:
                is_shown = len(self._shown) < TOPICS_SHOWN_MAX
                (self._shown if is_shown else self._others)[topic_id] = topic


def _counts_of(topic: Topic) -> list[int]:
    counts = topic.counts
    return [counts.bytes_in, counts.records_in, counts.bytes_out, counts.records_out]


def log_bytes(topic: Topic) -> int:
    """Return what this core's partitions of a topic hold, as DescribeLogDirs counts it."""
    logs = [partition.log for partition in topic.partitions if partition is not None]
    on_disk = sum(segment.log.size_bytes for log in logs for segment in log.segments.items)
    return on_disk + sum(log.unflushed_bytes for log in logs)


def resident_bytes() -> int:
    """Return this process' resident memory (proc_pid_statm(5))."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (each scrape: no Path is made)
        return int(file.read().split()[1]) * _PAGE_BYTES
