"""How a number is written and read in a format: as text, as hexadecimal digits, as bytes."""

from collections.abc import Callable
from typing import Final, Literal

from corelane.model.record import record

_Order = Literal["big", "little"]


@record
class FixedNumber:
    """A number that always takes as many bytes."""

    size_bytes: int
    largest: int
    """With every bit set; it is also what -1 is written as."""
    write: Callable[[int], bytes]
    read: Callable[[bytes], int]
    """Raises ValueError for bytes that are no such number."""


def _binary(size_bytes: int, order: _Order) -> FixedNumber:
    mask = (1 << 8 * size_bytes) - 1
    return FixedNumber(
        size_bytes,
        mask,
        lambda number: (number & mask).to_bytes(size_bytes, order),
        lambda data: int.from_bytes(data, order),
    )


def _hexadecimal(digits: int) -> FixedNumber:
    mask = (1 << 4 * digits) - 1

    def read(data: bytes) -> int:
        if not all(digit in b"0123456789abcdefABCDEF" for digit in data):
            raise ValueError(f"{data!r} are not hexadecimal digits")
        return int(data, 16)

    return FixedNumber(digits, mask, lambda number: b"%0*x" % (digits, number & mask), read)


FIXED: Final[dict[str, FixedNumber]] = {
    "hex64": _hexadecimal(16),
    "hex32": _hexadecimal(8),
    "hex16": _hexadecimal(4),
    "hex8": _hexadecimal(2),
    "hex4": _hexadecimal(1),
    "big64": _binary(8, "big"),
    "big32": _binary(4, "big"),
    "big16": _binary(2, "big"),
    "big8": _binary(1, "big"),
    "little64": _binary(8, "little"),
    "little32": _binary(4, "little"),
    "little16": _binary(2, "little"),
    "little8": _binary(1, "little"),
    "byte": _binary(1, "big"),
}

WRITERS: Final[dict[str, Callable[[int], bytes]]] = {
    "ascii": lambda number: b"%d" % number,
    "number": lambda number: b"%d" % number,
    "hex": lambda number: b"%x" % (number & (1 << 64) - 1),
    "bool": lambda number: b"true" if number else b"false",
    **{name: each.write for name, each in FIXED.items()},
}
"""Numbers too large for a form lose their highest bits, as in rpk."""

assert not {"ascii", "bool", "hex", "number"} & FIXED.keys()
