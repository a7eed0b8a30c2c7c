"""The topics that groups and transactions are kept in, and which raft group coordinates a key."""

from corelane.api.leaders import group_of
from corelane.cluster.creation import TopicWish
from corelane.cluster.metadata import Cluster
from corelane.model.config import Config
from corelane.model.ids import GroupId
from corelane.model.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from corelane.model.limits import MIB
from corelane.shard.key_hash import partition_number
from corelane.shard.partition import Topic
from corelane.shard.shard import Shard

SEGMENT_BYTES = 100 * MIB
"""Kafka's offsets.topic.segment.bytes and transaction.state.log.segment.bytes."""


def coordinating_group(shard: Shard, topic: Topic, key: str) -> GroupId:
    """Return the raft group that coordinates *key*."""
    return group_of(shard, topic, partition_number(key, len(topic.partitions)))


def offsets_wish(cluster: Cluster, config: Config) -> TopicWish | None:
    """Return the topic that consumer groups are kept in, as it is made when it is first needed.

    None: nodes are still to come, and a topic made now would have fewer replicas for ever.
    """
    groups = config.groups
    return _wish(cluster, config, OFFSETS_TOPIC, groups.partition_count, groups.replication_factor)


def transactions_wish(cluster: Cluster, config: Config) -> TopicWish | None:
    """Return the same for the topic that transactions are kept in."""
    kept = config.transactions
    return _wish(cluster, config, TRANSACTIONS_TOPIC, kept.partition_count, kept.replication_factor)


def _wish(
    cluster: Cluster, config: Config, name: str, partitions: int, factor: int
) -> TopicWish | None:
    seeds = [seed for seed in config.network.seeds.split(",") if seed.strip()]
    replicas = min(factor, max(len(cluster.nodes), len(seeds), 1))
    if replicas > max(1, len(cluster.nodes)):
        return None
    configs = (
        ("cleanup.policy", "compact"),
        ("compression.type", "producer"),
        ("segment.bytes", str(SEGMENT_BYTES)),
    )
    return TopicWish(name, partitions, replicas, configs=configs)
