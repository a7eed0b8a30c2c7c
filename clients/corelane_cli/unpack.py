r"""The modifier `unpack` of text verbs: numbers out of bytes, in the letters of Python's struct.

< >    little, big endian from here on (little at first)
b B h H i I q Q    signed and unsigned numbers of 1, 2, 4 and 8 bytes
c .    a byte as it is      s    the rest as it is
$      the end: says so if something is left
x      nothing
"""

import struct
from collections.abc import Callable
from typing import Final

_NUMBERS: Final = "bBhHiIqQ"
_LETTERS: Final = f"<>x{_NUMBERS}c.s$"
_ENDS: Final = "s$"

_Step = Callable[[bytes], tuple[bytes, int]]
"""Returns what to print and how many bytes it took."""


class UnpackError(ValueError):
    """The letters make no sense; the message says which."""


def compile_unpack(letters: str) -> Callable[[bytes], bytes]:
    """Return the function that prints bytes as *letters* say. Raises UnpackError.

    Bytes that are missing, or left over, are told in what is printed: %!I(have 2 bytes, need 4).
    """
    if not letters:
        raise UnpackError(f"it names nothing to unpack; there are {' '.join(_LETTERS)}")
    steps: list[_Step] = []
    order = "<"
    for at, letter in enumerate(letters):
        if letter not in _LETTERS:
            raise UnpackError(f"{letter!r} is not known; there are {' '.join(_LETTERS)}")
        if letter in _ENDS and letters[at + 1 :].strip("x$"):
            raise UnpackError(f"nothing can follow {letter!r}")
        if letter in "<>":
            order = letter
        elif letter in _NUMBERS:
            steps.append(_number(letter, struct.Struct(order + letter)))
        elif letter in "c.":
            steps.append(_character)
        elif letter == "s":
            steps.append(lambda data: (data, len(data)))
        elif letter == "$":
            steps.append(lambda data: (b"%!$(not end-of-input)" if data else b"", len(data)))

    def unpack(data: bytes) -> bytes:
        parts: list[bytes] = []
        for step in steps:
            part, taken = step(data)
            parts.append(part)
            data = data[taken:]
        return b"".join(parts)

    return unpack


def _number(letter: str, form: struct.Struct) -> _Step:
    def step(data: bytes) -> tuple[bytes, int]:
        if len(data) < form.size:
            missing = f"%!{letter}(have {len(data)} bytes, need {form.size})"
            return missing.encode(), len(data)
        return b"%d" % form.unpack_from(data)[0], form.size

    return step


def _character(data: bytes) -> tuple[bytes, int]:
    return (data[:1], 1) if data else (b"%!c(no bytes available)", 0)
