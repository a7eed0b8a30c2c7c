"""Takes connections on the bootstrap ports and hands each to the live core with the fewest."""

import logging
import socket
from collections.abc import Sequence
from typing import Final

import trio

from corelane.runtime.cores import Bell, Core, CoreState
from corelane.runtime.listener import peer_text
from corelane.runtime.messages import DESCRIPTORS_MAX
from corelane.runtime.throttle import Throttle

WAIT_FOR_CORE_S_MAX: Final = 2.0
"""How long a connection waits in the kernel's queue for a core to be up; then it is closed."""
QUIET_S_MAX: Final = 2.5
"""After two heartbeats that did not come, others are preferred."""
RETRY_S: Final = 0.01
FULL_S_MAX: Final = 1.0
OUT_OF_DESCRIPTORS_S: Final = 0.05

_log = logging.getLogger(__name__)


class Acceptor:
    """Owns accepted connections for the moment until a core has them."""

    def __init__(
        self, listeners: Sequence[socket.socket], cores: Sequence[Core], bell: Bell
    ) -> None:
        self.listeners = listeners
        self.cores = cores
        self.accepted = 0
        self.refused = [0] * len(listeners)
        """By listener."""
        self._bell = bell
        self._throttle = Throttle()

    async def serve(self) -> None:
        """Accept in batches, for ever; ends when cancelled."""
        async with trio.open_nursery() as nursery:
            for number in range(len(self.listeners)):
                nursery.start_soon(self._serve, number)

    async def _serve(self, listener: int) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.listeners[listener])
            with trio.move_on_after(WAIT_FOR_CORE_S_MAX):
                await self._some_core_up()
            batch = await self._accept_batch(self.listeners[listener])
            if batch:
                await self._hand_over(listener, batch)

    async def _some_core_up(self) -> None:
        while not any(core.state is CoreState.UP for core in self.cores):
            await self._bell.wait()

    async def _accept_batch(self, listener: socket.socket) -> list[tuple[socket.socket, str]]:
        batch: list[tuple[socket.socket, str]] = []
        while len(batch) < DESCRIPTORS_MAX:
            try:
                connection, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break
            except OSError as error:
                # Out of descriptors or memory: what is accepted goes on, the rest waits.
                self._say("cannot accept connections", error.strerror or "refused")
                await trio.sleep(OUT_OF_DESCRIPTORS_S)
                break
            batch.append((connection, peer_text(address)))
        self.accepted += len(batch)
        return batch

    async def _hand_over(self, listener: int, batch: list[tuple[socket.socket, str]]) -> None:
        """Give each core a fair part of the batch; whatever no core takes is closed."""
        try:
            with trio.move_on_after(FULL_S_MAX):
                while batch:
                    share = self._share(listener, batch)
                    if share is None:
                        await trio.sleep(RETRY_S)
                        continue
                    for connection, _ in share:
                        connection.close()
        finally:
            for connection, peer in batch:
                self.refused[listener] += 1
                connection.close()
                self._say(f"refused {peer}", "no core can take it now")

    def _share(
        self, listener: int, batch: list[tuple[socket.socket, str]]
    ) -> list[tuple[socket.socket, str]] | None:
        """Send the next part of *batch* to the best core and take it out; None if none takes it.

        One that is silent gets none: its clients would wait until it is killed.
        """
        up = [core for core in self.cores if core.state is CoreState.UP and core.life is not None]
        heard = [core for core in up if not core.is_silent(QUIET_S_MAX)]
        up = sorted(heard or up, key=_load)
        for rank, core in enumerate(up):
            # Give it as many as it lacks to the second best, at least one, all if it is alone.
            count = len(batch)
            if rank + 1 < len(up):
                count = min(count, max(1, _load(up[rank + 1]) - _load(core)))
            part = batch[:count]
            peers = [peer for _, peer in part]
            if core.hand_over(listener, peers, [sock.fileno() for sock, _ in part]):
                del batch[:count]
                return part
        return None

    def _say(self, what: str, why: str) -> None:
        suppressed = self._throttle.ask(why, trio.current_time())
        if suppressed is not None:
            more = f" ({suppressed} more like it since the last line)" if suppressed else ""
            _log.warning("%s: %s%s", what, why, more)


def _load(core: Core) -> int:
    return core.life.connections if core.life is not None else 0
