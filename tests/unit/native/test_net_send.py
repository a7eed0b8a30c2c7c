"""Answers over real loopback sockets: order, backlogs, and clients that do not read."""

import random
import select
import socket
import struct
import threading
import time
from itertools import pairwise

import pytest

from corelane_native import (
    DRAINED,
)
from corelane_native._core import lib
from corelane_native.net import Part
from tests.unit.native.netbench import KIB, MIB, Bench, body, framed, receive

SEND_BYTES = 256 * KIB
"""What leaves from one poll to the next, of all connections together."""


def test_an_answer_of_bytes_and_chunks_is_sent_in_order(bench: Bench) -> None:
    client, conn = bench.client()
    chunk = bench.arena.chunk_new(1)
    bench.arena.write(chunk, 100, b"from the arena")
    parts: list[Part] = [
        b"head-",
        b"two-",
        (chunk, 105, 3),
        b"-middle-",
        (chunk, 100, 14),
        b"",
        b"-tail",
    ]
    assert bench.net.send(conn, parts) == 0
    expected = b"head-two-the-middle-from the arena-tail"
    assert receive(client, len(expected)) == expected
    assert bench.net.send(conn, [b"alone"]) == 0
    assert bench.net.send(conn, []) == 0
    assert bench.net.send(conn, [(chunk, 0, 0)]) == 0
    assert receive(client, 5) == b"alone"
    assert bench.arena.references(chunk) == 1


def test_an_answer_of_more_parts_than_one_call_takes(bench: Bench) -> None:
    client, conn = bench.client()
    chunk = bench.arena.chunk_new(1)
    data = bytes(at % 251 for at in range(5000))
    bench.arena.write(chunk, 0, data)
    parts = [(chunk, at, 1) for at in range(5000)]
    assert bench.net.send(conn, parts) == 0
    assert receive(client, 5000) == data


def test_what_the_socket_does_not_take_is_sent_later(bench: Bench) -> None:
    client, conn = bench.client(receive_bytes=4096)
    chunk = bench.arena.chunk_new(4 * MIB)
    data = bytes(at * 7 % 251 for at in range(4 * MIB))
    bench.arena.write(chunk, 0, data)
    head = bytes(range(256)) * 4 * KIB
    backlog = bench.net.send(conn, [b"first", (chunk, 0, 4 * MIB), head])
    backlog = bench.net.send(conn, [b"second"])
    assert 0 < backlog <= 5 + 4 * MIB + len(head) + 6
    assert bench.arena.references(chunk) == 2
    bench.arena.release(chunk)
    stats = bench.net.stats()
    assert stats.backlog_bytes == backlog
    assert stats.backlog_bytes_copied == len(head) + 6
    got: list[bytes] = []
    expected = b"first" + data + head + b"second"
    reader = threading.Thread(target=lambda: got.append(receive(client, len(expected))))
    reader.start()
    assert bench.other(DRAINED) == (DRAINED, conn)
    reader.join()
    assert got[0] == expected
    assert bench.arena.references(chunk) == 0
    assert bench.net.stats().backlog_bytes == 0
    assert bench.net.stats().backlog_bytes_copied == 0
    bench.quiet()


def test_a_client_that_never_reads_is_not_read_any_more(bench: Bench) -> None:
    client, conn = bench.client(receive_bytes=4096)
    reader, reader_conn = bench.client()
    chunk = bench.arena.chunk_new(4 * MIB)
    bench.net.send(conn, [(chunk, 0, 4 * MIB), (chunk, 0, 4 * MIB)])
    client.sendall(framed(body(30)))
    bench.quiet()
    reader.sendall(framed(body(9)))
    assert bench.wait_frames(1)[0][0] == reader_conn
    drain = threading.Thread(target=receive, args=(client, 8 * MIB))
    drain.start()
    assert bench.wait_frames(1)[0][0] == conn
    assert bench.other(DRAINED) == (DRAINED, conn)
    drain.join()
    bench.arena.release(chunk)


def test_a_backlog_is_dropped_with_its_connection(bench: Bench) -> None:
    client, conn = bench.client(receive_bytes=4096)
    chunk = bench.arena.chunk_new(4 * MIB)
    assert bench.net.send(conn, [(chunk, 0, 4 * MIB), (chunk, 0, 4 * MIB)]) > 0
    bench.net.close(conn)
    assert bench.arena.references(chunk) == 1
    assert bench.net.stats().backlog_bytes == 0
    assert bench.net.send(conn, [b"too late"]) == 0
    bench.quiet()
    client.close()


def test_sending_to_a_dead_peer_closes_the_connection(bench: Bench) -> None:
    client, conn = bench.client()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    time.sleep(0.05)
    assert bench.net.send(conn, [b"x" * 100]) == 0
    assert select.select([bench.net.fd], [], [], 5)[0]
    assert bench.closed(conn) == lib.CL_CLOSED_RESET
    assert bench.net.send(conn, [b"x"]) == 0


def test_a_part_outside_of_its_chunk_is_the_callers_bug(bench: Bench) -> None:
    _, conn = bench.client()
    chunk = bench.arena.chunk_new(1)
    for part in [(chunk, MIB, 1), (chunk, 0, MIB + 1), (chunk + 1, 0, 1), (chunk, 2**63, 2**63)]:
        with pytest.raises(AssertionError):
            bench.net.send(conn, [b"head", part])


def test_a_large_answer_goes_out_a_quarter_of_a_megabyte_a_turn(bench: Bench) -> None:
    """A reader as fast as we are must not keep everyone else waiting until it has it all."""
    client, conn = bench.client()
    data = random.Random(1).randbytes(24 * MIB)
    received = bytearray()

    def read() -> None:
        while len(received) < len(data):
            received.extend(client.recv(MIB))

    reader = threading.Thread(target=read)
    reader.start()
    backlogs = [bench.net.send(conn, [data])]
    assert backlogs[0] >= len(data) - SEND_BYTES
    while backlogs[-1]:
        bench.poll(0)
        backlogs.append(bench.net.stats().backlog_bytes)
    reader.join(10)
    assert bytes(received) == data
    assert max(before - after for before, after in pairwise(backlogs)) <= SEND_BYTES
    assert bench.other(DRAINED)[1] == conn
    assert bench.net.poll(0) == [], "nothing is left to do"


def test_large_answers_of_many_share_a_turn_and_small_ones_do_not_wait(bench: Bench) -> None:
    """Sockets that have room at once must not make one long turn (p99 of others: 75 ms)."""
    clients = [bench.client() for _ in range(20)]
    chunk = bench.arena.chunk_new(4 * MIB)
    sent_before = bench.net.stats().bytes_out
    bench.poll(0)
    for _client, conn in clients[1:]:
        bench.net.send(conn, [(chunk, 0, 4 * MIB)])
    bench.net.send(clients[0][1], [b"small"])
    assert receive(clients[0][0], 5) == b"small"
    sent = [bench.net.stats().bytes_out - sent_before]
    assert sent[0] <= SEND_BYTES + len(clients) * 16 * KIB
    readers = [threading.Thread(target=receive, args=(each, 4 * MIB)) for each, _ in clients[1:]]
    for reader in readers:
        reader.start()
    while bench.net.stats().backlog_bytes:
        bench.poll(0)
        sent.append(bench.net.stats().bytes_out - sent_before)
    for reader in readers:
        reader.join(10)
    assert max(after - before for before, after in pairwise(sent)) <= SEND_BYTES + 16 * KIB
    assert sent[-1] == 5 + 19 * 4 * MIB
    bench.arena.release(chunk)


def test_who_takes_nothing_of_an_answer_is_named(bench: Bench) -> None:
    _silent, silent = bench.client(receive_bytes=4096)
    _other, _ = bench.client()
    assert bench.net.stuck(0) == [], "nothing waits for anybody"
    bench.net.send(silent, [bytes(8 * MIB)])
    for _ in range(100):  # until its socket takes no more
        bench.poll(0)
    assert bench.net.stuck(1000) == []
    assert bench.net.stuck(0) == [silent]
