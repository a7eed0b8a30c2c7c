"""What a raft group is told when it is made: who it is, its time-outs, what storage kept."""

from dataclasses import field
from typing import Final, Protocol

from corelane.model.ids import NO_MEMBER, NO_TERM, GroupId, Index, MemberId, Term
from corelane.model.limits import MIB
from corelane.model.record import record
from corelane.raft.loss import Loss


class Jitter(Protocol):
    """The source of randomness, injected and seeded; `random.Random` fits."""

    def randrange(self, stop: int, /) -> int:
        """Return a number in [0, stop)."""


class Contacts(Protocol):
    """When others were heard, for groups whose repeated heartbeats only move a table elsewhere.

    Times are those of the events' clock; a very small number where nothing was heard.
    """

    def leader_heard_ms(self, group: GroupId, term: Term, leader: MemberId) -> int:
        """Return when *leader* last said that it leads *group* in *term*."""

    def follower_heard_ms(self, group: GroupId, term: Term, follower: MemberId) -> int:
        """Return when the round was sent in which *follower* last said that it follows."""

    def patience_ms(self) -> int:
        """Return how much longer than its own delay a voter that lags waits for its leader."""

    def quorum_patience_ms(self) -> int:
        """Return how much longer than a time-out a leader waits for followers that lag."""

    def confirmed_ms(self, group: GroupId, term: Term, follower: MemberId) -> int:
        """Return the same for reads and leases: nothing that was sent before a pause counts."""


@record
class RaftSettings:
    """Time-outs and flow limits; one value shared by all groups of a core."""

    election_timeout_ms: int = 1000
    """Silence of the leader after which a voter may be asked for another one; also the time
    within which a leader must have heard a quorum (check-quorum)."""
    election_rank_ms: int = 100
    """Added to a voter's own time-out per place in the list of voters: the preferred goes first,
    and 300 groups that lose one node do not all split their votes."""
    election_jitter_ms: int = 200
    """Upper bound of the random part."""
    round_timeout_ms: int = 300
    """Time for one round of voting: a round trip and a WAL write on a busy disk. Doubled with
    every failed round, up to `election_timeout_ms`."""
    append_bytes_max: int = MIB
    """Entries in one append message; a single larger entry travels alone."""
    inflight_messages_max: int = 64
    """Unacknowledged append messages per follower."""
    inflight_bytes_max: int = 8 * MIB
    """Unacknowledged bytes per follower; exceeded by at most one message. 320 MB/s at 25 ms."""
    lease_ms: int = 0
    """How long a leader that a quorum has confirmed may read without asking again; 0: no leases.
    The same for all members, as every one of them keeps its word to a leader that relies on it."""


DEFAULT_SETTINGS: Final = RaftSettings()


@record
class RaftConfig:
    """One group as this replica sees it. The order of *voters* is the order of preference.

    Members are those before the first configuration in the log. A replica that is only about to
    join knows none: it waits for a leader that knows it.
    """

    group: GroupId
    self_id: MemberId
    voters: tuple[MemberId, ...]
    settings: RaftSettings = field(default_factory=lambda: DEFAULT_SETTINGS)
    outgoing: tuple[MemberId, ...] = ()
    learners: tuple[MemberId, ...] = ()
    contacts: Contacts | None = None


@record
class HardState:
    """What storage kept of a group, besides its log.

    `committed_index` is any index known to be committed (segments hold nothing else); the true
    one may be higher and is learned again from the leader.
    """

    term: Term = NO_TERM
    voted_for: MemberId = NO_MEMBER
    committed_index: Index = Index(0)
    loss: Loss | None = None
    """What of this and of the log was lost, and is not made good yet."""


def check(config: RaftConfig) -> None:
    """Assert the relations that the group relies on."""
    settings = config.settings
    assert 0 < settings.round_timeout_ms <= settings.election_timeout_ms
    assert settings.election_rank_ms >= 0
    assert settings.election_jitter_ms > 0, "without jitter two candidates can tie for ever"
    # Clocks run at different speeds, and their milliseconds are cut off.
    assert 0 <= settings.lease_ms <= settings.election_timeout_ms * 9 // 10
    assert settings.append_bytes_max > 0
    assert settings.inflight_messages_max > 0
    assert settings.inflight_bytes_max >= settings.append_bytes_max
