"""Makes a group of the new protocol of a classic one while members are in it, and back (KIP-848).

Upwards, members keep what they were given and their generation becomes their epoch: they hear of
the new member by their next heartbeat, which the group answers from then on. Downwards, the epoch
becomes the generation, and members are to join again, keeping what they have until they do.
After Kafka 4.x (`ConsumerGroup.fromClassicGroup`, `ClassicGroup.fromConsumerGroup`).

Invariants:
U1. Upwards, what a member may still read is with it: nobody else gets it before it has joined
    again. Kafka counts only what the last generation gave, so that what a cooperative member has
    yet to give back would be given to another at once.
U2. Downwards, a group has no leader in the log: whoever serves it next begins the rebalance anew.
    The assignment in the log is what members have. Kafka's is what they were to have, which nobody
    is ever told: should the group go up again before they have joined, U1 needs the former.
"""

from collections.abc import Iterator
from typing import Final

from corelane.groups import consumer_classic
from corelane.groups.classic_group import ClassicGroup, Member, State
from corelane.groups.consumer_protocol import (
    Subscription,
    read_assignment,
    read_subscription,
    write_assignment,
)
from corelane.groups.consumer_records import (
    CONSUMER_TYPE,
    ClassicMember,
    ConsumerGroupCurrentMember,
    ConsumerGroupMember,
    ConsumerGroupMetadata,
    ConsumerGroupRecord,
    ConsumerGroupTargetMember,
    ConsumerGroupTargetMetadata,
    CurrentAssignment,
    GroupEpoch,
    MemberState,
    MemberSubscription,
    Partitions,
)
from corelane.groups.consumer_requests import ConsumerGroupSettings
from corelane.groups.consumer_state import ConsumerState
from corelane.groups.subscriptions import TopicsView, metadata_hash
from corelane.model.record import record

MALFORMED: Final = "because the embedded consumer protocol is malformed"
CUSTOM: Final = (
    "because an unsupported custom assignor is in use; switch its members to an assignor without"
    " user data first"
)


@record
class _Convert:
    """One member on its way up."""

    member: Member
    said: Subscription
    given: Partitions


def upgrade_fault(group: ClassicGroup, settings: ConsumerGroupSettings) -> str | None:
    """Say why a group of which somebody is a member stays a classic one."""
    if not settings.migration.may_upgrade:
        return "is not a consumer group: group.consumer.migration.policy keeps it a classic one"
    if group.protocol_type != CONSUMER_TYPE or len(group.members) > settings.size_max:
        return "is not a consumer group"
    return None


def upgraded(group: ClassicGroup, topics: TopicsView) -> list[ConsumerGroupRecord] | str:
    """Return the records that make the new group of a classic one; or why there are none.

    Who has not had its first answer owns nothing, and may not even know its id: it is left out, and
    joins the new group.
    """
    converts = []
    for member in group.members.values():
        if not member.is_new:
            convert = _convert(group, member, topics)
            if isinstance(convert, str):
                return f"cannot be upgraded to a consumer group {convert}"
            converts.append(convert)
    return [*_records(group, converts, topics)]


def _convert(group: ClassicGroup, member: Member, topics: TopicsView) -> _Convert | str:
    metadata = member.metadata(group.protocol) or next((data for _, data in member.protocols), b"")
    said = read_subscription(metadata)
    given = read_assignment(_last_given(group, member))
    if said is None or given is None:
        return MALFORMED
    if given.user_data:
        return CUSTOM  # nobody would hand it on
    return _Convert(member, said, consumer_classic.partitions_of(given.places, topics))


def _last_given(group: ClassicGroup, member: Member) -> bytes:
    """Return the assignment that a member had last: while a rebalance goes on, that before it."""
    if group.state is State.STABLE or group.stored_value is None:
        return member.assignment
    stored = group.stored_value.members
    found = [each.assignment for each in stored if each.member_id == member.member_id]
    return found[0] if found else b""


def _records(
    group: ClassicGroup, converts: list[_Convert], topics: TopicsView
) -> Iterator[ConsumerGroupRecord]:
    name, epoch = group.group, group.generation_id
    for each in converts:
        yield ConsumerGroupMember(name, each.member.member_id, _subscription(each))
    names = {topic for each in converts for topic in each.said.topics}
    yield ConsumerGroupMetadata(name, GroupEpoch(epoch, metadata_hash(names, topics)))
    for each in converts:
        yield ConsumerGroupTargetMember(name, each.member.member_id, each.given)
    yield ConsumerGroupTargetMetadata(name, epoch)
    taken: set[tuple[bytes, int]] = set()
    for each in converts:
        taken |= each.given
    for each in converts:
        # U1: it had these when it joined, and they were not given to it again.
        claimed = consumer_classic.partitions_of(each.said.owned, topics) - taken
        taken |= claimed
        state = MemberState.UNREVOKED_PARTITIONS if claimed else MemberState.STABLE
        current = CurrentAssignment(epoch, epoch, state, each.given, claimed)
        yield ConsumerGroupCurrentMember(name, each.member.member_id, current)


def _subscription(each: _Convert) -> MemberSubscription:
    member = each.member
    return MemberSubscription(
        instance_id=member.instance_id,
        rack_id=each.said.rack_id,
        client_id=member.client_id,
        client_host=member.client_host,
        topic_names=tuple(sorted(set(each.said.topics))),
        topic_regex=None,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        server_assignor=None,
        classic=ClassicMember(member.session_timeout_ms, member.protocols),
    )


def downgraded(state: ConsumerState, topics: TopicsView) -> ClassicGroup:
    """Return the classic group of the members of a group, who are all classic; see U2."""
    assert len(state.members) == state.classic_count > 0
    group = ClassicGroup(state.group_id)
    for member_id, subscription in state.members.items():
        group.add(_member(member_id, subscription), CONSUMER_TYPE)
    group.state = State.STABLE
    group.generation_id = state.epoch
    group.protocol = group.elected_protocol()
    group.leader = None
    for member in group.members.values():
        current = state.current(member.member_id)
        has = consumer_classic.named(current.assigned | current.revoking, topics)
        said = read_subscription(member.metadata(group.protocol))
        version = 0 if said is None else said.version
        member.assignment = write_assignment(has, version)
    return group


def _member(member_id: str, subscription: MemberSubscription) -> Member:
    classic = subscription.classic
    assert classic is not None
    member = Member(member_id, subscription.instance_id)
    member.client_id, member.client_host = subscription.client_id, subscription.client_host
    member.session_timeout_ms = classic.session_timeout_ms
    member.rebalance_timeout_ms = subscription.rebalance_timeout_ms
    member.protocols = classic.protocols
    member.is_new = False
    return member
