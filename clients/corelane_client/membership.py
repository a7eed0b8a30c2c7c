"""Keeps one member in a classic group: joins, syncs, beats, leaves, and comes back when it must.

As `group_member.py`, where M1 and M3 are; and

M2  JoinGroup is sent when nothing is read (eager), or only what it claims to own (cooperative).
"""

import re
from typing import Any, Final

import trio

from corelane.model.errors import ErrorCode
from corelane_client import protocol
from corelane_client.assignors import ASSIGNORS, Member, is_cooperative
from corelane_client.errors import ClientError
from corelane_client.group_member import (
    GroupMember,
    LostError,
    ReaderSide,
    Release,
    Take,
    Wish,
)
from corelane_client.group_offsets import LANE, NOBODY, Membership, Place
from corelane_client.group_settings import GroupSettings
from corelane_client.groups import CONSUMER
from corelane_client.pool import RETRY_BACKOFF_S, Pool
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


class _AgainError(Exception):
    """The group has begun to decide anew meanwhile."""


class ClassicMember(GroupMember):
    """A member whose leader, another client or this one, shares the partitions out."""

    def __init__(self, pool: Pool, wish: Wish, settings: GroupSettings, reader: ReaderSide) -> None:
        super().__init__(pool, wish, settings, reader)
        self.is_cooperative = is_cooperative(settings.assignors)
        self._topics = wish.topics
        self._member_id = ""
        self._generation = NO_GENERATION
        self._protocol: str | None = None
        self._shared_topics: frozenset[str] | None = None
        self._counts: dict[str, int] = {}
        self._matched_s = 0.0

    @property
    def membership(self) -> Membership:
        """Who commits offsets: this member, as far as it is one."""
        if self._generation == NO_GENERATION:
            return NOBODY
        return Membership(self._generation, self._member_id, self._settings.instance_id)

    def _forget(self) -> None:
        self._generation = NO_GENERATION

    async def _go_on(self) -> None:
        """Be in one generation, until the group is to be joined again."""
        try:
            await self._settle()
            given = await self._join()
            self._call(Take(given))
            await self._stay()
            if not self.is_cooperative:
                self._call(Release())
        except _AgainError:
            pass

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
        self._is_well()
        return False

    async def _have_topics_changed(self) -> bool:
        """Return whether what was shared out is not all there is any more; leaders look."""
        is_old = trio.current_time() - self._matched_s > METADATA_AGE_S_MAX
        if is_old and await self._match_topics():
            return True
        if self._shared_topics is None:
            return False
        if self._pool.age_s > METADATA_AGE_S_MAX:
            try:
                await self._pool.refresh(self._shared_topics)
            except ClientError as error:
                self._troubled(error)
        return self._partition_counts(self._shared_topics) != self._counts

    async def _match_topics(self) -> bool:
        """Look which topics the pattern matches, as clients do by this protocol."""
        if self._wish.pattern is None:
            return False
        before = self._topics
        await self._pool.refresh(None)
        self._matched_s = trio.current_time()
        self._topics = frozenset(
            name
            for name, topic in self._pool.topics.items()
            if not topic.is_internal and re.fullmatch(self._wish.pattern, name)
        )
        return self._topics != before

    async def _join(self) -> frozenset[Place]:
        """Join the group and return what this member is given."""
        self._rejoin = trio.Event()
        await self._match_topics()
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
        self._is_well()
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
            raise LostError
        if code == ErrorCode.ILLEGAL_GENERATION:
            raise LostError
        if code == ErrorCode.REBALANCE_IN_PROGRESS:
            raise _AgainError
        self.coordinator.check(code)
