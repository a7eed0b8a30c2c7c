"""What a node that comes back costs the living, and how fast it catches up.

`python -m bench.macro.catchup [--down 60] [--turns 1]` starts three nodes of one core each on this
machine and a stock producer (acks=all) on a topic with three replicas. It measures what they take,
then goes on at half of that: for a while with all nodes, then with one killed, then while that one
is back and catches up. Printed: p99 from produce to acknowledgement in each part, and how much a
second the node fetched, beside what was produced. Where CPUs are shared with others the ratios of
one turn are worth more than its figures; the last line has their medians.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

from tests.integration.cluster import Cluster, cluster

TOPIC = "busy"
PARTITIONS = 12
RECORD = b"r" * 10_000
CAPACITY_S = 10.0
BEFORE_S = 15.0
TICK_S = 0.01
QUEUE_KIB = 32 * 1024
"""A default queue holds a gigabyte: a minute of work, in which its requests time out."""
CATCH_UP_S_MAX = 600.0
SETTINGS: dict[str, object] = {
    "corelane.cores": 1,
    "corelane.pin.cores": False,
    # Twelve partitions on three nodes: a disk of 40 GB is not filled, whatever the rate.
    "log.segment.bytes": 128 * 2**20,
    "log.retention.bytes": 640 * 2**20,
    "log.retention.check.interval.ms": 5_000,
}
BACK = 3
"""The node that is away for a while."""


class Load:
    """A producer at a rate of its own; remembers how long each record took."""

    def __init__(self, bootstrap: str) -> None:
        self.latencies_s: list[float] = []
        self.count = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "linger.ms": 1,
                "queue.buffering.max.kbytes": QUEUE_KIB,
            },
        )

    def _delivered(self, sent_s: float, error: KafkaError | None, message: Message) -> None:
        del message
        assert error is None, error
        self.latencies_s.append(time.monotonic() - sent_s)

    def send(self) -> None:
        """Send one record."""
        while True:
            try:
                self._producer.produce(
                    TOPIC, RECORD, on_delivery=partial(self._delivered, time.monotonic())
                )
            except BufferError:
                self._producer.poll(0.01)
                continue
            self.count += 1
            return

    def capacity(self) -> float:
        """Return how many records a second are acknowledged at most."""
        began_s = time.monotonic()
        while time.monotonic() < began_s + CAPACITY_S:
            self.send()
            self._producer.poll(0)
        self._producer.flush()
        rate = len(self.latencies_s) / (time.monotonic() - began_s)
        self.latencies_s = []
        return rate

    def run(self, rate: float, seconds: float) -> None:
        """Send at *rate* for so long."""
        began_s = time.monotonic()
        sent = 0
        while (now_s := time.monotonic()) < began_s + seconds:
            while sent < (now_s - began_s) * rate:
                self.send()
                sent += 1
            self._producer.poll(TICK_S)

    def take_p99_ms(self) -> float:
        """Return the 99th percentile of what was acknowledged since the last call."""
        self._producer.flush()
        found, self.latencies_s = sorted(self.latencies_s), []
        return 1_000 * found[len(found) * 99 // 100]


def is_in_sync(nodes: Cluster) -> bool:
    """Whether every partition has all its replicas in sync."""
    rows = nodes.admin().list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    return all(len(row.isrs) == len(row.replicas) for row in rows.values())


def turn(down_s: float) -> tuple[float, float]:
    """Return p99 while catching up to p99 before, and the rates of catching up and producing."""
    with (
        tempfile.TemporaryDirectory(prefix="catchup-") as directory,
        cluster(Path(directory), settings=SETTINGS) as nodes,
    ):
        nodes.create_topic(TOPIC, PARTITIONS)
        load = Load(nodes.bootstrap)
        rate = load.capacity() / 2
        mb_s = rate * len(RECORD) / 1e6
        print(f"half of what they take: {mb_s:.1f} MB/s")
        load.run(rate, BEFORE_S)
        before_ms = load.take_p99_ms()
        nodes.kill(BACK)
        away = load.count
        load.run(rate, down_s)
        away_ms = load.take_p99_ms()
        node = nodes.start(BACK)
        while not (node.directory / "ports.json").exists():  # it reads its log
            load.run(rate, 0.25)
        began_s = time.monotonic()
        while not is_in_sync(nodes):
            assert time.monotonic() < began_s + CATCH_UP_S_MAX, "it does not catch up"
            load.run(rate, 0.25)
        took_s = time.monotonic() - began_s
        during_ms = load.take_p99_ms()
        caught_mb_s = (load.count - away) * len(RECORD) / 1e6 / took_s
        print(f"p99 before {before_ms:.1f} ms, with one away {away_ms:.1f}, then {during_ms:.1f}")
        print(f"caught up in {took_s:.1f} s, {caught_mb_s:.1f} MB/s")
        return during_ms / before_ms, caught_mb_s / mb_s


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--down", type=float, default=60.0)
    parser.add_argument("--turns", type=int, default=1)
    options = parser.parse_args()
    found = [turn(options.down) for _ in range(options.turns)]
    slower = statistics.median(each[0] for each in found)
    faster = statistics.median(each[1] for each in found)
    print(f"p99 while catching up / before: {slower:.2f}; catch-up / produce: {faster:.2f}")


if __name__ == "__main__":
    main()
