"""The table of producers against a dumb model: the whole log, read again for every question.

Small numbers of everything, so that windows overflow, sequences wrap, epochs change, producers
expire and are pushed out, and tails are lost, all in one short run.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from corelane.model.errors import ErrorCode
from corelane.model.ids import Index, Offset
from corelane.producers.sequences import (
    ACCEPT,
    Duplicate,
    Pending,
    ProducedBatch,
    ProducerTable,
    Refuse,
)

EXPIRATION_MS = 50
PRODUCERS_MAX = 3
SEQUENCES = 2**31

producer_ids = st.integers(0, 3)
epochs = st.integers(0, 2)
sequences = st.integers(0, 12) | st.integers(SEQUENCES - 6, SEQUENCES - 1)
counts = st.integers(1, 4)


def remembered(log: list[ProducedBatch], committed: int) -> dict[int, list[ProducedBatch]]:
    """Fold the committed part of *log* the slow way: per producer, its last five batches."""
    known: dict[int, list[ProducedBatch]] = {}
    used_ms: dict[int, int] = {}
    clock_ms = -1
    for batch in log:
        if batch.index > committed:
            break
        clock_ms = max(clock_ms, batch.max_timestamp_ms)
        before = known.pop(batch.producer_id, [])
        same = [old for old in before if old.producer_epoch == batch.producer_epoch]
        known[batch.producer_id] = [*same, batch][-5:]
        used_ms[batch.producer_id] = clock_ms
        for producer_id in list(known):
            if len(known) > PRODUCERS_MAX or used_ms[producer_id] + EXPIRATION_MS <= clock_ms:
                del known[producer_id]
    return known


def expected(
    log: list[ProducedBatch], committed: int, batch: tuple[int, int, int, int]
) -> tuple[str, int]:
    """Judge (producer id, epoch, sequence, count) by Kafka's rules, from the whole log."""
    producer_id, epoch, sequence, count = batch
    seen = remembered(log, committed).get(producer_id, [])
    seen = seen + [b for b in log if b.index > committed and b.producer_id == producer_id]
    if not seen:
        return "accept", 0
    newest = seen[-1]
    if epoch < newest.producer_epoch:
        return "refuse", ErrorCode.INVALID_PRODUCER_EPOCH
    if epoch > newest.producer_epoch:
        return ("accept", 0) if sequence == 0 else ("refuse", 45)
    for old in [b for b in seen[-5:] if b.producer_epoch == epoch]:
        ends = (old.base_sequence + old.record_count - 1) % SEQUENCES
        if (old.base_sequence, ends) == (sequence, (sequence + count - 1) % SEQUENCES):
            return ("pending" if old.index > committed else "duplicate"), old.base_offset
    following = (newest.base_sequence + newest.record_count) % SEQUENCES
    return ("accept", 0) if sequence == following else ("refuse", 45)


def judged(table: ProducerTable, batch: tuple[int, int, int, int]) -> tuple[str, int]:
    match table.check(*batch):
        case Duplicate(offset, _):
            return "duplicate", offset
        case Pending(_, offset, _):
            return "pending", offset
        case Refuse(error, _):
            return "refuse", error
        case verdict:
            assert verdict is ACCEPT
            return "accept", 0


class Producers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table = ProducerTable(EXPIRATION_MS, PRODUCERS_MAX)
        self.log: list[ProducedBatch] = []
        self.committed = 0
        self.end = 0
        self.clock_ms = 0

    def put(self, producer_id: int, epoch: int, sequence: int, count: int) -> None:
        self.end += 1
        offset = Offset(self.end * 10)
        batch = ProducedBatch(
            Index(self.end), producer_id, epoch, sequence, count, offset, self.clock_ms
        )
        self.log.append(batch)
        self.table.appended(batch)

    @rule(pause_ms=st.sampled_from([1, 10, 24, 25, 26, 50, -20, -60]))
    def let_the_time_of_records_change(self, pause_ms: int) -> None:
        self.clock_ms = max(0, self.clock_ms + pause_ms)

    @rule(producer_id=producer_ids, count=counts, batches=st.integers(1, 7), epoch_up=st.booleans())
    def continue_a_producer(
        self, producer_id: int, count: int, batches: int, *, epoch_up: bool
    ) -> None:
        mine = [batch for batch in self.log if batch.producer_id == producer_id]
        epoch = mine[-1].producer_epoch if mine else 0
        following = SEQUENCES - 6
        if mine:
            following = (mine[-1].base_sequence + mine[-1].record_count) % SEQUENCES
        if epoch_up and mine:
            epoch, following = epoch + 1, 0
        for _ in range(batches):
            self.put(producer_id, epoch, following, count)
            following = (following + count) % SEQUENCES

    @rule(producer_id=producer_ids, epoch=epochs, sequence=sequences, count=counts)
    def send_anything(self, producer_id: int, epoch: int, sequence: int, count: int) -> None:
        batch = (producer_id, epoch, sequence, count)
        assert judged(self.table, batch) == expected(self.log, self.committed, batch)
        if judged(self.table, batch)[0] == "accept":
            self.put(*batch)

    @rule(number=st.integers(1, 12), epoch_up=st.integers(0, 1))
    @precondition(lambda self: self.log)
    def send_again(self, number: int, epoch_up: int) -> None:
        old = self.log[-min(number, len(self.log))]
        epoch = old.producer_epoch + epoch_up
        batch = (old.producer_id, epoch, old.base_sequence, old.record_count)
        assert judged(self.table, batch) == expected(self.log, self.committed, batch)

    @rule()
    def append_something_without_a_producer(self) -> None:
        self.end += 1

    @rule(share=st.floats(0, 1))
    def commit(self, share: float) -> None:
        self.committed += round((self.end - self.committed) * share)
        self.table.committed(Index(self.committed))

    @rule(share=st.floats(0, 1))
    def lose_a_tail(self, share: float) -> None:
        self.end = self.committed + round((self.end - self.committed) * share)
        self.log = [batch for batch in self.log if batch.index <= self.end]
        self.table.truncated(Index(self.end + 1))

    @rule()
    def restart(self) -> None:
        self.table = ProducerTable.decode(self.table.encode(), EXPIRATION_MS, PRODUCERS_MAX)
        for batch in self.log:
            if batch.index > self.committed:
                self.table.appended(batch)

    @invariant()
    def the_table_is_the_fold_of_the_committed_log(self) -> None:
        replayed = ProducerTable(EXPIRATION_MS, PRODUCERS_MAX)
        for batch in self.log:
            if batch.index <= self.committed:
                replayed.appended(batch)
        replayed.committed(Index(self.committed))
        assert replayed.encode() == self.table.encode()
        assert len(replayed) == len(remembered(self.log, self.committed))

    @invariant()
    def every_producer_is_judged_like_the_model(self) -> None:
        for producer_id in range(4):
            mine = [batch for batch in self.log if batch.producer_id == producer_id]
            newest = mine[-1].producer_epoch if mine else 0
            for old in mine[-7:]:
                batch = (producer_id, newest, old.base_sequence, old.record_count)
                assert judged(self.table, batch) == expected(self.log, self.committed, batch)
            for epoch, sequence in ((0, 0), (1, 0), (0, 4), (2, 1)):
                batch = (producer_id, epoch, sequence, 1)
                assert judged(self.table, batch) == expected(self.log, self.committed, batch)


TestProducers = Producers.TestCase
