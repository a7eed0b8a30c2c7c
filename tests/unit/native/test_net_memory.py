"""Receive memory: bounded, given only for what arrived, and never a deadlock."""

import select
import socket
import struct
import threading

import pytest

from corelane_native import (
    CLOSED,
    FRAME,
)
from corelane_native._core import lib
from tests.unit.native.netbench import FRAME_MAX, KIB, MIB, RECEIVE_MAX, Bench, body, framed


def test_claimed_lengths_take_no_memory(bench: Bench) -> None:
    for _ in range(100):
        client, _ = bench.client()
        client.sendall(struct.pack(">I", FRAME_MAX) + b"\0\1\0\4")
    bench.quiet()
    assert bench.net.stats().receive_bytes == 100 * 512


SMALL = {"frame": MIB, "receive": MIB}


def watched(bench: Bench, count: int) -> int:
    """Take *count* frames and return the most receive memory that was ever in use."""
    most = 0
    frames = 0
    while frames < count:
        frames += sum(event[0] == FRAME for event in bench.net.poll(1_000_000))
        most = max(most, bench.net.stats().receive_bytes)
    return most


@pytest.mark.parametrize("bench", [SMALL], indirect=True)
def test_more_large_requests_than_memory_take_turns(bench: Bench) -> None:
    clients = [bench.client()[0] for _ in range(12)]
    content = framed(body(900 * KIB)) * 3
    threads = [threading.Thread(target=client.sendall, args=(content,)) for client in clients]
    for thread in threads:
        thread.start()
    most = watched(bench, 36)
    for thread in threads:
        thread.join()
    stats = bench.net.stats()
    assert stats.starved > 0
    assert most <= 2 * MIB + 12 * 16 * KIB
    bench.quiet()
    assert bench.net.stats().receive_bytes == 0


def part_of_a_frame(bench: Bench, size: int, count: int) -> list[tuple[socket.socket, int]]:
    """Let *count* clients each send the first *size* bytes of a frame of 1 MiB, and stop."""
    clients = [bench.client() for _ in range(count)]
    for client, _ in clients:
        client.sendall(framed(body(MIB))[:size])
        while bench.poll(1000):
            pass
    bench.quiet()
    return clients


@pytest.mark.parametrize("bench", [SMALL], indirect=True)
@pytest.mark.parametrize("size", [8, 5000, 16 * KIB - 4])
def test_small_requests_go_on_when_memory_is_full(bench: Bench, size: int) -> None:
    part_of_a_frame(bench, 300 * KIB, 6)
    assert bench.net.stats().starved > 0
    for _ in range(3):
        client, conn = bench.client()
        for _ in range(3):
            client.sendall(framed(body(size)))
            assert bench.wait_frames(1) == [(conn, body(size))]
    assert bench.net.stats().receive_bytes <= 2 * MIB + 9 * 16 * KIB


@pytest.mark.parametrize("bench", [SMALL | {"stall_s": 0.3}], indirect=True)
def test_a_request_that_stalls_on_others_memory_is_ended(bench: Bench) -> None:
    clients = part_of_a_frame(bench, 300 * KIB, 6)
    ended = bench.other(CLOSED)
    assert ended[2] == lib.CL_CLOSED_STALLED
    assert ended[1] in {conn for _, conn in clients}
    late, late_conn = bench.client()
    sender = threading.Thread(target=late.sendall, args=(framed(body(MIB)),))
    sender.start()
    assert bench.wait_frames(1)[0][0] == late_conn
    sender.join()


@pytest.mark.parametrize("bench", [SMALL], indirect=True)
def test_memory_of_a_client_that_leaves_goes_to_the_next(bench: Bench) -> None:
    clients = part_of_a_frame(bench, 300 * KIB, 6)
    for client, _ in clients[:-1]:
        client.close()
        bench.other(CLOSED)
    last, conn = clients[-1]
    sender = threading.Thread(target=last.sendall, args=(framed(body(MIB))[300 * KIB :],))
    sender.start()
    assert bench.wait_frames(1) == [(conn, body(MIB))]
    sender.join()


@pytest.mark.parametrize("bench", [SMALL], indirect=True)
def test_whoever_waits_in_the_loop_hears_of_freed_memory(bench: Bench) -> None:
    clients = part_of_a_frame(bench, 300 * KIB, 5)
    last, conn = bench.client()
    sender = threading.Thread(target=last.sendall, args=(framed(body(MIB)),))
    sender.start()
    bench.quiet()
    assert bench.net.stats().starved > 1
    for _, other in clients:
        bench.net.close(other)
    while not bench.frames:
        assert select.select([bench.net.fd], [], [], 5)[0]
        bench.poll(0)
    assert bench.frames[0][0] == conn
    sender.join()


def test_kept_memory_serves_the_next_large_request(bench: Bench) -> None:
    client, _ = bench.client()
    for size in (2 * MIB, 2 * MIB, MIB, 3 * MIB):
        sender = threading.Thread(target=client.sendall, args=(framed(body(size)),))
        sender.start()
        bench.wait_frames(1)
        sender.join()
    bench.quiet()
    stats = bench.net.stats()
    assert stats.receive_bytes == 0
    assert 3 * MIB <= stats.receive_bytes_kept <= RECEIVE_MAX
    bench.net.idle(1000)
    assert bench.net.stats().receive_bytes_kept > 0  # much came since the last time
    bench.net.idle(1000)
    assert bench.net.stats().receive_bytes_kept == 0


def test_a_hundred_connections_that_come_and_go_leave_nothing(bench: Bench) -> None:
    for _ in range(5):
        clients = [bench.client() for _ in range(100)]
        for client, _ in clients:
            client.sendall(framed(body(100)) + b"\0\0")
        bench.wait_frames(100)
        for client, _ in clients:
            client.close()
        for _ in clients:
            bench.other(CLOSED)
    bench.quiet()
    stats = bench.net.stats()
    assert (stats.connections, stats.closed, stats.receive_bytes) == (0, 500, 0)
