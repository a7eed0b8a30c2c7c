"""What a consumer group of the new protocol is asked, and what it says (KIP-848).

`request_fault` is the part of the judgement that needs no state: Kafka's checks in Kafka's order,
then the bounds of ours.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Final

from corelane.groups.assignors import ASSIGNORS
from corelane.groups.consumer_records import (
    LEAVE_EPOCH,
    LEAVE_STATIC_EPOCH,
    Partitions,
)
from corelane.model.errors import ErrorCode
from corelane.model.ids import TopicId
from corelane.model.limits import TOPIC_NAME_CHARACTERS_MAX, TOPIC_NAME_PATTERN
from corelane.model.record import record

ID_CHARACTERS_MAX: Final = 1024
"""Of member, instance, rack and client ids. Kafka's is the request's; they are kept and logged."""

TOPIC_NAMES_MAX: Final = 10_000
"""Names one member may be subscribed to; who wants more says it with a pattern."""

REGEXES_MAX: Final = 32
"""Different patterns in a group: each is looked up in all topics whenever topics change."""

NO_TIMEOUT: Final = -1
"""`rebalance_timeout_ms` of a request that does not say it again."""


class Migration(Enum):
    """Which groups may change their protocol while members are in them; Kafka's names."""

    BIDIRECTIONAL = "bidirectional"
    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"
    DISABLED = "disabled"

    @property
    def may_upgrade(self) -> bool:
        """Whether a classic group becomes one of the new protocol."""
        return self in {Migration.BIDIRECTIONAL, Migration.UPGRADE}

    @property
    def may_downgrade(self) -> bool:
        """Whether a group of which only classic members are left becomes a classic one."""
        return self in {Migration.BIDIRECTIONAL, Migration.DOWNGRADE}


@record
class ConsumerGroupSettings:
    """The timings and bounds of a group, with Kafka's defaults (`group.consumer.*`)."""

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 5_000
    size_max: int = 1_000
    """Members; Kafka has no bound unless it is configured."""
    assignors: tuple[str, ...] = tuple(ASSIGNORS)
    """Those that may be asked for; the first is taken when nobody asks."""
    regex_refresh_interval_ms: int = 10_000
    """How often patterns are looked up again while topics come and go."""
    migration: Migration = Migration.BIDIRECTIONAL
    classic_size_max: int = 10_000
    """Members of a classic group; one that is larger does not become one."""


@record
class ConsumerHeartbeat:
    """ConsumerGroupHeartbeat; None is what the member does not say again."""

    member_id: str
    proposed_member_id: str
    """The id to take if *member_id* is empty; from version 1 on empty too: clients make theirs."""
    member_epoch: int
    instance_id: str | None
    rack_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    topic_names: tuple[str, ...] | None
    topic_regex: str | None
    """Not empty: a new pattern; empty: no pattern any more."""
    server_assignor: str | None
    owned: Partitions | None

    @property
    def is_full(self) -> bool:
        """Whether the member says everything, and so is to be told everything."""
        return self.member_epoch == 0 or (
            self.rebalance_timeout_ms != NO_TIMEOUT
            and (self.topic_names is not None or self.topic_regex is not None)
            and self.owned is not None
        )


@record
class ConsumerHeartbeatAnswer:
    """The answer; the other fields mean nothing with an error."""

    error: ErrorCode
    message: str | None = None
    member_id: str | None = None
    member_epoch: int = 0
    heartbeat_interval_ms: int = 0
    assignment: Partitions | None = None
    """None if it is what it was."""


@record
class Refusal:
    """An error with the sentence for the client."""

    error: ErrorCode
    message: str


@record
class DescribedTopic:
    """Partitions of one topic, in order."""

    topic_id: TopicId
    topic_name: str
    partitions: tuple[int, ...]


@record
class DescribedMember:
    """One member of ConsumerGroupDescribe."""

    member_id: str
    instance_id: str | None
    rack_id: str | None
    member_epoch: int
    client_id: str
    client_host: str
    topic_names: tuple[str, ...]
    topic_regex: str | None
    assignment: list[DescribedTopic]
    target_assignment: list[DescribedTopic]
    is_classic: bool


@record
class ConsumerGroupDescription:
    """One group of ConsumerGroupDescribe."""

    group_id: str
    state: str
    group_epoch: int
    assignment_epoch: int
    assignor_name: str
    members: list[DescribedMember]


def request_fault(request: ConsumerHeartbeat, settings: ConsumerGroupSettings) -> Refusal | None:
    """Return what is wrong with a request whatever the group is like."""
    sentence = _malformed(request) or _too_large(request)
    if sentence is not None:
        return Refusal(ErrorCode.INVALID_REQUEST, sentence)
    if request.server_assignor is not None and request.server_assignor not in settings.assignors:
        return Refusal(
            ErrorCode.UNSUPPORTED_ASSIGNOR,
            f"assignor {request.server_assignor[:100]} is not supported, these are:"
            f" {', '.join(settings.assignors)}",
        )
    bad = _bad_name(request.topic_names or ())
    if bad is not None:
        return Refusal(
            ErrorCode.INVALID_TOPIC_EXCEPTION, f"{bad[:100]!r} cannot be the name of a topic"
        )
    return None


def _malformed(request: ConsumerHeartbeat) -> str | None:
    """Kafka's `throwIfConsumerGroupHeartbeatRequestIsInvalid`."""
    epoch = request.member_epoch
    if epoch < LEAVE_STATIC_EPOCH:
        return f"the member epoch {epoch} means nothing"
    may_be_made = epoch == 0 and request.proposed_member_id
    if not request.member_id.strip() and not may_be_made:
        return "the member id is empty"
    if request.instance_id is not None and not request.instance_id.strip():
        return "the instance id is empty"
    if request.rack_id is not None and not request.rack_id.strip():
        return "the rack id is empty"
    if epoch == LEAVE_STATIC_EPOCH and request.instance_id is None:
        return "only a member with an instance id may leave for a while (epoch -2)"
    if epoch != 0:
        return None
    if request.rebalance_timeout_ms == NO_TIMEOUT:
        return "who joins must say its rebalance timeout"
    if request.owned is None or request.owned:
        return "who joins owns nothing, and must say so"
    if request.topic_names is None and request.topic_regex is None:
        return "who joins must say the topics, by name or by pattern"
    return None


def _too_large(request: ConsumerHeartbeat) -> str | None:
    texts = (request.member_id, request.instance_id, request.rack_id, request.client_id)
    if any(text is not None and len(text) > ID_CHARACTERS_MAX for text in texts):
        return f"an id has more than {ID_CHARACTERS_MAX} characters"
    if request.topic_names is not None and len(request.topic_names) > TOPIC_NAMES_MAX:
        return f"more than {TOPIC_NAMES_MAX} topics are named; use a pattern"
    if request.rebalance_timeout_ms < NO_TIMEOUT:
        return "the rebalance timeout is negative"
    return None


def _bad_name(names: Iterable[str]) -> str | None:
    for name in names:
        if len(name) > TOPIC_NAME_CHARACTERS_MAX or not TOPIC_NAME_PATTERN.match(name):
            return name
    return None


def is_leaving(request: ConsumerHeartbeat) -> bool:
    """Whether the member says good-bye, for good or for a while."""
    return request.member_epoch in {LEAVE_EPOCH, LEAVE_STATIC_EPOCH}
