"""The peer port of a node: tells other supervisors who is here, and brings cores to cores.

Who connects says in its first frame which core it wants to speak to; the connection and that frame
are passed on to that core. Nothing here keeps state of a connection, and everything is bounded.
"""

import logging
import socket
from collections.abc import Callable
from typing import Final, Protocol

import trio

from corelane.model import limits
from corelane.runtime import introductions
from corelane.runtime.introductions import Introduction, IntroductionError
from corelane.runtime.throttle import Throttle
from corelane.shard.peers import hello
from corelane.shard.peers.frames import FrameError, Kind, decode, encode
from corelane.shard.peers.hello import Greeting, Refusal, Refused

GREETING_S_MAX: Final = limits.PEER_GREETING_MS_MAX / 1000
OPEN_MAX: Final = limits.PEER_UNGREETED_MAX
_PREFIX_BYTES: Final = 4

_log = logging.getLogger(__name__)


class Rooms(Protocol):
    """The cores behind the door."""

    def bring(self, greeting: Greeting, frame: bytes, descriptor: int) -> Refusal | None:
        """Give a connection to the core that it asks for; or say why not."""


class PeerDoor:
    """Listens on one socket, for as long as the node lives."""

    def __init__(
        self, listener: socket.socket, own: Callable[[], Introduction], rooms: Rooms | None
    ) -> None:
        self._listener = listener
        self._own = own
        self._rooms = rooms
        self._open = trio.CapacityLimiter(OPEN_MAX)
        self._throttle = Throttle()

    async def serve(self) -> None:
        """Accept for ever; ends when cancelled."""
        with trio.socket.from_stdlib_socket(self._listener.dup()) as own:
            await trio.serve_listeners(self._meet, [trio.SocketListener(own)])

    async def _meet(self, stream: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(GREETING_S_MAX):
                async with self._open:
                    await self._greet(stream)
        except (FrameError, IntroductionError, OSError, trio.BrokenResourceError) as fault:
            self._complain(str(fault) or type(fault).__name__)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _greet(self, stream: trio.SocketStream) -> None:
        first = await introductions.exactly(stream, _PREFIX_BYTES)
        if first == introductions.MAGIC:
            await introductions.receive(stream, first)
            await stream.send_all(introductions.encode(self._own()))
            return
        size_bytes = int.from_bytes(first, "big")
        if size_bytes > limits.PEER_GREETING_BYTES_MAX:
            raise FrameError("Its first words are no greeting.")
        data = await introductions.exactly(stream, size_bytes)
        frame = decode(data, limits.PEER_GREETING_BYTES_MAX)
        if frame.kind is not Kind.HELLO:
            raise FrameError("Its first frame is no HELLO.")
        greeting = hello.decode_greeting(frame.body)
        refusal = Refusal(Refused.CORE_AWAY, "This node is still looking for its cluster.")
        if self._rooms is not None:
            # The core gets a copy of the descriptor; this one is closed behind it.
            found = self._rooms.bring(greeting, data, stream.socket.fileno())
            if found is None:
                return
            refusal = found
        await stream.send_all(encode(Kind.REFUSE, 0, hello.encode_refusal(refusal)))

    def _complain(self, why: str) -> None:
        suppressed = self._throttle.ask(why, trio.current_time())
        if suppressed is not None:
            more = f" ({suppressed} more like it since the last line)" if suppressed else ""
            _log.warning("somebody on the peer port was turned away: %s%s", why, more)
