"""Where partitions are led, as answers tell it to clients."""

from collections.abc import Sequence

from corelane.api.fetch_response import Endpoint, LeaderHint
from corelane.model.errors import ErrorCode
from corelane.model.ids import BROKERS_PER_NODE, BrokerId, CoreId, GroupId, NodeId
from corelane.shard.config import Advertised
from corelane.shard.connection import Connection
from corelane.shard.partition import Partition, Topic
from corelane.shard.shard import Shard

NO_LEADER = BrokerId(-1)


def brokers_of(shard: Shard, connection: Connection) -> list[Advertised]:
    """Return every broker that can be reached, at the addresses of the client's listener.

    Another listener's may not be reachable from where the client is. Of other nodes those of the
    listener with the same name are told.
    """
    listener = shard.config.listeners[connection.listener // 2]
    groups = shard.groups
    if len(groups.cluster.nodes) < 2:
        return listener.brokers
    brokers = list(listener.brokers)
    for number, node in sorted(groups.cluster.nodes.items()):
        if number == shard.config.node or not groups.is_node_up(number):
            continue
        brokers += [
            Advertised(
                BrokerId(number * BROKERS_PER_NODE + each.core), each.host, each.port,
                node.rack or None,
            )
            for each in node.endpoints
            if each.listener == listener.name
        ]  # fmt: skip
    return brokers


def controller_of(shard: Shard) -> BrokerId:
    """Return the broker that clients are told decides; any takes requests and passes them on."""
    node = shard.groups.controller_node()
    if node is None or node == shard.config.node:
        return shard.config.broker_ids[0]
    found = _broker_elsewhere(shard, node, CoreId(0))
    return shard.config.broker_ids[0] if found is None else found


def replica_broker(shard: Shard, group: GroupId, node: NodeId) -> BrokerId:
    """Return the broker of a partition's replica, as far as it is known which core has it."""
    if node != shard.config.node:
        peering = shard.groups.peering
        core = CoreId(0) if peering is None else peering.whereabouts.core(group, node)
        found = _broker_elsewhere(shard, node, core)
        return BrokerId(node * BROKERS_PER_NODE) if found is None else found
    home = shard.groups.siblings.home_of(group)
    broker = None if home is None else broker_of(shard, home)
    return shard.config.broker_ids[0] if broker is None else broker


def _broker_elsewhere(shard: Shard, node: NodeId, core: CoreId) -> BrokerId | None:
    """Return the broker that stands for a core of another node; None: the node is not known."""
    known = shard.groups.cluster.nodes.get(node)
    if known is None:
        return None
    cores = {each.core for each in known.endpoints}
    number = core if core in cores else min(cores, default=core)
    return BrokerId(node * BROKERS_PER_NODE + number)


def broker_of(shard: Shard, core: CoreId) -> BrokerId | None:
    """Return the broker that stands for a core of this node; None: clients do not know it."""
    brokers = shard.config.listeners[0].brokers  # the ids are the same in all
    if shard.config.config.network.advertise == "node":
        return brokers[0].broker_id
    return brokers[core].broker_id if core < len(brokers) else None


def lead_of(shard: Shard, group: GroupId) -> LeaderHint | None:
    """Return who leads a group; None: nobody that clients can be sent to."""
    lead = shard.groups.lead_of(group)
    if lead is None:
        return None
    if lead.node == shard.config.node:
        broker = broker_of(shard, lead.core)
    else:
        broker = _broker_elsewhere(shard, lead.node, lead.core)
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
