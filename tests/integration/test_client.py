"""Our client against a real broker: Corelane, or the one that CORELANE_BOOTSTRAP names.

librdkafka stands on the other side of every codec, so that two mistakes of ours cannot agree.
"""

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka
import pytest
import trio

from corelane_client import (
    Admin,
    AtTime,
    Consumer,
    Delivery,
    Edge,
    KafkaError,
    Message,
    NewTopic,
    Producer,
    ProducerSettings,
)
from corelane_client.settings import Codec
from tests.integration import broker as brokers

CODECS: list[Codec] = ["none", "gzip", "snappy", "lz4", "zstd"]


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    named = os.environ.get("CORELANE_BOOTSTRAP")
    if named:
        yield named
        return
    with brokers.started(tmp_path_factory.mktemp("client") / "data") as broker:
        yield broker.bootstrap


async def new_topic(bootstrap: str, partitions: int = 1, **configs: str) -> str:
    """Make a topic nobody else uses."""
    name = f"client-{uuid.uuid4().hex[:12]}"
    async with Admin(bootstrap) as admin:
        named = {key.replace("_", "."): value for key, value in configs.items()}
        await admin.create_topic(NewTopic(name, partitions, configs=named))
    return name


async def values(bootstrap: str, topic: str) -> list[bytes | None]:
    async with Consumer(bootstrap) as consumer:
        await consumer.assign(topic, stop=Edge.END)
        return [record.value async for record in consumer]


async def test_records_come_back_as_they_were_sent(bootstrap: str) -> None:
    topic = await new_topic(bootstrap, 3)
    async with Producer(bootstrap) as producer:
        sent = await producer.send(
            topic, b"value", b"key", partition=1, headers=(("h", b"\x00"), ("n", None))
        )
        tombstone = await producer.send(topic, None, b"key", partition=1)
    assert (sent.partition, sent.offset, tombstone.offset) == (1, 0, 1)
    async with Consumer(bootstrap) as consumer:
        await consumer.assign(topic, stop=Edge.END)
        first, second = [record async for record in consumer]
    assert (first.key, first.value, first.headers) == (
        b"key",
        b"value",
        (("h", b"\x00"), ("n", None)),
    )
    assert abs(first.timestamp_ms - time.time() * 1000) < 60_000
    assert (second.key, second.value, second.headers) == (b"key", None, ())


@pytest.mark.parametrize("codec", CODECS)
async def test_librdkafka_reads_what_we_write(bootstrap: str, codec: Codec) -> None:
    topic = await new_topic(bootstrap)
    expected = [b"%05d" % number * 10 for number in range(2000)]
    async with Producer(bootstrap, ProducerSettings(compression=codec)) as producer:
        for value in expected:
            await producer.enqueue(Message(topic, value))
    assert brokers.read_all(bootstrap, topic) == expected


@pytest.mark.parametrize("codec", CODECS)
async def test_we_read_what_librdkafka_writes(bootstrap: str, codec: Codec) -> None:
    topic = await new_topic(bootstrap)
    expected = [b"%05d" % number * 10 for number in range(2000)]
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 20}
    )
    for value in expected:
        producer.produce(topic, value, partition=0)
    assert producer.flush(20) == 0
    assert await values(bootstrap, topic) == expected


async def test_a_key_goes_where_librdkafkas_murmur2_sends_it(bootstrap: str) -> None:
    topic = await new_topic(bootstrap, 7)
    placed: dict[bytes, int | None] = {}

    def note(_error: object, message: confluent_kafka.Message) -> None:
        key = message.key()
        assert isinstance(key, bytes)
        placed[key] = message.partition()

    theirs = confluent_kafka.Producer(
        {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"}
    )
    keys = [os.urandom(length) for length in range(1, 40)]
    for key in keys:
        theirs.produce(topic, b"v", key, on_delivery=note)
    assert theirs.flush(20) == 0
    async with Producer(bootstrap) as ours:
        for key in keys:
            assert (await ours.send(topic, b"v", key)).partition == placed[key]


@pytest.mark.parametrize("acks", ["all", "1", "0"])
async def test_every_acks_is_served(bootstrap: str, acks: str) -> None:
    topic = await new_topic(bootstrap)
    settings = ProducerSettings(acks="all" if acks == "all" else "1" if acks == "1" else "0")
    async with Producer(bootstrap, settings) as producer:
        deliveries = [await producer.send(topic, b"%d" % number) for number in range(3)]
    expected = [-1, -1, -1] if acks == "0" else [0, 1, 2]
    assert [each.offset for each in deliveries] == expected
    with trio.fail_after(30):  # nobody tells when acks=0 has arrived, so wait for the third
        async with Consumer(bootstrap) as consumer:
            await consumer.assign(topic, stop=3)
            assert [record.value async for record in consumer] == [b"0", b"1", b"2"]


async def test_many_partitions_many_records(bootstrap: str) -> None:
    topic = await new_topic(bootstrap, 16)
    outcomes: list[object] = []
    async with Producer(bootstrap, ProducerSettings(linger_ms=1)) as producer:
        for number in range(20_000):
            await producer.enqueue(
                Message(topic, b"%d" % number, partition=number % 16), outcomes.append
            )
    assert len(outcomes) == 20_000
    assert all(isinstance(outcome, Delivery) for outcome in outcomes)
    async with Consumer(bootstrap) as consumer:
        await consumer.assign(topic, stop=Edge.END)
        read: dict[int, list[int]] = {}
        async for record in consumer:
            assert record.value is not None
            read.setdefault(record.partition, []).append(int(record.value))
    assert read == {partition: [*range(partition, 20_000, 16)] for partition in range(16)}


async def test_a_consumer_starts_at_offsets_ends_and_times(bootstrap: str) -> None:
    topic = await new_topic(bootstrap)
    async with Producer(bootstrap) as producer:
        for number in range(10):
            await producer.enqueue(
                Message(topic, b"%d" % number, timestamp_ms=1_700_000_000_000 + number)
            )
    async with Consumer(bootstrap) as consumer:
        for start, first in ((Edge.BEGINNING, 0), (4, 4), (AtTime(1_700_000_000_007), 7)):
            await consumer.assign(topic, start=start, stop=Edge.END)
            assert [record.offset async for record in consumer] == [*range(first, 10)]
        await consumer.assign(topic, start=AtTime(1_800_000_000_000), stop=Edge.END)
        assert [record async for record in consumer] == []


async def test_a_waiting_consumer_gets_records_as_they_come(bootstrap: str) -> None:
    topic = await new_topic(bootstrap)
    async with Consumer(bootstrap) as consumer, Producer(bootstrap) as producer:
        await consumer.assign(topic)
        for number in range(5):
            await producer.send(topic, b"%d" % number)
            with trio.fail_after(30):
                assert (await anext(consumer)).value == b"%d" % number


async def test_what_the_broker_refuses_is_heard(bootstrap: str) -> None:
    topic = await new_topic(bootstrap, max_message_bytes="1000")
    async with Producer(bootstrap) as producer:
        with pytest.raises(KafkaError) as caught:
            await producer.send(topic, os.urandom(2000))
        assert caught.value.name == "MESSAGE_TOO_LARGE"
        assert (await producer.send(topic, b"small")).offset == 0
        with pytest.raises(KafkaError, match="none of number 1"):
            await producer.send(topic, b"x", partition=1)
        with pytest.raises(KafkaError) as caught:
            await producer.send("no-such-topic", b"x")
        assert caught.value.name == "UNKNOWN_TOPIC_OR_PARTITION"


async def test_a_large_batch_is_split_for_a_small_topic(bootstrap: str) -> None:
    topic = await new_topic(bootstrap, max_message_bytes="2000")
    expected = [os.urandom(100) for _ in range(100)]
    async with Producer(bootstrap, ProducerSettings(linger_ms=100)) as producer:
        for value in expected:
            await producer.enqueue(Message(topic, value))
    assert await values(bootstrap, topic) == expected


async def test_topics_are_administered(bootstrap: str) -> None:
    name = await new_topic(bootstrap, 2, retention_ms="123456")
    async with Admin(bootstrap) as admin:
        assert name in [topic.name for topic in await admin.list_topics()]
        assert len((await admin.describe_topic(name)).partitions) == 2
        configs = {each.name: each for each in await admin.describe_topic_configs(name)}
        assert (configs["retention.ms"].value, configs["retention.ms"].source) == (
            "123456",
            "topic",
        )
        assert configs["cleanup.policy"].source == "default"
        with pytest.raises(KafkaError) as caught:
            await admin.create_topic(NewTopic(name))
        assert caught.value.name == "TOPIC_ALREADY_EXISTS"
        assert await admin.create_topic(NewTopic(name + "x"), validate_only=True) is None
        await admin.delete_topic(name)
        with pytest.raises(KafkaError):
            await admin.describe_topic(name)
        cluster = await admin.describe_cluster()
        assert cluster.controller in {broker.broker_id for broker in cluster.brokers}
        (broker, *_) = cluster.brokers
        assert await admin.describe_broker_configs(broker.broker_id)


async def test_an_idempotent_producer_lives_through_kills_of_the_core(tmp_path: Path) -> None:
    """Each record is there once and in order, though answers were lost with the core."""
    with brokers.started(tmp_path / "data") as broker:
        topic = await new_topic(broker.bootstrap)
        expected = [b"%05d" % number for number in range(3000)]
        async with Producer(broker.bootstrap, ProducerSettings(batch_bytes=500)) as producer:
            for number, value in enumerate(expected):
                if number % 1000 == 500:
                    await trio.to_thread.run_sync(broker.kill_core)
                await producer.enqueue(Message(topic, value))
        assert await values(broker.bootstrap, topic) == expected
