"""Pipes between lives of cores: who gets which, how large, and that no end is left over."""

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from corelane.runtime import mesh, messages
from corelane.runtime.control import ControlSocket
from corelane.runtime.cores import Bell, Core, CorePlan, Life, Node
from corelane.runtime.failures import StartError
from corelane.runtime.mesh import Mesh
from corelane.runtime.messages import Link, ListenerPorts

SERVING = 2
CORES = 3


class Bench:
    """Three cores, the last of them retired, and the other ends of their control sockets."""

    def __init__(self) -> None:
        async def nowhere(message: messages.ToForkServer, descriptors: list[int]) -> None:
            raise AssertionError(message, descriptors)

        node = Node(nowhere, Bell(), lambda core: None, list, lambda core: False)
        self.cores = [
            Core(
                CorePlan(number, -1, Path("none"), [], [ListenerPorts(1, [1] * SERVING)], "id"),
                node,
            )
            for number in range(CORES)
        ]
        self.mesh = Mesh(CORES)
        self.ends: dict[tuple[int, int], socket.socket] = {}
        self.boots = [0] * CORES

    def live(self, core: int) -> None:
        """Begin a new life of a core."""
        ours, theirs = messages.pair()
        self.boots[core] += 1
        self.cores[core].life = Life(self.boots[core], ControlSocket(ours))
        self.ends[core, self.boots[core]] = theirs
        theirs.setblocking(False)
        self.mesh.join(self.cores[core], self.cores)

    def end(self, core: int) -> None:
        """End the life of a core, as `Core.keep` does."""
        life = self.cores[core].life
        assert life is not None
        life.reaped.set()
        life.outbox.close()
        life.control.close()
        self.ends.pop((core, life.boot)).close()

    def received(self, core: int, boot: int = 1) -> list[tuple[Link, list[int]]]:
        """Return the links that came to a life of a core."""
        found: list[tuple[Link, list[int]]] = []
        while True:
            try:
                packet, ancillary, _, _ = self.ends[core, boot].recvmsg(
                    messages.PACKET_BYTES_MAX, messages.RIGHTS_SPACE_BYTES
                )
            except BlockingIOError:
                return found
            link = messages.to_core.decode(packet)
            assert isinstance(link, Link)
            found.append((link, messages.received_descriptors(ancillary)))


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists()}


@pytest.fixture
def bench() -> Iterator[Bench]:
    before = open_files()
    made = Bench()
    yield made

    def end_all() -> None:
        for core, boot in [*made.ends]:
            if made.boots[core] == boot:
                made.end(core)

    in_trio(end_all)
    assert open_files() == before, "every end is closed"


def say(to: int, text: bytes) -> None:
    assert os.write(to, text) == len(text)


def close(links: list[tuple[Link, list[int]]]) -> None:
    for _, ends in links:
        for end in ends:
            os.close(end)


def in_trio(check: Callable[[], None]) -> None:
    """Run a plain function where lives may be made: they ask trio for the time."""

    async def call() -> None:
        check()

    trio.run(call)


def test_each_pair_of_lives_gets_a_pipe_each_way(bench: Bench) -> None:
    def check() -> None:
        for core in range(CORES):
            bench.live(core)
        links = [bench.received(core) for core in range(CORES)]
        assert [[link for link, _ in each] for each in links] == [
            [Link(1, 1, is_retired=False), Link(2, 1, is_retired=True)],
            [Link(0, 1, is_retired=False), Link(2, 1, is_retired=True)],
            [Link(0, 1, is_retired=False), Link(1, 1, is_retired=False)],
        ]
        ends = {
            (core, link.core): (read_end, write_end)
            for core, each in enumerate(links)
            for link, (read_end, write_end) in each
        }
        for one, two in ends:
            say(ends[one, two][1], b"%d to %d" % (one, two))
        for one, two in ends:
            assert os.read(ends[one, two][0], 100) == b"%d to %d" % (two, one)
        for each in links:
            close(each)

    in_trio(check)


def test_a_new_life_gets_new_pipes_and_so_do_its_siblings(bench: Bench) -> None:
    def check() -> None:
        for core in range(CORES):
            bench.live(core)
        former = bench.received(0)
        for core in (1, 2):
            close(bench.received(core))
        bench.end(1)
        assert os.read(former[0][1][0], 1) == b"", "the end of the life is seen at once"
        bench.live(1)
        mine, told = bench.received(1, 2), bench.received(0)
        assert [link for link, _ in mine] == [
            Link(0, 1, is_retired=False),
            Link(2, 1, is_retired=True),
        ]
        assert [link for link, _ in told] == [Link(1, 2, is_retired=False)]
        say(told[0][1][1], b"x")
        assert os.read(mine[0][1][0], 1) == b"x"
        for each in (former, mine, told, bench.received(2)):
            close(each)

    in_trio(check)


def test_two_lives_are_joined_once_however_often_that_is_asked(bench: Bench) -> None:
    """Both may have been there before either was joined: cores are started side by side."""

    def check() -> None:
        for core in range(CORES):
            bench.live(core)
        for each in bench.cores:
            bench.mesh.join(each, bench.cores)
        for core in range(CORES):
            links = bench.received(core)
            assert len(links) == CORES - 1
            close(links)

    in_trio(check)


def test_a_core_that_is_gone_is_not_joined(bench: Bench) -> None:
    def check() -> None:
        bench.live(0)
        bench.end(0)
        bench.live(1)
        assert bench.received(1) == []

    in_trio(check)


def test_a_link_waits_for_room_and_a_newer_one_takes_its_place(bench: Bench) -> None:
    async def check() -> None:
        bench.live(0)
        life = bench.cores[0].life
        assert life is not None
        sent = 0
        while life.control.send_now(messages.StatsRequest(1), []):
            sent += 1
        bench.live(2)
        for _ in range(3):
            bench.live(1)
            close(bench.received(1, bench.boots[1]))
            if bench.boots[1] < 3:
                bench.end(1)
        close(bench.received(2))
        for _ in range(sent):
            bench.ends[0, 1].recv(messages.PACKET_BYTES_MAX)
        assert bench.received(0) == []
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(life.outbox.serve)
                links: list[tuple[Link, list[int]]] = []
                while len(links) < 2:
                    await trio.sleep(0.001)
                    links += bench.received(0)
                nursery.cancel_scope.cancel()
        assert [link for link, _ in links] == [
            Link(2, 1, is_retired=True),
            Link(1, 3, is_retired=False),
        ]
        close(links)

    trio.run(check)


def test_links_that_wait_for_a_core_that_dies_are_dropped(bench: Bench) -> None:
    def check() -> None:
        bench.live(0)
        life = bench.cores[0].life
        assert life is not None
        while life.control.send_now(messages.StatsRequest(1), []):
            pass
        bench.live(1)
        [(_, (read_end, write_end))] = bench.received(1)
        bench.end(0)
        assert os.read(read_end, 1) == b""
        os.close(read_end)
        os.close(write_end)

    in_trio(check)


@pytest.mark.parametrize(
    ("core_count", "kib"), [(1, 1024), (2, 1024), (7, 1024), (8, 512), (12, 256), (128, 2)]
)
def test_all_pipes_together_stay_below_the_limit_of_a_user(core_count: int, kib: int) -> None:
    assert mesh.pipe_bytes(core_count) == kib * 1024
    assert mesh.pipe_bytes(core_count) * core_count * (core_count - 1) <= 48 << 20


def test_pipes_are_enlarged(bench: Bench) -> None:
    def check() -> None:
        bench.live(0)
        bench.live(1)
        for core in (0, 1):
            [(link, (read_end, write_end))] = bench.received(core)
            assert fcntl.fcntl(write_end, fcntl.F_GETPIPE_SZ) == 1 << 20
            close([(link, [read_end, write_end])])

    in_trio(check)


def test_where_pipes_may_not_be_enlarged_they_serve_as_they_are(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return 4096

    def check() -> None:
        with monkeypatch.context() as patches:
            patches.setattr(fcntl, "fcntl", refuse)
            for core in range(CORES):
                bench.live(core)
        assert caplog.text.count("keep their usual size (Operation not permitted)") == 1
        for core in range(CORES):
            links = bench.received(core)
            assert len(links) == CORES - 1
            close(links)

    in_trio(check)


def test_a_system_without_room_for_pipes_is_told_of(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    def check() -> None:
        bench.live(0)
        with monkeypatch.context() as patches:
            patches.setattr(os, "pipe", refuse)
            with pytest.raises(StartError, match=r"refuses a pipe: Too many open files\. Raise"):
                bench.live(1)

    in_trio(check)
