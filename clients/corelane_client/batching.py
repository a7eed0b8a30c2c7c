"""Gathers records into batches and keeps each partition's batches in order through every retry.

A calculation: nothing here sends, waits or reads a clock. Times are seconds of the caller's clock.

B1  A partition's batches are taken in the order their records came. A batch in flight leaves by
    `done`, `again`, `refused_sequence`, `split` or `give_up`.
B2  A batch keeps its producer id and sequence through every attempt, so that the broker can tell
    a repetition. Sequences under one producer id are dense.
B3  After a failed attempt nothing of the partition is sent until all that is in flight has been
    answered; then the oldest goes alone until it is done. So no retry is overtaken.
B4  Giving a batch up may leave a hole in the sequences. The rest keeps its numbers until the
    broker refuses them for the hole: that refusal is the proof that none of the rest was written
    before, and only then may it go again under a new producer id.
B5  Without idempotence one batch of a partition is in flight at a time; a broker could not tell
    that a later one overtook a repeated one.
"""

import bisect
import math
from collections import deque
from collections.abc import Callable
from typing import Final

from corelane.model.limits import PRODUCER_WINDOW_BATCHES, SEQUENCE_MAX
from corelane.model.record import record
from corelane.wire.compression import Compression
from corelane.wire.records import (
    ANONYMOUS,
    BatchBuilder,
    Headers,
    Payload,
    Producer,
    batch_records,
    encode_batch,
    split_batches,
)
from corelane_client.errors import ClientError

RECORD_OVERHEAD_BYTES: Final = 32
"""More than a record adds to its key, value and headers: five varints and an attribute byte."""
HEADER_OVERHEAD_BYTES: Final = 10
NO_OFFSET: Final = -1


@record
class Message:
    """A record to be sent; `partition` None leaves the choice to the key, or to the producer."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None
    timestamp_ms: int | None = None
    """When it happened; None: now."""

    @property
    def size_bytes(self) -> int:
        """An upper bound of what it takes in a batch."""
        size = RECORD_OVERHEAD_BYTES + len(self.key or b"") + len(self.value or b"")
        for name, value in self.headers:
            size += HEADER_OVERHEAD_BYTES + len(name.encode()) + len(value or b"")
        return size


@record
class Placed:
    """A message that has a partition, and what its batch must know of it."""

    message: Message
    partition: int
    timestamp_ms: int
    size_bytes: int
    listener: "Listener | None" = None
    is_due: bool = False
    """Its batch does not wait for company."""


@record
class Delivery:
    """Where a record is: acknowledged, so durable as `acks` promises.

    `offset` is -1 with acks=0, where nobody tells, and for a repetition the broker recognised
    but whose place it no longer knew.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


Outcome = Delivery | ClientError
Listener = Callable[[Outcome], None]


class Barrier:
    """Somebody who waits until certain batches have an outcome."""

    __slots__ = ("done", "left")

    def __init__(self, done: Callable[[], None]) -> None:
        self.left = 0
        self.done = done

    def guard(self, batch: "Batch") -> None:
        """Wait for *batch* too."""
        self.left += 1
        batch.barriers.append(self)

    def pass_one(self) -> None:
        """One of the batches has an outcome."""
        self.left -= 1
        if self.left == 0:
            self.done()


class Batch:
    """Records of one partition that travel and are acknowledged together."""

    __slots__ = (
        "attempts",
        "barriers",
        "builder",
        "created_s",
        "is_due",
        "is_full",
        "last_error",
        "listeners",
        "order",
        "payload",
        "producer",
        "reserved_bytes",
        "timestamps_ms",
    )

    def __init__(self, order: tuple[int, ...], created_s: float) -> None:
        self.order = order
        self.created_s = created_s
        self.builder: BatchBuilder | None = BatchBuilder()
        self.payload: Payload | None = None
        self.producer = ANONYMOUS
        self.listeners: list[Listener | None] = []
        self.timestamps_ms: list[int] = []
        self.reserved_bytes = 0
        self.attempts = 0
        self.is_due = False
        self.is_full = False
        self.last_error: ClientError | None = None
        self.barriers: list[Barrier] = []

    @property
    def count(self) -> int:
        """The number of records."""
        return len(self.listeners)

    def close(self, codec: Compression) -> None:
        """Compress the records; none is added after. A closed batch stays as it is."""
        if self.builder is not None:
            self.payload = self.builder.payload(codec)
            self.builder = None

    def encode(self, attributes: int = 0) -> bytes:
        """Return the bytes of this attempt; *attributes* are the bits beside the codec."""
        assert self.payload is not None
        return encode_batch(self.payload, self.producer, attributes)


class PartitionQueue:
    """The batches of one partition, from the first record to the acknowledgement."""

    def __init__(
        self, topic: str, partition: int, batch_bytes: int, *, is_idempotent: bool
    ) -> None:
        self.topic = topic
        self.partition = partition
        self._batch_bytes = batch_bytes
        self._is_idempotent = is_idempotent
        self._window = PRODUCER_WINDOW_BATCHES if is_idempotent else 1
        self._identity: tuple[int, int] | None = None
        self.former_identity: tuple[int, int] | None = None
        self._has_hole = False
        self._retry_at_s = 0.0
        self._next_order = 0
        self._next_sequence = 0
        self._waiting: deque[Batch] = deque()
        self._again: list[Batch] = []
        self._in_flight: list[Batch] = []

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return not (self._waiting or self._again or self._in_flight)

    @property
    def wants_identity(self) -> bool:
        """Nothing more is sent before `adopt` is called."""
        return self._is_idempotent and self._identity is None and not self.is_idle

    @property
    def batches(self) -> list[Batch]:
        """Every batch without an outcome, oldest first."""
        return [*sorted([*self._in_flight, *self._again], key=_order), *self._waiting]

    def adopt(self, identity: tuple[int, int]) -> None:
        """Write under this producer id and epoch from now on; each is adopted once."""
        assert self._is_idempotent
        assert identity != self.former_identity
        self._identity = identity
        self.former_identity = identity
        self._next_sequence = 0
        self._has_hole = False

    def has_room(self, size_bytes: int) -> bool:
        """Return whether a record of that size would join a batch that is already there."""
        builder = self._waiting[-1].builder if self._waiting else None
        if builder is None or self._waiting[-1].is_full:
            return False
        return builder.size_bytes + size_bytes <= self._batch_bytes

    def append(self, placed: Placed, now_s: float) -> Batch:
        """Add a record and return its batch, which tells the listener once it has an outcome."""
        if not self.has_room(placed.size_bytes):
            if self._waiting:
                self._waiting[-1].is_full = True
            self._waiting.append(Batch((self._next_order,), now_s))
            self._next_order += 1
        batch = self._waiting[-1]
        builder = batch.builder
        assert builder is not None
        message = placed.message
        builder.append(placed.timestamp_ms, message.key, message.value, message.headers)
        batch.listeners.append(placed.listener)
        batch.timestamps_ms.append(placed.timestamp_ms)
        batch.reserved_bytes += placed.size_bytes
        batch.is_full = builder.size_bytes >= self._batch_bytes
        return batch

    def ready_s(self, linger_s: float) -> float:
        """Return when the next batch may be taken; infinity: not before something happens."""
        if self._is_idempotent and self._identity is None:
            return math.inf
        if self._again:
            return math.inf if self._in_flight else self._retry_at_s  # B3
        if self._in_flight and self._in_flight[0].attempts > 1:
            return math.inf  # B3
        if not self._waiting or len(self._in_flight) >= self._window:
            return math.inf
        head = self._waiting[0]
        if head.is_due or head.is_full or len(self._waiting) > 1:
            return -math.inf
        return head.created_s + linger_s

    def take(self, codec: Compression) -> Batch:
        """Put the next batch in flight and return it, closed. Only when `ready_s` has come."""
        assert self._identity is not None or not self._is_idempotent
        assert not (self._again and self._in_flight)
        batch = self._again.pop(0) if self._again else self._waiting.popleft()
        batch.close(codec)
        if self._identity is not None and batch.producer.producer_id != self._identity[0]:
            batch.producer = Producer(*self._identity, self._next_sequence)
            self._next_sequence = _sequence_after(self._next_sequence, batch.count)
        batch.attempts += 1
        self._in_flight.append(batch)
        assert len(self._in_flight) <= self._window
        return batch

    def done(self, batch: Batch) -> None:
        """The broker has written *batch*."""
        self._in_flight.remove(batch)

    def again(self, batch: Batch, retry_at_s: float) -> None:
        """The attempt failed in a way that may pass."""
        self._in_flight.remove(batch)
        bisect.insort(self._again, batch, key=_order)
        self._retry_at_s = retry_at_s

    def refused_sequence(self, batch: Batch, retry_at_s: float, *, is_lost: bool) -> bool:
        """The broker does not expect this sequence. Return whether *batch* is tried again.

        It is when something older is unsettled, or was given up (B4). Otherwise the broker has
        lost what it acknowledged, which the user must hear. *is_lost*: the broker says itself
        that it knows nothing of this producer any more.
        """
        is_oldest = not any(other.order < batch.order for other in self._in_flight + self._again)
        if is_oldest and not self._has_hole and not is_lost:
            return False
        if is_oldest:
            self._identity = None
        self.again(batch, retry_at_s)
        return True

    def split(self, batch: Batch, retry_at_s: float) -> bool:
        """The broker found *batch* too large: try its halves. Return False if it is one record."""
        assert batch.payload is not None
        if batch.count < 2:
            return False
        self._in_flight.remove(batch)
        for half in _halves(batch):
            bisect.insort(self._again, half, key=_order)
        self._retry_at_s = retry_at_s
        return True

    def give_up(self, batch: Batch) -> None:
        """*batch*, which is in flight, will not be tried again."""
        self._in_flight.remove(batch)
        self._has_hole = True

    def expire(self, created_before_s: float) -> list[Batch]:
        """Give up what is older and not in flight, and return it, oldest first."""
        expired = [batch for batch in self._again if batch.created_s < created_before_s]
        self._has_hole = self._has_hole or bool(expired)
        self._again = [batch for batch in self._again if batch.created_s >= created_before_s]
        while self._waiting and self._waiting[0].created_s < created_before_s:
            expired.append(self._waiting.popleft())
        return expired


def _order(batch: Batch) -> tuple[int, ...]:
    return batch.order


def _sequence_after(sequence: int, count: int) -> int:
    """Return the sequence that follows *count* records; it wraps to 0, as Kafka's does."""
    return (sequence + count) % (SEQUENCE_MAX + 1)


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    """Return the two halves of a closed batch, which keep its place and its sequences (B1, B2)."""
    assert batch.payload is not None
    (whole,) = split_batches(batch.encode())
    records = batch_records(whole, "", 0)
    middle = batch.count // 2
    first = Batch((*batch.order, 0), batch.created_s)
    second = Batch((*batch.order, 1), batch.created_s)
    producer = batch.producer
    for half, part in ((first, slice(0, middle)), (second, slice(middle, None))):
        assert half.builder is not None
        for each in records[part]:
            half.builder.append(each.timestamp_ms, each.key, each.value, each.headers)
        half.listeners = batch.listeners[part]
        half.timestamps_ms = batch.timestamps_ms[part]
        half.attempts = batch.attempts
        half.last_error = batch.last_error
        half.close(batch.payload.codec)
        half.producer = producer
        if producer is not ANONYMOUS:
            after = _sequence_after(producer.base_sequence, middle)
            producer = Producer(producer.producer_id, producer.epoch, after)
    first.barriers = batch.barriers
    for barrier in batch.barriers:
        barrier.guard(second)
    first.reserved_bytes = batch.reserved_bytes // 2
    second.reserved_bytes = batch.reserved_bytes - first.reserved_bytes
    return first, second
