"""Coordinators and partitions of a small world, whose logs are all that survives.

What a driver has to do around the state machines is done here: answers and markers wait for the
commit, an attempt of a marker names the leader that it is meant for.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from corelane.model.errors import ErrorCode
from corelane.model.ids import Index, Offset, Term
from corelane.producers import sequences
from corelane.producers.open_transactions import (
    Append,
    Done,
    Marker,
    MarkerRequest,
    OpenTransactions,
    TransactionalBatch,
    Verify,
)
from corelane.producers.transactions.coordinator import TransactionCoordinator
from corelane.producers.transactions.records import Partition, TransactionRecord
from corelane.producers.transactions.requests import (
    AddPartitions,
    Answer,
    EndTransaction,
    InitProducerId,
    MarkerWork,
    Outcome,
    PartitionsAnswer,
    ProducerAnswer,
    Push,
    PushAnswer,
    PushVerdict,
    Request,
    TransactionSettings,
    VerifyPartitions,
)

DAY_MS: Final = 86_400_000
SETTINGS: Final = TransactionSettings(id_expiration_ms=50_000)
NONE: Final = ErrorCode.NONE
Value = tuple[int, int, int]
"""Transaction, partition, number."""

Reply = Callable[[Answer], None]


class Surroundings:
    """What everything in the world has in common: time, chance, the network, and what is known."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_ms = 1_000
        self.skew_ms = 10**9
        self.messages: list[tuple[int, Callable[[], None], bool]] = []
        """When it may arrive, what happens then, and whether it may arrive twice."""
        self.next_number = 0
        self.decisions: dict[tuple[int, int, int], bool] = {}
        """By producer id, epoch and start: what the logs of coordinators say."""
        self.asked_commit: set[int] = set()
        self.told_commit: set[int] = set()
        self.acknowledged: set[Value] = set()
        self.pushed_count = 0
        self.coordinators = [CoordinatorNode(self, number) for number in range(2)]
        self.partitions = [PartitionNode(self, number) for number in range(3)]

    def number(self) -> int:
        self.next_number += 1
        return self.next_number

    @property
    def wall_ms(self) -> int:
        return self.now_ms + self.skew_ms

    def coordinator_of(self, name: str) -> "CoordinatorNode":
        return self.coordinators[int(name) % len(self.coordinators)]

    def send(self, deliver: Callable[[], None], *, repeats: bool = True) -> None:
        """Most messages are quick, and some are very late."""
        is_late = self.random.random() < 0.05
        ready_ms = self.now_ms + (self.random.randrange(2_000) if is_late else 0)
        self.messages.append((ready_ms, deliver, repeats))

    def deliver(self, loss: float) -> None:
        """Let any message arrive; without loss every one will, at once."""
        if not self.messages:
            return
        at = self.random.randrange(len(self.messages))
        ready_ms, deliver, repeats = self.messages[at]
        if loss:
            if ready_ms > self.now_ms:
                return
            if repeats and self.random.random() < 0.1:
                self.send(deliver)
        self.messages[at] = self.messages[-1]
        self.messages.pop()
        if self.random.random() >= loss:
            deliver()


class CoordinatorNode:
    def __init__(self, world: Surroundings, number: int) -> None:
        self.world = world
        self.number = number
        self.term = 0
        self.log: list[TransactionRecord] = []
        self.pending: deque[Outcome] = deque()
        self.replies: dict[int, Reply] = {}
        self.started: set[tuple[str, int]] = set()
        """Decisions whose markers may be sent."""
        self.live = TransactionCoordinator(SETTINGS)
        self.live.loaded(world.now_ms, world.wall_ms)

    def ask(self, request: Request, reply: Reply) -> None:
        if isinstance(request, InitProducerId | EndTransaction):
            # Reserved at arrival, for each arrival anew: a request that comes twice has two.
            fresh = 1_000_000 + self.world.number()
            request = replace(request, fresh_producer_id=fresh)
        token = self.world.number()
        self.replies[token] = reply
        self.live.handle(self.world.now_ms, self.world.wall_ms, token, request)
        self._take()

    def tick(self) -> None:
        deadline_ms = self.live.next_deadline_ms
        if deadline_ms is not None and deadline_ms <= self.world.now_ms:
            self.live.tick(self.world.now_ms, self.world.wall_ms)
            self._take()

    def _take(self) -> None:
        outcome = self.live.take()
        if outcome.records or outcome.answers or outcome.markers:
            self.pending.append(outcome)

    def commit(self) -> None:
        if not self.pending:
            return
        outcome = self.pending.popleft()
        self._write(outcome)
        for answered in outcome.answers:
            self.replies.pop(answered.token)(answered.answer)
        self.started |= {(work.transactional_id, work.started_ms) for work in outcome.markers}

    def _write(self, outcome: Outcome) -> None:
        self.log += outcome.records
        for record in outcome.records:
            found = record.transaction
            if found is not None and found.is_prepared:
                key = (found.producer_id, found.epoch, found.started_ms)
                commit = found.state.name == "PREPARE_COMMIT"
                assert self.world.decisions.setdefault(key, commit) == commit, "decisions stand"

    def crash(self) -> None:
        """What is in the log of a majority stays, answered or not; the rest never was."""
        for _ in range(self.world.random.randint(0, len(self.pending))):
            self._write(self.pending.popleft())
        self.check_replay()
        self.pending.clear()
        self.replies.clear()
        self.started.clear()
        self.term += 1
        self.live = TransactionCoordinator(SETTINGS)
        for record in self.log:
            self.live.replay(record)
        self.live.loaded(self.world.now_ms, self.world.wall_ms)
        self._take()
        if self.world.random.random() < 0.3:
            self.log = [r for r in self.log if r in list(self.live.live_records())]
            latest = {r.transactional_id: r for r in self.log}
            self.log = list(latest.values())

    def check_replay(self) -> None:
        """The live state is what its log and what it would still write give."""
        other = TransactionCoordinator(SETTINGS)
        for record in self.log:
            other.replay(record)
        for outcome in self.pending:
            for record in outcome.records:
                other.replay(record)
        mine = {r.transactional_id: r for r in self.live.live_records()}
        assert mine == {r.transactional_id: r for r in other.live_records()}

    def send_markers(self) -> None:
        for work in list(self.live.undelivered()):
            if (work.transactional_id, work.started_ms) in self.started:
                for name in work.partitions:
                    self._send_marker(work, name)

    def _send_marker(self, work: MarkerWork, name: Partition) -> None:
        partition = self.world.partitions[name[1]]
        term, leader_term = Term(self.term), partition.term

        def done() -> None:
            self.world.send(lambda: self.acknowledged(work, name))

        self.world.send(lambda: partition.marker(work, term, leader_term, done))

    def acknowledged(self, work: MarkerWork, name: Partition) -> None:
        """However late, and whoever leads by now."""
        self.live.marked(self.world.now_ms, self.world.wall_ms, work, (name,))
        self._take()


@dataclass
class Entry:
    offset: int
    producer_id: int
    value: Value | None
    """None: a marker."""
    is_commit: bool
    transactional: TransactionalBatch | Marker
    produced: sequences.ProducedBatch | None


@dataclass
class Batch:
    name: str
    version: int
    producer_id: int
    epoch: int
    sequence: int
    value: Value


class PartitionNode:
    def __init__(self, world: Surroundings, number: int) -> None:
        self.world = world
        self.name = ("t", number)
        self.term = 0
        self.remake()

    def remake(self) -> None:
        """The topic is deleted, and made again."""
        self.term += 1
        self.entries: list[Entry] = []
        self.waiting: list[tuple[int, Callable[[], None]]] = []
        self.transactions = OpenTransactions(DAY_MS)
        self.table = sequences.ProducerTable(DAY_MS)
        self.committed = 0
        self.stable = 0
        self.seen: list[Value] = []
        if self.term > 1:
            kept = {v for v in self.world.acknowledged if v[1] != self.name[1]}
            self.world.acknowledged = kept

    # --- writing

    def produce(self, batch: Batch, reply: Reply) -> None:
        verdict = self.table.check(batch.producer_id, batch.epoch, batch.sequence, 1)
        match verdict:
            case sequences.Accept():
                self._judge(batch, reply)
            case sequences.Duplicate():
                reply(ProducerAnswer(NONE))
            case sequences.Pending():
                self.waiting.append((verdict.index, lambda: reply(ProducerAnswer(NONE))))
            case sequences.Refuse():
                reply(ProducerAnswer(verdict.error))

    def _judge(self, batch: Batch, reply: Reply) -> None:
        verdict = self.transactions.check_batch(
            batch.producer_id, batch.epoch, is_transactional=True
        )
        match verdict:
            case Append():
                self._append(batch)
                self.waiting.append((len(self.entries), lambda: reply(ProducerAnswer(NONE))))
            case Verify():
                self._ask(batch, verdict.question, reply)
            case _:
                reply(ProducerAnswer(verdict.error))

    def _ask(self, batch: Batch, question: int, reply: Reply) -> None:
        node = self.world.coordinator_of(batch.name)
        term = self.term
        parts = (self.name,)
        request: Request = VerifyPartitions(batch.name, batch.producer_id, batch.epoch, parts)
        if batch.version == 2:
            request = AddPartitions(batch.name, batch.producer_id, batch.epoch, parts, 2)

        def answered(answer: Answer) -> None:
            assert isinstance(answer, PartitionsAnswer)
            if term != self.term:
                return
            (error,) = answer.errors
            if error is NONE:
                self.transactions.verification.answered(
                    batch.producer_id, question, answer.started_ms
                )
                self.produce(batch, reply)
            else:
                self.transactions.verification.refused(batch.producer_id, question)
                reply(ProducerAnswer(error))

        back = self.world.send
        self.world.send(lambda: node.ask(request, lambda answer: back(lambda: answered(answer))))

    def leave(self, producer_id: int, epoch: int, value: Value) -> None:
        """Append a batch that nobody has verified."""
        self._append(Batch("", 1, producer_id, epoch, 0, value))

    def _append(self, batch: Batch) -> None:
        index, offset = Index(len(self.entries) + 1), Offset(self._end)
        entry = TransactionalBatch(index, batch.producer_id, batch.epoch, offset, 0)
        produced = sequences.ProducedBatch(
            index, batch.producer_id, batch.epoch, batch.sequence, 1, offset, 0
        )
        self._add(Entry(offset, batch.producer_id, batch.value, False, entry, produced))

    def marker(
        self, work: MarkerWork, term: Term, leader_term: int, done: Callable[[], None]
    ) -> None:
        if leader_term != self.term:
            return
        request = MarkerRequest(
            work.producer_id, work.epoch, term, work.client_version, work.started_ms
        )
        verdict = self.transactions.check_marker(request)
        match verdict:
            case Append():
                key = (work.producer_id, work.epoch, work.started_ms)
                assert self.world.decisions[key] == work.is_commit, "durable before any marker"
                self._append_marker(request, commit=work.is_commit)
                self.waiting.append((len(self.entries), done))
            case Done():
                self.waiting.append((verdict.index, done))
            case _:
                if verdict.error is ErrorCode.INVALID_PRODUCER_EPOCH:
                    done()

    def _append_marker(self, request: MarkerRequest, *, commit: bool) -> None:
        index, offset = Index(len(self.entries) + 1), Offset(self._end)
        pid, epoch, term = request.producer_id, request.epoch, request.coordinator_term
        marker = Marker(index, pid, epoch, commit, term, offset, 0)
        self._add(Entry(offset, pid, None, commit, marker, None))

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.transactions.appended(entry.transactional)
        if entry.produced is not None:
            self.table.appended(entry.produced)

    @property
    def _end(self) -> int:
        return self.entries[-1].offset + 1 if self.entries else 0

    # --- the log

    def commit(self, *, everything: bool = False) -> None:
        end = len(self.entries)
        index = end if everything else self.world.random.randint(self.committed, end)
        self.committed = index
        self.transactions.committed(Index(index))
        self.table.committed(Index(index))
        ready = [wake for at, wake in self.waiting if at <= index]
        self.waiting = [(at, wake) for at, wake in self.waiting if at > index]
        for wake in ready:
            wake()

    def change_leader(self) -> None:
        first = self.world.random.randint(self.committed + 1, len(self.entries) + 1)
        self.term += 1
        self.waiting.clear()
        self.transactions.truncated(Index(first))
        self.table.truncated(Index(first))
        del self.entries[first - 1 :]
        self.transactions.verification.clear()
        if self.world.random.random() < 0.5:
            self._recover()

    def _recover(self) -> None:
        """From a checkpoint, and the log after it; or from the log alone."""
        data = self.transactions.to_bytes()
        alone = OpenTransactions(DAY_MS)
        for entry in self.entries[: self.committed]:
            alone.appended(entry.transactional)
        alone.committed(Index(self.committed))
        assert alone.to_bytes() == data
        self.transactions = self.transactions.other(data)
        self.table = sequences.ProducerTable.decode(self.table.encode(), DAY_MS)
        for entry in self.entries[self.committed :]:
            self.transactions.appended(entry.transactional)
            if entry.produced is not None:
                self.table.appended(entry.produced)

    # --- reading

    def read(self) -> None:
        """A reader of committed records goes on from where it was."""
        high_watermark = self.entries[self.committed - 1].offset + 1 if self.committed else 0
        stable = self.transactions.last_stable_offset(Offset(high_watermark))
        assert self.stable <= stable <= high_watermark
        aborted = self.transactions.aborted_between(Offset(self.stable), Offset(stable))
        for entry in self.entries:
            if entry.value is None or not self.stable <= entry.offset < stable:
                continue
            if any(
                told.producer_id == entry.producer_id
                and told.first_offset <= entry.offset < told.last_offset
                for told in aborted
            ):
                continue
            assert entry.value[0] in self.world.asked_commit
            self.seen.append(entry.value)
        self.stable = stable

    def push(self) -> None:
        for row in self.transactions.overdue(self.world.now_ms, 3_000):
            request = Push(row.producer_id, row.standing.epoch, self.name)
            for node in self.world.coordinators:
                self._push(node, request, row.standing.first_offset)

    def _push(self, node: CoordinatorNode, request: Push, first: Offset | None) -> None:
        term = self.term

        def answered(answer: Answer) -> None:
            assert isinstance(answer, PushAnswer)
            standing = self.transactions.standing(request.producer_id)
            if standing is None or standing.first_offset != first or term != self.term:
                return
            if answer.verdict is PushVerdict.ABORT:
                self.world.pushed_count += 1
                marker = MarkerRequest(request.producer_id, answer.epoch, Term(node.term))
                if isinstance(self.transactions.check_marker(marker), Append):
                    self._append_marker(marker, commit=False)

        back = self.world.send
        self.world.send(lambda: node.ask(request, lambda answer: back(lambda: answered(answer))))
