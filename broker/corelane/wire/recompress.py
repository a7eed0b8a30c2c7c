"""A batch with its records in another codec, for topics whose `compression.type` says which.

Pure and bounded, for work off the loop. Records are not changed, so offsets, times, producer and
count stay as they were; the length, the codec and the checksum are new.
"""

import struct
from typing import Final

from corelane.wire.batch import CODEC_MASK, HEADER_BYTES, LENGTH_END, RecordsFault, batch_header
from corelane.wire.compression import Compression, CompressionError, compress, decompress
from corelane_native import crc32c

_LENGTH: Final = struct.Struct(">i")
_CRC: Final = struct.Struct(">I")
_ATTRIBUTES: Final = struct.Struct(">h")
_LENGTH_AT: Final = 8
_CRC_AT: Final = 17
_COVERED_AT: Final = 21


def recompress(
    batch: bytes, codec: Compression, level: int, plain_bytes_max: int
) -> bytes | RecordsFault:
    """Return *batch* with its records in *codec*, or why its records cannot be read.

    *level* is the codec's own; what has none ignores it.
    """
    head = batch_header(batch)
    present = Compression(head.attributes & CODEC_MASK)
    try:
        plain = decompress(present, batch[HEADER_BYTES:], plain_bytes_max)
    except CompressionError as fault:
        return RecordsFault(str(fault))
    made = bytearray(batch[:HEADER_BYTES])
    made += compress(codec, plain, level)
    _LENGTH.pack_into(made, _LENGTH_AT, len(made) - LENGTH_END)
    _ATTRIBUTES.pack_into(made, _COVERED_AT, head.attributes & ~CODEC_MASK | codec)
    _CRC.pack_into(made, _CRC_AT, crc32c(bytes(made[_COVERED_AT:])))
    return bytes(made)
