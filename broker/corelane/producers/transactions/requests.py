"""What a coordinator is asked, and what it answers."""

from enum import Enum
from typing import Final

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane.producers.transactions.records import (
    NO_EPOCH,
    NO_PRODUCER_ID,
    NO_TIME,
    Partition,
    Transaction,
    TransactionRecord,
    TransactionState,
)

TRANSACTIONAL_ID_BYTES_MAX: Final = 2_048
"""Kafka takes what a string can hold; a log of such keys would be a gift to its author."""

PARTITIONS_MAX: Final = 4_000
"""Of one transaction. Each with a topic name of its own, a record still fits a default batch."""

STEPS_MAX: Final = 256
"""Timeouts and forgotten ids of one `tick`; the next comes at once, in a batch of its own."""

LISTED_MAX: Final = 100_000
"""Rows of one ListTransactions answer."""


@record
class TransactionSettings:
    """What an operator chooses, with Kafka's defaults."""

    timeout_max_ms: int = 15 * 60_000
    """`transaction.max.timeout.ms`."""
    id_expiration_ms: int = 7 * 24 * 3_600_000
    """`transactional.id.expiration.ms`."""
    version: int = 2
    """The finalized `transaction.version`, for what the coordinator does of its own."""
    ids_max: int = 100_000
    """Transactional ids of one coordinator; a further one is refused."""


# --- requests ------------------------------------------------------------------------------


@record
class InitProducerId:
    """A producer begins, or goes on after an error with the id and epoch it had (KIP-360)."""

    transactional_id: str
    timeout_ms: int
    fresh_producer_id: int
    """An id nobody has had, reserved when this very request arrived; used or not."""
    producer_id: int = NO_PRODUCER_ID
    epoch: int = NO_EPOCH


@record
class AddPartitions:
    """Partitions become part of the transaction; also AddOffsetsToTxn, with the one of the group.

    Version 2 is asked by the leader of a partition, for a batch that it has parked (KIP-890).
    """

    transactional_id: str
    producer_id: int
    epoch: int
    partitions: tuple[Partition, ...]
    client_version: int = 1


@record
class VerifyPartitions:
    """Are these partitions part of the transaction? (AddPartitionsToTxn with verify_only.)"""

    transactional_id: str
    producer_id: int
    epoch: int
    partitions: tuple[Partition, ...]


@record
class EndTransaction:
    """EndTxn; from its version 5 on with client version 2."""

    transactional_id: str
    producer_id: int
    epoch: int
    is_commit: bool
    client_version: int = 1
    fresh_producer_id: int = NO_PRODUCER_ID
    """Needed with client version 2: the epochs may come to their end here."""


@record
class Push:
    """A partition asks about a transaction that has been open there for too long.

    Its log does not name the transactional id, so all coordinators may have to be asked.
    """

    producer_id: int
    epoch: int
    partition: Partition


@record
class DescribeTransaction:
    """DescribeTransactions, for one id."""

    transactional_id: str


@record
class ListTransactions:
    """ListTransactions; empty filters let everything pass."""

    states: tuple[str, ...] = ()
    producer_ids: tuple[int, ...] = ()
    duration_ms: int = -1
    """Only those that have been going on for longer (version 1)."""


Request = (
    AddPartitions
    | VerifyPartitions
    | EndTransaction
    | InitProducerId
    | Push
    | DescribeTransaction
    | ListTransactions
)


# --- answers -------------------------------------------------------------------------------


@record
class ProducerAnswer:
    """To InitProducerId and EndTransaction; the id and epoch to go on with."""

    error: ErrorCode
    producer_id: int = NO_PRODUCER_ID
    epoch: int = NO_EPOCH


@record
class PartitionsAnswer:
    """To AddPartitions and VerifyPartitions."""

    errors: tuple[ErrorCode, ...]
    """One for each partition of the request, in its order."""
    started_ms: int = NO_TIME
    """Which transaction it is, for `OpenTransactions.verified`."""


class PushVerdict(Enum):
    """What a partition that has asked must do."""

    WAIT = "wait"
    """The transaction is alive, or its marker is on its way: ask again later."""
    ABORT = "abort"
    """No marker will ever come: write an abort marker with the epoch of the answer, if the very
    transaction that was asked about is still open (same producer id, same first offset).
    """
    UNKNOWN = "unknown"
    """Not here. Where every coordinator says so, nobody can ever commit it."""


@record
class PushAnswer:
    """To Push."""

    verdict: PushVerdict
    epoch: int = NO_EPOCH


@record
class DescribeAnswer:
    """To DescribeTransaction; without an error there is a transaction."""

    error: ErrorCode
    transaction: Transaction | None = None


@record
class ListedTransaction:
    """One row of ListTransactions."""

    transactional_id: str
    producer_id: int
    state: TransactionState


@record
class ListAnswer:
    """To ListTransactions."""

    rows: tuple[ListedTransaction, ...]
    unknown_states: tuple[str, ...]


Answer = ProducerAnswer | PartitionsAnswer | PushAnswer | DescribeAnswer | ListAnswer


@record
class Answered:
    """An answer, and the token its request came with."""

    token: int
    answer: Answer


@record
class MarkerWork:
    """A decision that has to reach these partitions, until each has acknowledged it.

    The driver adds its own term (the coordinator epoch on the wire), and to each attempt the term
    of the partition's leader that it is meant for: an attempt that outlives that leader is
    refused there, so that it cannot end a later transaction.
    """

    transactional_id: str
    producer_id: int
    epoch: int
    is_commit: bool
    client_version: int
    """2: the marker has an epoch above every record of its transaction (KIP-890)."""
    started_ms: int
    """Which transaction it is: with version 1 the next one has the same epoch."""
    partitions: tuple[Partition, ...]


@record
class Outcome:
    """What has come of everything since the last one, in order.

    The driver appends the records as one batch, all or none. Answers and markers leave when that
    batch, and every one before it, is committed, and answers without records only while the
    driver still knows that it leads: a verification from a coordinator that has been replaced
    could be wrong.
    """

    records: tuple[TransactionRecord, ...]
    answers: tuple[Answered, ...]
    markers: tuple[MarkerWork, ...]


# --- versions ------------------------------------------------------------------------------

_FENCED_FROM: Final = {
    "InitProducerId": 4,
    "AddPartitionsToTxn": 2,
    "AddOffsetsToTxn": 2,
    "EndTxn": 2,
}
"""The versions from which clients know PRODUCER_FENCED (KIP-588)."""


def error_at_version(error: ErrorCode, api_name: str, version: int) -> ErrorCode:
    """Return *error* as clients of that version know it."""
    if error is ErrorCode.PRODUCER_FENCED and version < _FENCED_FROM[api_name]:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return error
