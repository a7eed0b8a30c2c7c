"""Packets with descriptors for one life of a core, which may be too busy to take them at once."""

import os
from typing import Final

import trio

from corelane.runtime.control import ControlSocket, PeerGoneError
from corelane.runtime.messages import Link

RETRY_S: Final = 0.005


class Outbox:
    """Carries links, in order. Owns the pipes' ends until the other process has copies of them.

    Invariant O1: a descriptor put here is closed here, as soon as it was sent or has no use.
    """

    def __init__(self, control: ControlSocket) -> None:
        self._control = control
        self._waiting: list[tuple[Link, list[int]]] = []
        self._is_closed = False
        self._filled = trio.Event()

    def put(self, link: Link, ends: list[int]) -> None:
        """Send a link now or as soon as there is room; an unsent one to the same core is void."""
        for waiting in [each for each in self._waiting if each[0].core == link.core]:
            self._waiting.remove(waiting)
            _close(waiting[1])
        if not self._waiting and (self._is_closed or self._is_done(link, ends)):
            _close(ends)
        else:
            self._waiting.append((link, ends))
            self._filled.set()

    async def serve(self) -> None:
        """Send what waits, until cancelled."""
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            while self._waiting:
                link, ends = self._waiting[0]
                if not self._is_done(link, ends):
                    await trio.sleep(RETRY_S)
                    continue
                del self._waiting[0]
                _close(ends)

    def close(self) -> None:
        """Take nothing more: the core is gone."""
        self._is_closed = True
        for _, ends in self._waiting:
            _close(ends)
        self._waiting.clear()

    def _is_done(self, link: Link, ends: list[int]) -> bool:
        """Send a link unless the socket is full; one to a core that is gone is done, too."""
        try:
            return self._control.send_now(link, ends)
        except PeerGoneError:
            return True


def _close(ends: list[int]) -> None:
    for end in ends:
        os.close(end)
