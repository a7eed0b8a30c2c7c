"""The turn with a shard that echoes: real sockets, threads and time, no storage and no protocol."""

import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from corelane.model.ids import ChunkId, ConnId, JobId, Lsn, Position
from corelane.model.metrics import ShardCounts
from corelane.runtime import core_loop
from corelane.runtime.core_loop import BOOTSTRAP_DOOR, CoreLoop
from corelane.runtime.disk import NativeDisk
from corelane.runtime.work import WorkBench
from corelane.shard.effects import Close, Effect, LogLine, Part, Send, Stopped, Work
from corelane.shard.events import Closed, Event, Opened, Request, WorkDone
from corelane.storage.effects import DiskDone, WalPrepare, WalWrite
from corelane_native import Arena, Net, bytes_at

REQUEST = struct.Struct(">ihhi")
CONNECTIONS_MAX = 30
ECHO, CLOSE, WORK, WRITE = range(4)


def frame(key: int, correlation: int, payload: bytes = b"") -> bytes:
    return REQUEST.pack(8 + len(payload), key, 0, correlation) + payload


class EchoShard:
    """Answers each frame with itself; a few keys ask for other effects."""

    is_short_of_memory = False

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.counts = ShardCounts()
        self.steps: list[list[Event]] = []
        self.deadline_ms: int | None = None
        self.is_stopping = False
        self.waiting: dict[int, ConnId] = {}

    def next_deadline_ms(self) -> int | None:
        return self.deadline_ms

    def stop(self) -> None:
        self.is_stopping = True

    def begin(self, now_ms: int, wall_ms: int, events: list[Event]) -> list[Effect]:
        assert abs(wall_ms - time.time() * 1000) < 5000
        self.steps.append(events)
        if self.deadline_ms is not None and self.deadline_ms <= now_ms:
            self.deadline_ms = None
        effects: list[Effect] = []
        for event in events:
            self.take(event, effects)
        if self.is_stopping:
            effects.append(Stopped())
        return effects

    def finish(self, done: DiskDone | None) -> list[Effect]:
        effects: list[Effect] = []
        if done is not None:
            self.take(done, effects)
        return effects

    def tend(self) -> list[Effect]:
        return []

    def take(self, event: Event, effects: list[Effect]) -> None:
        if isinstance(event, Request):
            if event.api_key == ECHO:
                effects.append(self.echo(event))
                self.counts.answered.append((ECHO, 0, self.counts.now_us, 1))
            elif event.api_key == CLOSE:
                effects.append(Close(event.conn, "it asked for it"))
            elif event.api_key == WORK:
                self.waiting[event.correlation_id] = event.conn
                effects.append(Work(JobId(event.correlation_id), pow, (2, 10)))
            else:
                self.waiting[1] = event.conn
                effects.append(WalPrepare(JobId(1), "wal/1", 1 << 16))
        elif isinstance(event, WorkDone):
            text = str(event.value).encode()
            effects.append(Send(self.waiting.pop(event.job), [text], []))
        elif isinstance(event, DiskDone):
            effects.append(self.write(event.job))

    def echo(self, request: Request) -> Send:
        """Send the frame back: its prefix as bytes, the rest from the arena."""
        chunk = ChunkId(self.arena.chunk_new(request.size_bytes))
        self.arena.write(chunk, 0, bytes_at(request.address, request.size_bytes))
        prefix = struct.pack(">i", request.size_bytes)
        parts: list[Part] = [prefix, (chunk, Position(0), request.size_bytes)]
        return Send(request.conn, parts, [chunk])

    def write(self, job: JobId) -> Effect:
        """Write a block to the file that was prepared, then say so."""
        if job == 1:
            self.chunk = ChunkId(self.arena.chunk_new(4096))
            self.waiting[2] = self.waiting.pop(1)
            parts = [(self.chunk, Position(0), 4096)]
            return WalWrite(JobId(2), "wal/1", Position(0), parts, Lsn(1))
        self.arena.release(self.chunk)
        return Send(self.waiting.pop(2), [b"durable"], [])


class Bench:
    """A loop under test and ways to talk to it."""

    def __init__(self, directory: Path) -> None:
        self.arena = Arena(32 << 20, chunk_bytes=4096)
        self.streams: list[trio.SocketStream] = []
        self.shard = EchoShard(self.arena)
        self.net = Net(CONNECTIONS_MAX, 1 << 20, 16 << 20, self.arena)
        self.deaths: list[str] = []
        self.disk = NativeDisk(directory, self.arena, self.deaths.append)
        self.disk.watch(self.net)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.loop = CoreLoop(self.shard, self.net, self.arena, self.disk, self.deaths.append)
        self.loop.listen(self.listener.fileno(), 0)

    async def connect(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream(*self.listener.getsockname())
        self.streams.append(stream)
        return stream

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(5):
            while not condition():  # nothing of the loop's is awaited here
                await trio.sleep(0.001)


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Bench]:
    bench = Bench(directory)
    try:
        async with trio.open_nursery() as nursery:
            bench.loop.work = WorkBench(bench.loop.post, {0})
            nursery.start_soon(bench.loop.work.serve)
            nursery.start_soon(bench.loop.serve)
            yield bench
            for stream in bench.streams:
                await stream.aclose()
            nursery.cancel_scope.cancel()
    finally:
        bench.disk.close()
        bench.listener.close()


async def read(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    with trio.fail_after(5):
        while len(data) < size:
            piece = await stream.receive_some(size - len(data))
            assert piece, f"closed after {data!r}"
            data += piece
    return data


async def test_frames_come_back_in_order(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        stream = await bench.connect()
        sent = b"".join(frame(ECHO, number, b"x" * number) for number in range(500))
        await stream.send_all(sent)
        assert await read(stream, len(sent)) == sent
        await stream.aclose()
        await bench.until(lambda: bench.loop.connections == 0)
        assert bench.arena.bytes_in_use == 0


async def test_pipelined_frames_share_a_step(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        stream = await bench.connect()
        await stream.send_all(b"".join(frame(ECHO, number) for number in range(50)))
        await read(stream, 50 * 12)
        assert max(len(events) for events in bench.shard.steps) > 10


async def test_a_connection_accepted_elsewhere_is_served(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        ours, theirs = socket.socketpair()
        with ours:
            bench.loop.add_connection(theirs.detach(), "10.0.0.1:5", 3)
            ours.sendall(frame(ECHO, 7))
            await bench.until(lambda: sum(map(len, bench.shard.steps)) >= 2)
            assert ours.recv(100) == frame(ECHO, 7)
            opened = next(event for events in bench.shard.steps for event in events)
            assert isinstance(opened, Opened)
            assert (opened.listener, opened.peer) == (6 + BOOTSTRAP_DOOR, "10.0.0.1:5")
            assert bench.shard.counts.connections_accepted == {3: 1}


async def test_what_is_answered_in_a_turn_is_counted_at_its_end(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        stream = await bench.connect()
        await stream.send_all(frame(ECHO, 1) + frame(ECHO, 2))
        await read(stream, 2 * 12)
        counts = bench.shard.counts
        await bench.until(lambda: counts.requests == {(ECHO, 0): 2})
        assert sum(counts.request_us[ECHO].counts) == 2
        assert counts.now_us > 0
        assert counts.answered == []
        assert counts.connections_accepted == {0: 1}


async def test_a_connection_closed_by_the_shard_is_told_of_once(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        stream = await bench.connect()
        await stream.send_all(frame(CLOSE, 1))
        with trio.fail_after(5):
            assert await stream.receive_some(1) == b""
        await bench.until(lambda: bench.loop.connections == 0)
        await trio.sleep(0.05)
        events = [event for events in bench.shard.steps for event in events]
        assert [type(event) for event in events] == [Opened, Request, Closed]


async def test_work_is_done_elsewhere_and_comes_back(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        stream = await bench.connect()
        await stream.send_all(frame(WORK, 3))
        assert await read(stream, 4) == b"1024"


async def test_disk_effects_come_back_through_the_net(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        stream = await bench.connect()
        await stream.send_all(frame(WRITE, 1))
        assert await read(stream, 7) == b"durable"
        assert sum(bench.disk.wal_write_us.counts) == 1
        assert not bench.deaths


async def test_an_idle_loop_takes_no_steps(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await trio.sleep(0.05)
        steps, began_s = len(bench.shard.steps), time.process_time()
        await trio.sleep(0.5)
        assert len(bench.shard.steps) == steps
        assert time.process_time() - began_s < 0.05


async def test_a_deadline_is_kept_to_the_millisecond_or_two(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await trio.sleep(0.05)
        late_ms = []
        for _ in range(10):
            due_ms = time.monotonic_ns() // 1_000_000 + 20
            bench.shard.deadline_ms = due_ms
            bench.loop.wake()
            await bench.until(lambda: bench.shard.deadline_ms is None)
            late_ms.append(time.monotonic_ns() // 1_000_000 - due_ms)
        assert min(late_ms) >= 0, "never too early"
        assert sorted(late_ms)[5] <= 5, late_ms


async def test_trio_gets_its_share_of_a_busy_loop(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        stream = await bench.connect()
        late_s: list[float] = []

        async def tick() -> None:
            for _ in range(20):
                began_s = time.monotonic()
                await trio.sleep(0.01)
                late_s.append(time.monotonic() - began_s - 0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            while len(late_s) < 20:
                await stream.send_all(frame(ECHO, 1) * 100)
                await read(stream, 1200)
        assert sorted(late_s)[10] < 0.02, late_s


async def test_stop_ends_the_loop(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.loop.serve)
            await trio.sleep(0.02)
            bench.loop.stop()
    assert bench.loop.is_over
    bench.disk.close()
    bench.listener.close()


def test_every_effect_has_a_performer(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert set(bench.loop._performers) == set(Effect.__args__)
    bench.disk.close()
    bench.listener.close()


@pytest.mark.parametrize(
    "hello", [b"GET / HTTP/1.1\r\n\r\n", struct.pack(">i", 2**31 - 1) + b"a" * 8]
)
async def test_a_client_that_is_no_kafka_client_is_told_of_once(
    tmp_path: Path, hello: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as bench:
        for _ in range(5):
            stream = await bench.connect()
            await stream.send_all(hello)
            with trio.fail_after(5):
                assert await stream.receive_some(1) == b""
        lines = [each.getMessage() for each in caplog.records]
        assert len(lines) == 1
        assert lines[0].startswith("closed the connection of 127.0.0.1:")


async def test_log_lines_of_the_shard_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    bench.loop._performers[LogLine](LogLine(30, "the disk is 90 % full"))
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "the disk is 90 % full")
    ]
    bench.disk.close()
    bench.listener.close()


async def test_more_connections_than_allowed_are_refused_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as bench:
        streams = [await bench.connect() for _ in range(CONNECTIONS_MAX + 5)]
        for stream in streams[:CONNECTIONS_MAX]:
            await stream.send_all(frame(ECHO, 1))
            assert await read(stream, 12) == frame(ECHO, 1)
        for stream in streams[CONNECTIONS_MAX:]:
            with trio.fail_after(5):
                assert await stream.receive_some(1) == b""
        bench.loop.look_after(60.0)
        assert [each.getMessage() for each in caplog.records] == [
            "refused 5 connections: there is no room for more"
        ]


async def test_idle_and_slow_connections_are_closed(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        idle, slow, busy = [await bench.connect() for _ in range(3)]
        whole = frame(ECHO, 1, b"x" * 10)
        for at in range(8):
            await slow.send_all(whole[at : at + 1])
            await busy.send_all(whole)
            await read(busy, len(whole))
            await trio.sleep(0.05)
        bench.loop.look_after(0.2)
        for stream in (idle, slow):
            with trio.fail_after(5):
                assert await stream.receive_some(1) == b""
        await busy.send_all(whole)
        assert await read(busy, len(whole)) == whole
        await bench.until(lambda: bench.loop.connections == 1)


async def test_who_takes_nothing_gives_way_only_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_loop, "STUCK_S", 0.0)
    async with running(tmp_path) as bench:
        deaf, other = await bench.connect(), await bench.connect()
        await other.send_all(frame(ECHO, 1))
        assert await read(other, 12)
        with trio.move_on_after(0.3):  # until neither side takes more
            while True:
                await deaf.send_all(frame(ECHO, 1, bytes(900_000)))
        await bench.until(lambda: bench.net.stuck(0.0) != [])
        bench.loop.look_after(60)
        assert bench.loop.connections == 2
        bench.shard.is_short_of_memory = True
        bench.loop.look_after(60)
        assert bench.loop.connections == 1
        await other.send_all(frame(ECHO, 2))
        assert await read(other, 12)
        await bench.until(lambda: bench.net.stats().backlog_bytes == 0)
