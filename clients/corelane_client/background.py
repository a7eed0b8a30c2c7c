"""A nursery for the helpers of an object that lives in an `async with` block."""

from types import TracebackType
from typing import Self

import trio


class Background:
    """Runs tasks until its block ends, then cancels them.

    A block that is cancelled ends like any other: until it has, the helpers go on, so that its end
    may still say good-bye to somebody (in a shielded scope with a limit).

    The block's own exception leaves as it is, not inside a group, so that callers can catch
    what they called for. A helper that fails, which is our bug, ends the block with a group.
    """

    def __init__(self) -> None:
        self._manager = trio.open_nursery()
        self._shelter = trio.CancelScope(shield=True)
        self._has_begun = trio.Event()
        self._nursery: trio.Nursery | None = None

    @property
    def nursery(self) -> trio.Nursery:
        """Where to start tasks, inside the block."""
        assert self._nursery is not None, "use it in an `async with` block"
        return self._nursery

    async def __aenter__(self) -> Self:
        outer = await self._manager.__aenter__()
        outer.start_soon(self._run)
        with trio.CancelScope(shield=True):
            await self._has_begun.wait()
        return self

    async def _run(self) -> None:
        with self._shelter:
            async with trio.open_nursery() as self._nursery:
                self._has_begun.set()
                await trio.sleep_forever()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._shelter.cancel()
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            # Beside the block's exception, which says more, mere cancellations are no news.
            if error is None or group.split(trio.Cancelled)[1] is not None:
                raise
