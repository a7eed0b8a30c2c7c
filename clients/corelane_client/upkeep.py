"""Keeps connections open and metadata fresh for a task that decides in turns and never waits.

Producer and consumer are built alike: one task takes turns; a turn does all that can be done at
once and says when there may be more. What takes time runs beside it and wakes it when done.
"""

import math
from collections.abc import Callable, Collection
from typing import Final

import trio

from corelane_client.connection import Connection
from corelane_client.errors import ClientError
from corelane_client.pool import RETRY_BACKOFF_S, Pool

METADATA_AGE_S_MAX: Final = 300.0
"""Partitions that were added are found after this long at most, as in Kafka's clients."""


class Upkeep:
    """The turns of one task, and what is under way for it.

    *topics* names what to refresh; *failed* hears of every error met, with the broker it was met
    at, or None for the whole cluster.
    """

    def __init__(
        self,
        pool: Pool,
        topics: Callable[[], Collection[str]],
        failed: Callable[[int | None, ClientError], None],
    ) -> None:
        self._pool = pool
        self._topics = topics
        self._failed = failed
        self._event = trio.Event()
        self._connecting: set[int] = set()
        self._paused_until_s: dict[int, float] = {}
        self._is_refreshing = False

    def wake(self) -> None:
        """Take a turn soon."""
        self._event.set()

    async def run(self, turn: Callable[[float], float]) -> None:
        """Take a turn whenever woken, or when the last one asked for it; until cancelled."""
        while True:
            self._event = trio.Event()
            next_s = turn(trio.current_time())
            if self._pool.age_s > METADATA_AGE_S_MAX:
                self.refresh()
            with trio.move_on_at(next_s):
                await self._event.wait()

    def paused_until_s(self, broker_id: int) -> float:
        """Return until when nothing is to be sent to a broker; in the past mostly."""
        return self._paused_until_s.get(broker_id, -math.inf)

    def pause(self, broker_id: int, seconds: float) -> None:
        """Send a broker nothing for a while: it asked for that, or it cannot be reached."""
        self._paused_until_s[broker_id] = trio.current_time() + seconds

    def connection(self, broker_id: int) -> Connection | None:
        """Return an open connection, or None and wake once it is open."""
        found = self._pool.opened(broker_id)
        if found is None and broker_id not in self._connecting:
            self._connecting.add(broker_id)
            self._pool.nursery.start_soon(self._connect, broker_id)
        return found

    def refresh(self) -> None:
        """Ask for new metadata and wake once it is there; not more often than a backoff."""
        if not self._is_refreshing:
            self._is_refreshing = True
            self._pool.nursery.start_soon(self._refresh)

    async def _connect(self, broker_id: int) -> None:
        try:
            await self._pool.connection(broker_id)
        except ClientError as error:
            self.pause(broker_id, RETRY_BACKOFF_S)
            self._failed(broker_id, error)
            self.refresh()
        self._connecting.discard(broker_id)
        self.wake()

    async def _refresh(self) -> None:
        try:
            await self._pool.refresh(self._topics())
        except ClientError as error:
            self._failed(None, error)
        self.wake()
        await trio.sleep(RETRY_BACKOFF_S)
        self._is_refreshing = False
        self.wake()
