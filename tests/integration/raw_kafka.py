"""Kafka requests made by hand, so that a test knows every byte and every correlation id.

Only what the tests here need, in versions without compact encodings. Layouts are from Kafka's
published message descriptors; nothing of the broker's own codec is used.
"""

import socket
import struct
from dataclasses import dataclass
from typing import Self

import crc32c

PRODUCE = 0
FETCH = 1
METADATA = 3
API_VERSIONS = 18
CREATE_TOPICS = 19

PRODUCE_VERSION = 7
CREATE_TOPICS_VERSION = 4
TIMESTAMP_MS = 1_700_000_000_000


def string(text: str) -> bytes:
    """Return a STRING."""
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def frame(key: int, version: int, correlation: int, body: bytes, client: str = "raw") -> bytes:
    """Return a whole request with its length prefix and header v1."""
    head = struct.pack(">hhi", key, version, correlation) + string(client)
    return struct.pack(">i", len(head) + len(body)) + head + body


def varint(value: int) -> bytes:
    """Return a zigzag varint."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value & ~0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@dataclass
class Lies:
    """What a batch says of itself that is not so. The checksum is right unless it is a lie too."""

    count: int | None = None
    last_delta: int | None = None
    delta_step: int = 1
    attributes: int = 0
    crc_flip: int = 0
    trailing: bytes = b""


HONEST = Lies()


def record_batch(values: list[bytes], lies: Lies = HONEST) -> bytes:
    """Return an uncompressed record batch v2 of an ordinary producer."""
    records = b""
    for number, value in enumerate(values):
        record = b"\0" + varint(0) + varint(number * lies.delta_step) + varint(-1)
        record += varint(len(value)) + value + varint(0)
        records += varint(len(record)) + record
    count = len(values) if lies.count is None else lies.count
    last = count - 1 if lies.last_delta is None else lies.last_delta
    checked = struct.pack(
        ">hiqqqhii", lies.attributes, last, TIMESTAMP_MS, TIMESTAMP_MS, -1, -1, -1, count
    )
    checked += records + lies.trailing
    crc = crc32c.crc32c(checked) ^ lies.crc_flip
    head = struct.pack(">ib", -1, 2) + struct.pack(">I", crc)
    return struct.pack(">qi", 0, len(head) + len(checked)) + head + checked


def produce(topic: str, partition: int, batch: bytes, acks: int = -1) -> bytes:
    """Return the body of a Produce v7 request with one batch."""
    body = struct.pack(">hhi", -1, acks, 30_000) + struct.pack(">i", 1) + string(topic)
    return body + struct.pack(">iii", 1, partition, len(batch)) + batch


def create_topics(topic: str, partitions: int) -> bytes:
    """Return the body of a CreateTopics v4 request."""
    body = struct.pack(">i", 1) + string(topic) + struct.pack(">ihii", partitions, 1, 0, 0)
    return body + struct.pack(">i?", 30_000, False)


def fetch(topic: str, partition: int, offset: int, bytes_max: int = 1 << 20) -> bytes:
    """Return the body of a Fetch v4 request."""
    body = struct.pack(">iiiib", -1, 1000, 1, bytes_max, 0) + struct.pack(">i", 1) + string(topic)
    return body + struct.pack(">iiqi", 1, partition, offset, bytes_max)


@dataclass
class Produced:
    """What a Produce answer says about its one partition."""

    error: int
    base_offset: int


def parse_produced(body: bytes) -> Produced:
    """Read a Produce v7 answer, without its correlation id."""
    (topics,) = struct.unpack_from(">i", body)
    assert topics == 1
    (name_bytes,) = struct.unpack_from(">h", body, 4)
    _, _, error, base_offset = struct.unpack_from(">iihq", body, 6 + name_bytes)
    return Produced(error, base_offset)


class RawClient:
    """One connection. Sends what it is told and reads frames."""

    def __init__(self, port: int, seconds_max: float = 30.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds_max)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def read_exactly(self, size: int) -> bytes:
        """Read *size* bytes; raises EOFError when the broker closes before."""
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def answer(self) -> tuple[int, bytes]:
        """Read one answer: correlation id and what follows it."""
        (size,) = struct.unpack(">i", self.read_exactly(4))
        data = self.read_exactly(size)
        return int.from_bytes(data[:4], "big"), data[4:]

    def ask(self, key: int, version: int, correlation: int, body: bytes) -> bytes:
        """Send a request and read its answer."""
        self.send(frame(key, version, correlation, body))
        answered, data = self.answer()
        assert answered == correlation
        return data

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Create a topic; it may exist."""
        data = self.ask(CREATE_TOPICS, CREATE_TOPICS_VERSION, 1, create_topics(topic, partitions))
        (name_bytes,) = struct.unpack_from(">h", data, 8)
        (error,) = struct.unpack_from(">h", data, 10 + name_bytes)
        assert error in (0, 36), f"CreateTopics answered {error}"

    def is_closed_within(self, seconds: float) -> bool:
        """Return whether the broker closes the connection, ignoring what it sends before."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True
