"""kill -9 in the middle of producing, again and again: what was acknowledged is there.

Method: a plain producer (acks=1, one request in flight) and an idempotent one (acks=all, five in
flight), both stock librdkafka, number their records. Each round kills the core or the supervisor
while they produce; some cores are killed while they recover. At the end everything is flushed,
each partition is read from its start, and `history.faults` compares. `KILL_ROUNDS=100` in the
environment makes it the long run, `KILL_SEED` another one.
"""

import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration import broker as brokers
from tests.integration.broker import Broker, read_all
from tests.integration.history import faults
from tests.integration.numbered import IDEMPOTENT, PLAIN, NumberedProducer
from tests.integration.ports import free_ports
from tests.processes import wait_gone

ROUNDS = int(os.environ.get("KILL_ROUNDS", "7"))
PRODUCE_S = (0.2, 0.8)
BACK_S_MAX = 1.0


class Rounds:
    """The broker under test, and what killing it did."""

    def __init__(self, directory: Path) -> None:
        port, base, admin = free_ports(3)
        self.directory = directory
        self.settings: dict[str, object] = {
            "corelane.port": port,
            "corelane.core.port.base": base,
            "corelane.admin.port": admin,
        }
        self.back_s: list[float] = []
        self.broker = self.start()

    def start(self) -> Broker:
        broker = brokers.launch(self.directory, self.settings)
        broker.wait_ready()
        return broker

    def kill_core(self) -> None:
        """Kill the core and wait until its successor serves."""
        before = self.broker.core_pid()
        began_s = time.monotonic()
        os.kill(before, signal.SIGKILL)
        self.broker.core_pid(other_than=before)
        self.back_s.append(time.monotonic() - began_s)

    def kill_core_twice(self, delay_s: float) -> None:
        """Kill the core, and its successor a moment later, most likely while it recovers."""
        before = self.broker.core_pid()
        os.kill(before, signal.SIGKILL)
        while (after := self.broker.descendants()[2:]) in ([], [before]):
            time.sleep(0.001)
        time.sleep(delay_s)
        os.kill(after[-1], signal.SIGKILL)
        wait_gone([before, after[-1]], 5)
        self.broker.core_pid(other_than=after[-1])

    def kill_supervisor(self) -> None:
        """Kill the supervisor, see that nothing of it stays, and start another."""
        pids = self.broker.descendants()
        assert len(pids) == 3
        os.kill(self.broker.process.pid, signal.SIGKILL)
        self.broker.process.wait()
        wait_gone(pids, 5)
        (self.directory / "ports.json").unlink()
        self.broker = self.start()


@contextmanager
def rounds_on(directory: Path) -> Iterator[Rounds]:
    rounds = Rounds(directory)
    try:
        yield rounds
    finally:
        rounds.broker.kill()


@pytest.mark.parametrize("seed", [int(os.environ.get("KILL_SEED", "1"))])
def test_what_was_acknowledged_survives_every_kill(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with rounds_on(tmp_path / "data") as rounds:
        bootstrap = rounds.broker.bootstrap
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        topics = [NewTopic("plain", 1, 1), NewTopic("idempotent", 1, 1)]
        for future in admin.create_topics(topics).values():
            future.result(10)
        plain = NumberedProducer(bootstrap, "plain", PLAIN)
        idempotent = NumberedProducer(bootstrap, "idempotent", IDEMPOTENT)
        try:
            for number in range(ROUNDS):
                time.sleep(chance.uniform(*PRODUCE_S))
                match number % 4:
                    case 0:
                        rounds.kill_core()
                    case 2:
                        rounds.kill_core_twice(chance.uniform(0, 0.15))
                    case _:
                        rounds.kill_supervisor()
        finally:
            plain.finish()
            idempotent.finish()
        assert not plain.failures
        assert not idempotent.failures
        plain_log = [int(value) for value in read_all(bootstrap, "plain")]
        idempotent_log = [int(value) for value in read_all(bootstrap, "idempotent")]
        assert rounds.broker.stop() == 0
    assert len(plain.acknowledged) == plain.produced
    assert len(idempotent.acknowledged) == idempotent.produced
    assert not faults(plain.acknowledged, plain_log, is_idempotent=False)[:10]
    assert not faults(idempotent.acknowledged, idempotent_log, is_idempotent=True)[:10]
    # The median, since the machine that runs the tests may be busy with others.
    assert statistics.median(rounds.back_s) < BACK_S_MAX
    print(
        f"{ROUNDS} rounds: {plain.produced} plain ({len(plain_log)} in the log) and"
        f" {idempotent.produced} idempotent records; core back after"
        f" {statistics.median(rounds.back_s):.3f} s, at most {max(rounds.back_s):.3f} s"
    )


def test_the_checker_finds_what_is_lost_moved_reordered_and_doubled() -> None:
    right = {0: 0, 1: 1, 2: 2}
    assert not faults(right, [0, 1, 2], is_idempotent=True)
    assert not faults({0: 0, 2: 3}, [0, 1, 1, 2], is_idempotent=False)
    assert faults(right, [0, 1], is_idempotent=False)
    assert faults(right, [0, 2, 1], is_idempotent=False)
    assert faults({0: 0, 1: 1, 2: 3}, [0, 1, 1, 2], is_idempotent=True)
    assert faults({0: 1, 1: 0}, [1, 0], is_idempotent=False)
