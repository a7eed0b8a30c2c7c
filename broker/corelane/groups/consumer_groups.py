"""The groups of the new protocol (KIP-848) of one coordinator, beside its classic ones.

A name is that of one kind of group at a time, and changes its kind only while nobody is in it.
"""

from collections.abc import Callable, Iterator

from corelane.groups.consumer_group import ConsumerGroup
from corelane.groups.consumer_records import ConsumerGroupMetadata, ConsumerGroupRecord
from corelane.groups.consumer_requests import (
    ConsumerGroupDescription,
    ConsumerGroupSettings,
    ConsumerHeartbeat,
    ConsumerHeartbeatAnswer,
)
from corelane.groups.subscriptions import TopicsView

CONSUMER_TYPE = "consumer"

Emit = Callable[[ConsumerGroupRecord], None]
"""Has a record kept; its group has acted on it already."""
Wake = Callable[[str, int], None]
"""Has a group looked at, at a time."""


class ConsumerGroups:
    """Groups by name; records and deadlines go to the coordinator."""

    def __init__(self, emit: Emit, wake: Wake) -> None:
        self.settings = ConsumerGroupSettings()
        self._emit = emit
        self._wake = wake
        self._groups: dict[str, ConsumerGroup] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._groups

    def __len__(self) -> int:
        return len(self._groups)

    def get(self, name: str) -> ConsumerGroup | None:
        """Return a group."""
        return self._groups.get(name)

    def replay(self, found: ConsumerGroupRecord) -> None:
        """Take in a record of the log; one that takes back what is not there says nothing."""
        group = self._groups.get(found.group_id)
        if group is None:
            if found.value is None:
                return
            group = self._groups[found.group_id] = ConsumerGroup(found.group_id, self.settings)
        group.replay(found)
        if isinstance(found, ConsumerGroupMetadata) and found.value is None:
            del self._groups[found.group_id]  # the last that is said of it

    def loaded(self, now_ms: int) -> None:
        """Begin to serve."""
        self._groups = {name: each for name, each in self._groups.items() if each.state.exists}
        for name, group in self._groups.items():
            group.loaded(now_ms)
            self._arm(name, group)

    def heartbeat(
        self, now_ms: int, name: str, beat: ConsumerHeartbeat, topics: TopicsView
    ) -> ConsumerHeartbeatAnswer:
        """Take a member's word; a group that its first member is refused by is none."""
        group = self._groups.get(name)
        if group is None:
            group = ConsumerGroup(name, self.settings)
        answer = group.heartbeat(now_ms, beat, topics)
        if group.state.exists:
            self._groups[name] = group
        self._keep(name, group)
        return answer

    def look(self, now_ms: int, name: str, topics: TopicsView) -> None:
        """Act on a group's deadlines."""
        group = self._groups.get(name)
        if group is not None:
            group.tick(now_ms, topics)
            self._keep(name, group)

    def delete(self, name: str) -> None:
        """End a group that nobody is in."""
        group = self._groups.pop(name)
        group.delete()
        for made in group.take_records():
            self._emit(made)

    def _keep(self, name: str, group: ConsumerGroup) -> None:
        for made in group.take_records():
            self._emit(made)
        if not group.state.exists:
            self._groups.pop(name, None)
            return
        self._arm(name, group)

    def _arm(self, name: str, group: ConsumerGroup) -> None:
        at_ms = group.next_deadline_ms
        if at_ms is not None:
            self._wake(name, at_ms)

    def describe(self, name: str, topics: TopicsView) -> ConsumerGroupDescription | None:
        """Return what there is to see of a group; None: it is none of these."""
        group = self._groups.get(name)
        return None if group is None else group.describe(topics)

    def listed(self) -> Iterator[tuple[str, str]]:
        """Yield name and state of each."""
        for name, group in self._groups.items():
            yield name, group.state_name

    def live_records(self) -> Iterator[ConsumerGroupRecord]:
        """Yield what a fresh log must say."""
        for group in self._groups.values():
            yield from group.live_records()
