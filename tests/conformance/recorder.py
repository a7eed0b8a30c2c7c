"""A proxy that writes down which API and version a client uses, and changes not a byte.

Clients follow the addresses a broker advertises, so a proxy on another port would see the first
connection only, and one that rewrites answers would judge its own rewriting. Instead the broker
binds 127.0.0.1 and advertises 127.0.0.2, and the proxy listens there on the same port numbers.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from corelane.model.record import record
from tests.conformance.probe import Address

RECORDED_HOST = "127.0.0.2"
BROKER_HOST = "127.0.0.1"
FRAME_BYTES_MAX = 128 << 20
PIECE_BYTES = 64 << 10
PRODUCE_KEY = 0

Use = tuple[int, int]
"""(API key, version) of a request."""


@record
class Recording:
    """What one client did. `unanswered` are requests whose connection the broker closed."""

    requests: dict[Use, int]
    unanswered: list[Use]


class Recorder:
    """Forwards every connection to the broker and counts requests until told to forget."""

    def __init__(self, ports: list[int]) -> None:
        self._lock = threading.Lock()
        self._recording = Recording({}, [])
        self._listeners = [socket.create_server((RECORDED_HOST, port)) for port in ports]
        self._threads: list[threading.Thread] = []
        for listener in self._listeners:
            self._start(self._accept, listener)

    def take(self) -> Recording:
        """Return what was recorded since the last call, and begin anew."""
        with self._lock:
            taken = self._recording
            self._recording = Recording({}, [])
        return taken

    def close(self) -> None:
        """Accept no more; connections end when their client or broker ends."""
        for listener in self._listeners:
            # Wakes the thread in accept(); close() alone would leave it there.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _start(self, target: object, *arguments: object) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        port = listener.getsockname()[1]
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            try:
                broker = socket.create_connection((BROKER_HOST, port))
            except OSError:
                client.close()
                continue
            for each in (client, broker):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire = _Wire(self, client, broker)
            self._start(wire.requests)
            self._start(wire.answers)

    def note_request(self, use: Use) -> None:
        """Count a request."""
        with self._lock:
            self._recording.requests[use] = self._recording.requests.get(use, 0) + 1

    def note_unanswered(self, use: Use) -> None:
        """Keep a request whose connection was closed by the broker."""
        with self._lock:
            self._recording.unanswered.append(use)


class _Wire:
    """One connection and its counterpart."""

    def __init__(self, recorder: Recorder, client: socket.socket, broker: socket.socket) -> None:
        self._recorder = recorder
        self._client = client
        self._broker = broker
        self._waiting: dict[int, Use] = {}
        self._is_left = False

    def requests(self) -> None:
        """Forward what the client says."""
        with contextlib.suppress(OSError):
            for head in _frames(self._client, self._broker, head_bytes=8):
                key, version, correlation = struct.unpack(">hhi", head)
                self._waiting[correlation] = (key, version)
                self._recorder.note_request((key, version))
        self._is_left = True
        with contextlib.suppress(OSError):
            self._broker.shutdown(socket.SHUT_WR)

    def answers(self) -> None:
        """Forward what the broker says, and at its end look what it has left unsaid."""
        with contextlib.suppress(OSError):
            for head in _frames(self._broker, self._client, head_bytes=4):
                self._waiting.pop(struct.unpack(">i", head)[0], None)
        if not self._is_left:
            for use in self._waiting.values():
                if use[0] != PRODUCE_KEY:  # with acks=0 there is no answer
                    self._recorder.note_unanswered(use)
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)
        self._client.close()
        self._broker.close()


def _frames(source: socket.socket, target: socket.socket, head_bytes: int) -> Iterator[bytes]:
    """Forward *source* to *target* and yield the first bytes of each frame; ends with *source*."""
    held = bytearray()
    body_left = 0
    while piece := source.recv(PIECE_BYTES):
        view = memoryview(piece)
        while view:
            if body_left:
                skipped = min(body_left, len(view))
                body_left -= skipped
                view = view[skipped:]
                continue
            wanted = 4 + head_bytes - len(held)
            held += view[:wanted]
            view = view[wanted:]
            if len(held) == 4 + head_bytes:
                size = struct.unpack_from(">i", held)[0]
                assert head_bytes <= size <= FRAME_BYTES_MAX
                body_left = size - head_bytes
                # Noted before it is forwarded: the answer may not overtake the note.
                yield bytes(held[4:])
                held.clear()
        target.sendall(piece)


@contextlib.contextmanager
def recorded(ports: list[int]) -> Iterator[tuple[Address, Recorder]]:
    """Record all that clients say on *ports*; yields the address to bootstrap from."""
    recorder = Recorder(ports)
    try:
        yield Address(RECORDED_HOST, ports[0]), recorder
    finally:
        recorder.close()
