"""Keeps one member in a group of the new protocol (KIP-848): heartbeats say and hear everything.

The coordinator shares the partitions out. A member gives back what it is not to have any more, says
so by what it owns in its next heartbeat, and takes what is new: the coordinator gives away nothing
that somebody still has. Offsets are committed by the epoch that the last heartbeat told.
"""

import uuid
from typing import Any, Final

import trio

from corelane.model.errors import ErrorCode
from corelane_client import protocol
from corelane_client.errors import KafkaError
from corelane_client.group_member import GroupMember, LostError, ReaderSide, Take, Wish
from corelane_client.group_offsets import LANE, NOBODY, Membership, Place
from corelane_client.group_settings import GroupSettings
from corelane_client.pool import Pool
from corelane_client.protocol import Api

_JOINING: Final = 0
_LEAVING: Final = -1
_AWAY: Final = -2
"""Of a static member: it comes back, or its session ends."""
_UNSAID: Final = -1
_LOST: Final = frozenset(
    {
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.FENCED_MEMBER_EPOCH,
        ErrorCode.GROUP_ID_NOT_FOUND,
    }
)
"""Give up everything and join anew; the group may be another one, or a classic one by now."""


class ServerMember(GroupMember):
    """A member to which the coordinator says what it has."""

    def __init__(self, pool: Pool, wish: Wish, settings: GroupSettings, reader: ReaderSide) -> None:
        super().__init__(pool, wish, settings, reader)
        self._member_id = str(uuid.uuid4())
        self._epoch = _JOINING
        self._said: frozenset[Place] | None = None
        """What the coordinator was told last that is owned; None: say everything."""
        self._given: frozenset[Place] = frozenset()
        self._ids: dict[Place, bytes] = {}
        """The topic ids of what was given, to say them back."""
        self._interval_s = settings.heartbeat_interval_ms / 1000

    @property
    def membership(self) -> Membership:
        """Who commits offsets: this member, as far as it is one."""
        if self._epoch <= _JOINING:
            return NOBODY
        return Membership(self._epoch, self._member_id, self._settings.instance_id)

    def _forget(self) -> None:
        self._epoch, self._said = _JOINING, None
        self._given = frozenset()

    def attended(self, owned: frozenset[Place]) -> None:
        """The reader has done a call: what it gave back others may wait for."""
        super().attended(owned)
        self._rejoin.set()

    async def _go_on(self) -> None:
        """Say one heartbeat, and wait for the next."""
        while self._epoch == _JOINING and self.calls:  # M3
            self._attended = trio.Event()
            await self._attended.wait()
        self._rejoin = trio.Event()
        if self._epoch != _JOINING:
            await self._watch_application()
        owned = self.owned
        try:
            answer = await self._beat(owned)
        except BaseException:
            self._said = None  # whether it was heard nobody knows
            raise
        self._said = owned
        self._is_well()
        self._epoch = answer.member_epoch
        self._interval_s = answer.heartbeat_interval_ms / 1000
        if answer.assignment is not None:
            await self._take(answer.assignment)
        with trio.move_on_after(self._interval_s):
            await self._rejoin.wait()

    async def _beat(self, owned: frozenset[Place]) -> Any:
        """Say what is new, or everything, and return the answer."""
        says_all = self._epoch == _JOINING or self._said is None
        wish, settings = self._wish, self._settings
        is_by_name = wish.pattern is None
        body = self._request(self._epoch)
        if says_all:
            body.rebalance_timeout_ms = settings.max_poll_interval_ms
            body.subscribed_topic_names = sorted(wish.topics) if is_by_name else None
            body.subscribed_topic_regex = wish.pattern
            body.server_assignor = settings.server_assignor
        if says_all or owned != self._said:
            body.topic_partitions = self._rows(owned)
        answer = await self.coordinator.request(Api.CONSUMER_GROUP_HEARTBEAT, body, lane=LANE)
        if answer.error_code in _LOST:
            raise LostError
        if answer.error_code == ErrorCode.UNRELEASED_INSTANCE_ID:
            error = KafkaError(answer.error_code, self.coordinator.what, answer.error_message)
            error.retriable = True  # until the other one's session has ended
            raise error
        self.coordinator.check(answer.error_code, answer.error_message or self.coordinator.what)
        return answer

    def _request(self, epoch: int) -> Any:
        return protocol.message(
            "ConsumerGroupHeartbeatRequest",
            group_id=self.name,
            member_id=self._member_id,
            member_epoch=epoch,
            instance_id=self._settings.instance_id,
            rebalance_timeout_ms=_UNSAID,
            subscribed_topic_names=None,
            topic_partitions=None,
        )

    def _rows(self, owned: frozenset[Place]) -> list[Any]:
        topics: dict[bytes, list[int]] = {}
        for place in sorted(owned):
            topics.setdefault(self._ids[place], []).append(place[1])
        return [
            protocol.message(
                "ConsumerGroupHeartbeatRequest.TopicPartitions",
                topic_id=topic_id,
                partitions=numbers,
            )
            for topic_id, numbers in topics.items()
        ]

    async def _take(self, assignment: Any) -> None:
        """Have the reader read what is given, once the names of its topics are known."""
        names = await self._names({row.topic_id for row in assignment.topic_partitions})
        given = {}
        for row in assignment.topic_partitions:
            name = names.get(row.topic_id)
            if name is not None:
                given.update({(name, number): row.topic_id for number in row.partitions})
        kept = self.owned | self._given
        self._ids = {place: at for place, at in self._ids.items() if place in kept} | given
        known = frozenset(given)
        if known != self._given:
            self._given = known
            self._call(Take(known))

    async def _names(self, wanted: set[bytes]) -> dict[bytes, str]:
        """Return the names of topics; one that is gone again has none."""
        for attempt in range(2):
            found = {topic.topic_id: name for name, topic in self._pool.topics.items()}
            if wanted <= found.keys():
                break
            if attempt == 0:
                named = None if self._wish.pattern is not None else self._wish.topics
                await self._pool.refresh(named)
        return found

    async def leave(self) -> None:
        """Let the others go on at once; a static member keeps its place for a session.

        Raises ClientError. `run` must have ended.
        """
        if self._epoch <= _JOINING:
            return
        body = self._request(_LEAVING if self._settings.instance_id is None else _AWAY)
        self._epoch = _JOINING
        await self.coordinator.request(Api.CONSUMER_GROUP_HEARTBEAT, body, lane=LANE)
