"""Says what a consumer group is like, as ConsumerGroupDescribe and ListGroups do."""

from corelane.groups.consumer_records import NOTHING, MemberState, Partitions
from corelane.groups.consumer_requests import (
    ConsumerGroupDescription,
    DescribedMember,
    DescribedTopic,
)
from corelane.groups.consumer_state import ConsumerState
from corelane.groups.subscriptions import TopicsView


def state_name(state: ConsumerState) -> str:
    """Return Kafka's name of the state."""
    if not state.exists:
        return "Dead"
    if not state.members:
        return "Empty"
    if state.epoch > state.assignment_epoch:
        return "Assigning"
    for member_id in state.members:
        current = state.current(member_id)
        if current.state is not MemberState.STABLE:
            return "Reconciling"
        if current.member_epoch != state.assignment_epoch:
            return "Reconciling"
    return "Stable"


def describe(
    state: ConsumerState, assignor_name: str, topics: TopicsView
) -> ConsumerGroupDescription:
    """Return the group with its members in order of their ids."""
    members = []
    for member_id, subscription in sorted(state.members.items(), key=lambda item: item[0]):
        current = state.current(member_id)
        members.append(
            DescribedMember(
                member_id,
                subscription.instance_id,
                subscription.rack_id,
                current.member_epoch,
                subscription.client_id,
                subscription.client_host,
                subscription.topic_names,
                subscription.topic_regex,
                by_topic(current.assigned, topics),
                by_topic(state.targets.get(member_id, NOTHING), topics),
                subscription.classic is not None,
            )
        )
    return ConsumerGroupDescription(
        state.group_id,
        state_name(state),
        state.epoch,
        state.assignment_epoch,
        assignor_name,
        members,
    )


def by_topic(partitions: Partitions, topics: TopicsView) -> list[DescribedTopic]:
    """Return partitions in order; topics that are gone are left out."""
    grouped: dict[str, DescribedTopic] = {}
    for topic_id, number in sorted(partitions):
        name = topics.topic_name(topic_id)
        if name is not None:
            had = grouped[name].partitions if name in grouped else ()
            grouped[name] = DescribedTopic(topic_id, name, (*had, number))
    return [grouped[name] for name in sorted(grouped)]
