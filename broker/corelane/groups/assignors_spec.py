"""What an assignor is told of a member."""

from corelane.groups.consumer_records import Partitions
from corelane.model.ids import TopicId
from corelane.model.record import record


@record
class MemberSpec:
    """One member, with its topics that exist."""

    member_id: str
    instance_id: str | None
    topics: frozenset[TopicId]
    partitions: Partitions
    """What it was to have before; of topics it may not be subscribed to any more."""
