"""Runs of whole batches in a piece of a log, against the walk in Python."""

from hypothesis import given
from hypothesis import strategies as st

from corelane.wire.batch import whole_batches
from corelane_native import BatchRun, address_of, batches_run
from tests.unit.native.batches import batch, record


def log_of(sizes: list[int]) -> bytes:
    """Return batches of one record each, whose values have these sizes, from offset 10 on."""
    found = b""
    for offset, size in enumerate(sizes, 10):
        raw = batch(record(0, b"k", bytes(size)), 1)
        found += offset.to_bytes(8, "big") + raw[8:]
    return found


def run(
    data: bytes,
    offset: int,
    bytes_max: int,
    *,
    first_always: bool = True,
    offset_max: int = 2**63 - 1,
) -> BatchRun:
    copy = bytes(bytearray(data)) or b"\0"
    offsets = (offset, offset_max)
    return batches_run(address_of(copy), len(data), offsets, bytes_max, first_always=first_always)


@given(
    st.lists(st.integers(0, 90), max_size=8),
    st.integers(0, 25),
    st.integers(0, 1500),
    st.integers(0, 200),
)
def test_a_run_is_what_the_walk_finds(
    sizes: list[int], offset: int, bytes_max: int, cut: int
) -> None:
    data = log_of(sizes)
    data = data[: max(0, len(data) - cut)]
    walked = [*whole_batches(data, bytes_max)]
    wanted = [(at, head) for at, head in walked if head.base_offset >= offset]
    found = run(data, offset, bytes_max)
    assert found.end == (walked[-1][0] + walked[-1][1].size_bytes if walked else 0)
    assert found.start == (wanted[0][0] if wanted else -1)
    if wanted:
        assert found.next_offset == wanted[-1][1].base_offset + 1
    goes_on = [*whole_batches(log_of(sizes), bytes_max)][len(walked) :]
    if goes_on:
        assert found.is_cut, "with more data there would be more"


def test_a_run_ends_before_the_offset_that_a_reader_may_not_see() -> None:
    """Also where the first batch would count whatever its size, and where the data go on."""
    data = log_of([5, 6, 7, 8])
    for offset_max in range(9, 16):
        found = run(data, 11, 10**6, offset_max=offset_max)
        visible = [head for _, head in whole_batches(data, 10**6) if head.base_offset < offset_max]
        assert found.end == sum(head.size_bytes for head in visible)
        assert (found.start >= 0) == (offset_max > 11)
        assert not found.is_cut or offset_max > 13
        if found.start >= 0:
            assert found.next_offset == min(offset_max, 14)


def test_the_first_batch_counts_whatever_its_size_only_where_that_is_wanted() -> None:
    data = log_of([50, 50])
    assert run(data, 10, 1).start == 0
    refused = run(data, 10, 1, first_always=False)
    assert (refused.start, refused.end, refused.is_cut) == (-1, 0, False)


def test_a_length_that_leads_nowhere_ends_the_run() -> None:
    for length in (0, 48, 2**31, 2**32 - 1):
        data = log_of([5]) + bytes(8) + length.to_bytes(4, "big") + bytes(100)
        found = run(data, 0, 10**6)
        assert (found.start, found.is_cut) == (0, False)
        assert found.end == len(log_of([5]))
