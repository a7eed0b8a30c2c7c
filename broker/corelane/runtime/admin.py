"""The admin port: one HTTP/1.1 request per connection, everything bounded.

Not a web server: no keep-alive, no chunks, so a parser of a request line, its headers and a short
body is all it takes; a dependency would be larger than what it replaces.
"""

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import parse_qs

import trio

from corelane.model.record import record

HEAD_BYTES_MAX: Final = 8192
BODY_BYTES_MAX: Final = 64 * 1024
REQUEST_S_MAX: Final = 5.0
ANSWER_S_MAX: Final = 10.0
LINGER_S_MAX: Final = 0.5
LINGER_BYTES_MAX: Final = 256 * 1024
"""What a refused client may still send while it does not read: it would lose the answer."""
CONNECTIONS_MAX: Final = 32
"""One more, and the longest of those that still send their request is cut off for it: clients that
never finish a request keep nobody else from being answered."""

_STATUS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_TLS_HANDSHAKE: Final = b"\x16\x03"

_log = logging.getLogger(__name__)


@record
class Request:
    """A whole request."""

    method: str
    path: str
    query: Mapping[str, str]
    """The last value of each name."""
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes


@record
class Page:
    """An answer: status, content type and body."""

    status: int
    content_type: str
    body: bytes
    allow: str = ""
    """The methods there are, with a 405."""


@record
class Route:
    """What makes a page, and how long that may take."""

    make: Callable[[Request], Awaitable[Page]]
    answer_s_max: float = ANSWER_S_MAX


Routes = Mapping[tuple[str, str], Route]
"""What is served, by method and path; HEAD goes wherever GET does."""


class _RefusedError(Exception):
    """A request that is not served, with the answer to it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.page = text(status, f"{sentence}\n")


def text(status: int, content: str) -> Page:
    """Return a page of plain text."""
    return Page(status, "text/plain; charset=utf-8", content.encode())


class AdminServer:
    """Answers requests for a fixed set of routes."""

    def __init__(self, listener: socket.socket, routes: Routes) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._routes = routes
        self._count = 0
        self._freed = trio.Event()
        self._idle: dict[trio.SocketStream, trio.CancelScope] = {}
        """Connections that only wait for their client, the longest first."""

    async def serve(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._wait_for_room()
                try:
                    stream = await self._listener.accept()
                except OSError as error:
                    _log.warning("the admin port cannot accept: %s", error.strerror)
                    await trio.sleep(0.1)
                    continue
                self._count += 1
                nursery.start_soon(self._serve_one, stream)

    async def _wait_for_room(self) -> None:
        while self._count >= CONNECTIONS_MAX:
            await trio.lowlevel.wait_readable(self._listener.socket)
            for stream, scope in self._idle.items():
                del self._idle[stream]
                scope.cancel()
                break
            if self._count >= CONNECTIONS_MAX:
                await self._freed.wait()

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        try:
            request = await self._receive(stream)
            if isinstance(request, Request):
                page = await self._make(request)
                await self._send(stream, page, is_head=request.method == "HEAD")
            elif request is not None:
                await self._send(stream, request, is_head=False)
            await self._linger(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The client left; nobody is there to be told.
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            self._count -= 1
            self._freed.set()
            self._freed = trio.Event()

    async def _receive(self, stream: trio.SocketStream) -> Request | Page | None:
        """Return the request, or the answer to one that is none, or None when nobody is there."""
        with trio.move_on_after(REQUEST_S_MAX) as scope:
            self._idle[stream] = scope
            try:
                return await _read_request(stream)
            except _RefusedError as refused:
                return refused.page
            finally:
                self._idle.pop(stream, None)
        return text(408, f"The request took longer than {REQUEST_S_MAX:.0f} s, or others wait.\n")

    async def _make(self, request: Request) -> Page:
        method = "GET" if request.method == "HEAD" else request.method
        route = self._routes.get((method, request.path))
        if route is None:
            return self._not_there(request.path)
        try:
            with trio.move_on_after(route.answer_s_max):
                return await route.make(request)
        # The border of the admin port: a bug in a page must not end the node.
        except Exception:  # noqa: BLE001
            _log.exception("the admin page %s failed; please report it", request.path)
            return text(500, "This page has a bug; the broker's log has more.\n")
        return text(504, f"This took longer than {route.answer_s_max:.0f} s.\n")

    def _not_there(self, path: str) -> Page:
        methods = sorted(method for method, each in self._routes if each == path)
        if methods:
            allow = ", ".join(methods + ["HEAD"] * ("GET" in methods))
            return Page(405, "text/plain; charset=utf-8", f"Only {allow}.\n".encode(), allow)
        known = ", ".join(sorted({each for _, each in self._routes}))
        return text(404, f"No such page. There are: {known}\n")

    async def _send(self, stream: trio.SocketStream, page: Page, *, is_head: bool) -> None:
        allow = f"Allow: {page.allow}\r\n" if page.allow else ""
        lines = (
            f"HTTP/1.1 {page.status} {_STATUS[page.status]}\r\n"
            f"Content-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\n"
            f"{allow}Connection: close\r\n\r\n"
        )
        with trio.move_on_after(ANSWER_S_MAX):
            await stream.send_all(lines.encode() + (b"" if is_head else page.body))

    async def _linger(self, stream: trio.SocketStream) -> None:
        """Wait a moment for the client to close: what it still sends would reset the answer."""
        if self._count >= CONNECTIONS_MAX:
            return  # Others wait.
        with trio.move_on_after(LINGER_S_MAX) as scope:
            self._idle[stream] = scope
            try:
                await stream.send_eof()
                received = 0
                while received < LINGER_BYTES_MAX:
                    piece = await stream.receive_some(16 * 1024)
                    if not piece:
                        break
                    received += len(piece)
            finally:
                self._idle.pop(stream, None)


async def _read_request(stream: trio.SocketStream) -> Request | None:
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > HEAD_BYTES_MAX:
            raise _RefusedError(431, f"The head is longer than {HEAD_BYTES_MAX} bytes.")
        piece = await stream.receive_some(4096)
        if not piece:
            return None
        head += piece
        if head.startswith(_TLS_HANDSHAKE):
            raise _RefusedError(400, "This port speaks HTTP without TLS.")
    head, _, body = head.partition(b"\r\n\r\n")
    line, *rows = head.decode("latin-1").split("\r\n")
    method, path, query = _parse_line(line)
    headers = _parse_headers(rows)
    body_bytes = _body_bytes(headers)
    if body_bytes > len(body) and headers.get("expect", "").lower() == "100-continue":
        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < body_bytes:
        piece = await stream.receive_some(16 * 1024)
        if not piece:
            return None
        body += piece
    return Request(method, path, query, headers, body[:body_bytes])


def _parse_line(line: str) -> tuple[str, str, dict[str, str]]:
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _RefusedError(400, "This is the admin port of corelane; it speaks HTTP/1.1.")
    path, _, query = words[1].partition("?")
    return words[0], path, {name: found[-1] for name, found in parse_qs(query).items()}


def _parse_headers(rows: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for row in rows:
        name, colon, value = row.partition(":")
        if not colon or not name or name != name.strip():
            raise _RefusedError(400, "A header is not of the form `name: value`.")
        headers[name.lower()] = value.strip()
    return headers


def _body_bytes(headers: Mapping[str, str]) -> int:
    """Return the length of the body that follows."""
    if "transfer-encoding" in headers:
        raise _RefusedError(411, "Send the body whole, with its Content-Length.")
    length = headers.get("content-length")
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()):
        raise _RefusedError(400, "Content-Length is not a number.")
    if len(length) > 9 or int(length) > BODY_BYTES_MAX:
        raise _RefusedError(413, f"A body may have {BODY_BYTES_MAX} bytes.")
    return int(length)
