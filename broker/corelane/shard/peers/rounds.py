"""When this core sends its heartbeats: to all peers at once, and when lower nodes send theirs.

Most of what an idle core costs is waking up. Where all nodes beat at the same moment, each wakes
up once for its own heartbeats, those of the others and all answers.

Invariants:
B1. Between two rounds of a core lie `PEER_BEAT_MS` less twice `PEER_BEAT_PULL_MS` or more, and,
    while its loop is punctual, no more than `PEER_BEAT_PULL_MS` and `GRACE_MS` above, whoever is
    heard: each round is moved once, and then joined to another one that is near.
B2. A core follows lower nodes only, so there is one that all others come to coincide with.
"""

from typing import Final

from corelane.model import limits

GRACE_MS: Final = limits.PEER_BEAT_PULL_MS // 2
"""How much longer one that follows others waits: it is to answer and beat at once, after them."""


class Rounds:
    """The rounds of heartbeats of one core."""

    __slots__ = ("_is_moved", "at_ms", "number")

    def __init__(self, now_ms: int) -> None:
        self.at_ms = now_ms
        self.number = 0
        """Of the last one that began."""
        self._is_moved = False

    def turn(self, now_ms: int) -> None:
        """Begin a round when it is due; the next is counted from when it was due, not from now."""
        if now_ms >= self.at_ms:
            due_ms = self.at_ms + limits.PEER_BEAT_MS
            self._begin(due_ms if due_ms > now_ms else now_ms + limits.PEER_BEAT_MS)

    def heard_lower(self, now_ms: int) -> None:
        """A lower node beats: come closer to it; one that is close is joined at once."""
        wait_ms = self.at_ms - now_ms
        next_ms = now_ms + limits.PEER_BEAT_MS + GRACE_MS
        if 0 < wait_ms <= limits.PEER_BEAT_PULL_MS:
            self._begin(next_ms)
            self._is_moved = True  # it has found whom to go with
            return
        if self._is_moved or wait_ms <= 0:
            return
        self._is_moved = True
        if wait_ms < limits.PEER_BEAT_MS - limits.PEER_BEAT_PULL_MS:
            self.at_ms -= limits.PEER_BEAT_PULL_MS
        else:
            self.at_ms = next_ms  # it was just a little earlier than the other: stay behind it

    def _begin(self, next_ms: int) -> None:
        self.number += 1
        self.at_ms = next_ms
        self._is_moved = False
