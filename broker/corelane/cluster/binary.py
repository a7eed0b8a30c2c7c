"""Small binary pieces of the controller's commands and snapshots, read without trust.

Numbers are LEB128 (seven bits a byte, lowest first); texts and bytes carry their length before
them. A reader bounds everything before it believes it, and says where it stopped.
"""

from typing import Final

from corelane.model import limits


class BinaryError(Exception):
    """Bytes that are not what `Writer` writes."""


_UINT_BYTES_MAX: Final = 10


class Writer:
    """Collects pieces; `data` is what was written."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def uint(self, value: int) -> None:
        """Write a number from 0 to 2^64 - 1."""
        assert 0 <= value <= limits.UINT64_MAX
        while value > 0x7F:
            self.data.append(value & 0x7F | 0x80)
            value >>= 7
        self.data.append(value)

    def blob(self, value: bytes) -> None:
        """Write bytes with their length."""
        self.uint(len(value))
        self.data += value

    def text(self, value: str) -> None:
        """Write text as UTF-8 with its length in bytes."""
        self.blob(value.encode())


class Reader:
    """Takes pieces from the front of *data*; every fault is a BinaryError."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def uint(self, maximum: int = limits.UINT64_MAX) -> int:
        """Return the next number, which must not be above *maximum*."""
        value = 0
        for place in range(_UINT_BYTES_MAX):
            if self._at == len(self._data):
                raise self.fault("ends inside a number")
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                if value > maximum:
                    raise self.fault(f"has the number {value} above {maximum}")
                return value
        raise self.fault("has a number without end")

    def count(self, maximum: int) -> int:
        """Return how many things follow; each has at least one byte, so that none is made up."""
        value = self.uint(maximum)
        if value > len(self._data) - self._at:
            raise self.fault(f"announces {value} things and has not even bytes for them")
        return value

    def blob(self, bytes_max: int) -> bytes:
        """Return the next bytes with their length."""
        return self.exactly(self.count(bytes_max))

    def exactly(self, size_bytes: int) -> bytes:
        """Return the next *size_bytes* bytes."""
        if size_bytes > len(self._data) - self._at:
            raise self.fault(f"ends before {size_bytes} bytes that belong to it")
        self._at += size_bytes
        return self._data[self._at - size_bytes : self._at]

    def rest(self) -> bytes:
        """Return everything that is left."""
        return self.exactly(len(self._data) - self._at)

    def text(self, bytes_max: int) -> str:
        """Return the next text."""
        raw = self.blob(bytes_max)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.fault("has text that is not UTF-8") from None

    def end(self) -> None:
        """Assure that nothing follows."""
        if self._at != len(self._data):
            raise self.fault("is followed by other bytes")

    def fault(self, what: str) -> BinaryError:
        """Return the error to raise, with the place."""
        return BinaryError(f"{what} (byte {self._at} of {len(self._data)})")
