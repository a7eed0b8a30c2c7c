"""The modifier `json` of `produce --template`: finds where a value ends, and makes it compact."""

import json
import re
from typing import Final

from corelane_cli.input_source import InputError, InputSource

_TOKEN: Final = re.compile(
    rb'\s+|"(?:[^"\\]|\\.)*"|[\[{]|[\]}]|[,:]|[^\s"\[\]{},:]+',
    re.DOTALL,
)
_OPENING: Final = b"[{"
_CLOSING: Final = b"]}"


async def read_json(source: InputSource) -> bytes:
    """Return the next value of *source*, compact. Raises InputError."""
    return compact(await source.scan(_Scanner().step))


def compact(data: bytes) -> bytes:
    """Return *data*, one JSON value, without space between its parts. Raises InputError.

    Nothing else changes: numbers and texts stay as they were written.
    """
    try:
        json.loads(data)
    except ValueError as error:  # also what is not UTF-8
        raise InputError(f"it is not JSON: {error}") from error
    return b"".join(token for token in _TOKEN.findall(data) if not token.isspace())


class _Scanner:
    """Counts brackets until the value is closed."""

    def __init__(self) -> None:
        self._depth = 0

    def step(self, data: bytearray, at: int, is_ended: bool) -> int:
        while True:
            token = _TOKEN.match(data, at)
            if token is None:  # nothing, or a text without an end
                return -1 - at
            end = token.end()
            first = token[0][:1]
            is_open_ended = not (first in _OPENING or first in _CLOSING or first in b'",:')
            if is_open_ended and end == len(data) and not is_ended:
                return -1 - at
            at = end
            if first in _OPENING:
                self._depth += 1
            elif first in _CLOSING:
                self._depth -= 1
            if self._depth <= 0 and not first.isspace():
                return at
