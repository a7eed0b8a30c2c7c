"""What a group of the new protocol answers its members of the classic one (KIP-848, "Migration").

A classic member is a member as all others: its member epoch is its generation, its JoinGroup says
what a heartbeat says (topics, and what it still owns), and is answered at once; its SyncGroup is
answered with what it has. It never leads. When it is to give back or may get more, its heartbeat
says REBALANCE_IN_PROGRESS, and it joins again: eagerly, having given back all, or cooperatively,
with what it was not asked for. After Kafka 4.x (`classicGroup*ToConsumerGroup`).

Invariants: those of `consumer_group.py`; and
M1. Who was told to join again has its rebalance timeout to do so, and then again to ask what it is
    to read; its session goes on, as long as it asked for. Whichever is over ends the membership.
"""

from corelane.groups.consumer_group import ConsumerGroup
from corelane.groups.consumer_protocol import (
    Subscription,
    read_subscription,
    write_assignment,
)
from corelane.groups.consumer_records import (
    CONSUMER_TYPE,
    NOTHING,
    ClassicMember,
    CurrentAssignment,
    MemberState,
    MemberSubscription,
    Partitions,
)
from corelane.groups.consumer_requests import ID_CHARACTERS_MAX
from corelane.groups.consumer_timers import Timer
from corelane.groups.records import Place
from corelane.groups.requests import Identity, Join, Joined, Leave, Left, Sync, Synced
from corelane.groups.subscriptions import TopicsView
from corelane.model.errors import ErrorCode

Found = tuple[str, ClassicMember, CurrentAssignment]


def joining_fault(group: ConsumerGroup, join: Join) -> ErrorCode:
    """Judge who joins before anything is asked of its id."""
    names = {name for name, _data in join.protocols}
    takes_place = not join.member_id and join.instance_id in group.state.statics
    member_id = join.member_id or join.proposed_member_id
    if not takes_place and group.size_fault(member_id) is not None:
        return ErrorCode.GROUP_MAX_SIZE_REACHED
    if not group.state.supports(join.protocol_type, names):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if read_subscription(join.protocols[0][1]) is None:
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    return ErrorCode.NONE


def join(group: ConsumerGroup, now_ms: int, asked: Join, topics: TopicsView) -> Joined:
    """Take a JoinGroup: at once, for there is nobody to wait for."""
    fault = joining_fault(group, asked)
    if fault is not ErrorCode.NONE:
        return Joined(fault, asked.member_id)
    member_id = asked.member_id or asked.proposed_member_id
    if not asked.member_id and asked.instance_id is None and asked.needs_known_member:
        return Joined(ErrorCode.MEMBER_ID_REQUIRED, member_id)
    state = group.state
    holder = None if asked.instance_id is None else state.statics.get(asked.instance_id)
    fault = _id_fault(asked, holder)
    if fault is not ErrorCode.NONE:
        return Joined(fault, asked.member_id)
    replaced = holder if holder != member_id else None
    before = state.members.get(replaced or member_id)
    said = read_subscription(asked.protocols[0][1])
    assert said is not None, "judged above"
    after = subscription_of(asked, said, before)
    group.subscribe(member_id, after, replaced)
    bump = before is None or _wants(before) != _wants(after)
    group.take_aim(now_ms, topics, bump=bump)
    group.reconcile(now_ms, member_id, partitions_of(said.owned, topics))
    group.timers.disarm(Timer.REBALANCE, member_id)
    group.timers.disarm(Timer.JOIN, member_id)
    group.timers.arm(Timer.SYNC, member_id, now_ms + after.rebalance_timeout_ms)
    group.heard(now_ms, member_id)
    epoch = state.current(member_id).member_epoch
    return Joined(ErrorCode.NONE, member_id, epoch, CONSUMER_TYPE, asked.protocols[0][0])


def _id_fault(asked: Join, holder: str | None) -> ErrorCode:
    """Judge the id of who joins; one without an instance may bring any, as in Kafka."""
    if len(asked.member_id) > ID_CHARACTERS_MAX:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if asked.instance_id is None or not asked.member_id:
        return ErrorCode.NONE
    if holder is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    return ErrorCode.NONE if holder == asked.member_id else ErrorCode.FENCED_INSTANCE_ID


def subscription_of(
    asked: Join, said: Subscription, before: MemberSubscription | None
) -> MemberSubscription:
    """Return what is kept of a classic member."""
    return MemberSubscription(
        instance_id=asked.instance_id or (None if before is None else before.instance_id),
        rack_id=said.rack_id or (None if before is None else before.rack_id),
        client_id=asked.client_id,
        client_host=asked.client_host,
        topic_names=tuple(sorted(set(said.topics))),
        topic_regex=None,
        rebalance_timeout_ms=asked.rebalance_timeout_ms,
        server_assignor=None if before is None else before.server_assignor,
        classic=ClassicMember(asked.session_timeout_ms, asked.protocols),
    )


def stand_in(group: ConsumerGroup, member_id: str, asked: Join) -> None:
    """Make a classic member of one whose instance joins with that protocol; judged before."""
    said = read_subscription(asked.protocols[0][1])
    assert said is not None
    before = group.state.members[member_id]
    group.subscribe(member_id, subscription_of(asked, said, before), None)


def _wants(subscription: MemberSubscription) -> tuple[tuple[str, ...], str | None]:
    return subscription.topic_names, subscription.topic_regex


def partitions_of(places: tuple[Place, ...], topics: TopicsView) -> Partitions:
    """Return places of topics that exist by the ids of those."""
    found = [(topics.topic_id(name), number) for name, number in places]
    return frozenset((topic_id, number) for topic_id, number in found if topic_id is not None)


def sync(group: ConsumerGroup, now_ms: int, asked: Sync, topics: TopicsView) -> Synced:
    """Tell a member what it has; who has newer things to hear of is to join again."""
    found = _member(group, asked.identity)
    if isinstance(found, ErrorCode):
        return Synced(found)
    member_id, classic, current = found
    protocol, metadata = classic.protocols[0]
    if asked.protocol_type not in {None, CONSUMER_TYPE} or asked.protocol not in {None, protocol}:
        return Synced(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    is_revoking = current.state is MemberState.UNREVOKED_PARTITIONS
    if group.state.epoch > current.member_epoch and not is_revoking:
        return Synced(_join_again(group, now_ms, member_id))
    group.timers.disarm(Timer.SYNC, member_id)
    group.heard(now_ms, member_id)
    said = read_subscription(metadata)
    assert said is not None, "nobody joins without"
    places = named(current.assigned, topics)
    assignment = write_assignment(places, said.version)
    return Synced(ErrorCode.NONE, asked.protocol_type, asked.protocol, assignment)


def named(partitions: Partitions, topics: TopicsView) -> list[Place]:
    """Return partitions by the names of their topics, without topics that are gone."""
    found = [(topics.topic_name(topic_id), number) for topic_id, number in partitions]
    return [(name, number) for name, number in found if name is not None]


def beat(group: ConsumerGroup, now_ms: int, identity: Identity, topics: TopicsView) -> ErrorCode:
    """Take a Heartbeat, and tell a member to join again if there is something for it."""
    found = _member(group, identity)
    if isinstance(found, ErrorCode):
        return found
    member_id, _classic, current = found
    group.heard(now_ms, member_id)
    # No classic member leads here, so none looks whether its topics have changed.
    group.see_topics(now_ms, topics, bump=False)
    if current.member_epoch < group.state.epoch:
        return _join_again(group, now_ms, member_id)
    if current.state is MemberState.UNREVOKED_PARTITIONS:
        return _join_again(group, now_ms, member_id)
    if current.state is MemberState.UNRELEASED_PARTITIONS and _all_free(group, member_id):
        return _join_again(group, now_ms, member_id)
    return ErrorCode.NONE


def _all_free(group: ConsumerGroup, member_id: str) -> bool:
    """Whether nobody has any of what a member waits for: it would not get all by joining else."""
    owners = group.state.owners
    target = group.state.targets.get(member_id, NOTHING)
    return all(owners.get(partition, member_id) == member_id for partition in target)


def _join_again(group: ConsumerGroup, now_ms: int, member_id: str) -> ErrorCode:
    timeout_ms = group.state.members[member_id].rebalance_timeout_ms
    group.timers.arm_once(Timer.JOIN, member_id, now_ms + timeout_ms)
    return ErrorCode.REBALANCE_IN_PROGRESS


def leave(group: ConsumerGroup, now_ms: int, asked: Leave, topics: TopicsView) -> Left:
    """Let classic members go, by their ids or by their instances."""
    rows, gone = [], []
    for member_id, instance_id in asked.members:
        found = _leaving(group, member_id, instance_id)
        if isinstance(found, ErrorCode):
            rows.append((member_id, instance_id, found))
            continue
        rows.append((found, instance_id, ErrorCode.NONE))
        group.remove(found)
        gone.append(found)
    if gone:
        group.see_topics(now_ms, topics, bump=True)
    return Left(ErrorCode.NONE, tuple(rows))


def _leaving(group: ConsumerGroup, member_id: str, instance_id: str | None) -> str | ErrorCode:
    state = group.state
    if instance_id is not None:
        holder = state.statics.get(instance_id)
        if holder is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if member_id not in {"", holder}:
            return ErrorCode.FENCED_INSTANCE_ID
        member_id = holder
    found = state.members.get(member_id)
    if found is None or found.classic is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    return member_id


def _member(group: ConsumerGroup, identity: Identity) -> Found | ErrorCode:
    """Return the classic member that asks, or why it is none, or not of this generation."""
    state, member_id = group.state, identity.member_id
    if identity.instance_id is not None:
        holder = state.statics.get(identity.instance_id)
        if holder is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if holder != member_id:
            return ErrorCode.FENCED_INSTANCE_ID
    found = state.members.get(member_id)
    if found is None or found.classic is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    current = state.current(member_id)
    if identity.generation_id != current.member_epoch:
        return ErrorCode.ILLEGAL_GENERATION
    return member_id, found.classic, current
