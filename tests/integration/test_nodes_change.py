"""Real nodes are drained, added, emptied and taken out under the load of a stock producer.

Nothing is lost, doubled, or refused by the client's default settings.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corelane_cli import exits
from tests.integration.cluster import Cluster, cluster
from tests.integration.ports import free_ports
from tests.integration.test_cli import Shell
from tests.integration.test_cluster import Sender, read_all

PARTITIONS = 6
WAIT_S = 60.0


@contextmanager
def load(nodes: Cluster, topic: str) -> Iterator[Sender]:
    """Send records all the while, at a modest pace; settle them at the end."""
    sender, is_over = Sender(nodes.bootstrap), threading.Event()

    def send() -> None:
        while not is_over.wait(0.02):
            sender.send(topic, 20)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sender
    finally:
        is_over.set()
        thread.join()
        sender.finish()


def shell(nodes: Cluster, number: int) -> Shell:
    """Return the command line of an operator who asks one node."""
    made = Shell(nodes.bootstrap)
    made.environment["CORELANE_ADMIN"] = f"127.0.0.1:{nodes.nodes[number].ports['admin']}"
    return made


def command(nodes: Cluster, *words: str, through: int = 1) -> dict[str, Any]:
    """Run a command that must work, at once or when the controller has a leader again."""
    deadline_s = time.monotonic() + 20
    while True:
        done = shell(nodes, through).run(*words, "--format", "json")
        is_over = time.monotonic() > deadline_s
        if done.returncode != exits.REFUSED or b"has no leader yet" not in done.stderr or is_over:
            break
    assert done.returncode == exits.OK, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(nodes: Cluster, sender: Sender) -> None:
    """Everything that was acknowledged is there, once, and nothing was refused."""
    assert not sender.errors
    assert sender.acknowledged
    found = read_all(nodes.bootstrap, "t", PARTITIONS)
    assert sorted(found) == sorted(sender.acknowledged)


def test_a_drain_and_a_rolling_restart_are_not_noticed(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        nodes.create_topic("t", PARTITIONS)
        nodes.wait_led("t", {1, 2, 3})
        with load(nodes, "t") as sender:
            for number in (1, 2, 3):
                other = number % 3 + 1
                if number == 1:
                    done = command(nodes, "cluster", "drain", str(number), through=other)
                    assert done["left"] == 0
                    assert number not in nodes.leaders("t").values()
                    assert number in drained(nodes, other)
                nodes.nodes[number].stop()
                if number != 1:
                    assert "handed over what it led" in nodes.nodes[number].log_text()
                nodes.start(number).wait_ready()
        check(nodes, sender)


def drained(nodes: Cluster, through: int) -> list[int]:
    """Return the nodes of which `cluster info` says that they lead nothing."""
    rows = command(nodes, "cluster", "info", through=through)["nodes"]
    return [row["node"] for row in rows if row["drained"]]


def test_a_cluster_grows_moves_and_shrinks_while_nodes_are_killed(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        nodes.create_topic("t", PARTITIONS)
        nodes.wait_led("t", {1, 2, 3})
        peer, port, core = free_ports(3)
        nodes.peer_ports.append(peer)
        nodes.ports = [*nodes.ports[:3], port, *nodes.ports[3:], core]
        nodes.start(4).wait_ready()
        with load(nodes, "t") as sender:
            for number in range(3):
                words = (str(number), "4000,2000,3000", "--no-wait")
                command(nodes, "cluster", "reassign", "t", *words)
            nodes.kill(2)
            time.sleep(1)
            nodes.start(2).wait_ready()
            wait_moved(nodes)
            moved = nodes.partitions("t")
            assert [sorted(moved[number].replicas) for number in range(3)] == [
                [2000, 3000, 4000]
            ] * 3
            done = command(nodes, "cluster", "decommission", "1", through=2)
            assert done["done"]
            nodes.nodes[1].stop()
        rows = nodes.partitions("t").values()
        assert {broker for row in rows for broker in row.replicas} == {2000, 3000, 4000}
        check(nodes, sender)


def wait_moved(nodes: Cluster) -> None:
    """Wait until nothing is being reassigned any more."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        rows = command(nodes, "cluster", "reassignments", through=3)["reassignments"]
        if not rows:
            return
        assert time.monotonic() < deadline_s, rows
        time.sleep(0.2)


def test_a_node_with_an_empty_disk_comes_back_when_the_operator_says_so(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        nodes.create_topic("t", PARTITIONS)
        nodes.wait_led("t", {1, 2, 3})
        with load(nodes, "t") as sender:
            nodes.kill(3)
            lost = nodes.directory / "node-3"
            lost.rename(nodes.directory / "gone")
            waiting = nodes.start(3)
            waiting.wait_for_line("corelane cluster replace-disk 3")
            command(nodes, "cluster", "replace-disk", "3", "--yes")
            waiting.wait_ready()
            deadline_s = time.monotonic() + WAIT_S
            while not in_sync_everywhere(nodes):
                assert time.monotonic() < deadline_s, "node 3 does not catch up"
                time.sleep(0.2)
        check(nodes, sender)


def in_sync_everywhere(nodes: Cluster) -> bool:
    """Say whether node 3 has everything again."""
    rows = nodes.partitions("t").values()
    return all(3000 in row.isrs for row in rows)
