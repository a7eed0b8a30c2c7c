"""What `__consumer_offsets` says of classic groups and of offsets, as values.

The content is that of Kafka's own records (key types 0, 1 and 2), so that its tools can read them.
A record without a value takes back what the last one with its key said.
"""

from typing import Final

from corelane.model.record import record

NO_EPOCH: Final = -1
NO_GENERATION: Final = -1
Place = tuple[str, int]
"""Topic and partition."""


@record
class CommittedOffset:
    """How far a group has read a partition."""

    offset: int
    leader_epoch: int
    """Of the record before it, or -1; clients find truncations by it."""
    metadata: str
    commit_ms: int
    """By the wall clock, for expiry."""


@record
class OffsetRecord:
    """A group's committed offset of one partition."""

    group: str
    topic: str
    partition: int
    value: CommittedOffset | None


@record
class StoredMember:
    """A member of a generation, with what the leader assigned to it."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    """Of the generation's protocol; its meaning is the clients' own affair."""
    assignment: bytes


@record
class Generation:
    """A finished rebalance: who is in the group, and who reads what."""

    protocol_type: str
    generation_id: int
    protocol: str | None
    leader: str | None
    since_ms: int
    """By the wall clock: when the group came to this state."""
    members: tuple[StoredMember, ...]


@record
class GenerationRecord:
    """A group's last finished rebalance."""

    group: str
    value: Generation | None


ClassicRecord = OffsetRecord | GenerationRecord
