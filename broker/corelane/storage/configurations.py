"""Which configuration of its group a log says is in force, at its end and in any range of it.

A configuration is opaque here: the payload of a CONFIG entry. All from the first entry on are kept
(a group's members seldom change), and the one that was in force where the log begins.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from corelane.model.ids import Index

CONFIGURATION_BYTES_MAX: Final = 4096

Configured = tuple[Index, bytes]
"""(index of the CONFIG entry, its payload)."""

NOT_CONFIGURED: Final[Configured] = (Index(0), b"")
"""No CONFIG entry yet: the members are those of the group's descriptor."""


class Configurations:
    """The configurations of one log, by index; the last one is in force at its end."""

    __slots__ = ("items",)

    def __init__(self, items: Iterable[Configured]) -> None:
        self.items: list[Configured] = []
        for index, payload in items:
            self.appended(index, payload)

    @property
    def current(self) -> Configured:
        """The one in force at the end of the log."""
        return self.items[-1] if self.items else NOT_CONFIGURED

    def appended(self, index: Index, payload: bytes) -> None:
        """Put one in force from *index* on."""
        assert index > self.current[0]
        assert 0 < len(payload) <= CONFIGURATION_BYTES_MAX
        self.items.append((index, payload))

    def truncated(self, from_index: Index) -> None:
        """Return to the one before *from_index*."""
        while self.items and self.items[-1][0] >= from_index:
            self.items.pop()

    def upto(self, index: Index) -> list[Configured]:
        """Return those up to *index*."""
        return [item for item in self.items if item[0] <= index]

    def at(self, index: Index) -> Configured:
        """Return the one in force at *index*."""
        found = self.upto(index)
        return found[-1] if found else NOT_CONFIGURED

    def began_at(self, first_index: Index) -> None:
        """Forget those of entries before *first_index*, but for the one in force there."""
        before = bisect_left(self.items, first_index, key=lambda item: item[0])
        if before > 1:
            del self.items[: before - 1]

    def between(self, first_index: Index, last_index: Index) -> list[Configured]:
        """Return those of the entries in a range."""
        return [item for item in self.items if first_index <= item[0] <= last_index]
