"""Brings batches to the brokers that lead their partitions, again and again until they are there.

One task decides (`run`); everything it does is done in one turn without waiting, so batches reach
a connection in the order they were taken. Answers, new connections and new metadata wake it.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

import trio

from corelane.model.errors import ErrorCode
from corelane.model.limits import PRODUCER_WINDOW_BATCHES
from corelane.wire.compression import Compression
from corelane.wire.records import TRANSACTIONAL
from corelane_client import protocol
from corelane_client.batching import (
    NO_OFFSET,
    Barrier,
    Batch,
    Delivery,
    PartitionQueue,
    Placed,
)
from corelane_client.connection import Connection
from corelane_client.errors import (
    ClientError,
    ConnectError,
    DeliveryTimeoutError,
    KafkaError,
    ProtocolError,
)
from corelane_client.pool import NO_BROKER, RETRY_BACKOFF_S, RETRY_BACKOFF_S_MAX, Pool
from corelane_client.protocol import Api
from corelane_client.settings import ProducerSettings
from corelane_client.transactor import Transactor
from corelane_client.upkeep import Upkeep

_ACKS: Final = {"all": -1, "1": 1, "0": 0}
_WRITTEN: Final = {ErrorCode.NONE, ErrorCode.DUPLICATE_SEQUENCE_NUMBER}
_FORGOTTEN: Final = {ErrorCode.UNKNOWN_PRODUCER_ID, ErrorCode.INVALID_PRODUCER_EPOCH}
_TOO_LARGE: Final = {ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE}

Sent = list[tuple[PartitionQueue, Batch]]


class Deliverer:
    """Takes records in, and tells each one's listener what became of it."""

    def __init__(self, pool: Pool, settings: ProducerSettings) -> None:
        self._pool = pool
        self._settings = settings
        self._codec = Compression[settings.compression.upper()]
        self._queues: dict[tuple[str, int], PartitionQueue] = {}
        self._busy: dict[tuple[str, int], PartitionQueue] = {}
        self._in_flight: dict[int, int] = {}
        self.transactor: Transactor | None = None
        if settings.transactional_id is not None:
            self.transactor = Transactor(pool, settings, self._wake)
        self._attributes = TRANSACTIONAL if self.transactor is not None else 0
        self._identity: tuple[int, int] | None = None
        self._is_identifying = False
        self.buffered_bytes = 0
        self._upkeep = Upkeep(pool, self._topics, self._troubled)
        self._room = trio.lowlevel.ParkingLot()

    def has_room(self, size_bytes: int) -> bool:
        """Return whether a record of that size may be added now. A larger one than the buffer
        may be added alone.
        """
        buffered_bytes = self.buffered_bytes
        return not buffered_bytes or buffered_bytes + size_bytes <= self._settings.buffer_bytes

    async def room(self) -> None:
        """Wait until something has left the buffer."""
        await self._room.park()

    def would_join(self, topic: str, partition: int, size_bytes: int) -> bool:
        """Return whether a record would travel in a batch that is already being filled."""
        queue = self._queues.get((topic, partition))
        return queue is not None and queue.has_room(size_bytes)

    def add(self, placed: Placed) -> bool:
        """Take a record in; return whether it started a batch."""
        place = (placed.message.topic, placed.partition)
        queue = self._queues.get(place)
        if queue is None:
            queue = PartitionQueue(
                *place, self._settings.batch_bytes, is_idempotent=self._settings.is_idempotent
            )
            self._queues[place] = queue
        batch = queue.append(placed, trio.current_time())
        self.buffered_bytes += placed.size_bytes
        is_new = batch.count == 1
        if is_new or batch.is_full or (placed.is_due and not batch.is_due):
            self._upkeep.wake()
        batch.is_due = batch.is_due or placed.is_due
        self._busy[place] = queue
        return is_new

    async def flush(self) -> None:
        """Wait until everything added before has an outcome."""
        is_done = trio.Event()
        barrier = Barrier(is_done.set)
        for queue in self._busy.values():
            for batch in queue.batches:
                batch.is_due = True
                barrier.guard(batch)
        self._upkeep.wake()
        if barrier.left:
            await is_done.wait()

    def forget(self) -> None:
        """Number the batches of every partition from 0 again: there is a new epoch, and nothing is
        on its way.
        """
        self._queues = dict(self._busy)

    def close(self) -> None:
        """Tell everyone who still waits that nothing more is sent."""
        sentence = "the producer was closed before this was acknowledged"
        self._fail(self._busy.values(), ConnectError(sentence))

    async def run(self) -> None:
        """Deliver until cancelled."""
        await self._upkeep.run(self._turn)

    def _turn(self, now_s: float) -> float:
        """Do all that can be done now; return when there may be more."""
        self._expire(now_s)
        transactor = self.transactor
        if transactor is not None and transactor.failure is not None:
            self._fail(self._busy.values(), transactor.failure)
        linger_s = self._settings.linger_ms / 1000
        next_s = now_s + self._settings.delivery_timeout_ms / 1000
        ready: dict[int, list[PartitionQueue]] = {}
        for queue in self._busy.values():
            self._identify(queue)
            ready_s = queue.ready_s(linger_s)
            if ready_s > now_s:
                next_s = min(next_s, ready_s)
                continue
            if transactor is not None and not transactor.admits((queue.topic, queue.partition)):
                continue
            leader = self._pool.leader_of(queue.topic, queue.partition)
            if leader == NO_BROKER:
                self._upkeep.refresh()
            else:
                ready.setdefault(leader, []).append(queue)
        for broker_id, queues in ready.items():
            paused_until_s = self._upkeep.paused_until_s(broker_id)
            if paused_until_s > now_s:
                next_s = min(next_s, paused_until_s)
            else:
                self._serve(broker_id, queues, now_s)
        return next_s

    def _serve(self, broker_id: int, queues: list[PartitionQueue], now_s: float) -> None:
        """Send a broker what is ready for it, as far as its window allows."""
        connection = self._upkeep.connection(broker_id)
        if connection is None:
            return
        try:
            version = connection.version_of(Api.PRODUCE)
        except ProtocolError as error:
            self._fail(queues, error)
            return
        linger_s = self._settings.linger_ms / 1000
        while queues:
            if self._in_flight.get(broker_id, 0) >= PRODUCER_WINDOW_BATCHES:
                break
            sent = self._gather(queues)
            self._send(connection, version, broker_id, sent)
            # Whoever was served goes to the back, or the first partitions would starve the rest.
            queues = queues[len(sent) :] + queues[: len(sent)]
            queues = [queue for queue in queues if queue.ready_s(linger_s) <= now_s]

    def _gather(self, queues: list[PartitionQueue]) -> Sent:
        """Take one batch of each partition, as far as they fit into a request."""
        sent: Sent = []
        size_bytes = 0
        for queue in queues:
            batch = queue.take(self._codec)
            assert batch.payload is not None
            sent.append((queue, batch))
            place = (queue.topic, queue.partition)
            self._busy[place] = self._busy.pop(place)  # to the back, see `_serve`
            size_bytes += batch.payload.size_bytes
            if size_bytes >= self._settings.request_bytes_max:
                break
        return sent

    def _send(self, connection: Connection, version: int, broker_id: int, sent: Sent) -> None:
        """Submit one request."""
        topics: dict[str, list[Any]] = {}
        for queue, batch in sent:
            row = protocol.message(
                "ProduceRequest.PartitionProduceData",
                index=queue.partition,
                records=batch.encode(self._attributes),
            )
            topics.setdefault(queue.topic, []).append(row)
        rows = [
            protocol.message("ProduceRequest.TopicProduceData", name=name, partition_data=parts)
            for name, parts in topics.items()
        ]
        body = protocol.message(
            "ProduceRequest",
            transactional_id=self._settings.transactional_id,
            acks=_ACKS[self._settings.acks],
            timeout_ms=self._pool.settings.request_timeout_ms,
            topic_data=rows,
        )
        self._in_flight[broker_id] = self._in_flight.get(broker_id, 0) + 1
        submit = connection.submit_unanswered if self._settings.acks == "0" else connection.submit
        submit(Api.PRODUCE, version, body, lambda answer: self._answered(broker_id, sent, answer))

    def _answered(self, broker_id: int, sent: Sent, answer: Any) -> None:
        """Take what the broker said, or the error instead of it."""
        self._in_flight[broker_id] -= 1
        now_s = trio.current_time()
        self._upkeep.wake()
        if isinstance(answer, ClientError):
            self._upkeep.refresh()
            for queue, batch in sent:
                self._failed(queue, batch, answer, now_s)
            return
        if answer is None:  # acks=0: it is on its way, and nobody will tell more
            for queue, batch in sent:
                queue.done(batch)
                self._settle(queue, batch, NO_OFFSET)
            return
        if answer.throttle_time_ms > 0:
            self._upkeep.pause(broker_id, answer.throttle_time_ms / 1000)
        rows = {
            (topic.name, row.index): row
            for topic in answer.responses
            for row in topic.partition_responses
        }
        for queue, batch in sent:
            row = rows.get((queue.topic, queue.partition))
            if row is None:
                missing = KafkaError(
                    ErrorCode.UNKNOWN_SERVER_ERROR, said="the answer leaves it out"
                )
                self._failed(queue, batch, missing, now_s)
            elif row.error_code in _WRITTEN:
                queue.done(batch)
                self._settle(queue, batch, row.base_offset, row.log_append_time_ms)
            else:
                what = f"partition {queue.partition} of topic {queue.topic!r}"
                error = KafkaError(row.error_code, what, row.error_message)
                self._refused(queue, batch, error, now_s)

    def _refused(
        self, queue: PartitionQueue, batch: Batch, error: KafkaError, now_s: float
    ) -> None:
        """The broker did not write *batch*."""
        retry_at_s = now_s + _backoff_s(batch)
        batch.last_error = error
        if error.code in _TOO_LARGE and queue.split(batch, now_s):
            return
        is_forgotten = error.code in _FORGOTTEN
        if is_forgotten and self.transactor is not None:
            pass  # a new epoch would be another transaction: this one is aborted
        elif is_forgotten or error.code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER:
            if queue.refused_sequence(batch, retry_at_s, is_lost=is_forgotten):
                return
        elif error.retriable:
            self._upkeep.refresh()
        self._failed(queue, batch, error, now_s)

    def _failed(
        self, queue: PartitionQueue, batch: Batch, error: ClientError, now_s: float
    ) -> None:
        """The attempt failed; *batch* is tried again if that may help."""
        batch.last_error = error
        transactor = self.transactor
        if error.retriable and (transactor is None or transactor.failure is None):
            queue.again(batch, now_s + _backoff_s(batch))
        else:
            queue.give_up(batch)
            self._settle(queue, batch, error)

    def _settle(
        self,
        queue: PartitionQueue,
        batch: Batch,
        outcome: int | ClientError,
        append_time_ms: int = -1,
    ) -> None:
        """Tell the listeners of *batch* its base offset or why there is none; free its room."""
        if self.transactor is not None and isinstance(outcome, ClientError):
            self.transactor.failed(outcome)
        self.buffered_bytes -= batch.reserved_bytes
        assert self.buffered_bytes >= 0
        self._room.unpark_all()
        if queue.is_idle:
            self._busy.pop((queue.topic, queue.partition), None)
        for number, listener in enumerate(batch.listeners):
            if listener is None:
                continue
            if isinstance(outcome, ClientError):
                listener(outcome)
                continue
            offset = outcome + number if outcome >= 0 else NO_OFFSET
            time_ms = append_time_ms if append_time_ms >= 0 else batch.timestamps_ms[number]
            listener(Delivery(queue.topic, queue.partition, offset, time_ms))
        for barrier in batch.barriers:
            barrier.pass_one()

    def _expire(self, now_s: float) -> None:
        """Give up what has waited too long."""
        timeout_ms = self._settings.delivery_timeout_ms
        for queue in list(self._busy.values()):
            for batch in queue.expire(now_s - timeout_ms / 1000):
                last = batch.last_error
                why = f"the last attempt ended with: {last.sentence}" if last else "no attempt yet"
                sentence = f"topic {queue.topic!r}: not acknowledged in {timeout_ms} ms; {why}"
                self._settle(queue, batch, DeliveryTimeoutError(sentence, retriable=True))

    def _identify(self, queue: PartitionQueue) -> None:
        """Give *queue* a producer id if it needs one: the common one, after trouble a new one."""
        if not queue.wants_identity:
            return
        if self.transactor is not None:
            if self.transactor.identity is not None:
                queue.adopt(self.transactor.identity)
            return
        if self._identity is not None and self._identity != queue.former_identity:
            queue.adopt(self._identity)
        elif not self._is_identifying:
            self._is_identifying = True
            self._pool.nursery.start_soon(self._fetch_identity)

    async def _fetch_identity(self) -> None:
        """Ask for a producer id until there is one."""
        backoff_s = RETRY_BACKOFF_S
        body = protocol.message(
            "InitProducerIdRequest", transactional_id=None, transaction_timeout_ms=60_000
        )
        while True:
            try:
                connection = await self._pool.any_connection()
                answer = await connection.request(Api.INIT_PRODUCER_ID, body)
                protocol.check(answer.error_code, "a producer id")
            except ClientError as error:
                self._troubled(None, error)
                if not error.retriable:
                    break
                await trio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, RETRY_BACKOFF_S_MAX)
            else:
                self._identity = (answer.producer_id, answer.producer_epoch)
                break
        self._is_identifying = False
        self._upkeep.wake()

    def _wake(self) -> None:
        self._upkeep.wake()

    def _topics(self) -> set[str]:
        return {topic for topic, _partition in self._queues}

    def _troubled(self, broker_id: int | None, error: ClientError) -> None:
        """Something keeps batches from being sent: for good, or as who gives them up will say."""
        queues = [
            queue
            for queue in self._busy.values()
            if broker_id in {None, self._pool.leader_of(queue.topic, queue.partition)}
        ]
        if not error.retriable:
            self._fail(queues, error)
        for queue in queues:
            for batch in queue.batches:
                batch.last_error = batch.last_error or error

    def _fail(self, queues: Iterable[PartitionQueue], error: ClientError) -> None:
        """What waits in *queues* cannot be sent."""
        for queue in list(queues):
            for batch in queue.expire(math.inf):
                self._settle(queue, batch, error)


def _backoff_s(batch: Batch) -> float:
    """Return how long to wait before the next attempt."""
    doubled: float = RETRY_BACKOFF_S * 2.0 ** min(batch.attempts - 1, 10)
    return min(doubled, RETRY_BACKOFF_S_MAX)
