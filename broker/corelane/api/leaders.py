"""Where partitions are led, as answers tell it to clients."""

from collections.abc import Sequence

from corelane.api.fetch_response import Endpoint, LeaderHint
from corelane.model.errors import ErrorCode
from corelane.model.ids import BrokerId, CoreId, GroupId
from corelane.shard.config import Advertised
from corelane.shard.connection import Connection
from corelane.shard.partition import Partition, Topic
from corelane.shard.shard import Shard

NO_LEADER = BrokerId(-1)


def brokers_of(shard: Shard, connection: Connection) -> list[Advertised]:
    """Return every broker, at the addresses of the listener a client came through.

    Another listener's may not be reachable from where the client is.
    """
    return shard.config.listeners[connection.listener // 2].brokers


def broker_of(shard: Shard, core: CoreId) -> BrokerId | None:
    """Return the broker that stands for a core of this node; None: clients do not know it."""
    brokers = shard.config.listeners[0].brokers  # the ids are the same in all
    if shard.config.config.network.advertise == "node":
        return brokers[0].broker_id
    return brokers[core].broker_id if core < len(brokers) else None


def lead_of(shard: Shard, group: GroupId) -> LeaderHint | None:
    """Return who leads a group; None: nobody that clients can be sent to."""
    lead = shard.groups.lead_of(group)
    if lead is None or lead.node != shard.config.node:
        return None
    broker = broker_of(shard, lead.core)
    return None if broker is None else LeaderHint(broker, lead.term)


def group_of(shard: Shard, topic: Topic, number: int) -> GroupId:
    """Return the raft group of a partition that exists."""
    return shard.groups.cluster.topics_by_id[topic.topic_id].partitions[number].group


def exists(topic: Topic | None, number: int) -> bool:
    """Whether there is such a partition, on whichever core."""
    return topic is not None and not topic.is_deleted and 0 <= number < len(topic.partitions)


def fault_of_absent(
    shard: Shard, topic: Topic | None, number: int
) -> tuple[ErrorCode, LeaderHint | None]:
    """Return the error for a partition that is not on this core, and who leads it instead."""
    if topic is None or not exists(topic, number):
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None
    return ErrorCode.NOT_LEADER_OR_FOLLOWER, lead_of(shard, group_of(shard, topic, number))


def hint_for(shard: Shard, partition: Partition) -> LeaderHint | None:
    """Return who leads instead, for NOT_LEADER_OR_FOLLOWER (KIP-951); None: not known."""
    return lead_of(shard, partition.group)


def endpoints_for(
    shard: Shard, connection: Connection, hints: Sequence[LeaderHint]
) -> list[Endpoint]:
    """Return where the brokers named in *hints* listen for such a client, each once."""
    wanted = {hint.leader_id for hint in hints}
    return [
        Endpoint(broker.broker_id, broker.host, broker.port, broker.rack)
        for broker in brokers_of(shard, connection)
        if broker.broker_id in wanted
    ]
