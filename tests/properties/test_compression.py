"""Every codec gives back what went in, and neither damage nor a bomb gets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane.wire.compression import Compression, CompressionError, compress, decompress

CODECS = [codec for codec in Compression if codec is not Compression.NONE]


@pytest.mark.parametrize("codec", Compression)
@given(data=st.binary(max_size=2000), repeats=st.integers(1, 50))
def test_what_goes_in_comes_out(codec: Compression, data: bytes, repeats: int) -> None:
    assert decompress(codec, compress(codec, data * repeats)) == data * repeats


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_is_not_unpacked(codec: Compression) -> None:
    bomb = compress(codec, bytes(10_000_000))
    with pytest.raises(CompressionError, match="over 1000 bytes"):
        decompress(codec, bomb, bytes_max=1000)


@pytest.mark.parametrize("codec", CODECS)
def test_noise_is_refused(codec: Compression) -> None:
    with pytest.raises(CompressionError, match="damaged"):
        decompress(codec, b"\xffnoise" * 50)


@pytest.mark.parametrize("codec", [Compression.GZIP, Compression.LZ4])
def test_a_missing_end_is_seen(codec: Compression) -> None:
    with pytest.raises(CompressionError, match="too early"):
        decompress(codec, compress(codec, b"hello" * 100)[:-6])


def test_snappy_of_librdkafka_has_no_frame() -> None:
    plain_block = compress(Compression.SNAPPY, b"hello" * 100)[20:]  # header 16, block length 4
    assert decompress(Compression.SNAPPY, plain_block) == b"hello" * 100


def test_a_snappy_block_longer_than_its_frame_is_refused() -> None:
    framed = bytearray(compress(Compression.SNAPPY, b"hello" * 100))
    framed[16:20] = (1 << 30).to_bytes(4, "big")
    with pytest.raises(CompressionError, match="longer than the rest"):
        decompress(Compression.SNAPPY, bytes(framed))
