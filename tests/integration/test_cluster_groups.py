"""Groups of stock consumers go on while the nodes that coordinate and lead them are killed."""

import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException

from tests.integration.cluster import cluster
from tests.integration.test_cluster import Sender

RECORDS = 300
PARTITIONS = 6
MEMBERS = 2
READ_S_MAX = 90.0


class Reader(threading.Thread):
    """A member of a group that commits what it has read."""

    def __init__(self, bootstrap: str, group: str, protocol: str) -> None:
        super().__init__(daemon=True)
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "group.protocol": protocol,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
        if protocol == "classic":
            settings["session.timeout.ms"] = 6_000
        self._settings = settings
        self.values: set[bytes] = set()
        self.is_over = threading.Event()
        self.fault: str | None = None

    def run(self) -> None:
        consumer = Consumer(self._settings)
        consumer.subscribe(["t"])
        while not self.is_over.is_set():
            message = consumer.poll(0.1)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                if error.fatal():
                    self.fault = str(error)
                    break
                continue
            self.values.add(message.value() or b"")
            try:
                consumer.commit(message=message, asynchronous=False)
            except KafkaException:
                continue  # it is read again, by this member or another
        consumer.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_reads_on_while_its_coordinators_die(tmp_path: Path, protocol: str) -> None:
    settings: dict[str, object] = {"group.initial.rebalance.delay.ms": 0}
    with cluster(tmp_path, settings=settings) as nodes:
        nodes.create_topic("t", PARTITIONS)
        nodes.wait_led("t", {1, 2, 3})
        readers = [Reader(nodes.bootstrap, "g", protocol) for _ in range(MEMBERS)]
        for reader in readers:
            reader.start()
        sender = Sender(nodes.bootstrap)
        for number in (1, 2, 3):
            sender.send("t", RECORDS)
            nodes.kill(number)
            sender.send("t", RECORDS)
            nodes.wait_led("t", {1, 2, 3} - {number})
            nodes.start(number).wait_ready()
        sender.finish()
        assert not sender.errors
        wanted = set(sender.acknowledged)
        deadline_s = time.monotonic() + READ_S_MAX
        while time.monotonic() < deadline_s:
            if wanted <= set().union(*(reader.values for reader in readers)):
                break
            time.sleep(0.2)
        for reader in readers:
            reader.is_over.set()
        for reader in readers:
            reader.join(30)
        assert [reader.fault for reader in readers] == [None] * MEMBERS
        missing = wanted - set().union(*(reader.values for reader in readers))
        assert not missing, f"{len(missing)} of {len(wanted)} were never read"
