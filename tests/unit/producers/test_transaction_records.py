"""The bytes of a coordinator's records, pinned and there and back again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane.producers.transactions.records import (
    Transaction,
    TransactionRecord,
    TransactionState,
)
from corelane.shard.transaction_records import decode, encode
from corelane.wire.errors import DecodeError

ONGOING = Transaction(
    producer_id=7,
    previous_producer_id=7,
    next_producer_id=-1,
    epoch=3,
    last_epoch=-1,
    timeout_ms=60_000,
    state=TransactionState.ONGOING,
    partitions=(("a", 0), ("a", 2), ("bc", 1)),
    updated_ms=1_000,
    started_ms=999,
    client_version=2,
)

PINNED = [
    ("0001", "version 1, the first flexible one"),
    ("0000000000000007", "producer id"),
    ("0003", "epoch"),
    ("0000ea60", "timeout"),
    ("01", "Ongoing"),
    ("03", "two topics"),
    ("02 61 03 00000000 00000002 00", "a, its partitions and no tags"),
    ("03 6263 02 00000001 00", "bc, its partition and no tags"),
    ("00000000000003e8", "updated"),
    ("00000000000003e7", "started"),
    ("02", "two tagged fields"),
    ("00 08 0000000000000007", "previous producer id"),
    ("02 02 0002", "the client's transaction version"),
]

int64 = st.integers(-1, 2**63 - 1)
int16 = st.integers(-1, 2**15 - 1)
partitions = st.lists(
    st.tuples(st.text(max_size=5), st.integers(0, 2**31 - 1)), max_size=6, unique=True
)
transactions = st.builds(
    Transaction,
    producer_id=int64,
    previous_producer_id=int64,
    next_producer_id=int64,
    epoch=int16,
    last_epoch=int16,
    timeout_ms=st.integers(0, 2**31 - 1),
    state=st.sampled_from(
        [
            TransactionState.ONGOING,
            TransactionState.PREPARE_COMMIT,
            TransactionState.PREPARE_ABORT,
            TransactionState.COMPLETE_COMMIT,
            TransactionState.COMPLETE_ABORT,
        ]
    ),
    partitions=partitions.map(lambda found: tuple(sorted(found))),
    updated_ms=int64,
    started_ms=int64,
    client_version=st.integers(0, 3),
)


def test_the_bytes_are_those_of_the_published_description() -> None:
    key, value = encode(TransactionRecord("id", ONGOING))
    assert key.hex(" ") == "00 00 00 02 69 64"
    assert value is not None
    assert value == b"".join(bytes.fromhex(part) for part, _ in PINNED)


def test_an_empty_transaction_has_null_for_partitions_and_our_tag_is_out_of_the_way() -> None:
    empty = Transaction(1, -1, -1, 5, 4, 10, TransactionState.EMPTY, (), 2, -1, 0)
    _, value = encode(TransactionRecord("x", empty))
    assert value is not None
    assert value.hex() == (
        "0001000000000000000100050000000a00000000000000000002ffffffffffffffff01e807020004"
    )
    assert decode(encode(TransactionRecord("x", empty))[0], value).transaction == empty


def test_a_forgotten_id_is_a_tombstone() -> None:
    record = TransactionRecord("gone", None)
    key, value = encode(record)
    assert value is None
    assert decode(key, value) == record


def test_version_0_is_read_as_older_brokers_wrote_it() -> None:
    key, _ = encode(TransactionRecord("id", None))
    value = bytes.fromhex(
        "0000"
        "0000000000000007"
        "0003"
        "0000ea60"
        "04"
        "00000001"
        "0001"
        "61"
        "00000002"
        "00000005"
        "00000001"
        "0000000000000009"
        "0000000000000008"
    )
    found = decode(key, value).transaction
    assert found == Transaction(
        7, -1, -1, 3, -1, 60_000, TransactionState.COMPLETE_COMMIT, (("a", 1), ("a", 5)), 9, 8, 0
    )


def test_unknown_tags_of_a_later_version_of_the_broker_are_passed_over() -> None:
    key, value = encode(TransactionRecord("id", ONGOING))
    assert value is not None
    at = value.rindex(bytes.fromhex("020008"))
    later = value[:at] + b"\x03" + value[at + 1 :] + bytes.fromhex("0701ff")
    assert decode(key, later).transaction == ONGOING


@given(st.text(min_size=1, max_size=9), transactions)
def test_every_record_comes_back_as_it_was(name: str, transaction: Transaction) -> None:
    record = TransactionRecord(name, transaction)
    assert decode(*encode(record)) == record


@given(transactions, st.data())
def test_bytes_that_are_cut_are_an_error_of_their_own_kind(
    transaction: Transaction, data: st.DataObject
) -> None:
    key, value = encode(TransactionRecord("id", transaction))
    assert value is not None
    size = data.draw(st.integers(0, len(value) - 1))
    with pytest.raises(DecodeError):
        decode(key, value[:size])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("0001000161", None),
        ("00000001", None),
        ("0000ffff", None),
        ("000000016100", None),
        ("0000000161", "0002"),
        ("0000000161", "0001" + "00" * 14 + "06" + "00" * 18),
        ("0000000161", "0001" + "00" * 14 + "09" + "00" * 18),
        ("0000000161", "0001" + "00" * 15 + "00" + "00" * 16 + "00" + "00"),
        ("0000000161", "0001" + "00" * 15 + "00" + "00" * 16 + "01" + "0001" + "00"),
    ],
)
def test_what_is_no_record_is_refused(key: str, value: str | None) -> None:
    with pytest.raises(DecodeError):
        decode(bytes.fromhex(key), None if value is None else bytes.fromhex(value))
