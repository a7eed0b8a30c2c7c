"""The state of a partition as bytes, of all the forms that were ever written."""

import struct

import pytest

from corelane.model.ids import Index, Offset, Term
from corelane.producers.open_transactions import Marker, TransactionalBatch
from corelane.producers.sequences import ProducedBatch
from corelane.shard import partition_fold
from corelane.shard.partition_fold import FoldError, PartitionFold

HOUR_MS = 3_600_000
OFFSETS = "__consumer_offsets"


def fold(topic: str, *, has_transactions: bool) -> PartitionFold:
    kept = partition_fold.empty(topic, HOUR_MS)
    kept.producers.appended(ProducedBatch(Index(3), 5, 0, 0, 1, Offset(0), 1_000))
    if has_transactions:
        kept.transactions.appended(TransactionalBatch(Index(3), 5, 0, Offset(0), 1_000))
        kept.transactions.appended(TransactionalBatch(Index(4), 6, 1, Offset(1), 1_000))
        abort = Marker(Index(5), 6, 1, False, Term(8), Offset(2), 1_001)
        kept.transactions.appended(abort)
    if kept.latest is not None:
        kept.latest.skip(Index(5))
    kept.producers.committed(Index(5))
    kept.transactions.committed(Index(5))
    return kept


@pytest.mark.parametrize("topic", ["orders", OFFSETS])
def test_transactions_go_with_the_rest(topic: str) -> None:
    kept = fold(topic, has_transactions=True)
    again = partition_fold.decode(kept.encode(), topic, HOUR_MS)
    assert again.encode() == kept.encode()
    assert again.applied_index == 5
    assert again.transactions.last_stable_offset(Offset(3)) == 0
    (aborted,) = again.transactions.aborted_between(Offset(0), Offset(3))
    assert (aborted.producer_id, aborted.first_offset, aborted.last_offset) == (6, 1, 2)
    assert (again.latest is None) == (topic == "orders")


def test_where_there_never_was_a_transaction_the_bytes_are_those_of_before() -> None:
    """A checkpoint of an older version loads, and an older version loads one of these."""
    kept = fold("orders", has_transactions=False)
    assert kept.encode() == kept.producers.encode()
    again = partition_fold.decode(kept.encode(), "orders", HOUR_MS)
    assert again.transactions.committed_index == 5
    kept = fold(OFFSETS, has_transactions=False)
    assert kept.latest is not None
    producers, latest = kept.producers.encode(), kept.latest.encode()
    sizes = [struct.pack("<I", len(part)) for part in (producers, latest)]
    assert kept.encode() == b"\x02" + sizes[0] + producers + sizes[1] + latest
    assert partition_fold.decode(kept.encode(), OFFSETS, HOUR_MS).encode() == kept.encode()


@pytest.mark.parametrize("topic", ["orders", OFFSETS])
def test_a_state_that_is_cut_or_too_long_is_refused(topic: str) -> None:
    data = fold(topic, has_transactions=True).encode()
    for end in range(len(data)):
        with pytest.raises(FoldError):
            partition_fold.decode(data[:end], topic, HOUR_MS)
    with pytest.raises(FoldError, match="longer"):
        partition_fold.decode(data + b"x", topic, HOUR_MS)


def test_parts_of_different_entries_are_refused() -> None:
    kept = fold("orders", has_transactions=True)
    kept.producers.committed(Index(6))
    with pytest.raises(FoldError, match="same entries"):
        partition_fold.decode(kept.encode(), "orders", HOUR_MS)


def test_a_state_that_is_ahead_of_the_high_watermark_is_cut_to_it() -> None:
    """After a start: a checkpoint may be of more than the leader has said to be committed."""
    kept = partition_fold.empty("orders", HOUR_MS).transactions
    kept.appended(TransactionalBatch(Index(3), 5, 0, Offset(4), 1_000))
    kept.committed(Index(3))
    assert kept.last_stable_offset(Offset(3)) == 3
    assert kept.last_stable_offset(Offset(9)) == 4
