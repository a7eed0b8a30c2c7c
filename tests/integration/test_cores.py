"""A broker of several cores from outside: deaths, stops, refusals and CPUs, with real data."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from corelane.runtime import failures
from tests.integration import broker as brokers
from tests.integration.broker import Broker
from tests.integration.ports import free_ports
from tests.processes import check_pipes, wait_gone

TOPIC = "spread"
PARTITIONS = 6
QUIET = {"log_level": 2}
THREE: dict[str, object] = {"corelane.cores": 3, "corelane.pin.cores": False}


def create(broker: Broker) -> dict[int, int]:
    """Make the topic; return the core that leads each partition."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, **QUIET})
    for done in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values():
        done.result(10)
    partitions = admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    return {number: row.leader % 1000 for number, row in partitions.items()}


class Writer:
    """Produces to every partition and counts what was acknowledged."""

    def __init__(self, broker: Broker) -> None:
        settings = {"bootstrap.servers": broker.bootstrap, "linger.ms": 0, **QUIET}
        self.producer = Producer({**settings, "enable.idempotence": True})
        self.acknowledged = [0] * PARTITIONS
        self.failures: list[object] = []

    def write(self, partitions: list[int], count: int = 20) -> None:
        for _ in range(count):
            for partition in partitions:
                self.producer.produce(TOPIC, b"x", partition=partition, on_delivery=self._delivered)
        assert self.producer.flush(20) == 0
        assert self.failures == []

    def _delivered(self, error: object, message: object) -> None:
        if error is not None:
            self.failures.append(error)
        else:
            self.acknowledged[message.partition()] += 1  # type: ignore[attr-defined]


def ends(broker: Broker) -> list[int]:
    """Return the end offset of every partition; one that moves has no leader for a moment."""
    found: list[int] = []
    deadline_s = time.monotonic() + 20
    while len(found) < PARTITIONS:
        settings = {"bootstrap.servers": broker.bootstrap, "group.id": "none", **QUIET}
        # A new one each time: it does not ask again for a leader that was not known.
        consumer = Consumer({**settings, "enable.auto.commit": False})
        try:
            partition = TopicPartition(TOPIC, len(found))
            found.append(consumer.get_watermark_offsets(partition, timeout=20)[1])
        except KafkaException:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        finally:
            consumer.close()
    return found


def core_pids(broker: Broker) -> list[int]:
    return [core["pid"] for core in broker.health()["cores"]]


def wait_up(broker: Broker) -> list[int]:
    """Wait until every core serves; return their processes."""
    deadline_s = time.monotonic() + 20
    while not all(core["state"] == "up" for core in broker.health()["cores"]):
        assert time.monotonic() < deadline_s, broker.log_text()
        time.sleep(0.01)
    return core_pids(broker)


def test_cores_die_and_come_back_while_the_others_serve(tmp_path: Path) -> None:
    with brokers.started(tmp_path / "data", THREE) as broker:
        led_by = create(broker)
        assert set(led_by.values()) == {0, 1, 2}
        writer = Writer(broker)
        writer.write([*led_by])
        for victim in (2, 0, 1):
            os.kill(core_pids(broker)[victim], signal.SIGKILL)
            writer.write([number for number, core in led_by.items() if core != victim])
            writer.write([*led_by])
            check_pipes(broker, wait_up(broker))
        assert ends(broker) == writer.acknowledged
        assert [core["restarts"] for core in broker.health()["cores"]] == [1, 1, 1]
        processes = broker.descendants()
        assert broker.stop() == 0, broker.log_text()
        wait_gone(processes, 5)
        assert "killing what is left" not in broker.log_text()
    with brokers.started(tmp_path / "data", THREE) as broker:
        assert ends(broker) == writer.acknowledged


def test_a_stopped_core_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    patch = "from corelane.runtime import cores\ncores.SILENT_S_MAX = 2.0\n"
    with brokers.started(tmp_path / "data", THREE, before=patch) as broker:
        led_by = create(broker)
        writer = Writer(broker)
        writer.write([*led_by])
        hung = core_pids(broker)[1]
        os.kill(hung, signal.SIGSTOP)
        writer.write([number for number, core in led_by.items() if core != 1])
        writer.write([*led_by])
        assert hung not in wait_up(broker)
        assert ends(broker) == writer.acknowledged


@pytest.mark.parametrize("victim", ["supervisor", "fork server"])
def test_no_core_outlives_its_node(tmp_path: Path, victim: str) -> None:
    with brokers.started(tmp_path / "data", THREE) as broker:
        create(broker)
        processes = broker.descendants()
        os.kill(processes[0 if victim == "supervisor" else 1], signal.SIGKILL)
        wait_gone(processes, 5)
    with brokers.started(tmp_path / "data", THREE) as broker:
        assert broker.health()["status"] == "ok"


def test_a_port_in_use_of_one_core_is_refused(tmp_path: Path) -> None:
    port, base, _, _ = free_ports(4)
    settings = {**THREE, "corelane.port": port, "corelane.core.port.base": base}
    with socket.create_server(("127.0.0.1", base + 1)):
        broker = brokers.launch(tmp_path / "data", settings)
        try:
            assert broker.wait(20) == failures.EXIT_PORT
        finally:
            broker.kill()
    assert (
        f"corelane: cannot listen on 127.0.0.1:{base + 1} for core 1: another program listens there"
        ".\nStop that program, or choose another port with --core-port-base."
    ) in broker.log_text()


def test_a_core_whose_cpu_is_taken_away_runs_on_any_other(tmp_path: Path) -> None:
    with brokers.started(tmp_path / "data") as broker:
        cpu = broker.health()["cores"][0]["cpu"]
        others = os.sched_getaffinity(0) - {cpu}
        assert others, "this test needs a second CPU"
        os.sched_setaffinity(broker.descendants()[1], others)
        killed = broker.kill_core()
        pid = broker.core_pid(other_than=killed)
        broker.wait_for_line(f"CPU {cpu} is not to be used any more: running on any that is left")
        assert os.sched_getaffinity(pid) == others
        assert broker.health()["cores"][0]["cpu"] == -1


def test_one_core_per_cpu_without_a_number(tmp_path: Path) -> None:
    with brokers.started(tmp_path / "data", {"corelane.cores": 0}) as broker:
        bound = [os.sched_getaffinity(pid) for pid in core_pids(broker)]
        assert sorted(cpu for cpus in bound for cpu in cpus) == sorted(os.sched_getaffinity(0))


def test_fewer_and_more_cores_than_last_time_keep_everything(tmp_path: Path) -> None:
    """The log of each core is on another device: that part of a retired one goes, too."""
    settings = {**THREE, "corelane.wal.dir": str(tmp_path / "fast")}
    with brokers.started(tmp_path / "data", settings) as broker:
        writer = Writer(broker)
        writer.write([*create(broker)])
        assert broker.stop() == 0
    for cores in (1, 4, 2):
        with brokers.started(tmp_path / "data", {**settings, "corelane.cores": cores}) as broker:
            wait_for_directories(broker, tmp_path, cores)
            assert ends(broker) == writer.acknowledged
            again = Writer(broker)
            again.write([*range(PARTITIONS)])
            for number, count in enumerate(again.acknowledged):
                writer.acknowledged[number] += count
            assert ends(broker) == writer.acknowledged
            assert broker.stop() == 0, broker.log_text()


def test_a_start_with_fewer_cores_that_is_killed_again_and_again_loses_nothing(
    tmp_path: Path,
) -> None:
    settings = {**THREE, "corelane.wal.dir": str(tmp_path / "fast")}
    with brokers.started(tmp_path / "data", settings) as broker:
        writer = Writer(broker)
        writer.write([*create(broker)])
    fewer = {**settings, "corelane.cores": 1}
    for number in range(8):
        with brokers.started(tmp_path / "data", fewer) as broker:
            time.sleep(0.015 * number)  # It hands over for a tenth of a second or two.
            broker.kill()
        if len(list((tmp_path / "data").glob("core-*"))) == 1:
            break
    with brokers.started(tmp_path / "data", fewer) as broker:
        wait_for_directories(broker, tmp_path, 1)
        assert ends(broker) == writer.acknowledged


def wait_for_directories(broker: Broker, root: Path, cores: int) -> None:
    """Wait until there is a directory for each core, with its log elsewhere, and no more."""
    expected = [f"core-{number:02d}" for number in range(cores)]
    deadline_s = time.monotonic() + 20
    while True:
        found = sorted(path.name for path in (root / "data").glob("*core-*"))
        logs = sorted(path.name for path in (root / "fast").glob("*/core-*"))
        if found == logs == expected:
            return
        assert time.monotonic() < deadline_s, f"{found} {logs}\n{broker.log_text()}"
        time.sleep(0.02)
