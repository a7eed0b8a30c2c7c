"""The groups of the new protocol (KIP-848) of one coordinator, beside its classic ones.

A name is that of one kind of group at a time. It changes its kind while nobody is in it, and by
`migration.py`: a group of the new protocol may have members of the classic one.
"""

from collections.abc import Callable, Iterator
from typing import assert_never

from corelane.groups import consumer_classic
from corelane.groups.consumer_group import ConsumerGroup
from corelane.groups.consumer_records import ConsumerGroupMetadata, ConsumerGroupRecord
from corelane.groups.consumer_requests import (
    ConsumerGroupDescription,
    ConsumerGroupSettings,
    ConsumerHeartbeat,
    ConsumerHeartbeatAnswer,
)
from corelane.groups.requests import Answer, Beat, ConsumerBeat, Join, Leave, Simple, Sync
from corelane.groups.subscriptions import TopicsView
from corelane.model.errors import ErrorCode

Emit = Callable[[ConsumerGroupRecord], None]
"""Has a record kept; its group has acted on it already."""
Wake = Callable[[str, int], None]
"""Has a group looked at, at a time."""
Classic = Beat | Join | Leave | Sync
"""What members of the classic protocol ask."""


class ConsumerGroups:
    """Groups by name; records and deadlines go to the coordinator."""

    def __init__(self, emit: Emit, wake: Wake, turn: Callable[[ConsumerGroup], None]) -> None:
        self.settings = ConsumerGroupSettings()
        self._emit = emit
        self._wake = wake
        self._turn = turn
        """Makes a classic group of one that has classic members only, and is not kept any more."""
        self._groups: dict[str, ConsumerGroup] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._groups

    def __len__(self) -> int:
        return len(self._groups)

    def get(self, name: str) -> ConsumerGroup | None:
        """Return a group."""
        return self._groups.get(name)

    def _known(self, name: str) -> ConsumerGroup | None:
        """Return a group, that goes by the settings as they are now."""
        group = self._groups.get(name)
        if group is not None:
            group.settings = self.settings
        return group

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
        group = self._known(name) or ConsumerGroup(name, self.settings)
        answer = group.heartbeat(now_ms, beat, topics)
        if group.state.exists:
            self._groups[name] = group
        self._keep(name, group)
        return answer

    def upgrade(
        self, now_ms: int, asked: ConsumerBeat, made: list[ConsumerGroupRecord], topics: TopicsView
    ) -> tuple[ConsumerHeartbeatAnswer, ConsumerGroup]:
        """Have a member join the group that *made* would make; it is kept by `adopt` only."""
        group = ConsumerGroup(asked.group, self.settings)
        for each in made:
            group.replay(each)
        group.loaded(now_ms)
        return group.heartbeat(now_ms, asked.beat, topics), group

    def adopt(self, made: list[ConsumerGroupRecord], group: ConsumerGroup) -> None:
        """Keep a group of `upgrade`."""
        for each in made:
            self._emit(each)
        name = group.state.group_id
        self._groups[name] = group
        self._keep(name, group)

    def ask(self, now_ms: int, name: str, asked: Classic, topics: TopicsView) -> Answer:
        """Take what a member of the classic protocol asks of a group that is one of these."""
        group = self._known(name)
        assert group is not None
        answer: Answer
        match asked:
            case Beat():
                error = consumer_classic.beat(group, now_ms, asked.identity, topics)
                answer = Simple(error)
            case Sync():
                answer = consumer_classic.sync(group, now_ms, asked, topics)
            case Join():
                answer = consumer_classic.join(group, now_ms, asked, topics)
            case Leave():
                answer = consumer_classic.leave(group, now_ms, asked, topics)
            case _:
                assert_never(asked)
        self._keep(name, group)
        return answer

    def yield_place(self, name: str, join: Join) -> bool:
        """Give the place of the last member of the new protocol to its classic successor (KIP-345).

        The group is a classic one then, with the successor's predecessor in it.
        """
        group = self._known(name)
        assert group is not None
        state = group.state
        holder = None if join.member_id else state.statics.get(join.instance_id or "")
        if holder is None or state.members[holder].classic is not None:
            return False
        if state.classic_count != len(state.members) - 1 or not group.may_turn_classic:
            return False
        if consumer_classic.joining_fault(group, join) is not ErrorCode.NONE:
            return False
        consumer_classic.stand_in(group, holder, join)
        group.turns_classic = True
        self._keep(name, group)
        return True

    def look(self, now_ms: int, name: str, topics: TopicsView) -> None:
        """Act on a group's deadlines."""
        group = self._known(name)
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
        if group.turns_classic:
            del self._groups[name]
            self._turn(group)
        elif group.state.exists:
            self._arm(name, group)
        else:
            self._groups.pop(name, None)

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
