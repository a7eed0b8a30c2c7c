"""Where partitions are led, as answers tell it to clients."""

from collections.abc import Sequence

from corelane.api.fetch_response import Endpoint, LeaderHint
from corelane.model.ids import BrokerId
from corelane.shard.partition import Partition
from corelane.shard.shard import Shard

NO_LEADER = BrokerId(-1)


def leader_of(shard: Shard, partition: Partition | None) -> BrokerId:
    """Return the broker that leads a partition of this core, -1 while nobody does."""
    if partition is not None and partition.serves:
        return shard.config.brokers[shard.config.self_broker].broker_id
    return NO_LEADER


def hint_for(shard: Shard, partition: Partition) -> LeaderHint | None:
    """Return who leads instead, for NOT_LEADER_OR_FOLLOWER (KIP-951); None: not known."""
    leader = leader_of(shard, partition)
    return None if leader == NO_LEADER else LeaderHint(leader, partition.raft.term)


def endpoints_for(shard: Shard, hints: Sequence[LeaderHint]) -> list[Endpoint]:
    """Return where the brokers named in *hints* listen, each once."""
    wanted = {hint.leader_id for hint in hints}
    return [
        Endpoint(broker.broker_id, broker.host, broker.port, broker.rack)
        for broker in shard.config.brokers
        if broker.broker_id in wanted
    ]
