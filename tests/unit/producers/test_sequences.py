"""Idempotent producers, rule by rule: tell a table what the log got, ask it about a batch."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.ids import Index, Offset
from corelane.producers.sequences import (
    ACCEPT,
    Duplicate,
    Pending,
    ProducedBatch,
    ProducersError,
    ProducerTable,
    Refuse,
    Verdict,
)

DAY_MS = 86_400_000
LAST = 2**31 - 1


class Log:
    """A log of batches of ten records, beside the table that watches it."""

    def __init__(self, producers_max: int = 100) -> None:
        self.table = ProducerTable(DAY_MS, producers_max)
        self.end = 0

    def append(
        self, sequence: int, *, pid: int = 7, epoch: int = 0, count: int = 10, at_ms: int = 0
    ) -> None:
        self.end += 1
        offset = Offset(self.end * 100)
        self.table.appended(
            ProducedBatch(Index(self.end), pid, epoch, sequence, count, offset, at_ms)
        )

    def commit(self) -> None:
        self.table.committed(Index(self.end))

    def write(self, sequence: int, *, pid: int = 7, epoch: int = 0, at_ms: int = 0) -> None:
        self.append(sequence, pid=pid, epoch=epoch, at_ms=at_ms)
        self.commit()

    def check(self, sequence: int, *, pid: int = 7, epoch: int = 0, count: int = 10) -> Verdict:
        return self.table.check(pid, epoch, sequence, count)


def duplicate_of(offset: int, *, at_ms: int = 0) -> Duplicate:
    return Duplicate(Offset(offset), at_ms)


def refused(verdict: Verdict) -> ErrorCode:
    assert isinstance(verdict, Refuse)
    assert verdict.sentence
    return verdict.error


def test_an_unknown_producer_may_begin_anywhere() -> None:
    log = Log()
    assert log.check(0) is ACCEPT
    assert log.check(12_345, epoch=3) is ACCEPT


def test_the_next_batch_continues_the_sequence() -> None:
    log = Log()
    log.write(0)
    assert log.check(10) is ACCEPT
    assert log.check(10, count=1) is ACCEPT


def test_a_gap_is_refused() -> None:
    log = Log()
    log.write(0)
    assert refused(log.check(11)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_any_of_the_last_five_batches_is_answered_with_its_first_offset() -> None:
    log = Log()
    for sequence in range(0, 60, 10):
        log.write(sequence)
    for number in range(2, 7):
        assert log.check((number - 1) * 10) == duplicate_of(number * 100)


def test_a_duplicate_older_than_five_batches_is_out_of_order() -> None:
    log = Log()
    for sequence in range(0, 60, 10):
        log.write(sequence)
    assert refused(log.check(0)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_only_the_exact_range_is_a_duplicate() -> None:
    log = Log()
    log.write(0)
    assert refused(log.check(0, count=9)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert refused(log.check(1, count=9)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_duplicate_of_a_batch_in_flight_waits_for_that_batch() -> None:
    log = Log()
    log.append(0)
    assert log.check(0) == Pending(Index(1), Offset(100), 0)
    log.commit()
    assert log.check(0) == duplicate_of(100)


def test_batches_in_flight_count_for_what_comes_next() -> None:
    log = Log()
    log.append(0)
    log.append(10)
    assert log.check(20) is ACCEPT


def test_after_the_last_sequence_number_comes_zero() -> None:
    log = Log()
    log.write(LAST - 9)
    assert log.check(0) is ACCEPT
    assert refused(log.check(1)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_batch_may_itself_reach_over_the_last_sequence_number() -> None:
    log = Log()
    log.write(LAST - 3)
    assert log.check(6) is ACCEPT
    assert log.check(LAST - 3) == duplicate_of(100)
    assert refused(log.check(0)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_new_epoch_begins_with_zero() -> None:
    log = Log()
    log.write(0)
    assert log.check(0, epoch=1) is ACCEPT
    assert refused(log.check(10, epoch=1)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_new_epoch_forgets_the_batches_of_the_old_one() -> None:
    log = Log()
    log.write(0)
    log.write(10)
    log.write(0, epoch=1)
    assert log.check(0, epoch=1) == duplicate_of(300)
    assert log.check(10, epoch=1) is ACCEPT


def test_a_lower_epoch_is_fenced() -> None:
    log = Log()
    log.write(0, epoch=2)
    assert refused(log.check(0, epoch=1)) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert refused(log.check(10, epoch=1)) is ErrorCode.INVALID_PRODUCER_EPOCH


def test_a_new_epoch_in_flight_fences_the_old_one_until_it_is_truncated() -> None:
    log = Log()
    log.write(0)
    log.append(0, epoch=1)
    assert refused(log.check(10)) is ErrorCode.INVALID_PRODUCER_EPOCH
    log.table.truncated(Index(2))
    assert log.check(10) is ACCEPT
    assert log.check(0) == duplicate_of(100)


def test_truncation_takes_back_exactly_the_lost_tail() -> None:
    log = Log()
    log.write(0)
    log.append(10)
    log.append(20)
    log.table.truncated(Index(3))
    assert log.check(20) is ACCEPT
    assert log.check(10) == Pending(Index(2), Offset(200), 0)
    log.table.truncated(Index(2))
    assert log.check(10) is ACCEPT
    assert log.check(0) == duplicate_of(100)


def test_truncation_restores_a_window_that_the_tail_had_pushed_out() -> None:
    log = Log()
    for sequence in range(0, 50, 10):
        log.write(sequence)
    for sequence in range(50, 100, 10):
        log.append(sequence)
    assert refused(log.check(0)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    log.table.truncated(Index(6))
    assert log.check(0) == duplicate_of(100)


def test_a_producer_known_only_by_a_lost_tail_is_unknown_again() -> None:
    log = Log()
    log.append(500)
    log.table.truncated(Index(1))
    assert log.check(3) is ACCEPT


def test_committed_entries_are_never_truncated() -> None:
    log = Log()
    log.write(0)
    with pytest.raises(AssertionError):
        log.table.truncated(Index(1))


def test_a_producer_expires_by_the_time_in_the_log() -> None:
    log = Log()
    log.write(0, at_ms=1_000)
    log.write(0, pid=8, at_ms=1_000 + DAY_MS - 1)
    assert refused(log.check(99)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    log.write(10, pid=8, at_ms=1_000 + DAY_MS)
    assert log.check(99) is ACCEPT
    assert len(log.table) == 1


def test_a_producer_of_old_records_does_not_expire_while_it_writes() -> None:
    """Kafka takes the batch's own timestamp for the time of use, and forgets such a producer."""
    log = Log()
    log.write(0, pid=8, at_ms=100 * DAY_MS)
    log.write(0, at_ms=5)
    log.write(10, pid=8, at_ms=100 * DAY_MS + 1)
    assert log.check(0) == duplicate_of(200, at_ms=5)


def test_an_expired_producer_keeps_what_it_has_in_flight() -> None:
    log = Log()
    log.write(0)
    log.append(10, pid=8, at_ms=DAY_MS)
    log.append(10)
    log.table.committed(Index(2))
    assert log.check(10) == Pending(Index(3), Offset(300), 0)
    assert refused(log.check(0)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert log.check(20) is ACCEPT


def test_the_producer_unused_longest_is_forgotten_when_there_are_too_many() -> None:
    log = Log(producers_max=2)
    log.write(0, pid=1)
    log.write(0, pid=2)
    log.write(10, pid=1)
    log.write(0, pid=3)
    assert len(log.table) == 2
    assert log.check(77, pid=2) is ACCEPT
    assert log.check(0, pid=1) == duplicate_of(100)


def test_the_committed_part_is_stored_and_read_back() -> None:
    log = Log()
    log.write(0, at_ms=50)
    log.write(LAST - 3, pid=2**62, epoch=9, at_ms=60)
    log.append(10)
    stored = log.table.encode()
    again = ProducerTable.decode(stored, DAY_MS)
    assert again.encode() == stored
    assert again.committed_index == 2
    assert again.check(7, 0, 0, 10) == duplicate_of(100, at_ms=50)
    assert again.check(7, 0, 10, 10) is ACCEPT
    assert again.check(2**62, 9, 6, 1) is ACCEPT


def test_a_smaller_bound_forgets_when_a_table_is_read_back() -> None:
    log = Log()
    for pid in range(5):
        log.write(0, pid=pid)
    again = ProducerTable.decode(log.table.encode(), DAY_MS, producers_max=2)
    assert len(again) == 2
    assert again.check(0, 0, 99, 1) is ACCEPT
    assert isinstance(again.check(4, 0, 99, 1), Refuse)


def test_a_damaged_table_is_an_error_never_a_wrong_table() -> None:
    log = Log()
    log.write(0)
    stored = log.table.encode()
    for damaged in (b"", stored[:-1], stored + b"\0", b"\x09" + stored[1:], stored[:10]):
        with pytest.raises(ProducersError):
            ProducerTable.decode(damaged, DAY_MS)
