"""What the members of a classic consumer group say to each other, as bytes that brokers pass on.

    subscription  i16 version | topics: i32 count, strings | user data: bytes
                  version 1+  | owned partitions: i32 count, (string, i32 count, i32s)
                  version 2+  | i32 generation in which they were owned
                  version 3+  | rack: nullable string
    assignment    i16 version | i32 count, (string, i32 count, i32s) | user data: bytes

A string has an i16 of its size before it, bytes an i32; -1 is null. Other clients write these too,
in other versions and with what they like in the user data, so what cannot be read is as good as
not said.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Final

from corelane.model.record import record
from corelane_client.group_offsets import Place

SUBSCRIPTION_VERSION: Final = 3
ASSIGNMENT_VERSION: Final = 1
NO_GENERATION: Final = -1
_SHORT: Final = struct.Struct(">h")
_INT: Final = struct.Struct(">i")
_NULL_STRING: Final = _SHORT.pack(-1)
_NULL_BYTES: Final = _INT.pack(-1)


@record
class Subscription:
    """What a member wants, and what it had."""

    topics: frozenset[str]
    owned: frozenset[Place] = frozenset()
    generation: int = NO_GENERATION
    """When it was given what it owned; of two that claim a partition, the later one is right."""


def encode_subscription(subscription: Subscription) -> bytes:
    """Return what JoinGroup carries."""
    topics = sorted(subscription.topics)
    return b"".join(
        (
            _SHORT.pack(SUBSCRIPTION_VERSION),
            _INT.pack(len(topics)),
            *map(_string, topics),
            _NULL_BYTES,
            _places(subscription.owned),
            _INT.pack(subscription.generation),
            _NULL_STRING,
        )
    )


def decode_subscription(data: bytes) -> Subscription:
    """Return what a member said, as far as it can be read."""
    try:
        (version,), at = _read(_SHORT, data, 0)
        (count,), at = _read(_INT, data, at)
        topics = []
        for _ in range(count):
            topic, at = _read_string(data, at)
            topics.append(topic)
    except (struct.error, UnicodeDecodeError):
        return Subscription(frozenset())
    try:
        owned: dict[str, list[int]] = {}
        generation = NO_GENERATION
        if version >= 1:
            (size,), at = _read(_INT, data, at)
            owned, at = _read_places(data, at + max(size, 0))
        if version >= 2:
            (generation,), at = _read(_INT, data, at)
    except (struct.error, UnicodeDecodeError):
        return Subscription(frozenset(topics))
    return Subscription(frozenset(topics), places(owned), generation)


def encode_assignment(assigned_places: Iterable[Place]) -> bytes:
    """Return what SyncGroup carries for a member."""
    return _SHORT.pack(ASSIGNMENT_VERSION) + _places(assigned_places) + _NULL_BYTES


def assigned(assignment: bytes) -> dict[str, list[int]]:
    """Return the partitions of an assignment; what cannot be read is none."""
    try:
        _version, at = _read(_SHORT, assignment, 0)
        return _read_places(assignment, at)[0]
    except (struct.error, UnicodeDecodeError):
        return {}


def places(by_topic: Mapping[str, Iterable[int]]) -> frozenset[Place]:
    """Return the partitions of *by_topic*."""
    return frozenset((topic, number) for topic, numbers in by_topic.items() for number in numbers)


def by_topic(some: Iterable[Place]) -> dict[str, list[int]]:
    """Return partitions by their topic, both in order."""
    found: dict[str, list[int]] = {}
    for topic, number in sorted(some):
        found.setdefault(topic, []).append(number)
    return found


def _string(text: str) -> bytes:
    data = text.encode()
    return _SHORT.pack(len(data)) + data


def _places(some: Iterable[Place]) -> bytes:
    rows = by_topic(some)
    parts = [_INT.pack(len(rows))]
    for topic, numbers in rows.items():
        parts += (_string(topic), struct.pack(f">i{len(numbers)}i", len(numbers), *numbers))
    return b"".join(parts)


def _read(form: struct.Struct, data: bytes, at: int) -> tuple[tuple[int, ...], int]:
    return form.unpack_from(data, at), at + form.size


def _read_string(data: bytes, at: int) -> tuple[str, int]:
    (size,), at = _read(_SHORT, data, at)
    if size < 0 or at + size > len(data):
        raise struct.error("a string ends too early")
    return data[at : at + size].decode(), at + size


def _read_places(data: bytes, at: int) -> tuple[dict[str, list[int]], int]:
    (count,), at = _read(_INT, data, at)
    found: dict[str, list[int]] = {}
    for _ in range(count):
        topic, at = _read_string(data, at)
        (size,), at = _read(_INT, data, at)
        if not 0 <= size <= len(data):
            raise struct.error("it cannot hold so many partitions")
        numbers, at = _read(struct.Struct(f">{size}i"), data, at)
        found[topic] = [*numbers]
    return found, at
