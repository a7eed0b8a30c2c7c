"""Which transactions the leader of a partition has had verified (KIP-890, part 1).

Volatile: only the leader of one term has it, and it is empty in the next. A batch that would open
a transaction is parked until the coordinator has said that the partition is part of it; else a
batch that was delayed would open one that nobody ever ends. An answer counts only while nothing
has happened to that producer here since the question: each question is a number, and a marker
makes it void.
"""

from collections import OrderedDict
from typing import Final

from corelane.model.record import record

UNKNOWN_START: Final = -1


@record
class Verified:
    """The coordinator's word: this partition is part of the transaction that began then."""

    epoch: int
    started_ms: int


class Verification:
    """At most *count_max* questions and answers; the oldest is forgotten, and asked anew."""

    __slots__ = ("_asked", "_count_max", "_next_question", "_started", "_verified")

    def __init__(self, count_max: int) -> None:
        assert count_max > 0
        self._count_max = count_max
        self._next_question = 1
        self._asked: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """By producer id: the number of the question, and the epoch asked about."""
        self._verified: OrderedDict[int, Verified] = OrderedDict()
        self._started: dict[int, int] = {}
        """Of transactions that were opened in this term: when they began."""

    def clear(self) -> None:
        """Forget all: this replica does not lead any more, or leads anew."""
        self._asked.clear()
        self._verified.clear()
        self._started.clear()

    def ask(self, producer_id: int, epoch: int) -> int:
        """Return the number of a question, the one under way if it is the same."""
        asked = self._asked.get(producer_id)
        if asked is not None and asked[1] == epoch:
            return asked[0]
        question = self._next_question
        self._next_question += 1
        self._asked[producer_id] = (question, epoch)
        self._asked.move_to_end(producer_id)
        if len(self._asked) > self._count_max:
            self._asked.popitem(last=False)
        return question

    def answered(self, producer_id: int, question: int, started_ms: int) -> bool:
        """Believe the coordinator; false: too late, the batch has to be judged anew."""
        asked = self._asked.get(producer_id)
        if asked is None or asked[0] != question:
            return False
        del self._asked[producer_id]
        self._verified[producer_id] = Verified(asked[1], started_ms)
        self._verified.move_to_end(producer_id)
        if len(self._verified) > self._count_max:
            self._verified.popitem(last=False)
        return True

    def refused(self, producer_id: int, question: int) -> None:
        """Forget a question that was answered with an error, or not at all."""
        asked = self._asked.get(producer_id)
        if asked is not None and asked[0] == question:
            del self._asked[producer_id]

    def is_verified(self, producer_id: int, epoch: int) -> bool:
        """Say whether a batch may open a transaction."""
        verified = self._verified.get(producer_id)
        return verified is not None and verified.epoch == epoch

    def opened(self, producer_id: int) -> None:
        """The first batch is in the log."""
        verified = self._verified.pop(producer_id, None)
        if verified is not None:
            self._started[producer_id] = verified.started_ms

    def closed(self, producer_id: int) -> None:
        """A marker is in the log: nothing said before counts any more."""
        self._asked.pop(producer_id, None)
        self._verified.pop(producer_id, None)
        self._started.pop(producer_id, None)

    def passed(self, producer_id: int, started_ms: int) -> None:
        """A marker came where nothing is open. The batch of its transaction comes too late."""
        self._asked.pop(producer_id, None)
        verified = self._verified.get(producer_id)
        if verified is not None and not _differ(verified.started_ms, started_ms):
            del self._verified[producer_id]

    def is_another(self, producer_id: int, started_ms: int) -> bool:
        """Say whether the open transaction is known not to be the one that began then."""
        return _differ(self._started.get(producer_id, UNKNOWN_START), started_ms)


def _differ(one_ms: int, other_ms: int) -> bool:
    return UNKNOWN_START not in {one_ms, other_ms} and one_ms != other_ms
