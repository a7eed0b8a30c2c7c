"""The ends of transactions, rule by rule: decisions, markers, time, death and pushes."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.producers.transactions.records import TransactionState
from corelane.producers.transactions.requests import (
    EndTransaction,
    ProducerAnswer,
    PushAnswer,
    PushVerdict,
    error_at_version,
)
from corelane.producers.transactions.timers import Timers
from tests.unit.producers.test_transactions import (
    CONCURRENT,
    FENCED,
    INVALID_STATE,
    LAST,
    NONE,
    OFFSETS,
    WAIT,
    A,
    B,
    Story,
)

# --- EndTxn, version 1 ---------------------------------------------------------------------


@pytest.mark.parametrize("commit", [True, False])
def test_the_decision_is_one_record_and_complete_when_all_have_their_markers(commit: bool) -> None:
    story = Story()
    story.begun()
    assert story.end(101, 0, commit=commit) == (NONE, 101, 0)
    assert story.log[-1].transaction == story.transaction
    (work,) = story.work
    assert (work.epoch, work.is_commit, work.partitions) == (0, commit, (A, B))
    story.mark(A)
    story.mark(A)
    assert story.transaction.is_prepared
    story.mark(B)
    done = TransactionState.COMPLETE_COMMIT if commit else TransactionState.COMPLETE_ABORT
    assert story.state is done


def test_a_repeated_end_is_answered_as_before_and_a_contrary_one_refused() -> None:
    story = Story()
    story.begun()
    story.end(101, 0, commit=True)
    assert story.end(101, 0, commit=True) == CONCURRENT
    assert story.end(101, 0, commit=False) == CONCURRENT
    story.mark()
    assert story.end(101, 0, commit=True) == (NONE, 101, 0)
    assert story.end(101, 0, commit=False) == INVALID_STATE


def test_the_end_of_nothing_is_refused() -> None:
    story = Story()
    assert story.end(101, 0, commit=True)[0] is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    _, producer_id, _ = story.init()
    assert story.end(producer_id, 0, commit=True) == INVALID_STATE
    assert story.end(producer_id, 0, commit=False) == INVALID_STATE
    assert story.end(77, 0, commit=False)[0] is ErrorCode.INVALID_PRODUCER_ID_MAPPING


def test_old_clients_hear_the_error_that_they_know() -> None:
    """KIP-588 made PRODUCER_FENCED of INVALID_PRODUCER_EPOCH, from these versions on."""
    fenced, epoch = ErrorCode.PRODUCER_FENCED, ErrorCode.INVALID_PRODUCER_EPOCH
    assert error_at_version(fenced, "EndTxn", 1) is epoch
    assert error_at_version(fenced, "EndTxn", 2) is fenced
    assert error_at_version(fenced, "InitProducerId", 3) is epoch
    assert error_at_version(fenced, "InitProducerId", 4) is fenced
    assert error_at_version(NONE, "EndTxn", 0) is NONE


# --- EndTxn, version 2 (KIP-890) -----------------------------------------------------------


def test_each_transaction_of_version_2_has_an_epoch_of_its_own() -> None:
    """Anomaly 7: a delayed EndTxn or Produce must not join the next transaction."""
    story = Story()
    story.begun(version=2)
    assert story.end(101, 0, commit=True, version=2) == (NONE, 101, 1)
    assert (story.work[-1].epoch, story.work[-1].client_version) == (1, 2)
    story.mark()
    assert story.add(101, 0, A, version=2) is ErrorCode.PRODUCER_FENCED
    assert story.add(101, 1, A, version=2) is NONE
    assert story.end(101, 0, commit=False, version=2) == FENCED
    assert story.transaction.is_ongoing


@pytest.mark.parametrize("commit", [True, False])
def test_an_end_of_version_2_may_be_repeated_until_the_next_begins(commit: bool) -> None:
    story = Story()
    story.begun(version=2)
    story.end(101, 0, commit=commit, version=2)
    assert story.end(101, 0, commit=commit, version=2) == CONCURRENT
    story.mark()
    story.restart()
    assert story.end(101, 0, commit=commit, version=2) == (NONE, 101, 1)


def test_an_abort_after_a_commit_of_the_same_epoch_is_refused() -> None:
    story = Story()
    story.begun(version=2)
    story.end(101, 0, commit=True, version=2)
    story.mark()
    assert story.end(101, 0, commit=False, version=2) == INVALID_STATE


def test_a_commit_that_races_with_the_abort_of_the_coordinator_is_fenced_and_not_fatal() -> None:
    """Anomaly 8 (KAFKA-20785)."""
    story = Story()
    story.begun(version=2)
    story.later(10_001)
    story.mark()
    assert story.state is TransactionState.COMPLETE_ABORT
    assert story.end(101, 0, commit=True, version=2) == FENCED
    assert story.end(101, 0, commit=False, version=2) == (NONE, 101, 1)


def test_a_fenced_producer_does_not_get_the_epoch_of_its_successor() -> None:
    """Of version 2, while the successor speaks version 1 and so keeps its epoch (found by the
    world: two producers with one epoch, and records of one committed by the other).
    """
    story = Story()
    story.init()
    story.init()
    story.add(101, 1, A)
    assert story.end(101, 1, commit=False) == (NONE, 101, 1)
    story.mark()
    assert story.end(101, 0, commit=False, version=2) == FENCED


def test_an_empty_transaction_of_version_2_may_be_aborted_but_not_committed() -> None:
    story = Story()
    story.init()
    assert story.end(101, 0, commit=True, version=2) == INVALID_STATE
    assert story.end(101, 0, commit=False, version=2) == (NONE, 101, 1)
    assert story.state is TransactionState.COMPLETE_ABORT
    assert not story.work
    assert story.end(101, 1, commit=False, version=2) == (NONE, 101, 2)


def test_an_empty_abort_waits_until_the_commit_before_is_carried_out() -> None:
    """KAFKA-18464: with the epoch checked first the producer fenced itself."""
    story = Story()
    story.begun(version=2)
    story.end(101, 0, commit=True, version=2)
    assert story.end(101, 1, commit=False, version=2) == CONCURRENT
    story.mark()
    assert story.end(101, 1, commit=False, version=2) == (NONE, 101, 2)


def test_when_the_epochs_end_with_a_transaction_its_answer_has_the_next_producer_id() -> None:
    story = Story()
    story.begun(version=2, epoch=LAST)
    fresh = story.fresh + 1
    assert story.end(101, LAST, commit=True, version=2) == (NONE, fresh, 0)
    assert (story.work[-1].producer_id, story.work[-1].epoch) == (101, LAST + 1)
    assert story.add(fresh, 0, A, version=2) is ErrorCode.CONCURRENT_TRANSACTIONS
    story.restart()
    story.mark()
    assert story.end(101, LAST, commit=True, version=2) == (NONE, fresh, 0)
    assert story.end(101, LAST, commit=False, version=2) == INVALID_STATE
    assert story.add(fresh, 0, A, version=2) is NONE


def test_without_a_fresh_producer_id_the_last_epoch_cannot_end_yet() -> None:
    story = Story()
    story.begun(version=2, epoch=LAST)
    answer = story.ask(EndTransaction("id", 101, LAST, is_commit=True, client_version=2))
    assert answer == ProducerAnswer(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
    assert story.transaction.is_ongoing


def test_the_epoch_that_only_fences_is_given_to_nobody() -> None:
    """KAFKA-20090: a transaction in it could never be fenced, and would stay open for ever."""
    story = Story()
    story.begun(version=2, epoch=LAST)
    story.later(10_001)
    story.mark()
    assert story.transaction.epoch == LAST + 1
    assert story.end(101, LAST, commit=False, version=2) == FENCED
    assert story.end(101, LAST + 1, commit=False, version=2) == FENCED
    assert story.add(101, LAST + 1, A, version=2) is ErrorCode.PRODUCER_FENCED
    assert story.init(producer_id=101, epoch=LAST + 1) == FENCED
    assert story.init() == (NONE, story.fresh, 0)


def test_a_producer_may_change_from_version_1_to_2_and_back() -> None:
    story = Story()
    story.begun()
    assert story.end(101, 0, commit=True, version=2) == (NONE, 101, 1)
    story.mark()
    assert story.add(101, 1, A) is NONE
    assert story.end(101, 1, commit=True) == (NONE, 101, 1)
    story.mark()
    assert story.end(101, 1, commit=True) == (NONE, 101, 1)


# --- time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_a_transaction_that_is_open_for_too_long_is_aborted_with_a_fenced_epoch(
    version: int,
) -> None:
    story = Story()
    story.begun(version=version)
    assert story.coordinator.next_deadline_ms == story.now_ms + 10_000
    story.later(9_999)
    assert story.transaction.is_ongoing
    story.later(1)
    assert story.state is TransactionState.PREPARE_ABORT
    assert (story.work[-1].epoch, story.work[-1].is_commit) == (1, False)
    story.mark()
    assert story.end(101, 0, commit=True) == FENCED


def test_a_producer_whose_transaction_was_aborted_for_it_cannot_go_on_with_its_epoch() -> None:
    story = Story()
    story.begun()
    story.later(10_000)
    story.mark()
    assert story.init(producer_id=101, epoch=0) == FENCED


def test_the_time_of_a_transaction_ends_with_it() -> None:
    story = Story()
    story.begun()
    story.later(9_000)
    story.end(101, 0, commit=True)
    story.mark()
    story.add(101, 0, A)
    story.later(9_999)
    assert story.transaction.is_ongoing
    story.later(1)
    assert story.state is TransactionState.PREPARE_ABORT


def test_the_deadlines_of_transactions_that_are_over_do_not_pile_up() -> None:
    timers = Timers()
    for number in range(1_000):
        timers.open_until("id", 10_000 + number)
        timers.unused_until("id", 50_000 + number)
    assert len(timers._heap) < 100
    timers.open_until("id", 7)
    assert timers.next_deadline_ms == 7
    assert timers.due(7, 10) == (["id"], [])
    assert timers.next_deadline_ms is None


def test_what_is_due_at_once_is_done_in_bounded_portions() -> None:
    timers = Timers()
    for number in range(5):
        timers.open_until(f"open {number}", number)
        timers.unused_until(f"unused {number}", number)
    assert timers.due(9, 3) == (["open 0", "open 1", "open 2"], [])
    assert timers.due(9, 3) == (["open 3", "open 4"], ["unused 0"])
    assert timers.next_deadline_ms == 1
    assert timers.due(2, 10) == ([], ["unused 1", "unused 2"])


def test_more_partitions_give_a_transaction_no_more_time() -> None:
    story = Story()
    story.begun()
    story.later(9_999)
    story.add(101, 0, OFFSETS)
    story.later(1)
    assert story.state is TransactionState.PREPARE_ABORT


def test_the_next_coordinator_counts_the_time_from_the_log() -> None:
    story = Story()
    story.begun()
    story.later(6_000)
    story.restart()
    story.later(3_999)
    assert story.transaction.is_ongoing
    story.later(1)
    assert story.state is TransactionState.PREPARE_ABORT


def test_a_wall_clock_that_is_wrong_neither_ends_a_transaction_nor_keeps_it() -> None:
    story = Story()
    story.begun()
    story.wall_ms += 10**9
    story.later(9_998)
    assert story.transaction.is_ongoing
    story.wall_ms -= 2 * 10**9
    story.restart()
    story.later(10_000)
    assert story.state is TransactionState.PREPARE_ABORT


def test_an_id_that_is_unused_for_long_is_forgotten_by_a_tombstone() -> None:
    story = Story()
    story.init()
    story.init("other")
    story.later(999_999)
    assert len(story.coordinator) == 2
    story.add(101, 0, A)
    story.later(1)
    assert [r.transactional_id for r in story.log if r.transaction is None] == ["other"]
    assert story.init("other", producer_id=102, epoch=0) == (NONE, story.fresh, 0)


def test_the_next_coordinator_forgets_ids_in_their_time_too() -> None:
    story = Story()
    story.init()
    story.later(600_000)
    story.restart()
    story.later(399_999)
    assert len(story.coordinator) == 1
    story.later(1)
    assert len(story.coordinator) == 0
    assert story.coordinator.next_deadline_ms is None


# --- a coordinator dies --------------------------------------------------------------------


@pytest.mark.parametrize("commit", [True, False])
def test_the_next_coordinator_sends_the_markers_of_a_decision_that_it_finds(commit: bool) -> None:
    story = Story()
    story.begun()
    story.end(101, 0, commit=commit)
    story.mark(A)
    story.restart()
    (work,) = story.work
    assert (work.is_commit, work.partitions, work.epoch) == (commit, (A, B), 0)
    story.mark(B)
    assert [left.partitions for left in story.coordinator.undelivered()] == [(A,)]
    story.mark(A)
    assert story.coordinator.undelivered_count == 0
    assert not story.transaction.is_prepared


def test_an_acknowledgement_of_an_earlier_transaction_does_not_count_for_this_one() -> None:
    """With version 1 the next one has the same producer id and epoch."""
    story = Story()
    story.begun()
    story.end(101, 0, commit=True)
    late = story.work[-1]
    story.mark()
    story.add(101, 0, A)
    story.end(101, 0, commit=False)
    story.mark(A, work=late)
    assert story.transaction.is_prepared
    story.mark()
    assert story.state is TransactionState.COMPLETE_ABORT


# --- Push ----------------------------------------------------------------------------------


def test_a_partition_of_a_living_transaction_is_told_to_wait() -> None:
    story = Story()
    story.begun()
    assert story.push(101, 0, A) == WAIT
    assert story.transaction.is_ongoing
    story.end(101, 0, commit=True)
    assert story.push(101, 0, A) == WAIT


def test_a_partition_with_a_transaction_of_an_earlier_epoch_is_told_to_abort_it() -> None:
    story = Story()
    story.init()
    story.init()
    assert story.push(101, 0, A) == PushAnswer(PushVerdict.ABORT, 0)


def test_a_producer_that_nobody_knows_is_not_this_coordinators_to_judge() -> None:
    story = Story()
    story.begun()
    assert story.push(999, 0, A) == PushAnswer(PushVerdict.UNKNOWN)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_relic_of_the_present_epoch_is_aborted_only_behind_a_fence(is_open: bool) -> None:
    """Else the producer could add the partition meanwhile, and lose its records there alone."""
    story = Story()
    if is_open:
        story.begun()
    else:
        story.init()
    assert story.push(101, 0, OFFSETS) == WAIT
    work = story.work[-1]
    assert (work.epoch, work.is_commit) == (1, False)
    assert work.partitions == tuple(sorted({OFFSETS, *((A, B) if is_open else ())}))
    story.mark()
    assert story.add(101, 0, OFFSETS) is ErrorCode.PRODUCER_FENCED


def test_a_transaction_of_the_id_before_the_last_change_is_over() -> None:
    story = Story()
    story.init()
    story.set(epoch=LAST)
    story.init()
    assert story.push(101, LAST, A) == PushAnswer(PushVerdict.ABORT, LAST)
