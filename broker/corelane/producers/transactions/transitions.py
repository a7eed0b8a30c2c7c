"""The steps of one transactional id: what it becomes, or why not. Nothing here keeps anything.

Kafka marks a step as pending until it is in the log. Here the state moves at once, because records
are appended in order and whoever loses the log throws the state away; what Kafka refuses while a
step is pending is refused here in the Prepare states, which is where it can be seen.
"""

from dataclasses import replace
from typing import Final, assert_never

from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane.producers.transactions.records import (
    NO_EPOCH,
    NO_PRODUCER_ID,
    NO_TIME,
    Partition,
    Transaction,
    TransactionState,
)
from corelane.producers.transactions.requests import (
    PARTITIONS_MAX,
    AddPartitions,
    EndTransaction,
    InitProducerId,
    VerifyPartitions,
)

_BUMP: Final = 2
"""The transaction.version from which each transaction has an epoch of its own (KIP-890)."""


@record
class Fence:
    """The transaction that is going on must be aborted first; then the client asks again."""


@record
class Repeated:
    """The request was done before: answer with what is."""


Verdict = Transaction | ErrorCode
"""What it becomes, or the error to answer with."""


# --- a producer begins ---------------------------------------------------------------------


def initialise(
    old: Transaction | None, request: InitProducerId, wall_ms: int
) -> Verdict | Fence | Repeated:
    """Give the producer an epoch above every one before (KIP-98, KIP-360)."""
    if old is None:
        return _new(request, wall_ms)
    if old.is_prepared:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    is_known = request.producer_id != NO_PRODUCER_ID
    if is_known and not _may_go_on(old, request):
        return ErrorCode.PRODUCER_FENCED
    if old.is_ongoing:
        return Fence()
    empty = replace(
        old,
        previous_producer_id=old.producer_id,
        timeout_ms=request.timeout_ms,
        state=TransactionState.EMPTY,
        partitions=(),
        started_ms=NO_TIME,
        updated_ms=max(wall_ms, old.updated_ms),
    )
    if is_known and (request.producer_id, request.epoch) != (old.producer_id, old.epoch):
        # The answer was lost. Nobody else has begun meanwhile: that would have taken away the
        # last epoch. The timeout may be another one, as in Kafka.
        return Repeated()
    if old.is_exhausted:
        return replace(
            empty,
            producer_id=request.fresh_producer_id,
            epoch=0,
            last_epoch=old.epoch if is_known else NO_EPOCH,
        )
    return replace(empty, epoch=old.epoch + 1, last_epoch=old.epoch if is_known else NO_EPOCH)


def _new(request: InitProducerId, wall_ms: int) -> Transaction:
    # An id and epoch that are given are of no use: what was known of them has expired.
    return Transaction(
        producer_id=request.fresh_producer_id,
        previous_producer_id=NO_PRODUCER_ID,
        next_producer_id=NO_PRODUCER_ID,
        epoch=0,
        last_epoch=NO_EPOCH,
        timeout_ms=request.timeout_ms,
        state=TransactionState.EMPTY,
        partitions=(),
        updated_ms=wall_ms,
        started_ms=NO_TIME,
        client_version=0,
    )


def _may_go_on(old: Transaction, request: InitProducerId) -> bool:
    """Say whether the id and epoch given are the present ones, or those just before them."""
    if request.producer_id == old.producer_id and request.epoch == old.epoch:
        return old.epoch <= limits.PRODUCER_EPOCH_MAX
    if old.is_ongoing:
        # Kafka looks at the epoch only when the transaction has been aborted, and so a producer
        # that is fenced already, or a request that was delayed, ends the work of its successor.
        return False
    if request.epoch != old.last_epoch or old.last_epoch == NO_EPOCH:
        return False
    is_rotated = (
        request.producer_id == old.previous_producer_id
        and request.epoch >= limits.PRODUCER_EPOCH_MAX
        and old.epoch == 0
    )
    return request.producer_id == old.producer_id or is_rotated


# --- partitions ----------------------------------------------------------------------------


def add_partitions(
    old: Transaction | None, request: AddPartitions, wall_ms: int
) -> Verdict | Repeated:
    """Make the partitions part of the transaction; the first ones begin it."""
    if old is None:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    if old.is_prepared:
        # Before the producer: it may speak already with the id that follows (Kafka 4.0).
        return ErrorCode.CONCURRENT_TRANSACTIONS
    error = _not_the_producer(old, request.producer_id, request.epoch)
    if error is not None:
        return error
    before = old.partitions if old.is_ongoing else ()
    partitions = set(before) | set(request.partitions)
    if old.is_ongoing and len(partitions) == len(before):
        return Repeated()
    if len(partitions) > PARTITIONS_MAX:
        return ErrorCode.POLICY_VIOLATION
    started_ms = old.started_ms if old.is_ongoing else _start_of(old, wall_ms)
    return replace(
        old,
        previous_producer_id=old.producer_id,
        state=TransactionState.ONGOING,
        partitions=tuple(sorted(partitions)),
        updated_ms=max(wall_ms, old.updated_ms, started_ms),
        started_ms=started_ms,
        client_version=request.client_version,
    )


def _start_of(old: Transaction, wall_ms: int) -> int:
    """Return the start of a new transaction: after all that the id did before (T4)."""
    return max(wall_ms, old.updated_ms + 1)


def verify_partitions(old: Transaction | None, request: VerifyPartitions) -> tuple[ErrorCode, ...]:
    """Say for each partition whether it is part of the transaction that is going on."""
    count = len(request.partitions)
    if old is None:
        return (ErrorCode.INVALID_PRODUCER_ID_MAPPING,) * count
    error = _not_the_producer(old, request.producer_id, request.epoch)
    if error is not None:
        return (error,) * count
    if old.is_prepared:
        return (ErrorCode.CONCURRENT_TRANSACTIONS,) * count
    partitions = frozenset(old.partitions)
    return tuple(
        ErrorCode.NONE if partition in partitions else ErrorCode.TRANSACTION_ABORTABLE
        for partition in request.partitions
    )


def _not_the_producer(old: Transaction, producer_id: int, epoch: int) -> ErrorCode | None:
    if producer_id != old.producer_id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    # The epoch that only fences is nobody's, even if a client says it: a transaction in it could
    # never be fenced (KAFKA-20090).
    if epoch != old.epoch or epoch > limits.PRODUCER_EPOCH_MAX:
        return ErrorCode.PRODUCER_FENCED
    return None


# --- the end -------------------------------------------------------------------------------


def end(old: Transaction | None, request: EndTransaction, wall_ms: int) -> Verdict | Repeated:
    """Decide the transaction as its producer wishes."""
    if old is None:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    if request.client_version < _BUMP:
        return _end_plain(old, request, wall_ms)
    if old.is_prepared:
        # Before the producer: it may speak already with the id that follows (Kafka 4.0).
        return ErrorCode.CONCURRENT_TRANSACTIONS
    is_overflow = (
        request.producer_id == old.previous_producer_id
        and request.epoch == limits.PRODUCER_EPOCH_MAX
        and old.epoch == 0
        and request.producer_id != old.producer_id
    )
    if request.producer_id != old.producer_id and not is_overflow:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    # Only where the epoch moved on with the decision. A successor that speaks version 1 stays in
    # its epoch, and that must not be given to the producer that it has fenced.
    is_repeated = old.client_version >= _BUMP and request.epoch + 1 == old.epoch
    if is_overflow or is_repeated:
        return _end_repeated(old, request)
    error = None if is_overflow else _not_the_producer(old, request.producer_id, request.epoch)
    if error is not None:
        return error
    if old.is_ongoing:
        return _decided(old, request, wall_ms)
    # Nothing was added: that may be aborted, which moves the epoch on, but not committed. A
    # producer whose first batch was lost on its way knows no better (KIP-890).
    if request.is_commit:
        return ErrorCode.INVALID_TXN_STATE
    started_ms = _start_of(old, wall_ms)
    begun = replace(old, started_ms=started_ms, updated_ms=started_ms, partitions=())
    return _decided(begun, request, wall_ms)


def _end_repeated(old: Transaction, request: EndTransaction) -> ErrorCode | Repeated:
    """Judge a request with the epoch before the present one: the answer may have been lost."""
    match old.state:
        case TransactionState.COMPLETE_COMMIT:
            return Repeated() if request.is_commit else ErrorCode.INVALID_TXN_STATE
        case TransactionState.COMPLETE_ABORT:
            # A commit comes too late: the coordinator aborted first, and said so to nobody.
            # INVALID_TXN_STATE would be fatal to the whole application (KAFKA-20785). With the
            # last epoch there is nothing to go on with (KAFKA-20090).
            is_usable = old.epoch <= limits.PRODUCER_EPOCH_MAX
            return Repeated() if not request.is_commit and is_usable else ErrorCode.PRODUCER_FENCED
        case TransactionState.EMPTY | TransactionState.ONGOING:
            return ErrorCode.PRODUCER_FENCED
        case (
            TransactionState.PREPARE_COMMIT
            | TransactionState.PREPARE_ABORT
            | TransactionState.DEAD
            | TransactionState.PREPARE_EPOCH_FENCE
        ):
            raise AssertionError("not reached: prepared ones wait, the others are never kept")
        case _:
            assert_never(old.state)


def _end_plain(old: Transaction, request: EndTransaction, wall_ms: int) -> Verdict | Repeated:
    """Decide for a client of before KIP-890, whose epoch stays."""
    error = _not_the_producer(old, request.producer_id, request.epoch)
    if error is not None:
        return error
    match old.state:
        case TransactionState.ONGOING:
            return _decided(old, request, wall_ms)
        case TransactionState.PREPARE_COMMIT | TransactionState.PREPARE_ABORT:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        case TransactionState.COMPLETE_COMMIT:
            return Repeated() if request.is_commit else ErrorCode.INVALID_TXN_STATE
        case TransactionState.COMPLETE_ABORT:
            return ErrorCode.INVALID_TXN_STATE if request.is_commit else Repeated()
        case TransactionState.EMPTY:
            return ErrorCode.INVALID_TXN_STATE
        case TransactionState.DEAD | TransactionState.PREPARE_EPOCH_FENCE:
            raise AssertionError("not reached: such states are never kept")
        case _:
            assert_never(old.state)


def _decided(old: Transaction, request: EndTransaction, wall_ms: int) -> Transaction | ErrorCode:
    state = TransactionState.PREPARE_COMMIT if request.is_commit else TransactionState.PREPARE_ABORT
    decided = replace(
        old,
        previous_producer_id=old.producer_id,
        state=state,
        updated_ms=max(wall_ms, old.updated_ms),
        client_version=request.client_version,
    )
    if request.client_version < _BUMP:
        return decided
    decided = replace(decided, epoch=old.epoch + 1, last_epoch=old.epoch)
    if not old.is_exhausted:
        return decided
    if request.fresh_producer_id == NO_PRODUCER_ID:
        return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    return replace(decided, next_producer_id=request.fresh_producer_id)


def fenced_abort(
    old: Transaction, partitions: tuple[Partition, ...], version: int, wall_ms: int
) -> Transaction:
    """Abort with an epoch that nobody has: by timeout, for a successor, or after a push."""
    assert old.epoch <= limits.PRODUCER_EPOCH_MAX, "only an epoch in use needs to be fenced"
    assert not old.is_prepared, "a decision stands"
    started_ms = old.started_ms if old.is_ongoing else _start_of(old, wall_ms)
    return replace(
        old,
        previous_producer_id=old.producer_id,
        state=TransactionState.PREPARE_ABORT,
        epoch=old.epoch + 1,
        last_epoch=NO_EPOCH,
        partitions=partitions,
        updated_ms=max(wall_ms, old.updated_ms, started_ms),
        started_ms=started_ms,
        client_version=version,
    )


def complete(old: Transaction, wall_ms: int) -> Transaction:
    """Return what follows when every partition has its marker."""
    assert old.is_prepared
    done = replace(
        old,
        previous_producer_id=old.producer_id,
        state=TransactionState.COMPLETE_COMMIT
        if old.state is TransactionState.PREPARE_COMMIT
        else TransactionState.COMPLETE_ABORT,
        next_producer_id=NO_PRODUCER_ID,
        partitions=(),
        updated_ms=max(wall_ms, old.updated_ms),
    )
    if old.next_producer_id == NO_PRODUCER_ID:
        return done
    return replace(done, producer_id=old.next_producer_id, epoch=0)


def producer_after(prepared: Transaction) -> tuple[int, int]:
    """Return the id and epoch that the client of a decision goes on with."""
    if prepared.next_producer_id != NO_PRODUCER_ID:
        return prepared.next_producer_id, 0
    return prepared.producer_id, prepared.epoch


assert limits.PRODUCER_EPOCH_MAX + 1 == limits.INT16_MAX, "one epoch is left, which only fences"
