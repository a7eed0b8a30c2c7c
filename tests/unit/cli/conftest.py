"""A cluster in memory behind a real port, for commands that run their own event loop."""

import threading
from collections.abc import Iterator

import pytest
import trio

from corelane_client.address import Address
from tests.unit.client.fake import Cluster


class Served:
    """The cluster, its address, and the loop it runs in."""

    cluster: Cluster
    bootstrap: str
    _token: trio.lowlevel.TrioToken
    _scope: trio.CancelScope

    def __init__(self) -> None:
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=lambda: trio.run(self._run))
        self._thread.start()
        self._is_ready.wait()

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            self.cluster = Cluster(nursery)
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listener.socket.getsockname()[1]
            self.bootstrap = f"127.0.0.1:{port}"
            self.cluster.addresses[0] = Address("127.0.0.1", port)
            self._token = trio.lowlevel.current_trio_token()
            self._scope = nursery.cancel_scope
            self._is_ready.set()
            await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        await self.cluster.serve(0, stream)

    def stop(self) -> None:
        """End the loop."""
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()


@pytest.fixture
def served() -> Iterator[Served]:
    """Serve a cluster until the test ends."""
    server = Served()
    yield server
    server.stop()
