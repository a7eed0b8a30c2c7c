"""What members of both group protocols have in common: their word with the task that reads.

One task speaks with the coordinator; the one that reads does what the application notices. It is
called for that (`calls`), in order, before it returns another record.

M1  While partitions are read that this member has, its heartbeats go on, also while it waits for
    the application; a member that the application holds up for too long leaves.
M3  Who is told that it is no member any more has lost all it had, and says so before it has more.
"""

import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane_client.coordinators import Coordinator, Kind
from corelane_client.errors import ClientError
from corelane_client.group_offsets import NOBODY, Membership, Place
from corelane_client.group_settings import GroupSettings
from corelane_client.pool import RETRY_BACKOFF_S, RETRY_BACKOFF_S_MAX, Pool

GONE: Final = frozenset(
    {
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.REBALANCE_IN_PROGRESS,
        ErrorCode.STALE_MEMBER_EPOCH,
    }
)
"""The group goes on without this member, or is about to: what it has not committed others read."""


@record
class Take:
    """These partitions are this member's now, and no others."""

    partitions: frozenset[Place]


@record
class Release:
    """Nothing is to be read until more is said."""


@record
class Lose:
    """The group has given everything to others."""


Call = Take | Release | Lose


@record
class ReaderSide:
    """What a member needs of the task that reads."""

    called: Callable[[], None]
    """Have it look at `calls` and `failure` before it returns another record."""
    failed: Callable[[ClientError], None]
    """Tell it of an error that has lasted."""
    progress: Callable[[], object]
    """Something that is another value once it has asked for more; None while it waits for more."""


@record
class Wish:
    """Which group, and what of it this member wants to read."""

    name: str
    topics: frozenset[str]
    pattern: str | None = None
    """Instead of topics: a regular expression that their whole names match."""


class LostError(Exception):
    """The coordinator knows this member no more."""


class GroupMember:
    """This process in its group, by one protocol or the other."""

    def __init__(self, pool: Pool, wish: Wish, settings: GroupSettings, reader: ReaderSide) -> None:
        self.coordinator = Coordinator(pool, Kind.GROUP, wish.name)
        self.name = wish.name
        self.calls: deque[Call] = deque()
        self.owned: frozenset[Place] = frozenset()
        """What the reader reads, or may begin to."""
        self.failure: ClientError | None = None
        """Why this member is in no group and tries no more."""
        self._pool = pool
        self._wish = wish
        self._settings = settings
        self._reader = reader
        self._rejoin = trio.Event()
        self._attended = trio.Event()
        self._troubled_since_s = math.inf
        self._idle_since_s = math.inf
        self._seen: object = None

    @property
    def membership(self) -> Membership:
        """Who commits offsets: this member, as far as it is one."""
        return NOBODY

    def attended(self, owned: frozenset[Place]) -> None:
        """The reader has done what the oldest call asked for, and reads *owned* now."""
        self.owned = owned
        self.calls.popleft()
        self._attended.set()

    def rejoin(self) -> None:
        """Have the group decide anew."""
        self._rejoin.set()

    async def run(self) -> None:
        """Be a member until cancelled, or until the group refuses it for good."""
        backoff_s = RETRY_BACKOFF_S
        while True:
            try:
                await self._go_on()
                backoff_s = RETRY_BACKOFF_S
            except LostError:
                self._lose()
            except ClientError as error:
                if not error.retriable:
                    self.failure = error
                    self._lose()
                    self._reader.called()
                    return
                self._troubled(error)
                await trio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, RETRY_BACKOFF_S_MAX)

    async def _go_on(self) -> None:
        """Take the next step of a member's life, which may last long."""
        raise NotImplementedError

    async def leave(self) -> None:
        """Let the others go on at once. Raises ClientError. `run` must have ended."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Be no member any more."""
        raise NotImplementedError

    async def _watch_application(self) -> None:
        """Leave when the application is stuck (M1)."""
        now_s = trio.current_time()
        seen = self._reader.progress()
        if seen is None or seen != self._seen:
            self._seen = seen
            self._idle_since_s = now_s
        elif now_s - self._idle_since_s > self._settings.max_poll_interval_ms / 1000:
            with suppress(ClientError):  # the session's end does the same, later
                await self.leave()
            raise LostError

    def _is_well(self) -> None:
        """The coordinator was asked, and has answered."""
        self._troubled_since_s = math.inf

    def _troubled(self, error: ClientError) -> None:
        """The coordinator cannot be asked. The reader hears of it when that lasts too long."""
        now_s = trio.current_time()
        self._troubled_since_s = min(self._troubled_since_s, now_s)
        if now_s - self._troubled_since_s > self._pool.settings.retry_timeout_ms / 1000:
            self._troubled_since_s = math.inf
            self._reader.failed(error)

    def _lose(self) -> None:
        """Nothing is this member's any more (M3)."""
        self._forget()
        self._seen = None
        if self.owned or self.calls:
            self._call(Lose())

    def _call(self, call: Call) -> None:
        """Have the reader do something before it returns another record."""
        self.calls.append(call)
        self._reader.called()
