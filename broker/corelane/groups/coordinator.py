"""The groups of one partition of `__consumer_offsets`, while its replica leads.

What is durable is a fold of records: `replay` takes each of them in, at a start and when one is
made alike. A request changes the state at once; its records are one batch, and its answers leave
when that is committed. Whoever leads no more throws the whole coordinator away.

Invariants:
G1. State that lasts changes by `replay` only, and every change is in the records of `take`.
G2. The answers of a `take` rest on its records, or on what was appended before them.
G3. A request that is refused leaves no record.
G4. Nothing here is O(groups) per request; time is a heap of deadlines that may have moved away.
"""

import heapq
from collections.abc import Iterator
from typing import Final, assert_never

from corelane.groups import migration, subscribed
from corelane.groups.classic_group import ClassicGroup, State
from corelane.groups.consumer_group import ConsumerGroup
from corelane.groups.consumer_groups import Classic, ConsumerGroups
from corelane.groups.consumer_records import CONSUMER_TYPE, ConsumerGroupRecord
from corelane.groups.consumer_requests import ConsumerHeartbeatAnswer
from corelane.groups.offsets_book import OffsetsBook
from corelane.groups.rebalancing import Rebalancing, identity_fault
from corelane.groups.records import (
    ClassicRecord,
    CommittedOffset,
    GenerationRecord,
    OffsetRecord,
    Place,
)
from corelane.groups.requests import (
    Answer,
    Answered,
    Beat,
    Commit,
    Committed,
    ConsumerBeat,
    DeletedOffsets,
    DeleteGroup,
    DeleteOffsets,
    Described,
    FetchedOffsets,
    FetchOffsets,
    GroupSettings,
    Join,
    Joined,
    Leave,
    Left,
    PendingCommit,
    Request,
    Simple,
    Sync,
    Synced,
)
from corelane.groups.subscriptions import TopicsView
from corelane.model.errors import ErrorCode
from corelane.model.record import record

GROUP_ID_BYTES_MAX: Final = 4_096
"""Kafka's is that of a string on the wire; names are keys, in memory and in every record."""
GROUPS_MAX: Final = 100_000
"""Of one coordinator; beyond, new ones are refused."""
OFFSETS_PER_GROUP_MAX: Final = 100_000
CLASSIC: Final = "classic"
EXPIRY_CHECK_MS: Final = 600_000
"""Kafka's offsets.retention.check.interval.ms."""


GroupRecord = ClassicRecord | ConsumerGroupRecord
"""What the log says of groups of either protocol."""


@record
class Outcome:
    """What is to be appended, as one batch, and whom to answer when it is committed."""

    records: list[GroupRecord]
    pending: list[PendingCommit]
    answers: list[Answered]


class GroupCoordinator:
    """See above. Times: *now_ms* is monotonic, *wall_ms* the time of day for expiry alone."""

    def __init__(self, settings: GroupSettings, topics: TopicsView) -> None:
        self.settings = settings
        self.topics = topics
        """As the cluster has them now; the caller replaces it."""
        self.now_ms = 0
        self.wall_ms = 0
        self.groups: dict[str, ClassicGroup] = {}
        self.consumers = ConsumerGroups(self._kept, self._wake_consumers, self._turn_classic)
        self.offsets = OffsetsBook()
        self._rebalancing = Rebalancing(self)
        self._records: list[GroupRecord] = []
        self._pending: list[PendingCommit] = []
        self._answers: list[Answered] = []
        self._deadlines: list[tuple[int, str]] = []
        self._consumer_wakes: dict[str, int] = {}
        self._expiry_ms = 0

    # --- the fold ---

    def replay(self, found: GroupRecord) -> None:
        """Take in a record, in the order of the log."""
        match found:
            case OffsetRecord():
                self.offsets.replay(found)
            case GenerationRecord():
                if found.value is None:
                    self.groups.pop(found.group, None)
                else:
                    self.groups[found.group] = ClassicGroup.restored(found.group, found.value)
            case _:
                self.consumers.replay(found)

    def replay_pending(self, producer_id: int, found: OffsetRecord) -> None:
        """Take in a record whose transaction is open."""
        if found.value is not None:
            place = (found.topic, found.partition)
            self.offsets.stage(producer_id, found.group, place, found.value)

    def marker(self, producer_id: int, *, commits: bool) -> None:
        """Take in the marker that ends a transaction in this partition."""
        self.offsets.end(producer_id, commits=commits)

    def loaded(self, now_ms: int, wall_ms: int) -> None:
        """Begin to serve: the log is folded, and an entry of this leader's term committed."""
        self._at(now_ms, wall_ms)
        self._expiry_ms = now_ms + EXPIRY_CHECK_MS
        for group in self.groups.values():
            self._rebalancing.lives_again(group)
        self.consumers.loaded(now_ms)

    def live_records(self) -> Iterator[GroupRecord]:
        """Yield what a fresh log must say to give the same state."""
        for group in self.groups.values():
            if group.stored_value is not None:
                yield GenerationRecord(group.group, group.stored_value)
        yield from self.consumers.live_records()
        yield from self.offsets.live_records()

    # --- the border ---

    def handle(self, now_ms: int, wall_ms: int, token: int, request: Request) -> None:
        """Take a request; the answer is in this `take`, or in a later one."""
        self._at(now_ms, wall_ms)
        self.consumers.settings = self.settings.consumer
        match request:
            case Beat():
                name = request.identity.group
                if self._id_fault(name):
                    self.answer(token, Simple(ErrorCode.INVALID_GROUP_ID))
                elif not self._ask_consumers(token, name, request):
                    error = self._rebalancing.beat(self.groups.get(name), request.identity)
                    self.answer(token, Simple(error))
            case ConsumerBeat():
                self.answer(token, self._consumer_beat(request))
            case Commit():
                self._commit(token, request)
            case Join():
                self._join(token, request)
            case Sync():
                name = request.identity.group
                if self._id_fault(name):
                    self.answer(token, Synced(ErrorCode.INVALID_GROUP_ID))
                elif not self._ask_consumers(token, name, request):
                    self._rebalancing.sync(self.groups.get(name), token, request)
            case Leave():
                self._leave(token, request)
            case FetchOffsets():
                self.answer(token, self._fetched(request))
            case DeleteOffsets():
                self.answer(token, self._delete_offsets(request))
            case DeleteGroup():
                self.answer(token, Simple(self._delete(request.group)))
            case _:
                assert_never(request)

    def tick(self, now_ms: int, wall_ms: int) -> None:
        """Act on the deadlines that have come."""
        self._at(now_ms, wall_ms)
        deadlines = self._deadlines
        due: dict[str, None] = {}
        while deadlines and deadlines[0][0] <= now_ms:
            due[heapq.heappop(deadlines)[1]] = None
        for name in due:
            group = self.groups.get(name)
            if group is not None:
                self._look(group)
            else:
                self.consumers.look(now_ms, name, self.topics)
        if now_ms >= self._expiry_ms:
            self._expiry_ms = now_ms + EXPIRY_CHECK_MS
            self._expire()

    def _look(self, group: ClassicGroup) -> None:
        self._rebalancing.look(group)
        group.wake_ms = 0
        next_ms = self._rebalancing.next_ms(group)
        if next_ms is not None:
            self.wake(group, next_ms)
        elif group.stored_value is None:
            del self.groups[group.group]  # nobody came in the end

    @property
    def next_deadline_ms(self) -> int:
        """When `tick` is due."""
        if not self._deadlines:
            return self._expiry_ms
        return min(self._expiry_ms, self._deadlines[0][0])

    def take(self) -> Outcome:
        """Return what has gathered since the last time."""
        outcome = Outcome(self._records, self._pending, self._answers)
        self._records, self._pending, self._answers = [], [], []
        return outcome

    def _at(self, now_ms: int, wall_ms: int) -> None:
        assert now_ms >= self.now_ms, "the clock is monotonic"
        self.now_ms, self.wall_ms = now_ms, wall_ms

    # --- for rebalances (`Desk`) ---

    @property
    def initial_delay_ms(self) -> int:
        """How long the first member of an empty group waits for others."""
        return self.settings.initial_delay_ms

    def answer(self, token: int, answer: Answer) -> None:
        """Have a request answered."""
        self._answers.append(Answered(token, answer))

    def store(self, group: ClassicGroup) -> None:
        """Have a group's generation kept."""
        group.since_ms = self.wall_ms
        group.stored_value = group.stored()
        self._records.append(GenerationRecord(group.group, group.stored_value))

    def wake(self, group: ClassicGroup, at_ms: int) -> None:
        """Look at a group at a time; one entry per group and time is enough."""
        if group.wake_ms <= self.now_ms or at_ms < group.wake_ms:
            group.wake_ms = at_ms
            heapq.heappush(self._deadlines, (at_ms, group.group))

    def _wake_consumers(self, name: str, at_ms: int) -> None:
        """Look at a group of the new protocol; a look that comes too early does nothing."""
        known_ms = self._consumer_wakes.get(name, 0)
        if known_ms <= self.now_ms or at_ms < known_ms:
            self._consumer_wakes[name] = at_ms
            heapq.heappush(self._deadlines, (at_ms, name))

    def _kept(self, made: ConsumerGroupRecord) -> None:
        self._records.append(made)

    # --- requests ---

    def _consumer_beat(self, request: ConsumerBeat) -> ConsumerHeartbeatAnswer:
        """Take a heartbeat of the new protocol; who joins by it may make a classic group new."""
        name = request.group
        if self._id_fault(name):
            return ConsumerHeartbeatAnswer(ErrorCode.INVALID_REQUEST, "The group id is invalid.")
        classic = self.groups.get(name)
        if classic is not None:
            return self._upgrade(classic, request)
        if name not in self.consumers and len(self.consumers) >= GROUPS_MAX:
            text = "This coordinator has too many groups."
            return ConsumerHeartbeatAnswer(ErrorCode.COORDINATOR_NOT_AVAILABLE, text)
        return self.consumers.heartbeat(self.now_ms, name, request.beat, self.topics)

    def _upgrade(self, classic: ClassicGroup, request: ConsumerBeat) -> ConsumerHeartbeatAnswer:
        """Let a member join a classic group, which is of the new protocol then; or refuse it."""
        fault, made = None, []
        if request.beat.member_epoch != 0:
            fault = "is not a consumer group"
        elif classic.state is not State.EMPTY:
            fault = migration.upgrade_fault(classic, self.settings.consumer)
            found = fault or migration.upgraded(classic, self.topics)
            fault, made = (found, []) if isinstance(found, str) else (None, found)
        if fault is not None:
            text = f"Group {classic.group} {fault}."
            return ConsumerHeartbeatAnswer(ErrorCode.GROUP_ID_NOT_FOUND, text)
        answer, group = self.consumers.upgrade(self.now_ms, request, made, self.topics)
        if answer.error is ErrorCode.NONE:
            self._rebalancing.disband(classic)
            self._end(classic)
            self.consumers.adopt(made, group)
        return answer

    def _turn_classic(self, group: ConsumerGroup) -> None:
        """Make a classic group of one of the new protocol that has classic members only."""
        classic = migration.downgraded(group.state, self.topics)
        group.delete()
        for made in group.take_records():
            self._kept(made)
        self.groups[classic.group] = classic
        self.store(classic)
        self._rebalancing.lives_again(classic)

    def _ask_consumers(self, token: int, name: str, request: Classic) -> bool:
        """Have a group of the new protocol answer a classic member; False: it is none."""
        if name not in self.consumers:
            return False
        self.answer(token, self.consumers.ask(self.now_ms, name, request, self.topics))
        return True

    def _id_fault(self, group: str, *, may_be_empty: bool = False) -> bool:
        """Offsets alone may be kept under the empty name: old clients do (as in Kafka 4.3)."""
        return not (group or may_be_empty) or len(group.encode()) > GROUP_ID_BYTES_MAX

    def _join(self, token: int, join: Join) -> None:
        error = self._request_fault(join)
        consumers = self.consumers.get(join.group)
        has_members = consumers is not None and consumers.state.members
        if error is ErrorCode.NONE and has_members:
            yields = self.consumers.yield_place(join.group, join)
            if not yields and self._ask_consumers(token, join.group, join):
                return
        error = error or self._join_fault(join)
        if error is not ErrorCode.NONE:
            self.answer(token, Joined(error, join.member_id))
            return
        if join.group in self.consumers:
            self.consumers.delete(join.group)  # nobody is in it: it changes its kind
        group = self.groups.get(join.group)
        if group is None:
            group = ClassicGroup(join.group)
            names = {name for name, _data in join.protocols}
            if group.supports(join.protocol_type, names):
                self.groups[join.group] = group
        self._rebalancing.join(group, token, join)

    def _request_fault(self, join: Join) -> ErrorCode:
        settings = self.settings
        if self._id_fault(join.group):
            return ErrorCode.INVALID_GROUP_ID
        shortest, longest = settings.session_timeout_ms_min, settings.session_timeout_ms_max
        if not shortest <= join.session_timeout_ms <= longest:
            return ErrorCode.INVALID_SESSION_TIMEOUT  # [18]
        return ErrorCode.NONE

    def _join_fault(self, join: Join) -> ErrorCode:
        settings = self.settings
        group = self.groups.get(join.group)
        if group is None:
            if join.member_id:
                return ErrorCode.UNKNOWN_MEMBER_ID
            is_full = len(self.groups) >= GROUPS_MAX
            return ErrorCode.COORDINATOR_NOT_AVAILABLE if is_full else ErrorCode.NONE
        is_known = join.member_id in group.members or join.member_id in group.pending
        is_known = is_known or join.instance_id in group.instances
        if not is_known and len(group.members) + len(group.pending) >= settings.members_max:
            return ErrorCode.GROUP_MAX_SIZE_REACHED
        return ErrorCode.NONE

    def _leave(self, token: int, leave: Leave) -> None:
        if self._id_fault(leave.group):
            self.answer(token, Left(ErrorCode.INVALID_GROUP_ID))
            return
        if self._ask_consumers(token, leave.group, leave):
            return
        group = self.groups.get(leave.group)
        left = []
        for member_id, instance_id in leave.members:
            error = ErrorCode.UNKNOWN_MEMBER_ID
            if group is not None:
                error = self._rebalancing.leave(group, member_id, instance_id)
            left.append((member_id, instance_id, error))
        self.answer(token, Left(ErrorCode.NONE, tuple(left)))

    # --- offsets ---

    def _commit(self, token: int, commit: Commit) -> None:
        error = self._commit_fault(commit)
        errors = []
        known = self.offsets.of(commit.identity.group)
        room = OFFSETS_PER_GROUP_MAX - len(known)
        for place, offset in commit.offsets:
            fault = error
            if fault is ErrorCode.NONE:
                if len(offset.metadata.encode()) > self.settings.metadata_bytes_max:
                    fault = ErrorCode.OFFSET_METADATA_TOO_LARGE
                elif place not in known and room <= 0:
                    fault = ErrorCode.INVALID_COMMIT_OFFSET_SIZE
            errors.append(fault)
        for (place, offset), fault in zip(commit.offsets, errors, strict=True):
            if fault is ErrorCode.NONE:
                self._take_offset(commit, place, offset)
        self.answer(token, Committed(tuple(errors)))

    def _commit_fault(self, commit: Commit) -> ErrorCode:
        """Say whether who commits may (Kafka's validateOffsetCommit) [20]."""
        identity = commit.identity
        if self._id_fault(identity.group, may_be_empty=commit.producer is None):
            return ErrorCode.INVALID_GROUP_ID
        consumers = self.consumers.get(identity.group)
        if consumers is not None:
            return consumers.commit_fault(
                identity,
                in_transaction=commit.producer is not None,
                knows_epochs=commit.knows_epochs,
            )
        group = self.groups.get(identity.group)
        is_simple = identity.generation_id < 0 and not identity.member_id
        if group is None:
            if identity.generation_id >= 0:
                return ErrorCode.ILLEGAL_GENERATION
            return ErrorCode.NONE
        if identity.generation_id < 0 and group.state is State.EMPTY:
            return ErrorCode.NONE
        if is_simple and identity.instance_id is None:
            # Without any identity only a transaction may: V1 producers before KIP-447 do.
            is_allowed = commit.producer is not None or group.state is State.EMPTY
            return ErrorCode.NONE if is_allowed else ErrorCode.UNKNOWN_MEMBER_ID
        error = identity_fault(group, identity)
        if error is not ErrorCode.NONE:
            return error
        if identity.generation_id != group.generation_id:
            return ErrorCode.ILLEGAL_GENERATION
        if commit.producer is None:
            self._rebalancing.heard(group, identity.member_id)
            if group.state is State.COMPLETING:
                return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def _take_offset(self, commit: Commit, place: Place, offset: CommittedOffset) -> None:
        name = commit.identity.group
        if commit.producer is None:
            self._emit(OffsetRecord(name, *place, offset))
            return
        producer_id, epoch = commit.producer
        if not self._pending or self._pending[-1].producer_id != producer_id:
            self._pending.append(PendingCommit(producer_id, epoch))
        self._pending[-1].offsets.append((name, place, offset))
        self.offsets.stage(producer_id, name, place, offset)

    def _emit(self, made: GroupRecord) -> None:
        """Have a record kept, and act on it as a restart would (G1)."""
        self._records.append(made)
        self.replay(made)

    def _fetched(self, request: FetchOffsets) -> FetchedOffsets:
        """Answer with what is known; nothing committed is no error [19]."""
        if self._id_fault(request.group, may_be_empty=True):
            return FetchedOffsets(ErrorCode.INVALID_GROUP_ID)
        consumers = self.consumers.get(request.group)
        if consumers is not None:
            error = consumers.fetch_fault(request.member_id, request.member_epoch)
            if error is not ErrorCode.NONE:
                return FetchedOffsets(error)
        known = self.offsets.of(request.group)
        places = tuple(known) if request.places is None else request.places
        rows = []
        for place in places:
            is_open = request.require_stable and self.offsets.is_staged(request.group, place)
            error = ErrorCode.UNSTABLE_OFFSET_COMMIT if is_open else ErrorCode.NONE
            rows.append((place, None if is_open else known.get(place), error))
        return FetchedOffsets(ErrorCode.NONE, tuple(rows))

    def _delete_offsets(self, request: DeleteOffsets) -> DeletedOffsets:
        if self._id_fault(request.group):
            return DeletedOffsets(ErrorCode.INVALID_GROUP_ID)
        group = self.groups.get(request.group)
        consumers = self.consumers.get(request.group)
        known = {*self.offsets.places(request.group)}
        if group is None and consumers is None and not known:
            return DeletedOffsets(ErrorCode.GROUP_ID_NOT_FOUND)
        read: frozenset[str] = frozenset()
        if group is not None and group.state is not State.EMPTY:
            if group.protocol_type != subscribed.CONSUMER:
                return DeletedOffsets(ErrorCode.NON_EMPTY_GROUP)
            read = subscribed.topics_of(group)
        errors = []
        for topic, partition in request.places:
            if topic in read or (consumers is not None and consumers.is_subscribed_to(topic)):
                errors.append(ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC)
                continue
            if (topic, partition) in known:
                self._emit(OffsetRecord(request.group, topic, partition, None))
            errors.append(ErrorCode.NONE)
        return DeletedOffsets(ErrorCode.NONE, tuple(errors))

    # --- groups as a whole ---

    def _delete(self, name: str) -> ErrorCode:
        group = self.groups.get(name)
        if self._id_fault(name, may_be_empty=True):
            return ErrorCode.INVALID_GROUP_ID
        consumers = self.consumers.get(name)
        if group is None and consumers is None and name not in self.offsets:
            return ErrorCode.GROUP_ID_NOT_FOUND
        if consumers is not None and consumers.delete_fault() is not ErrorCode.NONE:
            return consumers.delete_fault()
        if group is not None and (group.state is not State.EMPTY or group.pending):
            return ErrorCode.NON_EMPTY_GROUP
        for made in self.offsets.tombstones(name):
            self._emit(made)
        if group is not None:
            self._end(group)
        if consumers is not None:
            self.consumers.delete(name)
        return ErrorCode.NONE

    def _end(self, group: ClassicGroup) -> None:
        if group.stored_value is not None:
            self._emit(GenerationRecord(group.group, None))
        self.groups.pop(group.group, None)

    def describe(self, name: str) -> Described:
        """Return what there is to see of a group."""
        group = self.groups.get(name)
        if self._id_fault(name, may_be_empty=True):
            return Described(name, ErrorCode.INVALID_GROUP_ID)
        if group is None:
            if name in self.offsets and name not in self.consumers:
                return Described(name, ErrorCode.NONE, State.EMPTY.value)
            return Described(name, ErrorCode.GROUP_ID_NOT_FOUND)
        is_stable = group.state is State.STABLE
        return Described(
            name,
            ErrorCode.NONE,
            group.state.value,
            group.protocol_type,
            (group.protocol or "") if is_stable else "",
            group.described(),
        )

    def listed(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield name, protocol type, state and kind of every group."""
        for group in self.groups.values():
            yield group.group, group.protocol_type, group.state.value, CLASSIC
        for name, state in self.consumers.listed():
            yield name, subscribed.CONSUMER, state, CONSUMER_TYPE
        for name in self.offsets.groups():
            if name not in self.groups and name not in self.consumers:
                yield name, "", State.EMPTY.value, CLASSIC

    def topics_deleted(self, names: set[str]) -> None:
        """Forget what was committed of topics that are no more."""
        gone = [
            OffsetRecord(group, *place, None)
            for group in self.offsets.groups()
            for place in self.offsets.places(group)
            if place[0] in names
        ]
        for made in gone:
            self._emit(made)

    def _expire(self) -> None:
        """Forget the offsets of groups that have been empty for long, and the groups [20]."""
        before_ms = self.wall_ms - self.settings.offsets_retention_ms
        for name in [*self.offsets.groups()]:
            group = self.groups.get(name)
            consumers = self.consumers.get(name)
            if consumers is not None and consumers.delete_fault() is not ErrorCode.NONE:
                continue
            if group is not None:
                if group.state is not State.EMPTY or group.pending:
                    continue
                if group.protocol_type and group.since_ms > before_ms:
                    continue
            for made in self.offsets.expired(name, before_ms):
                self._emit(made)
        for group in [*self.groups.values()]:
            is_over = group.state is State.EMPTY and not group.pending
            is_bare = group.group not in self.offsets
            if is_over and is_bare and group.since_ms <= before_ms:
                self._end(group)
