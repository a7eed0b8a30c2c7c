"""The admin port against clients that do not know HTTP, are slow, or are many."""

import socket
from collections.abc import Awaitable, Callable

import pytest
import trio

from corelane.runtime import admin
from corelane.runtime.admin import CONNECTIONS_MAX, AdminServer, Page, Request, Route, text

Client = Callable[[int], Awaitable[None]]


async def _hello(request: Request) -> Page:
    return text(200, f"{request.method} {dict(request.query)} {request.body.decode()}\n")


async def _broken(request: Request) -> Page:
    raise ZeroDivisionError


async def _slow(request: Request) -> Page:
    await trio.sleep_forever()
    raise AssertionError


ROUTES = {
    ("GET", "/hello"): Route(_hello),
    ("POST", "/do"): Route(_hello),
    ("GET", "/broken"): Route(_broken),
    ("GET", "/slow"): Route(_slow, answer_s_max=0.05),
}


async def with_server(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(AdminServer(listener, ROUTES).serve)
            await client(listener.getsockname()[1])
            nursery.cancel_scope.cancel()


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send *pieces*, then read all that comes back."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for piece in pieces:
            await stream.send_all(piece)
        answer = b""
        async for received in stream:
            answer += received
        return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


@pytest.mark.parametrize(
    ("request_bytes", "status", "said"),
    [
        (b"GET /hello?a=1&a=2&b=x%20y HTTP/1.1\r\n\r\n", 200, b"{'a': '2', 'b': 'x y'}"),
        (b"HEAD /hello HTTP/1.1\r\n\r\n", 200, b"\r\n\r\n"),
        (b"POST /do HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", 200, b"POST {} ab"),
        (b"POST /do HTTP/1.1\r\ncontent-length:2\r\n\r\nabcdef", 200, b"POST {} ab\n"),
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404, b"There are: /broken, /do, /hello, /slow"),
        (b"DELETE /hello HTTP/1.1\r\n\r\n", 405, b"Allow: GET, HEAD\r\n"),
        (b"GET /do HTTP/1.1\r\n\r\n", 405, b"Allow: POST\r\n"),
        (b"HEAD /do HTTP/1.1\r\n\r\n", 405, b"Allow: POST\r\n"),
        (b"get /hello HTTP/1.1\r\n\r\n", 405, b"Only GET, HEAD."),
        (b"GET /hello\r\n\r\n", 400, b"it speaks HTTP/1.1"),
        (b"GET /hello HTTP/2.0\r\n\r\n", 400, b"it speaks HTTP/1.1"),
        (b"GET  /hello HTTP/1.1\r\n\r\n", 400, b"it speaks HTTP/1.1"),
        (b"\x00\x00\x00\x12\x00\x12\x00\x03\r\n\r\n", 400, b"it speaks HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, b"without TLS"),
        (b"GET /hello HTTP/1.1\r\nno colon\r\n\r\n", 400, b"`name: value`"),
        (b"GET /hello HTTP/1.1\r\n folded: x\r\n\r\n", 400, b"`name: value`"),
        (b"POST /do HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400, b"not a number"),
        (b"POST /do HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, b"not a number"),
        (b"POST /do HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", 413, b"65536 bytes"),
        (b"POST /do HTTP/1.1\r\nContent-Length: 9999999999999\r\n\r\n", 413, b"65536 bytes"),
        (b"POST /do HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411, b"Content-Length"),
        (b"GET /hello HTTP/1.1\r\nX: " + b"x" * 20_000, 431, b"longer than 8192"),
        (b"GET /" + b"a" * 20_000, 431, b"longer than 8192"),
        (b"GET /broken HTTP/1.1\r\n\r\n", 500, b"has a bug"),
        (b"GET /slow HTTP/1.1\r\n\r\n", 504, b"This took longer"),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else None,
)
async def test_each_request_gets_one_answer_with_its_status(
    request_bytes: bytes, status: int, said: bytes
) -> None:
    async def client(port: int) -> None:
        answer = await exchange(port, request_bytes)
        assert status_of(answer) == status
        assert said in answer
        assert b"Connection: close\r\n" in answer
        assert status_of(await exchange(port, b"GET /hello HTTP/1.1\r\n\r\n")) == 200

    await with_server(client)


async def test_the_length_of_a_head_answer_is_that_of_the_page() -> None:
    async def client(port: int) -> None:
        answer = await exchange(port, b"HEAD /hello HTTP/1.1\r\n\r\n")
        assert b"Content-Length: 9\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")

    await with_server(client)


async def test_a_request_in_pieces_is_put_together() -> None:
    async def client(port: int) -> None:
        whole = b"POST /do HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
        answer = await exchange(port, *[bytes([byte]) for byte in whole])
        assert answer.endswith(b"POST {} hello\n")

    await with_server(client)


async def test_a_client_that_asks_may_send_its_body() -> None:
    async def client(port: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            head = b"POST /do HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
            await stream.send_all(head)
            assert await stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await stream.send_all(b"ab")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 OK\r\n")

    await with_server(client)


async def test_a_request_that_never_ends_is_refused_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin, "REQUEST_S_MAX", 0.05)

    async def client(port: int) -> None:
        assert status_of(await exchange(port, b"GET /hello HT")) == 408

    await with_server(client)


async def test_a_client_that_leaves_in_the_middle_is_forgotten() -> None:
    async def client(port: int) -> None:
        for piece in (b"", b"GET", b"GET /hello HTTP/1.1\r\n\r\n"):
            for _ in range(CONNECTIONS_MAX + 3):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(piece)
                await trio.aclose_forcefully(stream)
        assert status_of(await exchange(port, b"GET /hello HTTP/1.1\r\n\r\n")) == 200

    await with_server(client)


async def test_clients_that_never_finish_keep_nobody_from_being_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin, "REQUEST_S_MAX", 3600.0)

    async def client(port: int) -> None:
        stuck = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3 * CONNECTIONS_MAX)]
        for stream in stuck:
            await stream.send_all(b"GET /hello")
        for _ in range(5):
            assert status_of(await exchange(port, b"GET /hello HTTP/1.1\r\n\r\n")) == 200
        assert status_of(await stuck[0].receive_some()) == 408, "the longest there went first"
        for stream in stuck:
            await trio.aclose_forcefully(stream)

    await with_server(client)
