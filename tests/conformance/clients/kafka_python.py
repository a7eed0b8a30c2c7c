"""kafka-python: the pure Python client, whose record code is a second opinion on ours."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import kafka
from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import BrokerResponseError

from tests.conformance.clients.base import (
    TIMEOUT_S,
    Change,
    ClientError,
    Place,
    Producing,
    Received,
    Sent,
    Share,
    Where,
)
from tests.conformance.probe import Address

LOG_APPEND_TIME = 1
_CODE = re.compile(r"\[Error (\d+)\]")


class KafkaPython:
    """See Client."""

    name = "kafka-python"

    def __init__(self, bootstrap: Address) -> None:
        self._common: dict[str, Any] = {"bootstrap_servers": str(bootstrap)}

    def create_topic(self, topic: str, partitions: int, configs: dict[str, str]) -> None:
        new = NewTopic(topic, num_partitions=partitions, topic_configs=configs)
        with self._admin() as admin, _errors():
            admin.create_topics([new])

    def delete_topic(self, topic: str) -> None:
        with self._admin() as admin, _errors():
            admin.delete_topics([topic])

    def topics(self) -> set[str]:
        with self._admin() as admin:
            return set(admin.list_topics())

    def partitions(self, topic: str) -> set[int]:
        with self._consumer() as consumer:
            return set(consumer.partitions_for_topic(topic) or ())

    def configs(self, topic: str) -> dict[str, str]:
        return self.configs_of(Where(topic))

    def produce(self, topic: str, partition: int, records: list[Sent], how: Producing) -> list[int]:
        producer = kafka.KafkaProducer(
            **self._common,
            acks=how.acks,
            enable_idempotence=how.is_idempotent,
            compression_type=None if how.codec == "none" else how.codec,
            max_request_size=how.request_bytes_max,
            batch_size=how.batch_bytes,
            linger_ms=2,
        )
        try:
            with _errors():
                futures = [
                    producer.send(
                        topic,
                        value=sent.value,
                        key=sent.key,
                        headers=list(sent.headers),
                        partition=partition,
                        timestamp_ms=sent.timestamp_ms,
                    )
                    for sent in records
                ]
                answers = [future.get(TIMEOUT_S) for future in futures]
        finally:
            producer.close(TIMEOUT_S)
        return [answer.offset for answer in answers]

    def consume(self, place: Place, count: int) -> list[Received]:
        received: list[Received] = []
        partition = kafka.TopicPartition(place.topic, place.partition)
        with self._consumer() as consumer, _errors():
            consumer.assign([partition])
            consumer.seek(partition, place.offset)
            deadline_s = time.monotonic() + TIMEOUT_S
            while len(received) < count and time.monotonic() < deadline_s:
                records = consumer.poll(500, max_records=count - len(received))
                received += [_received(each) for each in records.get(partition, [])]
        return received

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        where = kafka.TopicPartition(topic, partition)
        with self._consumer() as consumer, _errors():
            earliest = consumer.beginning_offsets([where])[where]
            return earliest, consumer.end_offsets([where])[where]

    def delete_records(self, topic: str, partition: int, before: int) -> int:
        where = kafka.TopicPartition(topic, partition)
        with self._admin() as admin, _errors():
            return int(admin.delete_records({where: before})[where]["low_watermark"])

    def add_partitions(self, topic: str, count: int) -> None:
        with self._admin() as admin, _errors():
            admin.create_partitions({topic: count})

    def replace_configs(self, topic: str, configs: dict[str, str]) -> None:
        """See Client; this client names what else is set, so that it stays."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs)
        self._alter(resource, is_incremental=False)

    def alter_configs(self, where: Where, *changes: Change) -> None:
        configs = {each.name: (AlterConfigOp[each.operation], each.value) for each in changes}
        self._alter(_resource(where, configs), is_incremental=True)

    def _alter(self, resource: ConfigResource, *, is_incremental: bool) -> None:
        with self._admin() as admin, _errors():
            # Unknown names are the broker's to refuse.
            done = admin.alter_configs(
                [resource], raise_on_unknown=False, incremental=is_incremental
            )
        ((said,),) = (rows.values() for rows in done.values())
        if said != "OK":
            code = _CODE.search(said)
            assert code is not None, said
            raise ClientError(int(code[1]))

    def configs_of(self, where: Where) -> dict[str, str]:
        with self._admin() as admin, _errors():
            described = admin.describe_configs([_resource(where)], config_filter="all")
        ((rows,),) = (found.values() for found in described.values())
        return {name: row["value"] for name, row in rows.items()}

    def brokers(self) -> set[int]:
        with self._admin() as admin:
            return {row["broker_id"] for row in admin.describe_cluster()["brokers"]}

    def elect(self, topic: str, partition: int) -> None:
        with self._admin() as admin, _errors():
            done = admin.elect_leaders(0, {topic: [partition]}, raise_errors=False)
        (found,) = done.replica_election_results
        (row,) = found.partition_result
        if row.error_code:
            raise ClientError(row.error_code)

    def sizes(self, topic: str) -> list[tuple[int, int, int]]:
        """Return (broker, partition, bytes) of every replica of a topic, as all brokers tell."""
        with self._admin() as admin, _errors():
            told = admin.describe_log_dirs([topic])
        return sorted(
            (each["broker"], part["partition_index"], part["partition_size"])
            for each in told
            for directory in each["log_dirs"]
            for found in directory["topics"]
            if found["name"] == topic
            for part in found["partitions"]
        )

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int | None:
        where = kafka.TopicPartition(topic, partition)
        with self._consumer() as consumer, _errors():
            found = consumer.offsets_for_times({where: timestamp_ms})[where]
        return None if found is None else int(found.offset)

    def read_in_group(self, topic: str, group: str, members: int, count: int) -> list[Received]:
        with ThreadPoolExecutor(members) as pool:  # joining blocks this client
            share = Share(count)
            found = [pool.submit(self._member, topic, group, share) for _ in range(members)]
            return [each for future in found for each in future.result(2 * TIMEOUT_S)]

    def _member(self, topic: str, group: str, share: Share) -> list[Received]:
        received: list[Received] = []
        consumer = kafka.KafkaConsumer(
            topic,
            **self._common,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            with _errors():
                while share.is_open:
                    for where, messages in consumer.poll(100, max_records=5).items():
                        taken = messages[: share.take(len(messages))]
                        received += [_received(each) for each in taken]
                        if taken:
                            after = taken[-1].offset + 1
                            consumer.commit({where: kafka.OffsetAndMetadata(after, "", -1)})
        finally:
            consumer.close()
        return received

    @contextmanager
    def _admin(self) -> Iterator[Any]:
        admin = kafka.KafkaAdminClient(**self._common)
        try:
            yield admin
        finally:
            admin.close()

    @contextmanager
    def _consumer(self) -> Iterator[Any]:
        consumer = kafka.KafkaConsumer(
            **self._common,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=16 << 20,
        )
        try:
            yield consumer
        finally:
            consumer.close()


def _resource(where: Where, configs: dict[str, Any] | None = None) -> ConfigResource:
    if where.topic:
        return ConfigResource(ConfigResourceType.TOPIC, where.topic, configs)
    return ConfigResource(ConfigResourceType.BROKER, where.broker, configs)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except BrokerResponseError as error:
        raise ClientError(error.errno) from error


def _received(message: Any) -> Received:
    return Received(
        offset=message.offset,
        value=message.value,
        key=message.key,
        headers=tuple(message.headers),
        timestamp_ms=message.timestamp,
        is_append_time=message.timestamp_type == LOG_APPEND_TIME,
    )
