"""Batches that would open a transaction, until it is known whether this partition is part of it.

Invariants:
K1. Of one producer at one partition everything waits behind what waits: its order is kept.
K2. Who waits is told once: to be judged again, or why not. By what is known then, not by what was
    asked: a marker that came meanwhile makes the answer void.
K3. What waits is bounded, in number per producer and in bytes per core; what is beyond is refused
    as something to be tried again.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane.shard.partition import Partition
from corelane.shard.verifying import Place, Verified, VerifyTransaction

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

WAITING_MAX: Final = 64
"""Batches of one producer at one partition; clients have at most five requests under way."""
AGAIN_MS: Final = 20
AGAIN_COUNT: Final = 5
"""Kafka's add.partitions.to.txn.retry.backoff.ms, and so many fit into its .max.ms: a transaction
that follows at once finds the markers of the one before still on their way.
"""


@record
class Writing:
    """Who writes, and in which transaction."""

    transactional_id: str
    producer_id: int
    epoch: int
    is_added: bool
    """The partition becomes part of the transaction by this very batch (KIP-890, version 2)."""


class Writer(Protocol):
    """One batch on its way into a partition."""

    @property
    def size_bytes(self) -> int:
        """Return what it holds while it waits."""

    def go_on(self) -> None:
        """Be judged again, from the start: the partition may have been given up meanwhile."""

    def refused(self, error: ErrorCode) -> None:
        """Go no further: the coordinator says so, or there is no room to wait."""


class Parked:
    """The batches of one producer at one partition that wait for one answer (K1)."""

    __slots__ = ("asked_count", "is_done", "partition", "question", "shard", "waiting", "writing")

    def __init__(self, shard: "Shard", partition: Partition, writing: Writing) -> None:
        self.shard = shard
        self.partition = partition
        self.writing = writing
        self.question = 0
        self.asked_count = 0
        self.is_done = False
        self.waiting: list[tuple[Writer, int]] = []

    def add(self, writer: Writer) -> None:
        """Have *writer* wait behind the others (K3)."""
        assert not self.is_done
        shard, size_bytes = self.shard, writer.size_bytes
        has_room = shard.parked_bytes + size_bytes <= limits.PARKED_BYTES_MAX
        if not has_room or len(self.waiting) >= WAITING_MAX:
            writer.refused(ErrorCode.NOT_ENOUGH_REPLICAS)
            return
        shard.parked_bytes += size_bytes
        self.waiting.append((writer, size_bytes))

    def ask(self) -> None:
        """Ask the coordinator."""
        writing, partition = self.writing, self.partition
        inquiries = self.shard.groups.inquiries
        self.asked_count += 1
        verification = partition.transactions.verification
        self.question = verification.ask(writing.producer_id, writing.epoch)
        place = Place(partition.topic.name, partition.topic.topic_id, partition.number)
        inquiries.verify(
            VerifyTransaction(
                writing.transactional_id,
                writing.producer_id,
                writing.epoch,
                place,
                writing.is_added,
            ),
            self._told,
        )

    def expire(self, now_ms: int) -> None:
        """Ask once more."""
        del now_ms
        self.ask()

    def _told(self, said: Verified) -> None:
        if self.is_done:
            return
        writing, verification = self.writing, self.partition.transactions.verification
        error = said.error
        if error is ErrorCode.NONE:
            verification.answered(writing.producer_id, self.question, said.started_ms)
            self._end(lambda writer: writer.go_on())
            return
        is_ending = error is ErrorCode.CONCURRENT_TRANSACTIONS and writing.is_added
        if is_ending and self.asked_count <= AGAIN_COUNT:
            self.shard.deadlines.add(self.shard.now_ms + AGAIN_MS, self)
            return
        verification.refused(writing.producer_id, self.question)
        self._end(lambda writer: writer.refused(error))

    def lost(self) -> None:
        """Have everybody learn that this core leads no more (called by the partition)."""
        self._end(lambda writer: writer.go_on())

    def _end(self, tell: Callable[[Writer], None]) -> None:
        """Let all go on, in order; who has to wait again finds those before it waiting."""
        assert not self.is_done
        self.is_done = True
        self.partition.parked.pop(self.writing.producer_id, None)
        waiting, self.waiting = self.waiting, []
        for writer, size_bytes in waiting:
            self.shard.parked_bytes -= size_bytes
            tell(writer)


def behind(partition: Partition, producer_id: int) -> Parked | None:
    """Return where a batch of that producer has to wait; None: nowhere."""
    parked = partition.parked.get(producer_id)
    assert parked is None or isinstance(parked, Parked)
    return parked


def park(shard: "Shard", partition: Partition, writing: Writing, writer: Writer) -> None:
    """Have *writer* wait for the word of the coordinator, which is asked."""
    assert writing.producer_id not in partition.parked, "K1"
    parked = Parked(shard, partition, writing)
    parked.add(writer)
    if parked.waiting:
        partition.parked[writing.producer_id] = parked
        parked.ask()
