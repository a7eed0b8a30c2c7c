"""What can be chosen about a member of a consumer group."""

from collections.abc import Sequence
from dataclasses import field
from typing import Literal

from corelane.model.record import record
from corelane_client.assignors import Strategy
from corelane_client.group_offsets import Place
from corelane_client.settings import ConsumerSettings


class RebalanceListener:
    """Hears which partitions a member is given and loses; override what you need.

    The methods are called from the task that reads, before the next record is returned.
    """

    async def assigned(self, partitions: Sequence[Place]) -> None:
        """These are read from now on; a `seek` takes effect before their first record."""

    async def revoked(self, partitions: Sequence[Place]) -> None:
        """These go to others; what was dealt with is committed already, and may be still."""

    async def lost(self, partitions: Sequence[Place]) -> None:
        """These went to others without waiting; nothing of them can be committed any more."""


@record
class GroupSettings:
    """How a member of a group behaves. The defaults are those of Kafka's consumers."""

    start: Literal["beginning", "end"] = "beginning"
    """Where to begin in a partition of which the group has committed nothing."""
    auto_commit: bool = True
    """Commit by itself what the application has dealt with: every so often, before partitions go
    to others, and at the end."""
    commit_interval_ms: int = 5000
    protocol: Literal["classic", "consumer"] = "classic"
    """Who shares the partitions out: one of the members, or the coordinator (KIP-848), which also
    says then how often it is to be told of this member, and when a session is over."""
    server_assignor: str | None = None
    """With protocol="consumer": "uniform" or "range"; None: what the broker prefers."""
    assignors: tuple[Strategy, ...] = ("range", "cooperative-sticky")
    """The ways to share partitions that this member knows, the best first. With cooperative-sticky
    alone it keeps what it has while the group rebalances; all members must offer it then."""
    instance_id: str | None = None
    """A name of its own makes a member static: who comes back under it within the session timeout
    takes its place, and the group does not rebalance."""
    session_timeout_ms: int = 45_000
    """Who is silent for so long is no member any more."""
    heartbeat_interval_ms: int = 3000
    """How often the coordinator hears of this member; how soon it hears of a rebalance."""
    max_poll_interval_ms: int = 300_000
    """How long the application may take for what it was given; after that the member leaves, so
    that others can read on."""
    listener: RebalanceListener | None = None
    consumer: ConsumerSettings = field(default_factory=ConsumerSettings)
