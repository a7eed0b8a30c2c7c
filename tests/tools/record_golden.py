"""Make tests/golden: what clients and a real Apache Kafka 4.3.1 said to each other, byte for byte.

    python -m tests.tools.record_golden

starts Kafka (see tests/conformance/brokers.py), drives clients through a proxy that keeps whole
frames, then asks by itself for every version no client chose. One exchange is kept for each
client, API and version: the longest that is not too long. Java and kcat must be installed.
"""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from corelane.model.record import record
from corelane.wire.compiler import api_keys, codec, valid_versions
from corelane.wire.frame import encode_request
from tests.conformance import brokers
from tests.conformance.recorder import BROKER_HOST, RECORDED_HOST
from tests.tools import golden_clients, golden_questions

TARGET = Path(__file__).parents[1] / "golden"
BROKER = "Apache Kafka 4.3.1"
OURSELVES = "corelane.wire"
BROKER_ONLY = {"AddPartitionsToTxn": 4, "WriteTxnMarkers": 1}
"""Versions from which only Kafka itself asks: by its advertised address, so through the proxy."""

FRAME_BYTES_KEPT = 2500
ANSWER_S_MAX = 15
SETTINGS: dict[str, object] = {
    "advertised.host": RECORDED_HOST,
    "group.initial.rebalance.delay.ms": 0,
}

Key = tuple[int, int, str]
"""(API key, version, client)."""


@record
class Exchange:
    """A request frame and its answer, without length prefixes; no answer with acks=0."""

    command: str
    request: bytes
    response: bytes


class Tap:
    """A proxy that keeps, for each client, API and version, one exchange worth keeping."""

    def __init__(self, port: int) -> None:
        self.kept: dict[Key, Exchange] = {}
        self.client = self.command = ""
        self._port = port
        self._lock = threading.Lock()
        self._listener = socket.create_server((RECORDED_HOST, port))
        threading.Thread(target=self._accept, daemon=True).start()

    def keep(self, key: int, version: int, exchange: Exchange) -> None:
        """Keep an exchange if it is new or longer than the one there is."""
        name = api_keys().get(key)
        if name is None or version > valid_versions(f"{name}Request")[1]:
            return
        if version < valid_versions(f"{name}Request")[0]:
            return
        size = max(len(exchange.request), len(exchange.response))
        is_own = BROKER_ONLY.get(name, version + 1) <= version and self.client != OURSELVES
        with self._lock:
            where = (key, version, BROKER if is_own else self.client)
            before = self.kept.get(where)
            if before is None or (
                size <= FRAME_BYTES_KEPT
                and len(exchange.request) + len(exchange.response)
                > len(before.request) + len(before.response)
            ):
                self.kept[where] = exchange

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            broker = socket.create_connection((BROKER_HOST, self._port))
            waiting: dict[int, bytes] = {}
            for run in (self._requests, self._answers):
                arguments = (client, broker, waiting)
                threading.Thread(target=run, args=arguments, daemon=True).start()

    def _requests(
        self, client: socket.socket, broker: socket.socket, waiting: dict[int, bytes]
    ) -> None:
        with contextlib.suppress(OSError):
            for frame in frames(client):
                key, version, correlation = struct.unpack_from(">hhi", frame)
                if key == 0 and produce_acks(frame, version) == 0:
                    self.keep(key, version, Exchange(self.command, frame, b""))
                else:
                    waiting[correlation] = frame
                broker.sendall(struct.pack(">i", len(frame)) + frame)
        with contextlib.suppress(OSError):
            broker.shutdown(socket.SHUT_WR)

    def _answers(
        self, client: socket.socket, broker: socket.socket, waiting: dict[int, bytes]
    ) -> None:
        with contextlib.suppress(OSError):
            for frame in frames(broker):
                request = waiting.pop(struct.unpack_from(">i", frame)[0])
                key, version = struct.unpack_from(">hh", request)
                self.keep(key, version, Exchange(self.command, request, frame))
                client.sendall(struct.pack(">i", len(frame)) + frame)
        client.close()
        broker.close()


def produce_acks(frame: bytes, version: int) -> int:
    """Return the acks of a Produce request."""
    header = codec("RequestHeader", 2 if version >= 9 else 1)
    _, at = header.decode(frame)
    acks: int = codec("ProduceRequest", version).decode(frame, at)[0].acks
    return acks


def frames(source: socket.socket) -> Iterator[bytes]:
    """Yield what arrives, frame by frame."""
    reader = source.makefile("rb")
    while len(head := reader.read(4)) == 4:
        size = struct.unpack(">i", head)[0]
        yield reader.read(size)


def ask_the_rest(tap: Tap, port: int) -> None:
    """Ask for every API and version with requests of our own making, and keep the answers."""
    tap.client = OURSELVES
    for key, name in sorted(api_keys().items()):
        first, last = valid_versions(f"{name}Request")
        for version in range(first, last + 1):
            tap.command = f"golden_questions.question({name!r}, {version})"
            for message in golden_questions.question(name, version):
                frame = encode_request(key, version, 7, "golden", message)
                with contextlib.suppress(OSError), connected(port) as broker:
                    broker.sendall(frame)
                    for answer in frames(broker):
                        tap.keep(key, version, Exchange(tap.command, frame[4:], answer))
                        break


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """Connect to the broker itself."""
    with socket.create_connection((BROKER_HOST, port), ANSWER_S_MAX) as broker:
        yield broker


def write(kept: dict[Key, Exchange]) -> None:
    """Write one file an API: a line that says where it is from, then a line an exchange."""
    TARGET.mkdir(exist_ok=True)
    for old in TARGET.glob("*.jsonl"):
        old.unlink()
    for api_key, name in sorted(api_keys().items()):
        rows = [json.dumps({"api": name, "broker": BROKER, "made_by": "tests.tools.record_golden"})]
        for (key, version, client), exchange in sorted(kept.items()):
            if key == api_key:
                words = {
                    "version": version,
                    "client": client,
                    "command": exchange.command,
                    "request": exchange.request.hex(),
                    "response": exchange.response.hex(),
                }
                rows.append(json.dumps(words))
        if len(rows) > 1:
            (TARGET / f"{name}.jsonl").write_text("\n".join(rows) + "\n")


def main() -> None:
    """Record everything anew."""
    with brokers.kafka(SETTINGS) as running:
        tap = Tap(running.ports[0])
        for client, drive in golden_clients.CLIENTS.items():
            tap.client = client

            def step(command: str, run: Callable[[], object]) -> None:
                tap.command = command
                run()
                print(f"  {command}", flush=True)

            print(client, flush=True)
            drive(f"{RECORDED_HOST}:{running.ports[0]}", step)
        ask_the_rest(tap, running.ports[0])
    write(tap.kept)
    print(f"{len(tap.kept)} exchanges")


if __name__ == "__main__":
    main()
