"""Making a topic and waiting until it can be used, for CreateTopics and for auto-creation."""

from collections.abc import Callable, Sequence

from corelane.api.leaders import group_of
from corelane.api.proposing import fault_of_loss
from corelane.cluster.changes import Change, Refused
from corelane.cluster.creation import Means, Refusal, TopicWish, plan_topic
from corelane.model.errors import ErrorCode
from corelane.model.ids import TopicId
from corelane.shard.shard import Shard

CHECK_MS = 5
"""How often a waiter looks whether the partitions lead: opening takes two group commits."""

UNDECIDED = "not decided in the time that the request gave: it may still come about"

Created = Callable[[int, str], None]
"""Told the error, 0 when the topic is committed, and a sentence; what it is told last counts."""


class TopicReady:
    """Waits until some topics are made and all their partitions have leaders, or time is up.

    A partition that was seen to have a leader is not looked at again: to look at all 4,000 of a
    topic every `CHECK_MS` took the controller's core for itself until the last of them led.
    """

    __slots__ = (
        "_led_count", "call_back", "deadline_ms", "is_done", "names", "open_proposals", "shard"
    )  # fmt: skip

    def __init__(self, shard: Shard, deadline_ms: int, call_back: Callable[[], None]) -> None:
        self.shard = shard
        self.deadline_ms = deadline_ms
        self.call_back = call_back
        self.is_done = False
        self.open_proposals = 1
        self.names: list[bytes] = []
        self._led_count = 0
        """How many partitions of the last of the names were seen to have a leader."""

    def proposed(self) -> None:
        """Count a proposal under way."""
        self.open_proposals += 1

    def applied(self, name: str | None) -> None:
        """Count a proposal as decided; *name* is a topic to wait for."""
        self.open_proposals -= 1
        if name is not None:
            self.names.append(name.encode())
        self._look()

    def begin(self) -> None:
        """Wait; everything was proposed. What is not decided at the deadline is not waited for."""
        self.open_proposals -= 1
        self._look()
        if self.open_proposals:
            self.shard.deadlines.add(self.deadline_ms, self)

    def expire(self, now_ms: int) -> None:
        """Look again; give up at the deadline."""
        if now_ms >= self.deadline_ms:
            self._over()
        else:
            self._look()

    def _look(self) -> None:
        if self.is_done or self.open_proposals:
            return
        while self.names and self._leads(self.names[-1]):
            self.names.pop()
            self._led_count = 0
        if self.names:
            self.shard.deadlines.add(min(self.shard.now_ms + CHECK_MS, self.deadline_ms), self)
        else:
            self._over()

    def _leads(self, name: bytes) -> bool:
        groups = self.shard.groups
        topic = groups.topics.get(name)
        if topic is None:
            return True  # deleted meanwhile: nothing to wait for
        while self._led_count < len(topic.partitions):
            partition = topic.partitions[self._led_count]
            is_damaged = partition is not None and partition.is_damaged
            group = group_of(self.shard, topic, self._led_count)
            if not is_damaged and groups.lead_of(group) is None:
                return False
            self._led_count += 1
        return True

    def _over(self) -> None:
        self.is_done = True
        self.call_back()


def create(
    shard: Shard, wish: TopicWish, ready: TopicReady, told: Created, *, validate_only: bool = False
) -> None:
    """Check *wish* and propose the topic; *ready* waits for it, *told* hears what became of it."""
    groups = shard.groups
    if not groups.takes_commands:
        told(ErrorCode.NOT_CONTROLLER, "the controller's group has no leader yet: retry")
        return
    config = shard.config
    topic_id = TopicId(config.random.randbytes(16))
    means = Means(groups.reservations, groups.is_node_up)
    plan = plan_topic(groups.cluster, config.config, wish, topic_id, means)
    if isinstance(plan, Refusal):
        told(plan.error, plan.sentence)
        return
    if validate_only:
        told(0, "")
        return
    told(ErrorCode.REQUEST_TIMED_OUT, UNDECIDED)  # as long as nothing better is known
    ready.proposed()

    def applied(changes: Sequence[Change] | None) -> None:
        if changes is None:
            told(*fault_of_loss(shard))
            ready.applied(None)
            return
        refused = [change for change in changes if isinstance(change, Refused)]
        if refused:
            told(refused[0].error, refused[0].sentence)
            ready.applied(None)
            return
        told(0, "")
        ready.applied(wish.name)

    groups.propose(plan, applied)
