"""The topics of the cluster as coordinators of groups look at them."""

from collections.abc import Set as AbstractSet

from corelane.cluster.metadata import Cluster
from corelane.model.ids import TopicId
from corelane.model.internal_topics import INTERNAL_TOPICS


class ClusterTopics:
    """See `groups.subscriptions.TopicsView`; made anew when topics have changed."""

    def __init__(self, cluster: Cluster, revision: int) -> None:
        self.revision = revision
        self._cluster = cluster
        self._names = frozenset(cluster.topics.keys() - INTERNAL_TOPICS)

    def topic_id(self, name: str) -> TopicId | None:
        """Return the id of a topic that exists."""
        topic = self._cluster.topics.get(name)
        return None if topic is None else topic.topic_id

    def topic_name(self, topic_id: TopicId) -> str | None:
        """Return the name of a topic that exists."""
        topic = self._cluster.topics_by_id.get(topic_id)
        return None if topic is None else topic.name

    def partition_count(self, topic_id: TopicId) -> int:
        """Return how many partitions a topic has that exists."""
        return len(self._cluster.topics_by_id[topic_id].partitions)

    def names(self) -> AbstractSet[str]:
        """Return the names that patterns are matched with."""
        return self._names
