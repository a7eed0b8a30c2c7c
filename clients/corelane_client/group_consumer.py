"""Reads topics together with the other members of a consumer group."""

import re
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Final, Self, assert_never

import trio

from corelane.model.errors import ErrorCode
from corelane_client import group_offsets
from corelane_client.connection import Connect, connect_tcp
from corelane_client.errors import ClientError, KafkaError
from corelane_client.fetching import Assigned
from corelane_client.group_member import (
    GONE,
    GroupMember,
    Lose,
    ReaderSide,
    Release,
    Take,
    Wish,
)
from corelane_client.group_offsets import NOBODY, CommittedAt, Membership, Place
from corelane_client.group_settings import GroupSettings, RebalanceListener
from corelane_client.membership import ClassicMember
from corelane_client.offsets import NO_OFFSET, Edge
from corelane_client.reading import Reader
from corelane_client.server_member import ServerMember

_CLOSE_S_MAX: Final = 10.0
"""How long the end of a block may take to commit and to leave, whatever the coordinator does."""


class GroupConsumer(Reader):
    """A member of a consumer group, to be used in an `async with` block.

        async with GroupConsumer("127.0.0.1:9092", "billing", ["orders"]) as consumer:
            async for record in consumer:
                await charge(record)

    Instead of topics there may be a `re.Pattern`, which whole names of topics are to match: those
    that are made later, too. Entering connects and raises ClientError when no broker answers or a
    topic does not exist.
    Iterating waits for records for ever. Which partitions come is the group's affair; it may decide
    anew at any time, which takes effect between two records (`GroupSettings.listener` hears of it).

    A record counts as dealt with once the next one is asked for, or the block ends without an
    exception. What was dealt with is committed every few seconds, before a partition goes to
    another member, and at the end, so every record is dealt with at least once; after a crash some
    come again. Without `auto_commit` only `commit` does that.

    While the coordinator moves or dies, iterating goes on with what is assigned; after
    `retry_timeout_ms` without any success it raises, and may go on. What can never succeed, such as
    a group that shares partitions in other ways, is raised again and again.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str,
        topics: Collection[str] | re.Pattern[str],
        settings: GroupSettings | None = None,
        connect: Connect = connect_tcp,
    ) -> None:
        self._group = settings or GroupSettings()
        super().__init__(bootstrap, self._group.consumer, connect)
        pattern = topics.pattern if isinstance(topics, re.Pattern) else None
        self._topics = frozenset[str]() if isinstance(topics, re.Pattern) else frozenset(topics)
        reader = ReaderSide(self._called, self._fetcher.fail, self._progress)
        kind = ServerMember if self._group.protocol == "consumer" else ClassicMember
        wish = Wish(group, self._topics, pattern)
        self._member: GroupMember = kind(self._pool, wish, self._group, reader)
        self._listener = self._group.listener or RebalanceListener()
        self._unannounced: set[Place] = set()
        self._committed: dict[Place, int] = {}
        self._committing = trio.Lock()
        self._scope = trio.CancelScope()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            for topic in self._topics:
                await self._pool.retry(partial(self._pool.topic, topic))
        except BaseException as error:
            await super().__aexit__(type(error), error, error.__traceback__)
            raise
        self._pool.nursery.start_soon(self._be_member)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._scope.cancel()
            if error is None:
                self._in_hand = NO_OFFSET
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S_MAX):
                await self._leave()
        except ClientError:
            if error is None:
                raise
        finally:
            await super().__aexit__(kind, error, traceback)

    @property
    def partitions(self) -> list[Place]:
        """What this member reads now: topics and partition numbers, in order."""
        return sorted(self._fetcher.assigned)

    @property
    def group(self) -> str:
        """The name of the group."""
        return self._member.name

    @property
    def membership(self) -> Membership:
        """Who this is in the group, as transactions want to know it."""
        return self._member.membership

    def positions(self) -> dict[Place, CommittedAt]:
        """Return how far was read: behind the last record that was returned of each partition."""
        return {
            place: CommittedAt(assigned.position, assigned.leader_epoch)
            for place, assigned in self._fetcher.assigned.items()
        }

    async def commit(self, offsets: Mapping[Place, int] | None = None) -> None:
        """Commit *offsets*, or everything that was returned. Raises ClientError.

        KafkaError REBALANCE_IN_PROGRESS and ILLEGAL_GENERATION say that the group decides anew:
        ask for the next record, and commit what is still assigned then.
        """
        if offsets is None:
            wanted = self.positions()
        else:
            wanted = {place: CommittedAt(offset) for place, offset in offsets.items()}
        async with self._committing:
            await self._commit(wanted)

    async def committed(self) -> dict[Place, int]:
        """Return what the group has committed of the partitions that are read here."""
        found = await self._fetch_committed(self.partitions)
        return {place: at.offset for place, at in found.items()}

    async def rewind(self) -> None:
        """Go back to what the group has committed, after a transaction was aborted."""
        await self._begin(self.partitions)

    # What the membership needs.

    def _called(self) -> None:
        self._is_called = True
        self._fetcher.call()

    def _progress(self) -> object:
        if self._is_waiting:
            return None
        return self._in_hand, self._source, len(self._records), self._next

    async def _be_member(self) -> None:
        """Be a member, and commit what is dealt with, until the block ends."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._member.run)
                if self._group.auto_commit:
                    nursery.start_soon(self._commit_regularly)

    # What the reading task does between two records.

    def _is_finished(self) -> bool:
        return False

    async def _attend(self) -> None:
        member = self._member
        if member.calls:
            match member.calls[0]:
                case Take() as call:
                    owned = call.partitions
                    await self._take(owned)
                case Release():
                    owned = frozenset()
                    await self._give(self.partitions)
                case Lose():
                    owned = frozenset()
                    await self._lose()
                case _ as never:
                    assert_never(never)
            member.attended(owned)
        elif member.failure is not None:
            raise member.failure
        self._is_called = bool(member.calls) or member.failure is not None

    async def _take(self, given: frozenset[Place]) -> None:
        """Read *given* and nothing else."""
        gone = [place for place in self.partitions if place not in given]
        if gone:
            await self._give(gone)
            self._member.rejoin()
        new = sorted(given - self._fetcher.assigned.keys())
        if new:
            await self._begin(new)
            self._unannounced.update(new)
        if self._unannounced:
            told = sorted(self._unannounced)
            self._unannounced.clear()
            await self._listener.assigned(told)

    async def _give(self, gone: list[Place]) -> None:
        """Read *gone* no more; others are to go on where this member ends."""
        if not gone:
            return
        if self._group.auto_commit:
            await self._commit_settled(gone)
        await self._listener.revoked(gone)
        self._drop(gone)

    async def _lose(self) -> None:
        """Others read what was read here."""
        gone = self.partitions
        self._drop(gone)
        if gone:
            await self._listener.lost(gone)

    def _drop(self, gone: Iterable[Place]) -> None:
        for place in gone:
            self._fetcher.drop(*place)
            self._committed.pop(place, None)
            self._unannounced.discard(place)

    async def _begin(self, places: list[Place]) -> None:
        """Read *places* from where the group is."""
        committed = await self._fetch_committed(places)
        starts = {place: at.offset for place, at in committed.items()}
        fresh: dict[str, list[int]] = {}
        for topic, number in places:
            if (topic, number) not in committed:
                fresh.setdefault(topic, []).append(number)
        for topic, numbers in fresh.items():
            found = await self._resolve(topic, numbers, Edge(self._group.start))
            starts.update({(topic, number): offset for number, offset in found.items()})
        for place in places:
            self._fetcher.drop(*place)
            self._fetcher.assigned[place] = Assigned(*place, starts[place], None)
            if place in committed:
                self._committed[place] = starts[place]
        self._fetcher.wake()

    async def _fetch_committed(self, places: Collection[Place]) -> dict[Place, CommittedAt]:
        member = self._member
        is_stable = self._settings.isolation == "read_committed"
        return await self._pool.retry(
            lambda: group_offsets.fetch(
                member.coordinator, member.name, places, is_stable=is_stable
            )
        )

    # Commits.

    def _settled(self, places: Iterable[Place]) -> dict[Place, CommittedAt]:
        """Return how far each was dealt with: not the records the application has in hand.

        What was lost while somebody waited to commit is left out.
        """
        found = {}
        for place in places:
            assigned = self._fetcher.assigned.get(place)
            if assigned is None:
                continue
            position = assigned.position
            if self._in_hand != NO_OFFSET and self._source == (assigned, assigned.generation):
                position = self._in_hand
            found[place] = CommittedAt(position, assigned.leader_epoch)
        return found

    async def _commit_settled(self, places: Iterable[Place]) -> None:
        """Commit what was dealt with, unless the group goes on without this member anyway."""
        async with self._committing:
            try:
                await self._commit(self._settled(places))
            except KafkaError as error:
                if error.code not in GONE:
                    raise

    async def _commit(self, wanted: Mapping[Place, CommittedAt]) -> None:
        """Commit what is not committed yet. Only with the lock."""
        news = {
            place: at for place, at in wanted.items() if self._committed.get(place) != at.offset
        }
        if not news:
            return
        member = self._member

        async def attempt() -> None:
            membership = member.membership
            if membership == NOBODY:
                raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, member.coordinator.what)
            try:
                await group_offsets.commit(member.coordinator, member.name, news, membership)
            except KafkaError as error:
                # A heartbeat has come to another epoch meanwhile: its member is the same.
                error.retriable |= error.code == ErrorCode.STALE_MEMBER_EPOCH
                raise

        await self._pool.retry(attempt)
        for place, at in news.items():
            self._committed[place] = at.offset

    async def _commit_regularly(self) -> None:
        while True:
            await trio.sleep(self._group.commit_interval_ms / 1000)
            try:
                await self._commit_settled(self.partitions)
            except ClientError as error:
                self._fetcher.fail(error)

    async def _leave(self) -> None:
        """Commit, tell the listener, and leave the group."""
        gone = self.partitions
        try:
            if not self._member.failure:
                await self._give(gone)
        finally:
            self._drop(gone)
            await self._member.leave()
