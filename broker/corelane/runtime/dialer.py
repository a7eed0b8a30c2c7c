"""Connects a core to cores of other nodes; the shard says when."""

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

import trio

from corelane.model import limits
from corelane.shard.effects import Dial
from corelane.shard.peers.events import Dialed, DialFailed

if TYPE_CHECKING:
    from corelane.runtime.core_loop import CoreLoop

DIAL_S_MAX: Final = limits.PEER_GREETING_MS_MAX / 1000


class Dialer:
    """Lives in the loop's nursery; every dial is answered once."""

    def __init__(self, loop: "CoreLoop", nursery: trio.Nursery) -> None:
        self._loop = loop
        self._nursery = nursery

    def dial(self, effect: Dial) -> None:
        """Begin to connect."""
        self._nursery.start_soon(self._dial, effect)

    async def _dial(self, effect: Dial) -> None:
        try:
            with trio.fail_after(DIAL_S_MAX):
                connection = await _connect(effect.host, effect.port)
        except trio.TooSlowError:
            self._failed(effect, "it does not answer", is_refused=False)
        except OSError as error:
            is_refused = error.errno == errno.ECONNREFUSED
            self._failed(effect, error.strerror or str(error), is_refused=is_refused)
        else:
            conn = self._loop.add_peer(connection.detach())
            if conn is None:
                self._failed(effect, "there is no room for more connections", is_refused=False)
            else:
                self._loop.post(Dialed(effect.dial, conn))

    def _failed(self, effect: Dial, reason: str, *, is_refused: bool) -> None:
        self._loop.post(DialFailed(effect.dial, is_refused, reason))


async def _connect(host: str, port: int) -> socket.socket:
    """Return a connected socket; raises OSError."""
    rows = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = rows[0]
    connection = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = connection.connect_ex(address)
        if code == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(connection)
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        connection.close()
        raise
    return connection
