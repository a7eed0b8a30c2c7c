"""How the decisions of a coordinator reach the partitions of their transactions.

    MARKERS   u coordinator term | u rows | rows: u group, u leader's term, u producer id, u epoch,
              u flags (1: commit), u client's version, u start + 1
    the answer  u error for each row, in order

Invariants:
M1. A decision is sent to each of its partitions until that has acknowledged it, committed, or the
    topic is deleted, which the controller's log must prove (fold_barrier.py).
M2. What is sent twice does no harm: a partition knows the marker by its epoch and start, and an
    attempt names the leader's term that it is for.
M3. What has failed once does not hold up what is new: it travels apart.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from corelane.cluster.binary import Reader, Writer
from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.ids import GroupId, Term
from corelane.model.record import record
from corelane.producers.transactions.records import Partition
from corelane.producers.transactions.requests import MarkerWork
from corelane.shard import markers
from corelane.shard.inquiries import Question, Reply
from corelane.shard.peers.hello import PeerId
from corelane.shard.verifying import MarkerToWrite, Place

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

ROWS_MAX: Final = 256
"""Of one question: below 20 KiB, and one batch for the log where it goes."""
FLIGHT_ROWS_MAX: Final = 8_192
"""Of one coordinator; the rest waits its turn."""
AGAIN_MS: Final = 100
ANSWER_MS: Final = 1_000
"""After so long who writes markers says which ones are committed, and that the others may be."""
_COMMIT: Final = 1

Delivered = Callable[[MarkerWork, tuple[Partition, ...]], bool]
"""Hears which partitions have a marker; False: not now, tell it again."""

SETTLED: Final = frozenset({ErrorCode.NONE, ErrorCode.INVALID_PRODUCER_EPOCH})
"""Answers of a partition that has the marker, or has seen a later transaction."""


@record
class _Row:
    """One marker for one partition."""

    work: MarkerWork
    partition: Partition
    is_again: bool


@record
class _Address:
    """Where a partition is led."""

    peer: PeerId
    group: GroupId
    term: Term


class Delivery:
    """The markers of one coordinator, for as long as it leads."""

    def __init__(self, shard: "Shard", term: Term, delivered: Delivered) -> None:
        self._shard = shard
        self._term = term
        self._delivered = delivered
        self._rows: list[_Row] = []
        self._flight_rows = 0
        self._is_queued = False
        self.is_over = False

    def begin(self, work: MarkerWork) -> None:
        """Deliver a decision; it is committed."""
        self._put([_Row(work, partition, False) for partition in work.partitions])

    def end(self) -> None:
        """Deliver nothing more: whoever coordinates next begins anew."""
        self.is_over = True
        self._rows = []

    def _put(self, rows: list[_Row]) -> None:
        self._rows += rows
        if not self._is_queued and self._rows and not self.is_over:
            self._is_queued = True
            self._shard.todo.append(self._send)

    def _later(self, rows: list[_Row]) -> None:
        """Try again in a moment."""
        if rows and not self.is_over:
            again = [_Row(row.work, row.partition, True) for row in rows]
            timer = _Again(lambda: self._put(again))
            self._shard.deadlines.add(self._shard.now_ms + AGAIN_MS, timer)

    def _send(self) -> None:
        """Send what waits, grouped by where it goes (M3)."""
        self._is_queued = False
        room = FLIGHT_ROWS_MAX - self._flight_rows
        rows, self._rows = self._rows[:room], self._rows[room:]
        grouped: dict[tuple[PeerId, bool], list[tuple[_Row, _Address]]] = {}
        missing: list[_Row] = []
        leaderless: list[_Row] = []
        for row in rows:
            group = self._group_of(row.partition)
            if group is None:
                missing.append(row)
                continue
            lead = self._shard.groups.lead_of(group)
            if lead is None:
                leaderless.append(row)
                continue
            address = _Address(lead.at, group, lead.term)
            grouped.setdefault((lead.at, row.is_again), []).append((row, address))
        self._later(leaderless)
        if missing:
            self._look_for(missing)
        for (peer, _is_again), addressed in grouped.items():
            for first in range(0, len(addressed), ROWS_MAX):
                self._ask(peer, addressed[first : first + ROWS_MAX])

    def _group_of(self, partition: Partition) -> GroupId | None:
        name, number = partition
        topic = self._shard.groups.cluster.topics.get(name)
        if topic is None or not 0 <= number < len(topic.partitions):
            return None
        return topic.partitions[number].group

    def _ask(self, peer: PeerId, addressed: list[tuple[_Row, _Address]]) -> None:
        rows = [row for row, _address in addressed]
        self._flight_rows += len(rows)

        def told(answer: bytes | None) -> None:
            self._flight_rows -= len(rows)
            if not self.is_over:
                self._take(rows, answer)

        body = _encode(self._term, addressed)
        self._shard.groups.asking.ask(peer, Question.MARKERS, body, told)

    def _take(self, rows: list[_Row], answer: bytes | None) -> None:
        if answer is None:
            self._later(rows)
        else:
            reader = Reader(answer)
            errors = [reader.uint(limits.INT16_MAX) for _ in rows]
            self._settle([row for row, error in zip(rows, errors, strict=True) if error in SETTLED])
            failed = zip(rows, errors, strict=True)
            self._later([row for row, error in failed if error not in SETTLED])
        self._put([])  # what waited for room

    def _settle(self, rows: list[_Row]) -> None:
        """Tell the coordinator what is done, decision by decision."""
        works: dict[str, list[_Row]] = {}
        for row in rows:
            works.setdefault(row.work.transactional_id, []).append(row)
        for done in works.values():
            work, partitions = done[0].work, tuple(row.partition for row in done)
            if self.is_over or not self._delivered(work, partitions):
                self._later(done)

    def _look_for(self, rows: list[_Row]) -> None:
        """Find out whether partitions are deleted, or not known here yet (M1)."""
        self._flight_rows += len(rows)

        def told(is_current: bool) -> None:
            self._flight_rows -= len(rows)
            if self.is_over:
                return
            if not is_current:
                self._later(rows)
                return
            self._settle([row for row in rows if self._group_of(row.partition) is None])
            self._put([row for row in rows if self._group_of(row.partition) is not None])

        self._shard.groups.barrier.pass_through(told)


class _Again:
    """Something to do in a moment."""

    __slots__ = ("is_done", "then")

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Do it."""
        del now_ms
        self.is_done = True
        self.then()


def _encode(term: Term, addressed: list[tuple[_Row, _Address]]) -> bytes:
    out = Writer()
    out.uint(term)
    out.uint(len(addressed))
    for row, address in addressed:
        work = row.work
        for number in (
            address.group,
            address.term,
            work.producer_id,
            work.epoch,
            _COMMIT if work.is_commit else 0,
            work.client_version,
            work.started_ms + 1,
        ):
            out.uint(number)
    return bytes(out.data)


class MarkerWriter:
    """Writes markers into partitions led here, for coordinators anywhere."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        groups.asking.answerers[Question.MARKERS] = self._asked

    def _asked(self, body: bytes, reply: Reply) -> None:
        reader = Reader(body)
        term = Term(reader.uint(limits.INT32_MAX))
        wanted = [self._read(reader, term) for _ in range(reader.count(ROWS_MAX))]
        reader.end()
        batch = _Writing(len(wanted), reply)
        self._shard.deadlines.add(self._shard.now_ms + ANSWER_MS, batch)
        for at, marker in enumerate(wanted):
            if marker is None:
                batch.done(at, ErrorCode.NOT_LEADER_OR_FOLLOWER)
            else:
                markers.write(self._shard, marker, batch.teller(at))

    def _read(self, reader: Reader, coordinator_term: Term) -> MarkerToWrite | None:
        """Return one marker; None: its partition is not known here."""
        found = self._groups.cluster.partition_of(GroupId(reader.uint()))
        leader_term = Term(reader.uint(limits.INT64_MAX))
        producer_id = reader.uint(limits.INT64_MAX)
        epoch = reader.uint(limits.INT16_MAX)
        flags = reader.uint(_COMMIT)
        version = reader.uint(limits.INT16_MAX)
        started_ms = reader.uint(limits.INT64_MAX) - 1
        if found is None:
            return None
        plan, number = found
        return MarkerToWrite(
            Place(plan.name, plan.topic_id, number),
            producer_id,
            epoch,
            flags == _COMMIT,
            coordinator_term,
            version,
            started_ms,
            leader_term,
        )


class _Writing:
    """Markers of one question, until all are settled or it is time to answer."""

    __slots__ = ("_errors", "_open", "_reply", "is_done")

    def __init__(self, count: int, reply: Reply) -> None:
        self._errors = [ErrorCode.REQUEST_TIMED_OUT] * count
        self._open = count
        self._reply = reply
        self.is_done = False

    def teller(self, at: int) -> Callable[[ErrorCode], None]:
        """Return who hears of the marker at a place."""
        return lambda error: self.done(at, error)

    def done(self, at: int, error: ErrorCode) -> None:
        """Take note of one marker's fate."""
        self._errors[at] = error
        self._open -= 1
        if self._open == 0 and not self.is_done:
            self._answer()

    def expire(self, now_ms: int) -> None:
        """Answer with what there is: the others are sent again."""
        del now_ms
        self._answer()

    def _answer(self) -> None:
        self.is_done = True
        out = Writer()
        for error in self._errors:
            out.uint(error)
        self._reply(bytes(out.data))
