"""What a partition remembers of its idempotent producers, so that no batch is written twice.

Of each producer id the last five batches are kept (KIP-98; Kafka's NUM_BATCHES_TO_RETAIN). A
batch that comes again is answered with the offset it got the first time; the next one must
continue the sequence; anything else is refused. After 2147483647 the sequence goes on with 0.

Invariants:
P1. The table is a fold of the committed entries of the log, in order, and of nothing else: same
    log, same table. What is appended and not committed is a tail that `truncated` takes back.
P2. Of one producer the batches are in index order; the first `committed_count` are committed,
    at most five and all of one epoch; the rest is that producer's part of the tail.
P3. Time is the log's: the highest timestamp of the batches folded so far, never a clock. A
    producer was last used when its last batch was folded, by that time, so the order of use is
    also the order of expiry. (Kafka compares a batch's own timestamp with the broker's clock,
    and so forgets a producer that writes old records in the middle of its work.)
P4. At most `producers_max` producers are known; the one unused longest is forgotten first.
A forgotten producer is an unknown one: its next batch may have any sequence number, as in Kafka.

Transactions are not here.
"""

# performance-critical: see STYLE.md

import struct
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Final

from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.ids import Index, Offset
from corelane.model.record import record

_WINDOW: Final = limits.PRODUCER_WINDOW_BATCHES
_SEQUENCE_MASK: Final = limits.SEQUENCE_MAX
_FORMAT: Final = 1
_HEADER: Final = struct.Struct("<BqQI")
_PRODUCER: Final = struct.Struct("<qqhB")
_BATCH: Final = struct.Struct("<QiiQq")


@record
class ProducedBatch:
    """A batch with a producer id, as the log has it."""

    index: Index
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int
    base_offset: Offset
    max_timestamp_ms: int
    """As stored: with LogAppendTime the time of append, or a replay would differ (P1)."""


@record
class Accept:
    """The batch is the next one: append it."""


@record
class Duplicate:
    """The batch is committed already: answer with the offset it has, append nothing."""

    base_offset: Offset
    max_timestamp_ms: int
    """What the log has, which is the append time to answer where that is the topic's time."""


@record
class Pending:
    """The batch was appended at *index* and is not committed: answer when that entry's fate is
    known, append nothing.
    """

    index: Index
    base_offset: Offset
    max_timestamp_ms: int


@record
class Refuse:
    """The batch must not be appended."""

    error: ErrorCode
    sentence: str


Verdict = Accept | Duplicate | Pending | Refuse

ACCEPT: Final = Accept()
"""The only Accept ever returned, so that the hot path may test `verdict is ACCEPT`."""


class ProducersError(Exception):
    """A stored table that cannot be read."""


class _Producer:
    __slots__ = ("batches", "committed_count", "used_ms")

    def __init__(self) -> None:
        self.batches: list[ProducedBatch] = []
        self.committed_count = 0
        self.used_ms = 0


class ProducerTable:
    """The producers of one partition."""

    __slots__ = (
        "_appended_index",
        "_expiration_ms",
        "_next_expiry_ms",
        "_producers",
        "_producers_max",
        "_tail",
        "_used",
        "committed_index",
        "log_time_ms",
    )

    def __init__(
        self,
        id_expiration_ms: int,
        producers_max: int = limits.PRODUCERS_PER_PARTITION_MAX,
    ) -> None:
        assert id_expiration_ms > 0
        assert producers_max > 0
        self.committed_index = Index(0)
        """Up to here batches are part of the fold."""
        self.log_time_ms = -1
        self._expiration_ms = id_expiration_ms
        self._producers_max = producers_max
        self._producers: dict[int, _Producer] = {}
        """All that are known, also by uncommitted batches alone."""
        self._used: OrderedDict[int, _Producer] = OrderedDict()
        """Those with committed batches; the one unused longest is first."""
        self._tail: deque[ProducedBatch] = deque()
        self._appended_index = Index(0)
        self._next_expiry_ms = 0
        """No producer expires before the log's time reaches this (a lower bound)."""

    def __len__(self) -> int:
        """Return how many producers are remembered by committed batches."""
        return len(self._used)

    @property
    def id_expiration_ms(self) -> int:
        """After how much of the log's time without use a producer is forgotten."""
        return self._expiration_ms

    def check(self, producer_id: int, epoch: int, base_sequence: int, record_count: int) -> Verdict:
        """Say what a leader must do with a batch that a client sent; changes nothing."""
        producer = self._producers.get(producer_id)
        if producer is None:
            return ACCEPT
        last = producer.batches[-1]
        if epoch == last.producer_epoch:
            next_sequence = (last.base_sequence + last.record_count) & _SEQUENCE_MASK
            if base_sequence == next_sequence:
                return ACCEPT
            return self._seen(producer, base_sequence, record_count, next_sequence)
        if epoch < last.producer_epoch:
            return Refuse(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"producer {producer_id} writes with epoch {epoch}, but epoch"
                f" {last.producer_epoch} was seen: another instance has taken over",
            )
        if base_sequence != 0:
            return Refuse(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"producer {producer_id} begins epoch {epoch} with sequence number"
                f" {base_sequence}; a new epoch begins with 0",
            )
        return ACCEPT

    def appended(self, batch: ProducedBatch) -> None:
        """Add a batch that is in the log and not yet committed, in index order."""
        assert batch.producer_id >= 0
        assert batch.index > self._appended_index
        self._appended_index = batch.index
        producer = self._producers.get(batch.producer_id)
        if producer is None:
            producer = self._producers[batch.producer_id] = _Producer()
        producer.batches.append(batch)
        self._tail.append(batch)

    def committed(self, index: Index) -> None:
        """Fold everything up to *index*; may repeat, may name entries that are not here."""
        tail = self._tail
        while tail and tail[0].index <= index:
            self._fold(tail.popleft())
        self.committed_index = max(self.committed_index, index)
        self._appended_index = max(self._appended_index, index)

    def truncated(self, from_index: Index) -> None:
        """Forget what was appended at *from_index* and after: the log has lost it."""
        assert from_index > self.committed_index, "committed entries are never truncated"
        tail = self._tail
        while tail and tail[-1].index >= from_index:
            batch = tail.pop()
            producer = self._producers[batch.producer_id]
            taken = producer.batches.pop()
            assert taken is batch
            if not producer.batches:
                del self._producers[batch.producer_id]
        self._appended_index = min(self._appended_index, Index(from_index - 1))

    def describe(self) -> Iterator[ProducedBatch]:
        """Return the last batch of every producer, be it committed or not."""
        for producer in self._producers.values():
            yield producer.batches[-1]

    def encode(self) -> bytes:
        """Return the committed fold as bytes (little-endian; storage adds the checksum)."""
        parts = [
            _HEADER.pack(_FORMAT, self.log_time_ms, self.committed_index, len(self._used)),
        ]
        for producer_id, producer in self._used.items():
            batches = producer.batches[: producer.committed_count]
            epoch = batches[0].producer_epoch
            parts.append(_PRODUCER.pack(producer_id, producer.used_ms, epoch, len(batches)))
            parts += [
                _BATCH.pack(
                    batch.index,
                    batch.base_sequence,
                    batch.record_count,
                    batch.base_offset,
                    batch.max_timestamp_ms,
                )
                for batch in batches
            ]
        return b"".join(parts)

    @classmethod
    def decode(
        cls,
        data: bytes,
        id_expiration_ms: int,
        producers_max: int = limits.PRODUCERS_PER_PARTITION_MAX,
    ) -> "ProducerTable":
        """Return the table that `encode` wrote; raises ProducersError."""
        table = cls(id_expiration_ms, producers_max)
        try:
            table._load(data)
        except struct.error as error:
            message = f"the producers of a partition end in the middle: {error}"
            raise ProducersError(message) from None
        return table

    def _load(self, data: bytes) -> None:
        form, self.log_time_ms, committed_index, count = _HEADER.unpack_from(data, 0)
        if form != _FORMAT:
            message = f"the producers of a partition have format {form}, not {_FORMAT}"
            raise ProducersError(message)
        self.committed_index = self._appended_index = Index(committed_index)
        at = _HEADER.size
        for _ in range(count):
            producer_id, used_ms, epoch, batch_count = _PRODUCER.unpack_from(data, at)
            at += _PRODUCER.size
            if not 0 < batch_count <= _WINDOW or producer_id in self._producers:
                message = f"the producers of a partition are damaged before byte {at}"
                raise ProducersError(message)
            producer = self._producers[producer_id] = self._used[producer_id] = _Producer()
            producer.used_ms = used_ms
            producer.committed_count = batch_count
            for _ in range(batch_count):
                index, sequence, records, offset, timestamp_ms = _BATCH.unpack_from(data, at)
                at += _BATCH.size
                producer.batches.append(
                    ProducedBatch(
                        Index(index),
                        producer_id,
                        epoch,
                        sequence,
                        records,
                        Offset(offset),
                        timestamp_ms,
                    )
                )
        if at != len(data):
            raise ProducersError("the producers of a partition are followed by other bytes")
        while len(self._used) > self._producers_max:
            self._forget_oldest()

    def _seen(
        self, producer: _Producer, base_sequence: int, record_count: int, next_sequence: int
    ) -> Verdict:
        """Judge a batch of the current epoch that is not the next one."""
        epoch = producer.batches[-1].producer_epoch
        for batch in producer.batches[-_WINDOW:]:
            # The same first sequence number and count are the same first and last one.
            if (
                batch.base_sequence == base_sequence
                and batch.record_count == record_count
                and batch.producer_epoch == epoch
            ):
                if batch.index > self.committed_index:
                    return Pending(batch.index, batch.base_offset, batch.max_timestamp_ms)
                return Duplicate(batch.base_offset, batch.max_timestamp_ms)
        # Also for a duplicate too old to be remembered: Kafka has not answered
        # DUPLICATE_SEQUENCE_NUMBER since 2.0 (ProducerAppendInfo.checkSequence).
        return Refuse(
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
            f"producer {producer.batches[-1].producer_id} sent sequence number {base_sequence};"
            f" {next_sequence} is next",
        )

    def _fold(self, batch: ProducedBatch) -> None:
        """Make the oldest batch of the tail part of the committed state."""
        producer = self._producers[batch.producer_id]
        batches = producer.batches
        count = producer.committed_count
        assert batches[count] is batch
        if count and batches[count - 1].producer_epoch != batch.producer_epoch:
            del batches[:count]
            count = 0
        elif count == _WINDOW:
            del batches[0]
            count -= 1
        producer.committed_count = count + 1
        self.log_time_ms = max(self.log_time_ms, batch.max_timestamp_ms)
        producer.used_ms = self.log_time_ms
        used = self._used
        if batch.producer_id in used:
            used.move_to_end(batch.producer_id)
        else:
            used[batch.producer_id] = producer
            if len(used) > self._producers_max:
                self._forget_oldest()
        if self.log_time_ms >= self._next_expiry_ms:
            self._forget_expired()

    def _forget_expired(self) -> None:
        """Forget all that were unused for the expiration time (they are first in `_used`)."""
        self._next_expiry_ms = self.log_time_ms + self._expiration_ms
        while self._used:
            oldest = next(iter(self._used.values()))
            expiry_ms = oldest.used_ms + self._expiration_ms
            if expiry_ms > self.log_time_ms:
                self._next_expiry_ms = expiry_ms
                return
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        producer_id, producer = self._used.popitem(last=False)
        del producer.batches[: producer.committed_count]
        producer.committed_count = 0
        if not producer.batches:
            del self._producers[producer_id]
