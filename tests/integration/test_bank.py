"""A bank on three nodes that are killed: a debit and a credit stand or fall together.

Money moves between two partitions by transactions of stock producers (librdkafka: version 1). Each
writes one record to either partition, with the same number. Readers of committed records look all
the time. `BANK_ROUNDS=n` kills more often, and `BANK_KEEP=DIR` keeps the directories of the nodes
when it fails.
"""

import os
import random
import shutil
import threading
import time
import uuid
from pathlib import Path

import pytest
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from tests.integration.cluster import Cluster, cluster, end_offset

TOPIC = "money"
SIDES = (0, 1)
TELLERS = 3
STEP_S_MAX = 30.0
SETTLED_S_MAX = 60.0
TIMEOUT_MS = 10_000


class Bank:
    """What all tellers know of their transactions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self.committed: set[int] = set()
        self.aborted: set[int] = set()
        """Whose commit was never asked for, or whose abort was acknowledged."""
        self.told: dict[int, list[str]] = {}
        """What producers heard of each record: where it is, or why it is nowhere."""

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Take note of a delivery report."""
        where = f"{message.partition()} at {message.offset()}" if error is None else str(error)
        self.told.setdefault(int(message.value() or b""), []).append(where)

    def number(self) -> int:
        """Return the number of a new transaction."""
        with self._lock:
            self._count += 1
            return self._count


class Teller(threading.Thread):
    """A producer that is made anew whenever it must not go on."""

    def __init__(self, bootstrap: str, bank: Bank, name: str) -> None:
        super().__init__(daemon=True)
        self._settings = {
            "bootstrap.servers": bootstrap,
            "transactional.id": name,
            "transaction.timeout.ms": TIMEOUT_MS,
            "linger.ms": 1,
        }
        self._bank = bank
        self._dice = random.Random(name)
        self.is_over = threading.Event()
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.is_over.is_set():
                self._life()
        except BaseException as fault:
            self.fault = fault
            raise

    def _life(self) -> None:
        producer = Producer(self._settings)
        try:
            producer.init_transactions(STEP_S_MAX)
            while not self.is_over.is_set():
                self._transfer(producer)
        except KafkaException as fault:
            error: KafkaError = fault.args[0]
            is_known = error.fatal() or error.retriable() or error.txn_requires_abort()
            assert is_known, f"a stock client does not know what to do about {error}"
        finally:
            producer.purge()

    def _transfer(self, producer: Producer) -> None:
        bank, number = self._bank, self._bank.number()
        producer.begin_transaction()
        is_commit = self._dice.random() < 0.8
        if not is_commit:
            bank.aborted.add(number)
        for side in SIDES:
            producer.produce(
                TOPIC, value=b"%d" % number, partition=side, on_delivery=bank.delivered
            )
        try:
            if is_commit:
                producer.commit_transaction(STEP_S_MAX)
            else:
                producer.flush(self._dice.choice((0.0, 0.005, 1.0)))
                producer.abort_transaction(STEP_S_MAX)
        except KafkaException as fault:
            if not fault.args[0].txn_requires_abort():
                raise
            producer.abort_transaction(STEP_S_MAX)
            bank.aborted.add(number)
            return
        if is_commit:
            bank.committed.add(number)


class Auditor(threading.Thread):
    """Reads what is committed, from the beginning on."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        self._settings = {
            "bootstrap.servers": bootstrap,
            "group.id": f"auditor-{uuid.uuid4()}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
        self.seen: dict[int, list[int]] = {side: [] for side in SIDES}
        self.is_over = threading.Event()

    def run(self) -> None:
        consumer = Consumer(self._settings)
        consumer.assign([TopicPartition(TOPIC, side, 0) for side in SIDES])
        while not self.is_over.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                partition = message.partition()
                assert partition is not None
                self.seen[partition].append(int(message.value() or b""))
        consumer.close()


def _check(bank: Bank, auditor: Auditor) -> None:
    """Look at any time: what is read may be incomplete, and never wrong."""
    for side in SIDES:
        seen = [*auditor.seen[side]]
        assert len(seen) == len(set(seen)), f"partition {side} has a transaction twice"
        wrong = set(seen) & bank.aborted
        assert not wrong, f"partition {side} shows {sorted(wrong)}, which were aborted"


def _settled(bank: Bank, auditor: Auditor, nodes: Cluster) -> None:
    """Wait until both partitions show the same, all that was acknowledged, and nothing is open."""
    deadline_s = time.monotonic() + SETTLED_S_MAX
    while True:
        debits, credits_ = (set(auditor.seen[side]) for side in SIDES)
        if (
            debits == credits_
            and bank.committed <= debits
            and all(stable == last for stable, last in _ends(nodes))
        ):
            return
        assert time.monotonic() < deadline_s, (
            f"{len(debits ^ credits_)} transactions are half there,"
            f" {len(bank.committed - debits)} acknowledged ones are not read,"
            f" or a partition is blocked: {_ends(nodes)}\n"
            f"{_evidence(bank, debits ^ credits_, nodes)}"
        )
        time.sleep(0.2)


def _evidence(bank: Bank, half: set[int], nodes: Cluster) -> str:
    """Say of transactions that are half there who sees them, where, and what became of them."""
    lines = []
    for level in ("read_committed", "read_uncommitted"):
        for side in SIDES:
            found = _places(nodes, side, level)
            lines += [f"{number}: {level} {side} at {found.get(number)}" for number in half]
    for number in half:
        fate = "committed" if number in bank.committed else "not known to be committed"
        lines.append(f"{number}: {'aborted' if number in bank.aborted else fate}")
        lines.append(f"{number}: its producer heard {bank.told.get(number)}")
    return "\n".join(sorted(lines))


def _places(nodes: Cluster, side: int, level: str) -> dict[int, list[int]]:
    """Return the offsets of each transaction's records, as a new reader finds them."""
    settings = {
        "bootstrap.servers": nodes.bootstrap,
        "group.id": f"evidence-{uuid.uuid4()}",
        "enable.auto.commit": False,
        "isolation.level": level,
        "enable.partition.eof": True,
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(TOPIC, side, 0)])
    found: dict[int, list[int]] = {}
    while (message := consumer.poll(STEP_S_MAX)) is not None and message.error() is None:
        offset = message.offset()
        assert offset is not None
        found.setdefault(int(message.value() or b""), []).append(offset)
    consumer.close()
    return found


def _ends(nodes: Cluster) -> list[tuple[int, int]]:
    """Return of each partition where readers of committed records and all others end."""
    found = []
    for level in ("read_committed", "read_uncommitted"):
        settings = {"isolation.level": level}
        found.append([end_offset(nodes.bootstrap, TOPIC, side, **settings) for side in SIDES])
    return [*zip(*found, strict=True)]


@pytest.mark.parametrize("seed", [int(os.environ.get("BANK_SEED", "1"))])
def test_money_is_neither_made_nor_lost(tmp_path: Path, seed: int) -> None:
    rounds = int(os.environ.get("BANK_ROUNDS", "1"))
    dice = random.Random(seed)
    settings: dict[str, object] = {
        "transaction.state.log.num.partitions": 6,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 200,
    }
    with cluster(tmp_path, settings=settings) as nodes:
        nodes.create_topic(TOPIC, len(SIDES))
        nodes.wait_led(TOPIC, {1, 2, 3})
        bank, auditor = Bank(), Auditor(nodes.bootstrap)
        auditor.start()
        tellers = [Teller(nodes.bootstrap, bank, f"teller-{at}") for at in range(TELLERS)]
        for teller in tellers:
            teller.start()
        _wait_for(bank, len(bank.committed) + 10)
        for _ in range(rounds):
            number = dice.choice((1, 2, 3))
            nodes.kill(number)
            nodes.wait_led(TOPIC, {1, 2, 3} - {number})
            _wait_for(bank, len(bank.committed) + 10)
            nodes.start(number).wait_ready()
            _check(bank, auditor)
        for teller in tellers:
            teller.is_over.set()
        for teller in tellers:
            teller.join(2 * STEP_S_MAX)
        assert [teller.fault for teller in tellers] == [None] * TELLERS
        try:
            _settled(bank, auditor, nodes)
        except AssertionError:
            if kept := os.environ.get("BANK_KEEP"):
                shutil.copytree(nodes.directory, Path(kept) / f"seed-{seed}")
            raise
        _check(bank, auditor)
        auditor.is_over.set()
        auditor.join(STEP_S_MAX)


def _wait_for(bank: Bank, count: int) -> None:
    """Wait until so many transactions are committed: the bank is open again."""
    deadline_s = time.monotonic() + SETTLED_S_MAX
    while len(bank.committed) < count:
        assert time.monotonic() < deadline_s, f"only {len(bank.committed)} of {count} committed"
        time.sleep(0.05)
