"""A batch with its records in another codec, for topics whose `compression.type` says which.

Pure and bounded, for work off the loop. Records are looked at but not changed, so offsets, producer
and count stay as they were; the length, the codec, the largest time and the checksum are new.
"""

import struct
from typing import Final

from corelane.model.record import record
from corelane.wire.batch import (
    CODEC_MASK,
    HEADER_BYTES,
    LENGTH_END,
    RecordsFault,
    batch_header,
    plain_records,
)
from corelane.wire.compression import Compression, compress
from corelane_native import crc32c

_LENGTH: Final = struct.Struct(">i")
_CRC: Final = struct.Struct(">I")
_ATTRIBUTES: Final = struct.Struct(">h")
_LENGTH_AT: Final = 8
_TIME: Final = struct.Struct(">q")
_CRC_AT: Final = 17
_COVERED_AT: Final = 21
_MAX_TIMESTAMP_AT: Final = 35


@record
class Recompressed:
    """A batch with its records in another codec."""

    batch: bytes
    max_timestamp: int


def recompress(
    batch: bytes, codec: Compression, level: int, plain_bytes_max: int, *, keys_needed: bool
) -> Recompressed | RecordsFault:
    """Return *batch* with its records in *codec*, or why its records cannot be read.

    *level* is the codec's own; what has none ignores it.
    """
    head = batch_header(batch)
    plain = plain_records(batch, plain_bytes_max, keys_needed=keys_needed)
    if isinstance(plain, RecordsFault):
        return plain
    made = bytearray(batch[:HEADER_BYTES])
    made += compress(codec, plain.data, level)
    _LENGTH.pack_into(made, _LENGTH_AT, len(made) - LENGTH_END)
    _ATTRIBUTES.pack_into(made, _COVERED_AT, head.attributes & ~CODEC_MASK | codec)
    _TIME.pack_into(made, _MAX_TIMESTAMP_AT, plain.max_timestamp)
    _CRC.pack_into(made, _CRC_AT, crc32c(bytes(made[_COVERED_AT:])))
    return Recompressed(bytes(made), plain.max_timestamp)
