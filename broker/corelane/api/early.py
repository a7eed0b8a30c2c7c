"""Requests that come before this core, just started, has read what the controller's log says.

Until then it knows the cluster as its last checkpoint had it, or not at all. A client that is told
so believes it: librdkafka fails what it was to send when a topic it knows is said to be unknown.
"""

from collections.abc import Callable

from corelane.model.limits import TICK_MS
from corelane.shard.call import Call
from corelane.shard.shard import Shard

WAIT_MS_MAX = 10_000


class EarlyCall:
    """A request that waits until *is_known*; *then* answers it, told whether time ran out."""

    __slots__ = ("call", "deadline_ms", "is_done", "is_known", "shard", "then")

    def __init__(
        self,
        shard: Shard,
        call: Call,
        is_known: Callable[[], bool],
        then: Callable[[Call, bool], None],
        wait_ms: int = WAIT_MS_MAX,
    ) -> None:
        self.shard = shard
        self.call = call.keep()
        self.is_known = is_known
        self.then = then
        self.deadline_ms = shard.now_ms + wait_ms
        self.is_done = False
        self._look()

    def _look(self) -> None:
        """Answer, or look again in a while."""
        shard = self.shard
        is_known = self.is_known()
        self.is_done = is_known or shard.now_ms >= self.deadline_ms
        if not self.is_done:
            shard.deadlines.add(shard.now_ms + TICK_MS, self)
        elif not self.call.slot.connection.is_closed:
            self.then(self.call, is_known)

    def expire(self, now_ms: int) -> None:
        """Look again."""
        del now_ms
        self._look()
