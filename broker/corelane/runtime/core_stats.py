"""What one core has counted, gathered when somebody asks: from the shard, the net and the disk."""

from typing import Final

from corelane.api.table import API_TABLE
from corelane.model.metrics import ShardGauges
from corelane.runtime.disk import NativeDisk
from corelane.runtime.stats import flatten
from corelane.shard.partition import Partition
from corelane.shard.shard import Shard
from corelane_native import Arena, Net

API_NAMES: Final = {key: row.name for key, row in API_TABLE.items()}
OFFLINE_EVERY_BEATS: Final = 5


class CoreStats:
    """Reads counters that others keep; counts nothing itself."""

    def __init__(self, shard: Shard, net: Net, disk: NativeDisk, arena: Arena) -> None:
        self._shard = shard
        self._net = net
        self._disk = disk
        self._arena = arena
        self._first_lsn = shard.store.wal.durable_lsn
        self._beats = 0
        self._offline = 0

    def values(self) -> dict[str, float]:
        """Return everything as flat numbers (`stats.flatten`)."""
        counts = self._shard.counts
        net = self._net.stats()
        counts.connections_accepted = net.accepted
        counts.connections_closed = net.closed
        counts.bytes_received = net.bytes_in
        counts.bytes_sent = net.bytes_out
        store = self._shard.store
        counts.wal_writes = store.wal.writes
        counts.wal_bytes = store.wal.bytes_written
        counts.wal_write_us = self._disk.wal_write_us
        counts.segment_writes = self._disk.segment_writes
        counts.segment_bytes = store.segment_bytes_written
        counts.wal_records = store.wal.durable_lsn - self._first_lsn
        counts.checkpoints = store.checkpointing.count
        return flatten(counts, self._gauges(), API_NAMES)

    def groups_offline(self) -> int:
        """Return how many groups here are damaged, as of a few heartbeats ago: it looks at all."""
        if self._beats % OFFLINE_EVERY_BEATS == 0:
            members = self._shard.groups.members.values()
            self._offline = sum(member.is_damaged for member in members)
        self._beats += 1
        return self._offline

    def _gauges(self) -> ShardGauges:
        gauges = ShardGauges()
        shard = self._shard
        net = self._net.stats()
        members = [each for each in shard.groups.members.values() if isinstance(each, Partition)]
        gauges.connections = net.connections
        gauges.requests_waiting = sum(len(each.slots) for each in shard.connections.values())
        gauges.partitions = len(members)
        gauges.partitions_led = sum(member.serves for member in members)
        gauges.partitions_offline = sum(member.is_damaged for member in members)
        gauges.producers = sum(len(member.producers) for member in members)
        gauges.arena_bytes = self._arena.bytes_in_use
        gauges.receive_bytes = net.receive_bytes
        gauges.wal_flight_bytes = shard.store.wal.flight_bytes
        gauges.log_bytes = sum(
            segment.log.size_bytes for member in members for segment in member.log.segments.items
        )
        return gauges
