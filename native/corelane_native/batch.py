"""Judging record batches, and searching entry rows."""

# performance-critical: see STYLE.md

import struct
from typing import Final, NamedTuple

from corelane_native._core import ffi, lib
from corelane_native.memory import Readable

BATCH_REASONS: Final[dict[int, str]] = {
    lib.CL_BATCH_ABSENT: "There is no record batch for this partition.",
    lib.CL_BATCH_SHORT: "The record batch is shorter than its 61-byte header.",
    lib.CL_BATCH_CUT: "The batch length does not fit the bytes that were sent.",
    lib.CL_BATCH_TRAILING: "Exactly one record batch per partition is allowed; more bytes follow.",
    lib.CL_BATCH_OLD_FORMAT: (
        "Message formats 0 and 1 are not supported: use a client for Kafka 0.11 or newer."
    ),
    lib.CL_BATCH_UNKNOWN_FORMAT: "The magic byte names no known message format; 2 is served.",
    lib.CL_BATCH_TOO_LARGE: "The record batch is larger than the topic's max.message.bytes.",
    lib.CL_BATCH_CRC_WRONG: "The checksum of the record batch is wrong: it was damaged on its way.",
    lib.CL_BATCH_BASE_OFFSET_SET: "The base offset of a batch from a producer must be 0.",
    lib.CL_BATCH_COUNT_WRONG: (
        "The record count must be at least 1 and equal the last offset delta + 1."
    ),
    lib.CL_BATCH_CONTROL_SET: "Producers may not write control batches.",
    lib.CL_BATCH_TIMESTAMP_TYPE_SET: "Producers must send create time; log append time is ours.",
    lib.CL_BATCH_DELETE_HORIZON_SET: "Producers may not set the delete horizon.",
    lib.CL_BATCH_UNKNOWN_CODEC: (
        "The compression codec is unknown; none, gzip, snappy, lz4 and zstd are served."
    ),
    lib.CL_BATCH_ZSTD_TOO_EARLY: "zstd needs Produce version 7 or newer: upgrade the client.",
    lib.CL_BATCH_SEQUENCE_NEGATIVE: "A batch with a producer id must have a sequence number.",
    lib.CL_BATCH_EPOCH_NEGATIVE: "A batch with a producer id must have a producer epoch.",
    lib.CL_BATCH_TRANSACTION_WITHOUT_PRODUCER: "A transactional batch must have a producer id.",
    lib.CL_RECORD_LENGTH_WRONG: "A record's length does not fit its batch.",
    lib.CL_RECORD_TIMESTAMP_WRONG: "A record's timestamp is malformed or out of range.",
    lib.CL_RECORD_DELTA_WRONG: "The offset deltas of the records must be 0, 1, 2 and so on.",
    lib.CL_RECORD_KEY_WRONG: "A record's key does not fit its record.",
    lib.CL_RECORD_VALUE_WRONG: "A record's value does not fit its record.",
    lib.CL_RECORD_HEADERS_WRONG: "A record's headers are malformed; header keys must not be null.",
    lib.CL_RECORD_TRAILING: "A record is longer than its key, value and headers.",
    lib.CL_RECORDS_TRAILING: "More bytes follow the last record of the batch.",
}
"""What a person should know about each reason; 0 (a good batch) has no sentence."""

CHECK_REFUSE_ZSTD: Final[int] = lib.CL_CHECK_REFUSE_ZSTD
CHECK_STORED: Final[int] = lib.CL_CHECK_STORED
CHECK_NO_WALK: Final[int] = lib.CL_CHECK_NO_WALK

COLUMN_NEXT_OFFSET: Final = 0
COLUMN_MAX_TIMESTAMP: Final = 2

NO_TIMESTAMP_WANTED: Final = 2**63 - 1

PRODUCE_ROW: Final = struct.Struct("@iiihhiiiiqiiqqi4x")
"""cl_produce_row, field by field."""

_WALK: Final = struct.Struct("@qqiii4x")
_RUN: Final = struct.Struct("@qqqq")


class BatchCheck(NamedTuple):
    """The verdict on one batch; all but `error` and `reason` count only where `error` is 0."""

    error: int
    reason: int
    record_count: int
    attributes: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    base_timestamp: int
    max_timestamp: int
    keyless: int


class Walk(NamedTuple):
    """What a walk over records found; only `reason` counts where it is not 0."""

    reason: int
    max_timestamp: int
    keyless: bool
    found_delta: int
    found_timestamp: int


class BatchRun(NamedTuple):
    """Whole batches from `start` (-1: none of them is wanted) to `end`.

    Their records go up to `next_offset`. With `is_cut` it is the data that ended there, and what
    follows them may go on.
    """

    start: int
    end: int
    next_offset: int
    is_cut: bool


def check_batch(address: int, size: int, bytes_max: int = -1, flags: int = 0) -> BatchCheck:
    """Judge the bytes at *address* as exactly one record batch.

    `error` is a Kafka error code, `reason` a key of `BATCH_REASONS`. *bytes_max* -1 is no limit;
    *flags* are CHECK_... bits. `max_timestamp` of an uncompressed batch is the true maximum;
    `keyless` is 1 with a null key, 0 without, -1 where the records were not walked.
    """
    assert 0 <= size < 2**31
    row = ffi.new("cl_produce_row *")
    lib.cl_check_batch(address, size, bytes_max, flags, row)
    words = PRODUCE_ROW.unpack(ffi.buffer(row))
    return BatchCheck(words[3], words[4], *words[7:])


def walk_records(
    data: Readable,
    record_count: int,
    base_timestamp: int,
    timestamp_wanted: int = NO_TIMESTAMP_WANTED,
) -> Walk:
    """Walk the (decompressed) records of a batch, without its header.

    Finds lying lengths, deltas and counts (`reason`), the largest timestamp, whether a key is
    null, and the first record with a timestamp >= *timestamp_wanted* (`found_delta` -1: none).
    """
    walk = ffi.new("cl_walk *")
    source = data if isinstance(data, bytes) else ffi.from_buffer(data)
    lib.cl_walk_records(source, len(source), record_count, base_timestamp, timestamp_wanted, walk)
    max_timestamp, found_timestamp, found_delta, keyless, reason = _WALK.unpack(ffi.buffer(walk))
    return Walk(reason, max_timestamp, keyless == 1, found_delta, found_timestamp)


_run = ffi.new("cl_batch_run *")
_run_bytes = ffi.buffer(_run)


def batches_run(
    address: int, size: int, offsets: tuple[int, int], bytes_max: int, *, first_always: bool
) -> BatchRun:
    """Find the batches from the one that holds the first offset on that end within *bytes_max*.

    All begin below the second offset. With *first_always* the first batch of the data counts
    whatever its size. For one thread.
    """
    assert bytes_max >= 0
    lib.cl_batches_run(address, size, *offsets, bytes_max, first_always, _run)
    start, end, next_offset, is_cut = _RUN.unpack(_run_bytes)
    return BatchRun(start, end, next_offset, is_cut != 0)


def entries_search(rows_address: int, row_count: int, column: int, key: int) -> int:
    """Return the first of *row_count* entry rows that matches, or *row_count*.

    Column 0: next offset > *key*. Column 2: running maximum timestamp >= *key*.
    The rows are 32 bytes each, without the header row.
    """
    assert column in {COLUMN_NEXT_OFFSET, COLUMN_MAX_TIMESTAMP}
    return lib.cl_entries_search(rows_address, row_count, column, key)
