"""The bytes that `produce` reads, taken piece by piece: so many, up to a mark, or by a pattern."""

import re
from collections.abc import Awaitable, Callable
from typing import Final

from corelane.model.limits import MIB

PIECE_BYTES_MAX: Final = 256 * MIB
"""A piece without an end is given up: a mark that never comes must not take all memory."""
PATTERN_BYTES_MAX: Final = MIB
"""So far a pattern is tried; each attempt begins at the start of its piece."""
_COMPACT_BYTES: Final = MIB

Read = Callable[[], Awaitable[bytes]]
"""Returns what comes next; empty at the end."""


class InputError(ValueError):
    """The input is not what the format says; the message says where."""


class InputSource:
    """Hands out the input; `position` is the number of bytes handed out before."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._data = bytearray()
        self._at = 0
        self._dropped = 0
        self._is_ended = False

    @property
    def position(self) -> int:
        """Where the next piece begins."""
        return self._dropped + self._at

    async def is_at_end(self) -> bool:
        """Return whether nothing is left, waiting until that is known."""
        return not await self._has(1)

    async def take(self, size_bytes: int) -> bytes:
        """Return exactly so many bytes. Raises InputError."""
        if size_bytes > PIECE_BYTES_MAX:
            raise InputError(f"a size of {size_bytes} bytes is beyond {PIECE_BYTES_MAX}")
        if not await self._has(size_bytes):
            left = len(self._data) - self._at
            raise InputError(f"the input ends after {left} of {size_bytes} bytes")
        return self._taken(self._at + size_bytes)

    async def expect(self, text: bytes, *, may_miss: bool = False) -> None:
        """Skip *text*. *may_miss*: the input may end instead. Raises InputError."""
        if may_miss and await self.is_at_end():
            return
        if not await self._has(len(text)):
            left = bytes(self._data[self._at :])
            raise InputError(f"the input ends with {_shown(left)} where {_shown(text)} must be")
        found = bytes(self._data[self._at : self._at + len(text)])
        if found != text:
            raise InputError(f"there is {_shown(found)} where {_shown(text)} must be")
        self._taken(self._at + len(text))

    async def until(self, mark: bytes, *, may_miss: bool = False) -> bytes:
        """Return what is before *mark* and skip the mark. Raises InputError.

        *may_miss*: without a mark it is all that is left.
        """
        searched = 0
        while True:
            found = self._data.find(mark, self._at + searched)
            if found >= 0:
                piece = self._taken(found)
                self._taken(found + len(mark))
                return piece
            searched = max(len(self._data) - self._at - len(mark) + 1, 0)
            if searched > PIECE_BYTES_MAX:
                raise InputError(f"no {_shown(mark)} follows within {PIECE_BYTES_MAX} bytes")
            if not await self._more():
                if may_miss:
                    return self._taken(len(self._data))
                raise InputError(f"the input ends and no {_shown(mark)} was found")

    async def rest(self) -> bytes:
        """Return all that is left. Raises InputError."""
        while await self._more():
            if len(self._data) - self._at > PIECE_BYTES_MAX:
                raise InputError(f"there are more than {PIECE_BYTES_MAX} bytes")
        return self._taken(len(self._data))

    async def match(self, pattern: re.Pattern[bytes]) -> bytes:
        """Return what *pattern* matches here, as much as it can. Raises InputError."""
        while True:
            found = pattern.match(self._data, self._at)
            is_whole = found is not None and found.end() < len(self._data)
            if not is_whole and len(self._data) - self._at < PATTERN_BYTES_MAX:
                if await self._more():
                    continue  # more of it may match, or any of it at last
                found = pattern.match(self._data, self._at)
            if found is None:
                start = bytes(self._data[self._at : self._at + 40])
                raise InputError(f"{_shown(start)} does not match {_shown(pattern.pattern)}")
            return self._taken(found.end())

    async def scan(self, step: Callable[[bytearray, int, bool], int]) -> bytes:
        """Return the piece whose end *step* finds. Raises InputError.

        *step* gets the data, where to look, and whether no more will come. It returns where the
        piece ends; or minus one minus the place to go on at when it needs more. It keeps what it
        learnt meanwhile itself.
        """
        start = 0
        while True:
            found = step(self._data, self._at + start, self._is_ended)
            if found >= 0:
                return self._taken(found)
            start = -found - 1 - self._at
            if start > PIECE_BYTES_MAX:
                raise InputError(f"it does not end within {PIECE_BYTES_MAX} bytes")
            if self._is_ended:
                raise InputError("the input ends inside of it")
            await self._more()

    async def _has(self, size_bytes: int) -> bool:
        while len(self._data) - self._at < size_bytes:
            if not await self._more():
                return False
        return True

    async def _more(self) -> bool:
        """Read on; return False at the end."""
        if self._is_ended:
            return False
        if self._at > _COMPACT_BYTES:  # only here: who looks at the data keeps indexes into it
            del self._data[: self._at]
            self._dropped += self._at
            self._at = 0
        data = await self._read()
        self._is_ended = not data
        self._data += data
        return bool(data)

    def _taken(self, end: int) -> bytes:
        """Hand out what is before *end*, an index into the data."""
        piece = bytes(memoryview(self._data)[self._at : end])
        self._at = end
        return piece


def _shown(data: bytes) -> str:
    """Return *data* as errors show it."""
    text = repr(data if len(data) <= 40 else data[:40] + b"...")
    return text.removeprefix("b")
