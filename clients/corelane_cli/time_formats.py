"""How a timestamp is written: by strftime, or by the example layouts of Go. Always in UTC."""

import datetime as dt
import re
from collections.abc import Callable
from typing import Final

from corelane.model.record import record

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def moment(time_ms: int) -> dt.datetime | None:
    """Return the moment, or None beyond the years 1 to 9999, which a calendar has no words for."""
    try:
        return _EPOCH + dt.timedelta(milliseconds=time_ms)
    except OverflowError:
        return None


def strftime(layout: str) -> Callable[[int], bytes]:
    """Return the function that writes milliseconds since 1970 as *layout* says."""

    def write(time_ms: int) -> bytes:
        found = moment(time_ms)
        return b"%d" % time_ms if found is None else found.strftime(layout).encode()

    return write


def go_layout(layout: str) -> Callable[[int], bytes]:
    """Return the function that writes milliseconds since 1970 as Go's `time.Format` does."""

    def write(time_ms: int) -> bytes:
        found = moment(time_ms)
        return b"%d" % time_ms if found is None else _go(layout, found).encode()

    return write


@record
class _Word:
    """A piece of Go's reference time, Mon Jan 2 15:04:05 MST 2006, and what stands for it."""

    text: str
    of: Callable[[dt.datetime], str]


_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _hour(at: dt.datetime) -> int:
    """Return the hour of a clock with twelve."""
    return at.hour % 12 or 12


def _day_of_year(at: dt.datetime) -> int:
    return at.timetuple().tm_yday


_WORDS: Final = (
    _Word("January", lambda at: _MONTHS[at.month - 1]),
    _Word("Jan", lambda at: _MONTHS[at.month - 1][:3]),
    _Word("Monday", lambda at: _DAYS[at.weekday()]),
    _Word("Mon", lambda at: _DAYS[at.weekday()][:3]),
    _Word("MST", lambda at: "UTC"),
    _Word("2006", lambda at: f"{at.year:04d}"),
    _Word("_2006", lambda at: f"_{at.year:04d}"),
    _Word("06", lambda at: f"{at.year % 100:02d}"),
    _Word("01", lambda at: f"{at.month:02d}"),
    _Word("1", lambda at: str(at.month)),
    _Word("002", lambda at: f"{_day_of_year(at):03d}"),
    _Word("__2", lambda at: f"{_day_of_year(at):3d}"),
    _Word("02", lambda at: f"{at.day:02d}"),
    _Word("_2", lambda at: f"{at.day:2d}"),
    _Word("2", lambda at: str(at.day)),
    _Word("15", lambda at: f"{at.hour:02d}"),
    _Word("03", lambda at: f"{_hour(at):02d}"),
    _Word("3", lambda at: str(_hour(at))),
    _Word("04", lambda at: f"{at.minute:02d}"),
    _Word("4", lambda at: str(at.minute)),
    _Word("05", lambda at: f"{at.second:02d}"),
    _Word("5", lambda at: str(at.second)),
    _Word("PM", lambda at: "PM" if at.hour >= 12 else "AM"),
    _Word("pm", lambda at: "pm" if at.hour >= 12 else "am"),
    _Word("Z07:00:00", lambda at: "Z"),
    _Word("Z07:00", lambda at: "Z"),
    _Word("Z070000", lambda at: "Z"),
    _Word("Z0700", lambda at: "Z"),
    _Word("Z07", lambda at: "Z"),
    _Word("-07:00:00", lambda at: "+00:00:00"),
    _Word("-07:00", lambda at: "+00:00"),
    _Word("-070000", lambda at: "+000000"),
    _Word("-0700", lambda at: "+0000"),
    _Word("-07", lambda at: "+00"),
)
_BY_TEXT: Final = {word.text: word for word in _WORDS}
# Longest first, as Go chooses. Fractions are a separator and zeros or nines before no other digit.
_PIECE: Final = re.compile(
    r"(?P<fraction>[.,](?:0+|9+)(?!\d))|(?P<word>"
    + "|".join(re.escape(text) for text in sorted(_BY_TEXT, key=len, reverse=True))
    + ")"
)


def _go(layout: str, at: dt.datetime) -> str:
    def piece(match: re.Match[str]) -> str:
        fraction = match["fraction"]
        if not fraction:
            return _BY_TEXT[match["word"]].of(at)
        digits = f"{at.microsecond:06d}000"[: len(fraction) - 1].ljust(len(fraction) - 1, "0")
        if fraction[1] == "0":
            return fraction[0] + digits
        kept = digits.rstrip("0")  # nines leave out what is zero
        return fraction[0] + kept if kept else ""

    return _PIECE.sub(piece, layout)
