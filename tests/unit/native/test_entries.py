"""Binary search in entry rows, against a linear one."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane_native import address_of, entries_search

ROW = struct.Struct("<qQqIB3x")


@given(st.lists(st.integers(0, 5), max_size=70), st.integers(-2, 200), st.sampled_from([0, 2]))
def test_search_finds_the_first_row_that_matches(steps: list[int], key: int, column: int) -> None:
    values, total = [], 0
    for step in steps:
        total += step
        values.append(total)
    rows = b"".join(
        ROW.pack(value if column == 0 else 0, 0, value if column == 2 else 0, 1, 1)
        for value in values
    )
    expected = next(
        (at for at, value in enumerate(values) if (value > key if column == 0 else value >= key)),
        len(values),
    )
    assert entries_search(address_of(rows or b"\0"), len(values), column, key) == expected


def test_there_are_two_columns_to_search() -> None:
    with pytest.raises(AssertionError):
        entries_search(0, 0, 1, 0)
