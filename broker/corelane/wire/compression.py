"""The codecs a record batch may be compressed with, their output bounded on the way back."""

import zlib
from enum import IntEnum
from typing import Final

import cramjam
import lz4.frame  # type: ignore[import-untyped]
import zstandard

DECOMPRESSED_BYTES_MAX: Final = 512 * 1024 * 1024
"""No batch is unpacked beyond this: a few hostile kilobytes must not take the machine."""

_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = _XERIAL_MAGIC + (1).to_bytes(4, "big") + (1).to_bytes(4, "big")
_XERIAL_BLOCK_BYTES: Final = 32 * 1024
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class Compression(IntEnum):
    """The codec of a batch, by its number in the batch's attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class CompressionError(ValueError):
    """The bytes are not what their codec makes, or unpack to more than is allowed."""


def compress(codec: Compression, data: bytes) -> bytes:
    """Return *data* as a Java client would compress it."""
    match codec:
        case Compression.NONE:
            return data
        case Compression.GZIP:
            packer = zlib.compressobj(wbits=_GZIP_WINDOW)
            return packer.compress(data) + packer.flush()
        case Compression.SNAPPY:
            return _compress_xerial(data)
        case Compression.LZ4:
            # Java reads independent blocks only.
            return bytes(lz4.frame.compress(data, block_linked=False))
        case Compression.ZSTD:
            return zstandard.compress(data)


def decompress(codec: Compression, data: bytes, bytes_max: int = DECOMPRESSED_BYTES_MAX) -> bytes:
    """Return what *data* was before compression.

    Raises CompressionError if it is damaged or would be larger than *bytes_max*.
    """
    try:
        match codec:
            case Compression.NONE:
                plain = data
            case Compression.GZIP:
                plain = _decompress_gzip(data, bytes_max)
            case Compression.SNAPPY:
                plain = _decompress_snappy(data, bytes_max)
            case Compression.LZ4:
                plain = _decompress_lz4(data, bytes_max)
            case Compression.ZSTD:
                plain = zstandard.ZstdDecompressor().stream_reader(data).read(bytes_max + 1)
    except (zlib.error, zstandard.ZstdError, RuntimeError, cramjam.DecompressionError) as error:
        raise CompressionError(f"the {codec.name.lower()} data is damaged: {error}") from error
    if len(plain) > bytes_max:
        raise CompressionError(f"the {codec.name.lower()} data unpacks to over {bytes_max} bytes")
    return plain


def _decompress_gzip(data: bytes, bytes_max: int) -> bytes:
    """Return at most *bytes_max* + 1 plain bytes of one gzip member."""
    unpacker = zlib.decompressobj(wbits=_GZIP_WINDOW)
    plain = unpacker.decompress(data, bytes_max + 1)
    if not unpacker.eof and len(plain) <= bytes_max:
        raise CompressionError("the gzip data is damaged: it ends too early")
    return plain


def _decompress_lz4(data: bytes, bytes_max: int) -> bytes:
    """Return at most *bytes_max* + 1 plain bytes of one lz4 frame."""
    unpacker = lz4.frame.LZ4FrameDecompressor()
    plain = bytes(unpacker.decompress(data, bytes_max + 1))
    if not unpacker.eof and len(plain) <= bytes_max:
        raise CompressionError("the lz4 data is damaged: it ends too early")
    return plain


def _compress_xerial(data: bytes) -> bytes:
    """Return snappy in the framing of xerial's SnappyOutputStream, the only one Java reads."""
    parts = [_XERIAL_HEADER]
    for start in range(0, len(data), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(data[start : start + _XERIAL_BLOCK_BYTES]))
        parts += (len(block).to_bytes(4, "big"), block)
    return b"".join(parts)


def _decompress_snappy(data: bytes, bytes_max: int) -> bytes:
    """Return the plain bytes of xerial's framing (Java) or of one raw block (librdkafka)."""
    if not data.startswith(_XERIAL_MAGIC):
        return _decompress_snappy_block(data, bytes_max)
    parts: list[bytes] = []
    bytes_left = bytes_max
    at = len(_XERIAL_HEADER)
    while at + 4 <= len(data):
        block_bytes = int.from_bytes(data[at : at + 4], "big")
        at += 4
        if block_bytes > len(data) - at:
            raise CompressionError("the snappy data is damaged: a block is longer than the rest")
        part = _decompress_snappy_block(data[at : at + block_bytes], bytes_left)
        parts.append(part)
        bytes_left -= len(part)
        at += block_bytes
    if at != len(data):
        raise CompressionError("the snappy data is damaged: it ends inside a block's length")
    return b"".join(parts)


def _decompress_snappy_block(block: bytes, bytes_max: int) -> bytes:
    """Return the plain bytes of one raw block, whose claimed length is judged before it is used."""
    if cramjam.snappy.decompress_raw_len(block) > bytes_max:
        raise CompressionError(f"the snappy data unpacks to over {bytes_max} bytes")
    return bytes(cramjam.snappy.decompress_raw(block))
