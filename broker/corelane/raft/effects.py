"""What a raft group asks to be done, and the durability contract of each effect.

All effects of a call are performed, in their order, before the next call on the same group.
None of them waits: whatever may leave only when a state is durable is returned by the call that
learns of it (`VotePersisted`, `persisted`), so no driver can send it too early.

- Leave at once: appends and heartbeats of an established leader, pre-votes and their answers.
- Returned after the sync: requests for votes, grants, acknowledgements of appends, the leader's
  own share of a commit. Every answer names a term that is durable here.

The records of a group go into the WAL in the order of its effects: term and vote, truncations,
entries, one total order, so that a crash between them cannot lose a committed entry.
"""

from corelane.model.ids import Index, MemberId, Term
from corelane.model.record import record
from corelane.raft.membership import Configuration
from corelane.raft.messages import Append, Message, Snapshot


@record
class PersistVote:
    """Put term and vote into the WAL; the event `VotePersisted` with the same values follows."""

    term: Term
    voted_for: MemberId


@record
class Send:
    """Send *message* now. The payloads of an `Append`'s entries are added by the shard.

    May be lost: whatever matters is sent again after a heartbeat or a time-out.
    """

    to: MemberId
    message: Message


@record
class AppendEntries:
    """Follower: append the entries `first_index` to `message.last_index` to log and WAL.

    *message* is the very object that was received, so its payloads can be found. Answer with
    `persisted(message.last_index, truncations)` when the write is durable.
    """

    message: Append
    first_index: Index


@record
class Truncate:
    """Cut the log before *from_index*, which was never committed, and put that into the WAL.

    The group's count `truncations` was raised: writes made before this one complete with the
    older count and are then ignored. Entries for the cut place follow in the same list.
    """

    from_index: Index


@record
class SendSnapshot:
    """Send *to* a `Snapshot` of this term and *round*: it needs entries that the log has no more.

    May be lost, or impossible for now; it is asked for again.
    """

    to: MemberId
    term: Term
    round: int


@record
class InstallSnapshot:
    """Follower: discard the log, begin anew as the received snapshot says, then call `installed`.

    Report `persisted(message.last_index, truncations)` when that is durable. Nothing is lost if
    it cannot be done now.
    """

    message: Snapshot


@record
class Committed:
    """Every entry up to *index* is durable on a quorum and here: the new high watermark."""

    index: Index


@record
class BecameCandidate:
    """The group stands for election in *term*; the leader is unknown."""

    term: Term


@record
class BecameLeader:
    """The group leads in *term*: append its NEW_LEADER entry, then call `appended`."""

    term: Term


@record
class BecameFollower:
    """The group follows *leader* in *term* (None: not known yet): waiting produces must fail."""

    term: Term
    leader: MemberId | None


@record
class AppendConfiguration:
    """Leader: append a CONFIG entry, then call `configuration_appended` with its index."""

    configuration: Configuration


@record
class MadeGood:
    """What this replica had lost it has again: it is as good as any (loss.py)."""


@record
class ChangeRefused:
    """The members stay as they are."""

    reason: str


@record
class TransferEnded:
    """This leader goes on: *to* does not lead instead."""

    to: MemberId
    reason: str


Effect = (
    Committed
    | Send
    | AppendEntries
    | Truncate
    | PersistVote
    | BecameFollower
    | BecameCandidate
    | BecameLeader
    | AppendConfiguration
    | ChangeRefused
    | TransferEnded
    | SendSnapshot
    | InstallSnapshot
    | MadeGood
)
