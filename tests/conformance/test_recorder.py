"""The recording proxy sees every request and changes nothing, however the bytes arrive."""

import socket
import struct
import threading

from tests.conformance.brokers import free_ports
from tests.conformance.probe import read_exactly
from tests.conformance.recorder import BROKER_HOST, Recorder, recorded

METADATA_13 = struct.pack(">hhi", 3, 13, 7) + b"the rest"
PRODUCE_9 = struct.pack(">hhi", 0, 9, 8) + bytes(200_000)
ANSWER = struct.pack(">i", 7) + b"an answer"


def frame(body: bytes) -> bytes:
    """Return *body* as it is on the wire."""
    return struct.pack(">i", len(body)) + body


def test_requests_are_counted_and_pass_unchanged() -> None:
    (port,) = free_ports(1)
    stream = frame(METADATA_13) + frame(PRODUCE_9) + frame(METADATA_13)
    seen: list[bytes] = []

    def broker(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            seen.append(read_exactly(connection, len(stream)))
            connection.sendall(frame(ANSWER))
            connection.recv(1)

    with socket.create_server((BROKER_HOST, port)) as listener, recorded([port]) as (to, recorder):
        thread = threading.Thread(target=broker, args=(listener,))
        thread.start()
        with socket.create_connection((to.host, to.port)) as client:
            for start in range(0, len(stream), 4_001):
                client.sendall(stream[start : start + 4_001])
            assert read_exactly(client, len(frame(ANSWER))) == frame(ANSWER)
        thread.join(10)
        assert seen == [stream]
        recording = recorder.take()
        assert recording.requests == {(3, 13): 2, (0, 9): 1}
        assert recording.unanswered == []


def test_a_closed_connection_is_remembered() -> None:
    (port,) = free_ports(1)

    def broker(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            read_exactly(connection, len(frame(METADATA_13)))

    with socket.create_server((BROKER_HOST, port)) as listener, recorded([port]) as (to, recorder):
        thread = threading.Thread(target=broker, args=(listener,))
        thread.start()
        with socket.create_connection((to.host, to.port)) as client:
            client.sendall(frame(METADATA_13))
            assert client.recv(1) == b""
        thread.join(10)
        assert unanswered(recorder) == [(3, 13)]


def unanswered(recorder: Recorder) -> list[tuple[int, int]]:
    """Return what was left without an answer; noted before the client learns of the end."""
    return recorder.take().unanswered
