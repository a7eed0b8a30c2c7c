"""What classic members of type `consumer` say to each other through the group, as bytes and values.

    subscription  i16 version | topics | user data | v1: owned | v2: i32 generation | v3: rack
    assignment    i16 version | owned | user data

topics are an i32 count of strings, owned an i32 count of (topic, i32 count of i32); strings have an
i16 before them, user data an i32; -1 is null. Later versions end in fields that are not known here
(`clients/src/main/resources/common/message/ConsumerProtocol*.json` of Kafka).
"""

import struct
from collections.abc import Iterable
from typing import Final

from corelane.groups.records import Place
from corelane.model.record import record

VERSION_MAX: Final = 3
_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")


@record
class Subscription:
    """What a member wants, and has."""

    version: int
    """As it was said, at most the newest that is known."""
    topics: tuple[str, ...]
    owned: tuple[Place, ...]
    """What it had when it joined: only members that rebalance cooperatively have anything."""
    rack_id: str | None


@record
class Assignment:
    """What the leader gave a member."""

    places: tuple[Place, ...]
    user_data: bytes


def read_subscription(data: bytes) -> Subscription | None:
    """Return a subscription; None for bytes that are none."""
    try:
        reader = _Reader(data)
        version = min(reader.int16(), VERSION_MAX)
        if version < 0:
            return None
        topics = tuple(reader.text() for _ in range(reader.count()))
        reader.sized()
        owned = reader.places() if version >= 1 else ()
        if version >= 2:
            reader.int32()
        rack_id = reader.optional() if version >= 3 else None
    except (struct.error, UnicodeDecodeError, ValueError):
        return None
    return Subscription(version, topics, owned, rack_id)


def read_assignment(data: bytes) -> Assignment | None:
    """Return an assignment; no bytes are one of nothing, None for bytes that are none."""
    if not data:
        return Assignment((), b"")
    try:
        reader = _Reader(data)
        if reader.int16() < 0:
            return None
        return Assignment(reader.places(), reader.sized())
    except (struct.error, UnicodeDecodeError, ValueError):
        return None


def write_assignment(places: Iterable[Place], version: int) -> bytes:
    """Return the bytes of an assignment, its topics and partitions in order."""
    topics: dict[str, list[int]] = {}
    for name, number in sorted(places):
        topics.setdefault(name, []).append(number)
    parts = [_INT16.pack(version), _INT32.pack(len(topics))]
    for name, numbers in topics.items():
        text = name.encode()
        parts += (
            _INT16.pack(len(text)),
            text,
            struct.pack(f">i{len(numbers)}i", len(numbers), *numbers),
        )
    return b"".join([*parts, _INT32.pack(-1)])


class _Reader:
    """Bytes taken apart from the front; ValueError and struct.error where they end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def int16(self) -> int:
        (value,) = _INT16.unpack_from(self._data, self._at)
        self._at += _INT16.size
        return int(value)

    def int32(self) -> int:
        (value,) = _INT32.unpack_from(self._data, self._at)
        self._at += _INT32.size
        return int(value)

    def count(self) -> int:
        """Return how many follow: never more than there are bytes."""
        count = self.int32()
        if not 0 <= count <= len(self._data) - self._at:
            raise ValueError
        return count

    def text(self) -> str:
        text = self.optional()
        if text is None:
            raise ValueError
        return text

    def optional(self) -> str | None:
        size = self.int16()
        return None if size < 0 else self._take(size).decode()

    def sized(self) -> bytes:
        size = self.int32()
        return b"" if size < 0 else self._take(size)

    def places(self) -> tuple[Place, ...]:
        found: list[Place] = []
        for _ in range(self.count()):
            name = self.text()
            found += [(name, self.int32()) for _ in range(self.count())]
        return tuple(found)

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise ValueError
        self._at += size
        return taken
