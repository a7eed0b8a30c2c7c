"""The admin port: GET over HTTP/1.1, one request per connection, everything bounded.

Not a web server: no bodies, no keep-alive, no chunks, so a parser of a request line and its
headers is all it takes; a dependency would be larger than what it replaces.
"""

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from corelane.model.record import record

REQUEST_BYTES_MAX: Final = 8192
REQUEST_S_MAX: Final = 5.0
RESPONSE_S_MAX: Final = 10.0
CONNECTIONS_MAX: Final = 32

_STATUS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}

_log = logging.getLogger(__name__)


@record
class Page:
    """An answer: status, content type and body."""

    status: int
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Awaitable[Page]]]
"""What is served under which path."""


class AdminServer:
    """Answers GET and HEAD for a fixed set of pages."""

    def __init__(self, listener: socket.socket, pages: Pages) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._pages = pages
        self._slots = trio.CapacityLimiter(CONNECTIONS_MAX)

    async def serve(self) -> None:
        """Serve until cancelled. More than `CONNECTIONS_MAX` at a time wait in the backlog."""
        async with trio.open_nursery() as nursery:
            while True:
                token = object()
                await self._slots.acquire_on_behalf_of(token)
                try:
                    stream = await self._listener.accept()
                except OSError as error:
                    _log.warning("the admin port cannot accept: %s", error.strerror)
                    self._slots.release_on_behalf_of(token)
                    await trio.sleep(0.1)
                    continue
                nursery.start_soon(self._serve_one, stream, token)

    async def _serve_one(self, stream: trio.SocketStream, token: object) -> None:
        try:
            with trio.move_on_after(REQUEST_S_MAX + RESPONSE_S_MAX):
                head = await _read_head(stream)
                if head is not None:
                    await self._answer(stream, head)
                await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The client left; nobody is there to be told.
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            self._slots.release_on_behalf_of(token)

    async def _answer(self, stream: trio.SocketStream, head: bytes) -> None:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        method = words[0]
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            page = _text(400, "This is the admin port of corelane; it speaks HTTP/1.1.\n")
        elif method not in (b"GET", b"HEAD"):
            page = _text(405, "Only GET and HEAD.\n")
        else:
            path = words[1].split(b"?", 1)[0].decode("latin-1")
            make = self._pages.get(path)
            known = ", ".join(sorted(self._pages))
            page = await make() if make else _text(404, f"No such page. There are: {known}\n")
        lines = (
            f"HTTP/1.1 {page.status} {_STATUS[page.status]}\r\n"
            f"Content-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        await stream.send_all(lines.encode() + (b"" if method == b"HEAD" else page.body))


async def _read_head(stream: trio.SocketStream) -> bytes | None:
    """Return the request up to its empty line; None when it is too long, too slow or cut off."""
    head = b""
    with trio.move_on_after(REQUEST_S_MAX):
        while b"\r\n\r\n" not in head:
            if len(head) > REQUEST_BYTES_MAX:
                return None
            piece = await stream.receive_some(4096)
            if not piece:
                return None
            head += piece
        return head
    return None


def _text(status: int, text: str) -> Page:
    return Page(status, "text/plain; charset=utf-8", text.encode())
