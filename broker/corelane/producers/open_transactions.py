"""What a partition knows of transactions: which are open, which were aborted, what is stable.

Offsets are half-open everywhere: a reader of committed records reads below the last stable offset,
never at it (a broker that read it inclusively showed aborted records).

Invariants:
O1. The state is a fold of the committed entries of the log, in order, and of nothing else; what is
    appended and not committed is a tail that `truncated` takes back. One function folds both.
O2. The last stable offset is the first offset of the oldest open transaction, else the high
    watermark. It never goes back: what opens later opens at or above it.
O3. An open transaction is never forgotten, only ended by a marker. The epochs of producers without
    one are: unused for the expiration time by the log's clock, or the longest unused of too many.
    Nothing depends on them: whoever opens a transaction is verified with its coordinator first.
O4. The aborted transactions travel with the log that they describe, and go with its start.
Whether a marker may come, nobody decides here: what is overdue is told, and the coordinator asked.
"""

# performance-critical: see STYLE.md

import struct
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.ids import Index, Offset, Term
from corelane.model.record import record
from corelane.producers.transactions.verification import UNKNOWN_START, Verification

OPEN_MAX: Final = 5_000
"""Open transactions of one partition; a further one is told to try again."""

ABORTED_MAX: Final = 100_000
"""Aborted transactions whose records are still in the log, and open ones; further ones are
refused: none of them may be forgotten. Retention makes room.
"""

OVERDUE_MAX: Final = 64
"""How many of the oldest open transactions are looked at: the oldest holds up the readers."""

_STRICT: Final = 2
_NO_TERM: Final = Term(-1)
_FORMAT: Final = 1
_HEADER: Final = struct.Struct("<BqQqIII")
_PRODUCER: Final = struct.Struct("<qhiqqq")
_ABORTED: Final = struct.Struct("<qQQQ")


@record
class TransactionalBatch:
    """A batch of a transaction, as the log has it."""

    index: Index
    producer_id: int
    epoch: int
    first_offset: Offset
    max_timestamp_ms: int
    """As stored."""


@record
class Marker:
    """A control batch that ends a transaction, as the log has it; it takes one offset."""

    index: Index
    producer_id: int
    epoch: int
    is_commit: bool
    coordinator_term: Term
    offset: Offset
    timestamp_ms: int


Entry = TransactionalBatch | Marker


@record
class Standing:
    """One producer at this partition."""

    epoch: int
    coordinator_term: Term
    """The highest term of a coordinator that wrote a marker; -1: none did."""
    first_offset: Offset | None
    """Of its open transaction."""
    started_ms: int
    """The log's time when it was opened."""
    used_ms: int
    """The log's time of its last entry."""


@record
class Aborted:
    """An aborted transaction of the log; readers of committed records pass over it."""

    producer_id: int
    first_offset: Offset
    last_offset: Offset
    """The offset of its marker, which is the last of it."""
    stable_offset: Offset
    """The last stable offset after it: no transaction aborted later has records below."""


@record
class MarkerRequest:
    """A marker that a coordinator, or an operator, wants to have written."""

    producer_id: int
    epoch: int
    coordinator_term: Term
    client_version: int = 1
    started_ms: int = UNKNOWN_START


@record
class Append:
    """Append it."""


@record
class Verify:
    """Park the batch, ask the coordinator, and tell `Verification.answered` with this number."""

    question: int


@record
class Done:
    """The transaction is over: success, when the entry at *index* is committed."""

    index: Index


@record
class Refuse:
    """It must not be appended."""

    error: ErrorCode
    sentence: str


BatchVerdict = Append | Verify | Refuse
MarkerVerdict = Append | Done | Refuse

APPEND: Final = Append()
"""The only Append ever returned."""


@record
class OpenTransaction:
    """An open transaction, for tools and for pushes."""

    producer_id: int
    standing: Standing


class OpenTransactionsError(Exception):
    """Stored transactions that cannot be read."""


class OpenTransactions:
    """The transactions of one partition."""

    __slots__ = (
        "_aborted",
        "_closed",
        "_expiration_ms",
        "_limits",
        "_noted",
        "_open",
        "_overlay",
        "_tail",
        "committed_index",
        "log_time_ms",
        "start_offset",
        "verification",
    )

    def __init__(
        self,
        id_expiration_ms: int,
        producers_max: int = limits.PRODUCERS_PER_PARTITION_MAX,
        open_max: int = OPEN_MAX,
        aborted_max: int = ABORTED_MAX,
    ) -> None:
        assert id_expiration_ms > 0
        assert 0 < open_max <= aborted_max
        self.committed_index = Index(0)
        self.log_time_ms = -1
        self.start_offset = Offset(0)
        self.verification = Verification(producers_max)
        self._expiration_ms = id_expiration_ms
        self._limits = (producers_max, open_max, aborted_max)
        self._open: dict[int, Standing] = {}
        """Committed and open, in the order of first offsets."""
        self._closed: OrderedDict[int, Standing] = OrderedDict()
        """Committed and not open; the one unused longest is first."""
        self._aborted: list[Aborted] = []
        """In the order of last offsets."""
        self._tail: list[Entry] = []
        """Not a deque, which takes 600 bytes of each idle partition."""
        self._overlay: dict[int, list[Standing]] = {}
        """Of each producer in the tail, what it is after each of its entries there."""
        self._noted: dict[int, tuple[Offset, int]] = {}
        """When `overdue` saw a transaction first; volatile."""

    @property
    def is_unused(self) -> bool:
        """Whether the committed log never had a transaction."""
        return self.log_time_ms < 0

    @property
    def is_idle(self) -> bool:
        """Whether no producer is known, so that there is nothing to judge batches by."""
        return not (self._overlay or self._open or self._closed)

    @property
    def open_count(self) -> int:
        """Return how many transactions are open, of those that are committed."""
        return len(self._open)

    # --- the log ---------------------------------------------------------------------------

    def appended(self, entry: Entry) -> None:
        """Add an entry that is in the log and not yet committed, in index order."""
        assert entry.index > (self._tail[-1].index if self._tail else self.committed_index)
        after = _fold(self.standing(entry.producer_id), entry, self.log_time_ms)
        self._overlay.setdefault(entry.producer_id, []).append(after)
        self._tail.append(entry)
        if isinstance(entry, Marker):
            self.verification.closed(entry.producer_id)
        else:
            self.verification.opened(entry.producer_id)

    def committed(self, index: Index) -> None:
        """Fold everything up to *index*; may repeat, may name entries that are not here."""
        count = 0
        for entry in self._tail:
            if entry.index > index:
                break
            count += 1
            overlay = self._overlay[entry.producer_id]
            del overlay[0]
            if not overlay:
                del self._overlay[entry.producer_id]
            self._commit(entry)
        if count:
            del self._tail[:count]
        self.committed_index = max(self.committed_index, index)

    def truncated(self, from_index: Index) -> None:
        """Forget what was appended at *from_index* and after: the log has lost it."""
        assert from_index > self.committed_index, "committed entries are never truncated"
        tail = self._tail
        while tail and tail[-1].index >= from_index:
            entry = tail.pop()
            overlay = self._overlay[entry.producer_id]
            del overlay[-1]
            if not overlay:
                del self._overlay[entry.producer_id]

    def trimmed(self, start_offset: Offset) -> None:
        """Forget the aborted transactions that end before the log begins (O4)."""
        self.start_offset = max(self.start_offset, start_offset)
        count = bisect_left(self._aborted, self.start_offset, key=_last_offset)
        del self._aborted[:count]

    # --- readers ---------------------------------------------------------------------------

    def last_stable_offset(self, high_watermark: Offset) -> Offset:
        """Return the end of what a reader of committed records may see (O2).

        A checkpoint's or a snapshot's state may be of more than is known as committed again.
        """
        for standing in self._open.values():
            assert standing.first_offset is not None
            return min(max(standing.first_offset, self.start_offset), high_watermark)
        return high_watermark

    def aborted_between(self, from_offset: Offset, upto_offset: Offset) -> list[Aborted]:
        """Return what is aborted and has records in [from, upto), by first offset.

        *upto* is at most the last stable offset.
        """
        found = []
        at = bisect_left(self._aborted, from_offset, key=_last_offset)
        for number in range(at, len(self._aborted)):
            aborted = self._aborted[number]
            if aborted.first_offset < upto_offset:
                found.append(aborted)
            if aborted.stable_offset >= upto_offset:
                break
        found.sort(key=_first_offset)
        return found

    # --- a leader's questions --------------------------------------------------------------

    def standing(self, producer_id: int) -> Standing | None:
        """Return what the log says of a producer, with what is not committed."""
        overlay = self._overlay.get(producer_id)
        if overlay is not None:
            return overlay[-1]
        return self._open.get(producer_id) or self._closed.get(producer_id)

    def check_epoch(self, producer_id: int, epoch: int) -> Refuse | None:
        """Say whether a producer was fenced, also by a marker, which its table does not know."""
        standing = self.standing(producer_id)
        if standing is None or epoch >= standing.epoch:
            return None
        return Refuse(
            ErrorCode.INVALID_PRODUCER_EPOCH,
            f"producer {producer_id} writes with epoch {epoch}, but epoch {standing.epoch}"
            " was seen: its transaction was ended, or another instance has taken over",
        )

    def check_duplicate(self, producer_id: int, offset: Offset) -> Refuse | None:
        """Refuse to count as written what repeats an aborted batch (ARCHITECTURE.md, Decisions)."""
        for aborted in self.aborted_between(offset, Offset(offset + 1)):
            if aborted.producer_id == producer_id:
                said = f"producer {producer_id} repeats a batch that it aborted, at offset {offset}"
                return Refuse(ErrorCode.UNKNOWN_PRODUCER_ID, said)
        return None

    def check_batch(self, producer_id: int, epoch: int, *, is_transactional: bool) -> BatchVerdict:
        """Say what a leader must do with a batch that is new to the producer table.

        The epoch is looked at before all else: a producer that was fenced must hear that, not
        that its transaction is unknown (KAFKA-19690).
        """
        stale = self.check_epoch(producer_id, epoch)
        if stale is not None:
            return stale
        standing = self.standing(producer_id)
        is_open = standing is not None and standing.first_offset is not None
        if not is_transactional:
            if not is_open:
                return APPEND
            return Refuse(
                ErrorCode.INVALID_TXN_STATE,
                f"producer {producer_id} writes outside of its open transaction",
            )
        if standing is not None and is_open and epoch == standing.epoch:
            return APPEND
        if not self.verification.is_verified(producer_id, epoch):
            return Verify(self.verification.ask(producer_id, epoch))
        if is_open:
            # The coordinator begins nothing before this partition has the marker.
            return Refuse(
                ErrorCode.CONCURRENT_TRANSACTIONS,
                f"producer {producer_id} has an open transaction of an earlier epoch",
            )
        return self._room_for_one(producer_id)

    def check_marker(self, request: MarkerRequest) -> MarkerVerdict:
        """Say what a leader must do with a marker; the batch of its transaction is void then.

        Where nothing is open it is appended all the same, as in Kafka: a leader that has been
        replaced and does not know it must not say that a transaction is over which is open at the
        next one. Only the commit of an entry shows that it still leads. An error would be
        repeated for ever.
        """
        producer_id = request.producer_id
        standing = self.standing(producer_id)
        if standing is None:
            self.verification.passed(producer_id, request.started_ms)
            return APPEND
        if request.epoch < standing.epoch:
            return Refuse(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"the marker of producer {producer_id} has epoch {request.epoch}, but epoch"
                f" {standing.epoch} was seen: its transaction is over",
            )
        if request.coordinator_term < standing.coordinator_term:
            return Refuse(
                ErrorCode.TRANSACTION_COORDINATOR_FENCED,
                f"the marker of producer {producer_id} comes from a coordinator of term"
                f" {request.coordinator_term}; term {standing.coordinator_term} was seen",
            )
        if standing.first_offset is None:
            self.verification.passed(producer_id, request.started_ms)
            last_index = self._last_index(producer_id)
            return Done(last_index) if last_index > self.committed_index else APPEND
        # A marker that comes again must not end the transaction that follows. With KIP-890 its
        # epoch is above every record of its own; before, only the start tells them apart.
        is_later = request.client_version >= _STRICT and request.epoch == standing.epoch
        if is_later or self.verification.is_another(producer_id, request.started_ms):
            return Done(self._last_index(producer_id))
        return APPEND

    def overdue(self, now_ms: int, age_ms: int) -> list[OpenTransaction]:
        """Return what has been open for longer than *age_ms* here, the oldest first, at most 64.

        By the time since it was first looked at, not by that of its records: those are the
        producer's, who may write next year's, and then nobody would ever ask.
        """
        noted: dict[int, tuple[Offset, int]] = {}
        found: list[OpenTransaction] = []
        for producer_id, standing in self._open.items():
            if len(noted) == OVERDUE_MAX:
                break
            assert standing.first_offset is not None
            before = self._noted.get(producer_id)
            if before is None or before[0] != standing.first_offset:
                before = (standing.first_offset, now_ms)
            noted[producer_id] = before
            if now_ms - before[1] > age_ms:
                found.append(OpenTransaction(producer_id, standing))
        self._noted = noted
        return found

    def oldest_ms(self, now_ms: int) -> int:
        """Return for how long the oldest open one has been looked at by `overdue`; 0: none was."""
        for producer_id, standing in self._open.items():
            noted = self._noted.get(producer_id)
            is_same = noted is not None and noted[0] == standing.first_offset
            return now_ms - noted[1] if noted is not None and is_same else 0
        return 0

    def describe(self) -> Iterator[OpenTransaction]:
        """Return every producer that has written transactions and is not forgotten."""
        for producer_id in sorted({*self._open, *self._closed, *self._overlay}):
            standing = self.standing(producer_id)
            assert standing is not None
            yield OpenTransaction(producer_id, standing)

    # --- bytes -----------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Return the committed fold as bytes (little-endian; storage adds the checksum)."""
        parts = [
            _HEADER.pack(
                _FORMAT,
                self.log_time_ms,
                self.committed_index,
                self.start_offset,
                len(self._open),
                len(self._closed),
                len(self._aborted),
            )
        ]
        parts += [
            _PRODUCER.pack(
                producer_id,
                standing.epoch,
                standing.coordinator_term,
                -1 if standing.first_offset is None else standing.first_offset,
                standing.started_ms,
                standing.used_ms,
            )
            for producers in (self._open, self._closed)
            for producer_id, standing in producers.items()
        ]
        parts += [
            _ABORTED.pack(
                aborted.producer_id,
                aborted.first_offset,
                aborted.last_offset,
                aborted.stable_offset,
            )
            for aborted in self._aborted
        ]
        return b"".join(parts)

    def other(self, data: bytes) -> "OpenTransactions":
        """Return what *data* is, within the limits of this one; raises OpenTransactionsError."""
        producers_max, open_max, aborted_max = self._limits
        found = OpenTransactions(self._expiration_ms, producers_max, open_max, aborted_max)
        try:
            found._load(data)
        except struct.error as error:
            message = f"the transactions of a partition end in the middle: {error}"
            raise OpenTransactionsError(message) from None
        return found

    @classmethod
    def from_bytes(cls, data: bytes, id_expiration_ms: int) -> "OpenTransactions":
        """Return what `to_bytes` wrote; raises OpenTransactionsError."""
        return cls(id_expiration_ms).other(data)

    def _load(self, data: bytes) -> None:
        form, self.log_time_ms, index, start, *counts = _HEADER.unpack_from(data, 0)
        if form != _FORMAT:
            message = f"the transactions of a partition have format {form}, not {_FORMAT}"
            raise OpenTransactionsError(message)
        self.committed_index = Index(index)
        self.start_offset = Offset(start)
        at = _HEADER.size
        open_count, closed_count, aborted_count = counts
        for number in range(open_count + closed_count):
            producer_id, epoch, term, first, started_ms, used_ms = _PRODUCER.unpack_from(data, at)
            at += _PRODUCER.size
            is_open = number < open_count
            is_known = producer_id in self._open or producer_id in self._closed
            if is_known or is_open != (first >= 0):
                message = f"the transactions of a partition are damaged before byte {at}"
                raise OpenTransactionsError(message)
            offset = Offset(first) if is_open else None
            standing = Standing(epoch, Term(term), offset, started_ms, used_ms)
            (self._open if is_open else self._closed)[producer_id] = standing
        for _ in range(aborted_count):
            producer_id, first, last, stable = _ABORTED.unpack_from(data, at)
            at += _ABORTED.size
            self._aborted.append(Aborted(producer_id, Offset(first), Offset(last), Offset(stable)))
        if at != len(data):
            raise OpenTransactionsError("the transactions of a partition are followed by bytes")
        self._forget()

    # --- the fold --------------------------------------------------------------------------

    def _commit(self, entry: Entry) -> None:
        producer_id = entry.producer_id
        before = self._open.get(producer_id) or self._closed.get(producer_id)
        after = _fold(before, entry, self.log_time_ms)
        self.log_time_ms = after.used_ms
        was_open = before is not None and before.first_offset is not None
        if not was_open:
            self._closed.pop(producer_id, None)
        if after.first_offset is not None:
            self._open[producer_id] = after
            return
        if was_open:
            assert before is not None
            assert before.first_offset is not None
            assert isinstance(entry, Marker)
            del self._open[producer_id]
            if not entry.is_commit:
                self._abort(producer_id, before.first_offset, entry.offset)
        self._closed[producer_id] = after
        self._forget()

    def _abort(self, producer_id: int, first_offset: Offset, last_offset: Offset) -> None:
        oldest = next(iter(self._open.values()), None)
        stable = Offset(last_offset + 1)
        if oldest is not None:
            assert oldest.first_offset is not None
            stable = min(stable, oldest.first_offset)
        if last_offset >= self.start_offset:
            self._aborted.append(Aborted(producer_id, first_offset, last_offset, stable))

    def _forget(self) -> None:
        """Forget closed producers that are unused or too many (O3)."""
        closed = self._closed
        while closed:
            oldest = next(iter(closed.values()))
            is_expired = oldest.used_ms + self._expiration_ms <= self.log_time_ms
            if not is_expired and len(closed) <= self._limits[0]:
                return
            closed.popitem(last=False)

    def _last_index(self, producer_id: int) -> Index:
        """Return the index of this producer's last entry, or that of the commit."""
        if producer_id in self._overlay:
            for entry in reversed(self._tail):
                if entry.producer_id == producer_id:
                    return entry.index
        return self.committed_index

    def _room_for_one(self, producer_id: int) -> BatchVerdict:
        _, open_max, aborted_max = self._limits
        # Those of the tail are counted roughly: each has at least one entry there.
        open_count = len(self._open) + len(self._overlay)
        if open_count >= open_max:
            return Refuse(
                ErrorCode.NOT_ENOUGH_REPLICAS,
                f"{open_count} transactions are open: producer {producer_id} must try again",
            )
        if open_count + len(self._aborted) >= aborted_max:
            return Refuse(
                ErrorCode.POLICY_VIOLATION,
                f"the log holds {len(self._aborted)} aborted transactions; retention or"
                " DeleteRecords makes room for more",
            )
        return APPEND


def _fold(before: Standing | None, entry: Entry, log_time_ms: int) -> Standing:
    """Return what a producer is after an entry, in the tail and in the committed state alike."""
    epoch = entry.epoch if before is None else max(entry.epoch, before.epoch)
    term = _NO_TERM if before is None else before.coordinator_term
    if isinstance(entry, Marker):
        now_ms = max(log_time_ms, entry.timestamp_ms)
        return Standing(epoch, max(term, entry.coordinator_term), None, -1, now_ms)
    now_ms = max(log_time_ms, entry.max_timestamp_ms)
    if before is not None and before.first_offset is not None:
        return Standing(epoch, term, before.first_offset, before.started_ms, now_ms)
    return Standing(epoch, term, entry.first_offset, now_ms, now_ms)


def _last_offset(aborted: Aborted) -> Offset:
    return aborted.last_offset


def _first_offset(aborted: Aborted) -> Offset:
    return aborted.first_offset
