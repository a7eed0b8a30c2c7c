"""Which topics the members of a `consumer` group read, as their subscriptions say it.

What clients put there is their own affair: what cannot be read names no topic.
"""

from typing import Final

from corelane.groups.classic_group import ClassicGroup
from corelane.groups.consumer_protocol import read_subscription

CONSUMER: Final = "consumer"
"""The protocol type whose subscriptions are understood."""


def topics_in(subscription: bytes) -> frozenset[str]:
    """Return the topics that a subscription names."""
    found = read_subscription(subscription)
    return frozenset() if found is None else frozenset(found.topics)


def topics_of(group: ClassicGroup) -> frozenset[str]:
    """Return the topics that any member of a group reads."""
    found: frozenset[str] = frozenset()
    for member in group.members.values():
        for _name, subscription in member.protocols:
            found |= topics_in(subscription)
    return found
