"""The bytes of the consumer protocol, as clients of the classic protocol write and read them."""

import struct
from collections.abc import Iterable

Place = tuple[str, int]


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _places(places: Iterable[Place]) -> bytes:
    topics: dict[str, list[int]] = {}
    for name, number in places:
        topics.setdefault(name, []).append(number)
    rows = [
        _text(name) + struct.pack(f">i{len(numbers)}i", len(numbers), *numbers)
        for name, numbers in topics.items()
    ]
    return struct.pack(">i", len(rows)) + b"".join(rows)


def subscription(*topics: str, owned: Iterable[Place] = (), version: int = 1) -> bytes:
    """Return what a member says of itself when it joins."""
    names = b"".join(map(_text, topics))
    data = struct.pack(">hi", version, len(topics)) + names + struct.pack(">i", -1)
    if version >= 1:
        data += _places(owned)
    if version >= 2:
        data += struct.pack(">i", -1)
    if version >= 3:
        data += _text("rack")
    return data


def assignment(places: Iterable[Place], user_data: bytes | None = None) -> bytes:
    """Return what a leader gives a member."""
    tail = struct.pack(">i", -1) if user_data is None else struct.pack(">i", len(user_data))
    return struct.pack(">h", 1) + _places(places) + tail + (user_data or b"")


def assigned(data: bytes) -> set[Place]:
    """Return what is given by an assignment."""
    if not data:
        return set()
    found = set()
    (count,) = struct.unpack_from(">i", data, 2)
    at = 6
    for _ in range(count):
        (size,) = struct.unpack_from(">h", data, at)
        name = data[at + 2 : at + 2 + size].decode()
        at += 2 + size
        (numbers,) = struct.unpack_from(">i", data, at)
        found |= {(name, n) for n in struct.unpack_from(f">{numbers}i", data, at + 4)}
        at += 4 + 4 * numbers
    assert data[at:] == struct.pack(">i", -1)
    return found
