"""A partition's batches stay in order, whole and unrepeated through every kind of failure."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane.model.limits import SEQUENCE_MAX
from corelane.wire.compression import Compression
from corelane.wire.records import batch_records, split_batches
from corelane_client.batching import Batch, Message, PartitionQueue, Placed

LINGER_S = 0.005


def queue(batch_bytes: int = 200, *, is_idempotent: bool = True) -> PartitionQueue:
    made = PartitionQueue("t", 0, batch_bytes, is_idempotent=is_idempotent)
    if is_idempotent:
        made.adopt((7, 0))
    return made


def add(target: PartitionQueue, value: bytes, now_s: float = 0.0) -> Batch:
    message = Message("t", value)
    return target.append(Placed(message, 0, 1, message.size_bytes), now_s)


def values(batch: Batch) -> list[bytes | None]:
    (read,) = split_batches(batch.encode())
    return [each.value for each in batch_records(read, "t", 0)]


def take(source: PartitionQueue) -> Batch:
    return source.take(Compression.NONE)


def fill(target: PartitionQueue, count: int) -> list[Batch]:
    """Add *count* full batches of one record each, and put them in flight."""
    for number in range(count):
        add(target, b"%03d" % number + bytes(200))
    return [take(target) for _ in range(count)]


def test_records_wait_for_company_until_the_linger_is_over() -> None:
    partition = queue()
    assert add(partition, b"a", now_s=1.0) is add(partition, b"b", now_s=1.002)
    assert partition.ready_s(LINGER_S) == 1.0 + LINGER_S
    assert values(take(partition)) == [b"a", b"b"]


def test_a_full_batch_does_not_wait() -> None:
    partition = queue()
    add(partition, bytes(300))
    assert partition.ready_s(LINGER_S) == -math.inf


def test_a_record_that_does_not_fit_starts_the_next_batch() -> None:
    partition = queue()
    first = add(partition, bytes(100))
    assert add(partition, bytes(100)) is not first
    assert partition.ready_s(LINGER_S) == -math.inf


def test_five_batches_are_in_flight_and_no_more() -> None:
    partition = queue()
    batches = fill(partition, 5)
    add(partition, bytes(300))
    assert partition.ready_s(LINGER_S) == math.inf
    partition.done(batches[0])
    assert partition.ready_s(LINGER_S) == -math.inf


def test_without_idempotence_one_batch_is_in_flight() -> None:
    partition = queue(is_idempotent=False)
    batch = fill(partition, 1)[0]
    add(partition, bytes(300))
    assert partition.ready_s(LINGER_S) == math.inf
    partition.done(batch)
    assert partition.ready_s(LINGER_S) == -math.inf


def test_sequences_are_dense_and_wrap_to_zero() -> None:
    partition = queue()
    partition._next_sequence = SEQUENCE_MAX
    assert [batch.producer.base_sequence for batch in fill(partition, 3)] == [SEQUENCE_MAX, 0, 1]


def test_a_retry_waits_for_the_rest_and_goes_alone_and_first() -> None:
    partition = queue()
    first, second, third = fill(partition, 3)
    partition.again(first, retry_at_s=9.0)
    add(partition, bytes(300))
    assert partition.ready_s(LINGER_S) == math.inf
    assert partition.refused_sequence(second, 9.0, is_lost=False)
    assert partition.refused_sequence(third, 9.0, is_lost=False)
    assert partition.ready_s(LINGER_S) == 9.0
    before = first.producer
    assert take(partition) is first
    assert first.producer == before
    assert partition.ready_s(LINGER_S) == math.inf
    partition.done(first)
    assert take(partition) is second


def test_what_follows_a_hole_goes_on_under_another_identity() -> None:
    partition = queue()
    first, second = fill(partition, 2)
    partition.give_up(first)
    assert partition.refused_sequence(second, 0.0, is_lost=False)
    assert partition.wants_identity
    assert partition.ready_s(LINGER_S) == math.inf
    partition.adopt((8, 0))
    assert take(partition) is second
    assert second.producer.producer_id == 8
    assert second.producer.base_sequence == 0


def test_what_was_written_after_all_keeps_its_identity() -> None:
    """The given-up batch was written, only its answer was lost: nothing may be renumbered."""
    partition = queue()
    first, second = fill(partition, 2)
    partition.again(first, 0.0)
    partition.again(second, 0.0)
    assert partition.expire(created_before_s=1.0) == [first, second]
    add(partition, bytes(300), now_s=2.0)
    third = take(partition)
    assert (third.producer.producer_id, third.producer.base_sequence) == (7, 2)


def test_what_expired_while_it_waited_for_another_try_left_a_hole() -> None:
    partition = queue()
    add(partition, bytes(300), now_s=0.0)
    add(partition, bytes(300), now_s=10.0)
    first, second = take(partition), take(partition)
    partition.again(first, 0.0)
    partition.again(second, 0.0)
    assert partition.expire(created_before_s=5.0) == [first]
    assert take(partition) is second
    assert second.producer.producer_id == 7
    assert partition.refused_sequence(second, 0.0, is_lost=False)
    assert partition.wants_identity


def test_a_refusal_without_a_hole_is_the_users_to_hear() -> None:
    partition = queue()
    (batch,) = fill(partition, 1)
    assert not partition.refused_sequence(batch, 0.0, is_lost=False)


def test_a_forgotten_producer_starts_anew() -> None:
    partition = queue()
    (batch,) = fill(partition, 1)
    assert partition.refused_sequence(batch, 0.0, is_lost=True)
    assert partition.wants_identity


def test_a_batch_that_is_too_large_is_split_in_its_place() -> None:
    partition = queue(batch_bytes=1000)
    for number in range(5):
        add(partition, b"%d" % number)
    whole = take(partition)
    add(partition, b"later")
    later = take(partition)
    assert partition.split(whole, 0.0)
    assert partition.refused_sequence(later, 0.0, is_lost=False)
    first, second, third = partition.batches
    assert (values(first), values(second)) == ([b"0", b"1"], [b"2", b"3", b"4"])
    assert [each.producer.base_sequence for each in (first, second, third)] == [0, 2, 5]
    assert first.reserved_bytes + second.reserved_bytes == whole.reserved_bytes


def test_one_record_cannot_be_split() -> None:
    partition = queue()
    (batch,) = fill(partition, 1)
    assert not partition.split(batch, 0.0)


class Log:
    """A partition as a broker keeps it: refuses holes, knows the last five of each producer."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []
        self._last: dict[int, list[tuple[int, int]]] = {}

    def write(self, batch: Batch) -> bool:
        """Return False if the sequence is not the expected one."""
        sequence = batch.producer.base_sequence
        known = self._last.setdefault(batch.producer.producer_id, [])
        if (sequence, batch.count) in known[-5:]:
            return True
        if known and sequence != known[-1][0] + known[-1][1]:
            return False
        if not known and sequence != 0:
            return False
        known.append((sequence, batch.count))
        self.values += values(batch)
        return True


FATES = ["ok", "lost", "lost after", "fatal"]


@pytest.mark.parametrize("gives_up", [False, True])
@given(seed=st.integers(0, 2**32))
def test_through_any_failures_records_are_there_once_and_in_order(
    seed: int, gives_up: bool
) -> None:
    """Answers may be lost before or after the write, and leaders may refuse for a while."""
    chance = random.Random(seed)
    log = Log()
    partition = queue(batch_bytes=160)
    next_id = 8
    added = [b"%03d" % number for number in range(chance.randrange(1, 40))]
    waiting = list(added)
    given_up: set[bytes | None] = set()
    in_flight: list[tuple[Batch, str]] = []
    for _ in range(3000):
        if waiting and chance.random() < 0.4:
            add(partition, waiting.pop(0))
        if partition.wants_identity:
            partition.adopt((next_id, 0))
            next_id += 1
        if partition.ready_s(0.0) <= 1.0:
            batch = take(partition)
            (result,) = chance.choices(FATES, [6, 1, 1, 1])
            if result in {"ok", "lost after"} and not log.write(batch):
                result = "sequence"
            in_flight.append((batch, result))
        if in_flight and chance.random() < 0.5:
            batch, result = in_flight.pop(0)
            if result == "fatal" and gives_up:
                given_up.update(values(batch))
                partition.give_up(batch)
            elif result == "ok":
                partition.done(batch)
            elif result == "sequence":
                assert partition.refused_sequence(batch, 0.0, is_lost=False)
            else:
                partition.again(batch, 0.0)
        if partition.is_idle and not waiting:
            break
    assert partition.is_idle
    assert log.values == sorted({value or b"" for value in log.values})
    assert set(added) - set(log.values) <= given_up
