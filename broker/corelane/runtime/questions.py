"""Questions to another process that are answered by number, in one part or several."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from corelane.runtime.control import PeerGoneError

Part = TypeVar("Part")


class Questions(Generic[Part]):
    """Those that wait for their answers."""

    def __init__(self) -> None:
        self._number = 0
        self._waiting: dict[int, tuple[list[Part], trio.Event]] = {}

    async def ask(
        self, send: Callable[[int], Awaitable[None]], wait_s_max: float
    ) -> list[Part] | None:
        """Send a question with its number; return all parts of the answer.

        None: it did not come in time, or the process died.
        """
        self._number += 1
        number = self._number
        parts: list[Part] = []
        is_done = trio.Event()
        self._waiting[number] = (parts, is_done)
        try:
            with trio.move_on_after(wait_s_max):
                await send(number)
                await is_done.wait()
                return parts or None
        except PeerGoneError:
            pass
        finally:
            self._waiting.pop(number, None)
        return None

    def hear(self, number: int, part: Part, *, is_last: bool) -> None:
        """Take a part of an answer; nobody may wait for it any more."""
        waiting = self._waiting.get(number)
        if waiting is not None:
            parts, is_done = waiting
            parts.append(part)
            if is_last:
                is_done.set()

    def give_up(self) -> None:
        """Have nobody wait any more: the process is gone, and half an answer is none."""
        for parts, is_done in self._waiting.values():
            parts.clear()
            is_done.set()
        self._waiting.clear()
