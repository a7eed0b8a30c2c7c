"""What can happen to a raft group, apart from the two hot paths `appended` and `persisted`."""

from corelane.model.ids import NodeId, Term
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

    sender: NodeId
    message: Message


@record
class VotePersisted:
    """The record that a `PersistVote` with these values asked for is durable."""

    term: Term
    voted_for: NodeId


Event = Received | Tick | VotePersisted | Campaign
