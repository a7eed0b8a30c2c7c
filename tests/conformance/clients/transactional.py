"""Transactional producers and readers of committed records, in three dialects."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

import kafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as AioPartition
from aiokafka.errors import KafkaError as AioError
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from kafka.errors import KafkaError as PythonError

from tests.conformance.clients.base import TIMEOUT_S
from tests.conformance.probe import Address

T = TypeVar("T")
Values = list[bytes]


class FencedError(Exception):
    """Another producer has taken over."""


class Transactional(Protocol):
    """A transactional producer at work."""

    def begin(self) -> None:
        """Begin a transaction."""

    def send(self, topic: str, partition: int, value: bytes) -> None:
        """Write a record as part of it."""

    def flush(self) -> None:
        """Wait until what was sent is written; raises FencedError."""

    def commit(self) -> None:
        """Commit; raises FencedError."""

    def abort(self) -> None:
        """Abort."""

    def transform(self, topic: str, group: str, count: int, into: tuple[str, int]) -> None:
        """Read *count* records of a topic in a group, write them on, commit offsets with them."""


class Teller(Protocol):
    """A client that can do so."""

    name: str

    def producer(self, transactional_id: str) -> AbstractContextManager[Transactional]:
        """Return an initialised producer."""

    def committed(self, topic: str, partition: int, count: int) -> Values:
        """Return as many committed records from the beginning, or fewer after a second."""


def until(found: Values, count: int) -> Iterator[None]:
    """Yield while there are fewer, for a time."""
    deadline_s = time.monotonic() + (TIMEOUT_S if count else 1)
    while (len(found) < count or not count) and time.monotonic() < deadline_s:
        yield


# --- librdkafka ---


class LibrdkafkaTeller:
    """See Teller."""

    name = "confluent-kafka"

    def __init__(self, bootstrap: Address) -> None:
        self.common: dict[str, Any] = {"bootstrap.servers": str(bootstrap)}

    @contextmanager
    def producer(self, transactional_id: str) -> Iterator["_Librdkafka"]:
        made = _Librdkafka(self, transactional_id)
        yield made

    def consumer(self, group: str, **more: Any) -> Consumer:
        """Return a reader of committed records."""
        settings = {
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
        return Consumer(self.common | settings | more)

    def committed(self, topic: str, partition: int, count: int) -> Values:
        consumer, found = self.consumer("never-joined"), list[bytes]()
        consumer.assign([TopicPartition(topic, partition, 0)])
        try:
            for _ in until(found, count):
                for message in consumer.consume(100, 0.2):
                    assert message.error() is None, message.error()
                    found.append(message.value() or b"")
        finally:
            consumer.close()
        return found


class _Librdkafka:
    def __init__(self, teller: LibrdkafkaTeller, transactional_id: str) -> None:
        self._teller = teller
        self._producer = Producer(
            teller.common | {"transactional.id": transactional_id, "linger.ms": 1}
        )
        self._do(lambda: self._producer.init_transactions(TIMEOUT_S))

    def _do(self, step: Callable[[], object]) -> None:
        try:
            step()
        except KafkaException as fault:
            if fault.args[0].fatal():
                raise FencedError(str(fault)) from fault
            raise

    def begin(self) -> None:
        self._do(self._producer.begin_transaction)

    def send(self, topic: str, partition: int, value: bytes) -> None:
        self._producer.produce(topic, value=value, partition=partition)

    def flush(self) -> None:
        assert self._producer.flush(TIMEOUT_S) == 0

    def commit(self) -> None:
        self._do(lambda: self._producer.commit_transaction(TIMEOUT_S))

    def abort(self) -> None:
        self._do(lambda: self._producer.abort_transaction(TIMEOUT_S))

    def transform(self, topic: str, group: str, count: int, into: tuple[str, int]) -> None:
        consumer, found = self._teller.consumer(group), list[bytes]()
        consumer.subscribe([topic])
        try:
            for _ in until(found, count):
                message = consumer.poll(0.2)
                if message is None:
                    continue
                assert message.error() is None, message.error()
                found.append(message.value() or b"")
                self.send(*into, found[-1])
            assert len(found) == count
            places = consumer.position(consumer.assignment())
            self._producer.send_offsets_to_transaction(
                [each for each in places if each.offset >= 0], consumer.consumer_group_metadata()
            )
        finally:
            consumer.close()


# --- kafka-python ---


class KafkaPythonTeller:
    """See Teller."""

    name = "kafka-python"

    def __init__(self, bootstrap: Address) -> None:
        self.common: dict[str, Any] = {"bootstrap_servers": str(bootstrap)}

    @contextmanager
    def producer(self, transactional_id: str) -> Iterator["_KafkaPython"]:
        producer = kafka.KafkaProducer(
            **self.common, transactional_id=transactional_id, acks="all", linger_ms=1
        )
        try:
            producer.init_transactions()
            yield _KafkaPython(self, producer)
        finally:
            producer.close(1)

    def consumer(self, *topics: str, group: str | None) -> Any:
        """Return a reader of committed records."""
        return kafka.KafkaConsumer(
            *topics,
            **self.common,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )

    def committed(self, topic: str, partition: int, count: int) -> Values:
        consumer, found = self.consumer(group=None), list[bytes]()
        where = kafka.TopicPartition(topic, partition)
        consumer.assign([where])
        consumer.seek(where, 0)
        try:
            for _ in until(found, count):
                for messages in consumer.poll(200).values():
                    found += [each.value for each in messages]
        finally:
            consumer.close()
        return found


class _KafkaPython:
    def __init__(self, teller: KafkaPythonTeller, producer: Any) -> None:
        self._teller = teller
        self._producer = producer

    def begin(self) -> None:
        self._producer.begin_transaction()

    def send(self, topic: str, partition: int, value: bytes) -> None:
        self._producer.send(topic, value=value, partition=partition)

    def flush(self) -> None:
        self._producer.flush(TIMEOUT_S)

    def commit(self) -> None:
        try:
            self._producer.commit_transaction()
        except PythonError as fault:
            raise FencedError(str(fault)) from fault

    def abort(self) -> None:
        self._producer.abort_transaction()

    def transform(self, topic: str, group: str, count: int, into: tuple[str, int]) -> None:
        consumer, found = self._teller.consumer(topic, group=group), list[bytes]()
        offsets = {}
        try:
            for _ in until(found, count):
                for where, messages in consumer.poll(200, max_records=count - len(found)).items():
                    for message in messages:
                        found.append(message.value)
                        self.send(*into, message.value)
                        offsets[where] = kafka.OffsetAndMetadata(message.offset + 1, "", -1)
            assert len(found) == count
            self._producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        finally:
            consumer.close()


# --- aiokafka ---


class AiokafkaTeller:
    """See Teller."""

    name = "aiokafka"

    def __init__(self, bootstrap: Address) -> None:
        self.common: dict[str, Any] = {"bootstrap_servers": str(bootstrap)}

    @contextmanager
    def producer(self, transactional_id: str) -> Iterator["_Aiokafka"]:
        with asyncio.Runner() as runner:
            made = runner.run(self._start(transactional_id))
            try:
                yield _Aiokafka(self, runner, made)
            finally:
                runner.run(self._stop(made))

    async def _stop(self, producer: Any) -> None:
        await asyncio.wait_for(producer.stop(), TIMEOUT_S)
        await asyncio.sleep(0.1)  # its sockets close in later turns of the loop

    async def _start(self, transactional_id: str) -> Any:
        producer = AIOKafkaProducer(**self.common, transactional_id=transactional_id, linger_ms=1)
        await producer.start()
        return producer

    def consumer(self, *topics: str, group: str | None) -> Any:
        """Return a reader of committed records."""
        return AIOKafkaConsumer(
            *topics,
            **self.common,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )

    def committed(self, topic: str, partition: int, count: int) -> Values:
        async def read() -> Values:
            found: Values = []
            consumer = self.consumer(group=None)
            await consumer.start()
            try:
                where = AioPartition(topic, partition)
                consumer.assign([where])
                consumer.seek(where, 0)
                for _ in until(found, count):
                    for messages in (await consumer.getmany(timeout_ms=200)).values():
                        found += [each.value for each in messages]
            finally:
                await consumer.stop()
            return found

        return asyncio.run(read())


class _Aiokafka:
    def __init__(self, teller: AiokafkaTeller, runner: asyncio.Runner, producer: Any) -> None:
        self._teller = teller
        self._runner = runner
        self._producer = producer

    def _do(self, step: Coroutine[None, None, T]) -> T:
        try:
            return self._runner.run(asyncio.wait_for(step, TIMEOUT_S))
        except AioError as fault:
            raise FencedError(str(fault)) from fault

    def begin(self) -> None:
        self._do(self._producer.begin_transaction())

    def send(self, topic: str, partition: int, value: bytes) -> None:
        self._do(self._producer.send(topic, value=value, partition=partition))

    def flush(self) -> None:
        self._do(self._producer.flush())

    def commit(self) -> None:
        self._do(self._producer.commit_transaction())

    def abort(self) -> None:
        self._do(self._producer.abort_transaction())

    def transform(self, topic: str, group: str, count: int, into: tuple[str, int]) -> None:
        async def work() -> None:
            found: Values = []
            offsets = {}
            consumer = self._teller.consumer(topic, group=group)
            await consumer.start()
            try:
                for _ in until(found, count):
                    wanted = count - len(found)
                    read = await consumer.getmany(timeout_ms=200, max_records=wanted)
                    for where, messages in read.items():
                        for message in messages:
                            found.append(message.value)
                            await self._producer.send(into[0], message.value, partition=into[1])
                            offsets[where] = message.offset + 1
                assert len(found) == count
                await self._producer.send_offsets_to_transaction(offsets, group)
            finally:
                await consumer.stop()

        self._do(work())
