"""The grammar of `consume --offset`, which is rpk's: where to start and where to stop.

    start   end        the beginning, the end          :end    up to the current end
    N       N:         from offset N                   :N      up to offset N
    N:M                from offset N up to offset M (M is not included)
    +N      -N         N after the beginning, N before the end
    @T      @T:        from time T                     @:T     up to time T
    @T1:T2             from time T1 up to time T2; T2 may be `end`

A time is 13 digits (milliseconds since 1970), 9 or 10 digits (seconds), a day `2026-11-23`, a
moment `2026-11-23T10:00:00Z`, or a duration before now such as `-1h30m`; the second time may
also be a duration after the first, such as `10m`.

Nothing here asks a broker: bounds are resolved by `resolve` from numbers it is given.
"""

import datetime as dt
import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, assert_never

from corelane.model.record import record


class Edge(Enum):
    """The ends of a partition as they are when the command starts."""

    BEGINNING = "start"
    END = "end"


@record
class Exact:
    """The record at this offset."""

    offset: int


@record
class AfterBeginning:
    """So many records after the beginning."""

    count: int


@record
class BeforeEnd:
    """So many records before the end."""

    count: int


@record
class AtTime:
    """The first record that is not older."""

    time_ms: int


Bound = Edge | Exact | AfterBeginning | BeforeEnd | AtTime


@record
class Range:
    """From `first`, included, to `stop`, excluded; None: wait for ever."""

    first: Bound
    stop: Bound | None


@record
class Extent:
    """What a partition holds, and where its times begin, as a broker tells it."""

    beginning: int
    end: int
    offset_by_time_ms: Mapping[int, int]


class GrammarError(ValueError):
    """The text is not in the grammar; the message says which part."""


_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION_PART: Final = re.compile(r"(\d+)(ms|s|m|h|d)")
_DURATION: Final = re.compile(r"(?:\d+(?:ms|s|m|h|d))+")
_CLOCK: Final = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?")
_OFFSET_MAX: Final = 2**63 - 1


def parse(text: str, now_ms: int) -> Range:
    """Return what *text* asks for. Raises GrammarError."""
    if text.startswith("@"):
        return _parse_times(text[1:], now_ms)
    if text == "start":
        return Range(Edge.BEGINNING, None)
    if text == "end":
        return Range(Edge.END, None)
    if text.startswith("+"):
        return Range(AfterBeginning(_count(text[1:])), None)
    if text.startswith("-"):
        return Range(BeforeEnd(_count(text[1:])), None)
    first, colon, stop = text.partition(":")
    if not first and not stop:
        raise GrammarError("no offset is named")
    chosen: Bound = Exact(_count(first)) if first else Edge.BEGINNING
    if not colon or not stop:
        return Range(chosen, None)
    if stop == "end":
        return Range(chosen, Edge.END)
    last = Exact(_count(stop))
    if isinstance(chosen, Exact) and last.offset < chosen.offset:
        raise GrammarError(f"{text} ends before it begins")
    return Range(chosen, last)


def resolve(bound: Bound, extent: Extent) -> int:
    """Return the offset *bound* means in a partition, kept between its ends."""
    match bound:
        case Edge.BEGINNING:
            offset = extent.beginning
        case Edge.END:
            offset = extent.end
        case Exact():
            # Not kept below the end: someone may wait for a record to come.
            return max(bound.offset, extent.beginning)
        case AfterBeginning():
            offset = extent.beginning + bound.count
        case BeforeEnd():
            offset = extent.end - bound.count
        case AtTime():
            offset = extent.offset_by_time_ms[bound.time_ms]
            offset = extent.end if offset < 0 else offset  # nothing is as young as that
        case _:
            assert_never(bound)
    return min(max(offset, extent.beginning), extent.end)


def times_ms(wanted: Range) -> list[int]:
    """Return the times a broker must be asked about before *wanted* can be resolved."""
    return [bound.time_ms for bound in (wanted.first, wanted.stop) if isinstance(bound, AtTime)]


def _parse_times(text: str, now_ms: int) -> Range:
    """Return the range of `@...`, whose colons may also stand inside a moment."""
    first, stop = _split_times(text)
    if not first and not stop:
        raise GrammarError("no time is named after @")
    first_ms = _time(first, now_ms) if first else 0
    chosen: Bound = AtTime(first_ms) if first else Edge.BEGINNING
    if not stop:
        return Range(chosen, None)
    if stop == "end":
        return Range(chosen, Edge.END)
    stop_ms = first_ms + _duration(stop) if _DURATION.fullmatch(stop) else _time(stop, now_ms)
    if stop_ms < first_ms:
        raise GrammarError(f"@{text} ends before it begins")
    return Range(chosen, AtTime(stop_ms))


def _split_times(text: str) -> tuple[str, str]:
    """Return the two sides of the one colon that is not inside a moment."""
    candidates = [at for at, character in enumerate(text) if character == ":"]
    for at in candidates:
        first, stop = text[:at], text[at + 1 :]
        if (not first or _is_time(first)) and (not stop or stop == "end" or _is_time(stop)):
            return first, stop
    return text, ""


def _is_time(text: str) -> bool:
    return bool(
        text.isdecimal() or _DURATION.fullmatch(text.removeprefix("-")) or _CLOCK.fullmatch(text)
    )


def _time(text: str, now_ms: int) -> int:
    """Return the milliseconds since 1970 that *text* names."""
    if text.isdecimal() and len(text) == 13:
        return int(text)
    if text.isdecimal() and len(text) in {9, 10}:
        return int(text) * 1000
    if text.startswith("-") and _DURATION.fullmatch(text[1:]):
        return max(now_ms - _duration(text[1:]), 0)
    if not _CLOCK.fullmatch(text):
        raise GrammarError(f"{text!r} is not a time")
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise GrammarError(f"{text!r} is not a time: {error}") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return int(moment.timestamp() * 1000)


def _duration(text: str) -> int:
    """Return the milliseconds of a duration such as 1h30m."""
    return sum(int(count) * _UNITS_MS[unit] for count, unit in _DURATION_PART.findall(text))


def _count(text: str) -> int:
    """Return *text* as an offset or a number of records."""
    if not (text.isascii() and text.isdecimal()):
        raise GrammarError(f"{text!r} is not an offset")
    number = int(text)
    if number > _OFFSET_MAX:
        raise GrammarError(f"{text} is beyond the largest offset, {_OFFSET_MAX}")
    return number
