"""Which connection has last spoken for a producer: what still comes on an older one is too late.

A client of transaction.version 1 has one epoch for all its transactions. When it gives up waiting
for an EndTxn it asks again on a new connection, and goes on there; the first request may still be
on its way on the old one, and would end the transaction that follows (multiraft.md D 7b). No client
goes back to a connection that it has left, so such a request is dropped, and its connection closed:
whoever still listens there begins a new one, which is the newest then.
"""

from collections import OrderedDict
from typing import Final

NAMES_MAX: Final = 10_000
"""Of one coordinator; the one that was silent for longest is forgotten, and nothing is fenced."""


class Spoken:
    """By transactional id: the producer and epoch of the moment, and their newest connection."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def is_late(self, name: str, producer: tuple[int, int], serial: int) -> bool:
        """Take note of a request's connection; true: its producer has spoken on a newer one."""
        before = self._latest.get(name)
        if before is not None and before[:2] == producer and serial < before[2]:
            return True
        self._latest[name] = (*producer, serial)
        self._latest.move_to_end(name)
        if len(self._latest) > NAMES_MAX:
            self._latest.popitem(last=False)
        return False
