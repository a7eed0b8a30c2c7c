"""What producers were promised, compared with what a partition holds.

A producer numbers its records 0, 1, 2, ... in the order it hands them over. `acknowledged` maps a
number to the offset its acknowledgement named; `log` is the partition from its start.
"""

import itertools
from collections.abc import Mapping, Sequence


def faults(
    acknowledged: Mapping[int, int],
    log: Sequence[int],
    *,
    is_idempotent: bool,
    is_ordered: bool = True,
) -> list[str]:
    """Return every broken promise, in words; none: all were kept.

    Everyone: each acknowledged record is there, at the offset named, and first occurrences are in
    the order of production (*is_ordered*). Idempotent producers: each record is there once.
    """
    found = [
        f"record {number} was acknowledged at offset {offset}, where there is {_at(log, offset)}"
        for number, offset in acknowledged.items()
        if _at(log, offset) != number
    ]
    first = _first_occurrences(log)
    found += [
        f"record {number} was acknowledged and is lost"
        for number in acknowledged
        if number not in first
    ]
    numbers = list(first)
    found += [
        f"record {earlier} comes before record {later}"
        for earlier, later in itertools.pairwise(numbers)
        if is_ordered and later < earlier
    ]
    if is_idempotent and len(first) != len(log):
        found.append(f"{len(log) - len(first)} records are there more than once")
    return found


def _at(log: Sequence[int], offset: int) -> int | None:
    return log[offset] if 0 <= offset < len(log) else None


def _first_occurrences(log: Sequence[int]) -> dict[int, int]:
    first: dict[int, int] = {}
    for offset, number in enumerate(log):
        first.setdefault(number, offset)
    return first
