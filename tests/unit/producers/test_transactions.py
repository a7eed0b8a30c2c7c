"""The transaction coordinator, rule by rule: ask it, keep its log, look at what leaves.

After every step a second coordinator is made from the log alone; it must know the same.
"""

from dataclasses import replace
from typing import Final

import pytest

from corelane.model.errors import ErrorCode
from corelane.producers.transactions.coordinator import TransactionCoordinator
from corelane.producers.transactions.records import (
    Partition,
    Transaction,
    TransactionRecord,
    TransactionState,
)
from corelane.producers.transactions.requests import (
    PARTITIONS_MAX,
    TRANSACTIONAL_ID_BYTES_MAX,
    AddPartitions,
    DescribeAnswer,
    DescribeTransaction,
    EndTransaction,
    InitProducerId,
    ListAnswer,
    ListTransactions,
    MarkerWork,
    PartitionsAnswer,
    ProducerAnswer,
    Push,
    PushAnswer,
    PushVerdict,
    Request,
    TransactionSettings,
    VerifyPartitions,
)

A: Final = ("a", 0)
B: Final = ("b", 3)
OFFSETS: Final = ("__consumer_offsets", 11)
LAST: Final = 32_766
"""The last epoch that is given out."""
NONE: Final = ErrorCode.NONE
SETTINGS: Final = TransactionSettings(timeout_max_ms=60_000, id_expiration_ms=1_000_000)


class Story:
    """A coordinator, its log, and the markers it wants to have written."""

    def __init__(self, settings: TransactionSettings = SETTINGS) -> None:
        self.settings = settings
        self.now_ms = 5_000
        self.wall_ms = 1_000_000
        self.fresh = 100
        self.log: list[TransactionRecord] = []
        self.work: list[MarkerWork] = []
        self.coordinator = TransactionCoordinator(settings)
        self.coordinator.loaded(self.now_ms, self.wall_ms)

    def restart(self) -> None:
        self.coordinator = self.replayed()
        self.work = []
        self.now_ms = 77
        self.coordinator.loaded(self.now_ms, self.wall_ms)
        self._take()

    def replayed(self) -> TransactionCoordinator:
        coordinator = TransactionCoordinator(self.settings)
        for record in self.log:
            coordinator.replay(record)
        return coordinator

    def ask(self, request: Request) -> object:
        self.coordinator.handle(self.now_ms, self.wall_ms, 9, request)
        (answered,) = self._take()
        return answered

    def _take(self) -> list[object]:
        outcome = self.coordinator.take()
        self.log += outcome.records
        self.work += outcome.markers
        live = {r.transactional_id: r for r in self.coordinator.live_records()}
        assert live == {r.transactional_id: r for r in self.replayed().live_records()}
        assert all(answered.token == 9 for answered in outcome.answers)
        return [answered.answer for answered in outcome.answers]

    def later(self, ms: int) -> None:
        self.now_ms += ms
        self.wall_ms += ms
        self.coordinator.tick(self.now_ms, self.wall_ms)
        self._take()

    def init(
        self, name: str = "id", *, producer_id: int = -1, epoch: int = -1, timeout_ms: int = 10_000
    ) -> tuple[ErrorCode, int, int]:
        self.fresh += 1
        request = InitProducerId(name, timeout_ms, self.fresh, producer_id, epoch)
        return self._producer(request)

    def add(
        self, producer_id: int, epoch: int, *partitions: Partition, version: int = 1
    ) -> ErrorCode:
        request = AddPartitions("id", producer_id, epoch, partitions, version)
        answer = self.ask(request)
        assert isinstance(answer, PartitionsAnswer)
        (error,) = set(answer.errors)
        return error

    def verify(self, producer_id: int, epoch: int, *partitions: Partition) -> list[ErrorCode]:
        answer = self.ask(VerifyPartitions("id", producer_id, epoch, partitions))
        assert isinstance(answer, PartitionsAnswer)
        return list(answer.errors)

    def end(
        self, producer_id: int, epoch: int, *, commit: bool, version: int = 1
    ) -> tuple[ErrorCode, int, int]:
        self.fresh += 1
        request = EndTransaction("id", producer_id, epoch, commit, version, self.fresh)
        return self._producer(request)

    def push(self, producer_id: int, epoch: int, partition: Partition) -> PushAnswer:
        answer = self.ask(Push(producer_id, epoch, partition))
        assert isinstance(answer, PushAnswer)
        return answer

    def mark(self, *partitions: Partition, work: MarkerWork | None = None) -> None:
        work = work or self.work[-1]
        done = partitions or work.partitions
        self.coordinator.marked(self.now_ms, self.wall_ms, work, done)
        self._take()

    def begun(self, *, version: int = 1, epoch: int = 0) -> int:
        """A producer with that epoch and a transaction that is going on; return its id."""
        error, producer_id, _ = self.init()
        assert error is NONE
        self.later(1)
        if epoch:
            self.set(epoch=epoch)
        assert self.add(producer_id, epoch, A, B, version=version) is NONE
        return producer_id

    def set(self, **changes: int) -> None:
        """Begin again with a log in which something is as it would be after years."""
        changed = replace(self.transaction, **changes)  # type: ignore[arg-type]
        self.log.append(TransactionRecord("id", changed))
        self.restart()

    @property
    def transaction(self) -> Transaction:
        (found,) = [
            r.transaction for r in self.coordinator.live_records() if r.transactional_id == "id"
        ]
        assert found is not None
        return found

    @property
    def state(self) -> TransactionState:
        return self.transaction.state

    def _producer(self, request: Request) -> tuple[ErrorCode, int, int]:
        answer = self.ask(request)
        assert isinstance(answer, ProducerAnswer)
        return answer.error, answer.producer_id, answer.epoch


FENCED: Final = (ErrorCode.PRODUCER_FENCED, -1, -1)
CONCURRENT: Final = (ErrorCode.CONCURRENT_TRANSACTIONS, -1, -1)
INVALID_STATE: Final = (ErrorCode.INVALID_TXN_STATE, -1, -1)
WAIT: Final = PushAnswer(PushVerdict.WAIT)


# --- InitProducerId ------------------------------------------------------------------------


def test_the_first_producer_of_an_id_gets_the_fresh_producer_id_and_epoch_0() -> None:
    story = Story()
    assert story.init() == (NONE, 101, 0)
    assert story.state is TransactionState.EMPTY


def test_each_further_producer_fences_the_one_before_by_the_next_epoch() -> None:
    story = Story()
    story.init()
    assert story.init() == (NONE, 101, 1)
    assert story.add(101, 0, A) is ErrorCode.PRODUCER_FENCED
    assert story.end(101, 0, commit=True) == FENCED


def test_a_producer_may_go_on_with_its_id_and_epoch_and_may_repeat_that() -> None:
    """KIP-360; across a change of coordinators too."""
    story = Story()
    story.init()
    assert story.init(producer_id=101, epoch=0) == (NONE, 101, 1)
    assert story.init(producer_id=101, epoch=0) == (NONE, 101, 1)
    story.restart()
    assert story.init(producer_id=101, epoch=0) == (NONE, 101, 1)


def test_a_producer_that_was_succeeded_cannot_come_back_with_its_epoch() -> None:
    """KIP-360: whoever begins without an epoch takes the last one away."""
    story = Story()
    story.init()
    assert story.init() == (NONE, 101, 1)
    assert story.init(producer_id=101, epoch=0) == FENCED
    assert story.init(producer_id=55, epoch=1) == FENCED
    assert story.init(producer_id=101, epoch=2) == FENCED


def test_an_open_transaction_is_aborted_with_a_fence_before_the_next_producer_begins() -> None:
    story = Story()
    story.begun()
    assert story.init() == CONCURRENT
    assert story.state is TransactionState.PREPARE_ABORT
    assert (story.work[-1].epoch, story.work[-1].is_commit) == (1, False)
    assert story.init() == CONCURRENT
    story.mark()
    assert story.init() == (NONE, 101, 2)


def test_a_fenced_producer_cannot_end_the_transaction_of_its_successor() -> None:
    """A delayed InitProducerId with the old epoch; Kafka looks at it only after the abort."""
    story = Story()
    story.init()
    story.init()
    assert story.add(101, 1, A) is NONE
    assert story.init(producer_id=101, epoch=0) == FENCED
    assert story.transaction.is_ongoing


def test_a_request_that_was_delayed_cannot_end_the_work_that_its_repetition_began() -> None:
    story = Story()
    story.init()
    assert story.init(producer_id=101, epoch=0) == (NONE, 101, 1)
    assert story.add(101, 1, A) is NONE
    assert story.init(producer_id=101, epoch=0) == FENCED
    assert story.transaction.is_ongoing


def test_after_the_last_epoch_comes_a_fresh_producer_id() -> None:
    story = Story()
    story.init()
    story.set(epoch=LAST)
    assert story.init() == (NONE, 102, 0)


def test_the_change_of_ids_may_be_repeated_with_the_exhausted_epoch() -> None:
    story = Story()
    story.init()
    story.set(epoch=LAST)
    assert story.init(producer_id=101, epoch=LAST) == (NONE, 102, 0)
    assert story.init(producer_id=101, epoch=LAST) == (NONE, 102, 0)
    assert story.init(producer_id=101, epoch=LAST - 1) == FENCED


@pytest.mark.parametrize("timeout_ms", [0, -1, 60_001, 2**31 - 1])
def test_a_timeout_that_is_not_allowed_is_refused(timeout_ms: int) -> None:
    story = Story()
    assert story.init(timeout_ms=timeout_ms)[0] is ErrorCode.INVALID_TRANSACTION_TIMEOUT
    assert not story.log


@pytest.mark.parametrize("name", ["", "x" * (TRANSACTIONAL_ID_BYTES_MAX + 1)])
def test_an_id_that_is_empty_or_huge_is_refused_by_every_request(name: str) -> None:
    story = Story()
    for request in (
        InitProducerId(name, 1_000, 1),
        AddPartitions(name, 1, 0, (A,)),
        VerifyPartitions(name, 1, 0, (A,)),
        EndTransaction(name, 1, 0, is_commit=True),
        DescribeTransaction(name),
    ):
        assert "INVALID_REQUEST" in repr(story.ask(request))


def test_more_ids_than_the_limit_are_refused_and_known_ones_go_on() -> None:
    story = Story(replace(SETTINGS, ids_max=1))
    story.init()
    assert story.init("other")[0] is ErrorCode.POLICY_VIOLATION
    assert story.init() == (NONE, 101, 1)


# --- partitions ----------------------------------------------------------------------------


def test_partitions_are_durable_before_the_answer_and_the_second_time_is_no_record() -> None:
    """Anomaly 6: what only the coordinator's memory knew was lost with it."""
    story = Story()
    story.begun()
    size = len(story.log)
    assert story.log[-1].transaction == story.transaction
    assert story.transaction.partitions == (A, B)
    assert story.add(101, 0, B) is NONE
    assert len(story.log) == size
    assert story.add(101, 0, OFFSETS) is NONE
    assert story.transaction.partitions == tuple(sorted((A, B, OFFSETS)))


def test_only_the_producer_of_the_moment_adds_partitions() -> None:
    story = Story()
    assert story.add(101, 0, A) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    story.init()
    assert story.add(100, 0, A) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert story.add(101, 1, A) is ErrorCode.PRODUCER_FENCED


def test_while_a_decision_is_carried_out_partitions_have_to_wait() -> None:
    story = Story()
    story.begun()
    story.end(101, 0, commit=True)
    assert story.add(101, 0, A) is ErrorCode.CONCURRENT_TRANSACTIONS
    story.mark()
    assert story.add(101, 0, A) is NONE


def test_a_transaction_of_too_many_partitions_is_refused_and_stays_as_it_was() -> None:
    story = Story()
    story.begun()
    many = tuple(("t", number) for number in range(PARTITIONS_MAX))
    assert story.add(101, 0, *many) is ErrorCode.POLICY_VIOLATION
    assert story.transaction.partitions == (A, B)


def test_verification_says_of_each_partition_whether_it_belongs_to_the_transaction() -> None:
    """KIP-890, part 1."""
    story = Story()
    story.begun()
    assert story.verify(101, 0, A, OFFSETS) == [NONE, ErrorCode.TRANSACTION_ABORTABLE]
    assert story.verify(100, 0, A) == [ErrorCode.INVALID_PRODUCER_ID_MAPPING]
    assert story.verify(101, 1, A) == [ErrorCode.PRODUCER_FENCED]
    story.end(101, 0, commit=True)
    assert story.verify(101, 0, A) == [ErrorCode.CONCURRENT_TRANSACTIONS]
    story.mark()
    assert story.verify(101, 0, A) == [ErrorCode.TRANSACTION_ABORTABLE]


def test_no_two_transactions_of_an_id_begin_at_one_time_even_if_the_clock_goes_back() -> None:
    story = Story()
    starts = set()
    for number in range(4):
        story.wall_ms = 1_000_000 - 300 * number
        story.begun() if number == 0 else story.add(101, 0, A)
        starts.add(story.transaction.started_ms)
        story.end(101, 0, commit=True)
        story.mark()
    assert len(starts) == 4


# --- tools ---------------------------------------------------------------------------------


def test_describe_tells_the_transaction_and_misses_what_is_not_there() -> None:
    story = Story()
    story.begun()
    answer = story.ask(DescribeTransaction("id"))
    assert answer == DescribeAnswer(NONE, story.transaction)
    missing = story.ask(DescribeTransaction("nobody"))
    assert missing == DescribeAnswer(ErrorCode.TRANSACTIONAL_ID_NOT_FOUND)


def test_list_filters_by_state_producer_and_duration() -> None:
    story = Story()
    story.begun()
    story.init("other")

    def listed(request: ListTransactions) -> list[str]:
        answer = story.ask(request)
        assert isinstance(answer, ListAnswer)
        return sorted(row.transactional_id for row in answer.rows)

    assert listed(ListTransactions()) == ["id", "other"]
    assert listed(ListTransactions(states=("Ongoing",))) == ["id"]
    assert listed(ListTransactions(producer_ids=(102,))) == ["other"]
    assert listed(ListTransactions(duration_ms=50)) == []
    story.later(51)
    assert listed(ListTransactions(duration_ms=50)) == ["id"]
    answer = story.ask(ListTransactions(states=("Ongoing", "Nonsense")))
    assert isinstance(answer, ListAnswer)
    assert answer.unknown_states == ("Nonsense",)
