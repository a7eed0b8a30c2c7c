"""What a Produce client hears when its transaction could not be verified, by its version.

As Kafka translates it (AddPartitionsToTxnManager and ReplicaManager): clients that know no better
are told something that they try again, and that needs no new metadata.
"""

from typing import Final

from corelane.model.errors import ErrorCode

ABORTABLE_FROM: Final = 11
"""From here on clients know TRANSACTION_ABORTABLE (KIP-890, KIP-1050)."""
TRANSACTION_VERSION_2_FROM: Final = 12
"""From here on a batch makes its partition part of the transaction (KIP-890, part 2)."""

_TO_BE_TRIED_AGAIN: Final = frozenset(
    {
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.REQUEST_TIMED_OUT,
    }
)


def unverified(error: ErrorCode, version: int) -> tuple[ErrorCode, str]:
    """Return the error and the sentence for a batch whose coordinator said *error*."""
    if error in _TO_BE_TRIED_AGAIN:
        said = f"the transaction's coordinator could not be asked ({error.name}): retry in a moment"
        return ErrorCode.NOT_ENOUGH_REPLICAS, said
    if error is ErrorCode.NOT_ENOUGH_REPLICAS:
        return error, "too many batches wait for the transaction's coordinator: retry in a moment"
    if error is ErrorCode.CONCURRENT_TRANSACTIONS:
        said = "the producer's transaction before is still being ended: retry in a moment"
        is_known = version >= TRANSACTION_VERSION_2_FROM
        return error if is_known else ErrorCode.NOT_ENOUGH_REPLICAS, said
    if error is ErrorCode.PRODUCER_FENCED:
        error = ErrorCode.INVALID_PRODUCER_EPOCH
    if error is ErrorCode.TRANSACTION_ABORTABLE and version < ABORTABLE_FROM:
        error = ErrorCode.INVALID_TXN_STATE
    if error in {ErrorCode.INVALID_TXN_STATE, ErrorCode.TRANSACTION_ABORTABLE}:
        return error, "the partition is not part of the producer's transaction: abort it"
    return error, "the transaction's coordinator refuses the batch"
