"""Whether a partition of this core may be asked at all: leadership and epochs (KIP-320)."""

from typing import Final

from corelane.model.errors import ErrorCode
from corelane.shard.partition import Partition

NO_EPOCH: Final = -1
"""A client that names no epoch is not fenced."""


def fault_of(partition: Partition, epoch: int = NO_EPOCH) -> int:
    """Return the error for a client that takes *epoch* for the leader's current one; 0: none."""
    if partition.is_damaged:
        return ErrorCode.KAFKA_STORAGE_ERROR
    if not partition.serves:
        if partition.topic.is_deleted:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    if epoch not in {NO_EPOCH, partition.raft.term}:
        newer = epoch > partition.raft.term
        return ErrorCode.UNKNOWN_LEADER_EPOCH if newer else ErrorCode.FENCED_LEADER_EPOCH
    return 0
