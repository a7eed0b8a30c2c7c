"""Gives each subscriber of a topic a run of its partitions, the same run for topics of one size.

That is for joins: with equal subscriptions and partition counts, partition n of every topic is with
the same member. Members are put in order by instance id, those without one by member id after them,
so that static members keep their runs when they come back under other member ids.
"""

from collections.abc import Mapping, Sequence

from corelane.groups.assignors_spec import MemberSpec
from corelane.groups.consumer_records import Partition, Partitions
from corelane.model.ids import TopicId


def assign(members: Sequence[MemberSpec], counts: Mapping[TopicId, int]) -> dict[str, Partitions]:
    """Return what each member is to have; see `assignors.Assign`."""
    ordered = sorted(members, key=_place)
    given: dict[str, list[Partition]] = {member.member_id: [] for member in ordered}
    subscribers: dict[TopicId, list[str]] = {}
    for member in ordered:
        for topic_id in member.topics:
            subscribers.setdefault(topic_id, []).append(member.member_id)
    for topic_id, member_ids in subscribers.items():
        each, larger = divmod(counts[topic_id], len(member_ids))
        first = 0
        for place, member_id in enumerate(member_ids):
            end = first + each + (place < larger)
            given[member_id] += [(topic_id, number) for number in range(first, end)]
            first = end
        assert first == counts[topic_id]
    return {member_id: frozenset(partitions) for member_id, partitions in given.items()}


def _place(member: MemberSpec) -> tuple[bool, str, str]:
    return member.instance_id is None, member.instance_id or "", member.member_id
