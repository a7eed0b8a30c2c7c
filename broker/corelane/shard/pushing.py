"""Transactions that have been open for too long: their coordinator is asked what became of them.

A transaction whose coordinator has forgotten it would hold up the readers of committed records for
ever. A partition never decides about it: it asks (Percolator's push), and writes what it is told.

Invariants:
P1. An abort is written only for the very transaction that was asked about, by the leader that
    asked: same producer, same first offset, same term.
P2. One question at a time about one transaction; a pass asks about `ASKED_MAX` at most.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from corelane.model.errors import ErrorCode
from corelane.model.ids import GroupId, Term
from corelane.producers.open_transactions import OpenTransaction, Standing
from corelane.producers.transactions.requests import PushVerdict
from corelane.shard import markers
from corelane.shard.partition import Partition
from corelane.shard.verifying import MarkerToWrite, Place, Pushed, PushTransaction

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

PASS_MS: Final = 10_000
"""Between two passes over all partitions of the core."""
SLICE_PARTITIONS: Final = 512
"""Of which nearly all have nothing open: 40 us."""
SLICE_MS: Final = 10
ASKED_MAX: Final = 256
_INFO: Final = 20

Key = tuple[GroupId, int]
"""A partition's group, and a producer's id."""


class Pushing:
    """The passes of one core; a waiter that always waits for the next slice."""

    __slots__ = ("_asked", "_left", "_shard", "is_done")

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self._left: deque[GroupId] = deque()
        self._asked: set[Key] = set()
        self.is_done = False  # never: see Deadlines
        shard.deadlines.add(0, self)

    def expire(self, now_ms: int) -> None:
        """Do a slice, or begin a pass."""
        members = self._shard.groups.members
        if not self._left:
            self._left.extend(members)
        for _ in range(min(SLICE_PARTITIONS, len(self._left))):
            member = members.get(self._left.popleft())
            if isinstance(member, Partition) and member.transactions.open_count and member.serves:
                self._look_at(member)
        self._shard.deadlines.add(now_ms + (SLICE_MS if self._left else PASS_MS), self)

    def _look_at(self, partition: Partition) -> None:
        age_ms = self._shard.config.config.transactions.push_age_ms
        for each in partition.transactions.overdue(self._shard.now_ms, age_ms):
            key = (partition.group, each.producer_id)
            if key not in self._asked and len(self._asked) < ASKED_MAX:
                self._asked.add(key)
                self._ask(partition, each, partial(self._asked.discard, key))

    def _ask(
        self, partition: Partition, overdue: OpenTransaction, over: Callable[[], None]
    ) -> None:
        topic, producer_id, term = partition.topic, overdue.producer_id, partition.raft.term
        asked = overdue.standing
        place = Place(topic.name, topic.topic_id, partition.number)

        def told(pushed: Pushed) -> None:
            over()
            if pushed.verdict is PushVerdict.WAIT or term != partition.raft.term:
                return
            now = partition.transactions.standing(producer_id)
            if partition.serves and now is not None and now.first_offset == asked.first_offset:
                self._abort(partition, place, (producer_id, now), pushed)

        question = PushTransaction(None, producer_id, asked.epoch, place)
        self._shard.groups.inquiries.push(question, told)

    def _abort(
        self, partition: Partition, place: Place, open_one: tuple[int, Standing], pushed: Pushed
    ) -> None:
        """Write what nobody else will: the coordinator, or all of them, have said so."""
        producer_id, standing = open_one
        marker = MarkerToWrite(
            place,
            producer_id,
            max(pushed.epoch, standing.epoch),
            is_commit=False,
            coordinator_term=Term(max(pushed.coordinator_term, standing.coordinator_term, 0)),
            leader_term=partition.raft.term,
        )
        name = f"{place.topic}-{place.number}"

        def done(error: ErrorCode) -> None:
            if error is ErrorCode.NONE:
                self._shard.log(
                    _INFO,
                    f"aborted the transaction of producer {producer_id} that was open in {name}"
                    f" from offset {standing.first_offset}: its coordinator knows it no more",
                )

        markers.write_at(self._shard, partition, marker, done)
