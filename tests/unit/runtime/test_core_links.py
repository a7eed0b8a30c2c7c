"""What comes to a core by its control socket: links to siblings, what the operator wants."""

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio

from corelane.model.metrics import ShardCounts
from corelane.runtime import messages
from corelane.runtime.control import ControlSocket
from corelane.runtime.core_control import CoreControl
from corelane.runtime.core_loop import CoreLoop
from corelane.runtime.core_stats import CoreStats
from corelane.runtime.disk import NativeDisk
from corelane.runtime.messages import (
    Connections,
    Empty,
    Heartbeat,
    Link,
    Operate,
    Operated,
    Ready,
    Stop,
)
from corelane.shard.effects import Close, Effect, Emptied, OperatorAnswer, Send, Stopped
from corelane.shard.events import (
    Event,
    LinkDown,
    LinkFrame,
    LinkUp,
    Opened,
    OperatorRequest,
    Request,
)
from corelane.storage.effects import DiskDone
from corelane_native import Arena, Net, bytes_at

HEAD = struct.Struct(">ihhi")


def frame(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return HEAD.pack(8 + len(body), kind, flags, number) + body


class RecordingShard:
    """Notes events, with the bytes of frames; asks for the effects that a test wants."""

    is_short_of_memory = False

    def __init__(self) -> None:
        self.counts = ShardCounts()
        self.events: list[Event] = []
        self.bodies: list[bytes] = []
        self.wanted: list[Effect] = []
        self.is_stopping = False

    def next_deadline_ms(self) -> int | None:
        return None

    def stop(self) -> None:
        self.is_stopping = True

    def finish(self, done: DiskDone | None) -> list[Effect]:
        assert done is None, "nothing is written"
        return []

    def tend(self) -> list[Effect]:
        return []

    def begin(self, now_ms: int, wall_ms: int, events: list[Event]) -> list[Effect]:
        del now_ms, wall_ms
        for event in events:
            self.events.append(event)
            if isinstance(event, LinkFrame):
                self.bodies.append(bytes_at(event.address, event.size_bytes)[8:])
            elif isinstance(event, OperatorRequest):
                answer = OperatorAnswer(event.number, "", event.verb, event.arguments)
                self.wanted.append(answer)
        effects, self.wanted = self.wanted, []
        if self.is_stopping:
            effects.append(Stopped())
        return effects

    def of(self, kind: type[Event]) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


class Bench:
    """A core's loop with its control socket; the supervisor's end of that is in our hands."""

    def __init__(self, directory: Path) -> None:
        arena = Arena(32 << 20, chunk_bytes=4096)
        self.shard = RecordingShard()
        self.net = Net(10, 1 << 20, 16 << 20, arena)
        self.deaths: list[str] = []
        self.disk = NativeDisk(directory, arena, self.deaths.append)
        self.disk.watch(self.net)
        self.loop = CoreLoop(self.shard, self.net, arena, self.disk, self.deaths.append)
        ours, self.supervisor = messages.pair()
        self.supervisor.setblocking(False)
        stats = cast("CoreStats", None)  # Nobody asks for any.
        self.control = CoreControl(ControlSocket(ours), self.loop, stats)
        self.loop.told = self.control.told
        self.ours = ours

    def order(self, message: messages.ToCore, descriptors: list[int]) -> None:
        """Send what the supervisor would; the descriptors are given away."""
        self.supervisor.sendmsg([messages.encode(message)], messages.rights(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)

    def link(self, core: int, boot: int) -> tuple[int, int]:
        """Give the core a link; return the ends of the sibling: where it reads and writes."""
        to_core, from_sibling = os.pipe()
        to_sibling, from_core = os.pipe()
        self.order(Link(core, boot, is_retired=core > 4), [to_core, from_core])
        os.set_blocking(to_sibling, False)
        return to_sibling, from_sibling

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(5):
            while not condition():
                await trio.sleep(0.001)

    async def told(self) -> messages.FromCore:
        """Return the next thing the core says."""
        with trio.fail_after(5):
            await trio.lowlevel.wait_readable(self.supervisor)
        packet = self.supervisor.recv(messages.PACKET_BYTES_MAX)
        message: messages.FromCore = messages.from_core.decode(packet)
        return message


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Bench]:
    bench = Bench(directory)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.loop.serve)
            nursery.start_soon(bench.control.obey)
            nursery.start_soon(bench.control.speak)
            yield bench
            nursery.cancel_scope.cancel()
    finally:
        bench.disk.close()
        bench.ours.close()
        bench.supervisor.close()


def close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_link_carries_frames_both_ways(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as bench:
            read_end, write_end = bench.link(3, 7)
            await bench.until(lambda: bool(bench.shard.events))
            [up] = bench.shard.events
            assert isinstance(up, LinkUp)
            assert (up.core, up.boot, up.is_retired) == (3, 7, False)
            os.write(write_end, frame(5, 1, 99, b"hello"))
            await bench.until(lambda: bool(bench.shard.bodies))
            got = bench.shard.events[-1]
            assert isinstance(got, LinkFrame)
            assert (got.conn, got.kind, got.flags, got.number) == (up.conn, 5, 1, 99)
            assert bench.shard.bodies == [b"hello"]
            bench.shard.wanted.append(Send(up.conn, [frame(6, 0, 99, b"there")], []))
            bench.loop.wake()
            os.write(write_end, frame(5, 0, 100, b""))
            await trio.lowlevel.wait_readable(read_end)
            assert os.read(read_end, 100) == frame(6, 0, 99, b"there")
            assert bench.loop.connections == 0, "no client is connected"
            assert not bench.shard.of(Request)
            close(read_end, write_end)

    trio.run(main)


def test_the_end_of_a_sibling_is_the_end_of_its_link(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as bench:
            one, two = bench.link(1, 1), bench.link(5, 1)
            await bench.until(lambda: len(bench.shard.events) == 2)
            ups = [event for event in bench.shard.events if isinstance(event, LinkUp)]
            assert [(up.core, up.is_retired) for up in ups] == [(1, False), (5, True)]
            os.write(one[1], frame(1, 0, 1, b"last words"))
            close(*one)
            await bench.until(lambda: len(bench.shard.events) == 4)
            assert bench.shard.bodies == [b"last words"]
            assert bench.shard.events[-1] == LinkDown(ups[0].conn)
            close(*two)
            await bench.until(lambda: len(bench.shard.events) == 5)
            assert bench.shard.events[-1] == LinkDown(ups[1].conn)

    trio.run(main)


def test_a_siblings_new_life_ends_its_old_link_first(tmp_path: Path) -> None:
    """Its old process may hold its ends a while longer: a killed one that is not gone yet."""

    async def main() -> None:
        async with running(tmp_path) as bench:
            old = bench.link(1, 1)
            await bench.until(lambda: len(bench.shard.events) == 1)
            new = bench.link(1, 2)
            await bench.until(lambda: len(bench.shard.events) == 3)
            first, down, up = bench.shard.events
            assert isinstance(first, LinkUp)
            assert isinstance(up, LinkUp)
            assert down == LinkDown(first.conn)
            assert (up.core, up.boot) == (1, 2)
            assert up.conn != first.conn
            assert os.read(old[0], 1) == b"", "the old pipes are closed"
            with pytest.raises(BrokenPipeError):
                os.write(old[1], b"x")
            os.write(new[1], frame(1, 0, 1, b"new"))
            await bench.until(lambda: bench.shard.bodies == [b"new"])
            close(*old, *new)

    trio.run(main)


def test_a_link_that_the_shard_closes_is_down(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as bench:
            read_end, write_end = bench.link(1, 1)
            await bench.until(lambda: len(bench.shard.events) == 1)
            [up] = bench.shard.events
            assert isinstance(up, LinkUp)
            bench.shard.wanted.append(Close(up.conn, "no use"))
            os.write(write_end, frame(1, 0, 1, b""))
            await bench.until(lambda: bench.shard.events[-1] == LinkDown(up.conn))
            assert os.read(read_end, 1) == b""
            close(read_end, write_end)

    trio.run(main)


def test_a_link_that_breaks_ends_the_core(tmp_path: Path) -> None:
    """Nobody would make another one while both live; the next life gets all of them anew."""

    async def main() -> None:
        async with running(tmp_path) as bench:
            read_end, write_end = bench.link(1, 1)
            await bench.until(lambda: len(bench.shard.events) == 1)
            os.write(write_end, HEAD.pack(-1, 0, 0, 0))
            await bench.until(lambda: bool(bench.deaths))
            assert bench.deaths[0].startswith("the link to core 1 broke: ")
            close(read_end, write_end)

    trio.run(main)


def test_an_operators_wish_reaches_the_shard_and_its_answer_the_supervisor(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as bench:
            bench.order(Operate(4, "move", {"topic": "a"}), [])
            assert await bench.told() == Operated(4, "", "move", {"topic": "a"})
            assert bench.shard.events == [OperatorRequest(4, "move", {"topic": "a"})]
            bench.shard.wanted.append(Emptied())
            bench.order(Operate(5, "x", {}), [])
            assert await bench.told() == Empty()
            assert await bench.told() == Operated(5, "", "x", {})

    trio.run(main)


def test_nothing_but_heartbeats_is_lost_when_the_supervisor_is_busy(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as bench:
            end = ControlSocket(bench.ours)
            filler = Heartbeat(0, 0, 0)
            count = 0
            while end.send_now(filler, []):
                count += 1
            bench.control.ready(12, 3)
            for number in range(100):
                bench.control.told(OperatorAnswer(number, "", "done", {}))
            bench.control.told(Emptied())
            await trio.sleep(0.02)
            for _ in range(count):
                assert await bench.told() == filler
            assert await bench.told() == Ready(os.getpid(), 12, 3)
            for number in range(100):
                assert await bench.told() == Operated(number, "", "done", {})
            assert await bench.told() == Empty()

    trio.run(main)


def test_connections_and_the_stop_come_the_same_way(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as bench:
            ours, theirs = socket.socketpair()
            bench.order(Connections(0, ["10.0.0.1:5"]), [theirs.detach()])
            await bench.until(lambda: bool(bench.shard.of(Opened)))
            bench.order(Stop(), [])
            await bench.until(lambda: bench.loop.is_over)
            ours.close()

    trio.run(main)


def test_ids_of_links_and_clients_never_meet(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as bench:
            pipes = bench.link(1, 1)
            ours, theirs = socket.socketpair()
            bench.order(Connections(0, ["10.0.0.1:5"]), [theirs.detach()])
            await bench.until(lambda: len(bench.shard.events) == 2)
            ours.sendall(frame(18, 0, 7, b"client"))
            os.write(pipes[1], frame(18, 0, 7, b"sibling"))
            await bench.until(lambda: len(bench.shard.events) == 4)
            [opened], [up] = bench.shard.of(Opened), bench.shard.of(LinkUp)
            [request], [told] = bench.shard.of(Request), bench.shard.of(LinkFrame)
            assert isinstance(opened, Opened)
            assert isinstance(up, LinkUp)
            assert isinstance(request, Request)
            assert isinstance(told, LinkFrame)
            assert opened.conn == request.conn
            assert up.conn == told.conn
            assert opened.conn != up.conn
            ours.close()
            close(*pipes)

    trio.run(main)
