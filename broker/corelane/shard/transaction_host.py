"""A coordinator of transactions: one for each partition of `__transaction_state` that leads here.

It decides (`producers/transactions/coordinator.py`); how its word is kept and given out is
`host.py`, and how its decisions reach the partitions `marker_delivery.py`.

Invariants:
X1. A marker is sent when the decision is committed, never before (H2).
X2. What comes while a decision is on its way to its partitions waits a moment for that, as if it
    had come later: clients that are told CONCURRENT_TRANSACTIONS wait for much longer.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from corelane.model.errors import ErrorCode
from corelane.producers.transactions.coordinator import TransactionCoordinator
from corelane.producers.transactions.records import NO_PRODUCER_ID
from corelane.producers.transactions.records import Partition as Place
from corelane.producers.transactions.requests import (
    AddPartitions,
    Answer,
    DescribeTransaction,
    EndTransaction,
    InitProducerId,
    ListTransactions,
    MarkerWork,
    Outcome,
    ProducerAnswer,
    Push,
    Request,
    TransactionSettings,
    VerifyPartitions,
)
from corelane.shard import transaction_records
from corelane.shard.host import AGAIN_MS, Host
from corelane.shard.latest import Change
from corelane.shard.marker_delivery import Delivery
from corelane.shard.partition import Partition
from corelane.shard.spoken import Spoken
from corelane.wire.errors import DecodeError

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

Done = Callable[[Answer | None], None]
"""Hears the answer; None: this core coordinates the transactional id no more."""

_READS: Final = (VerifyPartitions, Push, DescribeTransaction, ListTransactions)
"""What most often changes nothing: no entry shows that this coordinator still leads."""
_HELD: Final = (AddPartitions, VerifyPartitions, InitProducerId)
"""What is told CONCURRENT_TRANSACTIONS while a decision is on its way (X2)."""
HOLD_MS: Final = 100
HELD_MAX: Final = 1_024
ID_WAIT_MS: Final = 10_000
"""For a producer id that nobody has had."""
_WARNING: Final = 30


def settings_of(shard: "Shard") -> TransactionSettings:
    """Return what coordinators go by."""
    config = shard.config.config.transactions
    return TransactionSettings(
        timeout_max_ms=config.timeout_ms_max,
        id_expiration_ms=config.id_expiration_ms,
        version=shard.groups.cluster.transaction_version,
    )


class TransactionHost(Host):
    """One coordinator at work."""

    def __init__(self, shard: "Shard", partition: Partition, ended: Callable[[], None]) -> None:
        super().__init__(shard, partition, ended)
        self.coordinator = TransactionCoordinator(settings_of(shard))
        self.term = partition.raft.term
        self._delivery = Delivery(shard, self.term, self._delivered)
        self.spoken = Spoken()
        self._held: dict[str, list[_Held]] = {}
        self._held_count = 0
        self._ticked_ms = shard.now_ms
        self._replay()
        self.coordinator.loaded(shard.now_ms, shard.wall_ms)
        self._settle()

    def _replay(self) -> None:
        latest = self.partition.latest
        assert latest is not None, "only coordinators' topics have one"
        for key, value in latest.items.items():
            try:
                self.coordinator.replay(transaction_records.decode(key, value))
            except DecodeError as fault:
                self._shard.log(_WARNING, f"{self.name}: {fault}; it is passed over")

    @property
    def name(self) -> str:
        """Return which partition this is."""
        return f"{self.partition.topic.name}-{self.partition.number}"

    @property
    def serves(self) -> bool:
        """Whether requests are taken now; not while the partition is handed over or moved."""
        return not self.is_over and self.partition.serves

    def ask(self, request: Request, done: Done) -> None:
        """Have a request decided; *done* is called once, perhaps before this returns."""
        if isinstance(request, InitProducerId | EndTransaction) and self._wants_id(request):
            waiter = _FreshId(self, request, done)
            self._shard.groups.id_blocks.take(waiter)
            if not waiter.is_done:
                self._shard.deadlines.add(self._shard.now_ms + ID_WAIT_MS, waiter)
            return
        if isinstance(request, _READS):
            self._when_current(partial(self._ask, request, done), done)
        else:
            self._ask(request, done)

    def _ask(self, request: Request, done: Done) -> None:
        if isinstance(request, _HELD) and self.coordinator.is_completing(request.transactional_id):
            self._hold(request.transactional_id, request, done)
        else:
            self.decide(request, done)

    def decide(self, request: Request, done: Done) -> None:
        """Have a request decided as things are now."""
        token, shard = self._wait(done), self._shard
        self.coordinator.settings = settings_of(shard)
        self.coordinator.handle(shard.now_ms, shard.wall_ms, token, request)
        self._settle()

    def _hold(self, name: str, request: Request, done: Done) -> None:
        if self._held_count == HELD_MAX:
            self.decide(request, done)
            return
        held = _Held(self, name, partial(self._go_on, request, done))
        self._held.setdefault(name, []).append(held)
        self._held_count += 1
        self._shard.deadlines.add(self._shard.now_ms + HOLD_MS, held)

    def release(self, name: str) -> None:
        """Go on with what has waited for a transaction's end."""
        for held in self._held.pop(name, []):
            self._held_count -= 1
            held.is_done = True
            held.go_on()

    def _go_on(self, request: Request, done: Done) -> None:
        if self.serves:
            self.decide(request, done)
        else:
            done(None)

    def _wants_id(self, request: InitProducerId | EndTransaction) -> bool:
        is_given = request.fresh_producer_id != NO_PRODUCER_ID
        return not is_given and self.coordinator.needs_fresh_id(request)

    def tick(self) -> None:
        """Abort what has been open for too long, and forget what is unused."""
        if not self.partition.serves:
            self._look_at(self._shard.now_ms + AGAIN_MS)
            return
        self._ticked_ms = self._shard.now_ms
        self.coordinator.settings = settings_of(self._shard)
        self.coordinator.tick(self._shard.now_ms, self._shard.wall_ms)
        self._settle()

    def _delivered(self, work: MarkerWork, partitions: tuple[Place, ...]) -> bool:
        """Take note that partitions have their marker, or are no more."""
        if not self.serves:
            return False
        self.coordinator.marked(self._shard.now_ms, self._shard.wall_ms, work, partitions)
        self._settle()
        if not self.coordinator.is_completing(work.transactional_id):
            self.release(work.transactional_id)
        return True

    def end(self) -> None:
        self._delivery.end()
        super().end()
        for name in [*self._held]:
            self.release(name)

    # --- for `Host` ---

    def _decide(self) -> Callable[[], None] | None:
        outcome = self.coordinator.take()
        self._put_all(transaction_records.encode(each) for each in outcome.records)
        is_due = outcome.answers or outcome.markers
        return partial(self._committed, outcome) if is_due else None

    def _committed(self, outcome: Outcome) -> None:
        self._deliver(outcome.answers)
        for work in outcome.markers:
            self._delivery.begin(work)  # X1

    def _live(self) -> Iterator[Change]:
        for made in self.coordinator.live_records():
            yield transaction_records.encode(made)

    def _next_ms(self) -> int | None:
        next_ms = self.coordinator.next_deadline_ms
        interval_ms = self._shard.config.config.transactions.abort_interval_ms
        return None if next_ms is None else max(next_ms, self._ticked_ms + interval_ms)


class _Held:
    """A request that waits until a decision has reached its partitions, for a moment."""

    __slots__ = ("go_on", "host", "is_done", "name")

    def __init__(self, host: TransactionHost, name: str, go_on: Callable[[], None]) -> None:
        self.host = host
        self.name = name
        self.go_on = go_on
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Wait no longer, nor those that came later: the clients are told why."""
        del now_ms
        self.host.release(self.name)


class _FreshId:
    """A request that waits for a producer id that nobody has had."""

    __slots__ = ("done", "host", "is_done", "request")

    def __init__(
        self, host: TransactionHost, request: InitProducerId | EndTransaction, done: Done
    ) -> None:
        self.host = host
        self.request = request
        self.done = done
        self.is_done = False

    def granted(self, producer_id: int) -> None:
        """Go on with the id, which is used up even where it is not needed any more."""
        self.is_done = True
        if self.host.serves:
            self.host.ask(replace(self.request, fresh_producer_id=producer_id), self.done)
        else:
            self.done(None)

    def expire(self, now_ms: int) -> None:
        """Have the client try again."""
        del now_ms
        self.is_done = True
        self.done(ProducerAnswer(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS))
