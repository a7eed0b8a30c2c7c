"""Transactions at a partition, rule by rule, and against a dumb second version."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane.model.errors import ErrorCode
from corelane.model.ids import Index, Offset, Term
from corelane.producers.open_transactions import (
    APPEND,
    BatchVerdict,
    Done,
    Entry,
    Marker,
    MarkerRequest,
    MarkerVerdict,
    OpenTransactions,
    OpenTransactionsError,
    Refuse,
    TransactionalBatch,
    Verify,
)

DAY_MS: Final = 86_400_000


class Log:
    """A log of transactional batches of ten records, of markers and of other batches."""

    def __init__(self, transactions: OpenTransactions | None = None) -> None:
        self.transactions = transactions or OpenTransactions(DAY_MS)
        self.entries: list[Entry] = []
        self.index = 0
        self.offset = 0

    def other(self, count: int = 10) -> None:
        self.index += 1
        self.offset += count

    def batch(self, pid: int = 7, *, epoch: int = 0, at_ms: int = 0) -> int:
        """Append a batch; return its first offset."""
        self.index += 1
        first = self.offset
        self.offset += 10
        self._add(TransactionalBatch(Index(self.index), pid, epoch, Offset(first), at_ms))
        return first

    def marker(
        self, pid: int = 7, *, commit: bool = True, epoch: int = 0, term: int = 1, at_ms: int = 0
    ) -> int:
        self.index += 1
        at = self.offset
        self.offset += 1
        self._add(Marker(Index(self.index), pid, epoch, commit, Term(term), Offset(at), at_ms))
        return at

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.transactions.appended(entry)

    def commit(self) -> None:
        self.transactions.committed(Index(self.index))

    @property
    def stable(self) -> int:
        return self.transactions.last_stable_offset(Offset(self.offset))

    def check(self, pid: int = 7, *, epoch: int = 0, plain: bool = False) -> BatchVerdict:
        return self.transactions.check_batch(pid, epoch, is_transactional=not plain)

    def check_marker(
        self, pid: int = 7, *, epoch: int = 0, term: int = 1, version: int = 1, started: int = -1
    ) -> MarkerVerdict:
        return self.transactions.check_marker(
            MarkerRequest(pid, epoch, Term(term), version, started)
        )

    def verify(self, pid: int = 7, *, epoch: int = 0, started: int = 50) -> bool:
        verdict = self.check(pid, epoch=epoch)
        assert isinstance(verdict, Verify)
        return self.transactions.verification.answered(pid, verdict.question, started)

    def aborted(self, from_offset: int = 0, upto: int = 2**62) -> list[tuple[int, int]]:
        found = self.transactions.aborted_between(Offset(from_offset), Offset(upto))
        return [(aborted.producer_id, aborted.first_offset) for aborted in found]

    def replayed(self) -> OpenTransactions:
        """What another replica makes of the committed entries alone."""
        other = OpenTransactions(DAY_MS)
        other.trimmed(self.transactions.start_offset)
        for entry in self.entries:
            if entry.index <= self.transactions.committed_index:
                other.appended(entry)
                other.committed(entry.index)
        other.committed(self.transactions.committed_index)
        return other


def refused(verdict: BatchVerdict | MarkerVerdict) -> ErrorCode:
    assert isinstance(verdict, Refuse)
    assert verdict.sentence
    return verdict.error


# --- what is stable ------------------------------------------------------------------------


def test_without_transactions_all_that_is_committed_is_stable() -> None:
    log = Log()
    log.other()
    log.commit()
    assert log.stable == 10


def test_the_last_stable_offset_is_the_first_of_the_oldest_open_transaction() -> None:
    """Half-open (anomaly 2): the record at the last stable offset is not to be seen."""
    log = Log()
    log.other()
    first = log.batch(7)
    second = log.batch(8)
    log.commit()
    assert (log.stable, first, second) == (10, 10, 20)
    log.marker(7)
    log.commit()
    assert log.stable == second
    log.marker(8)
    log.commit()
    assert log.stable == log.offset


def test_a_marker_that_is_not_committed_makes_nothing_stable() -> None:
    """Decisions are seen when a majority has them, never before."""
    log = Log()
    log.batch()
    log.commit()
    log.marker()
    assert log.stable == 0
    log.transactions.truncated(Index(log.index))
    log.commit()
    assert log.stable == 0


def test_a_transaction_that_is_not_committed_holds_up_nobody_and_may_be_taken_back() -> None:
    log = Log()
    log.other()
    log.commit()
    log.batch()
    assert log.transactions.last_stable_offset(Offset(10)) == 10
    assert log.check() is APPEND
    log.transactions.truncated(Index(2))
    assert isinstance(log.check(), Verify)


# --- what is aborted -----------------------------------------------------------------------


def test_aborted_transactions_come_in_the_order_of_their_first_offsets() -> None:
    """Clients take them from the front; the index is kept in the order of markers."""
    log = Log()
    log.batch(1)
    log.batch(2)
    log.batch(3)
    for pid in (3, 1, 2):
        log.marker(pid, commit=pid == 1)
    log.commit()
    assert log.aborted() == [(2, 10), (3, 20)]


def test_only_what_overlaps_the_range_is_told_and_ranges_are_half_open() -> None:
    log = Log()
    first = log.batch()
    last = log.marker(commit=False)
    log.commit()
    assert (first, last) == (0, 10)
    assert log.aborted(10, 11) == [(7, 0)]
    assert log.aborted(11, 12) == []
    assert log.aborted(0, 1) == [(7, 0)]
    assert log.aborted(0, 0) == []


def test_what_ends_before_the_log_begins_is_forgotten_and_nothing_else() -> None:
    log = Log()
    log.batch(1)
    log.marker(1, commit=False)
    log.batch(2)
    log.marker(2, commit=False)
    log.commit()
    log.transactions.trimmed(Offset(10))
    assert log.aborted() == [(1, 0), (2, 11)]
    log.transactions.trimmed(Offset(11))
    assert log.aborted() == [(2, 11)]


def test_a_log_trimmed_into_an_open_transaction_is_stable_up_to_its_start() -> None:
    log = Log()
    log.batch()
    log.commit()
    log.transactions.trimmed(Offset(5))
    assert log.stable == 5


# --- may this batch be appended ------------------------------------------------------------


def test_the_first_batch_of_a_transaction_waits_for_the_coordinator_and_the_next_do_not() -> None:
    """KIP-890, part 1."""
    log = Log()
    assert isinstance(log.check(), Verify)
    assert log.check() == log.check(), "one question, however many batches wait"
    assert log.verify()
    assert log.check() is APPEND
    log.batch()
    assert log.check() is APPEND
    log.marker()
    assert isinstance(log.check(), Verify)


def test_a_fenced_epoch_is_told_before_anything_else() -> None:
    """Anomaly 9 (KAFKA-19690)."""
    log = Log()
    log.batch(epoch=3)
    assert refused(log.check(epoch=2)) is ErrorCode.INVALID_PRODUCER_EPOCH
    log.marker(epoch=4, commit=False)
    log.commit()
    assert refused(log.check(epoch=3)) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert refused(log.check(epoch=3, plain=True)) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert isinstance(log.check(epoch=4), Verify)


def test_records_outside_of_the_producers_open_transaction_are_refused() -> None:
    log = Log()
    assert log.check(plain=True) is APPEND
    log.batch()
    assert refused(log.check(plain=True)) is ErrorCode.INVALID_TXN_STATE
    log.marker()
    assert log.check(plain=True) is APPEND


def test_a_marker_makes_void_what_the_coordinator_was_asked_before() -> None:
    """The answer may be of before the decision; the batch would open what nobody ends."""
    log = Log()
    verdict = log.check()
    assert isinstance(verdict, Verify)
    assert log.check_marker(epoch=1) is APPEND
    assert not log.transactions.verification.answered(7, verdict.question, 50)
    assert isinstance(log.check(), Verify)


def test_a_marker_takes_back_the_verification_of_its_own_transaction_only() -> None:
    log = Log()
    assert log.verify(started=50)
    log.check_marker(started=40)
    assert log.check() is APPEND
    log.check_marker(started=50)
    assert isinstance(log.check(), Verify)


def test_a_marker_for_a_producer_that_is_known_takes_its_verification_back_too() -> None:
    log = Log()
    log.batch()
    log.marker()
    assert log.verify(started=50)
    assert log.check_marker(started=50) == Done(Index(2))
    assert isinstance(log.check(), Verify)


def test_a_marker_in_the_log_makes_void_all_that_was_verified_before() -> None:
    log = Log()
    log.batch()
    assert log.verify(epoch=1)
    assert refused(log.check(epoch=1)) is ErrorCode.CONCURRENT_TRANSACTIONS
    log.marker()
    assert isinstance(log.check(epoch=1), Verify)


def test_an_answer_counts_for_the_question_and_the_epoch_that_it_was_asked_about() -> None:
    log = Log()
    first = log.check()
    second = log.check(epoch=1)
    assert isinstance(first, Verify)
    assert isinstance(second, Verify)
    verification = log.transactions.verification
    assert not verification.answered(7, first.question, 50)
    assert verification.answered(7, second.question, 50)
    assert log.check(epoch=1) is APPEND
    assert isinstance(log.check(epoch=2), Verify)


def test_a_refused_question_is_asked_anew() -> None:
    log = Log()
    first = log.check()
    assert isinstance(first, Verify)
    log.transactions.verification.refused(7, first.question)
    second = log.check()
    assert isinstance(second, Verify)
    assert second.question != first.question


def test_what_was_verified_ends_with_the_leader() -> None:
    log = Log()
    assert log.verify()
    log.transactions.verification.clear()
    assert isinstance(log.check(), Verify)


def test_verifications_are_bounded_and_the_oldest_is_asked_anew() -> None:
    log = Log(OpenTransactions(DAY_MS, producers_max=2))
    for pid in (1, 2, 3):
        assert log.verify(pid)
    assert isinstance(log.check(1), Verify)
    assert log.check(3) is APPEND


def test_too_many_open_transactions_are_told_to_try_again() -> None:
    log = Log(OpenTransactions(DAY_MS, open_max=1, aborted_max=2))
    log.batch(1)
    log.commit()
    assert log.verify(2)
    assert refused(log.check(2)) is ErrorCode.NOT_ENOUGH_REPLICAS
    log.marker(1, commit=False)
    log.commit()
    assert log.check(2) is APPEND
    log.batch(2)
    log.marker(2, commit=False)
    log.commit()
    assert log.verify(3)
    assert refused(log.check(3)) is ErrorCode.POLICY_VIOLATION
    log.transactions.trimmed(Offset(log.offset))
    assert log.check(3) is APPEND


# --- may this marker -----------------------------------------------------------------------


def test_the_marker_of_an_open_transaction_is_appended_once() -> None:
    log = Log()
    log.batch()
    log.commit()
    assert log.check_marker() is APPEND
    log.marker()
    assert log.check_marker() == Done(Index(log.index)), "success when the first is committed"
    log.commit()
    assert log.check_marker() is APPEND, "who leads no more cannot commit it, and says nothing"


def test_the_marker_of_an_unknown_transaction_is_appended_all_the_same() -> None:
    """Anomaly 10: refused after its state was evicted, it was repeated for ever.

    Success without an entry would be the word of a leader that may have been replaced.
    """
    log = Log()
    assert log.check_marker(pid=99) is APPEND


def test_no_entry_of_the_log_takes_an_epoch_back() -> None:
    log = Log()
    log.batch(epoch=5)
    log.marker(epoch=4)
    log.commit()
    assert refused(log.check(epoch=4)) is ErrorCode.INVALID_PRODUCER_EPOCH


def test_a_coordinator_that_has_been_replaced_is_fenced() -> None:
    log = Log()
    log.batch()
    log.marker(term=5)
    log.batch()
    assert refused(log.check_marker(term=4)) is ErrorCode.TRANSACTION_COORDINATOR_FENCED
    assert log.check_marker(term=5) is APPEND


def test_a_marker_of_an_earlier_epoch_does_not_end_a_later_transaction() -> None:
    log = Log()
    log.batch(epoch=2)
    assert refused(log.check_marker(epoch=1)) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert log.check_marker(epoch=2) is APPEND
    assert log.check_marker(epoch=3) is APPEND, "the abort of a timeout is fenced"


def test_a_marker_of_version_2_that_comes_again_does_not_end_the_next_transaction() -> None:
    """Its epoch is that of the next one: epoch 0 was ended by 1, with which the next goes on."""
    log = Log()
    log.batch(epoch=0)
    log.marker(epoch=1)
    log.batch(epoch=1)
    log.commit()
    assert log.check_marker(epoch=1, version=2) == Done(Index(3))
    assert log.check_marker(epoch=2, version=2) is APPEND


def test_a_marker_of_version_1_that_comes_again_does_not_end_the_next_transaction() -> None:
    """Both have the same epoch, and only their starts are different."""
    log = Log()
    log.verify(started=50)
    log.batch()
    log.marker()
    log.verify(started=60)
    log.batch()
    log.commit()
    assert log.check_marker(started=50) == Done(Index(3))
    assert log.check_marker(started=60) is APPEND


def test_a_producer_beyond_the_limit_is_forgotten_but_never_with_an_open_transaction() -> None:
    log = Log(OpenTransactions(DAY_MS, producers_max=1))
    log.batch(1)
    log.batch(2)
    log.marker(2)
    log.batch(3)
    log.marker(3)
    log.commit()
    assert [row.producer_id for row in log.transactions.describe()] == [1, 3]


def test_an_unused_producer_is_forgotten_by_the_logs_own_time() -> None:
    log = Log()
    log.batch(1, epoch=4, at_ms=1_000)
    log.marker(1, epoch=4, at_ms=1_000)
    log.batch(2, at_ms=DAY_MS + 999)
    log.marker(2, at_ms=DAY_MS + 999)
    log.commit()
    assert log.transactions.standing(1) is not None
    log.batch(2, at_ms=DAY_MS + 1_000)
    log.marker(2, at_ms=0)
    log.commit()
    assert log.transactions.standing(1) is None


# --- tools and pushes ----------------------------------------------------------------------


def test_what_is_open_for_too_long_is_told_oldest_first_whatever_its_records_say() -> None:
    """Anomaly 15; a producer may write records of next year."""
    log = Log()
    log.batch(5, at_ms=2**50)
    log.batch(4)
    log.commit()
    assert log.transactions.overdue(1_000, 500) == []
    assert log.transactions.overdue(1_500, 500) == []
    found = log.transactions.overdue(1_501, 500)
    assert [row.producer_id for row in found] == [5, 4]
    log.marker(5)
    log.batch(5)
    log.commit()
    found = log.transactions.overdue(1_600, 500)
    assert [row.producer_id for row in found] == [4], "the next one of 5 is young"


def test_only_so_many_are_told_at_once() -> None:
    log = Log()
    for pid in range(100):
        log.batch(pid)
    log.commit()
    log.transactions.overdue(0, 10)
    assert [row.producer_id for row in log.transactions.overdue(11, 10)] == list(range(64))


def test_describe_tells_what_is_open_and_who_was_here() -> None:
    log = Log()
    log.batch(2, epoch=3, at_ms=70)
    log.batch(1)
    log.marker(1, term=9)
    rows = {row.producer_id: row.standing for row in log.transactions.describe()}
    assert (rows[2].first_offset, rows[2].epoch, rows[2].started_ms) == (0, 3, 70)
    assert (rows[1].first_offset, rows[1].coordinator_term) == (None, 9)


# --- bytes ---------------------------------------------------------------------------------


def test_the_aborted_index_travels_with_the_checkpoint() -> None:
    """Anomaly 13."""
    log = Log()
    log.batch(1)
    log.marker(1, commit=False)
    log.batch(2)
    log.commit()
    log.batch(3)
    data = log.transactions.to_bytes()
    other = Log(OpenTransactions.from_bytes(data, DAY_MS))
    assert other.aborted() == [(1, 0)]
    assert other.transactions.last_stable_offset(Offset(21)) == 11
    assert other.transactions.to_bytes() == data
    assert other.transactions.standing(3) is None, "the tail is the log's"


def test_bytes_that_are_no_table_are_refused() -> None:
    log = Log()
    log.batch(1)
    log.marker(1, commit=False)
    log.batch(2)
    log.commit()
    data = log.transactions.to_bytes()
    for size in range(len(data)):
        with pytest.raises(OpenTransactionsError):
            OpenTransactions.from_bytes(data[:size], DAY_MS)
    for damaged in (data + b"x", b"\x02" + data[1:]):
        with pytest.raises(OpenTransactionsError):
            OpenTransactions.from_bytes(damaged, DAY_MS)


# --- against a dumb version ----------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("batch"), st.integers(0, 3), st.integers(0, 2)),
        st.tuples(st.sampled_from(["commit-marker", "abort-marker"]), st.integers(0, 3)),
        st.tuples(st.just("other"), st.integers(1, 3)),
        st.tuples(st.just("committed"), st.integers(0, 3)),
        st.tuples(st.just("truncated"), st.integers(1, 3)),
        st.tuples(st.just("trimmed"), st.integers(1, 20)),
    ),
    max_size=40,
)


@given(steps)
def test_a_reader_of_committed_records_sees_just_those(script: list[tuple[str, ...]]) -> None:
    """What is below the last stable offset and not told as aborted is what was committed."""
    log = Log()
    high_watermark = stable = 0
    for what, *numbers in script:
        number = int(numbers[0])
        match what:
            case "batch":
                log.batch(number, epoch=int(numbers[1]))
            case "commit-marker" | "abort-marker":
                log.marker(number, commit=what == "commit-marker", epoch=2)
            case "other":
                log.other(number)
            case "committed":
                index = max(log.transactions.committed_index, log.index - number)
                log.transactions.committed(Index(index))
            case "truncated":
                first = max(log.transactions.committed_index + 1, log.index - number + 1)
                _cut(log, first)
            case _:
                log.transactions.trimmed(Offset(min(number, high_watermark)))
        high_watermark = _high_watermark(log, high_watermark)
        found = log.transactions.last_stable_offset(Offset(high_watermark))
        assert stable <= found <= high_watermark
        stable = found
        assert log.transactions.to_bytes() == log.replayed().to_bytes()
        _check_reader(log, stable)


def _cut(log: Log, first: int) -> None:
    log.transactions.truncated(Index(first))
    gone = [entry for entry in log.entries if entry.index >= first]
    log.entries = [entry for entry in log.entries if entry.index < first]
    # Entries that are no transactions' are cut with them: their offsets are not looked at.
    if gone:
        log.offset = min(_offset(entry) for entry in gone)
        log.index = gone[0].index - 1


def _offset(entry: Entry) -> int:
    return entry.offset if isinstance(entry, Marker) else entry.first_offset


def _high_watermark(log: Log, before: int) -> int:
    committed = log.transactions.committed_index
    ends = [
        _offset(entry) + (1 if isinstance(entry, Marker) else 10)
        for entry in log.entries
        if entry.index <= committed
    ]
    return max([before, *ends])


def _check_reader(log: Log, stable: int) -> None:
    """Every batch below *stable*, read one by one, and all together."""
    committed = [e for e in log.entries if e.index <= log.transactions.committed_index]
    start = log.transactions.start_offset
    for number, entry in enumerate(committed):
        if isinstance(entry, Marker) or not start <= entry.first_offset < stable:
            continue
        fate = next(
            later.is_commit
            for later in committed[number:]
            if isinstance(later, Marker) and later.producer_id == entry.producer_id
        )
        for upto in (entry.first_offset + 10, stable):
            told = log.transactions.aborted_between(entry.first_offset, Offset(upto))
            mine = [
                a
                for a in told
                if a.producer_id == entry.producer_id
                and a.first_offset <= entry.first_offset < a.last_offset
            ]
            assert len(mine) == (0 if fate else 1)
            assert [a.first_offset for a in told] == sorted(a.first_offset for a in told)
