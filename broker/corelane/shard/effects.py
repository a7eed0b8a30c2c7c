"""What a core asks to be done: everything `Shard.step` can return.

Effects are performed in the order given. Whatever may leave only after a record is durable is
not in the list before that record's `DiskDone` was an event: `now` or `after(lsn)` is decided
inside the shard, so that no driver can get it wrong.
"""

from collections.abc import Callable

from corelane.model.ids import ChunkId, ConnId, JobId, Position
from corelane.model.record import record
from corelane.storage.effects import DiskEffect

Part = bytes | tuple[ChunkId, Position, int]
"""A piece of an answer: bytes, or (chunk, position, size) of arena memory, sent from there.

The shard holds a reference on each chunk named until the `Send` was performed; a driver that
cannot send everything at once takes references of its own for the rest.
"""


@record
class Send:
    """Send *parts* to a client, in order, in one system call where the socket takes it."""

    conn: ConnId
    parts: list[Part]
    chunks_held: list[ChunkId]
    """References the driver releases when it has performed this effect."""


@record
class Close:
    """Close a connection; *reason* is a sentence for the log (empty: not worth a line)."""

    conn: ConnId
    reason: str


@record
class Pause:
    """Stop cutting frames from a connection, until `Resume`."""

    conn: ConnId


@record
class Resume:
    """Cut frames from a connection again."""

    conn: ConnId


@record
class HoldProduce:
    """While *held*, connections whose next frame is a Produce are not read."""

    held: bool


@record
class Work:
    """Run a pure function off the loop, one at a time; answered by `WorkDone`."""

    job: JobId
    function: Callable[..., object]
    arguments: tuple[object, ...]


@record
class LogLine:
    """Something a person acts on; *level* as in logging: 20 info, 30 warning, 40 error."""

    level: int
    text: str


@record
class Exit:
    """Stop this core at once, without any further write: the log repairs it at the next start."""

    reason: str


@record
class Stopped:
    """The clean checkpoint asked for by `Shard.stop` is durable: the core may leave."""


@record
class OperatorAnswer:
    """The answer to an `OperatorRequest`; *error* is empty when it was done."""

    number: int
    error: str
    """A Kafka error's name, or empty."""
    sentence: str
    values: dict[str, str]


@record
class Emptied:
    """This retired core owns nothing any more: it may be stopped and its directory removed."""


@record
class Dial:
    """Connect to a peer; answered by `Dialed` or `DialFailed` with the same number."""

    dial: int
    host: str
    port: int


Effect = (
    Send
    | Close
    | Pause
    | Resume
    | HoldProduce
    | Work
    | LogLine
    | Exit
    | Stopped
    | OperatorAnswer
    | Emptied
    | Dial
    | DiskEffect
)
