"""A consumer group of the new protocol: members say how they are, the group says what they have.

After KIP-848 and Kafka 4.x. Every change of who is in the group, of a subscription or of the topics
is a new group epoch; at the next heartbeat a target assignment is made for that epoch; each member
then goes to it by itself, one heartbeat at a time, while the others go on consuming.

Invariants:
G1. `state` changes by `_emit` only, which records what it folds: the log gives the same state.
G2. A request that is refused changes nothing and leaves no record.
G3. The records of one call are one atomic batch, and answers leave when it is committed.
G4. Timers, compiled patterns and what was seen of the topics are volatile. After a failover every
    member has a whole session again (`loaded`), and the topics are compared by hash.
G5. The group epoch never goes back while the group exists; target epoch <= group epoch; a member's
    epoch is at most the target epoch.

Offsets are not here. Members of the classic protocol are members as all others; what they ask and
are told is `consumer_classic.py`. When only such are left the group is to become a classic one
(`turns_classic`, `migration.py`).
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator

from corelane.groups import consumer_describe as describing
from corelane.groups.assignors import ASSIGNORS
from corelane.groups.assignors_spec import MemberSpec
from corelane.groups.consumer_reconcile import Goal, next_assignment
from corelane.groups.consumer_records import (
    LEAVE_STATIC_EPOCH,
    NOTHING,
    ConsumerGroupCurrentMember,
    ConsumerGroupMember,
    ConsumerGroupMetadata,
    ConsumerGroupRecord,
    ConsumerGroupRegularExpression,
    ConsumerGroupTargetMember,
    ConsumerGroupTargetMetadata,
    CurrentAssignment,
    GroupEpoch,
    MemberState,
    MemberSubscription,
    Partition,
    Partitions,
    ResolvedRegex,
)
from corelane.groups.consumer_requests import (
    NO_TIMEOUT,
    REGEXES_MAX,
    ConsumerGroupDescription,
    ConsumerGroupSettings,
    ConsumerHeartbeat,
    ConsumerHeartbeatAnswer,
    Refusal,
    is_leaving,
    request_fault,
)
from corelane.groups.consumer_state import JOINING, ConsumerState
from corelane.groups.consumer_timers import Timer, Timers
from corelane.groups.requests import Identity
from corelane.groups.subscriptions import Patterns, TopicsView, metadata_hash
from corelane.model.errors import ErrorCode
from corelane.model.ids import TopicId


class ConsumerGroup:
    """One group, while its coordinator leads."""

    __slots__ = (
        "_patterns",
        "_records",
        "_regexes_revision",
        "_regexes_seen_ms",
        "_topics_revision",
        "settings",
        "state",
        "timers",
        "turns_classic",
    )

    def __init__(self, group_id: str, settings: ConsumerGroupSettings) -> None:
        assert settings.assignors
        self.state = ConsumerState(group_id)
        self.settings = settings
        self._records: list[ConsumerGroupRecord] = []
        self.timers = Timers()
        self.turns_classic = False
        """The last member of the new protocol is gone: the caller makes a classic group of it."""
        self._patterns = Patterns()
        self._topics_revision: int | None = None
        self._regexes_revision: int | None = None
        self._regexes_seen_ms = 0

    # The log.

    def replay(self, record: ConsumerGroupRecord) -> None:
        """Fold one record of the log."""
        self.state.apply(record)

    def emit(self, record: ConsumerGroupRecord) -> None:
        """Have a record kept, and act on it (G1)."""
        self.state.apply(record)
        self._records.append(record)

    def take_records(self) -> list[ConsumerGroupRecord]:
        """Return what the log must be told, in order, and forget it."""
        records, self._records = self._records, []
        return records

    def live_records(self) -> Iterator[ConsumerGroupRecord]:
        """Yield everything a fresh log must say."""
        return self.state.live_records()

    def loaded(self, now_ms: int) -> None:
        """Start the clocks: the log is folded, and this is the leader."""
        for member_id, subscription in self.state.members.items():
            self.heard(now_ms, member_id)
            is_revoking = self.state.current(member_id).state is MemberState.UNREVOKED_PARTITIONS
            if is_revoking and subscription.classic is None:
                self._arm_rebalance(now_ms, member_id)

    def heard(self, now_ms: int, member_id: str) -> None:
        """Give a member another session: its own, if it is a classic one."""
        classic = self.state.members[member_id].classic
        own_ms = self.settings.session_timeout_ms if classic is None else classic.session_timeout_ms
        self.timers.arm(Timer.SESSION, member_id, now_ms + own_ms)

    # What members say.

    def heartbeat(
        self, now_ms: int, request: ConsumerHeartbeat, topics: TopicsView
    ) -> ConsumerHeartbeatAnswer:
        """Take a member's word and say what it has; an error changes nothing."""
        refusal = request_fault(request, self.settings) or self._group_fault(request)
        if refusal is None and is_leaving(request):
            return self._leave(now_ms, request, topics)
        member_id = request.member_id or request.proposed_member_id
        refusal = refusal or self._member_fault(member_id, request)
        if refusal is not None:
            return ConsumerHeartbeatAnswer(refusal.error, refusal.message)
        replaced = self._replaced_by(member_id, request)
        # Who comes back into another's place leaves its own, if it had one.
        moves = replaced is not None and member_id in self.state.members
        before = self.state.members.get(replaced or member_id)
        subscription = _updated(before, request)
        refusal = self._regex_fault(before, subscription)
        if refusal is not None:
            return ConsumerHeartbeatAnswer(refusal.error, refusal.message)
        self.subscribe(member_id, subscription, replaced)
        self.timers.disarm(Timer.JOIN, member_id)
        self.timers.disarm(Timer.SYNC, member_id)
        bump = before is None or moves or _is_other_input(before, subscription)
        self.take_aim(now_ms, topics, bump=bump)
        assigned = self.state.current(member_id).assigned
        self.reconcile(now_ms, member_id, request.owned)
        self.heard(now_ms, member_id)
        current = self.state.current(member_id)
        tells = request.is_full or current.assigned != assigned
        return ConsumerHeartbeatAnswer(
            ErrorCode.NONE,
            None,
            member_id,
            current.member_epoch,
            self.settings.heartbeat_interval_ms,
            current.assigned if tells else None,
        )

    def subscribe(
        self, member_id: str, subscription: MemberSubscription, replaced: str | None
    ) -> None:
        """Keep what a member said of itself, who may come into another's place."""
        if replaced is not None:
            self._replace(replaced, member_id, subscription)
        elif subscription != self.state.members.get(member_id):
            self.emit(ConsumerGroupMember(self.state.group_id, member_id, subscription))

    def take_aim(self, now_ms: int, topics: TopicsView, *, bump: bool) -> None:
        """Look whether the input of the assignment is another, and make the target of it."""
        self.see_topics(now_ms, topics, bump=bump)
        if self.state.epoch > self.state.assignment_epoch:
            self._assign(topics)

    def _group_fault(self, request: ConsumerHeartbeat) -> Refusal | None:
        if request.member_epoch != 0 and not self.state.exists:
            return Refusal(ErrorCode.GROUP_ID_NOT_FOUND, "there is no such consumer group")
        return None

    def _member_fault(self, member_id: str, request: ConsumerHeartbeat) -> Refusal | None:
        """Return why this is not a member, cannot become one, or is not who it says."""
        state = self.state
        holder = None if request.instance_id is None else state.statics.get(request.instance_id)
        if request.member_epoch == 0:
            return self._join_fault(member_id, holder)
        if request.instance_id is not None:
            if holder is None:
                return Refusal(ErrorCode.UNKNOWN_MEMBER_ID, "the instance id is not in the group")
            if holder != member_id:
                return Refusal(
                    ErrorCode.FENCED_INSTANCE_ID, f"the instance id is now that of {holder}"
                )
        if member_id not in state.members:
            return Refusal(ErrorCode.UNKNOWN_MEMBER_ID, "the member is not in the group")
        return _epoch_fault(state.current(member_id), request)

    def _join_fault(self, member_id: str, holder: str | None) -> Refusal | None:
        """Judge epoch 0. A member that is there may come again with it: it was fenced, or did not
        get the answer (KAFKA-19233).
        """
        state = self.state
        if holder is not None and holder != member_id:
            has_left = state.current(holder).member_epoch == LEAVE_STATIC_EPOCH
            if not has_left and state.members[holder].classic is None:
                return Refusal(
                    ErrorCode.UNRELEASED_INSTANCE_ID, f"{holder} has the instance id and is there"
                )
            return None  # takes the place of another: the group does not grow
        return self.size_fault(member_id)

    def size_fault(self, member_id: str) -> Refusal | None:
        """Refuse who would be one member too many."""
        if member_id in self.state.members or len(self.state.members) < self.settings.size_max:
            return None
        return Refusal(
            ErrorCode.GROUP_MAX_SIZE_REACHED, f"the group has its {self.settings.size_max} members"
        )

    def _replaced_by(self, member_id: str, request: ConsumerHeartbeat) -> str | None:
        """Return the static member whose place this one takes."""
        if request.member_epoch != 0 or request.instance_id is None:
            return None
        holder = self.state.statics.get(request.instance_id)
        return holder if holder != member_id else None

    def _regex_fault(
        self, before: MemberSubscription | None, after: MemberSubscription
    ) -> Refusal | None:
        regex = after.topic_regex
        if regex is None or (before is not None and before.topic_regex == regex):
            return None
        in_use = self.state.regex_counts
        if regex not in in_use and len(in_use) >= REGEXES_MAX:
            return Refusal(
                ErrorCode.INVALID_REGULAR_EXPRESSION,
                f"the group has {REGEXES_MAX} different patterns already",
            )
        sentence = self._patterns.fault(regex)
        if sentence is None:
            return None
        self._patterns.keep(in_use)
        return Refusal(ErrorCode.INVALID_REGULAR_EXPRESSION, f"the pattern is refused: {sentence}")

    def _replace(self, old_id: str, new_id: str, subscription: MemberSubscription) -> None:
        """Put a static member that came back under a new id in its own old place (KIP-345).

        It owns nothing now, so what it had is free; the target is still its own, and no new epoch.
        """
        group_id = self.state.group_id
        target = self.state.targets.get(old_id, NOTHING)
        self.remove(old_id)
        if new_id in self.state.members:
            self.remove(new_id)
        self.emit(ConsumerGroupMember(group_id, new_id, subscription))
        self.emit(ConsumerGroupTargetMember(group_id, new_id, target))

    def _leave(
        self, now_ms: int, request: ConsumerHeartbeat, topics: TopicsView
    ) -> ConsumerHeartbeatAnswer:
        state = self.state
        member_id = request.member_id
        if request.instance_id is not None:
            holder = state.statics.get(request.instance_id)
            if holder is not None and holder != member_id:
                return ConsumerHeartbeatAnswer(
                    ErrorCode.FENCED_INSTANCE_ID, f"the instance id is now that of {holder}"
                )
            if holder is None:
                member_id = ""
        if member_id not in state.members:
            return ConsumerHeartbeatAnswer(
                ErrorCode.UNKNOWN_MEMBER_ID, "the member is not in the group"
            )
        if request.member_epoch == LEAVE_STATIC_EPOCH:
            # It keeps its place, and its session runs on: so long it may stay away.
            left = dataclasses.replace(
                state.current(member_id),
                member_epoch=LEAVE_STATIC_EPOCH,
                state=MemberState.STABLE,
                revoking=NOTHING,
            )
            self.emit(ConsumerGroupCurrentMember(state.group_id, member_id, left))
            self.timers.disarm(Timer.REBALANCE, member_id)
        else:
            self._let_go(now_ms, [member_id], topics)
        return ConsumerHeartbeatAnswer(
            ErrorCode.NONE, None, request.member_id, request.member_epoch
        )

    def _let_go(self, now_ms: int, member_ids: Iterable[str], topics: TopicsView) -> None:
        """Go on without members: with another epoch, or as a classic group.

        That has the epoch as its generation, so that who is at it hears of the rebalance by its
        next heartbeat and can give back in peace; therefore it is not raised then.
        """
        state = self.state
        lost_new = False
        for member_id in member_ids:
            lost_new = lost_new or state.members[member_id].classic is None
            self.remove(member_id)
        if lost_new and 0 < len(state.members) == state.classic_count and self.may_turn_classic:
            self.turns_classic = True
        else:
            self.see_topics(now_ms, topics, bump=True)

    @property
    def may_turn_classic(self) -> bool:
        """Whether it may become a classic group, once it has classic members only."""
        is_small = len(self.state.members) <= self.settings.classic_size_max
        return is_small and self.settings.migration.may_downgrade

    def remove(self, member_id: str) -> None:
        """Take back all that is said of a member."""
        group_id = self.state.group_id
        self.emit(ConsumerGroupCurrentMember(group_id, member_id, None))
        self.emit(ConsumerGroupTargetMember(group_id, member_id, None))
        self.emit(ConsumerGroupMember(group_id, member_id, None))
        self.timers.drop(member_id)

    # Time.

    @property
    def next_deadline_ms(self) -> int | None:
        """When `tick` may have something to do."""
        return self.timers.next_deadline_ms

    def tick(self, now_ms: int, topics: TopicsView) -> None:
        """Throw out who was not heard of for a session, or did not give back in its time."""
        due = dict.fromkeys(member_id for _, member_id in self.timers.due(now_ms))
        gone = [member_id for member_id in due if member_id in self.state.members]
        if gone:
            self._let_go(now_ms, gone, topics)

    # Topics.

    def topics_changed(self, now_ms: int, topics: TopicsView) -> bool:
        """Compare the topics with what they were; another hash is another group epoch.

        Heartbeats do it by themselves; this is for who wants it sooner.
        """
        epoch = self.state.epoch
        if self.state.exists:
            self.see_topics(now_ms, topics, bump=False)
        return self.state.epoch != epoch

    def see_topics(self, now_ms: int, topics: TopicsView, *, bump: bool) -> None:
        """Raise the epoch if *bump*, or if the topics of the group are others than they were."""
        if not bump and topics.revision == self._topics_revision:
            if topics.revision == self._regexes_revision or not self.state.regex_counts:
                return
            if now_ms - self._regexes_seen_ms < self.settings.regex_refresh_interval_ms:
                return
        self._resolve_regexes(now_ms, topics)
        self._topics_revision = topics.revision
        state = self.state
        seen = metadata_hash(state.all_names(), topics)
        if bump or seen != state.metadata_hash:
            self.emit(ConsumerGroupMetadata(state.group_id, GroupEpoch(state.epoch + 1, seen)))

    def _resolve_regexes(self, now_ms: int, topics: TopicsView) -> None:
        """Look new patterns up at once, the others not more often than the interval allows."""
        state = self.state
        for regex in [regex for regex in state.regexes if regex not in state.regex_counts]:
            self.emit(ConsumerGroupRegularExpression(state.group_id, regex, None))
        self._patterns.keep(state.regex_counts)
        is_due = self._regexes_revision is None or (
            self._regexes_revision != topics.revision
            and now_ms - self._regexes_seen_ms >= self.settings.regex_refresh_interval_ms
        )
        for regex in list(state.regex_counts):
            before = state.regexes.get(regex)
            if before is not None and not is_due:
                continue
            found = self._patterns.match(regex, before, topics.names())
            if before is None or found != before.topic_names:
                resolved = ResolvedRegex(found, topics.revision, now_ms)
                self.emit(ConsumerGroupRegularExpression(state.group_id, regex, resolved))
        if is_due:
            self._regexes_revision = topics.revision
            self._regexes_seen_ms = now_ms

    # Assigning.

    @property
    def assignor_name(self) -> str:
        """The assignor that most members ask for; the first of the settings if none does."""
        votes = Counter(
            subscription.server_assignor
            for subscription in self.state.members.values()
            if subscription.server_assignor in self.settings.assignors
        )
        return max(self.settings.assignors, key=lambda name: votes[name])

    def _assign(self, topics: TopicsView) -> None:
        """Make the target assignment of the group's epoch, and record what is new of it."""
        state = self.state
        specs, counts = self._specs(topics)
        targets = ASSIGNORS[self.assignor_name](specs, counts)
        assert targets.keys() == state.members.keys()
        for member_id, target in targets.items():
            if state.targets.get(member_id) != target:
                self.emit(ConsumerGroupTargetMember(state.group_id, member_id, target))
        self.emit(ConsumerGroupTargetMetadata(state.group_id, state.epoch))

    def _specs(self, topics: TopicsView) -> tuple[list[MemberSpec], dict[TopicId, int]]:
        state = self.state
        # Members with equal subscriptions share one set, so that comparing them costs nothing.
        known: dict[tuple[tuple[str, ...], str | None], frozenset[TopicId]] = {}
        specs = []
        for member_id, subscription in state.members.items():
            key = subscription.topic_names, subscription.topic_regex
            found = known.get(key)
            if found is None:
                ids = map(topics.topic_id, state.subscribed_names(member_id))
                found = known[key] = frozenset(topic for topic in ids if topic is not None)
            had = state.targets.get(member_id, NOTHING)
            specs.append(MemberSpec(member_id, subscription.instance_id, found, had))
        counts = {
            topic_id: topics.partition_count(topic_id)
            for topic_id in frozenset().union(*known.values())
        }
        return specs, counts

    def reconcile(self, now_ms: int, member_id: str, owned: Partitions | None) -> None:
        """Take a member, which says that it has *owned*, a step towards its target."""
        state = self.state
        target = state.targets.get(member_id, NOTHING)
        goal = Goal(state.assignment_epoch, target, owned)

        def held_by_another(partition: Partition) -> bool:
            return state.owners.get(partition, member_id) != member_id

        before = state.currents.get(member_id)
        after = next_assignment(before or JOINING, goal, held_by_another)
        if after == before:
            return
        self.emit(ConsumerGroupCurrentMember(state.group_id, member_id, after))
        if state.members[member_id].classic is not None:
            return  # it has the deadlines of joining and asking instead
        if after.state is MemberState.UNREVOKED_PARTITIONS:
            self._arm_rebalance(now_ms, member_id)
        else:
            self.timers.disarm(Timer.REBALANCE, member_id)

    def _arm_rebalance(self, now_ms: int, member_id: str) -> None:
        timeout_ms = self.state.members[member_id].rebalance_timeout_ms
        self.timers.arm(Timer.REBALANCE, member_id, now_ms + timeout_ms)

    # What others ask.

    def commit_fault(
        self, who: Identity, *, in_transaction: bool = False, knows_epochs: bool = True
    ) -> ErrorCode:
        """Judge who commits offsets; OffsetCommit knows member epochs from version 9 on."""
        member_id, instance_id, member_epoch = who.member_id, who.instance_id, who.generation_id
        if member_epoch < 0 and not self.state.members:
            return ErrorCode.NONE  # a tool, or a consumer without a group, at an empty group
        if in_transaction and member_epoch < 0 and not member_id and instance_id is None:
            return ErrorCode.NONE  # producers before KIP-447 say nothing of the group
        if instance_id is not None:
            holder = self.state.statics.get(instance_id)
            if holder is not None and holder != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        found = self.state.members.get(member_id)
        if found is not None and found.classic is None and not (in_transaction or knows_epochs):
            return ErrorCode.UNSUPPORTED_VERSION
        return self._who_fault(member_id, member_epoch)

    def fetch_fault(self, member_id: str | None, member_epoch: int) -> ErrorCode:
        """Judge who asks for offsets (OffsetFetch from version 9)."""
        if member_id is None and member_epoch < 0:
            return ErrorCode.NONE
        return self._who_fault(member_id or "", member_epoch)

    def _who_fault(self, member_id: str, member_epoch: int) -> ErrorCode:
        found = self.state.members.get(member_id)
        if found is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if member_epoch != self.state.current(member_id).member_epoch:
            is_new = found.classic is None
            return ErrorCode.STALE_MEMBER_EPOCH if is_new else ErrorCode.ILLEGAL_GENERATION
        return ErrorCode.NONE

    def is_subscribed_to(self, topic_name: str) -> bool:
        """Whether OffsetDelete must leave this topic's offsets alone."""
        return self.state.is_subscribed_to(topic_name)

    @property
    def state_name(self) -> str:
        """The state as ListGroups and ConsumerGroupDescribe have it."""
        return describing.state_name(self.state)

    def describe(self, topics: TopicsView) -> ConsumerGroupDescription:
        """Return what ConsumerGroupDescribe says; topics that are gone are left out."""
        return describing.describe(self.state, self.assignor_name, topics)

    def delete_fault(self) -> ErrorCode:
        """Judge DeleteGroups, and whether the group may become a classic one."""
        if not self.state.exists:
            return ErrorCode.GROUP_ID_NOT_FOUND
        return ErrorCode.NON_EMPTY_GROUP if self.state.members else ErrorCode.NONE

    def delete(self) -> None:
        """Take everything back that the log says of a group."""
        state = self.state
        for member_id in [*state.members]:
            self.remove(member_id)
        for regex in list(state.regexes):
            self.emit(ConsumerGroupRegularExpression(state.group_id, regex, None))
        if state.assignment_epoch:
            self.emit(ConsumerGroupTargetMetadata(state.group_id, None))
        if state.exists:
            self.emit(ConsumerGroupMetadata(state.group_id, None))


def _epoch_fault(current: CurrentAssignment, request: ConsumerHeartbeat) -> Refusal | None:
    """Judge the epoch of a member that is there; see `CurrentAssignment.previous_epoch`."""
    epoch = request.member_epoch
    if current.state is MemberState.UNKNOWN and request.owned != NOTHING:
        return Refusal(ErrorCode.FENCED_MEMBER_EPOCH, "the member must give up all and rejoin")
    if epoch == current.member_epoch:
        return None
    if epoch == current.previous_epoch < current.member_epoch:
        owned = request.owned
        if owned is not None and owned <= current.assigned:
            return None
    return Refusal(
        ErrorCode.FENCED_MEMBER_EPOCH,
        f"the member says epoch {epoch}, the group {current.member_epoch};"
        " it must give up its partitions and rejoin",
    )


def _updated(before: MemberSubscription | None, request: ConsumerHeartbeat) -> MemberSubscription:
    """Return the subscription with what the request says anew."""
    old = before or MemberSubscription(None, None, "", "", (), None, NO_TIMEOUT, None)
    names = request.topic_names
    # A member that joins with this protocol speaks the classic one no more: `classic` is None.
    regex = old.topic_regex if request.topic_regex is None else request.topic_regex or None
    timeout_ms = request.rebalance_timeout_ms
    return MemberSubscription(
        instance_id=request.instance_id or old.instance_id,
        rack_id=request.rack_id or old.rack_id,
        client_id=request.client_id,
        client_host=request.client_host,
        topic_names=old.topic_names if names is None else tuple(sorted(set(names))),
        topic_regex=regex,
        rebalance_timeout_ms=old.rebalance_timeout_ms if timeout_ms == NO_TIMEOUT else timeout_ms,
        server_assignor=request.server_assignor or old.server_assignor,
    )


def _is_other_input(before: MemberSubscription, after: MemberSubscription) -> bool:
    """Whether the assignor would be given something else."""
    return (
        before.topic_names != after.topic_names
        or before.topic_regex != after.topic_regex
        or before.server_assignor != after.server_assignor
    )
