"""Three cores under load: one is killed, or a partition moved, again and again.

Method: plain and idempotent stock producers number their records, each on a topic of its own, so
that every core leads some. Each round kills a random core or has a random partition moved to a
random core, while they produce. At the end everything is flushed, each partition is read from its
start, and `history.faults` compares: nothing lost, of the idempotent ones nothing twice and nothing
out of order. `KILL_ROUNDS=100` in the environment makes it the long run, `KILL_SEED` another one.
"""

import http.client
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration import broker as brokers
from tests.integration.broker import Broker, read_all
from tests.integration.history import faults
from tests.integration.numbered import IDEMPOTENT, PLAIN, NumberedProducer

ROUNDS = int(os.environ.get("KILL_ROUNDS", "12"))
CORES = 3
SETTINGS: dict[str, object] = {"corelane.cores": CORES, "corelane.pin.cores": False}
TOPICS = {f"{kind}-{number}": kind for number in range(3) for kind in ("plain", "idempotent")}
PRODUCE_S = (0.2, 0.6)
UP_S_MAX = 30.0
MOVE_S_MAX = 30.0


def kill_core(broker: Broker, victim: int) -> None:
    """Kill a core and wait until its successor serves."""
    before = broker.health()["cores"][victim]["pid"]
    os.kill(before, signal.SIGKILL)
    deadline_s = time.monotonic() + UP_S_MAX
    while True:
        core = broker.health()["cores"][victim]
        if core["state"] == "up" and core["pid"] != before:
            return
        assert time.monotonic() < deadline_s, broker.log_text()
        time.sleep(0.005)


def move(broker: Broker, topic: str, core: int) -> None:
    """Have the partition of a topic moved; a core that has just come back may ask for patience."""
    body = json.dumps({"topic": topic, "partition": 0, "core": core})
    deadline_s = time.monotonic() + MOVE_S_MAX
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", broker.ports["admin"], MOVE_S_MAX)
        connection.request("POST", "/v1/move", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read().decode()
        connection.close()
        if answer.status == http.HTTPStatus.OK:
            return
        assert time.monotonic() < deadline_s, f"{said}\n{broker.log_text()}"
        time.sleep(0.05)


def leader_of(admin: AdminClient, topic: str) -> int:
    return admin.list_topics(topic, timeout=10).topics[topic].partitions[0].leader


@pytest.mark.parametrize("seed", [int(os.environ.get("KILL_SEED", "1"))])
def test_what_was_acknowledged_survives_deaths_and_moves_of_cores(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    with brokers.started(tmp_path / "data", SETTINGS) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        for future in admin.create_topics([NewTopic(name, 1, 1) for name in TOPICS]).values():
            future.result(10)
        assert {leader_of(admin, name) for name in TOPICS} == {1000, 1001, 1002}
        settings = {"plain": PLAIN, "idempotent": IDEMPOTENT}
        producers = {
            name: NumberedProducer(broker.bootstrap, name, settings[kind])
            for name, kind in TOPICS.items()
        }
        try:
            for number in range(ROUNDS):
                time.sleep(chance.uniform(*PRODUCE_S))
                if number % 2:
                    kill_core(broker, chance.randrange(CORES))
                else:
                    topic, core = chance.choice([*TOPICS]), chance.randrange(CORES)
                    move(broker, topic, core)
        finally:
            for producer in producers.values():
                producer.finish()
        for name, producer in producers.items():
            assert not producer.failures, name
            assert len(producer.acknowledged) == producer.produced
            log = [int(value) for value in read_all(broker.bootstrap, name)]
            # A plain librdkafka has one request in flight to each broker, not of each partition:
            # when the leader changes, the next may reach the new one before the last is sent again.
            is_safe = TOPICS[name] == "idempotent"
            found = faults(producer.acknowledged, log, is_idempotent=is_safe, is_ordered=is_safe)
            assert not found[:10], name
        assert broker.stop() == 0, broker.log_text()
