"""Three real nodes: they form a cluster, keep what they acknowledged, and replace a dead leader."""

import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from tests.integration.broker import launch
from tests.integration.cluster import Cluster, cluster, end_offset
from tests.integration.ports import free_ports

RECORDS = 2_000


class Sender:
    """A stock producer with its defaults and idempotence; counts what becomes of its records."""

    def __init__(self, bootstrap: str) -> None:
        self.acknowledged: list[bytes] = []
        self.errors: list[KafkaError] = []
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
        self._count = 0

    def send(self, topic: str, count: int, padding: int = 0) -> None:
        """Send so many records, spread over the partitions."""
        for _ in range(count):
            self._count += 1
            key = b"record %d" % self._count
            value = key.ljust(padding, b".")
            self._producer.produce(topic, value, key=key, on_delivery=self._delivered)
            self._producer.poll(0)

    def finish(self) -> None:
        """Wait until everything is settled."""
        assert self._producer.flush(60) == 0

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            value = message.value()
            assert value is not None
            self.acknowledged.append(value)
        else:
            self.errors.append(error)


def read_all(bootstrap: str, topic: str, partitions: int) -> list[bytes]:
    """Return the values of all records of a topic."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False}
    consumer = Consumer(settings)
    rows = [TopicPartition(topic, number, 0) for number in range(partitions)]
    ends = [end_offset(bootstrap, topic, number) for number in range(partitions)]
    consumer.assign(rows)
    values: list[bytes] = []
    while len(values) < sum(ends):  # asked for more than there is, it would wait out its time
        messages = consumer.consume(min(1_000, sum(ends) - len(values)), timeout=20)
        assert messages, f"nothing more comes at {len(values)} of {sum(ends)}"
        for message in messages:
            assert message.error() is None
            value = message.value()
            assert value is not None
            values.append(value)
    consumer.close()
    return values


def check_led_by_all(nodes: Cluster, topic: str) -> None:
    """Leaders are spread over all nodes, the preferred one of each partition."""
    leaders = nodes.wait_led(topic, {1, 2, 3})
    assert set(leaders.values()) == {1, 2, 3}


def test_a_dead_node_is_replaced_and_comes_home(tmp_path: Path) -> None:
    """Kill a node under load: no record is lost, doubled or refused."""
    with cluster(tmp_path) as nodes:
        nodes.create_topic("t", 6)
        check_led_by_all(nodes, "t")
        sender = Sender(nodes.bootstrap)
        sender.send("t", RECORDS)
        nodes.kill(1)
        sender.send("t", RECORDS)
        nodes.wait_led("t", {1, 2, 3} - {1})
        sender.send("t", RECORDS)
        sender.finish()
        nodes.start(1).wait_ready()
        assert not sender.errors
        assert sorted(read_all(nodes.bootstrap, "t", 6)) == sorted(sender.acknowledged)
        deadline_s = time.monotonic() + 60
        while set(nodes.leaders("t").values()) != {1, 2, 3}:
            assert time.monotonic() < deadline_s, "leaderships do not come home"
            time.sleep(0.2)


def test_all_nodes_die_and_come_back(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        nodes.create_topic("t", 3)
        sender = Sender(nodes.bootstrap)
        sender.send("t", RECORDS)
        sender.finish()
        for number in (1, 2, 3):
            nodes.kill(number)
        nodes.start(1)
        for number in (2, 3):  # a node that has peers needs no seeds any more
            nodes.start(number, **{"corelane.seeds": ""})
        nodes.wait_ready()
        nodes.wait_led("t", {1, 2, 3})
        sender.send("t", RECORDS)
        sender.finish()
        assert not sender.errors
        assert sorted(read_all(nodes.bootstrap, "t", 3)) == sorted(sender.acknowledged)


def test_a_lone_node_grows_to_three(tmp_path: Path) -> None:
    """What it has stays; topics made afterwards have replicas on all."""
    with cluster(tmp_path, 1) as nodes:
        nodes.create_topic("alone", 1, replicas=1)
        sender = Sender(nodes.bootstrap)
        sender.send("alone", RECORDS)
        sender.finish()
        more = free_ports(6)
        nodes.peer_ports += more[:2]
        nodes.ports = [nodes.ports[0], *more[2:4], nodes.ports[1], *more[4:]]
        for number in (2, 3):
            nodes.start(number).wait_ready()
        nodes.create_topic("t", 6)
        check_led_by_all(nodes, "t")
        sender.send("t", RECORDS)
        sender.finish()
        assert not sender.errors
        values = read_all(nodes.bootstrap, "alone", 1) + read_all(nodes.bootstrap, "t", 6)
        assert sorted(values) == sorted(sender.acknowledged)


def test_two_nodes_with_one_id_are_told_apart(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as nodes:
        (peer,) = free_ports(1)
        settings: dict[str, object] = {
            "node.id": 1,
            "corelane.port": 0,
            "corelane.peer.port": peer,
            "corelane.seeds": nodes.seeds,
        }
        twin = launch(tmp_path / "twin", settings)
        try:
            assert twin.process.wait(20) != 0
            assert "another node 1 answers on 127.0.0.1" in twin.log_text()
            assert "Give every node an id of its own" in twin.log_text()
            assert "Traceback" not in twin.log_text()
        finally:
            twin.kill()


def test_a_node_waits_for_its_seeds_and_says_so(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as nodes:
        other, late = free_ports(2)
        settings: dict[str, object] = {
            "node.id": 2,
            "corelane.port": 0,
            "corelane.peer.port": late,
            "corelane.seeds": f"127.0.0.1:{other},127.0.0.1:{late}",
        }
        waiting = launch(tmp_path / "node-2", settings)
        try:
            waiting.wait_for_line(f"waiting for a cluster to join: 127.0.0.1:{other}")
            waiting.kill()
            found = launch(tmp_path / "node-2", {**settings, "corelane.seeds": nodes.seeds})
            found.wait_ready()
            found.kill()
        finally:
            waiting.kill()
