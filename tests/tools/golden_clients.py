"""What each client is made to do while tests/tools/record_golden.py listens."""

import asyncio
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import confluent_kafka
import kafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.conformance.clients.aio import Aiokafka
from tests.conformance.clients.base import Client, Place, Producing, Sent
from tests.conformance.clients.kafka_python import KafkaPython
from tests.conformance.clients.librdkafka import Librdkafka
from tests.conformance.probe import parse_address
from tests.conformance.steps import kafka_tools
from tests.conformance.steps.step import output
from tests.conformance.tools import kcat

Step = Callable[[str, Callable[[], object]], None]
TIME_MS: Final = 1_700_000_000_000
RECORDS: Final = [
    Sent(b"value", b"key", (("header", b"x"),), TIME_MS),
    Sent(None, b"key", (), TIME_MS + 5),
    Sent(b"v" * 200, None, (), TIME_MS + 3),
]
CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")


def common(client: Client, name: str, step: Step) -> str:
    """Do what every client can; returns the topic."""
    topic = f"golden-{name}"
    step("create a topic of 2 partitions", lambda: client.create_topic(topic, 2, {}))
    step("list topics", client.topics)
    step("describe the topic", lambda: client.partitions(topic))
    for packed in CODECS:
        how = Producing(codec=packed)
        step(f"produce 3 records, {packed}", partial(client.produce, topic, 0, RECORDS, how))
    step("produce, acks=0", lambda: client.produce(topic, 1, RECORDS[:1], Producing(acks=0)))
    step(
        "produce, idempotent",
        lambda: client.produce(topic, 1, RECORDS, Producing(is_idempotent=True)),
    )
    step("consume from offset 0", lambda: client.consume(Place(topic, 0, 0), 6))
    step("offsets of both ends", lambda: client.bounds(topic, 0))
    step("offset of a time", lambda: client.offset_at(topic, 0, TIME_MS + 4))
    client.create_topic(topic + "-deleted", 1, {})
    step("delete a topic", lambda: client.delete_topic(topic + "-deleted"))
    return topic


def drive_librdkafka(bootstrap: str, step: Step) -> None:
    """Drive confluent-kafka."""
    topic = common(Librdkafka(parse_address(bootstrap)), "confluent", step)
    client = Librdkafka(parse_address(bootstrap))
    step("describe the topic's configuration", lambda: client.configs(topic))

    def consume(commit: bool) -> confluent_kafka.Consumer:
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "golden-confluent",
                "auto.offset.reset": "earliest",
                "heartbeat.interval.ms": 200,
            }
        )
        consumer.subscribe([topic])
        assert len(consumer.consume(8, 20)) == 8
        if commit:
            consumer.commit(asynchronous=False)
        return consumer

    def group() -> None:
        consumer = consume(commit=True)
        consumer.poll(1)
        consumer.close()

    def transaction() -> None:
        consumer = consume(commit=False)
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": bootstrap, "transactional.id": "golden-confluent"}
        )
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(topic, b"in a transaction", partition=0)
        offsets = consumer.position(consumer.assignment())
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 20)
        producer.commit_transaction(20)
        consumer.close()

    step("consume in a group and commit", group)
    step("a transaction with offsets", transaction)


def drive_kafka_python(bootstrap: str, step: Step) -> None:
    """Drive kafka-python."""
    client = KafkaPython(parse_address(bootstrap))
    topic = common(client, "kafka-python", step)
    step("describe the topic's configuration", lambda: client.configs(topic))

    def group() -> None:
        consumer: Any = kafka.KafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id="golden-kafka-python",
            auto_offset_reset="earliest",
            heartbeat_interval_ms=200,
            consumer_timeout_ms=3000,
        )
        assert len(list(consumer)) >= 8
        consumer.commit()
        consumer.close()

    step("consume in a group and commit", group)


def drive_aiokafka(bootstrap: str, step: Step) -> None:
    """Drive aiokafka."""
    client = Aiokafka(parse_address(bootstrap))
    topic = common(client, "aiokafka", step)
    step("describe the topic's configuration", lambda: client.configs(topic))

    async def group() -> None:
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id="golden-aiokafka",
            auto_offset_reset="earliest",
            heartbeat_interval_ms=200,
        )
        async with consumer:
            for _ in range(8):
                await asyncio.wait_for(consumer.getone(), 20)
            await consumer.commit()
            await asyncio.sleep(1)

    async def transaction() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="golden-aiokafka")
        async with producer, producer.transaction():
            await producer.send_and_wait(topic, b"in a transaction", partition=0)
            offsets = {TopicPartition(topic, 0): 1}
            await producer.send_offsets_to_transaction(offsets, "golden-aiokafka")

    step("consume in a group and commit", lambda: asyncio.run(group()))
    step("a transaction with offsets", lambda: asyncio.run(transaction()))


def drive_java(bootstrap: str, step: Step) -> None:
    """Drive Kafka's own tools."""
    server = ("--bootstrap-server", bootstrap)
    topic = ("--topic", "golden-java")
    lines = "one\ntwo\nthree\n"
    group = ("--group", "golden-java")
    for command, main_class, arguments, stdin in (
        ("kafka-topics --create", kafka_tools.TOPICS, ("--create", *topic), ""),
        ("kafka-topics --describe", kafka_tools.TOPICS, ("--describe", *topic), ""),
        ("kafka-configs --describe", kafka_tools.CONFIGS, ("--describe", *topic), ""),
        ("kafka-console-producer", kafka_tools.CONSOLE_PRODUCER, topic, lines),
        (
            "kafka-console-consumer --group",
            kafka_tools.CONSOLE_CONSUMER,
            (*topic, *group, "--from-beginning", "--max-messages", "3"),
            "",
        ),
        (
            "kafka-consumer-groups --describe",
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            ("--describe", *group),
            "",
        ),
        ("kafka-get-offsets --time -1", kafka_tools.OFFSETS, (*topic, "--time", "-1"), ""),
        ("kafka-topics --delete", kafka_tools.TOPICS, ("--delete", *topic), ""),
    ):
        step(command, partial(kafka_tools.tool, main_class, *server, *arguments, stdin=stdin))


def drive_kcat(bootstrap: str, step: Step) -> None:
    """Drive kcat, which is an old librdkafka."""
    place = (kcat(), "-b", bootstrap, "-t", "golden-kcat", "-p", "0")
    step("kcat -P", lambda: output([*place, "-P", "-z", "lz4"], "one\ntwo\n"))
    step("kcat -C -e", lambda: output([*place, "-C", "-e", "-q"]))
    step("kcat -Q", lambda: output([kcat(), "-b", bootstrap, "-Q", "-t", "golden-kcat:0:-1"]))


CLIENTS: Final[dict[str, Callable[[str, Step], None]]] = {
    f"confluent-kafka {version('confluent-kafka')}": drive_librdkafka,
    f"kafka-python {version('kafka-python')}": drive_kafka_python,
    f"aiokafka {version('aiokafka')}": drive_aiokafka,
    "Kafka's Java tools 4.3.1": drive_java,
    "kcat 1.7.1": drive_kcat,
}
