"""How an empty directory comes to its cluster: the decision as a table, and the peer port."""

import contextlib
import socket
import struct
from collections.abc import Sequence

import pytest
import trio

from corelane.model import limits
from corelane.model.ids import CoreId, NodeId
from corelane.runtime import formation, introductions
from corelane.runtime.failures import StartError
from corelane.runtime.formation import Conflict, Decision, Waiting, decide
from corelane.runtime.introductions import Introduction, IntroductionError
from corelane.runtime.peer_door import PeerDoor
from corelane.runtime.peer_port import parse_seeds
from corelane.shard.peers import hello
from corelane.shard.peers.frames import Channel, Kind, decode, encode
from corelane.shard.peers.hello import Greeting, Identity, Refusal, Refused

SEEDS = [("one", 1), ("two", 2), ("three", 3)]
SILENT = "connection refused"


def node(number: int, cluster: str = "", nonce: str = "") -> Introduction:
    return Introduction(1, number, nonce or f"run-{number}", cluster, f"host-{number}", number)


FIRST, SECOND, THIRD = node(1), node(2), node(3)


@pytest.mark.parametrize(
    ("own", "answers", "wanted"),
    [
        (FIRST, [FIRST, SILENT, SILENT], Waiting),
        (FIRST, [FIRST, SECOND, SILENT], Decision("", founds=True)),
        (FIRST, [FIRST, SECOND, node(3, "c")], Decision("c", founds=False)),
        (FIRST, [FIRST, SILENT, node(3, "c")], Decision("c", founds=False)),
        (FIRST, [FIRST, node(2, "c"), node(3, "d")], Conflict),
        (FIRST, [FIRST, node(1, nonce="twin"), SILENT], Conflict),
        (SECOND, [FIRST, SECOND, THIRD], Waiting),
        (SECOND, [SILENT, SECOND, THIRD], Waiting),
        (SECOND, [node(1, "c"), SECOND, SILENT], Decision("c", founds=False)),
        (node(4), [SILENT, node(2, "c"), SILENT], Decision("c", founds=False)),
        (node(4), [FIRST, SECOND, THIRD], Waiting),
    ],
)
def test_the_decision(
    own: Introduction, answers: Sequence[Introduction | str], wanted: object
) -> None:
    found = decide(own, SEEDS, answers)
    if isinstance(wanted, Decision):
        assert found == wanted
    else:
        assert isinstance(wanted, type)
        assert isinstance(found, wanted)


def test_without_seeds_a_node_founds_at_once() -> None:
    assert decide(FIRST, [], []) == Decision("", founds=True)


def test_who_waits_says_for_what_and_who_is_silent() -> None:
    found = decide(FIRST, SEEDS, [FIRST, SILENT, SILENT])
    assert isinstance(found, Waiting)
    assert found.sentence == (
        "waiting for 2 of 3 seeds, to found a cluster with them; no answer from two:2"
        " (connection refused), three:3 (connection refused)"
    )


def test_never_do_two_nodes_found_by_the_same_answers() -> None:
    answers = [FIRST, SECOND, THIRD]
    decisions = [decide(own, SEEDS, answers) for own in answers]
    assert [isinstance(each, Decision) for each in decisions] == [True, False, False]


def test_seeds_are_hosts_and_ports() -> None:
    assert parse_seeds("one:1, [::1]:2,") == [("one", 1), ("::1", 2)]
    for text in ("one", "one:", ":1", "one:x", "one:0", "one:65536"):
        with pytest.raises(StartError, match="which is not host:port"):
            parse_seeds(text)


class Rooms:
    """One core, which is there or away."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        self.refusal = refusal
        self.came: list[tuple[Greeting, bytes]] = []

    def bring(self, greeting: Greeting, frame: bytes, descriptor: int) -> Refusal | None:
        assert descriptor >= 0
        self.came.append((greeting, frame))
        return self.refusal


def listening() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> tuple[str, int]:
    host, port = listener.getsockname()
    return str(host), int(port)


def greeting() -> bytes:
    own = Identity(bytes(16), NodeId(2), CoreId(0), 1, 7, "two", 2)
    body = hello.encode_greeting(own.greet((NodeId(1), CoreId(0)), Channel.DATA))
    return encode(Kind.HELLO, 0, body)


async def said(listener: socket.socket, data: bytes) -> bytes:
    """Return everything that the door answers to *data*."""
    stream = await trio.open_tcp_stream(*address_of(listener))
    async with stream:
        await stream.send_all(data)
        answer = bytearray()
        with trio.fail_after(5):
            while piece := await stream.receive_some():
                answer += piece
    return bytes(answer)


async def test_the_door_tells_who_is_here() -> None:
    with listening() as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(PeerDoor(listener, lambda: FIRST, None).serve)
            found = await introductions.ask(*address_of(listener), SECOND)
            assert found == FIRST
            answers = await formation.ask_all(SECOND, [address_of(listener), ("127.0.0.1", 1)])
            assert answers[0] == FIRST
            assert "refused" in str(answers[1])
            nursery.cancel_scope.cancel()


async def test_the_door_brings_a_greeting_to_its_core_or_says_why_not() -> None:
    away = Refusal(Refused.CORE_AWAY, "Core 0 of node 1 is away.", 41)
    with listening() as listener:
        for rooms in (Rooms(), Rooms(away)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(PeerDoor(listener, lambda: FIRST, rooms).serve)
                answer = await said(listener, greeting())
                nursery.cancel_scope.cancel()
            assert [frame for _, frame in rooms.came] == [greeting()[4:]]
            if rooms.refusal is not None:
                frame = decode(answer[4:], limits.PEER_GREETING_BYTES_MAX)
                assert hello.decode_refusal(frame.body) == away


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\4",
        struct.pack(">I", 12) + bytes(12),
        struct.pack(">4sII", b"CLWH", 2, 0) + b"{}",
        struct.pack(">4sII", b"CLWH", 1 << 30, 0),
        greeting()[:-1] + b"?",
    ],
)
async def test_garbage_on_the_peer_port_harms_nobody(garbage: bytes) -> None:
    rooms = Rooms()
    with listening() as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(PeerDoor(listener, lambda: FIRST, rooms).serve)
            with contextlib.suppress(trio.BrokenResourceError):  # it does not read all of it
                await said(listener, garbage)
            assert rooms.came == []
            assert await introductions.ask(*address_of(listener), SECOND) == FIRST
            nursery.cancel_scope.cancel()


async def test_a_stranger_is_no_node() -> None:
    async def strange(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mail.example ESMTP\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, strange, listeners)
        port = int(listeners[0].socket.getsockname()[1])
        with pytest.raises(IntroductionError, match="No Corelane node answers there"):
            await introductions.ask("127.0.0.1", port, SECOND)
        nursery.cancel_scope.cancel()
    await listeners[0].aclose()
