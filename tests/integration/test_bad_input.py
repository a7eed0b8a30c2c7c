"""Hostile and broken clients: they are refused or cut off, everyone else is served.

Each test misbehaves on a connection of its own while an ordinary client produces and reads back
on another; then the broker must be the same process, in bounded memory, with a clear log line.
"""

import contextlib
import random
import resource
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import broker as brokers
from tests.integration import raw_kafka
from tests.integration.broker import Broker
from tests.integration.raw_kafka import Lies, RawClient

TOPIC = "others"
CORE_BYTES_MAX = 400 << 20
"""Far above what a core needs, far below what any of these clients asks for."""


class Others:
    """A well-behaved client beside the bad one."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.pid = broker.core_pid()
        self.offset = 0
        self.client = RawClient(broker.ports["bootstrap"])
        self.client.create_topic(TOPIC)

    def assert_served(self, count: int = 3) -> None:
        """Produce a few records and see that the core is the same, and small."""
        for _ in range(count):
            batch = raw_kafka.record_batch([b"fine"])
            body = self.client.ask(
                raw_kafka.PRODUCE,
                raw_kafka.PRODUCE_VERSION,
                self.offset,
                raw_kafka.produce(TOPIC, 0, batch),
            )
            produced = raw_kafka.parse_produced(body)
            assert produced == raw_kafka.Produced(0, self.offset)
            self.offset += 1
        assert self.broker.core_pid() == self.pid, self.broker.log_text()
        assert resident_bytes(self.pid) < CORE_BYTES_MAX


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with brokers.started(tmp_path_factory.mktemp("bad") / "data") as started:
        yield started


@pytest.fixture
def others(broker: Broker) -> Iterator[Others]:
    """Yield a good client on a topic made anew, and see it served before and after the test."""
    others = Others(broker)
    body = others.client.ask(
        raw_kafka.PRODUCE,
        raw_kafka.PRODUCE_VERSION,
        0,
        raw_kafka.produce(TOPIC, 0, raw_kafka.record_batch([b"first"])),
    )
    others.offset = raw_kafka.parse_produced(body).base_offset + 1
    others.assert_served()
    yield others
    others.assert_served()
    others.client.socket.close()


def connect(broker: Broker) -> RawClient:
    return RawClient(broker.ports["bootstrap"])


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_close_their_connection_only(
    broker: Broker, others: Others, seed: int
) -> None:
    data = random.Random(seed).randbytes(4096)
    with connect(broker) as client:
        client.send(data)
        others.assert_served()
        client.socket.shutdown(socket.SHUT_WR)
        assert client.is_closed_within(20)


@pytest.mark.parametrize("seed", range(5))
def test_random_requests_in_good_frames_harm_nobody(
    broker: Broker, others: Others, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        with connect(broker) as client:
            key, version = chance.randrange(80), chance.randrange(18)
            body = chance.randbytes(chance.randrange(200))
            client.send(raw_kafka.frame(key, version, 1, body))
            client.socket.shutdown(socket.SHUT_WR)
            assert client.is_closed_within(20)
    others.assert_served()


@pytest.mark.parametrize("size", [-1, -(2**31), 0, 3, 7])
def test_an_impossible_length_closes_the_connection(
    broker: Broker, others: Others, size: int
) -> None:
    with connect(broker) as client:
        client.send(struct.pack(">i", size) + b"\0" * 16)
        assert client.is_closed_within(20)
    others.assert_served()
    broker.wait_for_line("closed the connection of 127.0.0.1:")


def test_a_two_gib_length_is_refused_before_any_of_it_arrives(
    broker: Broker, others: Others
) -> None:
    before = resident_bytes(others.pid)
    with connect(broker) as client:
        client.send(struct.pack(">i", 2**31 - 1) + b"\0\x03\0\x09")
        assert client.is_closed_within(20)
    assert resident_bytes(others.pid) - before < 16 << 20


def test_a_claimed_length_reserves_no_memory(broker: Broker, others: Others) -> None:
    before = resident_bytes(others.pid)
    clients = [connect(broker) for _ in range(50)]
    for client in clients:
        client.send(struct.pack(">i", 90 << 20) + b"\0\x03\0\x09")
    others.assert_served(20)
    assert resident_bytes(others.pid) - before < 64 << 20
    for client in clients:
        client.socket.close()


def test_half_sent_big_frames_stay_within_the_limit(broker: Broker, others: Others) -> None:
    clients = [connect(broker) for _ in range(60)]
    half = struct.pack(">i", 10 << 20) + b"\0\0\0\x07" + b"\0" * (5 << 20)
    for client in clients:
        client.socket.settimeout(0.2)
        try:
            client.socket.sendall(half)
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            continue  # It is not read any more: that is the limit.
    others.assert_served(10)
    for client in clients:
        client.socket.close()


def test_two_thousand_half_sent_frames_stay_within_the_limit(
    broker: Broker, others: Others
) -> None:
    """All of what they claim would be 20 GB, all of what they send 500 MB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    piece = struct.pack(">i", 10 << 20) + b"\0\0\0\x07" + b"\0" * (256 << 10)
    clients = []
    try:
        for number in range(2000):
            client = socket.create_connection(("127.0.0.1", broker.ports["cores"][0]))
            clients.append(client)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionResetError, BrokenPipeError):
                client.send(piece)  # what the kernel takes; the rest would only wait there
            if number % 500 == 0:
                others.assert_served(1)
        others.assert_served(10)
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("key", "version"), [(9999, 0), (-1, 0), (0, 99), (0, -1), (1, 99)])
def test_unknown_keys_and_versions_close_the_connection(
    broker: Broker, others: Others, key: int, version: int
) -> None:
    with connect(broker) as client:
        client.send(raw_kafka.frame(key, version, 1, b""))
        assert client.is_closed_within(20)
    broker.wait_for_line("is not served")


def test_an_unknown_version_of_api_versions_is_answered(broker: Broker, others: Others) -> None:
    with connect(broker) as client:
        body = client.ask(raw_kafka.API_VERSIONS, 99, 7, b"")
        assert struct.unpack_from(">h", body) == (35,), "UNSUPPORTED_VERSION in layout v0"


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /topics HTTP/1.1\r\n\r\n",
        bytes.fromhex("16030100c8010000c40303") + bytes(190),
    ],
    ids=["http-get", "http-post", "tls"],
)
def test_another_protocol_on_the_plain_port_is_named_in_the_log(
    broker: Broker, others: Others, hello: bytes
) -> None:
    with connect(broker) as client:
        client.send(hello)
        assert client.is_closed_within(20)
    broker.wait_for_line("TLS" if hello[0] == 0x16 else "HTTP")


def test_a_truncated_frame_is_forgotten_with_its_connection(broker: Broker, others: Others) -> None:
    whole = raw_kafka.frame(
        raw_kafka.PRODUCE,
        raw_kafka.PRODUCE_VERSION,
        1,
        raw_kafka.produce(TOPIC, 0, raw_kafka.record_batch([b"never"])),
    )
    for size in range(1, len(whole), 7):
        with connect(broker) as client:
            client.send(whole[:size])
    others.assert_served()


def test_a_frame_sent_byte_by_byte_is_served_like_any_other(broker: Broker, others: Others) -> None:
    whole = raw_kafka.frame(raw_kafka.API_VERSIONS, 0, 5, b"")
    with connect(broker) as client:
        for at in range(len(whole)):
            client.send(whole[at : at + 1])
            time.sleep(0.002)
        assert client.answer()[0] == 5


CORRUPT_MESSAGE = 2
MESSAGE_TOO_LARGE = 10
UNSUPPORTED_COMPRESSION_TYPE = 76
INVALID_RECORD = 87


@pytest.mark.parametrize(
    ("lies", "error"),
    [
        (Lies(crc_flip=1), CORRUPT_MESSAGE),
        (Lies(count=3), INVALID_RECORD),
        (Lies(count=2**31 - 1), INVALID_RECORD),
        (Lies(count=-1, last_delta=1), INVALID_RECORD),
        (Lies(last_delta=7), INVALID_RECORD),
        (Lies(delta_step=2), INVALID_RECORD),
        (Lies(delta_step=0), INVALID_RECORD),
        (Lies(trailing=b"more"), INVALID_RECORD),
        (Lies(attributes=5), UNSUPPORTED_COMPRESSION_TYPE),
        (Lies(attributes=1 << 5), INVALID_RECORD),
    ],
    ids=str,
)
def test_a_batch_that_lies_is_refused_with_kafkas_error(
    broker: Broker, others: Others, lies: Lies, error: int
) -> None:
    lying = raw_kafka.record_batch([b"one", b"two"], lies)
    with connect(broker) as client:
        body = client.ask(
            raw_kafka.PRODUCE, raw_kafka.PRODUCE_VERSION, 1, raw_kafka.produce(TOPIC, 0, lying)
        )
        assert raw_kafka.parse_produced(body).error == error
        too_large = raw_kafka.produce(TOPIC, 0, raw_kafka.record_batch([b"x" * (2 << 20)]))
        body = client.ask(raw_kafka.PRODUCE, raw_kafka.PRODUCE_VERSION, 2, too_large)
        assert raw_kafka.parse_produced(body).error == MESSAGE_TOO_LARGE


def test_a_client_that_never_reads_is_not_read_any_more(broker: Broker, others: Others) -> None:
    batch = raw_kafka.record_batch([b"x" * 900_000])
    others.client.ask(
        raw_kafka.PRODUCE, raw_kafka.PRODUCE_VERSION, 9, raw_kafka.produce(TOPIC, 0, batch)
    )
    big_offset, others.offset = others.offset, others.offset + 1
    request = raw_kafka.frame(raw_kafka.FETCH, 4, 1, raw_kafka.fetch(TOPIC, 0, big_offset, 4 << 20))
    before = resident_bytes(others.pid)
    with connect(broker) as client:
        client.socket.settimeout(0.5)
        sent = 0
        try:
            for _ in range(20_000):
                client.send(request)
                sent += 1
        except TimeoutError:
            pass
        others.assert_served(10)
        assert resident_bytes(others.pid) - before < 64 << 20, f"{sent} fetches were taken"


def test_thousands_of_connections_opened_and_dropped(broker: Broker, others: Others) -> None:
    address = ("127.0.0.1", broker.ports["bootstrap"])
    for _ in range(20):
        opened = [socket.create_connection(address, timeout=30) for _ in range(500)]
        for connection in opened:
            connection.close()
        others.assert_served(1)
    deadline_s = time.monotonic() + 30
    while broker.health()["cores"][0]["connections"] > 10:
        assert time.monotonic() < deadline_s, "connections of clients that left are kept"
        time.sleep(0.1)


def test_one_byte_at_a_time_is_cut_off_when_its_time_is_over(tmp_path: Path) -> None:
    """A byte a minute, scaled: the idle limit is a second here and ten minutes by default."""
    settings: dict[str, object] = {"connections.max.idle.ms": 1000}
    with brokers.started(tmp_path / "data", settings) as broker:
        others = Others(broker)
        with RawClient(broker.ports["bootstrap"]) as client:
            began_s = time.monotonic()
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                drip(client, others)
            assert time.monotonic() - began_s < 15
        others.client.socket.close()


def drip(client: RawClient, others: Others) -> None:
    """Send a frame very slowly, with an ordinary client at work beside it."""
    for byte in raw_kafka.frame(raw_kafka.API_VERSIONS, 0, 1, b"\0" * 200):
        client.send(bytes([byte]))
        others.assert_served(1)
        time.sleep(0.1)


def test_bad_clients_are_told_of_in_few_lines(broker: Broker, others: Others) -> None:
    before = broker.log_text().count("\n")
    for _ in range(300):
        with connect(broker) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert client.is_closed_within(20)
    assert broker.log_text().count("\n") - before < 10
