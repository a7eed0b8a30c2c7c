"""A member of a group in a process of its own, to be killed.

`python -m tests.conformance.clients.doomed CLIENT BOOTSTRAP TOPIC GROUP` joins with a short session
and prints a line once it has read a record; it commits nothing and stays in the group.
"""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import kafka
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer

from tests.conformance import brokers

SESSION_MS = 1_500 if brokers.environment_bootstrap() is None else 6_000
"""Shorter than brokers allow by default; ours are told (`group.min.session.timeout.ms`)."""
HEARTBEAT_MS = 400
READING = "reading"


@contextmanager
def doomed(client: str, bootstrap: str, topic: str, group: str) -> Iterator[None]:
    """Have a member of *group* that reads, inside of the block; at its end it is killed."""
    command = [sys.executable, "-m", __name__, client, bootstrap, topic, group]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == READING
            yield
        finally:
            process.kill()


def _librdkafka(bootstrap: str, topic: str, group: str) -> None:
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "session.timeout.ms": SESSION_MS,
        "heartbeat.interval.ms": HEARTBEAT_MS,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    while True:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            print(READING, flush=True)


def _kafka_python(bootstrap: str, topic: str, group: str) -> None:
    consumer = kafka.KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=HEARTBEAT_MS,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    while True:
        if consumer.poll(100, max_records=1):
            print(READING, flush=True)


def _aiokafka(bootstrap: str, topic: str, group: str) -> None:
    async def read() -> None:
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        while True:
            if await consumer.getmany(timeout_ms=100, max_records=1):
                print(READING, flush=True)

    asyncio.run(read())


_READ: dict[str, Callable[[str, str, str], None]] = {
    "confluent-kafka": _librdkafka,
    "kafka-python": _kafka_python,
    "aiokafka": _aiokafka,
}


def main() -> None:
    """Be a member until killed."""
    client, *rest = sys.argv[1:]
    _READ[client](*rest)


if __name__ == "__main__":
    main()
