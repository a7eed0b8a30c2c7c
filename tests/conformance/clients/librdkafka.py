"""confluent-kafka, which is librdkafka: most of the world's clients that are not Java."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import (
    OFFSET_END,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    ElectionType,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from tests.conformance.clients.base import (
    TIMEOUT_S,
    Change,
    ClientError,
    Place,
    Producing,
    Received,
    Sent,
    Where,
)
from tests.conformance.probe import Address


class Librdkafka:
    """See Client."""

    name = "confluent-kafka"

    def __init__(self, bootstrap: Address) -> None:
        self._common: dict[str, Any] = {"bootstrap.servers": str(bootstrap)}
        # Kept: librdkafka drops what it was asked when its handle is collected.
        self._admin = AdminClient(self._common)

    def create_topic(self, topic: str, partitions: int, configs: dict[str, str]) -> None:
        new = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=configs)
        with _errors():
            self._admin.create_topics([new])[topic].result(TIMEOUT_S)

    def delete_topic(self, topic: str) -> None:
        with _errors():
            self._admin.delete_topics([topic])[topic].result(TIMEOUT_S)

    def topics(self) -> set[str]:
        return set(self._admin.list_topics(timeout=TIMEOUT_S).topics)

    def partitions(self, topic: str) -> set[int]:
        return set(self._admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions)

    def configs(self, topic: str) -> dict[str, str]:
        return self.configs_of(Where(topic))

    def produce(self, topic: str, partition: int, records: list[Sent], how: Producing) -> list[int]:
        settings = {
            "acks": how.acks,
            "enable.idempotence": how.is_idempotent,
            "compression.type": how.codec,
            "message.max.bytes": how.request_bytes_max,
            "batch.size": how.batch_bytes,
            "linger.ms": 2,
        }
        producer = Producer(self._common | settings)
        offsets: list[int | None] = []
        errors: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                errors.append(error)
            else:
                offsets.append(message.offset())

        for sent in records:
            more: dict[str, Any] = {}
            if sent.timestamp_ms is not None:
                more["timestamp"] = sent.timestamp_ms
            with _errors():
                producer.produce(
                    topic,
                    value=sent.value,
                    key=sent.key,
                    partition=partition,
                    headers=list(sent.headers),
                    on_delivery=delivered,
                    **more,
                )
        left = producer.flush(TIMEOUT_S)
        if errors:
            raise ClientError(errors[0].code())
        assert left == 0, f"{left} records were not answered"
        return [-1 if offset is None else offset for offset in offsets]

    def consume(self, place: Place, count: int) -> list[Received]:
        received: list[Received] = []
        with self._consumer() as consumer:
            consumer.assign([TopicPartition(place.topic, place.partition, place.offset)])
            deadline_s = time.monotonic() + TIMEOUT_S
            while len(received) < count and time.monotonic() < deadline_s:
                for message in consumer.consume(count - len(received), timeout=0.5):
                    error = message.error()
                    if error is not None:
                        raise ClientError(error.code())
                    received.append(_received(message))
        return received

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        with self._consumer() as consumer, _errors():
            found = consumer.get_watermark_offsets(TopicPartition(topic, partition), TIMEOUT_S)
        assert found is not None
        return found

    def delete_records(self, topic: str, partition: int, before: int) -> int:
        asked = TopicPartition(topic, partition, OFFSET_END if before < 0 else before)
        with _errors():
            (future,) = self._admin.delete_records([asked]).values()
            return int(future.result(TIMEOUT_S).low_watermark)

    def add_partitions(self, topic: str, count: int) -> None:
        with _errors():
            self._admin.create_partitions([NewPartitions(topic, count)])[topic].result(TIMEOUT_S)

    def replace_configs(self, topic: str, configs: dict[str, str]) -> None:
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, set_config=configs)
        with _errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old programs call it all the same
            self._admin.alter_configs([resource])[resource].result(TIMEOUT_S)

    def alter_configs(self, where: Where, *changes: Change) -> None:
        entries = [
            ConfigEntry(
                each.name,
                each.value,
                incremental_operation=AlterConfigOpType[each.operation],
            )
            for each in changes
        ]
        resource = _resource(where, incremental_configs=entries)
        with _errors():
            self._admin.incremental_alter_configs([resource])[resource].result(TIMEOUT_S)

    def configs_of(self, where: Where) -> dict[str, str]:
        resource = _resource(where)
        with _errors():
            entries = self._admin.describe_configs([resource])[resource].result(TIMEOUT_S)
        return {name: entry.value for name, entry in entries.items()}

    def brokers(self) -> set[int]:
        return set(self._admin.list_topics(timeout=TIMEOUT_S).brokers)

    def elect(self, topic: str, partition: int) -> None:
        where = TopicPartition(topic, partition)
        with _errors():
            found = self._admin.elect_leaders(ElectionType.PREFERRED, [where]).result(TIMEOUT_S)
        error = found[where]
        if error is not None:
            raise ClientError(error.code())

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int | None:
        with self._consumer() as consumer, _errors():
            asked = TopicPartition(topic, partition, timestamp_ms)
            (found,) = consumer.offsets_for_times([asked], timeout=TIMEOUT_S)
        return found.offset if found.offset >= 0 else None

    def read_in_group(
        self, topic: str, group: str, members: int, count: int, protocol: str = "classic"
    ) -> list[Received]:
        settings = {
            "group.id": group,
            "group.protocol": protocol,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
        consumers = [Consumer(self._common | settings) for _ in range(members)]
        received: list[Received] = []
        try:
            for consumer in consumers:
                consumer.subscribe([topic])
            deadline_s = time.monotonic() + TIMEOUT_S
            while len(received) < count and time.monotonic() < deadline_s:
                for consumer in consumers:
                    message = consumer.poll(0.02)
                    if message is None or len(received) >= count:
                        continue
                    error = message.error()
                    if error is not None:
                        raise ClientError(error.code())
                    received.append(_received(message))
                    consumer.commit(message=message, asynchronous=False)
        finally:
            for consumer in consumers:
                consumer.close()
        return received

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        settings = {
            "group.id": "never-joined",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
        consumer = Consumer(self._common | settings)
        try:
            yield consumer
        finally:
            consumer.close()


def _resource(where: Where, **more: Any) -> ConfigResource:
    if where.topic:
        return ConfigResource(ConfigResource.Type.TOPIC, where.topic, **more)
    return ConfigResource(ConfigResource.Type.BROKER, where.broker, **more)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise ClientError(error.args[0].code()) from error


def _received(message: Message) -> Received:
    kind, timestamp_ms = message.timestamp()
    offset = message.offset()
    assert offset is not None
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Received(
        offset=offset,
        value=_bytes(message.value()),
        key=_bytes(message.key()),
        headers=tuple((name, _bytes(value)) for name, value in pairs),
        timestamp_ms=timestamp_ms,
        is_append_time=kind == TIMESTAMP_LOG_APPEND_TIME,
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    assert not isinstance(value, str)
    return value
