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

__all__ = [
    "BATCH_REASONS",
    "CHECK_NO_WALK",
    "CHECK_REFUSE_ZSTD",
    "CHECK_STORED",
    "ROWS_MAX",
    "Arena",
    "BatchCheck",
    "Fetch",
    "FetchRow",
    "Produce",
    "ProduceRow",
    "Walk",
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
