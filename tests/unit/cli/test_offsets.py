"""The grammar of --offset, and what its bounds mean in a partition."""

import pytest

from corelane_cli.offsets import (
    AfterBeginning,
    AtTime,
    BeforeEnd,
    Bound,
    Edge,
    Exact,
    Extent,
    GrammarError,
    Range,
    parse,
    resolve,
    times_ms,
)

NOW_MS = 1_800_000_000_000
DAY_MS = 1_763_856_000_000  # 2025-11-23 in UTC


@pytest.mark.parametrize(
    ("text", "first", "stop"),
    [
        ("start", Edge.BEGINNING, None),
        ("end", Edge.END, None),
        (":end", Edge.BEGINNING, Edge.END),
        ("17", Exact(17), None),
        ("17:", Exact(17), None),
        (":17", Edge.BEGINNING, Exact(17)),
        ("5:17", Exact(5), Exact(17)),
        ("5:end", Exact(5), Edge.END),
        ("+3", AfterBeginning(3), None),
        ("-3", BeforeEnd(3), None),
        ("@1763856000000", AtTime(DAY_MS), None),
        ("@1763856000", AtTime(DAY_MS), None),
        ("@2025-11-23", AtTime(DAY_MS), None),
        ("@2025-11-23:", AtTime(DAY_MS), None),
        ("@2025-11-23T00:00:01Z", AtTime(DAY_MS + 1000), None),
        ("@2025-11-23T01:00:00+01:00", AtTime(DAY_MS), None),
        ("@:2025-11-23T00:00:00.250Z", Edge.BEGINNING, AtTime(DAY_MS + 250)),
        ("@2025-11-23T00:00:00Z:2025-11-23T00:01:00Z", AtTime(DAY_MS), AtTime(DAY_MS + 60_000)),
        ("@2025-11-23:end", AtTime(DAY_MS), Edge.END),
        ("@2025-11-23:1h30m", AtTime(DAY_MS), AtTime(DAY_MS + 5_400_000)),
        ("@-1m3ms", AtTime(NOW_MS - 60_003), None),
        ("@-2d:1d", AtTime(NOW_MS - 172_800_000), AtTime(NOW_MS - 86_400_000)),
    ],
)
def test_a_range_is_understood(text: str, first: Bound, stop: Bound | None) -> None:
    assert parse(text, NOW_MS) == Range(first, stop)


STRANGE = ["", ":", "@", "x", "1:x", "9:3", "--3", "+", "1.5", "99999999999999999999", "²"]
STRANGE_TIMES = ["@12", "@tomorrow", "@2025-13-40", "@10m", "@2025-11-24:2025-11-23"]


@pytest.mark.parametrize("text", [*STRANGE, *STRANGE_TIMES])
def test_what_is_not_in_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(GrammarError):
        parse(text, NOW_MS)


EXTENT = Extent(beginning=100, end=200, offset_by_time_ms={1: 150, 2: -1})


@pytest.mark.parametrize(
    ("bound", "offset"),
    [
        (Edge.BEGINNING, 100),
        (Edge.END, 200),
        (Exact(120), 120),
        (Exact(5), 100),
        (Exact(300), 300),
        (AfterBeginning(7), 107),
        (AfterBeginning(700), 200),
        (BeforeEnd(7), 193),
        (BeforeEnd(700), 100),
        (AtTime(1), 150),
        (AtTime(2), 200),
    ],
)
def test_a_bound_is_an_offset_of_the_partition(bound: Bound, offset: int) -> None:
    assert resolve(bound, EXTENT) == offset


def test_only_times_need_to_be_asked_for() -> None:
    assert times_ms(parse("1:2", NOW_MS)) == []
    assert times_ms(parse("@2025-11-23:1m", NOW_MS)) == [DAY_MS, DAY_MS + 60_000]
