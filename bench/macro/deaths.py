"""How long is a partition without an acknowledgement when a node dies, hangs, or is cut off?

`python -m bench.macro.deaths [--client raw|librdkafka|java] [--kills 10] [--stops 0] [--cuts 0]`
starts three nodes of one core each on this machine and a topic of 300 partitions with three
replicas, has a client produce to all of them all the time (`gaps.py`, `gaps_librdkafka.py`,
`Gaps.java`; the latter two at their default settings), and kills with SIGKILL, stops with SIGSTOP,
or cuts off from everybody (then in a network of its own, with disks of memory) the node that leads
the most, again and again. `--broker kafka` does the same to three nodes of real Kafka. Printed for
each loss: the longest gap of any partition that the node led, of any that it did not lead, seconds
until every partition was led by a living node, and how many elections, terms and vote messages
that took. A gap that has not ended counts as long as it is. `--json FILE` keeps all of it;
`python -m bench.macro.all_deaths` makes `bench/results/GAPS.md` of such runs.
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
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import ElectionType, KafkaException, TopicPartition

from bench.macro.kafka_cluster import KafkaCluster, kafka_cluster
from corelane.model.record import record
from tests.conformance import tools
from tests.integration import network
from tests.integration.cluster import Cluster, cluster
from tests.integration.weather import FarCluster, far_cluster

TOPIC = "gaps"
NODES = (1, 2, 3)
SETTLE_S = 4.0
WATCH_S = 5.0
"""How long a loss is watched before the node is brought back; Kafka's longer."""
KAFKA_WATCH_S = 16.0
LED_S_MAX = 60.0
EVEN_S_MAX = 50.0
WHOLE_S_MAX = 120.0
JAVA = Path(__file__).parent / "Gaps.java"
READ_PAGE = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
COUNTERS = ("corelane_raft_elections_total", "corelane_raft_votes_sent_total")


@record
class Loss:
    """A node that was lost, and what its partitions and the others went through."""

    node: int
    kind: str
    at_s: float
    watched_s: float
    led: list[int]
    led_again_s: float
    counted: list[int]
    """Elections begun and vote messages sent by those that live."""
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


def pids(nodes: Cluster, number: int) -> list[int]:
    """Return the processes of a node."""
    if isinstance(nodes, KafkaCluster):
        return nodes.pids(number)
    return nodes.nodes[number].descendants()


def begin(nodes: Cluster, node: int, kind: str) -> list[int]:
    """Lose a node; return the processes that are to go on later."""
    processes = pids(nodes, node)
    if kind == "kill":
        nodes.kill(node)
        return []
    if kind == "cut":
        assert isinstance(nodes, FarCluster)
        nodes.net.isolate(node)
        return []
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    return processes


def end(nodes: Cluster, node: int, kind: str, stopped: list[int]) -> None:
    """Bring it back."""
    if kind == "cut":
        assert isinstance(nodes, FarCluster)
        nodes.net.heal()
    elif kind == "stop":
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    elif isinstance(nodes, KafkaCluster):
        nodes.begin(node)
    else:
        nodes.start(node).wait_ready(WHOLE_S_MAX)


def epochs_at(nodes: Cluster, number: int) -> dict[int, int]:
    """Return the leader epochs that a node knows, once it knows all."""
    deadline_s = time.monotonic() + LED_S_MAX
    while True:
        epochs = nodes.leader_epochs(TOPIC, number)
        if min(epochs.values()) >= 0 or time.monotonic() > deadline_s:
            return epochs
        time.sleep(0.2)


def lose(nodes: Cluster, kind: str) -> Loss:
    """Lose the node that leads the most, watch, and bring it back."""
    leaders = nodes.leaders(TOPIC)
    node = max(NODES, key=[*leaders.values()].count)
    led = [partition for partition, leader in leaders.items() if leader == node]
    assert len(led) >= len(leaders) // 3
    living = [each for each in NODES if each != node]
    witness = living[0]
    epochs = epochs_at(nodes, witness)
    before = [counters(nodes, each) for each in living]
    at_s = time.monotonic()
    stopped = begin(nodes, node, kind)
    try:
        led_again_s = led_again(nodes, node, witness, at_s)
        watch_s = KAFKA_WATCH_S if isinstance(nodes, KafkaCluster) else WATCH_S
        time.sleep(max(0.0, watch_s - led_again_s))
        watched_s = time.monotonic() - at_s
        later = epochs_at(nodes, witness)
        after = [counters(nodes, each) for each in living]
    finally:
        end(nodes, node, kind, stopped)
    terms = [later[partition] - epochs[partition] for partition in led]
    counted = [
        sum(row[at] for row in after) - sum(row[at] for row in before)
        for at in range(len(COUNTERS))
    ]
    return Loss(node, kind, at_s, watched_s, led, led_again_s, counted, terms)


def led_again(nodes: Cluster, node: int, witness: int, at_s: float) -> float:
    """Wait until others lead what a lost node led; return how long after the loss they do."""
    while {node, 0} & set(nodes.leaders_at(witness, TOPIC).values()):
        waited_s = time.monotonic() - at_s
        assert waited_s < LED_S_MAX, f"not every partition is led again {waited_s:.0f} s after it"
        time.sleep(0.02)
    return time.monotonic() - at_s


def counters(nodes: Cluster, number: int) -> list[int]:
    """Return what a node has counted; Kafka counts nothing like it."""
    if isinstance(nodes, KafkaCluster):
        return [0 for _ in COUNTERS]
    address = f"http://{nodes.host(number)}:{nodes.nodes[number].ports['admin']}/metrics"
    command = [*nodes.prefix(number), sys.executable, "-c", READ_PAGE, address]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [row.rsplit(None, 1) for row in page.splitlines() if row and row[0] != "#"]
    return [sum(int(float(row[1])) for row in rows if row[0].startswith(name)) for name in COUNTERS]


def wait_whole(nodes: Cluster) -> None:
    """Wait until every replica is in sync and, as far as it comes to that, all lead the same."""
    began_s = time.monotonic()
    while True:
        waited_s = time.monotonic() - began_s
        assert waited_s < WHOLE_S_MAX, "replicas do not come back in sync"
        time.sleep(0.5)
        rows = nodes.admin().list_topics(TOPIC, timeout=30).topics[TOPIC].partitions
        scale = 1 if isinstance(nodes, KafkaCluster) else 1000
        led = [max(row.leader, 0) // scale for row in rows.values()]
        is_even = all(led.count(node) >= len(rows) // 3 for node in NODES)
        is_whole = all(len(row.isrs) == len(NODES) for row in rows.values()) and 0 not in led
        if is_whole and (is_even or waited_s > EVEN_S_MAX):
            return
        if is_whole:
            elect(nodes, len(rows))


def elect(nodes: Cluster, count: int) -> None:
    """Have the preferred replicas lead now; by themselves they would within a minute."""
    partitions = [TopicPartition(TOPIC, number) for number in range(count)]
    with contextlib.suppress(KafkaException):  # asked again, as long as they do not
        nodes.admin().elect_leaders(ElectionType.PREFERRED, partitions).result(timeout=30)


def gaps_of(lines: list[str], loss: Loss) -> tuple[float, float]:
    """Return the longest gap around a loss: of what the node led, and of what it did not."""
    longest = {True: 0.0, False: 0.0}
    for line in lines:
        word, *rest = line.split()
        if word != "gap":
            continue
        partition, began_s, gap_s = int(rest[0]), float(rest[1]), float(rest[2])
        if began_s <= loss.at_s + loss.watched_s and began_s + gap_s >= loss.at_s:
            is_led = partition in loss.led
            longest[is_led] = max(longest[is_led], gap_s)
    return longest[True], longest[False]


@contextlib.contextmanager
def started(options: argparse.Namespace, directory: Path) -> Iterator[Cluster]:
    """Run the nodes that are to be lost."""
    settings: dict[str, object] = {"corelane.cores": 1, "corelane.pin.cores": False}
    if options.broker == "kafka":
        with kafka_cluster(directory) as nodes:
            yield nodes
    elif options.cuts:
        with far_cluster(directory) as far:
            yield far
    else:
        with cluster(directory, settings=settings) as near:
            yield near


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """Run one client through all losses."""
    kinds = ["kill"] * options.kills + ["stop"] * options.stops + ["cut"] * options.cuts
    rows: list[dict[str, object]] = []
    with (
        tempfile.TemporaryDirectory(prefix="deaths-", ignore_cleanup_errors=True) as directory,
        started(options, Path(directory)) as nodes,
    ):
        nodes.create_topic(TOPIC, options.partitions)
        wait_whole(nodes)
        command = client_command(options.client, nodes, options.partitions, 36_000)
        output = Path(directory) / "gaps.txt"
        with output.open("wb") as file:
            client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file)
        try:
            for kind in kinds:
                wait_whole(nodes)
                time.sleep(SETTLE_S)
                loss = lose(nodes, kind)
                time.sleep(1)  # for the client to have told of the last gap
                assert client.poll() is None, "the client has died"
                led_s, other_s = gaps_of(output.read_text().splitlines(), loss)
                elections, votes = loss.counted
                row = {
                    "broker": options.broker, "client": options.client, "kind": kind,
                    "partitions": options.partitions, "node": loss.node, "led": len(loss.led),
                    "gap_led_s": led_s, "gap_others_s": other_s,
                    "led_again_s": round(loss.led_again_s, 3), "elections": elections,
                    "votes": votes, "terms_max": max(loss.terms),
                    "terms_p99": sorted(loss.terms)[len(loss.terms) * 99 // 100],
                }  # fmt: skip
                rows.append(row)
                print(json.dumps(row), flush=True)
                if options.json is not None:
                    options.json.write_text(json.dumps(rows, indent=1) + "\n")
        finally:
            client.kill()
            client.wait()
    return rows


def parser() -> argparse.ArgumentParser:
    """Return what the command line may say."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--broker", choices=["corelane", "kafka"], default="corelane")
    made.add_argument("--client", choices=["raw", "librdkafka", "java"], default="raw")
    made.add_argument("--partitions", type=int, default=300)
    made.add_argument("--kills", type=int, default=0)
    made.add_argument("--stops", type=int, default=0)
    made.add_argument("--cuts", type=int, default=0, help="alone: they need another network")
    made.add_argument("--json", type=Path)
    made.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return made


def main() -> int:
    """Run from the command line."""
    options = parser().parse_args()
    if options.cuts and not options.inside:
        own = [sys.executable, "-m", "bench.macro.deaths", "--inside", *sys.argv[1:]]
        return subprocess.run(network.command(own), check=False).returncode
    if not options.stops and not options.cuts:
        options.kills = options.kills or 10
    measure(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
