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

Created = Callable[[int, str], None]
"""Told the error, 0 when the topic is committed, and a sentence."""


class TopicReady:
    """Waits until some topics are made and all their partitions have leaders, or time is up."""

    __slots__ = ("call_back", "deadline_ms", "is_done", "names", "open_proposals", "shard")

    def __init__(self, shard: Shard, deadline_ms: int, call_back: Callable[[], None]) -> None:
        self.shard = shard
        self.deadline_ms = deadline_ms
        self.call_back = call_back
        self.is_done = False
        self.open_proposals = 1
        self.names: list[bytes] = []

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
        """Wait; everything was proposed."""
        self.open_proposals -= 1
        self._look()

    def expire(self, now_ms: int) -> None:
        """Look again; give up at the deadline."""
        if now_ms >= self.deadline_ms:
            self._over()
        else:
            self._look()

    def _look(self) -> None:
        if self.is_done or self.open_proposals:
            return
        if all(self._leads(name) for name in self.names):
            self._over()
        else:
            self.shard.deadlines.add(min(self.shard.now_ms + CHECK_MS, self.deadline_ms), self)

    def _leads(self, name: bytes) -> bool:
        groups = self.shard.groups
        topic = groups.topics.get(name)
        if topic is None:
            return True  # deleted meanwhile: nothing to wait for
        for number, partition in enumerate(topic.partitions):
            if partition is not None and partition.is_damaged:
                continue
            if groups.lead_of(group_of(self.shard, topic, number)) is None:
                return False
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
