"""What many replicated partitions cost three nodes: to make, to keep, and to bring back.

`python -m bench.macro.scale [--counts 10 100 1000 4000]` starts three nodes of one core each on
this machine for each count, makes a topic of so many partitions with three replicas, writes a
record to each, lets it rest, kills all nodes at once and starts them again. Measured: seconds until
the last partition was writable, CPU of all processes at rest, what nodes send to each other then
(TCP segments with data, from `ss` of iproute2), and memory (PSS) per replica beyond what empty
nodes take. About four minutes; writes `results/WIDE.json` and the page beside it.
"""

import argparse
import json
import re
import subprocess
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from bench.macro import measure
from bench.macro.run import DISK, RESULTS
from tests.integration.cluster import Cluster, cluster

REST_S = 15
SETTLE_S = 5
WRITE_S_MAX = 180.0
TOPIC = "wide"
NODES = (1, 2, 3)
COUNTS = (10, 100, 1_000, 4_000)
COLUMNS = (
    ("partitions", "{:,.0f}"),
    ("s to make them and write to each", "{:.2f}"),
    ("messages a second between two nodes", "{:.0f}"),
    ("% of a core per node at rest", "{:.2f}"),
    ("the same without any", "{:.2f}"),
    ("KiB per idle replica", "{:.1f}"),
    ("s from the kill of all to the last written", "{:.2f}"),
)


def main() -> None:
    """Measure all counts, and write figures and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--output", type=Path, default=RESULTS / "WIDE.json")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": measure.machine(DISK), "rows": []}
    for count in options.counts:
        row = _measure(count)
        print(json.dumps(row), flush=True)
        result["rows"].append(row)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
        options.output.with_suffix(".md").write_text(_page(result, options.output.name))
    print(f"written: {options.output} and the page beside it")


def _measure(count: int) -> dict[str, float]:
    """Measure one count, once."""
    settings: dict[str, object] = {"corelane.cores": 1, "corelane.pin.cores": False}
    with (
        tempfile.TemporaryDirectory(prefix="scale-") as directory,
        cluster(Path(directory), settings=settings) as nodes,
    ):
        time.sleep(SETTLE_S)
        empty_bytes = _pss_bytes(nodes)
        empty_cpu, _ = _rest(nodes)
        began_s = time.monotonic()
        nodes.create_topic(TOPIC, count)
        _write_to_all(nodes, count)
        made_s = time.monotonic() - began_s
        time.sleep(SETTLE_S)
        cpu, segments = _rest(nodes)
        more_bytes = _pss_bytes(nodes) - empty_bytes
        for number in NODES:
            nodes.kill(number)
        began_s = time.monotonic()
        for number in NODES:
            nodes.start(number)
        for node in nodes.nodes.values():
            node.wait_ready(WRITE_S_MAX)
        _write_to_all(nodes, count)
        back_s = time.monotonic() - began_s
    figures = (count, made_s, segments, cpu, empty_cpu, more_bytes / count / 3 / 1024, back_s)
    return dict(zip([name for name, _ in COLUMNS], figures, strict=True))


def _page(result: dict[str, Any], source: str) -> str:
    made = (
        f"Made by `python -m bench.macro.scale` from `{source}`; never edited. Three nodes of one"
        " core each, and the client, share the CPUs of one machine. CPU is that of all processes"
        f" of a node, the supervisor's too, over {REST_S} seconds of rest; messages are TCP"
        " segments with data, both ways. Memory is PSS beyond that of nodes without partitions; of"
        " few partitions it says nothing, as what else grew is in it."
    )
    lines = ["# What many partitions cost three nodes", "", *textwrap.wrap(made, 100), ""]
    lines += [f"- {name}: {value}" for name, value in result["machine"].items()]
    lines += ["", f"| {' | '.join(name for name, _ in COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
    for row in result["rows"]:
        cells = [shape.format(row[name]) for name, shape in COLUMNS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


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


def _rest(nodes: Cluster) -> tuple[float, float]:
    """Return % of a core per node at rest, and segments a second between two nodes."""
    cpu_s, sent = _cpu_s(nodes), _segments(nodes)
    time.sleep(REST_S)
    cpu = (_cpu_s(nodes) - cpu_s) / REST_S / len(NODES)
    pairs = len(NODES) * (len(NODES) - 1) // 2
    return 100 * cpu, (_segments(nodes) - sent) / REST_S / pairs


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
