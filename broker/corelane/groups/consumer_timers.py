"""Deadlines of the members of a group, by key, of which the next is cheap to know.

A heartbeat moves a session's deadline without touching the heap: the entry that is too early stays,
and is put where it belongs when its time comes. So there is one entry a key, and `next_deadline_ms`
may be too early but never too late.
"""

import heapq
from enum import IntEnum

Key = tuple["Timer", str]


class Timer(IntEnum):
    """What runs out."""

    SESSION = 0
    """Nothing was heard of the member."""
    REBALANCE = 1
    """The member has not given back what it was asked for."""
    JOIN = 2
    """A classic member was told to join again, and has not."""
    SYNC = 3
    """A classic member has joined, and not asked what it is to read."""


class Timers:
    """The deadlines; volatile, so they start empty after a failover."""

    __slots__ = ("_deadlines", "_heap", "_queued")

    def __init__(self) -> None:
        self._deadlines: dict[Key, int] = {}
        self._heap: list[tuple[int, Key]] = []
        self._queued: dict[Key, int] = {}

    def arm(self, timer: Timer, member_id: str, deadline_ms: int) -> None:
        """Set a deadline, or another one."""
        key = timer, member_id
        self._deadlines[key] = deadline_ms
        queued_ms = self._queued.get(key)
        if queued_ms is None or deadline_ms < queued_ms:
            self._queued[key] = deadline_ms
            heapq.heappush(self._heap, (deadline_ms, key))

    def arm_once(self, timer: Timer, member_id: str, deadline_ms: int) -> None:
        """Set a deadline unless there is one."""
        if (timer, member_id) not in self._deadlines:
            self.arm(timer, member_id, deadline_ms)

    def disarm(self, timer: Timer, member_id: str) -> None:
        """Take a deadline back; there need be none."""
        self._deadlines.pop((timer, member_id), None)

    def drop(self, member_id: str) -> None:
        """Take back every deadline of a member."""
        for timer in Timer:
            self.disarm(timer, member_id)

    @property
    def next_deadline_ms(self) -> int | None:
        """When `due` may have something; never later than it has."""
        return self._heap[0][0] if self._heap else None

    def due(self, now_ms: int) -> list[Key]:
        """Take out what has run out by *now_ms*, in order of its deadline."""
        found = []
        while self._heap and self._heap[0][0] <= now_ms:
            queued_ms, key = heapq.heappop(self._heap)
            if self._queued.get(key) != queued_ms:
                continue
            del self._queued[key]
            deadline_ms = self._deadlines.get(key)
            if deadline_ms is None:
                continue
            if deadline_ms > now_ms:
                self.arm(*key, deadline_ms)
            else:
                del self._deadlines[key]
                found.append(key)
        return found
