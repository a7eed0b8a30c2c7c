"""Sends records to topics: in batches, in order, once, and with an answer for every record."""

import random
import time
from types import TracebackType
from typing import Self

import trio

from corelane.wire.records import Headers
from corelane_client.batching import Delivery, Listener, Message, Outcome, Placed
from corelane_client.connection import Connect, connect_tcp
from corelane_client.delivery import Deliverer
from corelane_client.errors import ClientError, no_partition
from corelane_client.partitioner import StickyChoice, partition_of_key
from corelane_client.pool import Pool
from corelane_client.settings import ProducerSettings
from corelane_client.transaction import Transaction


class Pending:
    """A record on its way."""

    __slots__ = ("_event", "_outcome")

    def __init__(self) -> None:
        self._outcome: Outcome | None = None
        self._event: trio.Event | None = None

    @property
    def is_done(self) -> bool:
        """`wait` would return or raise at once."""
        return self._outcome is not None

    async def wait(self) -> Delivery:
        """Return where the record is, once it is acknowledged. Raises ClientError if it failed."""
        if self._outcome is None:
            self._event = self._event or trio.Event()
            await self._event.wait()
        assert self._outcome is not None
        if isinstance(self._outcome, ClientError):
            raise self._outcome
        return self._outcome

    def settle(self, outcome: Outcome) -> None:
        """Wake who waits; the producer calls it once."""
        self._outcome = outcome
        if self._event is not None:
            self._event.set()


class Producer:
    """A producer, to be used in an `async with` block.

        async with Producer("127.0.0.1:9092") as producer:
            delivery = await producer.send("greetings", b"hello", key=b"a")
            print(delivery.partition, delivery.offset)

    Entering connects and raises ConnectError when no broker answers. Leaving the block waits for
    everything that was sent; leaving it with an exception does not wait, and what became of
    records without an acknowledgement is then not known.

    With a `transactional_id` records are sent in transactions: all of a block's are there in the
    end, or none. Entering waits until what a former producer of that name left open is ended; that
    one is fenced. Whoever must not see what is aborted reads with isolation `read_committed`.

        settings = ProducerSettings(transactional_id="transfers")
        async with Producer("127.0.0.1:9092", settings) as producer:
            async with producer.transaction() as transaction:
                await producer.enqueue(Message("debits", b"-5", key=b"alice"))
                await producer.enqueue(Message("credits", b"5", key=b"bob"))
                await transaction.send_offsets(consumer)  # what all this was made from

    Many tasks may share a producer. Records that one task hands over one after the other keep
    their order within a partition. After the block it raises trio.ClosedResourceError.
    """

    def __init__(
        self,
        bootstrap: str,
        settings: ProducerSettings | None = None,
        connect: Connect = connect_tcp,
    ) -> None:
        self._settings = settings or ProducerSettings()
        if self._settings.transactional_id is not None and not self._settings.is_idempotent:
            raise ValueError("a transactional producer needs acks 'all' and idempotence")
        self._pool = Pool(bootstrap, self._settings.connection, connect)
        self._sticky = StickyChoice(random.Random())  # noqa: S311  (spreads load, keeps no secret)
        self._deliverer = Deliverer(self._pool, self._settings)
        self._is_closed = False

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        try:
            if self._deliverer.transactor is not None:
                await self._deliverer.transactor.renew()
        except BaseException as error:
            await self._pool.__aexit__(type(error), error, error.__traceback__)
            raise
        self._pool.nursery.start_soon(self._deliverer.run)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                await self.flush()
                if self._settings.acks == "0":
                    await self._pool.finish()
        finally:
            self._is_closed = True
            await self._pool.__aexit__(kind, error, traceback)
            self._deliverer.close()

    async def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        *,
        partition: int | None = None,
        headers: Headers = (),
    ) -> Delivery:
        """Send one record and return where it is, once it is acknowledged.

        A record without *partition* goes by its *key* as Java's producers do it, or, without a
        key, wherever a batch is being filled. A *value* of None is a tombstone.

        Raises ClientError: KafkaError for what the broker refuses, DeliveryTimeoutError when it
        cannot be known. Being cancelled does not take the record back.
        """
        pending = await self._enqueue(Message(topic, value, key, headers, partition), is_due=True)
        return await pending.wait()

    async def enqueue(self, message: Message, listener: Listener | None = None) -> Pending:
        """Hand over a record and return as soon as there is room for it.

        The outcome is told to *listener*, a Delivery or a ClientError, from the producer's own
        task, so it must not block; and to who waits for the returned Pending. Raises ClientError
        when the topic's partitions cannot be found out.
        """
        return await self._enqueue(message, listener)

    def transaction(self) -> Transaction:
        """Return a transaction for an `async with` block; needs a `transactional_id`.

        Leaving the block waits for everything that was sent in it and commits. An exception, also
        a cancellation, aborts instead and leaves as it is. If something could not be written it is
        aborted, too, and that error raised: KafkaError, FencedError where a newer producer of that
        name has taken over, AnswerTimeoutError and ConnectError where the outcome is not known.
        """
        transactor = self._deliverer.transactor
        if transactor is None:
            raise ValueError("transactions need a transactional_id in ProducerSettings")
        return Transaction(self._pool, self._deliverer, transactor)

    @property
    def buffered_bytes(self) -> int:
        """What waits for acknowledgement now."""
        return self._deliverer.buffered_bytes

    async def flush(self) -> None:
        """Wait until everything handed over before has an outcome."""
        await self._deliverer.flush()

    async def _enqueue(
        self, message: Message, listener: Listener | None = None, *, is_due: bool = False
    ) -> Pending:
        deliverer = self._deliverer
        size_bytes = message.size_bytes
        while True:
            # Nothing of this holds while we wait: topics go, and others take the room.
            if self._is_closed:
                raise trio.ClosedResourceError("the producer is closed")
            self._check_transaction()
            if message.topic not in self._pool.topics:
                await self._find(message.topic)
            elif not deliverer.has_room(size_bytes):
                await deliverer.room()
            else:
                break
        partition = self._partition_of(message, size_bytes)
        time_ms = message.timestamp_ms
        if time_ms is None:
            time_ms = int(time.time() * 1000)
        pending = Pending()
        told = pending.settle if listener is None else _both(pending.settle, listener)
        is_new = deliverer.add(Placed(message, partition, time_ms, size_bytes, told, is_due))
        if is_new and not is_due:
            # Once per batch is often enough to let others run, and 100 times cheaper.
            await trio.lowlevel.checkpoint()
        return pending

    def _check_transaction(self) -> None:
        """Raise unless records may be sent now."""
        transactor = self._deliverer.transactor
        if transactor is None:
            return
        if not transactor.is_open:
            raise ClientError(
                f"transactional id {transactor.transactional_id!r} has no transaction open",
                "Send inside of `async with producer.transaction()`.",
            )
        if transactor.failure is not None:
            raise transactor.failure

    async def _find(self, topic: str) -> None:
        """Learn the partitions of a topic."""
        await self._pool.retry(
            lambda: self._pool.topic(topic, may_create=self._settings.create_topics)
        )

    def _partition_of(self, message: Message, size_bytes: int) -> int:
        """Return where a message goes: where it says, by its key, or where a batch fills."""
        topic = message.topic
        count = len(self._pool.topics[topic].partitions)
        partition = message.partition
        if partition is not None:
            if not 0 <= partition < count:
                raise no_partition(topic, count, partition)
            return partition
        if message.key is not None:
            return partition_of_key(message.key, count)
        current = self._sticky.current(topic, count)
        if self._deliverer.would_join(topic, current, size_bytes):
            return current
        return self._sticky.next(topic, count)


def _both(first: Listener, second: Listener) -> Listener:
    def tell(outcome: Outcome) -> None:
        first(outcome)
        second(outcome)

    return tell
