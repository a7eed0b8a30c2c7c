"""What can happen to a core: everything `Shard.step` is ever told."""

from typing import NamedTuple

from corelane.model.ids import ConnId, CoreId, JobId
from corelane.model.record import record
from corelane.shard.peers.events import PeerEvent
from corelane.storage.effects import DiskDone


@record
class Opened:
    """A client connected; *listener* is the token its listening socket was registered with."""

    conn: ConnId
    listener: int
    peer: str


@record
class Closed:
    """A connection is gone (closed by either side); its id is never used again."""

    conn: ConnId
    reason: str


class Request(NamedTuple):
    """One complete request frame, without its length prefix.

    `address` and `size_bytes` borrow memory that is valid during this step only. The first
    eight bytes (key, version, correlation id) are parsed already; nothing else is.
    """

    conn: ConnId
    address: int
    size_bytes: int
    api_key: int
    api_version: int
    correlation_id: int


@record
class WorkDone:
    """The answer to a `Work` effect: what the function returned, or the text of its failure."""

    job: JobId
    value: object
    failure: str | None


@record
class Drained:
    """A connection that could not take everything it was sent has now taken it."""

    conn: ConnId


@record
class LinkUp:
    """A sibling core can be reached: *conn* carries frames both ways, and no client's.

    *boot* counts the sibling's lives. A sibling that *is_retired* hands its groups over and goes.
    """

    conn: ConnId
    core: CoreId
    boot: int
    is_retired: bool


@record
class LinkFrame:
    """One frame from a sibling. The memory is borrowed for this step only.

    The first eight of its bytes are parsed already: kind, flags and number.
    """

    conn: ConnId
    address: int
    size_bytes: int
    kind: int
    flags: int
    number: int


@record
class LinkDown:
    """A sibling's life has ended, or its pipes broke; its conn is never used again."""

    conn: ConnId


@record
class OperatorRequest:
    """The operator wants something of this core; answered by an `OperatorAnswer`."""

    number: int
    verb: str
    arguments: dict[str, str]


@record
class DiskSpace:
    """The disk of the data directory, as it is now."""

    total_bytes: int
    usable_bytes: int


@record
class SiblingEnded:
    """A life of another core of this node is over; other nodes are told at once."""

    core: CoreId
    boot: int
    """Its boot epoch, as its greetings to other nodes had it."""


Event = (
    Opened
    | Closed
    | Request
    | Drained
    | DiskDone
    | WorkDone
    | LinkUp
    | LinkFrame
    | LinkDown
    | OperatorRequest
    | DiskSpace
    | SiblingEnded
    | PeerEvent
)
