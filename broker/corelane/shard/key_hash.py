"""Which partition of a coordinators' topic a group or a transactional id belongs to.

The same key is always the same partition's, as in Kafka (Java's String.hashCode, made positive,
modulo the number of partitions), so that tools look into the right place of `__consumer_offsets`
and `__transaction_state`.
"""

from typing import Final

_INT_MASK: Final = 0xFFFF_FFFF
_POSITIVE_MASK: Final = 0x7FFF_FFFF


def java_hash(text: str) -> int:
    """Return Java's String.hashCode as it is masked by Utils.toPositive: never negative."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for at in range(0, len(units), 2):
        value = (value * 31 + (units[at] << 8 | units[at + 1])) & _INT_MASK
    return value & _POSITIVE_MASK


def partition_number(key: str, partition_count: int) -> int:
    """Return the partition that coordinates *key*."""
    return java_hash(key) % partition_count
