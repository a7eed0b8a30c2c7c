"""What a partition keeps beside its records, as one value in checkpoints, snapshots and parcels.

    u8 2 | u32 size, producers | u32 size, latest

Without the second part it is the producers alone, whose first byte is their own format, 1.
"""

import struct
from typing import Final

from corelane.model import limits
from corelane.model.ids import Index
from corelane.model.internal_topics import INTERNAL_TOPICS
from corelane.model.record import record
from corelane.producers.sequences import ProducersError, ProducerTable
from corelane.shard.latest import LatestByKey, LatestError

_FORMAT: Final = 2
_SIZE: Final = struct.Struct("<I")


class FoldError(ValueError):
    """Bytes that are no partition's fold."""


@record
class PartitionFold:
    """The folds of one partition's committed entries, all of the same ones."""

    producers: ProducerTable
    latest: LatestByKey | None
    """Of the topics whose records coordinators write; None for all others."""

    @property
    def applied_index(self) -> Index:
        """Return up to where entries are part of it."""
        return self.producers.committed_index

    def encode(self) -> bytes:
        """Return the fold as bytes."""
        producers = self.producers.encode()
        if self.latest is None:
            return producers
        latest = self.latest.encode()
        sizes = (_SIZE.pack(len(producers)), _SIZE.pack(len(latest)))
        return b"".join((bytes((_FORMAT,)), sizes[0], producers, sizes[1], latest))


def empty(topic: str, id_expiration_ms: int) -> PartitionFold:
    """Return the fold of a log without entries."""
    producers = ProducerTable(id_expiration_ms, limits.PRODUCERS_PER_PARTITION_MAX)
    return PartitionFold(producers, LatestByKey() if topic in INTERNAL_TOPICS else None)


def decode(data: bytes, topic: str, id_expiration_ms: int) -> PartitionFold:
    """Return the fold that *data* is; raises FoldError."""
    producers, latest = data, b""
    is_kept = topic in INTERNAL_TOPICS
    if is_kept:
        if data[:1] != bytes((_FORMAT,)):
            raise FoldError("the state of a coordinator's partition has no known format")
        producers, at = _part(data, 1)
        latest, at = _part(data, at)
        if at != len(data):
            raise FoldError("the state of a coordinator's partition is longer than it says")
    try:
        return PartitionFold(
            ProducerTable.decode(producers, id_expiration_ms, limits.PRODUCERS_PER_PARTITION_MAX),
            LatestByKey.decode(latest) if is_kept else None,
        )
    except (ProducersError, LatestError) as fault:
        raise FoldError(str(fault)) from fault


def _part(data: bytes, at: int) -> tuple[bytes, int]:
    if at + _SIZE.size > len(data):
        raise FoldError("the state of a coordinator's partition ends in the middle")
    (size,) = _SIZE.unpack_from(data, at)
    end = at + _SIZE.size + size
    if end > len(data):
        raise FoldError("the state of a coordinator's partition ends in the middle")
    return data[at + _SIZE.size : end], end
