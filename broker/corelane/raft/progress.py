"""What a leader knows of one follower: how far it is, and how much is on the way to it.

    PROBE      the follower's end is a guess: one message, then wait for the answer or for a
               heartbeat's answer
    REPLICATE  the end is known: stream within the limits, `next_index` runs ahead
    SNAPSHOT   it needs what the log has no more: one is on its way, and nothing else is sent

Invariants: P1 `match_index < next_index`. P2 the last indexes in flight ascend and are above
`match_index`. P3 `inflight_bytes` is their sum. P4 nothing is in flight but in
REPLICATE.
"""

from collections import deque
from enum import Enum, auto
from typing import Final

from corelane.model.ids import Index
from corelane.raft.config import RaftSettings

ROUND_LIMIT: Final = 1 << 32
"""Rounds are u32 on the wire and wrap."""


class ProgressState(Enum):
    """How a follower is fed."""

    PROBE = auto()
    REPLICATE = auto()
    SNAPSHOT = auto()


class Progress:
    """One follower in one term of leadership. Nothing here can act."""

    __slots__ = (
        "_inflight",
        "caught_up_ms",
        "confirmed_ms",
        "heard_ms",
        "inflight_bytes",
        "is_paused",
        "match_index",
        "next_index",
        "round",
        "snapshot_ms",
        "state",
    )

    def __init__(self, next_index: Index, now_ms: int, caught_up_ms: int | None = None) -> None:
        assert next_index > 0
        self.match_index = Index(0)
        self.next_index = next_index
        self.round = 0
        self.state = ProgressState.PROBE
        self.is_paused = False
        self.heard_ms = now_ms
        self.confirmed_ms = -1
        """When the round was sent that it answered last: it followed then, or later."""
        self.caught_up_ms = now_ms if caught_up_ms is None else caught_up_ms
        """When it was last seen to have the whole log; a new leader gives it the benefit."""
        self.inflight_bytes = 0
        self.snapshot_ms = 0
        """When the snapshot was sent that it is to begin anew with."""
        self._inflight: deque[tuple[Index, int]] = deque()

    @property
    def inflight_count(self) -> int:
        """How many messages with entries are not acknowledged."""
        return len(self._inflight)

    def has_room(self, settings: RaftSettings) -> bool:
        """Say whether one more message with entries may be sent."""
        if self.state is not ProgressState.REPLICATE:
            return self.state is ProgressState.PROBE and not self.is_paused
        if self.inflight_bytes >= settings.inflight_bytes_max:
            return False
        return len(self._inflight) < settings.inflight_messages_max

    def sent(self, last_index: Index, size_bytes: int) -> None:
        """Note a message with the entries `next_index` to *last_index*."""
        assert last_index >= self.next_index
        assert self.state is not ProgressState.SNAPSHOT
        if self.state is ProgressState.PROBE:
            self.is_paused = True
            return
        self._inflight.append((last_index, size_bytes))
        self.inflight_bytes += size_bytes
        self.next_index = Index(last_index + 1)

    def acknowledged(self, match_index: Index, held_index: Index) -> None:
        """Take in an `Appended`, which may be old: what was durable once stays so."""
        assert match_index <= held_index
        inflight = self._inflight
        if match_index > self.match_index:
            self.match_index = match_index
            while inflight and inflight[0][0] <= match_index:
                self.inflight_bytes -= inflight.popleft()[1]
            assert self.inflight_bytes >= 0, "P3"
        if self.state is not ProgressState.REPLICATE:
            self.state = ProgressState.REPLICATE
            self.is_paused = False
            self.next_index = Index(max(held_index, self.match_index) + 1)
        elif held_index >= self.next_index:
            self.next_index = Index(held_index + 1)
        assert self.match_index < self.next_index

    def is_stale(self, rejected_round: int, rejected_index: Index) -> bool:
        """Say whether a rejection speaks of something long settled.

        When one append of a window is lost or late, all behind it are refused. Acting on each of
        them would send the window again each time: simulated, 864 entries made 760,000 messages.
        """
        return rejected_round != self.round or rejected_index <= self.match_index

    def back_up(self, next_index: Index) -> None:
        """Probe from *next_index*, but never below what is known to match; begins a round."""
        self.round = (self.round + 1) % ROUND_LIMIT
        self.state = ProgressState.PROBE
        self.is_paused = False
        self.next_index = Index(max(next_index, self.match_index + 1))
        assert self.match_index < self.next_index, "P1"
        self._inflight.clear()
        self.inflight_bytes = 0

    def forget(self) -> None:
        """The follower has lost what it acknowledged; `back_up` says from where on."""
        self.match_index = Index(0)

    def begin_anew(self, now_ms: int) -> None:
        """A snapshot is sent: wait for its acknowledgement."""
        assert self.state is ProgressState.PROBE
        self.state = ProgressState.SNAPSHOT
        self.snapshot_ms = now_ms

    def resume(self, now_ms: int) -> None:
        """Take in a heartbeat's answer: the follower lives, so a lost probe may be repeated."""
        self.heard_ms = now_ms
        self.is_paused = False
