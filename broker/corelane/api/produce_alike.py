"""Produce requests that are alike, on their way to the disk: one wait, one block of answers.

When their batches are appended, all that a good answer says is known; so it is made then, by the C
core, and leaves as it is when the last batch is durable. Who leads no more, or is late, makes the
answers of those that are not: request by request, which is rare.
"""

# performance-critical: see STYLE.md

from collections.abc import Callable

from corelane.api.leaders import endpoints_for
from corelane.api.produce_append import refuse_not_leader
from corelane.api.produce_response import (
    CORRELATION,
    ProducedPartition,
    ProducedTopic,
    encode,
    refuse_late,
)
from corelane.model.ids import Index
from corelane.shard.connection import Slot
from corelane.shard.partition import Partition
from corelane.shard.shard import Shard


class AlikeWait:
    """Requests whose batches have indexes from *first_index* on, without a gap."""

    __slots__ = (
        "acks",
        "answers",
        "first_index",
        "is_done",
        "log_start_offset",
        "name",
        "partition",
        "shard",
        "version",
    )

    def __init__(
        self, shard: Shard, partition: Partition, first_index: Index, acks: int, version: int
    ) -> None:
        self.shard = shard
        self.partition = partition
        self.first_index = first_index
        self.acks = acks
        self.version = version
        self.name = partition.topic.name_bytes
        self.log_start_offset = partition.log.start_offset
        self.is_done = False
        self.answers: list[tuple[Slot, bytes]] = []
        """The slots in the order of the batches, each with the good answers of its requests."""

    def settled(self, *, is_lost: bool) -> None:
        """Take the fate of the last entry (called by the partition)."""
        if self.is_done:
            return  # their time ran out before
        self.is_done = True
        if is_lost:
            self._refuse(lambda row: refuse_not_leader(self.shard, self.partition, row))
        else:
            for slot, block in self.answers:
                slot.fill_parts([block], [])
        self.shard.deadlines.note_done()

    def expire(self, now_ms: int) -> None:
        """Answer what is not durable with REQUEST_TIMED_OUT: in doubt, never lost silently."""
        del now_ms
        self.is_done = True
        self.shard.counts.requests_timed_out += self._refuse(refuse_late)

    def _refuse(self, refuse: Callable[[ProducedPartition], None]) -> int:
        """Answer each request, with *refuse* those whose batches are not durable; count these."""
        raft = self.partition.raft
        durable_index = raft.committed_index if self.acks == -1 else raft.durable_index
        good = max(0, durable_index + 1 - self.first_index)
        refused = 0
        for slot, block in self.answers:
            kept = min(good, slot.count)
            good -= kept
            slot.failed = slot.count - kept
            refused += slot.failed
            size_bytes = len(block) // slot.count
            parts = [block[: kept * size_bytes]]
            for at in range(kept * size_bytes, len(block), size_bytes):
                row = ProducedPartition(self.partition.number)
                row.log_start_offset = self.log_start_offset
                refuse(row)
                slot.error = row.error
                endpoints = []
                if row.leader is not None:
                    endpoints = endpoints_for(self.shard, slot.connection, [row.leader])
                (correlation_id,) = CORRELATION.unpack_from(block, at)
                topics = [ProducedTopic(self.name, [row])]
                parts.append(encode(self.version, correlation_id, topics, endpoints))
            slot.fill_parts([b"".join(parts)], [])
        return refused
