"""What an entry of a partition's log means to its folds of producers and of transactions.

A transaction ends with a control batch of one record (Kafka's EndTransactionMarker):

    key    version int16 = 0, type int16: 0 abort, 1 commit
    value  version int16 = 0, coordinator epoch int32
"""

import struct
from typing import Final

from corelane.model.ids import Index, Offset, Term
from corelane.model.limits import INT32_MAX
from corelane.producers.open_transactions import Entry, Marker, TransactionalBatch
from corelane.producers.sequences import ProducedBatch
from corelane.wire.batch import HEADER_BYTES, BatchHeader
from corelane.wire.compression import Compression
from corelane.wire.records import BatchBuilder, Producer, encode_batch

TRANSACTIONAL: Final = 0x10
CONTROL: Final = 0x20
"""Of a batch's attributes."""

NO_SEQUENCE: Final = -1
_KEY: Final = struct.Struct(">hh")
_VALUE: Final = struct.Struct(">hi")
_COMMIT: Final = 1
_RECORD_HEAD_BYTES: Final = 5
"""Length, attributes, time and offset deltas and the key's length: each one byte here."""


def marker_batch(
    producer: Producer, *, is_commit: bool, coordinator_term: Term, wall_ms: int
) -> bytes:
    """Return the control batch that ends a producer's transaction."""
    assert 0 <= coordinator_term <= INT32_MAX
    builder = BatchBuilder()
    builder.append(wall_ms, _KEY.pack(0, int(is_commit)), _VALUE.pack(0, coordinator_term), ())
    assert producer.base_sequence == NO_SEQUENCE
    return encode_batch(builder.payload(Compression.NONE), producer, TRANSACTIONAL | CONTROL)


def produced(index: Index, head: BatchHeader) -> ProducedBatch | None:
    """Return the entry as the producer table has it; None: it has no sequence of its producer."""
    if head.producer_id < 0 or head.base_sequence < 0:
        return None
    return ProducedBatch(
        index,
        head.producer_id,
        head.producer_epoch,
        head.base_sequence,
        head.record_count,
        Offset(head.base_offset),
        head.max_timestamp,
    )


def transactional(index: Index, head: BatchHeader, data: bytes) -> Entry | None:
    """Return the entry as `OpenTransactions` has it; None: it is no part of a transaction.

    *data* is the whole batch, and looked at only if it is a marker. Only this broker writes
    control batches, so what is one has the layout above.
    """
    if not head.attributes & TRANSACTIONAL:
        return None
    offset = Offset(head.base_offset)
    if not head.attributes & CONTROL:
        return TransactionalBatch(
            index, head.producer_id, head.producer_epoch, offset, head.max_timestamp
        )
    at = HEADER_BYTES + _RECORD_HEAD_BYTES
    _version, kind = _KEY.unpack_from(data, at)
    _version, coordinator_term = _VALUE.unpack_from(data, at + _KEY.size + 1)
    return Marker(
        index,
        head.producer_id,
        head.producer_epoch,
        kind == _COMMIT,
        Term(coordinator_term),
        offset,
        head.max_timestamp,
    )
