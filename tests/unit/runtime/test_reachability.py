"""Advertised addresses tried from here: what is said about each way in which they fail."""

import socket
import struct

import pytest
import trio

from corelane.model.config import parse
from corelane.runtime import reachability
from corelane.runtime.advertise import listener_brokers
from corelane.runtime.messages import ListenerPorts
from corelane.runtime.reachability import Told, addresses_to_try, look, wildcard_warning
from corelane.wire.compiler import message_type, response_codec

Metadata = message_type("MetadataResponse")
Broker = message_type("MetadataResponse.MetadataResponseBroker")
BOUND = [ListenerPorts(9092, [19092, 19093])]


def metadata(cluster_id: str | None) -> bytes:
    """Return a whole answer to the question that is asked, as a broker makes it."""
    brokers = [
        Broker(node_id=1000, host="a", port=1, rack=None),
        Broker(node_id=1001, host="other", port=2, rack="rack"),
    ]
    answer = Metadata(brokers=brokers, cluster_id=cluster_id, controller_id=1000, topics=[])
    body = struct.pack(">i", 1) + response_codec(3, 4).encode(answer)
    return struct.pack(">i", len(body)) + body


async def look_at(answer: bytes, *, cluster_id: str = "ours") -> list[str]:
    """Look at a server that answers every question with *answer*, and stays."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        found = await look({"OUTSIDE": [Told(1000, "127.0.0.1", port)]}, cluster_id)
        nursery.cancel_scope.cancel()
    return found


async def test_a_broker_of_this_cluster_is_reachable() -> None:
    assert await look_at(metadata("ours")) == []


async def test_a_broker_of_another_cluster_is_told() -> None:
    (said,) = await look_at(metadata("theirs"))
    assert "another cluster (theirs) answers there" in said
    (said,) = await look_at(metadata(None))
    assert "another cluster (None) answers there" in said


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack(">i", -1),
        struct.pack(">i", 8) + bytes(8),
        struct.pack(">iiii", 12, 1, 0, 2**31 - 1),
        struct.pack(">ii", 4, 1),
        struct.pack(">iiiih", 16, 1, 0, 0, 2) + b"\xff\xff",
        struct.pack(">iiiih", 14, 1, 0, 0, 30000),
    ],
    ids=repr,
)
async def test_what_is_no_broker_is_told(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "ANSWER_S_MAX", 0.1)
    (said,) = await look_at(answer)
    assert "but from here what answers is no Kafka broker." in said


async def test_who_does_not_answer_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "ANSWER_S_MAX", 0.05)
    (said,) = await look_at(b"")
    assert "it does not answer within" in said


async def test_a_port_where_nobody_listens_is_told_with_why_it_matters() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    rows = [Told(1000 + core, "127.0.0.1", port) for core in range(3)]
    (said,) = await look({"OUTSIDE": rows}, "ours")
    assert said == (
        "clients of listener OUTSIDE are told that broker 1000 is at"
        f" 127.0.0.1:{port} (and 2 more brokers so), but from here nobody listens there. Unless it"
        " works from where they are, they will connect once and then fail: correct"
        " advertised.listeners or corelane.advertised.host, or let the router pass the port"
    )


async def test_a_name_that_is_not_known_is_told() -> None:
    (said,) = await look({"OUTSIDE": [Told(1000, "no-such-host.invalid", 9092)]}, "ours")
    assert "but from here the name is not known." in said


async def test_each_listener_has_a_sentence_of_its_own() -> None:
    rows = [Told(1000, "no-such-host.invalid", 9092)]
    said = await look({"A": rows, "B": rows}, "ours")
    assert [each.split()[3] for each in said] == ["A", "B"]


@pytest.mark.parametrize(
    ("settings", "tried"),
    [
        ("", {}),
        (
            'corelane.bind.host = "0.0.0.0"',
            {"PLAINTEXT": [("127.0.0.1", 19092), ("127.0.0.1", 19093)]},
        ),
        (
            'corelane.advertised.host = "h"',
            {"PLAINTEXT": [("h", 19092), ("h", 19093)]},
        ),
        (
            'corelane.advertise = "node"\nadvertised.listeners = "PLAINTEXT://h:7"',
            {"PLAINTEXT": [("h", 7)]},
        ),
    ],
)
def test_only_what_is_not_plainly_ours_is_tried(
    settings: str, tried: dict[str, list[tuple[str, int]]]
) -> None:
    config = parse(settings)
    rows = addresses_to_try(config, BOUND, listener_brokers(config, BOUND))
    assert {name: [(r.host, r.port) for r in each] for name, each in rows.items()} == tried


@pytest.mark.parametrize(
    ("settings", "is_told"),
    [
        ("", False),
        ('corelane.bind.host = "0.0.0.0"', True),
        ('corelane.bind.host = "::"', True),
        ('corelane.bind.host = "0.0.0.0"\ncorelane.advertised.host = "h"', False),
        ('corelane.bind.host = "10.0.0.1"', False),
        ('corelane.bind.host = "0.0.0.0"\nadvertised.listeners = "PLAINTEXT://h:9092"', False),
    ],
)
def test_listening_to_all_and_telling_them_to_stay_at_home_is_told(
    settings: str, *, is_told: bool
) -> None:
    said = wildcard_warning(parse(settings))
    assert (said is not None) == is_told
    assert said is None or "Set corelane.advertised.host" in said
