"""When a transaction has been open for too long, and when an id has been unused for too long."""

import heapq
from collections import OrderedDict

_SPARE: int = 64
"""Heap entries kept beyond twice the ids before the heap is built anew."""


class Timers:
    """At most one deadline per transactional id, in monotonic milliseconds.

    Ids that are unused expire in the order of their last use, which costs nothing to keep;
    transactions have timeouts of their own and need a heap. What is out of date there is passed
    over, and swept when it is more than what is current.
    """

    __slots__ = ("_heap", "_timeouts", "_unused")

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._timeouts: dict[str, int] = {}
        self._unused: OrderedDict[str, int] = OrderedDict()

    @property
    def next_deadline_ms(self) -> int | None:
        """Return when to look again, or None."""
        timeout_ms = self._next_timeout_ms()
        unused_ms = next(iter(self._unused.values()), None)
        if timeout_ms is None or unused_ms is None:
            return unused_ms if timeout_ms is None else timeout_ms
        return min(timeout_ms, unused_ms)

    def clear(self, transactional_id: str) -> None:
        """Wait for nothing of this id."""
        self._timeouts.pop(transactional_id, None)
        self._unused.pop(transactional_id, None)

    def open_until(self, transactional_id: str, deadline_ms: int) -> None:
        """Abort the transaction then, unless it is over."""
        self.clear(transactional_id)
        self._timeouts[transactional_id] = deadline_ms
        heapq.heappush(self._heap, (deadline_ms, transactional_id))
        if len(self._heap) > 2 * len(self._timeouts) + _SPARE:
            self._heap = [(at_ms, name) for name, at_ms in self._timeouts.items()]
            heapq.heapify(self._heap)

    def unused_until(self, transactional_id: str, deadline_ms: int) -> None:
        """Forget the id then, unless it is used again; called in the order of deadlines."""
        self.clear(transactional_id)
        self._unused[transactional_id] = deadline_ms

    def due(self, now_ms: int, count_max: int) -> tuple[list[str], list[str]]:
        """Take the ids whose transactions, and those whose use, have come to their end."""
        timed_out: list[str] = []
        while len(timed_out) < count_max:
            timeout_ms = self._next_timeout_ms()
            if timeout_ms is None or timeout_ms > now_ms:
                break
            name = heapq.heappop(self._heap)[1]
            del self._timeouts[name]
            timed_out.append(name)
        expired: list[str] = []
        while self._unused and len(timed_out) + len(expired) < count_max:
            name, at_ms = next(iter(self._unused.items()))
            if at_ms > now_ms:
                break
            del self._unused[name]
            expired.append(name)
        return timed_out, expired

    def _next_timeout_ms(self) -> int | None:
        heap = self._heap
        while heap and self._timeouts.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None
