"""A progress line on a terminal's stderr; nothing anywhere else."""

import sys
import time
from typing import Final, Literal

_INTERVAL_S: Final = 0.1
_BAR_CHARACTERS: Final = 30

Unit = Literal["bytes", "records", "partitions"]


class Progress:
    """Shows how much of *total* is done, ten times a second at most; 0: nobody knows the total.

    It is silent unless *is_wanted* and stderr is a terminal. `finish` takes the line away.
    """

    def __init__(self, total: int, *, is_wanted: bool, unit: Unit = "bytes") -> None:
        self._total = total
        self._unit: Unit = unit
        self._is_shown = is_wanted and sys.stderr.isatty()
        self._next_s = 0.0
        self._start_s = time.monotonic()

    def resize(self, total: int) -> None:
        """Take in that there is more or less to do than was known."""
        self._total = total

    def show(self, done: int, records: int = 0) -> None:
        """Show where we are: *done* in the unit, and the number of records where that differs."""
        now_s = time.monotonic()
        if not self._is_shown or now_s < self._next_s:
            return
        self._next_s = now_s + _INTERVAL_S
        seconds = max(now_s - self._start_s, 0.001)
        match self._unit:
            case "bytes":
                text = f"{done / 1e6:.1f} MB, {done / seconds / 1e6:.1f} MB/s"
                if records:
                    text = f"{records} records, {text}"
            case "records":
                text = f"{done} records, {done / seconds:.0f}/s"
            case "partitions":
                text = f"{done} of {self._total} partitions"
        if self._total:
            share = min(done / self._total, 1.0)
            filled = int(share * _BAR_CHARACTERS)
            bar = "#" * filled + "-" * (_BAR_CHARACTERS - filled)
            text = f"[{bar}] {share:4.0%}  {text}"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def finish(self) -> None:
        """Take the line away."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
