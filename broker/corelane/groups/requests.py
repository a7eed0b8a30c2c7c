"""What classic groups are asked and what they answer: values, whatever the version on the wire.

Each request's *token* names who waits; each token is answered once, or never when the coordinator
is thrown away.
"""

from dataclasses import field

from corelane.groups.consumer_requests import (
    ConsumerGroupSettings,
    ConsumerHeartbeat,
    ConsumerHeartbeatAnswer,
)
from corelane.groups.records import CommittedOffset, Place
from corelane.model.errors import ErrorCode
from corelane.model.record import record

NONE = ErrorCode.NONE


@record
class GroupSettings:
    """Timings and bounds, by Kafka's names in `model/config_keys.py`."""

    session_timeout_ms_min: int = 6_000
    session_timeout_ms_max: int = 1_800_000
    initial_delay_ms: int = 3_000
    members_max: int = 10_000
    metadata_bytes_max: int = 4_096
    offsets_retention_ms: int = 7 * 24 * 3_600_000
    consumer: ConsumerGroupSettings = field(default_factory=ConsumerGroupSettings)
    """Of groups of the new protocol."""


@record
class Identity:
    """Who asks, as a member of which group."""

    group: str
    generation_id: int
    member_id: str
    instance_id: str | None


@record
class Join:
    """JoinGroup."""

    group: str
    member_id: str
    proposed_member_id: str
    """The id of a member that has none yet; made by the caller, for chance is not for us."""
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    needs_known_member: bool
    """From version 4 on a new member must come again with the id that it was given."""
    may_skip_assignment: bool
    """From version 9 on a static leader that comes back need not assign again."""


@record
class Joined:
    """The answer to a Join."""

    error: ErrorCode
    member_id: str = ""
    generation_id: int = -1
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = ""
    skip_assignment: bool = False
    members: tuple[tuple[str, str | None, bytes], ...] = ()
    """Id, instance and metadata of each; for the leader alone."""


@record
class Sync:
    """SyncGroup; the leader's has everybody's assignment."""

    identity: Identity
    protocol_type: str | None
    protocol: str | None
    assignments: tuple[tuple[str, bytes], ...]


@record
class Synced:
    """The answer to a Sync."""

    error: ErrorCode
    protocol_type: str | None = None
    protocol: str | None = None
    assignment: bytes = b""


@record
class Beat:
    """Heartbeat."""

    identity: Identity


@record
class Leave:
    """LeaveGroup: member and instance of each that leaves."""

    group: str
    members: tuple[tuple[str, str | None], ...]


@record
class Left:
    """The answer to a Leave."""

    error: ErrorCode
    members: tuple[tuple[str, str | None, ErrorCode], ...] = ()


@record
class Commit:
    """OffsetCommit and TxnOffsetCommit."""

    identity: Identity
    offsets: tuple[tuple[Place, CommittedOffset], ...]
    producer: tuple[int, int] | None = None
    """Id and epoch of the transaction that they are part of."""
    knows_epochs: bool = True
    """Whether the request's version can tell a member epoch: OffsetCommit from version 9 on."""


@record
class Committed:
    """The answer to a Commit: the error of each partition, in the order of the request."""

    errors: tuple[ErrorCode, ...]


@record
class FetchOffsets:
    """OffsetFetch; places None: all that are known."""

    group: str
    places: tuple[Place, ...] | None
    require_stable: bool = False
    member_id: str | None = None
    member_epoch: int = -1
    """Who asks, of a group of the new protocol; from version 9 on."""


@record
class FetchedOffsets:
    """The answer: None where nothing was committed."""

    error: ErrorCode
    offsets: tuple[tuple[Place, CommittedOffset | None, ErrorCode], ...] = ()


@record
class DeleteOffsets:
    """OffsetDelete."""

    group: str
    places: tuple[Place, ...]


@record
class DeletedOffsets:
    """The answer: of the group, then of each partition."""

    error: ErrorCode
    errors: tuple[ErrorCode, ...] = ()


@record
class ConsumerBeat:
    """ConsumerGroupHeartbeat (KIP-848)."""

    group: str
    beat: ConsumerHeartbeat


@record
class DeleteGroup:
    """One of DeleteGroups."""

    group: str


@record
class Described:
    """What there is to see of a group."""

    group: str
    error: ErrorCode
    state: str = "Dead"
    protocol_type: str = ""
    protocol: str = ""
    members: tuple["DescribedMember", ...] = ()


@record
class DescribedMember:
    """What there is to see of a member."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    subscription: bytes
    assignment: bytes


@record
class Simple:
    """The answer to a Beat and a DeleteGroup."""

    error: ErrorCode


Request = (
    Beat | ConsumerBeat | Commit | FetchOffsets | Join | Sync | Leave | DeleteOffsets | DeleteGroup
)
Answer = (
    Simple
    | ConsumerHeartbeatAnswer
    | Committed
    | FetchedOffsets
    | Joined
    | Synced
    | Left
    | DeletedOffsets
)


@record
class Answered:
    """An answer for who waits under *token*; to be given out when the records are committed."""

    token: int
    answer: Answer


@record
class PendingCommit:
    """Offsets that a transaction's marker decides about: a transactional batch of its own."""

    producer_id: int
    producer_epoch: int
    offsets: list[tuple[str, Place, CommittedOffset]] = field(default_factory=list)
