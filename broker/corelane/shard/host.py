"""What all coordinators share: decisions go into a log, answers leave when it is committed.

Invariants:
H1. A coordinator is made of the fold of what is committed, once an entry of its leader's own term
    is: never of less (multiraft.md D 3).
H2. An answer leaves when everything that was appended before it is committed.
H3. Who cannot append what it has decided, or leads no more, is thrown away with all who wait.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from corelane.model.ids import Offset
from corelane.model.limits import KIB
from corelane.shard.latest import Change
from corelane.shard.partition import Batch, Partition
from corelane.shard.transaction_entries import NO_SEQUENCE, TRANSACTIONAL
from corelane.storage.wal import WalFullError
from corelane.wire.compression import Compression
from corelane.wire.records import ANONYMOUS, BatchBuilder, Producer, encode_batch
from corelane_native import address_of

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

REWRITE_RECORDS_MIN: Final = 50_000
REWRITE_RATIO: Final = 4
"""The log is written anew when it has so many times what it comes to: a tail cost of a third."""
BATCH_BYTES: Final = 256 * KIB
AGAIN_MS: Final = 100
"""After how long a coordinator that had no room is made anew."""


class Host:
    """One coordinator at work; subclasses say of what."""

    def __init__(self, shard: "Shard", partition: Partition, ended: Callable[[], None]) -> None:
        self._shard = shard
        self.partition = partition
        self._ended = ended
        self.is_over = False
        self._waiting: dict[int, Callable[[Any], None]] = {}
        self._next_token = 0
        self._appended_index = partition.log.last_index
        self._timer: _Timer | None = None
        self._is_rewriting = False

    # --- for subclasses ---

    def _decide(self) -> Callable[[], None] | None:
        """Append what the coordinator has decided; return what is due when that is committed.

        Raises MemoryError or WalFullError where there is no room.
        """
        raise NotImplementedError

    def _live(self) -> Iterator[Change]:
        """Yield what a fresh log must say to give the same state."""
        raise NotImplementedError

    def _next_ms(self) -> int | None:
        """Return when the coordinator wants to be looked at."""
        raise NotImplementedError

    def tick(self) -> None:
        """Let the coordinator act on its deadlines."""
        raise NotImplementedError

    def _wait(self, done: Callable[[Any], None]) -> int:
        """Return the token under which *done* waits for its answer."""
        self._next_token += 1
        self._waiting[self._next_token] = done
        return self._next_token

    def _when_current(self, ask: Callable[[], None], done: Callable[[None], None]) -> None:
        """Do what changes nothing, and would be wrong of a coordinator that was deposed."""

        def told(is_current: bool) -> None:
            if is_current and not self.is_over:
                ask()
            else:
                done(None)

        self._shard.groups.reads.when_current(self.partition, told)

    def _settle(self) -> None:
        """Have what was decided kept, and what rests on it wait for that (H2)."""
        try:
            committed = self._decide()
            if committed is not None:
                self._when_committed(committed)
            if not self.is_over and not self._is_rewriting:
                self._rewrite_if_long()
        except (MemoryError, WalFullError):
            self.end()
            return
        self._schedule()

    def _when_committed(self, committed: Callable[[], None]) -> None:
        """Have *committed* called when everything appended so far is, unless it is over then."""
        if self.partition.raft.committed_index >= self._appended_index:
            committed()
        else:
            waiter = _Committed(self, committed)
            self.partition.wait_for_commit(self._appended_index, waiter)

    def _put(self, changes: Iterable[Change], producer: Producer = ANONYMOUS) -> None:
        """Append records as one batch, of a transaction where there is a *producer*."""
        builder, wall_ms = BatchBuilder(), self._shard.wall_ms
        for key, value in changes:
            builder.append(wall_ms, key, value, ())
        attributes = 0 if producer is ANONYMOUS else TRANSACTIONAL
        data = encode_batch(builder.payload(Compression.NONE), producer, attributes)
        if not self._shard.store.has_room(len(data)):
            raise WalFullError
        batch = Batch(
            address_of(data),
            len(data),
            builder.count,
            wall_ms,
            -1,
            producer.producer_id,
            producer.epoch,
            NO_SEQUENCE,
            is_transactional=producer is not ANONYMOUS,
        )
        self._appended_index, _offset = self.partition.append(batch)

    def _put_all(self, changes: Iterable[Change]) -> None:
        """Append records as batches of a moderate size: each record stands for itself."""
        chunk: list[Change] = []
        size_bytes = 0
        for key, value in changes:
            chunk.append((key, value))
            size_bytes += len(key) + len(value or b"")
            if size_bytes >= BATCH_BYTES:
                self._put(chunk)
                chunk, size_bytes = [], 0
        if chunk:
            self._put(chunk)

    # --- the length of the log ---

    def _rewrite_if_long(self) -> None:
        """Write what the log comes to at its end, and then let go of what is before."""
        log, latest = self.partition.log, self.partition.latest
        assert latest is not None
        count = log.next_offset - log.start_offset
        if count < REWRITE_RECORDS_MIN + REWRITE_RATIO * len(latest.items):
            return
        if latest.open or not self._shard.store.has_room(2 * latest.size_bytes):
            return
        self._is_rewriting = True
        start = Offset(log.next_offset)
        self._put_all(self._live())
        self.partition.wait_for_commit(self._appended_index, _Rewritten(self, start))

    def rewritten(self, start: Offset) -> None:
        """Everything that counts stands behind *start*, committed."""
        self._is_rewriting = False
        partition = self.partition
        if partition.serves and start > max(partition.log.start_offset, partition.trim_offset):
            try:
                partition.propose_start(start)
            except (MemoryError, WalFullError):
                return  # with the next rewrite, then

    # --- answers ---

    def _deliver(self, answers: Sequence[Any]) -> None:
        """Give answers out: what they rest on is committed."""
        for each in answers:
            done = self._waiting.pop(each.token, None)
            if done is not None:
                done(each.answer)

    def end(self) -> None:
        """Coordinate no more: who waits is to look elsewhere (H3)."""
        if self.is_over:
            return
        self.is_over = True
        if self._timer is not None:
            self._timer.is_done = True
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done(None)
        self._ended()

    def _schedule(self) -> None:
        """Have the coordinator looked at when it asks for that."""
        next_ms = self._next_ms()
        if not self.is_over and next_ms is not None:
            self._look_at(next_ms)

    def _look_at(self, at_ms: int) -> None:
        """Have `tick` called at a time; one timer, the earliest."""
        if self._timer is not None and not self._timer.is_done:
            if self._timer.at_ms <= at_ms:
                return
            self._timer.is_done = True
        self._timer = _Timer(self, at_ms)
        self._shard.deadlines.add(max(0, at_ms), self._timer)


class _Timer:
    """When a coordinator is looked at next."""

    __slots__ = ("at_ms", "host", "is_done")

    def __init__(self, host: Host, at_ms: int) -> None:
        self.host = host
        self.at_ms = at_ms
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Look at it."""
        del now_ms
        self.is_done = True
        self.host.tick()


class _Committed:
    """What waits for an entry's fate."""

    __slots__ = ("host", "then")

    def __init__(self, host: Host, then: Callable[[], None]) -> None:
        self.host = host
        self.then = then

    def settled(self, *, is_lost: bool) -> None:
        """Do it, or have everybody look elsewhere."""
        if is_lost:
            self.host.end()
        elif not self.host.is_over:
            self.then()


class _Rewritten:
    """A log that was written anew, and waits for the last of it."""

    __slots__ = ("host", "start")

    def __init__(self, host: Host, start: Offset) -> None:
        self.host = host
        self.start = start

    def settled(self, *, is_lost: bool) -> None:
        """Let go of what is before it."""
        if not is_lost and not self.host.is_over:
            self.host.rewritten(self.start)
