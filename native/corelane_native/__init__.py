"""The one Python door to the C core: typed functions over `_core`, which nobody else imports."""

from corelane_native.arena import Arena
from corelane_native.batch import (
    BATCH_REASONS,
    CHECK_NO_WALK,
    CHECK_REFUSE_ZSTD,
    CHECK_STORED,
    BatchCheck,
    Walk,
    check_batch,
    entries_search,
    walk_records,
)
from corelane_native.decode import (
    ROWS_MAX,
    Fetch,
    FetchRow,
    Produce,
    ProduceRow,
    decode_fetch,
    decode_produce,
)
from corelane_native.memory import address_of, bytes_at, crc32c, crc32c_portable, source_digest
from corelane_native.worker import (
    READ_PARTIAL,
    WRITE_CREATE,
    WRITE_DIRECT,
    WRITE_DSYNC,
    Done,
    Worker,
)

__all__ = [
    "BATCH_REASONS",
    "CHECK_NO_WALK",
    "CHECK_REFUSE_ZSTD",
    "CHECK_STORED",
    "READ_PARTIAL",
    "ROWS_MAX",
    "WRITE_CREATE",
    "WRITE_DIRECT",
    "WRITE_DSYNC",
    "Arena",
    "BatchCheck",
    "Done",
    "Fetch",
    "FetchRow",
    "Produce",
    "ProduceRow",
    "Walk",
    "Worker",
    "address_of",
    "bytes_at",
    "check_batch",
    "crc32c",
    "crc32c_portable",
    "decode_fetch",
    "decode_produce",
    "entries_search",
    "source_digest",
    "walk_records",
]
