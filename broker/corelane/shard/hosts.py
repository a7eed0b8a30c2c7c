"""The coordinators of this core: made when the partition of one leads, thrown away with that."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from corelane.model.ids import GroupId, Index
from corelane.model.internal_topics import INTERNAL_TOPICS, OFFSETS_TOPIC
from corelane.shard.group_host import GroupHost
from corelane.shard.host import AGAIN_MS
from corelane.shard.partition import Partition
from corelane.shard.topics_view import ClusterTopics
from corelane.shard.transaction_host import TransactionHost

if TYPE_CHECKING:
    from corelane.shard.shard import Shard


class Hosts:
    """The coordinators of a core, by the raft group of their partition."""

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self.groups: dict[GroupId, GroupHost] = {}
        self.transactions: dict[GroupId, TransactionHost] = {}
        self._topics: ClusterTopics | None = None
        self._topics_revision = 0

    def topics_changed(self) -> None:
        """Topics were made, extended or deleted."""
        self._topics = None

    def topics(self) -> ClusterTopics:
        """Return the topics as they are now."""
        cluster = self._shard.groups.cluster
        if self._topics is None:
            self._topics_revision += 1
            self._topics = ClusterTopics(cluster, self._topics_revision)
        return self._topics

    def leads(self, partition: Partition) -> None:
        """A partition leads from now on: if it is a coordinator's, make that in a later turn."""
        if partition.topic.name in INTERNAL_TOPICS:
            self._shard.todo.append(partial(self._make, partition, partition.raft.term))

    def _make(self, partition: Partition, term: int) -> None:
        group = partition.group
        is_made = group in self.groups or group in self.transactions
        if is_made or not partition.serves or partition.raft.term != term:
            return

        def ended() -> None:
            self.groups.pop(group, None)
            self.transactions.pop(group, None)
            self._again(partition, term, partition.log.last_index)

        if partition.topic.name == OFFSETS_TOPIC:
            of_groups = GroupHost(self._shard, partition, ended)
            if not of_groups.is_over:
                self.groups[group] = of_groups
                partition.lost = of_groups.end
        else:
            of_transactions = TransactionHost(self._shard, partition, ended)
            if not of_transactions.is_over:
                self.transactions[group] = of_transactions
                partition.lost = of_transactions.end

    def _again(self, partition: Partition, term: int, index: Index) -> None:
        """Make a coordinator anew, when all that its former self appended is committed."""
        if not partition.serves or partition.raft.term != term:
            return  # whoever leads has one

        def look() -> None:
            if partition.raft.committed_index >= index:
                self._make(partition, term)
            else:
                self._again(partition, term, index)

        self._shard.deadlines.add(self._shard.now_ms + AGAIN_MS, _Later(look))


class _Later:
    """Something to do after a while."""

    __slots__ = ("is_done", "look")

    def __init__(self, look: Callable[[], None]) -> None:
        self.look = look
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Do it."""
        del now_ms
        self.is_done = True
        self.look()
