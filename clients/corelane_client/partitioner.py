"""Which partition a record goes to, in agreement with Java producers where the key decides."""

import random
from typing import Final

_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Return Kafka's 32-bit murmur2 of *data*, unsigned.

    Java's `Utils.murmur2` is the reference: every client that hashes keys must agree with it, or
    one key lands in two partitions.
    """
    whole_bytes = len(data) & ~3
    value = _SEED ^ len(data)
    for start in range(0, whole_bytes, 4):
        word = int.from_bytes(data[start : start + 4], "little")
        word = (word * _MULTIPLIER) & _MASK
        word ^= word >> 24
        word = (word * _MULTIPLIER) & _MASK
        value = ((value * _MULTIPLIER) & _MASK) ^ word
    if len(data) > whole_bytes:
        value ^= int.from_bytes(data[whole_bytes:], "little")
        value = (value * _MULTIPLIER) & _MASK
    value ^= value >> 13
    value = (value * _MULTIPLIER) & _MASK
    return value ^ (value >> 15)


def partition_of_key(key: bytes, partition_count: int) -> int:
    """Return the partition Java's default partitioner gives *key*."""
    assert partition_count > 0
    return (murmur2(key) & 0x7FFFFFFF) % partition_count


class StickyChoice:
    """The partition of records without a key: one at a time, so that batches fill (KIP-480).

    `next` moves on; the producer calls it when a batch of the current partition is complete.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._current: dict[str, int] = {}

    def current(self, topic: str, partition_count: int) -> int:
        """Return where records of *topic* go for now."""
        assert partition_count > 0
        chosen = self._current.get(topic)
        if chosen is None or chosen >= partition_count:
            chosen = self._chance.randrange(partition_count)
            self._current[topic] = chosen
        return chosen

    def next(self, topic: str, partition_count: int) -> int:
        """Move *topic* to another partition, if it has another, and return it."""
        before = self.current(topic, partition_count)
        if partition_count > 1:
            step = self._chance.randrange(1, partition_count)
            self._current[topic] = (before + step) % partition_count
        return self._current[topic]
