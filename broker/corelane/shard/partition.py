"""One partition that lives on this core: a raft group whose entries are Kafka record batches."""

# performance-critical: see STYLE.md

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from corelane.cluster.topic_config import TopicSettings
from corelane.model import limits
from corelane.model.ids import Index, Offset, RecordKind, Term, TopicId
from corelane.model.metrics import ShardCounts, TopicCounts
from corelane.model.record import record
from corelane.producers.open_transactions import Marker, TransactionalBatch
from corelane.producers.sequences import ProducedBatch
from corelane.raft.core import RaftGroup
from corelane.shard import partition_fold, transaction_entries
from corelane.shard.latest import LatestByKey
from corelane.shard.member import Member
from corelane.shard.partition_fold import FoldError, PartitionFold
from corelane.storage.group_log import GroupLog
from corelane.storage.installing import PrefixSnapshot
from corelane.storage.layout import LayoutError
from corelane.wire.batch import batch_header
from corelane_native import PlainRequests, PlainRow, address_of, bytes_at

_BATCH: Final = int(RecordKind.BATCH)


class AppendWaiter(Protocol):
    """Who waits for an entry's fate; called once."""

    def settled(self, *, is_lost: bool) -> None:
        """The entry is as durable as was asked for, or (*is_lost*) this core leads no more."""


class Parked(Protocol):
    """Those who wait until it is known whether this partition is part of a transaction."""

    def lost(self) -> None:
        """This core leads no more; called once."""


class HighWatermarkWaiter(Protocol):
    """Who waits for more to read."""

    def wake(self, number: int) -> None:
        """Look again at the end of this turn; *number* is what was registered here."""


@record
class Batch:
    """A record batch as a client sent it, checked; *address* is borrowed for the call."""

    address: int
    size_bytes: int
    record_count: int
    max_timestamp_ms: int
    append_time_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    is_transactional: bool = False


class Topic:
    """A topic as this core sees it; `partitions[i]` is None where another core owns it."""

    __slots__ = (
        "counts",
        "encoded",
        "is_deleted",
        "name",
        "name_bytes",
        "partitions",
        "settings",
        "topic_id",
    )

    def __init__(self, name: str, topic_id: TopicId, settings: TopicSettings) -> None:
        self.name = name
        self.name_bytes = name.encode()
        self.topic_id = topic_id
        self.settings = settings
        self.counts = TopicCounts()
        self.partitions: list[Partition | None] = []
        self.is_deleted = False
        self.encoded: dict[int, object] = {}
        """What answers say of it, by their version; kept by their maker until it has changed."""

    def changed(self) -> None:
        """Note that who leads its partitions, or how many there are, may be otherwise now."""
        self.encoded = {}  # who is encoding it now puts the result into the old one

    def partition(self, index: int) -> "Partition | None":
        """Return the partition of that number, or None where there is none here."""
        if 0 <= index < len(self.partitions):
            return self.partitions[index]
        return None


class Partition(Member):
    """The leader's (or follower's) side of one partition.

    Invariant P1: offsets are given at append, by the leader of the term, from the log's own
    counter; an answer takes them from there.
    Invariant P2: `commit_waits` is sorted by index, so a commit answers a prefix of it.
    """

    __slots__ = (
        "_led_term",
        "append_queue",
        "commit_waits",
        "fetch_waits",
        "is_dropped",
        "is_opening",
        "latest",
        "led",
        "left",
        "lost",
        "marked",
        "number",
        "parked",
        "producers",
        "sync_waits",
        "topic",
        "transactions",
        "trim_index",
        "trim_offset",
        "twin_waits",
    )

    def __init__(
        self,
        raft: RaftGroup,
        log: GroupLog,
        counts: ShardCounts,
        topic: Topic,
        kept: PartitionFold,
    ) -> None:
        super().__init__(raft, log, counts)
        self.topic = topic
        self.number = log.descriptor.partition
        self.producers = kept.producers
        self.transactions = kept.transactions
        self.latest = kept.latest
        self.led: Callable[[], None] | None = None
        """Called when it leads, in each of its terms; it serves then."""
        self.is_opening = False  # counted as not serving yet
        self._led_term = Term(0)
        self.commit_waits: deque[tuple[Index, AppendWaiter]] = deque()
        self.sync_waits: deque[tuple[Index, AppendWaiter]] = deque()
        self.twin_waits: list[tuple[Index, AppendWaiter]] = []
        self.fetch_waits: dict[HighWatermarkWaiter, int] = {}  # in the order they came
        self.append_queue: deque[object] = deque()
        self.parked: dict[int, Parked] = {}
        """By producer id, who waits for the word of a transaction's coordinator (parking.py)."""
        self.marked: Callable[[Marker], None] | None = None
        """Hears each marker when it is committed, once; of coordinators' topics alone."""
        self.trim_index = Index(0)  # of the last TRIM proposed here
        self.trim_offset = Offset(0)  # the log start that it asks for
        self.is_dropped = False
        self.left: Callable[[], None] | None = None
        self.lost: Callable[[], None] | None = None
        """Called when it leads no more, or is gone."""

    @property
    def serves(self) -> bool:
        """Whether this member leads, has committed an entry of its own term, and is there."""
        return (
            not self.is_dropped
            and not self.is_leaving
            and self.raft.is_established
            and not self.raft.is_transferring
            and not self.is_damaged
        )

    @property
    def stirs(self) -> bool:
        is_led = self._led_term == self.raft.term
        return not is_led or self.latest is not None or self.left is not None

    @property
    def is_replicated(self) -> bool:
        """Whether other nodes have replicas, which go on while this one is being moved."""
        return len(self.raft.configuration.members) > 1

    @property
    def has_waits(self) -> bool:
        """Whether somebody waits for an entry's fate."""
        return bool(self.commit_waits or self.sync_waits or self.twin_waits)

    def leave(self, committed: Callable[[], None]) -> None:
        """Take nothing more: what is on its way is answered, readers learn to look elsewhere.

        *committed* is called after each commit until `stay`.
        """
        assert self.serves or self.is_replicated
        self.is_leaving = True
        self.topic.changed()
        self.left = committed
        self._fail_parked()
        for reader, number in self.fetch_waits.items():
            reader.wake(number)

    def stay(self) -> None:
        """Serve again: nobody took it over."""
        assert self.is_leaving
        self.is_leaving = False
        self.topic.changed()
        self.left = None

    def append(self, batch: Batch) -> tuple[Index, Offset]:
        """Append *batch* as the leader; returns its index and the offset of its first record.

        Raises MemoryError or WalFullError when there is no room; nothing has changed then.
        """
        assert self.raft.is_leader, "P1"
        assert not self.is_dropped, "nobody would flush it or answer"
        index, base_offset, _lsn = self.log.append_batch(
            self.raft.term,
            batch.address,
            batch.size_bytes,
            batch.record_count,
            batch.max_timestamp_ms,
            batch.append_time_ms,
        )
        if batch.producer_id >= 0:
            self._appended(index, base_offset, batch)
        if self.postman is not None:
            self.postman.appended(self)
        return index, base_offset

    def gather(self, row: PlainRow, address: int, append_time_ms: int) -> tuple[Index, Offset]:
        """Append the batch that *row* tells of, as `append` does.

        Its bytes follow with `Wal.end_gather`.
        """
        assert self.raft.is_leader, "P1"
        assert not self.is_dropped, "nobody would flush it or answer"
        index, base_offset = self.log.gather_batch(self.raft.term, row, address, append_time_ms)
        if row[9] >= 0:
            newest_ms = row[13] if append_time_ms < 0 else append_time_ms
            self.producers.appended(
                ProducedBatch(index, row[9], row[10], row[11], row[7], base_offset, newest_ms)
            )
        if self.postman is not None:
            self.postman.appended(self)
        return index, base_offset

    def append_plain(
        self,
        plain: PlainRequests,
        requests: tuple[int, int, int],
        row: PlainRow,
        append_time_ms: int,
    ) -> int:
        """Append batches of alike requests, at least one of them; returns how many.

        *requests* are (number of the first, of its row, how many), *row* is the first one's.
        Raises MemoryError or WalFullError when there is no room; nothing has changed then.
        """
        assert self.raft.is_leader, "P1"
        assert not self.is_dropped, "nobody would flush it or answer"
        log = self.log
        index, base_offset = log.last_index, log.next_offset
        count = log.append_plain(self.raft.term, plain, requests, row[6], append_time_ms)
        if row[9] >= 0:
            for each in plain.rows(requests[1], count):
                index = Index(index + 1)
                newest_ms = each[13] if append_time_ms < 0 else append_time_ms
                self.producers.appended(
                    ProducedBatch(
                        index, each[9], each[10], each[11], each[7], base_offset, newest_ms
                    )
                )
                base_offset = Offset(base_offset + each[7])
        if self.postman is not None:
            self.postman.appended(self)
        return count

    def _appended(self, index: Index, base_offset: Offset, batch: Batch) -> None:
        """Fold a batch that a producer wrote."""
        stored_ms = batch.append_time_ms if batch.append_time_ms >= 0 else batch.max_timestamp_ms
        producer_id, epoch = batch.producer_id, batch.producer_epoch
        if batch.base_sequence >= 0:
            self.producers.appended(
                ProducedBatch(
                    index,
                    producer_id,
                    epoch,
                    batch.base_sequence,
                    batch.record_count,
                    base_offset,
                    stored_ms,
                )
            )
        if batch.is_transactional:
            self.transactions.appended(
                TransactionalBatch(index, producer_id, epoch, base_offset, stored_ms)
            )

    def append_marker(self, data: bytes) -> Index:
        """Append, as the leader, a control batch that ends a transaction; raises as `append`."""
        assert self.raft.is_leader, "P1"
        assert not self.is_dropped, "nobody would flush it or answer"
        head = batch_header(data)
        log = self.log
        index, base_offset, _lsn = log.append_batch(
            self.raft.term, address_of(data), len(data), head.record_count, head.max_timestamp, -1
        )
        made = head._replace(base_offset=base_offset)
        entry = transaction_entries.transactional(index, made, data)
        assert entry is not None
        self.transactions.appended(entry)
        self.grown()
        return index

    @property
    def last_stable_offset(self) -> Offset:
        """Return the end of what a reader of committed transactions may see."""
        return self.transactions.last_stable_offset(self.log.committed_offset)

    def propose_start(self, start: Offset) -> None:
        """Ask, as the leader, for the log to begin at *start*; so it does once that is committed.

        Raises MemoryError or WalFullError when there is no room; nothing has changed then.
        """
        assert self.serves
        assert self.log.start_offset < start <= self.log.committed_offset
        assert start > self.trim_offset, "asked for already"
        payload = start.to_bytes(8, "little", signed=True)
        self.trim_index = self.append_control(RecordKind.TRIM, payload)
        self.trim_offset = start

    def wait_for_commit(self, index: Index, waiter: AppendWaiter) -> None:
        """Have *waiter* hear of an entry of long ago or just now, not before those who wait (P2).

        A coordinator that answers without an entry of its own waits for its last one, and markers
        may have come behind that.
        """
        waits = self.commit_waits
        waits.append((max(index, waits[-1][0]) if waits else index, waiter))

    def wait_for_twin(self, index: Index, waiter: AppendWaiter) -> None:
        """Let a duplicate of an in-flight batch share the fate of the first attempt (quirk 24)."""
        assert index > self.log.committed_index, "a committed twin is a duplicate"
        self.twin_waits.append((index, waiter))

    def entries_durable(self, last_index: Index, truncations: int) -> None:
        super().entries_durable(last_index, truncations)
        _release(self.sync_waits, self.raft.durable_index)

    def committed(self, index: Index) -> None:
        assert index == self.log.committed_index
        self.producers.committed(index)
        self.transactions.committed(index)
        if self.transactions.start_offset < self.log.start_offset:
            self.transactions.trimmed(self.log.start_offset)
        if self.latest is not None:
            self._keep(self.latest, index)
        if self._led_term != self.raft.term and self.raft.is_established:
            self._led_term = self.raft.term
            self.topic.changed()
            assert self.led is not None
            self.led()
        _release(self.commit_waits, index)
        if self.twin_waits:
            settled = [waiter for at, waiter in self.twin_waits if at <= index]
            self.twin_waits = [row for row in self.twin_waits if row[0] > index]
            for waiter in settled:
                waiter.settled(is_lost=False)
        for reader, number in self.fetch_waits.items():
            reader.wake(number)
        if self.left is not None:
            self.left()

    def _keep(self, latest: LatestByKey, index: Index) -> None:
        """Fold what was committed just now: it is in memory still."""
        log = self.log
        for at in range(latest.applied_index + 1, index + 1):
            entry = log.entry(Index(at))
            if entry.kind == RecordKind.BATCH:
                address = log.store.arena.address(entry.chunk.id) + entry.position
                data = bytes_at(address, entry.size_bytes)
                latest.apply(Index(at), data)
                if self.marked is not None:
                    made = transaction_entries.transactional(Index(at), batch_header(data), data)
                    if isinstance(made, Marker):
                        self.marked(made)
            else:
                latest.skip(Index(at))

    @property
    def kept(self) -> PartitionFold:
        """Return the folds of what is committed."""
        return PartitionFold(self.producers, self.transactions, self.latest)

    def became_follower(self) -> None:
        self.topic.changed()
        self.transactions.verification.clear()
        self.fail_waits()

    def _fail_parked(self) -> None:
        parked, self.parked = self.parked, {}
        for each in parked.values():
            each.lost()

    def received(self, first: Index, last: Index) -> None:
        # A snapshot's fold may be ahead of the entries that follow it.
        first = Index(max(first, self.producers.committed_index + 1))
        fold(self.log, self.kept, first, last)

    def snapshot(self) -> PrefixSnapshot | None:
        if not self.raft.is_established or self.is_damaged or self.is_dropped:
            return None
        kept = self.kept
        return self.log.store.snapshot(self.log, kept.applied_index, kept.encode())

    def prepared(self, snapshot: PrefixSnapshot) -> Callable[[], None]:
        try:
            expiration_ms = self.producers.id_expiration_ms
            kept = partition_fold.decode(snapshot.fold, self.topic.name, expiration_ms)
        except FoldError as fault:
            raise LayoutError(str(fault)) from fault
        return partial(self._begin_anew, kept)

    def _begin_anew(self, kept: PartitionFold) -> None:
        assert not self.has_waits, "who waits was told when this replica led no more"
        self.producers, self.latest = kept.producers, kept.latest
        self.transactions = kept.transactions
        self.trim_index, self.trim_offset = Index(0), self.log.start_offset

    def renewed(self, fold: bytes) -> None:
        expiration_ms = self.producers.id_expiration_ms
        self._begin_anew(partition_fold.decode(fold, self.topic.name, expiration_ms))

    def truncated(self, from_index: Index) -> None:
        self.producers.truncated(from_index)
        self.transactions.truncated(from_index)
        if self.trim_index >= from_index:
            self.trim_index, self.trim_offset = Index(0), self.log.start_offset

    def fail_waits(self) -> None:
        """Tell everybody who waits here that this core leads no more, and wake the readers."""
        assert self.is_dropped or not self.serves, "who serves answers"
        lost = [*self.commit_waits, *self.sync_waits, *self.twin_waits]
        self.commit_waits.clear()
        self.sync_waits.clear()
        self.twin_waits = []
        for _index, waiter in lost:
            waiter.settled(is_lost=True)
        self._fail_parked()
        if self.lost is not None:
            self.lost()
        for reader, number in self.fetch_waits.items():
            reader.wake(number)


def _release(waits: deque[tuple[Index, AppendWaiter]], upto_index: Index) -> None:
    assert len(waits) < 2 or waits[0][0] <= waits[-1][0], "P2"
    while waits and waits[0][0] <= upto_index:
        waits.popleft()[1].settled(is_lost=False)


def refold(log: GroupLog, kept: PartitionFold, applied: Index) -> None:
    """Fold the recovered tail on top of *kept*: nothing of it is committed yet."""
    fold(log, kept, Index(max(applied + 1, log.tail_first)), log.last_index)


def fold(log: GroupLog, kept: PartitionFold, first: Index, last: Index) -> None:
    """Fold uncommitted entries of the tail, as the leader did when it appended them."""
    if first > last:
        return  # what a snapshot has of them, which may be more than there is in the log
    assert first > log.flushed_index, "only the tail is folded again"
    at, end, arena = first - log.tail_first, last + 1 - log.tail_first, log.store.arena
    for index, row in enumerate(log.tail.native.rows(at, end), first):
        next_offset, _newest, _lsn, chunk, position, size_bytes, _term, kind = row
        if kind != _BATCH:
            continue
        address = arena.address(chunk) + position
        head = batch_header(bytes_at(address, limits.BATCH_HEADER_BYTES))
        assert head.base_offset + head.record_count == next_offset
        if head.producer_id < 0:
            continue
        produced = transaction_entries.produced(Index(index), head)
        if produced is not None:
            kept.producers.appended(produced)
        is_control = bool(head.attributes & transaction_entries.CONTROL)
        data = bytes_at(address, size_bytes) if is_control else b""
        made = transaction_entries.transactional(Index(index), head, data)
        if made is not None:
            kept.transactions.appended(made)
