"""Three real nodes in bad weather, with stock clients that produce and read all the time.

`python -m tests.integration.weather [--kinds partition,kill,...] [--rounds 1] [--hold 3]` makes a
network of its own (`network.py`), starts three nodes on file systems of memory, and for each round
does each kind of harm for *hold* seconds: `partition` (a node hears and is heard by nobody),
`one-way` (it is not heard), `deaf` (it hears nobody), `slow` (its link is), `kill` (-9, all
processes), `stop` (SIGSTOP), `full` (its disk has no room), `all-full` (no disk has). The last line
printed is JSON: what was sent, what went wrong (`histories.py`; nothing should have), and the
longest gap without an acknowledgement of each kind. Exit code 1: a promise was broken.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from confluent_kafka import (
    Consumer,
    KafkaError,
    Message,
    Producer,
    TopicPartition,
)

from corelane.model.record import record
from tests.integration import network
from tests.integration.cluster import Cluster, end_offset
from tests.integration.histories import Acknowledged, History, Sent, faults, longest_gap_s
from tests.integration.network import Network

TOPIC = "weather"
PARTITIONS = 6
NODES = (1, 2, 3)
DISK_BYTES = 256 << 20
EVERY_S = 0.01
FILLING = bytes(16_000)
"""So that logs need another file within seconds, and full disks are noticed."""
CALM_S = 1.5
FINISH_S_MAX = 90.0
SETTINGS: dict[str, object] = {
    "corelane.cores": 1,
    "corelane.pin.cores": False,
    "corelane.wal.file.bytes": 4 << 20,
    "corelane.checkpoint.bytes": 8 << 20,
}


class FarCluster(Cluster):
    """Nodes that live in namespaces of their own."""

    def __init__(self, directory: Path, net: Network) -> None:
        self.net = net
        for number in NODES:
            network.mount_memory(directory / f"node-{number}", DISK_BYTES)
        super().__init__(directory, len(NODES), SETTINGS)

    def host(self, number: int) -> str:
        return self.net.host(number)

    def prefix(self, number: int) -> list[str]:
        return self.net.prefix(number)


class Clients:
    """An idempotent producer and a reader, both stock; what they see becomes the history."""

    def __init__(self, bootstrap: str) -> None:
        self.history = History()
        self.failed: list[str] = []
        self._count = 0
        self._sent = [Sent("p", partition, []) for partition in range(PARTITIONS)]
        self.history.sent.extend(self._sent)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._bootstrap = bootstrap
        self._reader = self._read_from_start()
        self._read = self.history.reads["reader"] = []

    def go(self, seconds: float) -> None:
        """Produce and read for so long."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._send_one()
            self._poll(EVERY_S)

    def finish(self) -> None:
        """Settle everything, and read all there is with a new reader."""
        assert self._producer.flush(FINISH_S_MAX) == 0, "the producer does not come to an end"
        reader = self._read_from_start()
        deadline_s = time.monotonic() + FINISH_S_MAX
        for partition in range(PARTITIONS):
            self.history.final[partition] = [""] * end_offset(self._bootstrap, TOPIC, partition)
        missing = sum(len(log) for log in self.history.final.values())
        rows = self.history.reads["last reader"] = []
        while missing > 0:
            assert time.monotonic() < deadline_s, f"{missing} records cannot be read"
            before = len(rows)
            _take(reader, rows, 0.5)
            for (partition, offset), value in rows[before:]:
                self.history.final[partition][offset] = value
                missing -= 1
        reader.close()
        self._reader.close()

    def _send_one(self) -> None:
        self._count += 1
        sent = self._sent[self._count % PARTITIONS]
        value = f"p{self._count}"

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.failed.append(f"{value}: {error}")
                return
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            at_s = time.monotonic()
            self.history.acknowledged.append(Acknowledged(value, (partition, offset), at_s))

        with contextlib.suppress(BufferError):
            self._producer.produce(
                TOPIC, value.encode() + FILLING, partition=sent.partition, on_delivery=delivered
            )
            sent.values.append(value)

    def _poll(self, seconds: float) -> None:
        self._producer.poll(seconds)
        _take(self._reader, self._read, 0.0)

    def _read_from_start(self) -> Consumer:
        settings = {"bootstrap.servers": self._bootstrap, "group.id": "none", "log_level": 0}
        reader = Consumer({**settings, "enable.auto.commit": False})
        reader.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
        return reader


def _take(reader: Consumer, rows: list[tuple[tuple[int, int], str]], seconds: float) -> None:
    for message in reader.consume(500, seconds):
        partition, offset, value = message.partition(), message.offset(), message.value()
        if message.error() is None:
            assert partition is not None
            assert offset is not None
            assert value is not None
            rows.append(((partition, offset), value.removesuffix(FILLING).decode()))


@record
class Harm:
    """A kind of harm, to one node for a while."""

    begin: Callable[[FarCluster, int], None]
    end: Callable[[FarCluster, int], None]


def _signal(nodes: Cluster, number: int, what: signal.Signals) -> None:
    for pid in nodes.nodes[number].descendants():
        os.kill(pid, what)


def _fill(nodes: Cluster, number: int) -> None:
    """Leave no byte of a node's disk, whatever it frees meanwhile."""
    ballast = nodes.directory / f"node-{number}" / "ballast"
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 10))


def _empty(nodes: Cluster, number: int) -> None:
    (nodes.directory / f"node-{number}" / "ballast").unlink()


def _fill_all(nodes: Cluster, number: int) -> None:
    del number
    for each in NODES:
        _fill(nodes, each)


def _empty_all(nodes: Cluster, number: int) -> None:
    del number
    for each in NODES:
        _empty(nodes, each)


def _not_heard(nodes: FarCluster, number: int) -> None:
    for other in (network.CLIENTS, *NODES):
        if other != number:
            nodes.net.cut(number, other)


def _deaf(nodes: FarCluster, number: int) -> None:
    for other in (network.CLIENTS, *NODES):
        if other != number:
            nodes.net.cut(other, number)


def _heal(nodes: FarCluster, number: int) -> None:
    del number
    nodes.net.heal()


def _revive(nodes: FarCluster, number: int) -> None:
    nodes.start(number)


KINDS: dict[str, Harm] = {
    "partition": Harm(lambda nodes, number: nodes.net.isolate(number), _heal),
    "one-way": Harm(_not_heard, _heal),
    "deaf": Harm(_deaf, _heal),
    "slow": Harm(lambda nodes, number: print("slow:", nodes.net.slow(number)), _heal),
    "kill": Harm(lambda nodes, number: nodes.kill(number), _revive),
    "stop": Harm(
        lambda nodes, number: _signal(nodes, number, signal.SIGSTOP),
        lambda nodes, number: _signal(nodes, number, signal.SIGCONT),
    ),
    "full": Harm(_fill, _empty),
    "all-full": Harm(_fill_all, _empty_all),
}


@contextlib.contextmanager
def far_cluster(directory: Path) -> Iterator[FarCluster]:
    """Start three nodes in a network of their own; all of it is gone at the end."""
    net = Network(len(NODES))
    nodes = None
    try:
        nodes = FarCluster(directory, net)
        nodes.wait_ready()
        yield nodes
    finally:
        for node in nodes.nodes.values() if nodes is not None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(node.process.pid, signal.SIGCONT)
            node.kill()
        net.close()
        for number in NODES:
            network.unmount(directory / f"node-{number}")


def run(kinds: list[str], rounds: int, hold_s: float) -> dict[str, object]:
    """Do all kinds of harm; return what came of it."""
    gaps: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="weather-") as directory,
        far_cluster(Path(directory)) as nodes,
    ):
        nodes.create_topic(TOPIC, PARTITIONS)
        nodes.wait_led(TOPIC, set(NODES))
        clients = Clients(nodes.bootstrap)
        clients.go(CALM_S)
        for turn in range(rounds):
            for at, kind in enumerate(kinds):
                number = NODES[(turn + at) % len(NODES)]
                began_s = time.monotonic()
                KINDS[kind].begin(nodes, number)
                clients.go(hold_s)
                KINDS[kind].end(nodes, number)
                while not (nodes.nodes[number].directory / "ports.json").exists():
                    clients.go(CALM_S / 10)
                clients.go(CALM_S)
                clients.history.final.update({each: [] for each in range(PARTITIONS)})
                found = longest_gap_s(clients.history, began_s, time.monotonic())
                gaps[kind] = max(gaps.get(kind, 0.0), *found.values())
                print(f"{kind} of node {number}: longest gap {max(found.values()):.2f} s")
        clients.finish()
        for path in sorted(Path(directory).glob("*.log")):
            print(f"--- {path.name}\n{path.read_text()}")
    broken = faults(clients.history) + clients.failed
    return {
        "sent": sum(len(each.values) for each in clients.history.sent),
        "acknowledged": len(clients.history.acknowledged),
        "read": sum(len(rows) for rows in clients.history.reads.values()),
        "faults": broken[:20],
        "fault_count": len(broken),
        "gaps": {kind: round(gap_s, 2) for kind, gap_s in gaps.items()},
    }


def main() -> int:
    """Run from the command line, in namespaces of one's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--hold", type=float, default=3.0)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        own = [sys.executable, "-m", "tests.integration.weather", "--inside", *sys.argv[1:]]
        return subprocess.run(network.command(own), check=False).returncode
    result = run(options.kinds.split(","), options.rounds, options.hold)
    print(json.dumps(result))
    return 1 if result["fault_count"] else 0


if __name__ == "__main__":
    sys.exit(main())
