"""The first error code in an answer: what the request as a whole is counted under."""

from typing import Final

from corelane.wire.compiler import Message

ROWS_MAX: Final = 100
"""Rows that are looked at. Answers with more (a list of all topics) are right as a whole."""


def first_error(message: Message) -> int:
    """Return the error code at the head of an answer, or else the first one in its rows."""
    waiting = [message]
    for _ in range(ROWS_MAX):
        if not waiting:
            break
        row = waiting.pop()
        rows: list[Message] = []
        for name in row.__slots__:
            value = getattr(row, name)
            if name == "error_code" and value:
                return int(value)
            if type(value) is list and value and isinstance(value[0], Message):
                rows += value[:ROWS_MAX]
        waiting += reversed(rows)
    return 0
