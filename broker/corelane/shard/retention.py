"""Looking, now and then, for partitions that have lost the right to their oldest records.

A pass goes over all partitions of this core, a few of them per slice, so that no turn is long
however many there are. Compacted topics are left alone unless `delete` is named too. Only
DeleteRecords takes away what an open transaction wrote, as in Kafka.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from corelane.model.ids import GroupId, Offset
from corelane.shard.partition import Partition
from corelane.shard.trimming import trim
from corelane.storage.retention import (
    FOREVER,
    gains_by_flush,
    start_by_size,
    start_by_time,
)

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

FIRST_PASS_MS: Final = 30_000
"""After a start (Kafka's log.initial.task.delay.ms), if the interval is not shorter."""
SLICE_PARTITIONS: Final = 64
SLICE_MS: Final = 10
"""Between two slices: 10,000 partitions take 1.6 s of the five minutes between passes."""


class Retention:
    """The passes of one core; a waiter that always waits for the next slice."""

    __slots__ = ("_is_begun", "_left", "_shard", "is_done")

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self._left: deque[GroupId] = deque()
        self._is_begun = False
        self.is_done = False  # never: see Deadlines
        shard.deadlines.add(0, self)

    def expire(self, now_ms: int) -> None:
        """Do a slice, or begin a pass; called at the first turn, then when it is time."""
        wait_ms = self._shard.config.config.log.retention_check_interval_ms
        if not self._is_begun:
            self._is_begun = True
            wait_ms = min(wait_ms, FIRST_PASS_MS)
        else:
            if not self._left:
                self._left.extend(self._shard.groups.members)
            self._slice()
            if self._left:
                wait_ms = SLICE_MS
        self._shard.deadlines.add(now_ms + wait_ms, self)

    def _slice(self) -> None:
        members = self._shard.groups.members
        for _ in range(min(SLICE_PARTITIONS, len(self._left))):
            member = members.get(self._left.popleft())
            if isinstance(member, Partition) and member.serves:
                self._look_at(member)
        if not self._left:
            self._end_pass()

    def _end_pass(self) -> None:
        """Have a checkpoint taken if trimmed files wait for one that does without them."""
        store = self._shard.store
        if store.unlinks:
            store.checkpointing.wanted = True

    def _look_at(self, partition: Partition) -> None:
        settings, log = partition.topic.settings, partition.log
        if not settings.is_deleted or log.start_offset == log.committed_offset:
            return
        start: Offset = log.start_offset
        if settings.retention_bytes != FOREVER:
            start = max(start, start_by_size(log, settings.retention_bytes))
        if settings.retention_ms != FOREVER:
            before_ms = self._shard.wall_ms - settings.retention_ms
            start = max(start, start_by_time(log, before_ms))
            if start < log.committed_offset and gains_by_flush(log, before_ms):
                log.want_flush()  # the next pass may find more
        # An open transaction keeps its records: they count only when it is decided. That it is
        # decided its coordinator sees to, and pushing.py.
        start = min(start, partition.last_stable_offset)
        if start > log.start_offset:
            trim(partition, start)  # without room now: the next pass tries again
