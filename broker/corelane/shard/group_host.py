"""A coordinator of consumer groups: one for each partition of `__consumer_offsets` that leads here.

It decides (`groups/coordinator.py`); how its word is kept and given out is `host.py`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from corelane.groups.consumer_requests import (
    ConsumerGroupDescription,
    ConsumerGroupSettings,
    Migration,
)
from corelane.groups.coordinator import GroupCoordinator, GroupRecord
from corelane.groups.records import GenerationRecord, OffsetRecord
from corelane.groups.requests import Answer, FetchOffsets, GroupSettings, Request
from corelane.model.config import GroupsConfig
from corelane.producers.open_transactions import Marker
from corelane.shard import consumer_group_records, group_records
from corelane.shard.host import AGAIN_MS, Host
from corelane.shard.latest import Change
from corelane.shard.partition import Partition
from corelane.shard.transaction_entries import NO_SEQUENCE
from corelane.wire.records import Producer

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

Done = Callable[[Answer | None], None]
"""Hears the answer; None: this core coordinates the group no more."""


def settings_of(config: GroupsConfig) -> GroupSettings:
    """Return what coordinators go by."""
    return GroupSettings(
        config.session_timeout_ms_min,
        config.session_timeout_ms_max,
        config.initial_delay_ms,
        config.members_max,
        config.metadata_bytes_max,
        config.offsets_retention_minutes * 60_000,
        ConsumerGroupSettings(
            session_timeout_ms=config.consumer_session_timeout_ms,
            heartbeat_interval_ms=config.consumer_heartbeat_interval_ms,
            migration=Migration(config.consumer_migration_policy),
            classic_size_max=config.members_max,
        ),
    )


def encode(made: GroupRecord) -> tuple[bytes, bytes | None]:
    """Return key and value of a record of either protocol."""
    if isinstance(made, OffsetRecord | GenerationRecord):
        return group_records.encode(made)
    return consumer_group_records.encode(made)


def decode(key: bytes, value: bytes | None) -> GroupRecord | None:
    """Return the record; None for kinds that are not known."""
    return group_records.decode(key, value) or consumer_group_records.decode(key, value)


class GroupHost(Host):
    """One coordinator at work."""

    def __init__(self, shard: "Shard", partition: Partition, ended: Callable[[], None]) -> None:
        super().__init__(shard, partition, ended)
        settings = settings_of(shard.config.config.groups)
        self.coordinator = GroupCoordinator(settings, shard.groups.hosts.topics())
        self._deleted: set[str] = set()
        self._replay()
        self.coordinator.loaded(shard.now_ms, shard.wall_ms)
        self._settle()

    def _replay(self) -> None:
        latest = self.partition.latest
        assert latest is not None, "only coordinators' topics have one"
        for key, value in latest.items.items():
            found = decode(key, value)
            if found is not None:
                self.coordinator.replay(found)
        for producer_id, opened in latest.open.items():
            for key, change in opened.changes:
                found = group_records.decode(key, change)
                if isinstance(found, OffsetRecord):
                    self.coordinator.replay_pending(producer_id, found)
        self.partition.marked = self._marked

    def ask(self, request: Request, done: Done) -> None:
        """Have a request decided; *done* is called once, perhaps before this returns."""
        if isinstance(request, FetchOffsets):
            self._when_current(partial(self._ask, request, done), done)
        else:
            self._ask(request, done)

    def _ask(self, request: Request, done: Done) -> None:
        token, shard = self._wait(done), self._shard
        self.coordinator.settings = settings_of(shard.config.config.groups)
        self.coordinator.topics = shard.groups.hosts.topics()
        self.coordinator.handle(shard.now_ms, shard.wall_ms, token, request)
        self._settle()

    def topics_deleted(self, names: set[str]) -> None:
        """Forget what was committed of topics that are no more."""
        self._deleted |= names
        self.tick()

    def tick(self) -> None:
        """Let the coordinator act on its deadlines, and on what happened to topics.

        Not while the partition is handed over or moved: nothing may be appended to it then.
        """
        if not self.partition.serves:
            self._look_at(self._shard.now_ms + AGAIN_MS)
            return
        if self._deleted:
            self.coordinator.topics_deleted(self._deleted)
            self._deleted = set()
        self.coordinator.topics = self._shard.groups.hosts.topics()
        self.coordinator.tick(self._shard.now_ms, self._shard.wall_ms)
        self._settle()

    def describe_consumers(self, name: str) -> ConsumerGroupDescription | None:
        """Return what there is to see of a group of the new protocol; None: it is none."""
        return self.coordinator.consumers.describe(name, self._shard.groups.hosts.topics())

    def _marked(self, marker: Marker) -> None:
        """Take in that a transaction has ended here; its marker is committed."""
        self.coordinator.marker(marker.producer_id, commits=marker.is_commit)

    def end(self) -> None:
        if self.partition.marked == self._marked:
            self.partition.marked = None
        super().end()

    # --- for `Host` ---

    def _decide(self) -> Callable[[], None] | None:
        outcome = self.coordinator.take()
        if outcome.records:
            self._put([encode(each) for each in outcome.records])
        for pending in outcome.pending:
            made = [
                group_records.encode(OffsetRecord(group, *place, offset))
                for group, place, offset in pending.offsets
            ]
            self._put(made, Producer(pending.producer_id, pending.producer_epoch, NO_SEQUENCE))
        return partial(self._deliver, outcome.answers) if outcome.answers else None

    def _live(self) -> Iterator[Change]:
        for made in self.coordinator.live_records():
            yield encode(made)

    def _next_ms(self) -> int:
        return self.coordinator.next_deadline_ms
