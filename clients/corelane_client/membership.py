"""Keeps one member in a classic group: joins, syncs, beats, leaves, and comes back when it must.

One task (`run`) speaks with the coordinator; the one that reads does what the application notices.
It is called for that (`calls`), and the group is joined again only when it has done everything:

M1  While partitions are read that this member has, its heartbeats go on, also while it waits for
    the application; a member that the application holds up for too long leaves.
M2  JoinGroup is sent when nothing is read (eager), or only what it claims to own (cooperative).
M3  Who is told that it is no member any more has lost all it had, and says so before it has more.
"""

import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import trio

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane_client import protocol
from corelane_client.assignors import ASSIGNORS, Member, is_cooperative
from corelane_client.coordinators import Coordinator, Kind
from corelane_client.errors import ClientError
from corelane_client.group_offsets import LANE, NOBODY, Membership, Place
from corelane_client.group_settings import GroupSettings
from corelane_client.groups import CONSUMER
from corelane_client.pool import RETRY_BACKOFF_S, RETRY_BACKOFF_S_MAX, Pool
from corelane_client.protocol import Api
from corelane_client.subscriptions import (
    NO_GENERATION,
    Subscription,
    assigned,
    decode_subscription,
    encode_assignment,
    encode_subscription,
    places,
)
from corelane_client.upkeep import METADATA_AGE_S_MAX

_JOIN_LANE: Final = "join"
"""Coordinators hold joins back until everybody has come; heartbeats must not wait behind them."""
GONE: Final = frozenset(
    {
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.REBALANCE_IN_PROGRESS,
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


class _LostError(Exception):
    """The coordinator knows this member no more."""


class _AgainError(Exception):
    """The group has begun to decide anew meanwhile."""


class GroupMember:
    """This process in its group."""

    def __init__(self, pool: Pool, wish: Wish, settings: GroupSettings, reader: ReaderSide) -> None:
        self.coordinator = Coordinator(pool, Kind.GROUP, wish.name)
        self.name = wish.name
        self.calls: deque[Call] = deque()
        self.owned: frozenset[Place] = frozenset()
        """What the reader reads, or may begin to."""
        self.is_cooperative = is_cooperative(settings.assignors)
        self.failure: ClientError | None = None
        """Why this member is in no group and tries no more."""
        self._pool = pool
        self._topics = wish.topics
        self._settings = settings
        self._reader = reader
        self._member_id = ""
        self._generation = NO_GENERATION
        self._protocol: str | None = None
        self._shared_topics: frozenset[str] | None = None
        self._counts: dict[str, int] = {}
        self._rejoin = trio.Event()
        self._attended = trio.Event()
        self._troubled_since_s = math.inf
        self._idle_since_s = math.inf
        self._seen: object = None

    @property
    def membership(self) -> Membership:
        """Who commits offsets: this member, as far as it is one."""
        if self._generation == NO_GENERATION:
            return NOBODY
        return Membership(self._generation, self._member_id, self._settings.instance_id)

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
                await self._settle()
                given = await self._join()
                backoff_s = RETRY_BACKOFF_S
                self._call(Take(given))
                await self._stay()
                if not self.is_cooperative:
                    self._call(Release())
            except _AgainError:
                pass
            except _LostError:
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

    async def leave(self) -> None:
        """Let the others go on at once; a static member is waited for instead. Raises ClientError.

        `run` must have ended.
        """
        if not self._member_id or self._settings.instance_id is not None:
            return
        row = protocol.message(
            "LeaveGroupRequest.MemberIdentity",
            member_id=self._member_id,
            reason="the consumer was closed",
        )
        body = protocol.message(
            "LeaveGroupRequest", group_id=self.name, member_id=self._member_id, members=[row]
        )
        self._member_id = ""
        self._generation = NO_GENERATION
        await self.coordinator.request(Api.LEAVE_GROUP, body, lane=LANE)

    async def _settle(self) -> None:
        """Wait until the reader has done all it was called for."""
        while self.calls:
            self._attended = trio.Event()
            with trio.move_on_after(self._settings.heartbeat_interval_ms / 1000):
                await self._attended.wait()
                continue
            if self._generation != NO_GENERATION:
                await self._beat()

    async def _stay(self) -> None:
        """Be a member until the group is to be joined again."""
        while not self._rejoin.is_set():
            with trio.move_on_after(self._settings.heartbeat_interval_ms / 1000):
                await self._rejoin.wait()
                break
            if await self._beat() or await self._have_topics_changed():
                break

    async def _beat(self) -> bool:
        """Tell the coordinator that this member lives; return whether the group rebalances."""
        await self._watch_application()
        body = protocol.message(
            "HeartbeatRequest",
            group_id=self.name,
            generation_id=self._generation,
            member_id=self._member_id,
            group_instance_id=self._settings.instance_id,
        )
        try:
            answer = await self.coordinator.request(Api.HEARTBEAT, body, lane=LANE)
            if answer.error_code == ErrorCode.REBALANCE_IN_PROGRESS:
                return True
            self._check(answer.error_code)
        except ClientError as error:
            if not error.retriable:
                raise
            # The session goes on as long as its timeout says, whoever coordinates it.
            self._troubled(error)
            await trio.sleep(RETRY_BACKOFF_S)
            return False
        self._troubled_since_s = math.inf
        return False

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
            raise _LostError

    async def _have_topics_changed(self) -> bool:
        """Return whether what was shared out is not all there is any more; leaders look."""
        if self._shared_topics is None:
            return False
        if self._pool.age_s > METADATA_AGE_S_MAX:
            try:
                await self._pool.refresh(self._shared_topics)
            except ClientError as error:
                self._troubled(error)
        return self._partition_counts(self._shared_topics) != self._counts

    async def _join(self) -> frozenset[Place]:
        """Join the group and return what this member is given."""
        self._rejoin = trio.Event()
        joined = await self._ask_to_join()
        self._protocol = joined.protocol_name
        rows = []
        self._shared_topics = None
        if joined.leader == joined.member_id:
            rows = await self._assign(joined)
        body = protocol.message(
            "SyncGroupRequest",
            group_id=self.name,
            generation_id=joined.generation_id,
            member_id=joined.member_id,
            group_instance_id=self._settings.instance_id,
            protocol_type=CONSUMER,
            protocol_name=self._protocol,
            assignments=rows,
        )
        answer = await self._ask_slowly(Api.SYNC_GROUP, body)
        self._check(answer.error_code)
        self._generation = joined.generation_id
        self._troubled_since_s = math.inf
        return places(assigned(answer.assignment))

    async def _ask_to_join(self) -> Any:
        """Return the coordinator's answer once everybody has joined."""
        said = encode_subscription(Subscription(self._topics, self.owned, self._generation))
        protocols = [
            protocol.message("JoinGroupRequest.JoinGroupRequestProtocol", name=name, metadata=said)
            for name in self._settings.assignors
        ]
        while True:
            body = protocol.message(
                "JoinGroupRequest",
                group_id=self.name,
                session_timeout_ms=self._settings.session_timeout_ms,
                rebalance_timeout_ms=self._settings.max_poll_interval_ms,
                member_id=self._member_id,
                group_instance_id=self._settings.instance_id,
                protocol_type=CONSUMER,
                protocols=protocols,
            )
            answer = await self._ask_slowly(Api.JOIN_GROUP, body)
            if answer.error_code != ErrorCode.MEMBER_ID_REQUIRED:
                self._check(answer.error_code)
                self._member_id = answer.member_id
                return answer
            self._member_id = answer.member_id

    async def _ask_slowly(self, api: Api, body: Any) -> Any:
        """Ask what is answered when all members have said something."""
        timeout_ms = self._settings.max_poll_interval_ms
        return await self.coordinator.request(api, body, timeout_ms=timeout_ms, lane=_JOIN_LANE)

    async def _assign(self, joined: Any) -> list[Any]:
        """Decide who reads what, as the leader."""
        members = [
            Member(row.member_id, row.group_instance_id, decode_subscription(row.metadata))
            for row in joined.members
        ]
        topics = frozenset[str]().union(*(each.subscription.topics for each in members))
        await self._pool.refresh(topics)
        self._shared_topics = topics
        self._counts = self._partition_counts(topics)
        if joined.skip_assignment:
            return []
        given = ASSIGNORS[joined.protocol_name](members, self._counts)
        return [
            protocol.message(
                "SyncGroupRequest.SyncGroupRequestAssignment",
                member_id=member_id,
                assignment=encode_assignment(some),
            )
            for member_id, some in given.items()
        ]

    def _partition_counts(self, topics: frozenset[str]) -> dict[str, int]:
        known = self._pool.topics
        return {topic: len(known[topic].partitions) for topic in topics if topic in known}

    def _check(self, code: int) -> None:
        """Raise what an answer's error means for a member."""
        if code == ErrorCode.UNKNOWN_MEMBER_ID:
            self._member_id = ""
            raise _LostError
        if code == ErrorCode.ILLEGAL_GENERATION:
            raise _LostError
        if code == ErrorCode.REBALANCE_IN_PROGRESS:
            raise _AgainError
        self.coordinator.check(code)

    def _troubled(self, error: ClientError) -> None:
        """The coordinator cannot be asked. The reader hears of it when that lasts too long."""
        now_s = trio.current_time()
        self._troubled_since_s = min(self._troubled_since_s, now_s)
        if now_s - self._troubled_since_s > self._pool.settings.retry_timeout_ms / 1000:
            self._troubled_since_s = math.inf
            self._reader.failed(error)

    def _lose(self) -> None:
        """Nothing is this member's any more (M3)."""
        self._generation = NO_GENERATION
        self._seen = None
        if self.owned or self.calls:
            self._call(Lose())

    def _call(self, call: Call) -> None:
        """Have the reader do something before it returns another record."""
        self.calls.append(call)
        self._reader.called()
