"""Starts clusters of real nodes for tests: own directories, free ports, killed at the end."""

import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, PartitionMetadata

from corelane.wire.compiler import Message, message_type
from corelane.wire.frame import decode_response, encode_request
from tests.conformance.probe import read_exactly
from tests.integration.broker import Broker, launch
from tests.integration.ports import free_ports

READY_S_MAX = 30.0
METADATA = 3
METADATA_VERSION = 9


class Cluster:
    """Nodes by their numbers, from 1 on."""

    def __init__(self, directory: Path, node_count: int, settings: dict[str, object]) -> None:
        self.directory = directory
        self.settings = settings
        ports = free_ports(3 * node_count)
        self.peer_ports = ports[:node_count]
        self.ports = ports[node_count:]
        """Bootstrap ports, then those of core 0, in the order of the nodes."""
        self.nodes: dict[int, Broker] = {}
        self._admin: AdminClient | None = None
        for number in range(1, node_count + 1):
            self.start(number)

    def host(self, number: int) -> str:
        """Return the address of a node."""
        del number
        return "127.0.0.1"

    def prefix(self, number: int) -> list[str]:
        """Return the command that starts a program where a node is."""
        del number
        return []

    @property
    def seeds(self) -> str:
        """Return the peer ports of all nodes."""
        ports = enumerate(self.peer_ports, 1)
        return ",".join(f"{self.host(number)}:{port}" for number, port in ports)

    @property
    def bootstrap(self) -> str:
        """Return what clients call `bootstrap.servers`."""
        ports = enumerate(self.ports[: len(self.peer_ports)], 1)
        return ",".join(f"{self.host(number)}:{port}" for number, port in ports)

    def start(self, number: int, **settings: object) -> Broker:
        """Start a node, new or again, without waiting for it."""
        count = len(self.peer_ports)
        directory = self.directory / f"node-{number}"
        (directory / "ports.json").unlink(missing_ok=True)
        own: dict[str, object] = {
            "node.id": number,
            "corelane.port": self.ports[number - 1],
            "corelane.core.port.base": self.ports[count + number - 1],
            "corelane.admin.port": 0,
            "corelane.peer.port": self.peer_ports[number - 1],
            "corelane.seeds": self.seeds,
            "corelane.bind.host": self.host(number),
            "corelane.advertised.host": self.host(number),
        }
        whole = {**own, **self.settings, **settings}
        self.nodes[number] = launch(directory, whole, prefix=self.prefix(number))
        return self.nodes[number]

    def wait_ready(self) -> None:
        """Wait until every node serves."""
        for node in self.nodes.values():
            node.wait_ready()

    def wait_redundant(self) -> None:
        """Wait until as many nodes vote in the controller's group as are to.

        A moment after it was founded the cluster still rests on its first node.
        """
        count = min(3, len(self.nodes) - 1 + len(self.nodes) % 2)
        deadline_s = time.monotonic() + READY_S_MAX
        for node in self.nodes.values():
            while sum(row["voter"] for row in json.loads(node.page("/v1/nodes"))["nodes"]) < count:
                assert time.monotonic() < deadline_s, (
                    f"no {count} voters: {node.page('/v1/nodes')!r}"
                )
                time.sleep(0.05)

    def kill(self, number: int) -> None:
        """Kill all processes of a node at once, as the end of its machine would."""
        for pid in self.nodes[number].descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.nodes[number].process.wait()

    def admin(self) -> AdminClient:
        """Return a client for operators, which is to be kept while it works."""
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap})
        return self._admin

    def create_topic(self, name: str, partitions: int, replicas: int = 3) -> None:
        """Create a topic and wait until the cluster says it is there."""
        futures = self.admin().create_topics([NewTopic(name, partitions, replicas)])
        futures[name].result(timeout=30)

    def partitions(self, topic: str) -> dict[int, PartitionMetadata]:
        """Return what the cluster says of each partition, asked until a node answers."""
        deadline_s = time.monotonic() + READY_S_MAX
        while True:
            try:
                rows: dict[int, PartitionMetadata] = (
                    self.admin().list_topics(topic, timeout=10).topics[topic].partitions
                )
            except KafkaException:
                assert time.monotonic() < deadline_s, "no node tells of its topics"
                time.sleep(0.1)
            else:
                return rows

    def leaders(self, topic: str) -> dict[int, int]:
        """Return the node that leads each partition; 0: none."""
        return {
            number: max(row.leader, 0) // 1000 for number, row in self.partitions(topic).items()
        }

    def leaders_at(self, number: int, topic: str) -> dict[int, int]:
        """Return the same as one node sees it, which is not asked through a stock client."""
        rows = self._metadata(number, topic)
        return {row.partition_index: max(row.leader_id, 0) // 1000 for row in rows}

    def leader_epochs(self, topic: str, number: int = 1) -> dict[int, int]:
        """Return the leader epoch of each partition as a node sees it."""
        return {row.partition_index: row.leader_epoch for row in self._metadata(number, topic)}

    def _metadata(self, number: int, topic: str) -> list[Message]:
        wish = message_type("MetadataRequest.MetadataRequestTopic")(name=topic)
        request = message_type("MetadataRequest")(topics=[wish], allow_auto_topic_creation=False)
        frame = encode_request(METADATA, METADATA_VERSION, 1, "test", request)
        address = (self.host(number), self.ports[number - 1])
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(frame)
            (size,) = struct.unpack(">i", read_exactly(connection, 4))
            _, answer = decode_response(METADATA, METADATA_VERSION, read_exactly(connection, size))
        found: list[Message] = answer.topics[0].partitions
        return found

    def wait_led(self, topic: str, by: set[int]) -> dict[int, int]:
        """Wait until every partition is led by one of these nodes; return by which."""
        deadline_s = time.monotonic() + READY_S_MAX
        while True:
            leaders = self.leaders(topic)
            if set(leaders.values()) <= by:
                return leaders
            assert time.monotonic() < deadline_s, f"led by {leaders}, not by {by}"
            time.sleep(0.05)

    def wait_in_sync(self, topic: str) -> None:
        """Wait until every replica of every partition is in sync."""
        deadline_s = time.monotonic() + READY_S_MAX
        while True:
            rows = self.partitions(topic).values()
            behind = [row.id for row in rows if len(row.isrs) < len(row.replicas)]
            if not behind:
                return
            assert time.monotonic() < deadline_s, f"not in sync: {behind}"
            time.sleep(0.1)


@contextlib.contextmanager
def cluster(
    directory: Path, node_count: int = 3, settings: dict[str, object] | None = None
) -> Iterator[Cluster]:
    """Start a cluster and wait until it serves; whatever is left at the end is killed."""
    made = Cluster(directory, node_count, settings or {})
    try:
        made.wait_ready()
        made.wait_redundant()
        yield made
    finally:
        for node in made.nodes.values():
            node.kill()


def end_offset(bootstrap: str, topic: str, partition: int, **settings: str) -> int:
    """Return where a partition ends for a reader; leaderships may still be on their way home.

    A new client each time: it does not ask again for a leader that was not known.
    """
    deadline_s = time.monotonic() + READY_S_MAX
    own = {"bootstrap.servers": bootstrap, "group.id": "ends", "log_level": 0, **settings}
    while True:
        consumer = Consumer(own)
        try:
            row = TopicPartition(topic, partition)
            found: tuple[int, int] = consumer.get_watermark_offsets(row, timeout=10)
        except KafkaException:
            assert time.monotonic() < deadline_s, f"partition {partition} has no leader"
            time.sleep(0.1)
        else:
            return found[1]
        finally:
            consumer.close()
