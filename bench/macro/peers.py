"""Redis and NATS on the same work, where the distribution's packages are there.

Each speaks its own protocol here, by a bare client like the one that asks Corelane and Kafka: a
record of 100 bytes is appended (Redis: XADD, with `appendfsync always`; NATS: JetStream, a stream
in files) and acknowledged. One process, one stream.
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.macro import measure, small_loads
from bench.macro.experiments import Metrics, Scale
from corelane.model.record import record
from tests.conformance.brokers import free_ports

SMALL_BYTES: Final = 100
RECEIVE_BYTES: Final = 1 << 16
START_S_MAX: Final = 10.0
ANSWER_S_MAX: Final = 60.0
INBOX: Final = b"_INBOX.bench"
NATS_SYNCS_FROM: Final = (2, 10)
"""`sync_interval: always` came with this version; those before sync every two minutes."""

LOADS: Final = {
    "one record raw 5": 5,
    "one record raw 1000": 1_000,
    "latency": 1,
}
"""How many records are under way; by the name of what Corelane and Kafka are asked for."""


@record
class Peer:
    """A server that may be there: how it is started, and what one append and its answer are."""

    name: str
    durability: str
    command: list[str]
    port: int
    greeting: bytes
    request: bytes
    answer_end: bytes
    """Each answer ends with this, and has it nowhere else."""
    answer_ends: int = 1
    """How often this comes in one answer."""


def find(directory: Path) -> tuple[list[Peer], list[str]]:
    """Return the peers that are installed, and a sentence about each that is not."""
    found: list[Peer] = []
    missing: list[str] = []
    for program, make in (("redis-server", _redis), ("nats-server", _nats)):
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/bin")
        if path is None:
            missing.append(f"{program} is not installed: the package of that name has it")
        else:
            found.append(make(path, directory))
    return found, missing


def _redis(path: str, directory: Path) -> Peer:
    (port,) = free_ports(1)
    home = directory / "redis"
    home.mkdir()
    command = [path, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always"]
    parts = [b"XADD", b"bench", b"*", b"v", bytes(SMALL_BYTES)]
    request = b"*%d\r\n" % len(parts)
    request += b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
    # "$15\r\n1700000000000-0\r\n"
    return Peer("redis", "synced before the answer", command, port, b"", request, b"\r\n", 2)


def _nats(path: str, directory: Path) -> Peer:
    (port,) = free_ports(1)
    home = directory / "nats"
    home.mkdir()
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(int(each) for each in told.rpartition("v")[2].split(".")[:2])
    is_synced = version >= NATS_SYNCS_FROM
    config = home / "nats.conf"
    always = " sync_interval: always" if is_synced else ""
    config.write_text(f'jetstream {{ store_dir: "{home}"{always} }}\n')
    command = [path, "--addr", "127.0.0.1", "--port", str(port), "--config", str(config)]
    make = b'{"name":"BENCH","subjects":["bench"],"storage":"file","retention":"limits"}'
    greeting = b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB %b 1\r\n' % INBOX
    greeting += _publish(b"$JS.API.STREAM.CREATE.BENCH", make)
    request = _publish(b"bench", bytes(SMALL_BYTES))
    durability = "synced before the answer" if is_synced else "page cache, synced every 2 minutes"
    # "MSG _INBOX.bench 1 29\r\n{"stream":"BENCH", "seq":1}\r\n"
    return Peer("nats", durability, command, port, greeting, request, b"}\r\n")


def _publish(subject: bytes, payload: bytes) -> bytes:
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, INBOX, len(payload), payload)


@contextlib.contextmanager
def running(peer: Peer) -> Iterator[int]:
    """Run a peer until the block ends; gives its process."""
    process = subprocess.Popen(
        peer.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline_s = time.monotonic() + START_S_MAX
        while True:
            try:
                socket.create_connection(("127.0.0.1", peer.port), 1).close()
                break
            except OSError:
                assert process.poll() is None, f"{peer.name} has ended: {' '.join(peer.command)}"
                assert time.monotonic() < deadline_s, f"{peer.name} does not answer"
                time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def measured(peer: Peer, pid: int, load: str, scale: Scale) -> Metrics:
    """Append records, `LOADS[load]` of them under way at a time."""
    flight = LOADS[load]
    count = {1: scale.latencies, 5: scale.requests}.get(flight, scale.pipelined)
    connection = Connection(peer)
    before = measure.usage(pid)
    start_s = time.perf_counter()
    metrics: Metrics
    if flight == 1:
        metrics = _one_at_a_time(connection, count)
    else:
        _in_flight(connection, count, flight)
        metrics = {"requests/s": count / (time.perf_counter() - start_s)}
    after = measure.usage(pid)
    connection.close()
    cpu_s = after.cpu_s - before.cpu_s
    return metrics | {"requests": count, "CPU us/request": cpu_s / count * 1e6}


def _one_at_a_time(connection: "Connection", count: int) -> Metrics:
    times_us: list[float] = []
    for _ in range(count):
        start_s = time.perf_counter()
        connection.send(1)
        connection.wait()
        times_us.append((time.perf_counter() - start_s) * 1e6)
    return small_loads.quantiles(times_us)


def _in_flight(connection: "Connection", count: int, flight: int) -> None:
    sent = done = 0
    while done < count:
        room = min(flight - (sent - done), count - sent)
        if room:
            connection.send(room)
            sent += room
        done += connection.wait()


class Connection:
    """A connection to a peer that sends the same request and counts answers by their ends."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._socket = socket.create_connection(("127.0.0.1", peer.port), ANSWER_S_MAX)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._ends = 0
        if peer.greeting:
            self._socket.sendall(peer.greeting)
            text = b""
            while b"MSG " not in text:  # INFO comes first, then what became of the stream
                text += self._socket.recv(RECEIVE_BYTES)
            while not text.endswith(b"}\r\n"):
                text += self._socket.recv(RECEIVE_BYTES)
            assert b'"error"' not in text, text

    def send(self, count: int) -> None:
        """Send so many requests at once."""
        self._socket.sendall(self._peer.request * count)

    def wait(self) -> int:
        """Wait for more, and return how many answers have come with it, one at least."""
        while True:
            piece = self._socket.recv(RECEIVE_BYTES)
            assert piece, f"{self._peer.name} closed the connection"
            assert b"-ERR" not in piece, piece
            end = self._peer.answer_end
            whole = self._rest + piece
            self._ends += whole.count(end)
            # What may be the beginning of an end is looked at again with what follows.
            cut = len(end) - 1
            self._rest = b"" if whole.endswith(end) else whole[-cut:]
            answers, self._ends = divmod(self._ends, self._peer.answer_ends)
            if answers:
                return answers

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


@contextlib.contextmanager
def installed() -> Iterator[tuple[list[Peer], list[str]]]:
    """Give the peers that are there, with a directory for their data until the block ends."""
    with tempfile.TemporaryDirectory(prefix="peers-") as directory:
        yield find(Path(directory))
