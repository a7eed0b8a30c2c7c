"""What can happen to a raft group, apart from the two hot paths `appended` and `persisted`."""

from corelane.model.ids import MemberId, Term
from corelane.model.record import record
from corelane.raft.messages import Message


@record
class Tick:
    """Time has passed; needed only when `deadline_ms` has come, harmless earlier."""


@record
class Campaign:
    """Start an election round now, as if the election timer had run out."""


@record
class Received:
    """A peer's message. Loss, repetition and any order are allowed."""

    sender: MemberId
    message: Message


@record
class VotePersisted:
    """The record that a `PersistVote` with these values asked for is durable."""

    term: Term
    voted_for: MemberId


@record
class LeaderGone:
    """The process of *leader* is known to be dead: refused, or back in another life.

    Not: silent, or a link that broke. It lets this replica stand at once, and believe others that
    do; whether there is a new leader the votes decide (DESIGN section 7).
    """

    leader: MemberId
    term: Term


@record
class TransferLeadership:
    """Have *to* lead instead; the effect `TransferEnded` says if that came to nothing."""

    to: MemberId


@record
class ChangeMembers:
    """Change the voters and learners of the group; the effect `ChangeRefused` says why not."""

    voters: tuple[MemberId, ...]
    learners: tuple[MemberId, ...]


Event = Received | Tick | VotePersisted | Campaign | LeaderGone | TransferLeadership | ChangeMembers
