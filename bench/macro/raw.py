"""A bare client: just enough of the protocol to ask a broker for work without a client's costs."""

import socket
import struct
import time
from collections.abc import Iterator

import crc32c

from corelane.model.record import record
from tests.conformance.probe import Address, read_exactly

PRODUCE, FETCH, METADATA, CREATE_TOPICS, DELETE_TOPICS = 0, 1, 3, 19, 20
TIMEOUT_MS = 30_000
ANSWER_S_MAX = 60.0
LEADER_S_MAX = 30.0
BATCH_HEAD = struct.Struct(">qiibIhiqqqhii")
BATCH_OVERHEAD_BYTES = 12
_PREFIX = struct.Struct(">i")


class BrokerError(Exception):
    """A broker answered with an error code."""


@record
class Partition:
    """A partition of a topic."""

    topic: str
    index: int


class Connection:
    """A connection to one broker."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection((address.host, address.port), ANSWER_S_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """Send one frame and return the answer's body."""
        self.socket.sendall(request)
        size_bytes = _PREFIX.unpack(read_exactly(self.socket, 4))[0]
        return read_exactly(self.socket, size_bytes)[4:]

    def close(self) -> None:
        """End the connection."""
        self.socket.close()


def request(key: int, version: int, body: bytes) -> bytes:
    """Return a whole frame."""
    head = struct.pack(">hhih", key, version, 1, 5) + b"bench"
    return _PREFIX.pack(len(head) + len(body)) + head + body


def text(value: str) -> bytes:
    """Return a string as the wire has it."""
    data = value.encode()
    return struct.pack(">h", len(data)) + data


def create_topic(
    bootstrap: Address,
    topic: str,
    partitions: int,
    configs: dict[str, str] | None = None,
    replicas: int = 1,
) -> None:
    """Create *topic*; raises BrokerError."""
    answer = once(bootstrap, create_topic_frame(topic, partitions, configs, replicas))
    _check(struct.unpack_from(">h", answer, 4 + 4 + len(text(topic)))[0], "CreateTopics")


def create_topic_frame(
    topic: str, partitions: int, configs: dict[str, str] | None = None, replicas: int = 1
) -> bytes:
    """Return a CreateTopics v2 frame for one topic."""
    rows = b"".join(text(name) + text(value) for name, value in (configs or {}).items())
    body = struct.pack(">i", 1) + text(topic) + struct.pack(">ihi", partitions, replicas, 0)
    body += struct.pack(">i", len(configs or {})) + rows + struct.pack(">ib", TIMEOUT_MS, 0)
    return request(CREATE_TOPICS, 2, body)


def delete_topic(bootstrap: Address, topic: str) -> None:
    """Delete *topic*; raises BrokerError."""
    body = struct.pack(">i", 1) + text(topic) + struct.pack(">i", TIMEOUT_MS)
    answer = once(bootstrap, request(DELETE_TOPICS, 1, body))
    _check(struct.unpack_from(">h", answer, 4 + 4 + len(text(topic)))[0], "DeleteTopics")


def leader(bootstrap: Address, partition: Partition) -> Address:
    """Return the broker that leads *partition*, waiting for one."""
    return _led(bootstrap, partition.topic, {partition.index})[partition.index]


def all_leaders(bootstrap: Address, topic: str, count: int) -> dict[int, Address]:
    """Return the broker that leads each of a topic's partitions, waiting for all."""
    return _led(bootstrap, topic, {*range(count)})


def _led(bootstrap: Address, topic: str, wanted: set[int]) -> dict[int, Address]:
    deadline_s = time.monotonic() + LEADER_S_MAX
    while True:
        body = struct.pack(">i", 1) + text(topic)
        found = leaders(once(bootstrap, request(METADATA, 1, body)))
        if wanted <= found.keys():
            return found
        if time.monotonic() > deadline_s:
            message = f"{topic}-{min(wanted - found.keys())} has no leader"
            raise BrokerError(message)
        time.sleep(0.005)


def batch(values: list[bytes], timestamp_ms: int) -> bytes:
    """Return a record batch of *values*, uncompressed, as a producer without idempotence sends."""
    records = b"".join(_record(delta, value) for delta, value in enumerate(values))
    last = len(values) - 1
    head = BATCH_HEAD.pack(
        0, 49 + len(records), -1, 2, 0, 0, last, timestamp_ms, timestamp_ms, -1, -1, -1, last + 1
    )
    crc = crc32c.crc32c(head[21:] + records)
    return head[:17] + struct.pack(">I", crc) + head[21:] + records


def produce(partition: Partition, records: bytes, acks: int = -1) -> bytes:
    """Return a Produce v7 frame."""
    return produce_rows(partition.topic, [(partition.index, records)], acks)


def produce_rows(topic: str, rows: list[tuple[int, bytes]], acks: int = -1) -> bytes:
    """Return a Produce v7 frame with batches for several partitions of a topic."""
    body = struct.pack(">hhii", -1, acks, TIMEOUT_MS, 1) + text(topic)
    body += struct.pack(">i", len(rows))
    for index, records in rows:
        body += struct.pack(">ii", index, len(records)) + records
    return request(PRODUCE, 7, body)


def check_produced(answer: bytes, partition: Partition) -> int:
    """Return the base offset of a Produce v7 answer; raises BrokerError."""
    at = 4 + len(text(partition.topic)) + 4 + 4
    code, offset = struct.unpack_from(">hq", answer, at)
    _check(code, "Produce")
    assert isinstance(offset, int)
    return offset


def produced(answer: bytes, topic: str) -> Iterator[tuple[int, int]]:
    """Give partition and error code of each row of a Produce v7 answer for one topic."""
    at = 4 + len(text(topic))
    (count,) = struct.unpack_from(">i", answer, at)
    for row in range(count):
        index, code = struct.unpack_from(">ih", answer, at + 4 + row * 30)
        yield index, code


def fetch(partition: Partition, offset: int, bytes_max: int) -> bytes:
    """Return a Fetch v4 frame that waits half a second at most."""
    body = struct.pack(">iiiibi", -1, 500, 1, bytes_max, 0, 1) + text(partition.topic)
    body += struct.pack(">iiqi", 1, partition.index, offset, bytes_max)
    return request(FETCH, 4, body)


def fetched(answer: bytes, partition: Partition) -> tuple[int, int]:
    """Return (next offset or -1, high watermark) of a Fetch v4 answer; raises BrokerError."""
    at = 4 + 4 + len(text(partition.topic)) + 4 + 4
    code, high_watermark, _stable, aborted = struct.unpack_from(">hqqi", answer, at)
    _check(code, "Fetch")
    at += 22 + 16 * max(aborted, 0)
    size_bytes = struct.unpack_from(">i", answer, at)[0]
    records = memoryview(answer)[at + 4 : at + 4 + size_bytes]
    next_offset = -1
    for base_offset, last_delta in batches(records):
        next_offset = base_offset + last_delta + 1
    return next_offset, high_watermark


def batches(records: memoryview) -> Iterator[tuple[int, int]]:
    """Yield (base offset, last delta) of each whole batch; the last may be cut short."""
    at = 0
    while at + BATCH_HEAD.size <= len(records):
        base_offset, length_bytes = struct.unpack_from(">qi", records, at)
        length_bytes += BATCH_OVERHEAD_BYTES
        if at + length_bytes > len(records):
            return
        yield base_offset, struct.unpack_from(">i", records, at + 23)[0]
        at += length_bytes


def _record(delta: int, value: bytes) -> bytes:
    body = b"\0" + _varint(0) + _varint(delta) + _varint(-1) + _varint(len(value)) + value
    return _varint(len(body) + 1) + body + _varint(0)


def _varint(value: int) -> bytes:
    zigzag = (value << 1) ^ (value >> 63)
    data = bytearray()
    while zigzag >= 0x80:
        data.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    data.append(zigzag)
    return bytes(data)


def leaders(answer: bytes) -> dict[int, Address]:
    """Return partition -> leader's address from a Metadata v1 answer about one topic."""
    reader = _Reader(answer)
    brokers: dict[int, Address] = {}
    for _ in range(reader.int32()):
        node = reader.int32()
        brokers[node] = Address(reader.string(), reader.int32())
        reader.string()
    reader.int32()  # the controller
    led: dict[int, Address] = {}
    for _ in range(reader.int32()):
        reader.int16()
        reader.string()
        reader.skip(1)
        for _ in range(reader.int32()):
            reader.int16()
            index, leader_id = reader.int32(), reader.int32()
            reader.skip(4 * reader.int32())
            reader.skip(4 * reader.int32())
            if leader_id in brokers:
                led[index] = brokers[leader_id]
    return led


class _Reader:
    """Walks an answer of the old, inflexible kind."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def int16(self) -> int:
        self._at += 2
        return int.from_bytes(self._data[self._at - 2 : self._at], signed=True)

    def int32(self) -> int:
        self._at += 4
        return int.from_bytes(self._data[self._at - 4 : self._at], signed=True)

    def string(self) -> str:
        size_bytes = max(self.int16(), 0)
        self.skip(size_bytes)
        return self._data[self._at - size_bytes : self._at].decode()

    def skip(self, size_bytes: int) -> None:
        self._at += size_bytes


def once(address: Address, frame: bytes) -> bytes:
    """Ask on a connection of its own and return the answer's body."""
    connection = Connection(address)
    try:
        return connection.ask(frame)
    finally:
        connection.close()


def _check(code: int, what: str) -> None:
    if code != 0:
        message = f"{what} was answered with error {code}"
        raise BrokerError(message)
