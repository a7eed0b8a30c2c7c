"""Cores for tests of the supervisor: they speak the control protocol and hold no data."""

import os
import select
import signal
import socket
import time
from pathlib import Path
from typing import assert_never

from corelane.runtime import data_directory, messages
from corelane.runtime.failures import StartError
from corelane.runtime.forkserver import CoreMain
from corelane.runtime.messages import (
    Connections,
    Failed,
    Heartbeat,
    Ready,
    Spawn,
    StatsAnswer,
    StatsRequest,
    Stop,
)

HEARTBEAT_MS = 100


class EchoCore:
    """Sends back what its clients send, until told to stop."""

    def __init__(self, spawn: Spawn, control: socket.socket, listener: socket.socket) -> None:
        self.control = control
        self.listener = listener
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        self.poll.register(listener, select.POLLIN)
        self.connections: dict[int, socket.socket] = {}
        self.served = 0
        self.tell(Ready(os.getpid(), recovery_ms=0))

    def tell(self, message: Ready | Heartbeat | Failed | StatsAnswer) -> None:
        self.control.send(messages.encode(message))

    def serve(self) -> int:
        """Serve until told to stop; returns the exit code."""
        while True:
            for descriptor, _ in self.poll.poll(HEARTBEAT_MS):
                if descriptor == self.control.fileno():
                    if not self.obey():
                        return 0
                elif descriptor == self.listener.fileno():
                    self.add(self.listener.accept()[0])
                else:
                    self.echo(self.connections[descriptor])
            self.tell(Heartbeat(len(self.connections), 0, 0))

    def obey(self) -> bool:
        packet, ancillary, _, _ = self.control.recvmsg(
            messages.PACKET_BYTES_MAX, messages.RIGHTS_SPACE_BYTES
        )
        if not packet:
            os._exit(1)
        message = messages.to_core.decode(packet)
        for descriptor in messages.received_descriptors(ancillary):
            self.add(socket.socket(fileno=descriptor))
        match message:
            case Connections():
                return True
            case StatsRequest(request=request):
                values = {"requests/Echo": float(self.served)}
                self.tell(StatsAnswer(request, values, is_last=True))
                return True
            case Stop():
                return False
            case _:
                assert_never(message)

    def add(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        self.poll.register(connection, select.POLLIN)

    def echo(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(4096)
        except ConnectionResetError:
            data = b""
        if data == b"pid\n":
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
    """Return a core that echoes, with a lock as a real one has."""

    def core_main(spawn: Spawn, control: socket.socket, listener: socket.socket) -> int:
        own = data_directory.core_directory(directory, spawn.core)
        own.mkdir(exist_ok=True)
        assert data_directory.lock_file(own / "lock") is not None
        return EchoCore(spawn, control, listener).serve()

    return core_main


def failing(error: StartError, *, is_permanent: bool) -> CoreMain:
    """Return a core that cannot start and says why."""

    def core_main(spawn: Spawn, control: socket.socket, listener: socket.socket) -> int:
        failed = Failed(error.what, error.why, error.next_step, error.code, is_permanent)
        control.send(messages.encode(failed))
        return error.code

    return core_main


def dying(spawn: Spawn, control: socket.socket, listener: socket.socket) -> int:
    """Die without a word, before serving."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def stubborn(spawn: Spawn, control: socket.socket, listener: socket.socket) -> int:
    """Serve, and do not stop when told to."""
    core = EchoCore(spawn, control, listener)
    while True:
        core.tell(Heartbeat(0, 0, 0))
        time.sleep(HEARTBEAT_MS / 1000)


def silent(spawn: Spawn, control: socket.socket, listener: socket.socket) -> int:
    """Get ready, and never be heard of again."""
    EchoCore(spawn, control, listener)
    time.sleep(3600)
    return 0
