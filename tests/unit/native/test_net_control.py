"""Accepting, pausing, holding, watching and ending connections over real loopback sockets."""

import os
import resource
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from corelane_native import (
    ACCEPTED,
    WATCH,
    Arena,
    Net,
    Worker,
)
from corelane_native._core import lib
from tests.unit.native.netbench import (
    FETCH,
    KIB,
    MIB,
    PRODUCE,
    Bench,
    body,
    framed,
)


def test_an_accepted_connection_names_listener_and_peer(bench: Bench) -> None:
    client = socket.create_connection(bench.listener.getsockname())
    kind, conn, listener, peer = bench.other(ACCEPTED)
    host, port = client.getsockname()
    assert (kind, listener, peer) == (ACCEPTED, 7, f"{host}:{port}")
    assert conn > 0
    client.close()
    assert bench.closed(conn) == lib.CL_CLOSED_EOF


def test_an_ipv6_peer_is_readable() -> None:
    net = Net(2, MIB, MIB, Arena(MIB))
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.xfail("this machine has no IPv6 loopback")
    net.listen(listener.fileno(), 0)
    with socket.create_connection(listener.getsockname()[:2]) as client:
        assert net.poll(1_000_000)[0][3] == f"[::1]:{client.getsockname()[1]}"
    listener.close()


def test_a_reset_is_told(bench: Bench) -> None:
    client, conn = bench.client()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert bench.closed(conn) == lib.CL_CLOSED_RESET


def test_a_paused_connection_is_not_cut(bench: Bench) -> None:
    client, conn = bench.client()
    bench.net.pause(conn)
    client.sendall(framed(body(30)) * 2)
    bench.quiet()
    bench.net.resume(conn)
    assert len(bench.wait_frames(2)) == 2
    client.sendall(framed(body(20)) * 100)
    while len(bench.frames) < 64:
        bench.poll()
    bench.net.pause(conn)
    bench.quiet()
    bench.net.resume(conn)
    assert len(bench.wait_frames(100)) == 100


def test_a_resume_wakes_whoever_waits_for_the_descriptor(bench: Bench) -> None:
    client, conn = bench.client()
    bench.net.pause(conn)
    client.sendall(framed(body(30)))
    bench.quiet()
    assert select.select([bench.net.fd], [], [], 0)[0] == []
    bench.net.resume(conn)
    assert select.select([bench.net.fd], [], [], 5)[0] == [bench.net.fd]
    assert len(bench.wait_frames(1)) == 1
    bench.quiet()
    assert select.select([bench.net.fd], [], [], 0)[0] == []


def test_what_a_turn_left_over_keeps_the_descriptor_readable(bench: Bench) -> None:
    client, _ = bench.client()
    client.sendall(framed(body(20)) * 200)
    time.sleep(0.1)
    total = 0
    while total < 200:
        assert select.select([bench.net.fd], [], [], 5)[0], total
        total += bench.poll(0)
    bench.poll(0)
    assert select.select([bench.net.fd], [], [], 0)[0] == []


def test_a_dead_peer_of_a_paused_connection_is_noticed(bench: Bench) -> None:
    client, conn = bench.client()
    bench.net.pause(conn)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert bench.closed(conn) == lib.CL_CLOSED_RESET


@pytest.mark.parametrize("size", [20, 200 * KIB])
def test_produce_can_be_held_while_others_go_on(bench: Bench, size: int) -> None:
    producer, produce_conn = bench.client()
    consumer, consume_conn = bench.client()
    bench.net.hold_produce(True)
    fetch = framed(body(20, FETCH))
    sender = threading.Thread(
        target=producer.sendall, args=(fetch + framed(body(size, PRODUCE)) + fetch,)
    )
    sender.start()
    consumer.sendall(fetch)
    first = {conn for conn, _ in bench.wait_frames(2)}
    assert first == {produce_conn, consume_conn}
    bench.quiet()
    consumer.sendall(fetch)
    assert bench.wait_frames(1)[0][0] == consume_conn
    bench.net.hold_produce(False)
    assert [len(content) for _, content in bench.wait_frames(2)] == [size, 20]
    sender.join()
    producer.sendall(framed(body(20, PRODUCE)))
    assert len(bench.wait_frames(1)) == 1


def test_a_held_producer_may_leave(bench: Bench) -> None:
    producer, conn = bench.client()
    bench.net.hold_produce(True)
    producer.sendall(framed(body(20, PRODUCE)))
    bench.quiet()
    producer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    producer.close()
    assert bench.closed(conn) == lib.CL_CLOSED_RESET
    bench.net.hold_produce(False)
    bench.quiet()


def test_ids_are_never_used_again(bench: Bench) -> None:
    seen: set[int] = set()
    for _ in range(300):
        client, conn = bench.client()
        seen.add(conn)
        client.close()
        bench.closed(conn)
    assert len(seen) == 300


def test_calls_about_a_connection_that_is_gone_do_nothing(bench: Bench) -> None:
    client, conn = bench.client()
    client.close()
    bench.closed(conn)
    for gone in (conn, 0, -1, 2**62):
        bench.net.close(gone)
        bench.net.pause(gone)
        bench.net.resume(gone)
        assert bench.net.send(gone, [b"x"]) == 0
    bench.quiet()


def test_a_connection_closed_here_says_no_more(bench: Bench) -> None:
    client, conn = bench.client()
    client.sendall(framed(body(20)) * 100)
    time.sleep(0.05)
    assert bench.poll() == 64
    bench.net.close(conn)
    bench.quiet()
    client.settimeout(5)
    with suppress(ConnectionResetError):
        assert client.recv(1) == b""


@pytest.mark.parametrize("bench", [{"conns": 3}], indirect=True)
def test_connections_above_the_limit_are_closed_at_once(bench: Bench) -> None:
    clients = [bench.client() for _ in range(3)]
    extra = [socket.create_connection(bench.listener.getsockname()) for _ in range(5)]
    bench.quiet()
    for each in extra:
        each.settimeout(5)
        assert each.recv(1) == b""
        each.close()
    assert bench.net.stats().refused == 5
    clients[0][0].close()
    bench.closed(clients[0][1])
    bench.client()


def test_without_descriptors_the_listener_does_not_spin(bench: Bench) -> None:
    kept, _ = bench.client()
    clients = [socket.socket() for _ in range(5)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = max(int(link.name) for link in Path("/proc/self/fd").iterdir())
    filler: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (top + 2, hard))
        with suppress(OSError):
            while len(filler) < top + 2:
                filler.append(os.dup(0))
        for client in clients:
            client.connect(bench.listener.getsockname())
        time.sleep(0.05)
        bench.quiet()
        assert select.select([bench.net.fd], [], [], 0)[0] == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in filler:
            os.close(number)
    assert bench.net.stats().refused == 5
    kept.sendall(framed(body(9)))
    bench.wait_frames(1)
    for each in clients:
        each.close()


def test_a_connection_accepted_elsewhere_is_taken_over(bench: Bench) -> None:
    ours, theirs = socket.socketpair()
    conn = bench.net.add(ours.detach(), 3)
    assert conn > 0
    theirs.sendall(framed(body(9)))
    assert bench.wait_frames(1) == [(conn, body(9))]
    bench.net.send(conn, [b"answer"])
    assert theirs.recv(10) == b"answer"
    theirs.close()
    assert bench.closed(conn) == lib.CL_CLOSED_EOF


def test_a_full_table_closes_what_it_is_handed() -> None:
    net = Net(1, MIB, MIB, Arena(MIB))
    pairs = [socket.socketpair() for _ in range(2)]
    assert net.add(pairs[0][0].detach(), 0) > 0
    assert net.add(pairs[1][0].detach(), 0) == -1
    assert pairs[1][1].recv(1) == b""
    for _, theirs in pairs:
        theirs.close()


def test_eventfds_are_reported_and_cleared(bench: Bench) -> None:
    watched = os.eventfd(0, os.EFD_NONBLOCK)
    bench.net.watch(watched, 5)
    bench.quiet()
    os.eventfd_write(watched, 3)
    assert bench.other(WATCH) == (WATCH, 5, 3)
    bench.quiet()
    bench.net.unlisten(watched)
    os.eventfd_write(watched, 1)
    bench.quiet()
    with pytest.raises(FileNotFoundError):
        bench.net.unlisten(watched)
    os.close(watched)


def test_a_workers_answers_arrive_through_the_net(bench: Bench, tmp_path: Any) -> None:
    worker = Worker("store", str(tmp_path))
    bench.net.watch(worker.eventfd, 2)
    worker.make_directory(1, "made")
    assert bench.other(WATCH)[1] == 2
    assert worker.reap() == [(1, 0, 0)]
    bench.net.unlisten(worker.eventfd)
    worker.close()


def test_a_listener_can_be_forgotten(bench: Bench) -> None:
    bench.net.unlisten(bench.listener.fileno())
    client = socket.create_connection(bench.listener.getsockname())
    bench.quiet()
    client.close()


def test_idle_and_slow_connections_are_listed(bench: Bench) -> None:
    silent, silent_conn = bench.client()
    slow, slow_conn = bench.client()
    data = framed(body(500))
    end = time.monotonic() + 0.3
    at = 0
    while time.monotonic() < end:
        slow.sendall(data[at : at + 1])
        at += 1
        bench.poll(1000)
        time.sleep(0.01)
    assert bench.net.idle(0.2) == [silent_conn]
    assert bench.net.idle(1000) == []
    assert bench.net.slow(0.2) == [slow_conn]
    assert bench.net.slow(1000) == []
    slow.sendall(data[at:])
    bench.wait_frames(1)
    assert bench.net.slow(0) == []
    silent.sendall(b"\0")
    bench.poll()
    assert silent_conn not in bench.net.idle(0.2)


def test_a_poll_waits_as_long_as_it_is_told(bench: Bench) -> None:
    for timeout_us in (0, 300, 2_000, 50_000):
        start = time.monotonic()
        assert bench.net.poll(timeout_us) == []
        took_us = (time.monotonic() - start) * 1e6
        assert timeout_us <= took_us < timeout_us + 30_000


def test_a_busy_connection_does_not_keep_the_others_waiting(bench: Bench) -> None:
    busy, busy_conn = bench.client()
    others = [bench.client() for _ in range(20)]
    stop = threading.Event()
    flood = framed(body(20)) * 1000

    def pour() -> None:
        busy.settimeout(0.1)
        while not stop.is_set():
            try:
                busy.sendall(flood)
            except OSError:
                return  # the net reads no more, or is gone

    sender = threading.Thread(target=pour)
    sender.start()
    for _ in range(5):
        bench.poll()
    for client, _ in others:
        client.sendall(framed(body(9)))
    time.sleep(0.05)
    bench.frames.clear()
    for _ in range(3):
        bench.poll()
    served = {conn for conn, _ in bench.frames}
    assert served == {busy_conn} | {conn for _, conn in others}
    stop.set()
    bench.net.close(busy_conn)
    sender.join()
