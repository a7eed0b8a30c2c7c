"""The fetch sessions of one core (KIP-227): what a client has asked for before, and was told.

A client with a session names only what has changed since its last request, and is answered with
what has news only. The rules are those of Kafka's FetchManager; they are soft state, so a client
whose session is gone is told so and names everything again.

Invariants:
F1. A session's epoch is the one its client must send next; 1 follows the full request that opened
    it, and 1 follows the greatest one.
F2. At most as many sessions as `max.incremental.fetch.session.cache.slots` says, with
    `SESSION_ROWS_MAX` partitions together, are kept. A new one takes the place of those that were
    not used for `EVICTION_MS`; where there are none its client gets no session, and goes on naming
    everything. Where the setting is lowered, sessions that are in use stay.
"""

# performance-critical: see STYLE.md

from collections.abc import Callable, Sequence
from typing import Final

from corelane.model.limits import INT32_MAX
from corelane.shard.config import Random
from corelane_native import FetchRow

SESSION_ROWS_MAX: Final = 500_000
EVICTION_MS: Final = 120_000
"""Kafka's MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS."""
NO_SESSION: Final = 0
FINAL_EPOCH: Final = -1
INITIAL_EPOCH: Final = 0

NamedRow = tuple[bytes, FetchRow]
"""A topic, by its name or id as the request has it, and a partition of it as it was asked for."""


class SessionPartition:
    """A partition of a session: how it is asked for, and what its client was told last."""

    __slots__ = ("high_watermark", "log_start_offset", "name", "row")

    def __init__(self, name: bytes, row: FetchRow) -> None:
        self.name = name
        self.row = row
        self.high_watermark = -1
        self.log_start_offset = -1

    def has_news(
        self, error: int, size_bytes: int, high_watermark: int, log_start_offset: int
    ) -> bool:
        """Say whether the client must be told of this, and remember that it is."""
        has_news = (
            size_bytes > 0
            or error != 0
            or high_watermark != self.high_watermark
            or log_start_offset != self.log_start_offset
        )
        # After an error it is told in any case how the partition fares, when it does again.
        self.high_watermark = -1 if error else high_watermark
        self.log_start_offset = log_start_offset
        return has_news


class FetchSession:
    """One client's session; `partitions` are in the order in which they are answered."""

    __slots__ = ("epoch", "has_ids", "number", "partitions", "used_ms")

    def __init__(self, number: int, *, has_ids: bool, now_ms: int) -> None:
        self.number = number
        self.has_ids = has_ids
        self.epoch = INITIAL_EPOCH + 1
        self.used_ms = now_ms
        self.partitions: dict[tuple[bytes, int], SessionPartition] = {}

    def advance(self) -> None:
        """Take note that a request with the expected epoch came (F1)."""
        self.epoch = 1 if self.epoch == INT32_MAX else self.epoch + 1

    def put(self, rows: Sequence[NamedRow]) -> None:
        """Take what a request names: new partitions, and others asked for otherwise."""
        for name, row in rows:
            known = self.partitions.get((name, row[2]))
            if known is None:
                self.partitions[name, row[2]] = SessionPartition(name, row)
            else:
                known.row = row

    def to_the_end(self, key: tuple[bytes, int]) -> None:
        """Answer a partition last from now on: one with data must not starve the others."""
        self.partitions[key] = self.partitions.pop(key)


class FetchSessions:
    """All sessions of this core, the one unused longest first."""

    __slots__ = ("_by_number", "_random", "_slots", "evicted", "row_count")

    def __init__(self, source: Random, slots: Callable[[], int]) -> None:
        self._random = source
        self._slots = slots
        self._by_number: dict[int, FetchSession] = {}
        self.row_count = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def open(self, rows: Sequence[NamedRow], now_ms: int, *, has_ids: bool) -> FetchSession | None:
        """Make a session of all that a full request names; None where there is no room (F2)."""
        if not rows or not self._make_room(len(rows), now_ms):
            return None
        number = NO_SESSION
        while number == NO_SESSION or number in self._by_number:
            number = 1 + self._random.randrange(INT32_MAX)
        session = FetchSession(number, has_ids=has_ids, now_ms=now_ms)
        session.put(rows)
        self._by_number[number] = session
        self.row_count += len(session.partitions)
        return session

    def find(self, number: int) -> FetchSession | None:
        """Return a session by its number."""
        return self._by_number.get(number)

    def use(
        self,
        session: FetchSession,
        rows: Sequence[NamedRow],
        forgotten: Sequence[tuple[bytes, int]],
        now_ms: int,
    ) -> None:
        """Take a request of *session*: what it adds, changes and forgets.

        One that has nothing left has ended: it is not found any more.
        """
        assert self._by_number[session.number] is session
        before = len(session.partitions)
        for key in forgotten:
            session.partitions.pop(key, None)
        session.put(rows)
        session.advance()
        session.used_ms = now_ms
        self.row_count += len(session.partitions) - before
        del self._by_number[session.number]
        if session.partitions:
            self._by_number[session.number] = session  # at the end: used last

    def remove(self, number: int) -> None:
        """End a session, if there is one of that number."""
        session = self._by_number.pop(number, None)
        if session is not None:
            self.row_count -= len(session.partitions)
        assert self.row_count >= 0

    def _make_room(self, row_count: int, now_ms: int) -> bool:
        """Give up sessions that were not used for long, as many as it takes (F2)."""
        slots = self._slots()
        while len(self) >= slots or self.row_count + row_count > SESSION_ROWS_MAX:
            oldest = next(iter(self._by_number.values()), None)
            if oldest is None or now_ms - oldest.used_ms < EVICTION_MS:
                return False
            self.remove(oldest.number)
            self.evicted += 1
        return True
