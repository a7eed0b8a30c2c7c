"""What is known of one transactional id, as the log of its coordinator has it."""

from enum import IntEnum
from typing import Final

from corelane.model import limits
from corelane.model.record import record

Partition = tuple[str, int]
"""A topic's name and the number of its partition, as Kafka's record names it."""

NO_PRODUCER_ID: Final = -1
NO_EPOCH: Final = -1
NO_TIME: Final = -1


class TransactionState(IntEnum):
    """Kafka's states by Kafka's numbers. The last two are known to tools and never written."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6
    PREPARE_EPOCH_FENCE = 7


STATE_NAMES: Final = {
    TransactionState.EMPTY: "Empty",
    TransactionState.ONGOING: "Ongoing",
    TransactionState.PREPARE_COMMIT: "PrepareCommit",
    TransactionState.PREPARE_ABORT: "PrepareAbort",
    TransactionState.COMPLETE_COMMIT: "CompleteCommit",
    TransactionState.COMPLETE_ABORT: "CompleteAbort",
    TransactionState.DEAD: "Dead",
    TransactionState.PREPARE_EPOCH_FENCE: "PrepareEpochFence",
}


@record
class Transaction:
    """One transactional id with its producer, and its last or present transaction."""

    producer_id: int
    previous_producer_id: int
    """The id before the last change of ids, for requests that are repeated across it."""
    next_producer_id: int
    """Of a Prepare state: the id that follows when it is complete; the epochs are used up."""
    epoch: int
    last_epoch: int
    """The epoch that an InitProducerId may repeat (KIP-360); none after a fence."""
    timeout_ms: int
    state: TransactionState
    partitions: tuple[Partition, ...]
    """Sorted, each once; kept until all of them have the marker."""
    updated_ms: int
    """Wall time, never going back for one id."""
    started_ms: int
    """Wall time of the first partition; of two transactions of one id never the same."""
    client_version: int
    """The transaction.version spoken by who made the last step; 2 has an epoch each (KIP-890)."""

    @property
    def is_prepared(self) -> bool:
        """Whether it is decided and markers are still to be written."""
        return self.state in {TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT}

    @property
    def is_ongoing(self) -> bool:
        """Whether partitions may have records that nobody has decided about."""
        return self.state is TransactionState.ONGOING

    @property
    def is_exhausted(self) -> bool:
        """Whether no further epoch may be given out for this producer id."""
        return self.epoch >= limits.PRODUCER_EPOCH_MAX


@record
class TransactionRecord:
    """One record of the log: all that is known of an id now; None: it is forgotten."""

    transactional_id: str
    transaction: Transaction | None
