"""Markers: how what was decided about a transaction gets into the log of a partition led here.

Invariants:
M1. `done` is called once. NONE says that the marker is committed, in the term in which it was
    asked for: a leader that was replaced in between has no say about what is open.
M2. An error says nothing about the log: the marker may be in it. Who asks does so again.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

from corelane.model.errors import ErrorCode
from corelane.model.ids import Term
from corelane.producers.open_transactions import Append, Done, MarkerRequest, Refuse
from corelane.shard.partition import Partition
from corelane.shard.transaction_entries import NO_SEQUENCE, marker_batch
from corelane.shard.verifying import MarkerToWrite
from corelane.storage.wal import WalFullError
from corelane.wire.records import Producer

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

ANY_LEADER = Term(-1)

Told = Callable[[ErrorCode], None]


class _Committed:
    """Waits until an entry is committed."""

    __slots__ = ("done", "partition")

    def __init__(self, partition: Partition, done: Told) -> None:
        self.partition = partition
        self.done = done

    def settled(self, *, is_lost: bool) -> None:
        """Take the entry's fate (called by the partition)."""
        self.done(_gone(self.partition) if is_lost else ErrorCode.NONE)


def write(shard: "Shard", marker: MarkerToWrite, done: Told) -> None:
    """Have a marker written; *done* is called when it is committed, perhaps before this returns.

    UNKNOWN_TOPIC_OR_PARTITION is no proof that the partition was deleted: that is the controller's
    to say.
    """
    found = _find(shard, marker)
    if isinstance(found, Partition):
        write_at(shard, found, marker, done)
    else:
        done(found)


def write_at(shard: "Shard", partition: Partition, marker: MarkerToWrite, done: Told) -> None:
    """Have a marker written into a partition of this core; as `write`."""
    if not partition.serves:
        done(_gone(partition))
        return
    if marker.leader_term not in {ANY_LEADER, partition.raft.term}:
        done(ErrorCode.FENCED_LEADER_EPOCH)
        return
    request = MarkerRequest(
        marker.producer_id,
        marker.epoch,
        marker.coordinator_term,
        marker.client_version,
        marker.started_ms,
    )
    verdict = partition.transactions.check_marker(request)
    waiter = _Committed(partition, done)
    match verdict:
        case Append():
            _append(shard, partition, marker, waiter)
        case Done():
            if verdict.index > partition.log.committed_index:
                partition.wait_for_twin(verdict.index, waiter)
            else:
                done(ErrorCode.NONE)
        case Refuse():
            done(verdict.error)
        case _:
            assert_never(verdict)


def _append(
    shard: "Shard", partition: Partition, marker: MarkerToWrite, waiter: _Committed
) -> None:
    if shard.store.is_full:
        waiter.done(ErrorCode.KAFKA_STORAGE_ERROR)
        return
    data = marker_batch(
        Producer(marker.producer_id, marker.epoch, NO_SEQUENCE),
        is_commit=marker.is_commit,
        coordinator_term=marker.coordinator_term,
        wall_ms=shard.wall_ms,
    )
    try:
        index = partition.append_marker(data)
    except (MemoryError, WalFullError):
        waiter.done(ErrorCode.NOT_ENOUGH_REPLICAS)
        return
    partition.wait_for_commit(index, waiter)


def _find(shard: "Shard", marker: MarkerToWrite) -> Partition | ErrorCode:
    groups, place = shard.groups, marker.place
    topic = groups.topics.get(place.topic.encode())
    if topic is None or topic.is_deleted or not 0 <= place.number < len(topic.partitions):
        if not groups.is_reconciled:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER  # it is not known yet what topics there are
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return topic.partitions[place.number] or ErrorCode.NOT_LEADER_OR_FOLLOWER


def _gone(partition: Partition) -> ErrorCode:
    """Return why a partition takes nothing."""
    if partition.is_dropped and partition.topic.is_deleted:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if partition.is_damaged:
        return ErrorCode.KAFKA_STORAGE_ERROR
    return ErrorCode.NOT_LEADER_OR_FOLLOWER
