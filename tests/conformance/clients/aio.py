"""aiokafka: asyncio, its own old protocol versions, record batches by its own C code."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from tests.conformance.clients.base import (
    TIMEOUT_S,
    ClientError,
    Place,
    Producing,
    Received,
    Sent,
    Share,
)
from tests.conformance.probe import Address

LOG_APPEND_TIME = 1
T = TypeVar("T")


class Aiokafka:
    """See Client."""

    name = "aiokafka"

    def __init__(self, bootstrap: Address) -> None:
        self._common: dict[str, Any] = {"bootstrap_servers": str(bootstrap)}

    def create_topic(self, topic: str, partitions: int, configs: dict[str, str]) -> None:
        new = NewTopic(topic, partitions, 1, topic_configs=configs)

        async def create() -> None:
            async with self._admin() as admin:
                answer = await admin.create_topics([new])
            _raise_for(answer.topic_errors[0][1])

        _run(create())

    def delete_topic(self, topic: str) -> None:
        async def delete() -> None:
            async with self._admin() as admin:
                answer = await admin.delete_topics([topic])
            _raise_for(answer.topic_error_codes[0][1])

        _run(delete())

    def topics(self) -> set[str]:
        async def ask() -> set[str]:
            async with self._admin() as admin:
                return set(await admin.list_topics())

        return _run(ask())

    def partitions(self, topic: str) -> set[int]:
        async def ask() -> set[int]:
            async with self._admin() as admin:
                (described,) = await admin.describe_topics([topic])
            _raise_for(described["error_code"])
            return {row["partition"] for row in described["partitions"]}

        return _run(ask())

    def configs(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)

        async def ask() -> dict[str, str]:
            async with self._admin() as admin:
                (answer,) = await admin.describe_configs([resource])
            (row,) = answer.resources
            _raise_for(row[0])
            return {entry[0]: entry[1] for entry in row[4]}

        return _run(ask())

    def produce(self, topic: str, partition: int, records: list[Sent], how: Producing) -> list[int]:
        settings = {
            "acks": "all" if how.acks == -1 else how.acks,
            "enable_idempotence": how.is_idempotent,
            "compression_type": None if how.codec == "none" else how.codec,
            "max_request_size": how.request_bytes_max,
            "max_batch_size": how.batch_bytes,
            "linger_ms": 2,
        }

        async def send_all() -> list[int]:
            producer = AIOKafkaProducer(**self._common, **settings)
            await producer.start()
            try:
                answers = [
                    await producer.send(
                        topic,
                        value=sent.value,
                        key=sent.key,
                        headers=list(sent.headers),
                        partition=partition,
                        timestamp_ms=sent.timestamp_ms,
                    )
                    for sent in records
                ]
                done = await asyncio.wait_for(asyncio.gather(*answers), TIMEOUT_S)
            finally:
                await producer.stop()
            return [-1 if each is None else int(each.offset) for each in done]

        return _run(send_all())

    def consume(self, place: Place, count: int) -> list[Received]:
        partition = TopicPartition(place.topic, place.partition)

        async def read() -> list[Received]:
            received: list[Received] = []
            async with self._consumer() as consumer:
                consumer.assign([partition])
                consumer.seek(partition, place.offset)
                deadline_s = time.monotonic() + TIMEOUT_S
                while len(received) < count and time.monotonic() < deadline_s:
                    wanted = count - len(received)
                    records = await consumer.getmany(timeout_ms=500, max_records=wanted)
                    received += [_received(each) for each in records.get(partition, [])]
            return received

        return _run(read())

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        where = TopicPartition(topic, partition)

        async def ask() -> tuple[int, int]:
            async with self._consumer() as consumer:
                earliest = await consumer.beginning_offsets([where])
                latest = await consumer.end_offsets([where])
            return earliest[where], latest[where]

        return _run(ask())

    def delete_records(self, topic: str, partition: int, before: int) -> int:
        where = TopicPartition(topic, partition)

        async def delete() -> int:
            async with self._admin() as admin:
                return int((await admin.delete_records({where: RecordsToDelete(before)}))[where])

        return _run(delete())

    def add_partitions(self, topic: str, count: int) -> None:
        async def add() -> None:
            async with self._admin() as admin:
                await admin.create_partitions({topic: NewPartitions(count)})

        _run(add())

    def replace_configs(self, topic: str, configs: dict[str, str]) -> None:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs)

        async def replace() -> None:
            async with self._admin() as admin:
                (answer,) = await admin.alter_configs([resource])
            _raise_for(answer.resources[0][0])

        _run(replace())

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int | None:
        where = TopicPartition(topic, partition)

        async def ask() -> int | None:
            async with self._consumer() as consumer:
                found = (await consumer.offsets_for_times({where: timestamp_ms}))[where]
            return None if found is None else int(found.offset)

        return _run(ask())

    def read_in_group(self, topic: str, group: str, members: int, count: int) -> list[Received]:
        async def read() -> list[Received]:
            share = Share(count)
            reading = [self._member(topic, group, share) for _ in range(members)]
            found = await asyncio.wait_for(asyncio.gather(*reading), 2 * TIMEOUT_S)
            return [each for part in found for each in part]

        return _run(read())

    async def _member(self, topic: str, group: str, share: Share) -> list[Received]:
        received: list[Received] = []
        consumer = AIOKafkaConsumer(
            topic,
            **self._common,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            while share.is_open:
                found = await consumer.getmany(timeout_ms=100, max_records=5)
                for where, messages in found.items():
                    taken = messages[: share.take(len(messages))]
                    received += [_received(each) for each in taken]
                    if taken:
                        await consumer.commit({where: taken[-1].offset + 1})
        finally:
            await consumer.stop()
        return received

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        admin = AIOKafkaAdminClient(**self._common)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[Any]:
        consumer = AIOKafkaConsumer(
            **self._common,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=16 << 20,
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()


def _run(work: Coroutine[None, None, T]) -> T:
    with _errors():
        return asyncio.run(work)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise ClientError(error.errno) from error


def _raise_for(code: int) -> None:
    if code != 0:
        raise ClientError(code)


def _received(message: Any) -> Received:
    return Received(
        offset=message.offset,
        value=message.value,
        key=message.key,
        headers=tuple(message.headers),
        timestamp_ms=message.timestamp,
        is_append_time=message.timestamp_type == LOG_APPEND_TIME,
    )
