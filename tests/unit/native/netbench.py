"""A net with a listener, its clients, and frames for them: what the tests of the net share."""

import socket
import struct
import time
from typing import Any, Self

from corelane_native import (
    ACCEPTED,
    CLOSED,
    FRAME,
    Arena,
    Net,
    bytes_at,
)

KIB, MIB = 1024, 1024 * 1024
FRAME_MAX, RECEIVE_MAX = 8 * MIB, 16 * MIB
PRODUCE, FETCH = 0, 1
POLL_US = 50_000
PATTERN = bytes(range(251))


class Bench:
    """A net with one listener, and clients of it."""

    def __init__(
        self,
        conns: int = 200,
        frame: int = FRAME_MAX,
        receive: int = RECEIVE_MAX,
        stall_s: float = 5.0,
    ) -> None:
        self.arena = Arena(16 * MIB)
        self.net = Net(conns, frame, receive, self.arena, stall_s=stall_s)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.net.listen(self.listener.fileno(), 7)
        self.sockets: list[socket.socket] = []
        self.frames: list[tuple[int, bytes]] = []
        self.others: list[tuple[Any, ...]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in [*self.sockets, self.listener]:
            each.close()

    def client(self, receive_bytes: int = 0) -> tuple[socket.socket, int]:
        """Connect, and return the client's socket and the net's conn."""
        made = socket.socket()
        if receive_bytes:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.connect(self.listener.getsockname())
        self.sockets.append(made)
        conn: int = self.other(ACCEPTED)[1]
        return made, conn

    def poll(self, timeout_us: int = POLL_US) -> int:
        """Poll once; keep what came, frames as bytes."""
        events = self.net.poll(timeout_us)
        for event in events:
            if event[0] == FRAME:
                self.frames.append((event[1], bytes_at(event[2], event[3])))
            else:
                self.others.append(event)
        return len(events)

    def wait_frames(self, count: int, seconds: float = 10) -> list[tuple[int, bytes]]:
        """Poll until *count* frames came, and take them."""
        end = time.monotonic() + seconds
        while len(self.frames) < count:
            assert time.monotonic() < end, f"{len(self.frames)} of {count} frames, {self.others}"
            self.poll()
        taken, self.frames = self.frames, []
        return taken

    def other(self, kind: int, seconds: float = 10) -> tuple[Any, ...]:
        """Poll until an event of *kind* came, and take it."""
        end = time.monotonic() + seconds
        while True:
            for event in self.others:
                if event[0] == kind:
                    self.others.remove(event)
                    return event
            assert time.monotonic() < end, f"no event {kind} in {self.others}"
            self.poll()

    def quiet(self, polls: int = 3) -> None:
        """Nothing comes."""
        for _ in range(polls):
            assert self.poll(10_000) == 0, (self.frames, self.others)

    def closed(self, conn: int) -> int:
        """Wait for the end of *conn* and return its reason."""
        event = self.other(CLOSED)
        assert event[1] == conn
        reason: int = event[2]
        return reason


def body(size: int, key: int = FETCH, correlation: int = 1) -> bytes:
    """Return a frame of *size* bytes, without its length."""
    return struct.pack(">hhi", key, 4, correlation) + (PATTERN * (size // 251 + 1))[: size - 8]


def framed(content: bytes) -> bytes:
    """Return *content* behind its length."""
    return struct.pack(">I", len(content)) + content


def receive(client: socket.socket, size: int) -> bytes:
    """Read exactly *size* bytes."""
    client.settimeout(10)
    data = bytearray()
    while len(data) < size:
        piece = client.recv(min(MIB, size - len(data)))
        assert piece, f"{len(data)} of {size} bytes came"
        data += piece
    return bytes(data)
