"""The codecs of a batch against the ways other libraries frame them, and against damage.

Only CompressionError may come out of bytes that are not what they claim to be.
"""

import gzip
import random
import struct
import time
import tracemalloc
import zlib

import cramjam
import lz4.frame  # type: ignore[import-untyped]
import pytest
import zstandard

from corelane.wire.compression import Compression, CompressionError, compress, decompress

CODECS = [codec for codec in Compression if codec is not Compression.NONE]
PLAIN = b"".join(b"record %d of a batch\0" % i for i in range(4000))
XERIAL = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
MIB = 1024 * 1024


def xerial(*blocks: bytes) -> bytes:
    """Return the framing of Java's SnappyOutputStream around raw blocks."""
    return XERIAL + b"".join(struct.pack(">i", len(b)) + b for b in blocks)


def raw_snappy(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))


def zstd_stream(*pieces: bytes) -> bytes:
    """Return one frame of unknown size that was flushed after each piece."""
    stream = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return b"".join(stream.compress(p) + stream.flush(block) for p in pieces) + stream.flush()


# What clients send, by name: (codec, bytes that unpack to PLAIN).
SENT = {
    "gzip": (Compression.GZIP, gzip.compress(PLAIN)),
    "gzip, level 1, with a name": (
        Compression.GZIP,
        b"\x1f\x8b\x08\x08" + bytes(6) + b"name\0" + gzip.compress(PLAIN, 1)[10:],
    ),
    "gzip in two members": (
        Compression.GZIP,
        gzip.compress(PLAIN[:1000]) + gzip.compress(PLAIN[1000:]),
    ),
    "snappy, one raw block (librdkafka)": (Compression.SNAPPY, raw_snappy(PLAIN)),
    "snappy of Java": (
        Compression.SNAPPY,
        xerial(*(raw_snappy(PLAIN[i : i + 32_768]) for i in range(0, len(PLAIN), 32_768))),
    ),
    "snappy of Java in uneven blocks": (
        Compression.SNAPPY,
        xerial(raw_snappy(PLAIN[:1]), raw_snappy(b""), raw_snappy(PLAIN[1:])),
    ),
    "snappy of Java, later version": (
        Compression.SNAPPY,
        b"\x82SNAPPY\x00" + struct.pack(">ii", 2, 1) + xerial(raw_snappy(PLAIN))[16:],
    ),
    "lz4 of Java: independent 64 KiB blocks": (
        Compression.LZ4,
        lz4.frame.compress(PLAIN, block_linked=False, block_size=4, store_size=False),
    ),
    "lz4 of librdkafka: content size, linked blocks": (
        Compression.LZ4,
        lz4.frame.compress(PLAIN, block_linked=True, store_size=True),
    ),
    "lz4 with checksums, 4 MiB blocks": (
        Compression.LZ4,
        lz4.frame.compress(PLAIN, content_checksum=True, block_checksum=True, block_size=7),
    ),
    "zstd with its size": (Compression.ZSTD, zstandard.compress(PLAIN)),
    "zstd without its size": (
        Compression.ZSTD,
        zstandard.ZstdCompressor(write_content_size=False).compress(PLAIN),
    ),
    "zstd as a stream, with a checksum": (
        Compression.ZSTD,
        zstd_stream(PLAIN[:999], PLAIN[999:]),
    ),
    "zstd in two frames": (
        Compression.ZSTD,
        zstandard.compress(PLAIN[:1000]) + zstandard.compress(PLAIN[1000:]),
    ),
}


@pytest.mark.parametrize("name", SENT)
def test_what_other_libraries_make_is_read(name: str) -> None:
    codec, packed = SENT[name]
    assert decompress(codec, packed) == PLAIN
    assert decompress(codec, packed, len(PLAIN)) == PLAIN


@pytest.mark.parametrize("name", SENT)
def test_one_byte_over_the_bound_is_refused(name: str) -> None:
    codec, packed = SENT[name]
    for bytes_max in (0, 1, len(PLAIN) // 2, len(PLAIN) - 1):
        with pytest.raises(CompressionError, match=f"unpacks to over {bytes_max} bytes"):
            decompress(codec, packed, bytes_max)


def test_what_we_make_is_what_other_libraries_read() -> None:
    assert gzip.decompress(compress(Compression.GZIP, PLAIN)) == PLAIN
    assert lz4.frame.decompress(compress(Compression.LZ4, PLAIN)) == PLAIN
    assert zstandard.decompress(compress(Compression.ZSTD, PLAIN)) == PLAIN
    assert compress(Compression.SNAPPY, b"x" * 100) == xerial(raw_snappy(b"x" * 100))
    flags = compress(Compression.LZ4, PLAIN)[4]
    assert flags >> 5 & 1, "independent blocks: the only ones Java reads"


@pytest.mark.parametrize("codec", Compression)
@pytest.mark.parametrize("size", [0, 1, 32_767, 32_768, 32_769, 3 * MIB])
def test_what_goes_in_comes_out(codec: Compression, size: int) -> None:
    for data in (bytes(size), random.Random(size).randbytes(size)):
        assert decompress(codec, compress(codec, data), size) == data


@pytest.mark.parametrize("name", SENT)
def test_cut_at_any_byte_it_is_refused_or_what_was_there(name: str) -> None:
    codec, packed = SENT[name]
    whole = {16} if codec is Compression.SNAPPY else set()  # Java's frame of no blocks
    cuts = [*range(120), *range(120, len(packed), 97), *range(len(packed) - 20, len(packed))]
    for size in cuts:
        if size >= len(packed):
            continue
        try:
            plain = decompress(codec, packed[:size], 2 * len(PLAIN))
        except CompressionError:
            continue
        # Between two members, frames or blocks a cut cannot be seen here; record counts see it.
        is_between = "two" in name or "Java" in name
        assert is_between or size in whole, size
        assert PLAIN.startswith(plain)


@pytest.mark.parametrize("name", SENT)
def test_damage_never_raises_anything_else(name: str) -> None:
    codec, packed = SENT[name]
    rng = random.Random(name)
    for _ in range(300):
        damaged = bytearray(packed)
        for _ in range(rng.choice((1, 1, 4))):
            at = rng.randrange(24) if rng.random() < 0.6 else rng.randrange(len(packed))
            damaged[at] = rng.randrange(256)
        noise = packed[: rng.randrange(24)] + rng.randbytes(rng.randrange(80))
        for data in (bytes(damaged), noise):
            try:
                assert len(decompress(codec, data, 200_000)) <= 200_000
            except CompressionError as fault:
                words = str(fault)
                assert words.startswith(f"the {codec.name.lower()} data")


@pytest.mark.parametrize("codec", CODECS)
def test_what_follows_the_end_is_refused(codec: Compression) -> None:
    with pytest.raises(CompressionError):
        decompress(codec, compress(codec, b"hello" * 10) + b"more")


@pytest.mark.parametrize("codec", [Compression.GZIP, Compression.ZSTD])
def test_a_flood_of_empty_pieces_is_refused_at_once(codec: Compression) -> None:
    flood = compress(codec, b"") * 200_000
    started_s = time.process_time()
    with pytest.raises(CompressionError, match="over 100 pieces"):
        decompress(codec, flood)
    assert time.process_time() - started_s < 2


@pytest.mark.parametrize("codec", CODECS)
def test_memory_grows_with_what_comes_out_not_with_the_bound(codec: Compression) -> None:
    packed = compress(codec, PLAIN)
    tracemalloc.start()
    decompress(codec, packed)  # bounded by half a gigabyte
    _now, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 20 * len(PLAIN)


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_costs_little(codec: Compression) -> None:
    bomb = compress(codec, bytes(64 * MIB))
    tracemalloc.start()
    with pytest.raises(CompressionError, match="unpacks to over 100000 bytes"):
        decompress(codec, bomb, 100_000)
    _now, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # zstd unpacks a kilobyte at a time: 256 blocks of 128 KiB at most.
    assert peak_bytes < (40 * MIB if codec is Compression.ZSTD else 8 * MIB)


def test_gzip_with_a_wrong_checksum_is_refused() -> None:
    packed = bytearray(gzip.compress(PLAIN))
    packed[-8:-4] = struct.pack("<I", zlib.crc32(PLAIN) ^ 1)
    with pytest.raises(CompressionError, match="incorrect data check"):
        decompress(Compression.GZIP, bytes(packed))


def test_snappy_is_judged_by_its_claim_before_anything_is_allocated() -> None:
    claim = b"\xff\xff\xff\xff\x0f" + bytes(20)
    for data in (claim, xerial(claim)):
        with pytest.raises(CompressionError, match="unpacks to over"):
            decompress(Compression.SNAPPY, data)
