"""One of the connections to a peer core: when to dial, and which conn it is.

Invariants:
D1. At most one dial and one connection at a time.
D2. Who dials waits longer after each failure, up to `PEER_BACKOFF_MS_MAX`; only a connection that
    lasted makes it forget its failures. A peer that accepts and closes is not dialed in a circle.
"""

from typing import Final

from corelane.model import limits
from corelane.model.ids import ConnId
from corelane.raft.config import Jitter
from corelane.shard.effects import Send
from corelane.shard.peers.frames import NUMBER_LIMIT, Channel, Kind, check, encode

_LASTED_MS: Final = 1_000


def backoff_ms(attempt: int, jitter: Jitter) -> int:
    """Return how long to wait before dialing again after *attempt* failures; none at first.

    Half of it is chance, so that the cores of a node do not come all at once.
    """
    assert attempt >= 0
    if attempt == 0:
        return 0
    doublings = min(attempt - 1, 16)
    longest_ms = min(limits.PEER_BACKOFF_MS_MIN << doublings, limits.PEER_BACKOFF_MS_MAX)
    return longest_ms // 2 + jitter.randrange(longest_ms // 2 + 1)


class Line:
    """A connection that is there, on its way, or to be made."""

    __slots__ = (
        "attempt",
        "channel",
        "conn",
        "deadline_ms",
        "dial",
        "dial_at_ms",
        "is_open",
        "next_in",
        "next_out",
        "opened_ms",
        "version",
    )

    def __init__(self, channel: Channel, now_ms: int) -> None:
        self.channel = channel
        self.attempt = 0
        self.dial_at_ms = now_ms
        self.dial: int | None = None
        self.conn: ConnId | None = None
        self.is_open = False
        self.opened_ms = now_ms
        self.deadline_ms = 0
        """Of dialing and greeting together."""
        self.next_in = 0
        self.next_out = 0
        self.version = 0
        """Of the protocol, as the greeting agreed on."""

    @property
    def is_idle(self) -> bool:
        """Whether there is neither a connection nor a dial under way."""
        return self.dial is None and self.conn is None

    def dialing(self, now_ms: int, dial: int) -> None:
        """A dial is under way."""
        assert self.is_idle, "D1"
        self.dial = dial
        self.deadline_ms = now_ms + limits.PEER_GREETING_MS_MAX

    def connected(self, conn: ConnId) -> None:
        """The dial has become a connection, which is not greeted yet."""
        assert self.conn is None, "D1"
        self.dial = None
        self.conn = conn
        self.is_open = False
        self.next_in = 0
        self.next_out = 0

    def opened(self, now_ms: int, version: int) -> None:
        """The greeting went well."""
        assert self.conn is not None
        self.is_open = True
        self.opened_ms = now_ms
        self.version = version

    def failed(self, now_ms: int, jitter: Jitter) -> None:
        """A dial, a greeting or a connection came to its end."""
        has_lasted = self.is_open and now_ms - self.opened_ms >= _LASTED_MS
        self.attempt = 0 if has_lasted else self.attempt + 1
        self.dial_at_ms = now_ms + backoff_ms(self.attempt, jitter)
        self.dial = None
        self.conn = None
        self.is_open = False

    def frame(self, kind: Kind, body: bytes) -> Send:
        """Return the effect that sends one more frame."""
        assert self.conn is not None
        return Send(self.conn, [encode(kind, self.number(), body)], [])

    def number(self) -> int:
        """Return the number of the next frame to be sent."""
        number = self.next_out
        self.next_out = (number + 1) % NUMBER_LIMIT
        return number

    def take(self, number: int) -> None:
        """Take in a frame's number, which is the next one (F2)."""
        check(number == self.next_in, f"Frame {number} came where {self.next_in} was due.")
        self.next_in = (number + 1) % NUMBER_LIMIT
