"""What many replicated partitions cost three nodes: to make, to keep, and to bring back.

`python -m bench.macro.scale [--partitions 1000]` starts three nodes of one core each on this
machine, makes a topic with three replicas, writes a record to each partition, lets it rest, kills
all nodes at once and starts them again. Printed: seconds until the last partition was writable, CPU
of all processes at rest, what nodes send to each other then (TCP segments with data, from `ss` of
iproute2), and memory (PSS) per replica beyond what empty nodes take.
"""

import argparse
import re
import subprocess
import tempfile
import time
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

from bench.macro import measure
from tests.integration.cluster import Cluster, cluster

REST_S = 20
WRITE_S_MAX = 180.0
TOPIC = "wide"
NODES = (1, 2, 3)


def main() -> None:
    """Measure once, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=1_000)
    count = parser.parse_args().partitions
    settings: dict[str, object] = {"corelane.cores": 1, "corelane.pin.cores": False}
    with (
        tempfile.TemporaryDirectory(prefix="scale-") as directory,
        cluster(Path(directory), settings=settings) as nodes,
    ):
        empty_bytes = _pss_bytes(nodes)
        empty_cpu = _rest(nodes)
        began_s = time.monotonic()
        nodes.create_topic(TOPIC, count)
        _write_to_all(nodes, count)
        print(f"{count} partitions made and written: {time.monotonic() - began_s:.2f} s")
        time.sleep(5)
        cpu = _rest(nodes)
        print(f"CPU at rest, all processes: {cpu:.1%} of a CPU (empty: {empty_cpu:.1%})")
        before, pairs = _segments(nodes), len(NODES) * (len(NODES) - 1) // 2
        time.sleep(REST_S)
        sent = (_segments(nodes) - before) / REST_S / pairs
        print(f"segments a second between two nodes, both ways: {sent:.0f}")
        more_bytes = _pss_bytes(nodes) - empty_bytes
        print(f"memory per replica: {more_bytes / count / len(NODES) / 1024:.1f} KiB")
        for number in NODES:
            nodes.kill(number)
        began_s = time.monotonic()
        for number in NODES:
            nodes.start(number)
        nodes.wait_ready()
        print(f"all killed, ready again: {time.monotonic() - began_s:.2f} s")
        _write_to_all(nodes, count)
        print(f"all killed, the last partition writable: {time.monotonic() - began_s:.2f} s")


def _write_to_all(nodes: Cluster, count: int) -> None:
    """Write one record to each partition, with acks=all."""
    open_count = count

    def delivered(error: KafkaError | None, message: Message) -> None:
        nonlocal open_count
        del message
        assert error is None, error
        open_count -= 1

    producer = Producer({"bootstrap.servers": nodes.bootstrap, "linger.ms": 0})
    for partition in range(count):
        producer.produce(TOPIC, b"x", partition=partition, on_delivery=delivered)
    assert producer.flush(WRITE_S_MAX) == 0
    assert open_count == 0


def _pss_bytes(nodes: Cluster) -> int:
    return sum(measure.memory_bytes(node.process.pid) for node in nodes.nodes.values())


def _rest(nodes: Cluster) -> float:
    """Return the CPU time of all processes per second of rest."""
    before_s = _cpu_s(nodes)
    time.sleep(REST_S)
    return (_cpu_s(nodes) - before_s) / REST_S


def _segments(nodes: Cluster) -> int:
    """Return how many segments with data nodes have sent each other over their connections."""
    found = subprocess.run(
        ["ss", "--tcp", "--info", "--numeric", "--no-header", "--oneline"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    count = 0
    for line in found.stdout.splitlines():
        ports = {int(each) for each in re.findall(r":(\d+)\s", line)}
        segments = re.search(r"data_segs_out:(\d+)", line)
        if ports & set(nodes.peer_ports) and segments:
            count += int(segments[1])
    return count


def _cpu_s(nodes: Cluster) -> float:
    return sum(measure.usage(node.process.pid).cpu_s for node in nodes.nodes.values())


if __name__ == "__main__":
    main()
