"""The transactions of one partition of `__transaction_state`, while its replica leads.

Invariants:
T1. The state is a fold of the records: `replay` and live operation change it by one function, so
    that the next leader, who has nothing but the log, knows the same.
T2. A decision (a Prepare state) never changes; it is over when every partition has its marker.
T3. Whoever is not the producer of the moment changes nothing: id and epoch are compared first.
T4. Of one id no two transactions have the same start time, and none begins before the one before
    is over. So an acknowledgement, a marker or a verification says which one it is about.
T5. No transaction stays open: each has a deadline, and the abort at its end takes an epoch that
    nobody has, so that what is still on its way from the producer is refused.
What markers have been acknowledged is not in the log, as in Kafka: the next leader sends all again,
which is harmless, because a partition where nothing is open has nothing to do.
"""

from collections.abc import Iterator
from typing import assert_never

from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.producers.transactions.records import (
    NO_PRODUCER_ID,
    STATE_NAMES,
    Partition,
    Transaction,
    TransactionRecord,
    TransactionState,
)
from corelane.producers.transactions.requests import (
    LISTED_MAX,
    STEPS_MAX,
    TRANSACTIONAL_ID_BYTES_MAX,
    AddPartitions,
    Answer,
    Answered,
    DescribeAnswer,
    DescribeTransaction,
    EndTransaction,
    InitProducerId,
    ListAnswer,
    ListedTransaction,
    ListTransactions,
    MarkerWork,
    Outcome,
    PartitionsAnswer,
    ProducerAnswer,
    Push,
    PushAnswer,
    PushVerdict,
    Request,
    TransactionSettings,
    VerifyPartitions,
)
from corelane.producers.transactions.timers import Timers
from corelane.producers.transactions.transitions import (
    Fence,
    Repeated,
    add_partitions,
    complete,
    end,
    fenced_abort,
    initialise,
    producer_after,
    verify_partitions,
)

_STATES = {name: state for state, name in STATE_NAMES.items()}


class TransactionCoordinator:
    """Replay the log into a new one, say `loaded`, and then ask, `tick` and `take`.

    Thrown away with the leadership. `now_ms` never goes back; `wall_ms` may, and is only written
    down: a clock that is set forward ends no transaction while one leader lives.
    """

    __slots__ = (
        "_answers",
        "_is_loaded",
        "_markers",
        "_producers",
        "_records",
        "_timers",
        "_transactions",
        "_undelivered",
        "settings",
    )

    def __init__(self, settings: TransactionSettings) -> None:
        self.settings = settings
        """As they are now; the caller replaces it."""
        self._transactions: dict[str, Transaction] = {}
        self._producers: dict[int, str] = {}
        """By producer id, also by the one before and the one that follows."""
        self._undelivered: dict[str, set[Partition]] = {}
        """Of each decision, the partitions that have not acknowledged it."""
        self._timers = Timers()
        self._records: list[TransactionRecord] = []
        self._answers: list[Answered] = []
        self._markers: list[MarkerWork] = []
        self._is_loaded = False

    def __len__(self) -> int:
        """Return how many transactional ids are known."""
        return len(self._transactions)

    @property
    def next_deadline_ms(self) -> int | None:
        """When to call `tick` at the latest."""
        return self._timers.next_deadline_ms

    @property
    def undelivered_count(self) -> int:
        """Return how many decisions wait for their markers."""
        return len(self._undelivered)

    def replay(self, record: TransactionRecord) -> None:
        """Fold one record of the log; all of them, in order, before `loaded`."""
        assert not self._is_loaded
        self._apply(record)

    def loaded(self, now_ms: int, wall_ms: int) -> None:
        """Begin to serve: the log is replayed to the leader's own first entry.

        Decisions without all markers are carried on, timeouts count from what the log says.
        """
        assert not self._is_loaded
        self._is_loaded = True
        for name, transaction in sorted(
            self._transactions.items(), key=lambda item: (item[1].updated_ms, item[0])
        ):
            if transaction.is_prepared:
                self._carry_on(name, transaction, wall_ms)
                self._arm(name, now_ms, wall_ms)
            elif transaction.is_ongoing:
                left_ms = transaction.started_ms + transaction.timeout_ms - wall_ms
                left_ms = min(max(left_ms, 0), transaction.timeout_ms)
                self._timers.open_until(name, now_ms + left_ms)
            else:
                expiration_ms = self.settings.id_expiration_ms
                left_ms = transaction.updated_ms + expiration_ms - wall_ms
                self._timers.unused_until(name, now_ms + min(max(left_ms, 0), expiration_ms))

    def handle(self, now_ms: int, wall_ms: int, token: int, request: Request) -> None:
        """Take a request in; its answer, with the token, is in a later or the next `take`."""
        assert self._is_loaded
        match request:
            case AddPartitions():
                answer: Answer = self._add_partitions(now_ms, wall_ms, request)
            case VerifyPartitions():
                answer = self._verify_partitions(request)
            case EndTransaction():
                answer = self._end(now_ms, wall_ms, request)
            case InitProducerId():
                answer = self._initialise(now_ms, wall_ms, request)
            case Push():
                answer = self._push(now_ms, wall_ms, request)
            case DescribeTransaction():
                answer = self._describe(request)
            case ListTransactions():
                answer = self._list(wall_ms, request)
            case _:
                assert_never(request)
        self._answers.append(Answered(token, answer))

    def needs_fresh_id(self, request: InitProducerId | EndTransaction) -> bool:
        """Say whether a request needs a producer id that nobody has had; most of them do not."""
        if self._fault(request) is not None:
            return False
        old = self._transactions.get(request.transactional_id)
        if old is None:
            return isinstance(request, InitProducerId)
        return old.is_exhausted

    def is_completing(self, transactional_id: str) -> bool:
        """Say whether a decision is on its way to partitions: until then nothing new begins."""
        return transactional_id in self._undelivered

    def marked(
        self, now_ms: int, wall_ms: int, work: MarkerWork, partitions: tuple[Partition, ...]
    ) -> None:
        """Take note that these partitions have the marker, committed, or do not exist any more.

        A partition that refuses with INVALID_PRODUCER_EPOCH has it too: it has seen a later
        transaction. May repeat, and may come when the decision is long over (T4).
        """
        name = work.transactional_id
        left = self._undelivered.get(name)
        if left is None:
            return
        transaction = self._transactions[name]
        assert transaction.is_prepared
        if (transaction.producer_id, transaction.epoch, transaction.started_ms) != (
            work.producer_id,
            work.epoch,
            work.started_ms,
        ):
            return
        left.difference_update(partitions)
        if not left:
            self._complete(name, transaction, wall_ms)
            self._arm(name, now_ms, wall_ms)

    def tick(self, now_ms: int, wall_ms: int) -> None:
        """Abort what has been open for too long; forget what has been unused for too long."""
        assert self._is_loaded
        timed_out, expired = self._timers.due(now_ms, STEPS_MAX)
        for name in timed_out:
            transaction = self._transactions[name]
            assert transaction.is_ongoing
            self._fence(name, transaction, transaction.partitions, wall_ms)
            self._arm(name, now_ms, wall_ms)
        for name in expired:
            assert not self._transactions[name].is_ongoing
            self._write(TransactionRecord(name, None))

    def take(self) -> Outcome:
        """Return what has come of everything since the last call, and forget it."""
        outcome = Outcome(tuple(self._records), tuple(self._answers), tuple(self._markers))
        self._records.clear()
        self._answers.clear()
        self._markers.clear()
        return outcome

    def live_records(self) -> Iterator[TransactionRecord]:
        """Return a log that is as good as the one there is: one record for each id."""
        for name, transaction in self._transactions.items():
            yield TransactionRecord(name, transaction)

    def undelivered(self) -> Iterator[MarkerWork]:
        """Return all decisions with the partitions that have not acknowledged them."""
        for name, left in self._undelivered.items():
            yield _work(name, self._transactions[name], tuple(sorted(left)))

    # --- requests --------------------------------------------------------------------------

    def _initialise(self, now_ms: int, wall_ms: int, request: InitProducerId) -> ProducerAnswer:
        name = request.transactional_id
        error = self._fault(request)
        if error is not None:
            return ProducerAnswer(error)
        old = self._transactions.get(name)
        if old is None and len(self._transactions) >= self.settings.ids_max:
            return ProducerAnswer(ErrorCode.POLICY_VIOLATION)
        new = initialise(old, request, wall_ms)
        if isinstance(new, ErrorCode):
            return ProducerAnswer(new)
        if isinstance(new, Fence):
            assert old is not None
            # The next InitProducerId takes another epoch: this one is never given to anybody.
            self._fence(name, old, old.partitions, wall_ms)
            self._arm(name, now_ms, wall_ms)
            return ProducerAnswer(ErrorCode.CONCURRENT_TRANSACTIONS)
        if isinstance(new, Repeated):
            assert old is not None
            return ProducerAnswer(ErrorCode.NONE, old.producer_id, old.epoch)
        if old is None or new.producer_id != old.producer_id:
            assert new.producer_id not in self._producers, "an id that nobody has had"
        self._write(TransactionRecord(name, new))
        self._arm(name, now_ms, wall_ms)
        return ProducerAnswer(ErrorCode.NONE, new.producer_id, new.epoch)

    def _add_partitions(
        self, now_ms: int, wall_ms: int, request: AddPartitions
    ) -> PartitionsAnswer:
        name = request.transactional_id
        count = len(request.partitions)
        error = self._bad_name(name)
        if error is not None:
            return PartitionsAnswer((error,) * count)
        old = self._transactions.get(name)
        new = add_partitions(old, request, wall_ms)
        if isinstance(new, ErrorCode):
            return PartitionsAnswer((new,) * count)
        if isinstance(new, Repeated):
            assert old is not None
            return PartitionsAnswer((ErrorCode.NONE,) * count, old.started_ms)
        is_begin = old is None or not old.is_ongoing
        self._write(TransactionRecord(name, new))
        if is_begin:
            self._arm(name, now_ms, wall_ms)
        return PartitionsAnswer((ErrorCode.NONE,) * count, new.started_ms)

    def _verify_partitions(self, request: VerifyPartitions) -> PartitionsAnswer:
        error = self._bad_name(request.transactional_id)
        if error is not None:
            return PartitionsAnswer((error,) * len(request.partitions))
        old = self._transactions.get(request.transactional_id)
        errors = verify_partitions(old, request)
        if old is None or ErrorCode.NONE not in errors:
            return PartitionsAnswer(errors)
        return PartitionsAnswer(errors, old.started_ms)

    def _end(self, now_ms: int, wall_ms: int, request: EndTransaction) -> ProducerAnswer:
        name = request.transactional_id
        error = self._bad_name(name)
        if error is not None:
            return ProducerAnswer(error)
        old = self._transactions.get(name)
        new = end(old, request, wall_ms)
        if isinstance(new, ErrorCode):
            return ProducerAnswer(new)
        if isinstance(new, Repeated):
            assert old is not None
            return ProducerAnswer(ErrorCode.NONE, old.producer_id, old.epoch)
        self._decide(name, new, wall_ms)
        self._arm(name, now_ms, wall_ms)
        return ProducerAnswer(ErrorCode.NONE, *producer_after(new))

    def _push(self, now_ms: int, wall_ms: int, request: Push) -> PushAnswer:
        """Say what became of a transaction that is open at a partition (Percolator's push).

        Where the answer is ABORT for the epoch of the moment, that epoch is fenced first, and
        the marker comes by the usual way: otherwise the producer could still add the partition
        and have its records aborted alone.
        """
        name = self._producers.get(request.producer_id)
        if name is None:
            return PushAnswer(PushVerdict.UNKNOWN)
        old = self._transactions[name]
        is_present = request.producer_id in {old.producer_id, old.next_producer_id}
        if old.is_prepared and is_present:
            # Its marker is being sent; or it had it, and this was on its way; or it is a relic,
            # and the answer after the next question is another one.
            return PushAnswer(PushVerdict.WAIT)
        if not is_present or request.epoch != old.epoch:
            # Below: over long ago. Above: nobody was ever given that epoch.
            return PushAnswer(PushVerdict.ABORT, request.epoch)
        if old.is_ongoing and request.partition in old.partitions:
            return PushAnswer(PushVerdict.WAIT)
        if old.epoch > limits.PRODUCER_EPOCH_MAX:
            return PushAnswer(PushVerdict.ABORT, request.epoch)
        partitions = tuple(sorted({*old.partitions, request.partition}))
        self._fence(name, old, partitions, wall_ms)
        self._arm(name, now_ms, wall_ms)
        return PushAnswer(PushVerdict.WAIT)

    def _describe(self, request: DescribeTransaction) -> DescribeAnswer:
        error = self._bad_name(request.transactional_id)
        if error is not None:
            return DescribeAnswer(error)
        transaction = self._transactions.get(request.transactional_id)
        if transaction is None:
            return DescribeAnswer(ErrorCode.TRANSACTIONAL_ID_NOT_FOUND)
        return DescribeAnswer(ErrorCode.NONE, transaction)

    def _list(self, wall_ms: int, request: ListTransactions) -> ListAnswer:
        states = {_STATES[name] for name in request.states if name in _STATES}
        unknown = tuple(name for name in request.states if name not in _STATES)
        producer_ids = frozenset(request.producer_ids)
        rows: list[ListedTransaction] = []
        for name, old in self._transactions.items():
            if request.states and old.state not in states:
                continue
            if producer_ids and old.producer_id not in producer_ids:
                continue
            if request.duration_ms >= 0 and not (
                (old.is_ongoing or old.is_prepared)
                and wall_ms - old.started_ms > request.duration_ms
            ):
                continue
            rows.append(ListedTransaction(name, old.producer_id, old.state))
            if len(rows) == LISTED_MAX:
                break
        return ListAnswer(tuple(rows), unknown)

    def _fault(self, request: InitProducerId | EndTransaction) -> ErrorCode | None:
        error = self._bad_name(request.transactional_id)
        if error is None and isinstance(request, InitProducerId):
            is_allowed = 0 < request.timeout_ms <= self.settings.timeout_max_ms
            error = None if is_allowed else ErrorCode.INVALID_TRANSACTION_TIMEOUT
        return error

    @staticmethod
    def _bad_name(transactional_id: str) -> ErrorCode | None:
        size_bytes = len(transactional_id.encode())
        if 0 < size_bytes <= TRANSACTIONAL_ID_BYTES_MAX:
            return None
        return ErrorCode.INVALID_REQUEST

    # --- steps -----------------------------------------------------------------------------

    def _fence(
        self, name: str, old: Transaction, partitions: tuple[Partition, ...], wall_ms: int
    ) -> None:
        self._decide(name, fenced_abort(old, partitions, self.settings.version, wall_ms), wall_ms)

    def _decide(self, name: str, prepared: Transaction, wall_ms: int) -> None:
        self._write(TransactionRecord(name, prepared))
        self._carry_on(name, prepared, wall_ms)

    def _carry_on(self, name: str, prepared: Transaction, wall_ms: int) -> None:
        """Send the markers of a decision, or complete it where there are none to send."""
        assert prepared.is_prepared
        assert name not in self._undelivered
        if not prepared.partitions:
            self._complete(name, prepared, wall_ms)
            return
        self._undelivered[name] = set(prepared.partitions)
        self._markers.append(_work(name, prepared, prepared.partitions))

    def _complete(self, name: str, prepared: Transaction, wall_ms: int) -> None:
        self._undelivered.pop(name, None)
        self._write(TransactionRecord(name, complete(prepared, wall_ms)))

    def _arm(self, name: str, now_ms: int, wall_ms: int) -> None:
        """Set the deadline that the present state has."""
        transaction = self._transactions[name]
        if transaction.is_ongoing:
            self._timers.open_until(name, now_ms + transaction.timeout_ms)
        elif transaction.is_prepared:
            self._timers.clear(name)
        else:
            self._timers.unused_until(name, now_ms + self.settings.id_expiration_ms)

    def _write(self, record: TransactionRecord) -> None:
        self._records.append(record)
        self._apply(record)

    def _apply(self, record: TransactionRecord) -> None:
        """Fold one record: the only place where the state changes (T1)."""
        name = record.transactional_id
        old = self._transactions.pop(name, None)
        if old is not None:
            for producer_id in _producer_ids(old):
                self._producers.pop(producer_id, None)
        new = record.transaction
        if new is None:
            return
        self._transactions[name] = new
        for producer_id in _producer_ids(new):
            self._producers[producer_id] = name


def _producer_ids(transaction: Transaction) -> set[int]:
    return {
        transaction.producer_id,
        transaction.previous_producer_id,
        transaction.next_producer_id,
    } - {NO_PRODUCER_ID}


def _work(name: str, prepared: Transaction, partitions: tuple[Partition, ...]) -> MarkerWork:
    return MarkerWork(
        transactional_id=name,
        producer_id=prepared.producer_id,
        epoch=prepared.epoch,
        is_commit=prepared.state is TransactionState.PREPARE_COMMIT,
        client_version=prepared.client_version,
        started_ms=prepared.started_ms,
        partitions=partitions,
    )
