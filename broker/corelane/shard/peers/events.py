"""What the part that speaks with other nodes is told, asks for, and says to the rest of a core."""

from corelane.model.ids import ConnId, GroupId, Term
from corelane.model.record import record
from corelane.raft.codec import AnswerRow, HeartbeatRow
from corelane.raft.messages import Message
from corelane.shard.effects import Close, Dial, LogLine, Send
from corelane.shard.peers.beats import Incarnations
from corelane.shard.peers.frames import Readable
from corelane.shard.peers.hello import PeerId

# --- what it is told ---


@record
class Dialed:
    """The connection that a `Dial` asked for."""

    dial: int
    conn: ConnId


@record
class DialFailed:
    """A `Dial` came to nothing; every one that is not answered by `Dialed` is by this."""

    dial: int
    is_refused: bool
    """The machine answered that nobody listens there: not a time-out, not an unreachable host."""
    reason: str


@record
class PeerAccepted:
    """Somebody dialed this core; who it is its first frame says."""

    conn: ConnId


@record
class PeerFrame:
    """One frame without its length; borrowed for the step."""

    conn: ConnId
    data: Readable


@record
class PeerClosed:
    """A connection is gone, closed by either side or broken."""

    conn: ConnId


PeerEvent = PeerFrame | PeerAccepted | PeerClosed | Dialed | DialFailed

# --- what it asks for, besides Send, Close and LogLine ---


PeerEffect = Send | Dial | Close | LogLine

# --- verdicts on a session ---


@record
class Connecting:
    """There is no connection, and there was none, or it broke a moment ago."""


@record
class Up:
    """It answers."""


@record
class Silent:
    """It does not answer; it may be dead, slow, or behind a broken network."""

    since_ms: int


@record
class Gone:
    """The life that was spoken with is over."""

    reason: str


Verdict = Up | Connecting | Silent | Gone

# --- what it says ---


@record
class PeerMessage:
    """One raft message; an append's *payload* has its entries, borrowed for the step."""

    group: GroupId
    sender: int
    recipient: int
    message: Message
    payload: memoryview


@record
class Received:
    """Raft messages of one frame, in their order."""

    peer: PeerId
    messages: list[PeerMessage]


@record
class Heard:
    """Rows of heartbeats that say something new: a group must be stepped with each.

    What they repeat moves only the time that `Peers.leader_heard_ms` returns.
    """

    peer: PeerId
    round: int
    rows: list[HeartbeatRow]
    incarnations: Incarnations


@record
class Outdated:
    """Groups that this core leads in a term below that of a member of them."""

    peer: PeerId
    round: int
    rows: list[AnswerRow]
    incarnations: Incarnations


@record
class Judged:
    """The verdict on a peer core's session is another one now."""

    peer: PeerId
    verdict: Verdict


@record
class LifeEnded:
    """The process behind a session is dead: groups led from there stand without waiting.

    `led`: group, term, incarnation of the leader; as its last heartbeat listed them. Only these
    are to be told `LeaderGone`: other groups may be led by another core of that node.
    """

    peer: PeerId
    boot: int
    reason: str
    led: list[tuple[GroupId, Term, int]]


@record
class LeadsChanged:
    """Who leads these groups is another core now, or its in-sync set is another one."""

    groups: list[GroupId]


@record
class Introduced:
    """A core that is no known peer dialed to say that it is there; where it is to be dialed.

    So a node that joins is met by nodes of lower ids, which dial it and not the other way round.
    """

    peer: PeerId
    host: str
    port: int


@record
class Called:
    """A peer core asks something; to be answered by `Peers.give` with the same number."""

    peer: PeerId
    number: int
    body: bytes


@record
class Returned:
    """The answer to `Peers.call`."""

    peer: PeerId
    number: int
    body: bytes


News = (
    Received | Heard | Outdated | LeadsChanged | Judged | LifeEnded | Introduced | Called | Returned
)
