"""The durable state of one consumer group: a fold of its records and of nothing else.

Live operation and replay go through `apply`, so that the state is always the one a restart finds.

Invariants:
C1. Same records, same state, in whatever order the records of different keys came between two
    records of one key: a log that was compacted or cut to live records gives the same.
C2. `owners` has exactly the partitions that are in the assigned or revoking ones of some member,
    each with that member. No partition is with two members; should a log say so in between, the
    later record counts, and what the earlier owner says afterwards takes nothing away.
C3. `name_counts`, `regex_counts`, `statics`, `classic_count` and `protocol_counts` are what the
    subscriptions of the members say.
"""

from collections.abc import Iterator
from typing import Final, TypeVar, assert_never

from corelane.groups.consumer_records import (
    CONSUMER_TYPE,
    NOTHING,
    ConsumerGroupCurrentMember,
    ConsumerGroupMember,
    ConsumerGroupMetadata,
    ConsumerGroupRecord,
    ConsumerGroupRegularExpression,
    ConsumerGroupTargetMember,
    ConsumerGroupTargetMetadata,
    CurrentAssignment,
    GroupEpoch,
    MemberState,
    MemberSubscription,
    Partition,
    Partitions,
    ResolvedRegex,
)

JOINING: Final = CurrentAssignment(0, 0, MemberState.STABLE, NOTHING, NOTHING)
"""Of a member that has not been given an epoch yet."""


class ConsumerState:
    """What is durable of a consumer group; read freely, changed by `apply` only."""

    __slots__ = (
        "assignment_epoch",
        "classic_count",
        "currents",
        "epoch",
        "exists",
        "group_id",
        "members",
        "metadata_hash",
        "name_counts",
        "owners",
        "protocol_counts",
        "regex_counts",
        "regexes",
        "statics",
        "targets",
    )

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.exists = False
        self.epoch = 0
        self.metadata_hash = 0
        self.assignment_epoch = 0
        self.members: dict[str, MemberSubscription] = {}
        self.currents: dict[str, CurrentAssignment] = {}
        self.targets: dict[str, Partitions] = {}
        self.regexes: dict[str, ResolvedRegex] = {}
        self.owners: dict[Partition, str] = {}
        self.statics: dict[str, str] = {}
        """The member of each instance id."""
        self.name_counts: dict[str, int] = {}
        """How many members are subscribed to each name."""
        self.regex_counts: dict[str, int] = {}
        self.classic_count = 0
        """How many members speak the classic protocol."""
        self.protocol_counts: dict[str, int] = {}
        """How many of those support each of their protocols."""

    def current(self, member_id: str) -> CurrentAssignment:
        """Return what a member has; nothing, at epoch 0, if it is new."""
        return self.currents.get(member_id, JOINING)

    def apply(self, record: ConsumerGroupRecord) -> None:
        """Fold one record."""
        assert record.group_id == self.group_id
        match record:
            case ConsumerGroupCurrentMember():
                self._apply_current(record.member_id, record.value)
            case ConsumerGroupTargetMember():
                _put(self.targets, record.member_id, record.value)
            case ConsumerGroupMember():
                self._apply_member(record.member_id, record.value)
            case ConsumerGroupMetadata():
                self._apply_metadata(record.value)
            case ConsumerGroupTargetMetadata():
                self.assignment_epoch = 0 if record.value is None else record.value
            case ConsumerGroupRegularExpression():
                _put(self.regexes, record.regex, record.value)
            case _:
                assert_never(record)

    def _apply_metadata(self, value: GroupEpoch | None) -> None:
        self.exists = value is not None
        self.epoch = value.epoch if value else 0
        self.metadata_hash = value.metadata_hash if value else 0

    def _apply_current(self, member_id: str, value: CurrentAssignment | None) -> None:
        old = self.currents.get(member_id)
        if old is not None:
            for partition in old.assigned | old.revoking:
                if self.owners.get(partition) == member_id:
                    del self.owners[partition]
        _put(self.currents, member_id, value)
        if value is not None:
            for partition in value.assigned | value.revoking:
                self.owners[partition] = member_id

    def _apply_member(self, member_id: str, value: MemberSubscription | None) -> None:
        old = self.members.get(member_id)
        if old is not None:
            self._count(old, -1)
            if old.instance_id is not None and self.statics.get(old.instance_id) == member_id:
                del self.statics[old.instance_id]
        _put(self.members, member_id, value)
        if value is not None:
            self._count(value, 1)
            if value.instance_id is not None:
                self.statics[value.instance_id] = member_id

    def _count(self, subscription: MemberSubscription, change: int) -> None:
        for name in subscription.topic_names:
            _add(self.name_counts, name, change)
        if subscription.topic_regex is not None:
            _add(self.regex_counts, subscription.topic_regex, change)
        if subscription.classic is not None:
            self.classic_count += change
            for name in {name for name, _data in subscription.classic.protocols}:
                _add(self.protocol_counts, name, change)

    def live_records(self) -> Iterator[ConsumerGroupRecord]:
        """Yield records that give this state to an empty one."""
        group_id = self.group_id
        if self.exists:
            yield ConsumerGroupMetadata(group_id, GroupEpoch(self.epoch, self.metadata_hash))
        for member_id, subscription in self.members.items():
            yield ConsumerGroupMember(group_id, member_id, subscription)
        for regex, resolved in self.regexes.items():
            yield ConsumerGroupRegularExpression(group_id, regex, resolved)
        for member_id, target in self.targets.items():
            yield ConsumerGroupTargetMember(group_id, member_id, target)
        if self.assignment_epoch:
            yield ConsumerGroupTargetMetadata(group_id, self.assignment_epoch)
        for member_id, current in self.currents.items():
            yield ConsumerGroupCurrentMember(group_id, member_id, current)

    def subscribed_names(self, member_id: str) -> frozenset[str]:
        """Return the names a member is subscribed to, those of its pattern included."""
        subscription = self.members[member_id]
        names = frozenset(subscription.topic_names)
        if subscription.topic_regex is not None:
            resolved = self.regexes.get(subscription.topic_regex)
            if resolved is not None:
                names |= resolved.topic_names
        return names

    def is_subscribed_to(self, topic_name: str) -> bool:
        """Whether any member is."""
        return topic_name in self.name_counts or any(
            topic_name in resolved.topic_names for resolved in self.regexes.values()
        )

    def supports(self, protocol_type: str, names: set[str]) -> bool:
        """Whether a classic member with these protocols fits with those that are here."""
        if protocol_type != CONSUMER_TYPE:
            return False
        return any(self.protocol_counts.get(name, 0) == self.classic_count for name in names)

    def all_names(self) -> set[str]:
        """Return every name that any member is subscribed to."""
        names = set(self.name_counts)
        for resolved in self.regexes.values():
            names |= resolved.topic_names
        return names


V = TypeVar("V")


def _put(table: dict[str, V], key: str, value: V | None) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _add(table: dict[str, int], key: str, change: int) -> None:
    count = table.get(key, 0) + change
    assert count >= 0
    if count:
        table[key] = count
    else:
        del table[key]
