"""Links over pipes: frames both ways, always read, apart from the clients."""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

import pytest

from corelane_native import CLOSED, FRAME, Arena, Net, bytes_at
from corelane_native._core import lib
from tests.unit.native.netbench import (
    FETCH,
    FRAME_MAX,
    KIB,
    MIB,
    POLL_US,
    PRODUCE,
    RECEIVE_MAX,
    Bench,
    body,
    framed,
)

POLLS_MAX = 20_000


def frame(kind: int, number: int, body: bytes = b"") -> bytes:
    return struct.pack(">ihhi", 8 + len(body), kind, 0, number) + body


class Pipes:
    """The pipes of one link, and the sibling's ends of them: it feeds one and drains the other."""

    def __init__(self, capacity: int = 64 * KIB) -> None:
        read_fd, self.feed = os.pipe()
        self.drain, write_fd = os.pipe()
        self.ours = (read_fd, write_fd)
        os.set_blocking(self.feed, False)
        os.set_blocking(self.drain, False)
        for fd in self.ours:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, capacity)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.feed, self.drain):
            with suppress(OSError):
                os.close(fd)


class End:
    """One end of a link, with a net of its own."""

    def __init__(self, read_fd: int, write_fd: int, *, receive: int = RECEIVE_MAX) -> None:
        self.arena = Arena(16 * MIB)
        self.net = Net(10, FRAME_MAX, receive, self.arena)
        self.conn = self.net.add_link(read_fd, write_fd)
        self.frames: list[bytes] = []
        self.closed: list[int] = []

    def poll(self, timeout_us: int = 0) -> None:
        for event in self.net.poll(timeout_us):
            if event[0] == FRAME:
                assert event[1] == self.conn
                self.frames.append(bytes_at(event[2], event[3]))
            elif event[0] == CLOSED:
                self.closed.append(event[2])

    def wait_closed(self) -> None:
        for _ in range(100):
            if self.closed:
                break
            self.poll(POLL_US)
        assert len(self.closed) == 1, "closed once"


Pair = tuple[End, End]


@pytest.fixture
def pair() -> Iterator[Pair]:
    to_two, from_one = os.pipe()
    to_one, from_two = os.pipe()
    one, two = End(to_one, from_one), End(to_two, from_two)
    yield one, two
    for end in (one, two):
        end.net.close(end.conn)


def run(pair: Pair, until: tuple[int, int]) -> None:
    """Poll both ends until each has so many frames."""
    one, two = pair
    for _ in range(POLLS_MAX):
        if (len(one.frames), len(two.frames)) == until:
            return
        one.poll()
        two.poll()
    raise AssertionError((len(one.frames), len(two.frames)))


def test_frames_go_both_ways(pair: Pair) -> None:
    one, two = pair
    one.net.send(one.conn, [frame(3, 7, b"ping")])
    two.net.send(two.conn, [frame(4, 8), frame(5, 9)])
    run(pair, (2, 1))
    assert two.frames == [frame(3, 7, b"ping")[4:]]
    assert one.frames == [frame(4, 8)[4:], frame(5, 9)[4:]]
    stats = one.net.stats()
    assert (stats.links, stats.link_bytes_in, stats.link_bytes_out) == (1, 24, 16)
    assert stats.link_frames == 2
    assert (stats.connections, stats.accepted, stats.bytes_in, stats.bytes_out) == (0, 0, 0, 0)


@pytest.mark.parametrize("size", [100, 64 * KIB, 3 * MIB])
def test_both_may_send_much_more_than_the_pipes_hold(pair: Pair, size: int) -> None:
    """Two that only wrote until there was room would wait for each other for ever."""
    bodies = [os.urandom(size) for _ in range(max(3, min(3000, 10 * MIB // size)))]
    for end in pair:
        for number, each in enumerate(bodies):
            end.net.send(end.conn, [frame(1, number, each)])
    run(pair, (len(bodies), len(bodies)))
    for end in pair:
        assert end.frames == [frame(1, number, each)[4:] for number, each in enumerate(bodies)]


def test_chunks_are_sent_from_where_they_lie_and_released(pair: Pair) -> None:
    one, two = pair
    chunk = one.arena.chunk_new(MIB)
    data = os.urandom(MIB)
    one.arena.write(chunk, 0, data)
    head = struct.pack(">ihhi", 8 + MIB, 2, 0, 1)
    one.net.send(one.conn, [head, (chunk, 0, MIB)])
    one.arena.release(chunk)
    run(pair, (0, 1))
    assert two.frames[0][8:] == data
    for _ in range(10):
        one.poll()
    assert one.arena.bytes_in_use == 0


def test_a_frame_beyond_the_clients_limits_comes_through(pair: Pair) -> None:
    one, two = pair
    one.net.send(one.conn, [frame(1, 1, bytes(FRAME_MAX + MIB))])
    run(pair, (0, 1))
    assert len(two.frames[0]) == 8 + FRAME_MAX + MIB


def test_the_end_of_a_sibling_ends_its_link_after_its_last_words(pair: Pair) -> None:
    one, two = pair
    for number in range(500):
        one.net.send(one.conn, [frame(1, number)])
    one.net.close(one.conn)
    two.wait_closed()
    assert len(two.frames) == 500
    assert two.net.stats().links == 0
    two.net.send(two.conn, [frame(1, 1)])  # into the void


@pytest.mark.parametrize("waiting", [0, MIB])
def test_words_to_a_dead_sibling_do_not_cost_its_last_ones(pair: Pair, waiting: int) -> None:
    """It may have said that a group is ours now: what the pipe still holds is read to its end."""
    one, two = pair
    words = [os.urandom(100) for _ in range(500)]
    for number, word in enumerate(words):
        one.net.send(one.conn, [frame(1, number, word)])
    assert one.net.stats().link_backlog_bytes == 0, "all of it is in the pipe"
    chunk = two.arena.chunk_new(MIB)
    two.net.send(two.conn, [(chunk, 0, waiting)])
    one.net.close(one.conn)
    two.net.send(two.conn, [(chunk, 0, 100)])
    two.wait_closed()
    assert two.arena.references(chunk) == 1
    assert two.frames == [frame(1, number, word)[4:] for number, word in enumerate(words)]


@pytest.mark.parametrize("words", [0, 700])
def test_a_sibling_that_reads_no_more_is_noticed_without_a_word_to_it(words: int) -> None:
    with Pipes() as pipes:
        end = End(*pipes.ours)
        os.write(pipes.feed, frame(1, 1) * words)
        end.poll()
        os.close(pipes.drain)
        end.wait_closed()
        assert len(end.frames) == words
        assert end.closed == [lib.CL_CLOSED_RESET]


def test_a_socket_pair_carries_a_link_as_pipes_do() -> None:
    """So that carriers can be compared: bench/micro/hop.py."""
    ends = []
    for made in socket.socketpair():
        fd = made.detach()
        ends.append(End(fd, os.dup(fd)))
    one, two = ends
    bodies = [os.urandom(size) for size in (10, 3 * MIB, 64 * KIB)]
    for end in ends:
        for number, each in enumerate(bodies):
            end.net.send(end.conn, [frame(1, number, each)])
    run((one, two), (3, 3))
    one.net.send(one.conn, [frame(2, 9)])
    one.net.close(one.conn)
    two.net.send(two.conn, [frame(2, 9)])
    two.wait_closed()
    assert one.frames == [frame(1, number, each)[4:] for number, each in enumerate(bodies)]
    assert two.frames == [*one.frames, frame(2, 9)[4:]]


def test_a_pipe_that_nobody_reads_ends_its_link() -> None:
    with Pipes() as pipes:
        end = End(*pipes.ours)
        os.close(pipes.drain)
        assert end.net.send(end.conn, [frame(1, 1)]) == 0
        end.wait_closed()


def test_a_frame_may_come_byte_by_byte() -> None:
    with Pipes() as pipes:
        end = End(*pipes.ours)
        for byte in frame(9, 1, b"slow") + frame(9, 2):
            os.write(pipes.feed, bytes([byte]))
            end.poll()
        assert end.frames == [frame(9, 1, b"slow")[4:], frame(9, 2)[4:]]
        end.net.close(end.conn)


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (0, lib.CL_CLOSED_FRAME_SHORT),
        (7, lib.CL_CLOSED_FRAME_SHORT),
        (2**31 - 1, lib.CL_CLOSED_FRAME_TOO_LARGE),
        (2**31, lib.CL_CLOSED_FRAME_NEGATIVE),
        (2**32 - 1, lib.CL_CLOSED_FRAME_NEGATIVE),
        (0x47455420, lib.CL_CLOSED_EOF),  # a possible length, though "GET " to a client's socket
    ],
)
def test_a_length_that_cannot_be_ends_the_link_with_the_reason(length: int, reason: int) -> None:
    with Pipes() as pipes:
        end = End(*pipes.ours)
        os.write(pipes.feed, frame(1, 1) + struct.pack(">I", length) + bytes(20))
        end.poll()
        os.close(pipes.feed)
        end.wait_closed()
        assert end.frames == [frame(1, 1)[4:]]
        assert end.closed == [reason]


def test_a_link_is_not_a_client() -> None:
    with Bench(conns=2, receive=64 * KIB) as bench, Pipes() as pipes:
        conn = bench.net.add_link(*pipes.ours)
        clients = [bench.client() for _ in range(2)]
        bench.net.hold_produce(True)
        os.write(pipes.feed, frame(PRODUCE, 1, b"kind 0 is Produce's key"))
        ((came, _),) = bench.wait_frames(1)
        assert came == conn
        assert conn not in bench.net.idle(0.0)
        os.write(pipes.feed, frame(1, 1, b"cut")[:-1])
        bench.poll(0)
        assert conn not in bench.net.slow(0.0)
        assert sorted(bench.net.idle(0.0)) == sorted(each[1] for each in clients)
        stats = bench.net.stats()
        assert (stats.connections, stats.frames, stats.bytes_in) == (2, 0, 0)
        assert (stats.links, stats.link_frames) == (1, 1)
        os.close(pipes.feed)
        assert bench.other(CLOSED)[1] == conn
        stats = bench.net.stats()
        assert (stats.connections, stats.closed, stats.links) == (2, 0, 0)


def test_memory_for_links_is_not_taken_from_clients() -> None:
    with Bench(frame=MIB, receive=MIB) as bench, Pipes() as pipes:
        conn = bench.net.add_link(*pipes.ours)
        whole = frame(1, 1, os.urandom(6 * MIB))
        for at in range(0, 3 * MIB, 64 * KIB):
            os.write(pipes.feed, whole[at : at + 64 * KIB])
            bench.poll(0)
        stats = bench.net.stats()
        assert stats.receive_bytes == 0
        assert stats.link_receive_bytes >= 3 * MIB
        client, _ = bench.client()
        content = framed(body(900 * KIB))
        client.setblocking(False)
        sent = 0
        while not bench.frames:
            with suppress(BlockingIOError):
                sent += client.send(content[sent:])
            bench.poll()
        assert bench.net.stats().starved == 0
        bench.net.close(conn)
        bench.poll(0)
        assert bench.net.stats().link_receive_bytes == 0


def test_a_link_goes_on_while_clients_wait_for_memory() -> None:
    with Bench(frame=MIB, receive=MIB) as bench, Pipes(MIB) as pipes:
        halves = framed(body(900 * KIB))[: 450 * KIB]
        for _ in range(4):
            client, _ = bench.client()
            client.setblocking(False)
            sent = 0
            for _ in range(200):
                with suppress(BlockingIOError):
                    sent += client.send(halves[sent:])
                bench.poll(0)
        assert bench.net.stats().starved > 0
        assert bench.net.stats().receive_bytes > 900 * KIB
        conn = bench.net.add_link(*pipes.ours)
        sizes = [100, 64 * KIB, 300 * KIB, 20, 400 * KIB]
        os.write(pipes.feed, b"".join(frame(1, size, bytes(size)) for size in sizes))
        frames = bench.wait_frames(len(sizes))
        assert [len(content) - 8 for came, content in frames if came == conn] == sizes


def test_clients_that_do_not_read_cost_no_link_its_backlog(pair: Pair) -> None:
    """All clients together may keep 256 MiB waiting; a link may do so by itself."""
    one, two = pair
    ours, theirs = socket.socketpair()
    client = one.net.add(ours.detach(), 0)
    block = frame(1, 1, bytes(50 * MIB))
    for _ in range(5):
        one.net.send(client, [block])
    assert one.net.stats().backlog_bytes_copied > 249 * MIB
    one.net.send(one.conn, [block])
    assert one.net.stats().backlog_bytes_copied < 250 * MIB
    run(pair, (0, 1))
    assert two.frames == [block[4:]]
    one.net.close(client)
    theirs.close()


def test_a_sibling_that_reads_nothing_for_too_long_costs_only_its_own_link(pair: Pair) -> None:
    one, two = pair
    block = frame(1, 1, bytes(50 * MIB))
    for _ in range(5):
        one.net.send(one.conn, [block])
    ours, theirs = socket.socketpair()
    client = one.net.add(ours.detach(), 0)
    one.net.send(client, [block])
    assert one.net.stats().link_backlog_bytes > 249 * MIB
    one.net.send(one.conn, [block])
    one.wait_closed()
    assert one.closed == [lib.CL_CLOSED_BACKLOG]
    stats = one.net.stats()
    assert (stats.links, stats.link_backlog_bytes, stats.connections) == (0, 0, 1)
    theirs.close()
    two.wait_closed()


def test_links_take_turns_with_clients() -> None:
    """However much comes over links, a poll ends, and a client is served in the next one."""
    with Bench() as bench:
        links = [Pipes() for _ in range(4)]
        for pipes in links:
            bench.net.add_link(*pipes.ours)
        client, conn = bench.client()
        for pipes in links:
            os.write(pipes.feed, frame(1, 1) * 2000)
        assert bench.poll(0) == 512
        assert len({came for came, _ in bench.frames}) == 2
        client.sendall(framed(body(20, FETCH)))
        for _ in range(3):
            bench.poll()
        assert conn in {came for came, _ in bench.frames}
        for pipes in links:
            pipes.__exit__()


def test_a_poll_takes_only_so_many_bytes_from_all_links() -> None:
    with Bench() as bench:
        links = [Pipes(MIB) for _ in range(12)]
        for number, pipes in enumerate(links):
            bench.net.add_link(*pipes.ours)
            os.write(pipes.feed, frame(1, number, bytes(MIB - 12)))
        assert bench.poll(0) == 8
        assert len(bench.wait_frames(12)) == 12
        for pipes in links:
            pipes.__exit__()


def test_links_beyond_the_limit_are_refused_and_closed() -> None:
    with Bench(conns=2) as bench:
        links = [Pipes() for _ in range(256)]
        for pipes in links:
            bench.net.add_link(*pipes.ours)
        with Pipes() as pipes:
            with pytest.raises(OSError, match="Too many open files"):
                bench.net.add_link(*pipes.ours)
            for fd in pipes.ours:
                with pytest.raises(OSError, match="Bad file descriptor"):
                    os.fstat(fd)
        bench.client()
        for pipes in links:
            pipes.__exit__()
