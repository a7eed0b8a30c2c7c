"""A progress line on a terminal's stderr; nothing anywhere else."""

import sys
import time
from typing import Final

_INTERVAL_S: Final = 0.1
_BAR_CHARACTERS: Final = 30


class Progress:
    """Shows how much of *total_bytes* is done, ten times a second at most.

    It is silent unless *is_wanted* and stderr is a terminal. `finish` takes the line away.
    """

    def __init__(self, total_bytes: int, *, is_wanted: bool) -> None:
        self._total_bytes = total_bytes
        self._is_shown = is_wanted and sys.stderr.isatty()
        self._next_s = 0.0
        self._start_s = time.monotonic()

    def show(self, done_bytes: int, records: int) -> None:
        """Show where we are."""
        now_s = time.monotonic()
        if not self._is_shown or now_s < self._next_s:
            return
        self._next_s = now_s + _INTERVAL_S
        rate = done_bytes / max(now_s - self._start_s, 0.001) / 1e6
        text = f"{records} records, {done_bytes / 1e6:.1f} MB, {rate:.1f} MB/s"
        if self._total_bytes:
            share = min(done_bytes / self._total_bytes, 1.0)
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
