"""A consumer group with topics and a clock, so that a test reads as what members say and get."""

import uuid
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from corelane.groups.consumer_group import ConsumerGroup
from corelane.groups.consumer_records import ConsumerGroupRecord, CurrentAssignment, Partitions
from corelane.groups.consumer_requests import (
    ConsumerGroupSettings,
    ConsumerHeartbeat,
    ConsumerHeartbeatAnswer,
)
from corelane.groups.consumer_state import ConsumerState
from corelane.model.errors import ErrorCode
from corelane.model.ids import TopicId

GROUP = "orders"


def topic_id(name: str, life: int = 0) -> TopicId:
    """Return an id that is always the same for a topic and how often it was made."""
    return TopicId(uuid.uuid5(uuid.NAMESPACE_OID, f"{name}/{life}").bytes)


class Topics:
    """The topics of a cluster."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.revision = 1
        self.asked = 0
        """How often a name was looked up."""
        self._counts = dict(counts)
        self._lives = dict.fromkeys(counts, 0)
        self._names: AbstractSet[str] = frozenset(counts)

    def set(self, name: str, count: int) -> None:
        """Make a topic, or give it more partitions."""
        self._counts[name] = count
        self._lives.setdefault(name, 0)
        self._changed()

    def delete(self, name: str) -> None:
        """Delete a topic; made again, it has another id."""
        del self._counts[name]
        self._lives[name] += 1
        self._changed()

    def _changed(self) -> None:
        self.revision += 1
        self._names = frozenset(self._counts)

    def counts(self) -> dict[str, int]:
        """Return every topic with its partitions."""
        return dict(self._counts)

    def topic_id(self, name: str) -> TopicId | None:
        self.asked += 1
        return topic_id(name, self._lives[name]) if name in self._counts else None

    def topic_name(self, topic: TopicId) -> str | None:
        return next((name for name in self._counts if self.topic_id(name) == topic), None)

    def partition_count(self, topic: TopicId) -> int:
        name = self.topic_name(topic)
        assert name is not None
        return self._counts[name]

    def names(self) -> AbstractSet[str]:
        return self._names

    def partitions(self, *names: str) -> Partitions:
        """Return every partition of these topics."""
        found = set()
        for name in names:
            topic = self.topic_id(name)
            if topic is not None:
                found |= {(topic, number) for number in range(self._counts[name])}
        return frozenset(found)


def some(name: str, *numbers: int) -> Partitions:
    """Return these partitions of a topic."""
    return frozenset((topic_id(name), number) for number in numbers)


def heartbeat(member_id: str, epoch: int, **said: Any) -> ConsumerHeartbeat:
    """Return a heartbeat that says nothing but its epoch, and what is given."""
    fields: dict[str, Any] = {
        "proposed_member_id": "",
        "instance_id": None,
        "rack_id": None,
        "client_id": "client",
        "client_host": "/127.0.0.1",
        "rebalance_timeout_ms": -1,
        "topic_names": None,
        "topic_regex": None,
        "server_assignor": None,
        "owned": None,
    }
    return ConsumerHeartbeat(member_id=member_id, member_epoch=epoch, **(fields | said))


def joining(member_id: str, *names: str, **said: Any) -> ConsumerHeartbeat:
    """Return the first heartbeat of a member."""
    first: dict[str, Any] = {
        "rebalance_timeout_ms": 60_000,
        "topic_names": names,
        "owned": frozenset(),
    }
    return heartbeat(member_id, 0, **(first | said))


class World:
    """One group and what surrounds it; every record that it gives is in `log`."""

    def __init__(
        self, counts: Mapping[str, int], settings: ConsumerGroupSettings | None = None
    ) -> None:
        self.settings = settings or ConsumerGroupSettings()
        self.topics = Topics(counts)
        self.group = ConsumerGroup(GROUP, self.settings)
        self.now_ms = 1_000
        self.log: list[ConsumerGroupRecord] = []
        self.batch: list[ConsumerGroupRecord] = []
        """The records of the last call."""

    @property
    def state(self) -> ConsumerState:
        return self.group.state

    def say(self, request: ConsumerHeartbeat) -> ConsumerHeartbeatAnswer:
        """Send a heartbeat."""
        answer = self.group.heartbeat(self.now_ms, request, self.topics)
        self.took()
        return answer

    def took(self) -> None:
        """Put what the group has recorded in the log."""
        self.batch = self.group.take_records()
        self.log += self.batch

    def join(self, member_id: str, *names: str, **said: Any) -> ConsumerHeartbeatAnswer:
        """Join with success."""
        answer = self.say(joining(member_id, *names, **said))
        assert answer.error is ErrorCode.NONE, answer.message
        return answer

    def beat(self, member_id: str, **said: Any) -> ConsumerHeartbeatAnswer:
        """Send a heartbeat with the epoch that the group knows, with success."""
        answer = self.say(heartbeat(member_id, self.epoch(member_id), **said))
        assert answer.error is ErrorCode.NONE, answer.message
        return answer

    def refused(self, request: ConsumerHeartbeat) -> ErrorCode:
        """Send a heartbeat that must be refused and leave nothing behind."""
        before = durable(self.state)
        answer = self.say(request)
        assert answer.error is not ErrorCode.NONE
        assert answer.message
        assert not self.batch
        assert durable(self.state) == before
        return answer.error

    def epoch(self, member_id: str) -> int:
        return self.state.current(member_id).member_epoch

    def current(self, member_id: str) -> CurrentAssignment:
        return self.state.currents[member_id]

    def wait(self, duration_ms: int) -> None:
        """Let time go by; timers run out when they are due."""
        self.now_ms += duration_ms
        self.tick()

    def tick(self) -> None:
        """Call `tick` as a driver does: when the next deadline has come."""
        deadline_ms = self.group.next_deadline_ms
        if deadline_ms is not None and deadline_ms <= self.now_ms:
            self.group.tick(self.now_ms, self.topics)
            self.took()
            after_ms = self.group.next_deadline_ms
            assert after_ms is None or after_ms > self.now_ms

    def fail_over(self) -> None:
        """Let another node lead: all it has is the log."""
        self.group = ConsumerGroup(GROUP, self.settings)
        for record in self.log:
            self.group.replay(record)
        self.group.loaded(self.now_ms)


def durable(state: ConsumerState) -> dict[str, object]:
    """Return all that a state has, to be compared."""
    found = {name: getattr(state, name) for name in ConsumerState.__slots__}
    return {
        name: dict(value) if isinstance(value, dict) else value for name, value in found.items()
    }


def replayed(records: list[ConsumerGroupRecord]) -> ConsumerState:
    """Return the state that these records give."""
    state = ConsumerState(GROUP)
    for record in records:
        state.apply(record)
    return state
