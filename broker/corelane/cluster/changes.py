"""What a command of the controller's log has changed, told to whoever acts on it."""

from corelane.cluster.commands import NodeRegistered
from corelane.cluster.replicas import PartitionPlan
from corelane.model.errors import ErrorCode
from corelane.model.ids import CoreId, GroupId, Index, NodeId, TopicId
from corelane.model.record import record


@record
class Topic:
    """A topic as it is now; `revision` is the index of the command that last changed it."""

    name: str
    topic_id: TopicId
    partitions: tuple[PartitionPlan, ...]
    configs: dict[str, str]
    revision: Index


@record
class ClusterNamed:
    """The cluster has its identity."""

    cluster_id: bytes


@record
class NodeChanged:
    """A node joined, or is found elsewhere."""

    node: NodeRegistered


@record
class TopicCreated:
    """A topic is there, with all its partitions."""

    topic: Topic


@record
class PartitionsAdded:
    """A topic has partitions it did not have: those from number `first` on."""

    topic: Topic
    first: int


@record
class TopicDeleted:
    """A topic is gone."""

    topic: Topic


@record
class TopicConfigChanged:
    """A topic has other configurations."""

    topic: Topic


@record
class BrokerConfigChanged:
    """The brokers of a node, or (`ALL_NODES`) all, have other settings."""

    node: int


@record
class ProducerIdsGranted:
    """A core may hand out producer ids."""

    node: NodeId
    core: CoreId
    first_id: int
    count: int


@record
class Refused:
    """The command did not fit any more, and nothing changed; its proposer answers with this."""

    error: ErrorCode
    sentence: str


@record
class ReplicasChanged:
    """Partitions of a topic have other replicas, or are to have."""

    topic: Topic
    numbers: tuple[int, ...]


@record
class PreferredWanted:
    """The preferred replicas of raft groups are to lead them now."""

    groups: tuple[GroupId, ...]


@record
class NodeStateChanged:
    """A node is drained, leaves, or has lost its data directory; or not any more."""

    node: NodeId


@record
class NodeGone:
    """A node is part of the cluster no more."""

    node: NodeId


@record
class FeaturesChanged:
    """Levels of features were chosen; who asks for them finds them."""


Change = (
    TopicCreated
    | TopicDeleted
    | PartitionsAdded
    | TopicConfigChanged
    | BrokerConfigChanged
    | ProducerIdsGranted
    | NodeChanged
    | ClusterNamed
    | ReplicasChanged
    | PreferredWanted
    | NodeStateChanged
    | NodeGone
    | FeaturesChanged
    | Refused
)
