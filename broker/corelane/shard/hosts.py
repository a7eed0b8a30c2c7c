"""The coordinators of this core: one for each partition of `__consumer_offsets` that it leads.

A coordinator decides (`groups/coordinator.py`); its host writes what it says into the partition's
log, and gives its answers out when that is committed.

Invariants:
H1. A coordinator is made of the fold of what is committed, once an entry of its leader's own term
    is: never of less (multiraft.md D 3).
H2. An answer leaves when everything that was appended before it is committed.
H3. Who cannot append what it has decided, or leads no more, is thrown away with all who wait.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from corelane.groups.consumer_requests import ConsumerGroupDescription, ConsumerGroupSettings
from corelane.groups.coordinator import GroupCoordinator, GroupRecord, Outcome
from corelane.groups.records import GenerationRecord, OffsetRecord
from corelane.groups.requests import Answer, Answered, GroupSettings, PendingCommit, Request
from corelane.model.config import GroupsConfig
from corelane.model.ids import GroupId, Index, Offset
from corelane.model.internal_topics import OFFSETS_TOPIC
from corelane.model.limits import KIB
from corelane.shard import consumer_group_records, group_records
from corelane.shard.partition import Batch, Partition
from corelane.shard.topics_view import ClusterTopics
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
_TRANSACTIONAL: Final = 0x10

Done = Callable[[Answer | None], None]
"""Hears the answer; None: this core coordinates the group no more."""


def settings_of(config: GroupsConfig) -> GroupSettings:
    """Return what coordinators go by."""
    return GroupSettings(
        config.session_timeout_ms_min,
        config.session_timeout_ms_max,
        config.initial_delay_ms,
        config.members_max,
        config.metadata_bytes_max,
        config.offsets_retention_minutes * 60_000,
        ConsumerGroupSettings(
            session_timeout_ms=config.consumer_session_timeout_ms,
            heartbeat_interval_ms=config.consumer_heartbeat_interval_ms,
        ),
    )


def encode(made: GroupRecord) -> tuple[bytes, bytes | None]:
    """Return key and value of a record of either protocol."""
    if isinstance(made, OffsetRecord | GenerationRecord):
        return group_records.encode(made)
    return consumer_group_records.encode(made)


def decode(key: bytes, value: bytes | None) -> GroupRecord | None:
    """Return the record; None for kinds that are not known."""
    return group_records.decode(key, value) or consumer_group_records.decode(key, value)


class Host:
    """One coordinator at work."""

    def __init__(self, shard: "Shard", partition: Partition, ended: Callable[[], None]) -> None:
        self._shard = shard
        self._partition = partition
        self._ended = ended
        settings = settings_of(shard.config.config.groups)
        self.coordinator = GroupCoordinator(settings, shard.groups.hosts.topics())
        self.is_over = False
        self._waiting: dict[int, Done] = {}
        self._next_token = 0
        self._appended_index = partition.log.last_index
        self._timer: _Timer | None = None
        self._is_rewriting = False
        self._deleted: set[str] = set()
        self._replay()
        self.coordinator.loaded(shard.now_ms, shard.wall_ms)
        self._settle()

    def _replay(self) -> None:
        latest = self._partition.latest
        assert latest is not None, "only coordinators' topics have one"
        for key, value in latest.items.items():
            found = decode(key, value)
            if found is not None:
                self.coordinator.replay(found)
        for producer_id, opened in latest.open.items():
            for key, change in opened.changes:
                found = group_records.decode(key, change)
                if isinstance(found, OffsetRecord):
                    self.coordinator.replay_pending(producer_id, found)

    def ask(self, request: Request, done: Done) -> None:
        """Have a request decided; *done* is called once, perhaps before this returns."""
        self._next_token += 1
        self._waiting[self._next_token] = done
        shard = self._shard
        self.coordinator.settings = settings_of(shard.config.config.groups)
        self.coordinator.topics = shard.groups.hosts.topics()
        self.coordinator.handle(shard.now_ms, shard.wall_ms, self._next_token, request)
        self._settle()

    def topics_deleted(self, names: set[str]) -> None:
        """Forget what was committed of topics that are no more."""
        self._deleted |= names
        self.tick()

    def tick(self) -> None:
        """Let the coordinator act on its deadlines, and on what happened to topics.

        Not while the partition is handed over or moved: nothing may be appended to it then.
        """
        if not self._partition.serves:
            self._look_at(self._shard.now_ms + AGAIN_MS)
            return
        if self._deleted:
            self.coordinator.topics_deleted(self._deleted)
            self._deleted = set()
        self.coordinator.topics = self._shard.groups.hosts.topics()
        self.coordinator.tick(self._shard.now_ms, self._shard.wall_ms)
        self._settle()

    def describe_consumers(self, name: str) -> ConsumerGroupDescription | None:
        """Return what there is to see of a group of the new protocol; None: it is none."""
        return self.coordinator.consumers.describe(name, self._shard.groups.hosts.topics())

    def _settle(self) -> None:
        """Append what was decided, and have the answers wait for it (H2)."""
        outcome = self.coordinator.take()
        if not self._append(outcome):
            self.end()
            return
        if outcome.answers:
            delivery = _Delivery(self, outcome.answers)
            if self._partition.raft.committed_index >= self._appended_index:
                delivery.settled(is_lost=False)
            else:
                self._partition.commit_waits.append((self._appended_index, delivery))
        self._schedule()

    def _append(self, outcome: Outcome) -> bool:
        """Append the records of an outcome; False when there is no room for them (H3)."""
        try:
            if outcome.records:
                self._put([encode(each) for each in outcome.records])
            for pending in outcome.pending:
                self._put_pending(pending)
            if outcome.records and not self._is_rewriting:
                self._rewrite_if_long()
        except (MemoryError, WalFullError):
            return False
        return True

    def _put_pending(self, pending: PendingCommit) -> None:
        made = [
            group_records.encode(OffsetRecord(group, *place, offset))
            for group, place, offset in pending.offsets
        ]
        producer = Producer(pending.producer_id, pending.producer_epoch, -1)
        self._put(made, producer, _TRANSACTIONAL)

    def _put(
        self,
        changes: list[tuple[bytes, bytes | None]],
        producer: Producer = ANONYMOUS,
        attributes: int = 0,
    ) -> None:
        """Append records as one batch."""
        builder, wall_ms = BatchBuilder(), self._shard.wall_ms
        for key, value in changes:
            builder.append(wall_ms, key, value, ())
        data = encode_batch(builder.payload(Compression.NONE), producer, attributes)
        if not self._shard.store.has_room(len(data)):
            raise WalFullError
        batch = Batch(address_of(data), len(data), builder.count, wall_ms, -1, -1, -1, -1)
        self._appended_index, _offset = self._partition.append(batch)

    # --- the length of the log ---

    def _rewrite_if_long(self) -> None:
        """Write what the log comes to at its end, and then let go of what is before."""
        log, latest = self._partition.log, self._partition.latest
        assert latest is not None
        count = log.next_offset - log.start_offset
        if count < REWRITE_RECORDS_MIN + REWRITE_RATIO * len(latest.items):
            return
        if latest.open or not self._shard.store.has_room(2 * latest.size_bytes):
            return
        start = Offset(log.next_offset)
        chunk: list[tuple[bytes, bytes | None]] = []
        size_bytes = 0
        for made in self.coordinator.live_records():
            key, value = encode(made)
            chunk.append((key, value))
            size_bytes += len(key) + len(value or b"")
            if size_bytes >= BATCH_BYTES:
                self._put(chunk)
                chunk, size_bytes = [], 0
        if chunk:
            self._put(chunk)
        self._is_rewriting = True
        self._partition.commit_waits.append((self._appended_index, _Rewritten(self, start)))

    def rewritten(self, start: Offset) -> None:
        """Everything that counts stands behind *start*, committed."""
        self._is_rewriting = False
        partition = self._partition
        if partition.serves and start > max(partition.log.start_offset, partition.trim_offset):
            try:
                partition.propose_start(start)
            except (MemoryError, WalFullError):
                return  # with the next rewrite, then

    # --- answers ---

    def deliver(self, answers: list[Answered]) -> None:
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
        if not self.is_over:
            self._look_at(self.coordinator.next_deadline_ms)

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


class _Delivery:
    """Answers that wait for an entry's fate."""

    __slots__ = ("answers", "host")

    def __init__(self, host: Host, answers: list[Answered]) -> None:
        self.host = host
        self.answers = answers

    def settled(self, *, is_lost: bool) -> None:
        """Give them out, or have everybody look elsewhere."""
        if is_lost:
            self.host.end()
        else:
            self.host.deliver(self.answers)


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


class Hosts:
    """The coordinators of a core, by the raft group of their partition."""

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self._hosts: dict[GroupId, Host] = {}
        self._topics: ClusterTopics | None = None
        self._topics_revision = 0

    def topics_changed(self) -> None:
        """Topics were made, extended or deleted."""
        self._topics = None

    def topics(self) -> ClusterTopics:
        """Return the topics as they are now."""
        cluster = self._shard.groups.cluster
        if self._topics is None:
            self._topics_revision += 1
            self._topics = ClusterTopics(cluster, self._topics_revision)
        return self._topics

    def of(self, group: GroupId) -> Host | None:
        """Return the coordinator of a partition; None: not here, or not yet."""
        return self._hosts.get(group)

    def __iter__(self) -> Iterator[Host]:
        return iter([*self._hosts.values()])

    def leads(self, partition: Partition) -> None:
        """A partition leads from now on: if it is a coordinator's, make that in a later turn."""
        if partition.topic.name == OFFSETS_TOPIC:
            self._shard.todo.append(partial(self._make, partition, partition.raft.term))

    def _make(self, partition: Partition, term: int) -> None:
        group = partition.group
        if not partition.serves or partition.raft.term != term or group in self._hosts:
            return

        def ended() -> None:
            self._hosts.pop(group, None)
            self._again(partition, term, partition.log.last_index)

        host = Host(self._shard, partition, ended)
        if not host.is_over:
            self._hosts[group] = host
            partition.lost = host.end

    def _again(self, partition: Partition, term: int, index: Index) -> None:
        """Make a coordinator anew, when all that its former self appended is committed."""
        if not partition.serves or partition.raft.term != term:
            return  # whoever leads has one

        def look() -> None:
            if partition.raft.committed_index >= index:
                self._make(partition, term)
            else:
                self._again(partition, term, index)

        self._shard.deadlines.add(self._shard.now_ms + AGAIN_MS, _Later(look))


class _Later:
    """Something to do after a while."""

    __slots__ = ("is_done", "look")

    def __init__(self, look: Callable[[], None]) -> None:
        self.look = look
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Do it."""
        del now_ms
        self.is_done = True
        self.look()
