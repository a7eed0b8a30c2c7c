"""Which topics the members of a `consumer` group read, as their subscriptions say it.

    i16 version | i32 count, as many (i16 size, name) | ...

What clients put there is their own affair: what cannot be read names no topic.
"""

import struct
from typing import Final

from corelane.groups.classic_group import ClassicGroup

CONSUMER: Final = "consumer"
"""The protocol type whose subscriptions are understood."""
_HEAD: Final = struct.Struct(">hi")
_SIZE: Final = struct.Struct(">h")


def topics_in(subscription: bytes) -> frozenset[str]:
    """Return the topics that a subscription names."""
    names = set()
    try:
        _version, count = _HEAD.unpack_from(subscription)
        at = _HEAD.size
        for _ in range(count):
            (size,) = _SIZE.unpack_from(subscription, at)
            at += _SIZE.size
            if size < 0 or at + size > len(subscription):
                return frozenset()
            names.add(subscription[at : at + size].decode())
            at += size
    except (struct.error, UnicodeDecodeError):
        return frozenset()
    return frozenset(names)


def topics_of(group: ClassicGroup) -> frozenset[str]:
    """Return the topics that any member of a group reads."""
    found: frozenset[str] = frozenset()
    for member in group.members.values():
        for _name, subscription in member.protocols:
            found |= topics_in(subscription)
    return found
