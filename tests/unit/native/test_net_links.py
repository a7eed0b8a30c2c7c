"""Links over pipes: frames both ways, always read, apart from the clients."""

import fcntl
import os
import struct
from collections.abc import Iterator

import pytest

from corelane_native import CLOSED, FRAME, Arena, Net, bytes_at
from tests.unit.native.netbench import FRAME_MAX, KIB, MIB, POLL_US, RECEIVE_MAX, Bench

POLLS_MAX = 20_000


def frame(kind: int, number: int, body: bytes = b"") -> bytes:
    return struct.pack(">ihhi", 8 + len(body), kind, 0, number) + body


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
    assert (stats.connections, stats.accepted, stats.bytes_in, stats.bytes_out) == (0, 0, 0, 0)


@pytest.mark.parametrize("size", [100, 64 * KIB, 3 * MIB])
def test_both_may_send_much_more_than_the_pipes_hold(pair: Pair, size: int) -> None:
    """Two that only wrote until there was room would wait for each other for ever."""
    bodies = [os.urandom(size) for _ in range(max(3, min(3000, 10 * MIB // size)))]
    for end in pair:
        for number, body in enumerate(bodies):
            end.net.send(end.conn, [frame(1, number, body)])
    run(pair, (len(bodies), len(bodies)))
    for end in pair:
        assert end.frames == [frame(1, number, body)[4:] for number, body in enumerate(bodies)]


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
    for _ in range(100):
        two.poll(POLL_US if not two.closed else 0)
    assert len(two.frames) == 500
    assert len(two.closed) == 1
    assert two.net.stats().links == 0
    two.net.send(two.conn, [frame(1, 1)])  # into the void


def test_a_pipe_that_nobody_reads_ends_its_link(pair: Pair) -> None:
    read_fd, write_fd = os.pipe()
    other_read, other_write = os.pipe()
    end = End(read_fd, other_write)
    os.close(other_read)
    end.net.send(end.conn, [frame(1, 1)])
    end.poll()
    assert len(end.closed) == 1
    os.close(write_fd)


def test_a_frame_may_come_byte_by_byte() -> None:
    read_fd, write_fd = os.pipe()
    other_read, other_write = os.pipe()
    end = End(read_fd, other_write)
    for byte in frame(9, 1, b"slow") + frame(9, 2):
        os.write(write_fd, bytes([byte]))
        end.poll()
    assert end.frames == [frame(9, 1, b"slow")[4:], frame(9, 2)[4:]]
    for fd in (write_fd, other_read):
        os.close(fd)
    end.net.close(end.conn)


@pytest.mark.parametrize("head", [b"\0\0\0\x07", b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_a_length_that_cannot_be_ends_the_link(head: bytes) -> None:
    read_fd, write_fd = os.pipe()
    other_read, other_write = os.pipe()
    end = End(read_fd, other_write)
    os.write(write_fd, head + bytes(20))
    end.poll()
    assert len(end.closed) == 1
    for fd in (write_fd, other_read):
        os.close(fd)


def test_a_link_is_not_a_client() -> None:
    with Bench(conns=2, receive=64 * KIB) as bench:
        read_fd, write_fd = os.pipe()
        other_read, other_write = os.pipe()
        conn = bench.net.add_link(read_fd, other_write)
        clients = [bench.client() for _ in range(2)]
        assert bench.net.stats().connections == 2
        bench.net.hold_produce(True)
        os.write(write_fd, frame(0, 1, b"kind 0 is Produce's key"))
        ((came, _),) = bench.wait_frames(1)
        assert came == conn
        assert conn not in bench.net.idle(0.0)
        os.write(write_fd, frame(1, 1, b"cut")[:-1])
        bench.poll(0)
        assert conn not in bench.net.slow(0.0)
        assert sorted(bench.net.idle(0.0)) == sorted(each[1] for each in clients)
        for fd in (write_fd, other_read):
            os.close(fd)
        assert bench.other(CLOSED)[1] == conn
        assert bench.net.stats().connections == 2


def test_links_beyond_the_limit_are_refused_and_closed() -> None:
    with Bench(conns=2) as bench:
        ends = []
        for _ in range(256):
            read_fd, write_fd = os.pipe()
            other_read, other_write = os.pipe()
            bench.net.add_link(read_fd, other_write)
            ends += [write_fd, other_read]
        read_fd, write_fd = os.pipe()
        with pytest.raises(OSError, match="Too many open files"):
            bench.net.add_link(read_fd, write_fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            fcntl.fcntl(read_fd, fcntl.F_GETFD)
        bench.client()
        for fd in ends:
            os.close(fd)
