"""Asking for a checkpoint when something was written long ago and none was taken since.

Sizes alone (`corelane.checkpoint.bytes`) would leave a quiet core with a log that grows older and
older; this bounds by time what a restart reads again, as Kafka's recovery-point checkpoint does.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corelane.shard.shard import Shard


class CheckpointTimer:
    """One core's timer; a waiter that always waits for the next interval."""

    __slots__ = ("_bytes_seen", "_shard", "is_done")

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self._bytes_seen = -1  # the first look is at the start, whose recovery asks by itself
        self.is_done = False  # never: see Deadlines
        shard.deadlines.add(0, self)

    def expire(self, now_ms: int) -> None:
        """Want a checkpoint if anything was put into the log since the last look.

        A checkpoint may put remainders there itself. That asks for one more at the next look, and
        that one, finding them still young, puts none.
        """
        store = self._shard.store
        bytes_put = store.wal.bytes_put
        if bytes_put != self._bytes_seen >= 0:
            store.checkpointing.wanted = True
        self._bytes_seen = bytes_put
        interval_ms = self._shard.config.config.storage.checkpoint_interval_ms
        self._shard.deadlines.add(now_ms + interval_ms, self)
