"""Real Apache Kafka as three nodes, each a broker and a voter of KRaft, to be killed like ours."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import KafkaException

from tests.conformance import tools
from tests.conformance.brokers import KAFKA_JVM
from tests.integration.cluster import Cluster
from tests.integration.ports import free_ports

COUNT = 3
READY_S_MAX = 90.0
HEAP = ("-Xmx512M", "-Xms512M", *KAFKA_JVM[2:])


class KafkaCluster(Cluster):
    """Three nodes at Kafka's default settings, with three replicas where topics do not say."""

    def __init__(self, directory: Path) -> None:
        ports = free_ports(2 * COUNT)  # asked for at once: the same ones would be free again
        self._voters = ports[COUNT:]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._java = [tools.java(), "-cp", f"{tools.kafka_libs()}/*"]
        super().__init__(directory, 0, {})
        self.ports = ports[:COUNT]
        self.peer_ports = self._voters
        storage = [*self._java, "kafka.tools.StorageTool"]
        made = subprocess.run([*storage, "random-uuid"], capture_output=True, check=True)
        cluster_id = made.stdout.decode().split()[-1]
        for number in range(1, COUNT + 1):
            properties = self._properties(number)
            formatting = [*storage, "format", "-t", cluster_id, "-c", str(properties)]
            subprocess.run(formatting, capture_output=True, check=True)
            self.begin(number)

    def begin(self, number: int) -> None:
        """Start a node, new or again."""
        java = [*self._java[:1], *HEAP, *self._java[1:]]
        with (self.directory / f"kafka-{number}.log").open("ab") as output:
            self._processes[number] = subprocess.Popen(
                [*java, "kafka.Kafka", str(self.directory / f"kafka-{number}.properties")],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def pids(self, number: int) -> list[int]:
        """Return the processes of a node."""
        return [self._processes[number].pid]

    def kill(self, number: int) -> None:
        os.kill(self._processes[number].pid, signal.SIGKILL)
        self._processes[number].wait()

    def wait_ready(self) -> None:
        """Wait until every node has registered itself."""
        deadline_s = time.monotonic() + READY_S_MAX
        while True:
            with contextlib.suppress(KafkaException):
                if len(self.admin().list_topics(timeout=5).brokers) == COUNT:
                    return
            assert time.monotonic() < deadline_s, "Kafka does not come up"
            time.sleep(0.2)

    def close(self) -> None:
        """Kill what is left."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()

    def leaders(self, topic: str) -> dict[int, int]:
        rows = self.admin().list_topics(topic, timeout=10).topics[topic].partitions
        return {number: max(row.leader, 0) for number, row in rows.items()}

    def leaders_at(self, number: int, topic: str) -> dict[int, int]:
        rows = self._metadata(number, topic)
        return {row.partition_index: max(row.leader_id, 0) for row in rows}

    def _properties(self, number: int) -> Path:
        port, own = self.ports[number - 1], self._voters[number - 1]
        voters = (f"{each}@127.0.0.1:{at}" for each, at in enumerate(self._voters, 1))
        chosen = {
            "process.roles": "broker,controller",
            "node.id": number,
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{own}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": ",".join(voters),
            "log.dirs": self.directory / f"kafka-{number}",
            "default.replication.factor": COUNT,
            "min.insync.replicas": 2,
        }
        properties = self.directory / f"kafka-{number}.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in chosen.items()))
        return properties


@contextlib.contextmanager
def kafka_cluster(directory: Path) -> Iterator[KafkaCluster]:
    """Run three nodes until the block ends."""
    made = KafkaCluster(directory)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()
        shutil.rmtree(directory, ignore_errors=True)
