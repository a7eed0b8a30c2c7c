"""A group of stock consumers goes from one protocol to the other and back, one member at a time.

Nobody stops for it: a producer writes all the while, every record is read, and at no time do two
members have one partition.

    MIGRATION_ROLLS=10 python -m pytest tests/integration/test_group_migration.py
"""

import os
import threading
import time

from confluent_kafka import Consumer, Producer, TopicPartition

from tests.conformance import brokers

ROLLS = int(os.environ.get("MIGRATION_ROLLS", "0"))
"""Rounds in which all members roll; by default one of them goes and comes back."""
MEMBERS = 2
PARTITIONS = 4
HEARTBEAT_MS = 100
WAIT_S = 30.0
SETTINGS: dict[str, object] = {
    "group.initial.rebalance.delay.ms": 0,
    "group.consumer.heartbeat.interval.ms": HEARTBEAT_MS,
}


class Owners:
    """Who has which partition, by what the consumers are told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[int, str] = {}
        self.faults: list[str] = []

    def assigned(self, name: str, partitions: list[TopicPartition]) -> None:
        with self._lock:
            for each in partitions:
                other = self._owners.setdefault(each.partition, name)
                if other != name:
                    self.faults.append(f"{each.partition} is with {other} and given to {name}")

    def revoked(self, name: str, partitions: list[TopicPartition]) -> None:
        with self._lock:
            for each in partitions:
                if self._owners.get(each.partition) == name:
                    del self._owners[each.partition]

    def names(self) -> set[str]:
        with self._lock:
            return set(self._owners.values()) if len(self._owners) == PARTITIONS else set()


class Reader(threading.Thread):
    """One member, that commits when it gives back and when it ends."""

    def __init__(self, name: str, bootstrap: str, owners: Owners, protocol: str) -> None:
        super().__init__(daemon=True)
        self.title = name
        self._owners = owners
        self._settings: dict[str, str | int] = {
            "bootstrap.servers": bootstrap,
            "group.id": "g",
            "group.protocol": protocol,
            "auto.offset.reset": "earliest",
        }
        if protocol == "classic":
            self._settings |= {"session.timeout.ms": 6_000, "heartbeat.interval.ms": HEARTBEAT_MS}
        self.values: set[bytes] = set()
        self.is_over = threading.Event()
        self.start()

    def run(self) -> None:
        consumer = Consumer(self._settings)
        consumer.subscribe(["t"], on_assign=self._assigned, on_revoke=self._revoked)
        while not self.is_over.is_set():
            message = consumer.poll(0.05)
            if message is not None and message.error() is None:
                self.values.add(message.value() or b"")
        consumer.close()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        del consumer
        self._owners.assigned(self.title, partitions)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        del consumer
        self._owners.revoked(self.title, partitions)


class Writer(threading.Thread):
    """Writes until it is told to end."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
        self.sent = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.005):
            partition = self.sent % PARTITIONS
            self._producer.produce("t", b"%d" % self.sent, partition=partition)
            self.sent += 1
            self._producer.poll(0)
        assert self._producer.flush(WAIT_S) == 0


def wait(condition: object, what: str) -> None:
    assert callable(condition)
    end_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end_s, what
        time.sleep(0.02)


def test_members_roll_to_the_other_protocol_and_back() -> None:
    with brokers.corelane(SETTINGS | {"num.partitions": PARTITIONS}) as running:
        bootstrap = str(running.bootstrap)
        writer = Writer(bootstrap)
        writer.start()
        wait(lambda: writer.sent > PARTITIONS, "nothing is written")
        owners, gone = Owners(), []
        readers = [Reader(f"classic {n}", bootstrap, owners, "classic") for n in range(MEMBERS)]
        wait(lambda: len(owners.names()) == MEMBERS, "the members share the topic")
        for roll in range(ROLLS or 1):
            for protocol in ("consumer", "classic"):
                for place in range(MEMBERS if ROLLS else 1):
                    old = readers[place]
                    old.is_over.set()
                    name = f"{protocol} {place} of roll {roll}"
                    readers[place] = Reader(name, bootstrap, owners, protocol)
                    old.join(WAIT_S)
                    gone.append(old)
                    wanted = {reader.title for reader in readers}
                    wait(lambda wanted=wanted: owners.names() == wanted, f"{name} has no share")
        writer.is_over.set()
        writer.join(WAIT_S)
        sent = {b"%d" % number for number in range(writer.sent)}
        everybody = [*gone, *readers]
        wait(
            lambda: sent <= set().union(*(each.values for each in everybody)),
            "some records were never read",
        )
        for reader in readers:
            reader.is_over.set()
        for reader in readers:
            reader.join(WAIT_S)
        assert not owners.faults
