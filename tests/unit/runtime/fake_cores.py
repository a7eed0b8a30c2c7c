"""Cores for tests of the supervisor: they speak the control protocol and hold no data."""

import contextlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn, assert_never

from corelane.runtime import data_directory, messages
from corelane.runtime.failures import StartError
from corelane.runtime.forkserver import CoreMain
from corelane.runtime.messages import (
    Connections,
    Empty,
    Failed,
    FromCore,
    Heartbeat,
    LifeOver,
    Link,
    Operate,
    Operated,
    Peer,
    Ready,
    Spawn,
    StatsAnswer,
    StatsRequest,
    Stop,
)

HEARTBEAT_MS = 100
QUESTION = b"?"


class EchoCore:
    """Sends back what its clients send, until told to stop."""

    def __init__(
        self, spawn: Spawn, control: socket.socket, listeners: list[socket.socket]
    ) -> None:
        self.control = control
        self.listeners = {listener.fileno(): listener for listener in listeners}
        self.pipes: dict[int, tuple[int, int]] = {}
        """From and to each sibling."""
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        for listener in listeners:
            self.poll.register(listener, select.POLLIN)
        self.connections: dict[int, socket.socket] = {}
        self.doors: dict[int, str] = {}
        """How each connection came in."""
        self.served = 0
        cpus = os.sched_getaffinity(0)
        self.tell(Ready(os.getpid(), 0, min(cpus) if len(cpus) == 1 else -1))

    def tell(self, message: FromCore) -> None:
        self.control.send(messages.encode(message))

    def serve(self) -> int:
        """Serve until told to stop; returns the exit code."""
        while True:
            # One at a time: it may close what another one is about.
            for descriptor, _ in self.poll.poll(HEARTBEAT_MS)[:1]:
                if descriptor == self.control.fileno():
                    if not self.obey():
                        return 0
                elif descriptor in self.listeners:
                    number = [*self.listeners].index(descriptor)
                    self.add(self.listeners[descriptor].accept()[0], f"own port of {number}")
                elif descriptor in self.connections:
                    self.echo(self.connections[descriptor])
                else:
                    self.answer_sibling(descriptor)
            self.tell(Heartbeat(len(self.connections), 0, 0))

    def obey(self) -> bool:
        packet, ancillary, _, _ = self.control.recvmsg(
            messages.PACKET_BYTES_MAX, messages.RIGHTS_SPACE_BYTES
        )
        if not packet:
            os._exit(1)
        message = messages.to_core.decode(packet)
        descriptors = messages.received_descriptors(ancillary)
        match message:
            case Connections():
                for descriptor in descriptors:
                    self.add(socket.socket(fileno=descriptor), f"bootstrap of {message.listener}")
                return True
            case StatsRequest(request=request):
                values = {"requests/Echo/NONE": float(self.served)}
                self.tell(StatsAnswer(request, values, is_last=True))
                return True
            case Link():
                self.unlink(message.core)
                self.pipes[message.core] = (descriptors[0], descriptors[1])
                self.poll.register(descriptors[0], select.POLLIN)
                return True
            case Operate():
                sys.stderr.write(f"asked to {message.verb} {message.arguments}\n")
                told = {**message.arguments, "pid": str(os.getpid())}
                self.tell(Operated(message.number, "", message.verb, told))
                return True
            case Stop():
                return False
            case Peer() | LifeOver():
                return True  # it has no peers, and no siblings' lives to tell them of
            case _:
                assert_never(message)

    def be_stubborn(self) -> NoReturn:
        """Show signs of life, and nothing else."""
        while True:
            self.tell(Heartbeat(0, 0, 0))
            time.sleep(HEARTBEAT_MS / 1000)

    def unlink(self, sibling: int) -> None:
        """Leave the pipes from and to a sibling's life."""
        if sibling in self.pipes:
            read_end, write_end = self.pipes.pop(sibling)
            self.poll.unregister(read_end)
            os.close(read_end)
            os.close(write_end)

    def answer_sibling(self, read_end: int) -> None:
        """Tell a sibling that asks which process this is; leave one that is gone."""
        sibling = next(core for core, ends in self.pipes.items() if ends[0] == read_end)
        if os.read(read_end, len(QUESTION)) == QUESTION:
            os.write(self.pipes[sibling][1], b"%d" % os.getpid())
        else:
            self.unlink(sibling)

    def ask_siblings(self, only: list[int]) -> bytes:
        """Return the process of each sibling, as it says over its pipe: core:pid, core:pid."""
        words = []
        for core, (read_end, write_end) in sorted(self.pipes.items()):
            if only and core not in only:
                continue
            with contextlib.suppress(BrokenPipeError):
                os.write(write_end, QUESTION)
            ready, _, _ = select.select([read_end], [], [], 5)
            words.append(f"{core}:{os.read(read_end, 100).decode() if ready else 'silent'}")
        return ", ".join(words).encode() + b"\n"

    def add(self, connection: socket.socket, door: str) -> None:
        self.doors[connection.fileno()] = door
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        self.poll.register(connection, select.POLLIN)

    def echo(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(4096)
        except ConnectionResetError:
            data = b""
        if data.startswith(b"siblings"):
            connection.send(self.ask_siblings([int(word) for word in data.split()[1:]]))
        elif data == b"door\n":
            connection.send(self.doors[connection.fileno()].encode())
        elif data == b"pid\n":
            connection.send(f"{os.getpid()}\n".encode())
        elif data == b"hang\n":
            time.sleep(3600)
        elif data == b"crash\n":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif data:
            connection.send(data)
            self.served += 1
        else:
            self.poll.unregister(connection)
            del self.connections[connection.fileno()]
            connection.close()


def echo(directory: Path) -> CoreMain:
    """Return a core that echoes, with a lock as a real one has.

    Files in its directory change that: a retired one says at once that it is empty, but not with
    `owned`; with `damaged` it cannot start, and with `stubborn` it does not stop.
    """

    def core_main(spawn: Spawn, control: socket.socket, listeners: list[socket.socket]) -> int:
        own = data_directory.core_directory(directory, spawn.core)
        own.mkdir(exist_ok=True)
        assert data_directory.lock_file(own / "lock") is not None
        if (own / "damaged").exists():
            why = StartError(f"cannot start core {spawn.core}", "it is damaged", "Mend it.", 73)
            return failing(why, is_permanent=True)(spawn, control, listeners)
        core = EchoCore(spawn, control, listeners)
        if not listeners and not (own / "owned").exists():
            core.tell(Empty())
        if (own / "stubborn").exists():
            core.be_stubborn()
        return core.serve()

    return core_main


def failing(error: StartError, *, is_permanent: bool) -> CoreMain:
    """Return a core that cannot start and says why."""

    def core_main(spawn: Spawn, control: socket.socket, listeners: list[socket.socket]) -> int:
        failed = Failed(error.what, error.why, error.next_step, error.code, is_permanent)
        control.send(messages.encode(failed))
        return error.code

    return core_main


def dying(spawn: Spawn, control: socket.socket, listeners: list[socket.socket]) -> int:
    """Die without a word, before serving."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def stubborn(spawn: Spawn, control: socket.socket, listeners: list[socket.socket]) -> int:
    """Serve, and do not stop when told to."""
    EchoCore(spawn, control, listeners).be_stubborn()


def silent(spawn: Spawn, control: socket.socket, listeners: list[socket.socket]) -> int:
    """Get ready, and never be heard of again."""
    EchoCore(spawn, control, listeners)
    time.sleep(3600)
    return 0
