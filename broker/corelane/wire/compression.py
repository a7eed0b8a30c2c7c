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
_PIECE_BYTES_MIN: Final = 64 * 1024
_ZSTD_INPUT_BYTES: Final = 1024
_FRAMES_MAX: Final = 100  # each costs a context, and gzip copies what follows it
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


LEVELS_DEFAULT: Final = {Compression.GZIP: -1, Compression.LZ4: 9, Compression.ZSTD: 3}
"""What Kafka's `compression.*.level` are by default; snappy has none."""


def compress(codec: Compression, data: bytes, level: int | None = None) -> bytes:
    """Return *data* as a Java client would compress it; *level* None: the library's own."""
    match codec:
        case Compression.NONE:
            return data
        case Compression.GZIP:
            packer = zlib.compressobj(-1 if level is None else level, wbits=_GZIP_WINDOW)
            return packer.compress(data) + packer.flush()
        case Compression.SNAPPY:
            return _compress_xerial(data)
        case Compression.LZ4:
            # Java reads independent blocks only.
            return bytes(lz4.frame.compress(data, block_linked=False, compression_level=level or 0))
        case Compression.ZSTD:
            return zstandard.compress(data, 3 if level is None else level)


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
                plain = _decompress_zstd(data, bytes_max)
    except (zlib.error, zstandard.ZstdError, RuntimeError, cramjam.DecompressionError) as error:
        raise CompressionError(f"the {codec.name.lower()} data is damaged: {error}") from error
    if len(plain) > bytes_max:
        raise CompressionError(f"the {codec.name.lower()} data unpacks to over {bytes_max} bytes")
    return plain


def _decompress_gzip(data: bytes, bytes_max: int) -> bytes:
    """Return at most *bytes_max* + 1 plain bytes of one gzip member after another (RFC 1952)."""
    parts: list[bytes] = []
    bytes_left = bytes_max + 1
    for _ in range(_FRAMES_MAX):
        unpacker = zlib.decompressobj(wbits=_GZIP_WINDOW)
        parts.append(unpacker.decompress(data, bytes_left))
        bytes_left -= len(parts[-1])
        if not unpacker.eof and bytes_left > 0:
            raise CompressionError("the gzip data is damaged: it ends too early")
        data = unpacker.unused_data
        if not data or bytes_left <= 0:
            return b"".join(parts)
    raise CompressionError(f"the gzip data is in over {_FRAMES_MAX} pieces")


def _decompress_lz4(data: bytes, bytes_max: int) -> bytes:
    """Return at most *bytes_max* + 1 plain bytes of one lz4 frame."""
    unpacker = lz4.frame.LZ4FrameDecompressor()
    parts: list[bytes] = []
    bytes_left = bytes_max + 1
    # The library reserves what it may return, so it may not return everything at once; the
    # pieces double, for it copies the rest of its input after each.
    piece_bytes = max(_PIECE_BYTES_MIN, 4 * len(data))
    while bytes_left > 0 and not unpacker.eof:
        part = bytes(unpacker.decompress(data, min(piece_bytes, bytes_left)))
        if not part and not unpacker.eof:
            raise CompressionError("the lz4 data is damaged: it ends too early")
        parts.append(part)
        bytes_left -= len(part)
        piece_bytes *= 2
        data = b""
    if unpacker.eof and unpacker.unused_data:
        raise CompressionError("the lz4 data is damaged: more follows its end")
    return b"".join(parts)


def _decompress_zstd(data: bytes, bytes_max: int) -> bytes:
    """Return over *bytes_max* or all plain bytes of one zstd frame after another (RFC 8878)."""
    # The library's stream reader takes a cut frame for a short one. Its other interface knows
    # no bound for its output, so it gets its input in pieces: a block of 4 bytes makes 128 KiB.
    parts: list[bytes] = []
    bytes_left = bytes_max + 1
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    at = frames = 0
    while at < len(data) and bytes_left > 0:
        if unpacker.eof:
            frames += 1
            if frames >= _FRAMES_MAX:
                raise CompressionError(f"the zstd data is in over {_FRAMES_MAX} pieces")
            unpacker = zstandard.ZstdDecompressor().decompressobj()
        piece = data[at : at + _ZSTD_INPUT_BYTES]
        parts.append(unpacker.decompress(piece))
        bytes_left -= len(parts[-1])
        at += len(piece) - len(unpacker.unused_data)
    if not unpacker.eof and bytes_left > 0:
        raise CompressionError("the zstd data is damaged: it ends too early")
    return b"".join(parts)


def _compress_xerial(data: bytes) -> bytes:
    """Return snappy in the framing of xerial's SnappyOutputStream, the only one Java reads."""
    parts = [_XERIAL_HEADER]
    for start in range(0, len(data), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(data[start : start + _XERIAL_BLOCK_BYTES]))
        parts += (len(block).to_bytes(4, "big"), block)
    return b"".join(parts)


def _decompress_snappy(data: bytes, bytes_max: int) -> bytes:
    """Return the plain bytes of xerial's framing (Java) or of one raw block (librdkafka).

    A block is judged by the length it claims before anything is allocated for it.
    """
    if not data.startswith(_XERIAL_MAGIC):
        _judge_snappy(data, bytes_max, 0)
        return bytes(cramjam.snappy.decompress_raw(data))
    parts: list[bytes] = []
    plain_bytes = 0
    at = len(_XERIAL_HEADER)
    while at + 4 <= len(data):
        block_bytes = int.from_bytes(data[at : at + 4], "big")
        at += 4
        if block_bytes > len(data) - at:
            raise CompressionError("the snappy data is damaged: a block is longer than the rest")
        block = data[at : at + block_bytes]
        _judge_snappy(block, bytes_max, plain_bytes)
        parts.append(bytes(cramjam.snappy.decompress_raw(block)))
        plain_bytes += len(parts[-1])
        at += block_bytes
    if at != len(data):
        raise CompressionError("the snappy data is damaged: it ends inside a block's length")
    return b"".join(parts)


def _judge_snappy(block: bytes, bytes_max: int, bytes_before: int) -> None:
    if bytes_before + cramjam.snappy.decompress_raw_len(block) > bytes_max:
        raise CompressionError(f"the snappy data unpacks to over {bytes_max} bytes")
