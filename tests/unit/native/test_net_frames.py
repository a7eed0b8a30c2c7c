"""Frames over real loopback sockets, however they are cut, and strangers who send none."""

import socket
import struct
import threading
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corelane_native import (
    FRAME,
    NET_REASONS,
    NET_REASONS_QUIET,
    bytes_at,
)
from corelane_native._core import ffi, lib
from corelane_native.net import EVENT, STATS
from tests.unit.native.netbench import (
    FRAME_MAX,
    KIB,
    MIB,
    PRODUCE,
    RECEIVE_MAX,
    Bench,
    body,
    framed,
)


def test_a_frame_tells_its_first_words(bench: Bench) -> None:
    client, conn = bench.client()
    client.sendall(framed(struct.pack(">hhi", 18, 4, -7) + b"rest"))
    ((kind, *words),) = bench.net.poll(1_000_000)
    assert (kind, words[0], words[2]) == (FRAME, conn, 12)
    assert words[3:] == [18, 4, -7]
    assert bytes_at(words[1], words[2])[8:] == b"rest"


def test_a_frame_may_come_byte_by_byte(bench: Bench) -> None:
    client, conn = bench.client()
    content = body(40)
    data = framed(content)
    for at in range(len(data) - 1):
        client.sendall(data[at : at + 1])
        assert bench.poll(5_000) == 0
    client.sendall(data[-1:])
    assert bench.wait_frames(1) == [(conn, content)]


@given(st.lists(st.integers(8, 3000), min_size=1, max_size=20), st.data())
@settings(max_examples=25, deadline=None)
def test_any_cutting_of_any_frames_gives_the_same_frames(
    sizes: list[int], data: st.DataObject
) -> None:
    with Bench() as bench:
        client, conn = bench.client()
        bodies = [body(size, correlation=at) for at, size in enumerate(sizes)]
        stream = b"".join(map(framed, bodies))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            client.sendall(stream[start:end])
            bench.poll(1000)
        assert bench.wait_frames(len(bodies)) == [(conn, each) for each in bodies]


def test_pipelined_frames_come_in_order_and_64_at_a_time(bench: Bench) -> None:
    client, _ = bench.client()
    client.sendall(b"".join(framed(body(20, correlation=at)) for at in range(1000)))
    correlations: list[int] = []
    while len(correlations) < 1000:
        events = bench.net.poll(1_000_000)
        assert 0 < len(events) <= 64
        correlations += [event[6] for event in events]
    assert correlations == list(range(1000))
    bench.quiet()


@pytest.mark.parametrize("size", [8, 16 * KIB - 4, 64 * KIB - 4, 64 * KIB - 3, 3 * MIB, FRAME_MAX])
def test_frames_of_every_size_arrive_whole(bench: Bench, size: int) -> None:
    client, conn = bench.client()
    content = body(size)
    sender = threading.Thread(target=client.sendall, args=(framed(content) * 4,))
    sender.start()
    assert bench.wait_frames(4) == [(conn, content)] * 4
    sender.join()
    bench.quiet()
    assert bench.net.stats().receive_bytes == 0


def test_a_big_frame_wakes_its_reader_once(bench: Bench) -> None:
    client, _ = bench.client()
    content = body(4 * MIB)
    sender = threading.Thread(target=client.sendall, args=(framed(content),))
    sender.start()
    assert len(bench.net.poll(5_000_000)) == 1
    sender.join()


def test_many_sizes_in_a_row_on_many_connections(bench: Bench) -> None:
    sizes = [8, 100, 70_000, 17_000, 300_000, 64, 1_000_000, 65_532, 65_533, 200_000]
    clients = [bench.client() for _ in range(8)]

    def send(client: socket.socket, shift: int) -> None:
        for at in range(30):
            client.sendall(framed(body(sizes[(at + shift) % len(sizes)], correlation=at)))

    threads = [
        threading.Thread(target=send, args=(client, shift))
        for shift, (client, _) in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    frames = bench.wait_frames(8 * 30, 60)
    for thread in threads:
        thread.join()
    for shift, (_, conn) in enumerate(clients):
        mine = [content for each, content in frames if each == conn]
        expected = [body(sizes[(at + shift) % len(sizes)], correlation=at) for at in range(30)]
        assert mine == expected
    bench.quiet()
    stats = bench.net.stats()
    assert stats.receive_bytes == 0
    assert stats.receive_bytes_kept <= RECEIVE_MAX


TLS_HELLO = bytes.fromhex("16030100f5010000f10303") + bytes(100)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", lib.CL_CLOSED_HTTP),
        (b"POST /x HTTP/1.1\r\n\r\n", lib.CL_CLOSED_HTTP),
        (b"PRI * HTTP/2.0\r\n\r\n", lib.CL_CLOSED_HTTP),
        (TLS_HELLO, lib.CL_CLOSED_TLS),
        (struct.pack(">I", 2**31), lib.CL_CLOSED_FRAME_NEGATIVE),
        (b"\xff\xff\xff\xff", lib.CL_CLOSED_FRAME_NEGATIVE),
        (struct.pack(">I", 2**31 - 1), lib.CL_CLOSED_FRAME_TOO_LARGE),
        (struct.pack(">I", FRAME_MAX + 1), lib.CL_CLOSED_FRAME_TOO_LARGE),
        (struct.pack(">I", 7), lib.CL_CLOSED_FRAME_SHORT),
        (struct.pack(">I", 0), lib.CL_CLOSED_FRAME_SHORT),
        (framed(body(20)) + b"GET ", lib.CL_CLOSED_FRAME_TOO_LARGE),
    ],
)
def test_strangers_and_liars_are_closed_with_a_reason(
    bench: Bench, sent: bytes, reason: int
) -> None:
    client, conn = bench.client()
    other, other_conn = bench.client()
    client.sendall(sent)
    assert bench.closed(conn) == reason
    client.settimeout(5)
    with suppress(ConnectionResetError):  # closed with bytes unread
        assert client.recv(1) == b""
    bench.frames.clear()
    other.sendall(framed(body(9)))
    assert bench.wait_frames(1)[0][0] == other_conn
    assert bench.net.stats().connections == 1


def test_every_reason_has_a_sentence() -> None:
    names = [name for name in dir(lib) if name.startswith("CL_CLOSED_")]
    assert sorted(NET_REASONS) == sorted(getattr(lib, name) for name in names)
    assert set(NET_REASONS) > NET_REASONS_QUIET


def test_frames_before_an_end_are_delivered(bench: Bench) -> None:
    client, conn = bench.client()
    client.sendall(framed(body(30)) * 3 + b"\0\0")
    client.close()
    assert bench.wait_frames(3) == [(conn, body(30))] * 3
    assert bench.closed(conn) == lib.CL_CLOSED_EOF
    bench.quiet()
    assert bench.net.stats().receive_bytes == 0


@pytest.mark.parametrize("size", [30, 2000])
def test_more_than_a_turn_before_an_end_is_delivered(bench: Bench, size: int) -> None:
    """A client that wants no answers may leave at once; what it sent must count."""
    client, conn = bench.client()
    client.sendall(framed(body(size)) * 500)
    client.close()
    assert bench.wait_frames(500) == [(conn, body(size))] * 500
    assert bench.closed(conn) == lib.CL_CLOSED_EOF


def test_what_came_before_an_end_waits_for_a_paused_reader(bench: Bench) -> None:
    client, conn = bench.client()
    bench.net.pause(conn)
    client.sendall(framed(body(30)) * 3)
    client.close()
    bench.quiet()
    bench.net.resume(conn)
    assert bench.wait_frames(3) == [(conn, body(30))] * 3
    assert bench.closed(conn) == lib.CL_CLOSED_EOF


def test_produce_that_came_before_an_end_waits_until_it_may_be_taken(bench: Bench) -> None:
    client, conn = bench.client()
    bench.net.hold_produce(True)
    client.sendall(framed(body(30, PRODUCE)) * 3)
    bench.quiet()
    client.close()
    bench.quiet()
    bench.net.hold_produce(False)
    assert bench.wait_frames(3) == [(conn, body(30, PRODUCE))] * 3
    assert bench.closed(conn) == lib.CL_CLOSED_EOF


def test_what_came_before_a_reset_is_delivered(bench: Bench) -> None:
    """A client that leaves without reading its answers resets the connection."""
    client, conn = bench.client()
    client.sendall(framed(body(30)) * 200)
    assert bench.wait_frames(64) == [(conn, body(30))] * 64
    assert bench.net.send(conn, [b"an answer"]) == 0
    client.close()
    assert bench.wait_frames(136) == [(conn, body(30))] * 136
    assert bench.closed(conn) == lib.CL_CLOSED_RESET


def test_the_layouts_are_those_of_c() -> None:
    assert EVENT.size == ffi.sizeof("cl_event")
    assert STATS.size == ffi.sizeof("cl_net_stats")
