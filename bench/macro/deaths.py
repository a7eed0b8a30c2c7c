"""How long is a partition without an acknowledgement when a node dies, or hangs?

`python -m bench.macro.deaths [--client raw|librdkafka|java] [--kills 10] [--stops 0]` starts three
nodes of one core each on this machine and a topic of 300 partitions with three replicas, has a
client produce to all of them all the time (`gaps.py`, `gaps_librdkafka.py`, `Gaps.java`; the latter
two at their default settings), and kills with SIGKILL, or stops with SIGSTOP, the node that leads
the most, again and again. Printed for each loss: the longest gap of any partition that the node
led, of any that it did not lead, seconds until every partition was led by a living node, and how
many elections that took. `--json FILE` keeps all of it; `bench/results/GAPS.md` has what was found.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from corelane.model.record import record
from tests.conformance import tools
from tests.integration.cluster import Cluster, cluster

TOPIC = "gaps"
NODES = (1, 2, 3)
SETTLE_S = 5.0
WATCH_S = 8.0
"""How long a loss is watched before the node is brought back."""
EVEN_S_MAX = 50.0
WHOLE_S_MAX = 90.0
JAVA = Path(__file__).parent / "Gaps.java"


@record
class Loss:
    """A node that was lost, and what its partitions and the others went through."""

    node: int
    kind: str
    at_s: float
    led: list[int]
    led_again_s: float
    elections: int
    terms: list[int]
    """How many terms each partition went through."""


def client_command(client: str, nodes: Cluster, partitions: int, seconds: float) -> list[str]:
    """Return how a client is started."""
    if client == "java":
        path = f"{tools.kafka_libs()}/*"
        arguments = [nodes.bootstrap, TOPIC, str(partitions), str(seconds)]
        return [tools.java(), "-Xmx512M", "-cp", path, str(JAVA), *arguments]
    module = "bench.macro.gaps" if client == "raw" else "bench.macro.gaps_librdkafka"
    options = ["--topic", TOPIC, "--partitions", str(partitions), "--seconds", str(seconds)]
    return [sys.executable, "-m", module, nodes.bootstrap, *options]


def lose(nodes: Cluster, kind: str) -> Loss:
    """Kill or stop the node that leads the most, watch, and bring it back."""
    leaders = nodes.leaders(TOPIC)
    node = max(NODES, key=[*leaders.values()].count)
    led = [partition for partition, leader in leaders.items() if leader == node]
    assert len(led) >= len(leaders) // 3
    living = [each for each in NODES if each != node]
    epochs = nodes.leader_epochs(TOPIC)
    before = sum(elections(nodes, each) for each in living)
    pids = nodes.nodes[node].descendants()
    at_s = time.monotonic()
    if kind == "kill":
        nodes.kill(node)
    else:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    bootstrap = living[0]
    while node in set(nodes.leaders_at(bootstrap, TOPIC).values()) | {0}:
        time.sleep(0.02)
    led_again_s = time.monotonic() - at_s
    time.sleep(max(0.0, WATCH_S - led_again_s))
    later = nodes.leader_epochs(TOPIC, bootstrap)
    terms = [later[partition] - epochs[partition] for partition in led]
    begun = sum(elections(nodes, each) for each in living) - before
    if kind == "kill":
        nodes.start(node).wait_ready(WHOLE_S_MAX)
    else:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    return Loss(node, kind, at_s, led, led_again_s, begun, terms)


def elections(nodes: Cluster, number: int) -> int:
    """Return how many elections a node has begun."""
    page = nodes.nodes[number].page("/metrics").decode()
    name = "corelane_raft_elections_total"
    return sum(int(float(row.split()[-1])) for row in page.splitlines() if row.startswith(name))


def wait_whole(nodes: Cluster) -> None:
    """Wait until every replica is in sync and, as far as it comes to that, all lead the same."""
    began_s = time.monotonic()
    while True:
        rows = nodes.admin().list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
        led = [max(row.leader, 0) // 1000 for row in rows.values()]
        is_even = all(led.count(node) >= len(rows) // 3 for node in NODES)
        is_whole = all(len(row.isrs) == len(NODES) for row in rows.values()) and 0 not in led
        waited_s = time.monotonic() - began_s
        if is_whole and (is_even or waited_s > EVEN_S_MAX):
            return
        assert waited_s < WHOLE_S_MAX, "replicas do not come back in sync"
        time.sleep(0.2)


def gaps_of(lines: list[str], loss: Loss) -> tuple[float, float]:
    """Return the longest gap around a loss: of what the node led, and of what it did not."""
    longest = {True: 0.0, False: 0.0}
    for line in lines:
        word, *rest = line.split()
        if word != "gap":
            continue
        partition, began_s, gap_s = int(rest[0]), float(rest[1]), float(rest[2])
        if began_s <= loss.at_s + WATCH_S and began_s + gap_s >= loss.at_s:
            is_led = partition in loss.led
            longest[is_led] = max(longest[is_led], gap_s)
    return longest[True], longest[False]


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """Run one client through all losses."""
    settings: dict[str, object] = {"corelane.cores": 1, "corelane.pin.cores": False}
    kinds = ["kill"] * options.kills + ["stop"] * options.stops
    rows: list[dict[str, object]] = []
    with (
        tempfile.TemporaryDirectory(prefix="deaths-") as directory,
        cluster(Path(directory), settings=settings) as nodes,
    ):
        nodes.create_topic(TOPIC, options.partitions)
        wait_whole(nodes)
        command = client_command(options.client, nodes, options.partitions, 36_000)
        output = Path(directory) / "gaps.txt"
        with output.open("wb") as file:
            client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file)
        try:
            time.sleep(SETTLE_S)
            for kind in kinds:
                wait_whole(nodes)
                time.sleep(SETTLE_S)
                loss = lose(nodes, kind)
                time.sleep(1)  # for the client to have told of the last gap
                assert client.poll() is None, "the client has died"
                led_s, other_s = gaps_of(output.read_text().splitlines(), loss)
                row = {
                    "client": options.client, "kind": kind, "node": loss.node,
                    "led": len(loss.led), "gap_led_s": led_s, "gap_others_s": other_s,
                    "led_again_s": round(loss.led_again_s, 3), "elections": loss.elections,
                    "terms_max": max(loss.terms),
                    "terms_p99": sorted(loss.terms)[len(loss.terms) * 99 // 100],
                }  # fmt: skip
                rows.append(row)
                print(json.dumps(row), flush=True)
        finally:
            client.kill()
            client.wait()
    return rows


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", choices=["raw", "librdkafka", "java"], default="raw")
    parser.add_argument("--partitions", type=int, default=300)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--stops", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options)
    for kind in ("kill", "stop"):
        found = [row for row in rows if row["kind"] == kind]
        if found:
            worst = {
                name: max(float(str(row[name])) for row in found)
                for name in ("gap_led_s", "gap_others_s", "led_again_s", "terms_p99")
            }
            print(f"{options.client}, {len(found)} x {kind}, worst: {worst}")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
