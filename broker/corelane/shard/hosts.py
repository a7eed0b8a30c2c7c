"""The coordinators of this core: made when the partition of one leads, thrown away with that."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from corelane.model.ids import GroupId, Index
from corelane.model.internal_topics import OFFSETS_TOPIC
from corelane.shard.group_host import GroupHost
from corelane.shard.host import AGAIN_MS
from corelane.shard.partition import Partition
from corelane.shard.topics_view import ClusterTopics

if TYPE_CHECKING:
    from corelane.shard.shard import Shard


class Hosts:
    """The coordinators of a core, by the raft group of their partition."""

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self._hosts: dict[GroupId, GroupHost] = {}
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

    def of(self, group: GroupId) -> GroupHost | None:
        """Return the coordinator of a partition; None: not here, or not yet."""
        return self._hosts.get(group)

    def __iter__(self) -> Iterator[GroupHost]:
        return iter([*self._hosts.values()])

    def leads(self, partition: Partition) -> None:
        """A partition leads from now on: if it is a coordinator's, make that in a later turn."""
        if partition.topic.name == OFFSETS_TOPIC:
            self._shard.todo.append(partial(self._make, partition, partition.raft.term))

    def _make(self, partition: Partition, term: int) -> None:
        group = partition.group
        if not partition.serves or partition.raft.term != term or group in self._hosts:
            return

        def ended() -> None:
            self._hosts.pop(group, None)
            self._again(partition, term, partition.log.last_index)

        host = GroupHost(self._shard, partition, ended)
        if not host.is_over:
            self._hosts[group] = host
            partition.lost = host.end

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
