"""Entries of transactions as the log has them, against Kafka's bytes."""

from corelane.model.ids import Index, Offset, Term
from corelane.producers.open_transactions import Marker, TransactionalBatch
from corelane.producers.sequences import ProducedBatch
from corelane.shard import transaction_entries
from corelane.shard.transaction_entries import NO_SEQUENCE, TRANSACTIONAL, marker_batch
from corelane.wire.batch import batch_header
from corelane.wire.compression import Compression
from corelane.wire.records import (
    BatchBuilder,
    Producer,
    batch_records,
    encode_batch,
    split_batches,
)

WALL_MS = 1_700_000_000_000


def made(*, is_commit: bool, term: int = 7) -> bytes:
    producer = Producer(4_711, 3, NO_SEQUENCE)
    return marker_batch(producer, is_commit=is_commit, coordinator_term=Term(term), wall_ms=WALL_MS)


def test_a_control_batch_has_the_78_bytes_that_kafka_writes() -> None:
    """Field by field as Kafka's MemoryRecords.writeEndTransactionalMarker lays them out."""
    data = made(is_commit=True)
    head = (
        "0000000000000000"  # base offset, given when it is appended
        "00000042"  # 66 bytes follow
        "ffffffff"  # leader epoch, given when it is appended
        "02"
    )
    covered = (
        "0030"  # transactional, control
        "00000000"  # last offset delta
        "0000018bcfe56800"  # both timestamps
        "0000018bcfe56800"
        "0000000000001267"  # producer id
        "0003"  # producer epoch
        "ffffffff"  # no sequence number
        "00000001"  # one record
    )
    record = (
        "20"  # 16 bytes
        "00"
        "00"
        "00"
        "08"  # of the key: version 0, type 1
        "00000001"
        "0c"  # of the value: version 0, coordinator epoch 7
        "000000000007"
        "00"  # no headers
    )
    assert data[:17].hex() == head
    assert data[21:].hex() == covered + record
    assert len(data) == 78


def test_its_checksum_is_right_and_it_reads_as_one_control_record() -> None:
    (batch,) = split_batches(made(is_commit=False))
    assert batch.is_control
    assert batch.is_transactional
    (read,) = batch_records(batch, "", 0)
    assert read.key == bytes.fromhex("00000000")
    assert read.value == bytes.fromhex("000000000007")


def test_a_marker_is_read_back_as_it_was_made() -> None:
    for is_commit in (True, False):
        data = made(is_commit=is_commit, term=9)
        entry = transaction_entries.transactional(Index(5), batch_header(data), data)
        assert entry == Marker(Index(5), 4_711, 3, is_commit, Term(9), Offset(0), WALL_MS)
        assert transaction_entries.produced(Index(5), batch_header(data)) is None


def test_a_batch_of_a_transaction_counts_for_its_producer_and_its_transaction() -> None:
    builder = BatchBuilder()
    for number in range(3):
        builder.append(WALL_MS + number, b"k", b"v", ())
    payload = builder.payload(Compression.NONE)
    head = batch_header(encode_batch(payload, Producer(1, 2, 30), TRANSACTIONAL))
    last_ms = WALL_MS + 2
    assert transaction_entries.transactional(Index(4), head, b"") == TransactionalBatch(
        Index(4), 1, 2, Offset(0), last_ms
    )
    assert transaction_entries.produced(Index(4), head) == ProducedBatch(
        Index(4), 1, 2, 30, 3, Offset(0), last_ms
    )
    plain = batch_header(encode_batch(payload, Producer(1, 2, 30)))
    assert transaction_entries.transactional(Index(4), plain, b"") is None
