"""Pure work off the loop: one thread, one job at a time."""

import os
from collections.abc import Callable, Collection
from typing import Final

import trio

from corelane.shard.effects import Work
from corelane.shard.events import WorkDone

QUEUED_MAX: Final = 1024
"""The shard bounds its own work far below; more is a bug of ours, answered as a failure."""


class WorkBench:
    """Runs `Work` effects in a thread and reports each by a `WorkDone`."""

    def __init__(self, done: Callable[[WorkDone], None], cpus: Collection[int]) -> None:
        self._done = done
        self._cpus = cpus
        self._limiter = trio.CapacityLimiter(1)
        self._sender, self._receiver = trio.open_memory_channel[Work](QUEUED_MAX)

    def submit(self, work: Work) -> None:
        """Queue a job; it is answered in any case."""
        try:
            self._sender.send_nowait(work)
        except trio.WouldBlock:
            self._done(WorkDone(work.job, None, "too much work is queued"))

    async def serve(self) -> None:
        """Run jobs until cancelled."""
        async for work in self._receiver:
            self._done(await trio.to_thread.run_sync(self._run, work, limiter=self._limiter))

    def _run(self, work: Work) -> WorkDone:
        # The thread was made by the pinned one and would compete with it for its CPU.
        os.sched_setaffinity(0, self._cpus)
        try:
            return WorkDone(work.job, work.function(*work.arguments), None)
        except Exception as error:  # noqa: BLE001 - the border of a thread: the shard is told.
            return WorkDone(work.job, None, f"{type(error).__name__}: {error}")
