"""Moving a partition's log start forward: a TRIM entry of its leader, for DeleteRecords and age.

Invariants:
T1. A start offset is asked for at or below the commit point, and acts when its entry is committed.
T2. It never goes back: of several that are asked for the highest counts.
"""

from typing import Final

from corelane.model.ids import Offset
from corelane.shard.partition import AppendWaiter, Partition
from corelane.storage.layout import BLOCK_BYTES
from corelane.storage.wal import RESERVE_BYTES, WalFullError

ROOM_BYTES_MIN: Final = BLOCK_BYTES - RESERVE_BYTES // 2
"""Room in the WAL below which nothing is trimmed. What gives space back may use of the reserve."""


def trim(partition: Partition, start: Offset) -> bool:
    """Have the log begin at *start* or above, soon; False when the WAL has no room for that."""
    log = partition.log
    assert partition.serves
    assert start <= log.committed_offset, "T1"
    if start <= max(log.start_offset, partition.trim_offset):
        return True  # T2: so it does, or will
    if log.store.wal.room_bytes < ROOM_BYTES_MIN:
        return False
    try:
        partition.propose_start(start)
    except (MemoryError, WalFullError):
        return False
    partition.counts.trims += 1
    return True


def wait_for_start(partition: Partition, start: Offset, waiter: AppendWaiter) -> bool:
    """Have *waiter* told when the log begins at *start*, which `trim` was asked for.

    False when it does already: the waiter is not told then.
    """
    if start <= partition.log.start_offset:
        return False
    assert start <= partition.trim_offset, "T2"
    assert partition.trim_index > partition.log.committed_index
    partition.wait_for_twin(partition.trim_index, waiter)
    return True
