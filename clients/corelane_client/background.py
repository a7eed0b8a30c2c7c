"""A nursery for the helpers of an object that lives in an `async with` block."""

from types import TracebackType
from typing import Self

import trio


class Background:
    """Runs tasks until its block ends, then cancels them.

    The block's own exception leaves as it is, not inside a group, so that callers can catch
    what they called for. A helper that fails, which is our bug, ends the block with a group.
    """

    def __init__(self) -> None:
        self._manager = trio.open_nursery()
        self._nursery: trio.Nursery | None = None

    @property
    def nursery(self) -> trio.Nursery:
        """Where to start tasks, inside the block."""
        assert self._nursery is not None, "use it in an `async with` block"
        return self._nursery

    async def __aenter__(self) -> Self:
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.nursery.cancel_scope.cancel()
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            # Beside the block's exception, which says more, mere cancellations are no news.
            if error is None or group.split(trio.Cancelled)[1] is not None:
                raise
