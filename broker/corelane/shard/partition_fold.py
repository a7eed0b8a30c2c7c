"""What a partition keeps beside its records, as one value in checkpoints, snapshots and parcels.

    u8 2 | u32 size, producers | u32 size, latest
    u8 3 | u32 size, producers | u32 size, transactions | u32 size, latest

Without the other parts it is the producers alone, whose first byte is their own format, 1. The
transactions are left out (format 2, or 1) where there never were any.
"""

import struct
from typing import Final

from corelane.model import limits
from corelane.model.ids import Index
from corelane.model.internal_topics import INTERNAL_TOPICS
from corelane.model.record import record
from corelane.producers.open_transactions import OpenTransactions, OpenTransactionsError
from corelane.producers.sequences import ProducersError, ProducerTable
from corelane.shard.latest import LatestByKey, LatestError

_KEPT: Final = 2
_TRANSACTIONAL: Final = 3
_SIZE: Final = struct.Struct("<I")


class FoldError(ValueError):
    """Bytes that are no partition's fold."""


@record
class PartitionFold:
    """The folds of one partition's committed entries, all of the same ones."""

    producers: ProducerTable
    transactions: OpenTransactions
    latest: LatestByKey | None
    """Of the topics whose records coordinators write; None for all others."""

    @property
    def applied_index(self) -> Index:
        """Return up to where entries are part of it."""
        return self.producers.committed_index

    def encode(self) -> bytes:
        """Return the fold as bytes."""
        parts = [self.producers.encode()]
        if self.latest is None and self.transactions.is_unused:
            return parts[0]
        form = _KEPT if self.transactions.is_unused else _TRANSACTIONAL
        if form == _TRANSACTIONAL:
            parts.append(self.transactions.to_bytes())
        parts.append(b"" if self.latest is None else self.latest.encode())
        sized = [_SIZE.pack(len(part)) + part for part in parts]
        return b"".join((bytes((form,)), *sized))


def empty(topic: str, id_expiration_ms: int) -> PartitionFold:
    """Return the fold of a log without entries."""
    producers = ProducerTable(id_expiration_ms, limits.PRODUCERS_PER_PARTITION_MAX)
    transactions = OpenTransactions(id_expiration_ms)
    latest = LatestByKey() if topic in INTERNAL_TOPICS else None
    return PartitionFold(producers, transactions, latest)


def decode(data: bytes, topic: str, id_expiration_ms: int) -> PartitionFold:
    """Return the fold that *data* is; raises FoldError."""
    parts = [data]
    form = data[0] if data else 0
    if form in {_KEPT, _TRANSACTIONAL}:
        at = 1
        parts = []
        for _ in range(form):
            part, at = _part(data, at)
            parts.append(part)
        if at != len(data):
            raise FoldError("the state of a partition is longer than it says")
    is_kept = topic in INTERNAL_TOPICS
    if is_kept and len(parts) == 1:
        raise FoldError("the state of a coordinator's partition has no known format")
    try:
        producers = ProducerTable.decode(
            parts[0], id_expiration_ms, limits.PRODUCERS_PER_PARTITION_MAX
        )
        transactions = OpenTransactions(id_expiration_ms)
        if form == _TRANSACTIONAL:
            transactions = transactions.other(parts[1])
            if transactions.committed_index != producers.committed_index:
                raise FoldError("the parts of a partition's state are not of the same entries")
        transactions.committed(producers.committed_index)
        latest = LatestByKey.decode(parts[-1]) if is_kept else None
    except (ProducersError, OpenTransactionsError, LatestError) as fault:
        raise FoldError(str(fault)) from fault
    return PartitionFold(producers, transactions, latest)


def _part(data: bytes, at: int) -> tuple[bytes, int]:
    if at + _SIZE.size > len(data):
        raise FoldError("the state of a partition ends in the middle")
    (size,) = _SIZE.unpack_from(data, at)
    end = at + _SIZE.size + size
    if end > len(data):
        raise FoldError("the state of a partition ends in the middle")
    return data[at + _SIZE.size : end], end
