"""What the log says of a consumer group of the new protocol (KIP-848), one record a key.

The content is Kafka's own: key types 3 and 5 to 8, and 16. A record without a value takes back what
was said under its key. Key type 4 (the partitions a group has seen) is Kafka's until 4.0, a hash in
`GroupEpoch` has taken its place; it is neither written nor read.
"""

from enum import IntEnum
from typing import Final

from corelane.model.ids import TopicId
from corelane.model.record import record

Partition = tuple[TopicId, int]
Partitions = frozenset[Partition]

CONSUMER_TYPE: Final = "consumer"
"""The type of these groups, and the protocol type of classic ones that may become such."""
NOTHING: Final[Partitions] = frozenset()
LEAVE_EPOCH: Final = -1
"""The member epoch of a heartbeat that leaves for good."""

LEAVE_STATIC_EPOCH: Final = -2
"""The member epoch of a static member that left and may come back."""


class MemberState(IntEnum):
    """How far a member is on its way to its target assignment; the numbers are Kafka's."""

    STABLE = 0
    UNREVOKED_PARTITIONS = 1
    """It must give partitions back before it may go to the next epoch."""
    UNRELEASED_PARTITIONS = 2
    """It is at its epoch and waits for partitions that others have not given back."""
    UNKNOWN = 127
    """A state of a later version."""


@record
class GroupEpoch:
    """How often the group's input has changed, and what its topics looked like then."""

    epoch: int
    metadata_hash: int
    """Of the topics that members are subscribed to; 0 for none. Another hash: another epoch."""


@record
class ClassicMember:
    """How a member of the classic protocol joined, beside what it has in common with others."""

    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    """Name and metadata of each, as in its JoinGroup; the first one is taken."""


@record
class MemberSubscription:
    """What a member said of itself."""

    instance_id: str | None
    rack_id: str | None
    client_id: str
    client_host: str
    topic_names: tuple[str, ...]
    """In order, each once."""
    topic_regex: str | None
    """None or not empty."""
    rebalance_timeout_ms: int
    server_assignor: str | None
    classic: ClassicMember | None = None
    """None for members of the new protocol."""


@record
class CurrentAssignment:
    """What a member has, and what it was asked to give back."""

    member_epoch: int
    previous_epoch: int
    """Accepted once more: the answer with the new epoch may have been lost."""
    state: MemberState
    assigned: Partitions
    revoking: Partitions


@record
class ResolvedRegex:
    """Which topics a pattern matched, when it was last looked at."""

    topic_names: frozenset[str]
    version: int
    """The revision of the topics it was looked up in; said for people, not used."""
    resolved_ms: int
    """As *version*."""


@record
class ConsumerGroupMetadata:
    """The group exists (key type 3), or does not any more."""

    group_id: str
    value: GroupEpoch | None


@record
class ConsumerGroupMember:
    """A member is in the group (key type 5), or is not any more."""

    group_id: str
    member_id: str
    value: MemberSubscription | None


@record
class ConsumerGroupTargetMetadata:
    """The group epoch that the target assignments are made for (key type 6)."""

    group_id: str
    value: int | None


@record
class ConsumerGroupTargetMember:
    """What a member is to have (key type 7)."""

    group_id: str
    member_id: str
    value: Partitions | None


@record
class ConsumerGroupCurrentMember:
    """What a member has (key type 8)."""

    group_id: str
    member_id: str
    value: CurrentAssignment | None


@record
class ConsumerGroupRegularExpression:
    """What a pattern of the group matched (key type 16)."""

    group_id: str
    regex: str
    value: ResolvedRegex | None


ConsumerGroupRecord = (
    ConsumerGroupMetadata
    | ConsumerGroupMember
    | ConsumerGroupTargetMetadata
    | ConsumerGroupTargetMember
    | ConsumerGroupCurrentMember
    | ConsumerGroupRegularExpression
)
