"""What a shard is told about itself when it is made."""

from typing import Protocol

from corelane.model.config import Config
from corelane.model.ids import BrokerId, CoreId, NodeId
from corelane.model.record import record


class Random(Protocol):
    """The randomness a shard is handed: seeded in simulation, the system's in production."""

    def randrange(self, stop: int, /) -> int:
        """Return a number in [0, stop)."""

    def randbytes(self, n: int, /) -> bytes:
        """Return *n* random bytes; topic ids are made of them."""


@record
class Advertised:
    """A Kafka broker as metadata names it: one core, or the whole node."""

    broker_id: BrokerId
    host: str
    port: int
    rack: str | None


@record
class ListenerBrokers:
    """The brokers of this node as clients of one listener are told of them."""

    name: str
    brokers: list[Advertised]
    """Those of every listener have the same ids in the same order; hosts and ports differ."""


@record
class PeerPlace:
    """Where the cores of other nodes find this one, and whom it knows of."""

    host: str
    port: int
    boot: int
    """Counts the lives of this core: a later one has a greater number."""
    directory: str = ""
    """Names the data directory of this node."""
    seeds: tuple[tuple[NodeId, str, int], ...] = ()
    """Node, host and peer port of nodes that were heard of before this core knew any."""


@record
class ShardConfig:
    """Everything a shard does not decide itself."""

    node: NodeId
    core: CoreId
    core_count: int
    cluster_id: bytes
    """Sixteen bytes; clients see them as URL-safe base64."""
    listeners: list[ListenerBrokers]
    """Where a connection's listener token is 2 * index, or one more through a door of the node."""
    self_broker: int
    """This core's own place in the brokers of every listener."""
    config: Config
    random: Random
    retired: tuple[CoreId, ...] = ()
    """Cores of an earlier start that still own groups, and hand them over to go."""
    peer: PeerPlace | None = None
    """None: this node stands alone, and speaks to no other."""
    founds: bool = True
    """With an empty directory: this node begins the cluster; otherwise it joins one."""

    @property
    def broker_ids(self) -> list[BrokerId]:
        """Every broker of this node, whichever the listener."""
        return [broker.broker_id for broker in self.listeners[0].brokers]
