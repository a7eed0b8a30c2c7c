"""Where groups are coordinated: which partition of which internal topic a key belongs to.

The same key is always the same partition's, as in Kafka (Java's String.hashCode, made positive,
modulo the number of partitions), so that tools look into the right place of `__consumer_offsets`.
"""

from corelane.api.leaders import group_of
from corelane.cluster.creation import TopicWish
from corelane.cluster.metadata import Cluster
from corelane.model.config import Config
from corelane.model.ids import GroupId
from corelane.model.internal_topics import OFFSETS_TOPIC
from corelane.model.limits import MIB
from corelane.shard.partition import Topic
from corelane.shard.shard import Shard

_INT_MASK = 0xFFFF_FFFF
_POSITIVE_MASK = 0x7FFF_FFFF
OFFSETS_SEGMENT_BYTES = 100 * MIB
"""Kafka's offsets.topic.segment.bytes."""


def java_hash(text: str) -> int:
    """Return Java's String.hashCode as it is masked by Utils.toPositive: never negative."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for at in range(0, len(units), 2):
        value = (value * 31 + (units[at] << 8 | units[at + 1])) & _INT_MASK
    return value & _POSITIVE_MASK


def partition_number(key: str, partition_count: int) -> int:
    """Return the partition that coordinates *key*."""
    return java_hash(key) % partition_count


def coordinating_group(shard: Shard, topic: Topic, key: str) -> GroupId:
    """Return the raft group that coordinates *key*."""
    return group_of(shard, topic, partition_number(key, len(topic.partitions)))


def offsets_wish(cluster: Cluster, config: Config) -> TopicWish | None:
    """Return the topic that consumer groups are kept in, as it is made when it is first needed.

    None: nodes are still to come, and a topic made now would have fewer replicas for ever.
    """
    groups = config.groups
    seeds = [seed for seed in config.network.seeds.split(",") if seed.strip()]
    replicas = min(groups.replication_factor, max(len(cluster.nodes), len(seeds), 1))
    if replicas > max(1, len(cluster.nodes)):
        return None
    configs = (
        ("cleanup.policy", "compact"),
        ("compression.type", "producer"),
        ("segment.bytes", str(OFFSETS_SEGMENT_BYTES)),
    )
    return TopicWish(OFFSETS_TOPIC, groups.partition_count, replicas, configs=configs)
