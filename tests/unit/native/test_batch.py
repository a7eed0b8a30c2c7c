"""Verdicts on record batches: what is good, what each lie earns, and that nothing reads outside."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane_native import (
    BATCH_REASONS,
    CHECK_NO_WALK,
    CHECK_REFUSE_ZSTD,
    CHECK_STORED,
    BatchCheck,
    address_of,
    check_batch,
    crc32c,
    walk_records,
)
from corelane_native._core import ffi, lib
from corelane_native.batch import PRODUCE_ROW
from tests.unit.native.batches import BASE_TIMESTAMP, batch, record, simple, varint

INVALID_RECORD, CORRUPT_MESSAGE, TOO_LARGE = 87, 2, 10
INVALID_TIMESTAMP, UNSUPPORTED_FORMAT, UNSUPPORTED_CODEC = 32, 43, 76


def check(data: bytes, bytes_max: int = -1, flags: int = 0) -> BatchCheck:
    """Judge bytes that lie at the very end of their memory, as a sanitizer would like."""
    copy = bytes(bytearray(data))
    return check_batch(address_of(copy), len(copy), bytes_max, flags)


def test_a_good_batch_tells_its_numbers() -> None:
    records = record(0, b"k", b"v", 5) + record(1, b"k", None, 9) + record(2, b"", b"", -3)
    data = batch(
        records, 3, producer_id=77, producer_epoch=2, base_sequence=10,
        max_timestamp=1, attributes=0x10,
    )  # fmt: skip
    assert check(data) == BatchCheck(
        error=0, reason=0, record_count=3, attributes=0x10, producer_id=77, producer_epoch=2,
        base_sequence=10, base_timestamp=BASE_TIMESTAMP, max_timestamp=BASE_TIMESTAMP + 9,
        keyless=0,
    )  # fmt: skip


def test_a_null_key_is_noticed() -> None:
    assert check(batch(record(0, b"k") + record(1, None), 2)).keyless == 1
    assert check(batch(record(0, b"k") + record(1, b""), 2)).keyless == 0


def test_compressed_records_are_not_walked() -> None:
    for codec in (1, 2, 3, 4):
        verdict = check(batch(b"not walked", 5, attributes=codec, max_timestamp=4))
        assert verdict.error == 0
        assert verdict.keyless == -1
        assert verdict.max_timestamp == 4


GOOD = record(0)
LIES = [
    (b"", INVALID_RECORD, lib.CL_BATCH_ABSENT),
    (simple([b"v"])[:16], INVALID_RECORD, lib.CL_BATCH_SHORT),
    (simple([b"v"])[:60], INVALID_RECORD, lib.CL_BATCH_SHORT),
    (simple([b"v"])[:-1], CORRUPT_MESSAGE, lib.CL_BATCH_CUT),
    (batch(GOOD, 1, length=-1), CORRUPT_MESSAGE, lib.CL_BATCH_CUT),
    (batch(GOOD, 1, length=2**31 - 1), CORRUPT_MESSAGE, lib.CL_BATCH_CUT),
    (batch(GOOD, 1, length=48), CORRUPT_MESSAGE, lib.CL_BATCH_CUT),
    (simple([b"v"]) + b"\0", INVALID_RECORD, lib.CL_BATCH_TRAILING),
    (simple([b"v"]) * 2, INVALID_RECORD, lib.CL_BATCH_TRAILING),
    (batch(GOOD, 1, magic=0), UNSUPPORTED_FORMAT, lib.CL_BATCH_OLD_FORMAT),
    (batch(GOOD, 1, magic=1), UNSUPPORTED_FORMAT, lib.CL_BATCH_OLD_FORMAT),
    (batch(GOOD, 1, magic=3), INVALID_RECORD, lib.CL_BATCH_UNKNOWN_FORMAT),
    (batch(GOOD, 1, magic=-1), INVALID_RECORD, lib.CL_BATCH_UNKNOWN_FORMAT),
    (batch(GOOD, 1, crc=1), CORRUPT_MESSAGE, lib.CL_BATCH_CRC_WRONG),
    (batch(GOOD, 1, base_offset=1), INVALID_RECORD, lib.CL_BATCH_BASE_OFFSET_SET),
    (batch(GOOD, 1, last_delta=1), INVALID_RECORD, lib.CL_BATCH_COUNT_WRONG),
    (batch(GOOD, 1, count=2), INVALID_RECORD, lib.CL_BATCH_COUNT_WRONG),
    (batch(b"", 0), INVALID_RECORD, lib.CL_BATCH_COUNT_WRONG),
    (batch(b"", -1), INVALID_RECORD, lib.CL_BATCH_COUNT_WRONG),
    (batch(b"", 1, last_delta=2**31 - 1, count=-(2**31)), 87, lib.CL_BATCH_COUNT_WRONG),
    (batch(GOOD, 1, attributes=0x20), INVALID_RECORD, lib.CL_BATCH_CONTROL_SET),
    (batch(GOOD, 1, attributes=0x08), INVALID_TIMESTAMP, lib.CL_BATCH_TIMESTAMP_TYPE_SET),
    (batch(GOOD, 1, attributes=0x40), INVALID_RECORD, lib.CL_BATCH_DELETE_HORIZON_SET),
    (batch(GOOD, 1, attributes=5), UNSUPPORTED_CODEC, lib.CL_BATCH_UNKNOWN_CODEC),
    (batch(GOOD, 1, attributes=7), UNSUPPORTED_CODEC, lib.CL_BATCH_UNKNOWN_CODEC),
    (batch(GOOD, 1, producer_id=1), INVALID_RECORD, lib.CL_BATCH_SEQUENCE_NEGATIVE),
    (batch(GOOD, 1, producer_id=1, base_sequence=0), 87, lib.CL_BATCH_EPOCH_NEGATIVE),
    (batch(GOOD, 1, attributes=0x10), 87, lib.CL_BATCH_TRANSACTION_WITHOUT_PRODUCER),
    (batch(GOOD + b"\0", 1), INVALID_RECORD, lib.CL_RECORDS_TRAILING),
    (batch(GOOD, 2), INVALID_RECORD, lib.CL_RECORD_LENGTH_WRONG),
    (batch(varint(1000) + GOOD, 1), INVALID_RECORD, lib.CL_RECORD_LENGTH_WRONG),
    (batch(varint(-1), 1), INVALID_RECORD, lib.CL_RECORD_LENGTH_WRONG),
    (batch(varint(0), 1), INVALID_RECORD, lib.CL_RECORD_LENGTH_WRONG),
    (batch(b"\xff" * 20, 1), INVALID_RECORD, lib.CL_RECORD_LENGTH_WRONG),
    (batch(record(0) + record(2), 2), INVALID_RECORD, lib.CL_RECORD_DELTA_WRONG),
    (batch(record(1), 1), INVALID_RECORD, lib.CL_RECORD_DELTA_WRONG),
    (batch(record(-1), 1), INVALID_RECORD, lib.CL_RECORD_DELTA_WRONG),
    (batch(varint(3) + b"\0\0\0", 1), INVALID_RECORD, lib.CL_RECORD_KEY_WRONG),
    (batch(varint(4) + b"\0\0\0" + varint(-2), 1), 87, lib.CL_RECORD_KEY_WRONG),
    (batch(varint(4) + b"\0\0\0\x02", 1), INVALID_RECORD, lib.CL_RECORD_KEY_WRONG),
    (batch(varint(5) + b"\0\0\0\x01\x03", 1), INVALID_RECORD, lib.CL_RECORD_VALUE_WRONG),
    (batch(varint(5) + b"\0\0\0\x01\x01", 1), INVALID_RECORD, lib.CL_RECORD_HEADERS_WRONG),
    (batch(varint(6) + b"\0\0\0\x01\x01\x01", 1), 87, lib.CL_RECORD_HEADERS_WRONG),
    (batch(varint(6) + b"\0\0\0\x01\x01\x7e", 1), 87, lib.CL_RECORD_HEADERS_WRONG),
    (batch(varint(8) + b"\0\0\0\x01\x01\x02\x01\x01", 1), 87, lib.CL_RECORD_HEADERS_WRONG),
    (batch(varint(7) + b"\0\0\0\x01\x01\0\0", 1), INVALID_RECORD, lib.CL_RECORD_TRAILING),
    (batch(varint(12) + b"\0" + b"\xff" * 11, 1), 87, lib.CL_RECORD_TIMESTAMP_WRONG),
    (
        batch(record(0, timestamp_delta=2**62), 1, base_timestamp=2**62 + 2**61),
        INVALID_RECORD,
        lib.CL_RECORD_TIMESTAMP_WRONG,
    ),
]


@pytest.mark.parametrize(("data", "error", "reason"), LIES)
def test_each_lie_earns_its_error(data: bytes, error: int, reason: int) -> None:
    verdict = check(data)
    assert (verdict.error, verdict.reason) == (error, reason), BATCH_REASONS[verdict.reason]


def test_every_reason_has_a_sentence_and_almost_every_one_a_lie() -> None:
    names = [name for name in dir(lib) if name.startswith(("CL_BATCH_", "CL_RECORD"))]
    assert sorted(BATCH_REASONS) == sorted(getattr(lib, name) for name in names)
    elsewhere = {lib.CL_BATCH_TOO_LARGE, lib.CL_BATCH_ZSTD_TOO_EARLY}
    assert {reason for _, _, reason in LIES} | elsewhere == set(BATCH_REASONS)
    assert all(sentence.endswith(".") for sentence in BATCH_REASONS.values())


def test_a_size_limit_counts_the_whole_batch() -> None:
    data = simple([b"value"])
    assert check(data, bytes_max=len(data)).error == 0
    assert check(data, bytes_max=len(data) - 1).error == TOO_LARGE


def test_zstd_can_be_refused() -> None:
    data = batch(b"...", 1, attributes=4)
    assert check(data, flags=CHECK_REFUSE_ZSTD).error == UNSUPPORTED_CODEC
    assert check(batch(b"...", 1, attributes=3), flags=CHECK_REFUSE_ZSTD).error == 0


def test_a_stored_batch_may_carry_what_only_the_log_sets() -> None:
    data = batch(b"", 0, base_offset=100, last_delta=4, attributes=0x68, producer_id=5)
    assert check(data).error == INVALID_RECORD
    assert check(data, flags=CHECK_STORED).error == 0
    assert check(data[:-1], flags=CHECK_STORED).error != 0


def test_the_walk_can_be_left_out() -> None:
    data = batch(b"not records", 1)
    assert check(data).error == INVALID_RECORD
    assert check(data, flags=CHECK_NO_WALK).error == 0


def test_every_cut_of_a_batch_is_refused() -> None:
    headers = [(b"name", b"value"), (b"", None)]
    data = batch(record(0, b"k" * 70, b"v" * 200, 300, headers) + record(1), 2)
    assert check(data).error == 0
    for size in range(len(data)):
        assert check(data[:size]).error != 0


def test_every_cut_of_the_records_is_found_by_the_walk() -> None:
    headers = [(b"name", b"value"), (b"", None)]
    records = record(0, b"k" * 70, b"v" * 200, 2**40, headers) + record(1, None, None, -1)
    assert walk_records(records, 2, 0).reason == 0
    for size in range(len(records)):
        assert walk_records(bytes(bytearray(records[:size])), 2, 0).reason != 0
    for at in range(len(records)):
        for value in (0x00, 0x7F, 0x80, 0xFF):
            changed = bytearray(records)
            changed[at] = value
            walk_records(changed, 2, 0)


def test_the_walk_finds_the_first_record_not_before_a_time() -> None:
    records = b"".join(record(at, b"k", b"v", delta) for at, delta in enumerate([5, 3, 9, 9, -1]))
    found = walk_records(records, 5, 1000, 1006)
    assert found == (0, 1009, False, 2, 1009)
    assert walk_records(records, 5, 1000, 1000)[3:] == (0, 1005)
    assert walk_records(records, 5, 1000, 1010)[3:] == (-1, -1)
    assert walk_records(records, 5, 1000)[3] == -1


RECORDS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.binary(max_size=80)),
        st.one_of(st.none(), st.binary(max_size=300)),
        st.integers(-(2**40), 2**40),
        st.lists(st.tuples(st.binary(max_size=5), st.one_of(st.none(), st.binary(max_size=5)))),
    ),
    min_size=1,
    max_size=20,
)


@given(RECORDS)
def test_any_true_batch_is_accepted(
    rows: list[tuple[bytes | None, bytes | None, int, list[tuple[bytes, bytes | None]]]],
) -> None:
    records = b"".join(
        record(at, key, value, delta, headers)
        for at, (key, value, delta, headers) in enumerate(rows)
    )
    verdict = check(batch(records, len(rows)))
    assert verdict.error == 0, BATCH_REASONS[verdict.reason]
    assert verdict.max_timestamp == BASE_TIMESTAMP + max(row[2] for row in rows)
    assert verdict.keyless == any(row[0] is None for row in rows)


@given(st.binary(max_size=200), st.integers(-(2**31), 2**31 - 1))
def test_random_bytes_never_hurt_the_walk(data: bytes, count: int) -> None:
    walk_records(data, count, 0, 0)


@given(st.binary(min_size=40, max_size=200))
def test_random_bytes_under_a_true_checksum_are_judged(rest: bytes) -> None:
    head = struct.pack(">qiibI", 0, 9 + len(rest), -1, 2, crc32c(rest))
    assert check(head + rest).error in {0, 2, 10, 32, 43, 76, 87}


def test_the_row_layout_is_that_of_c() -> None:
    assert PRODUCE_ROW.size == ffi.sizeof("cl_produce_row")
