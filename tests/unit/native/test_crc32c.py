"""CRC-32C: published vectors, and three ways to the same value."""

from collections.abc import Iterator

import crc32c as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane_native import crc32c, crc32c_portable

# RFC 3720, B.4, and the check value of the Castagnoli polynomial.
VECTORS = [
    (b"", 0),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
]
LANE_EDGES = [7, 8, 9, 767, 768, 769, 775, 6143, 6144, 6145, 6912, 12_288, 20_001]


@pytest.fixture(params=[False, True], ids=["chosen", "portable"])
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    crc32c_portable(request.param)
    yield
    crc32c_portable(False)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_published_vectors(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("size", LANE_EDGES)
def test_every_edge_of_the_lanes_agrees_with_the_oracle(size: int) -> None:
    data = bytes((at * 131 + at // 7) & 0xFF for at in range(size + 3))
    for start in range(3):  # unaligned as well
        piece = data[start : start + size]
        assert crc32c(memoryview(data)[start : start + size]) == oracle.crc32c(piece)


@given(st.binary(max_size=10_000), st.integers(0, 10_000))
def test_both_ways_and_any_split_agree(data: bytes, cut: int) -> None:
    whole = oracle.crc32c(data)
    for portable in (True, False):
        crc32c_portable(portable)
        assert crc32c(data) == whole
        assert crc32c(data[cut:], crc32c(data[:cut])) == whole
