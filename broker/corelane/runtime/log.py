"""Where log lines go: stderr, one line for each event a person acts on."""

import logging
import sys
import time
from typing import Final

_TIME: Final = "%Y-%m-%dT%H:%M:%S"


class _Line(logging.Formatter):
    """`2026-01-31T12:00:00.123Z warning core 0: text`, in UTC."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def _time(self, record: logging.LogRecord) -> str:
        """Return the time with milliseconds, in UTC."""
        return f"{time.strftime(_TIME, time.gmtime(record.created))}.{int(record.msecs):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows it where there is one."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return f"{self._time(record)} {record.levelname.lower()} {self._who}{text}"


def set_up(who: str = "") -> None:
    """Log to stderr from now on; *who* goes before each text (of a core: `core 0: `)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(who))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
