"""What the cluster is: the fold of the controller's log.

Invariants:
M1. Same log, same cluster: nothing but the commands decides, and a snapshot plus the commands
    after it is the same as all of them.
M2. Raft groups and producer ids only rise: what was given once is never given again, also after
    its topic is gone. So a stale file or message can never be taken for a newer thing.
M3. Every partition of every topic has a raft group of its own, and `partition_of` finds it.
M4. A command that no longer fits when its turn comes (two were under way for one name) changes
    nothing and is answered by `Refused`; it is not an error of the log.

Values handed out (`Topic`, `NodeRegistered`) never change; a change puts new ones in their place.
Nothing here can act: what a change means for a core is decided by its shard.
"""

from dataclasses import replace
from typing import Final, assert_never

from corelane.cluster.binary import BinaryError, Reader, Writer
from corelane.cluster.changes import (
    BrokerConfigChanged,
    Change,
    ClusterNamed,
    NodeChanged,
    NodeGone,
    NodeStateChanged,
    PartitionsAdded,
    PreferredWanted,
    ProducerIdsGranted,
    Refused,
    ReplicasChanged,
    Topic,
    TopicConfigChanged,
    TopicCreated,
    TopicDeleted,
)
from corelane.cluster.commands import (
    AddPartitions,
    AlterBrokerConfig,
    AlterTopicConfig,
    ClusterCreated,
    Command,
    CreateTopic,
    DecommissionNode,
    DeleteTopic,
    DirectoryLost,
    DrainNode,
    ElectPreferred,
    FillNode,
    NodeForgotten,
    NodeRegistered,
    ProducerIdBlock,
    Reassign,
    ReassignmentStep,
    SetFeatures,
    read_cluster_id,
    read_configs,
    read_node,
    read_node_with_features,
    read_node_with_peer,
    read_partitions,
    read_topic_id,
    read_topic_name,
    write_configs,
    write_node,
    write_peer,
)
from corelane.cluster.features import Features
from corelane.cluster.node_states import (
    ASKED,
    JOINED,
    NodeStates,
    former_directory_sentence,
    other_directory_sentence,
)
from corelane.cluster.replicas import (
    PartitionPlan,
    asked,
    cancelled,
    done,
    read_plan,
    switches,
    write_plan,
)
from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.features import TRANSACTION
from corelane.model.ids import GroupId, Index, MemberId, NodeId, TopicId

_FORMAT: Final = 7
_NODE_READERS: Final = {
    1: read_node,
    2: read_node,
    3: read_node_with_peer,
    4: read_node_with_features,
    5: read_node_with_features,
    6: read_node_with_features,
    7: read_node_with_features,
}
"""How each known format has its nodes: 3 says where they are dialed, 4 which features they know;
2 has settings of brokers at its end, 5 replicas that change and what is wanted of nodes, 6 the
levels of features that were chosen, 7 which nodes are being filled."""
_OfNode = DrainNode | DecommissionNode | DirectoryLost | NodeForgotten | FillNode
ALL_NODES: Final = 0
"""Instead of a node: the settings of all brokers."""


class SnapshotError(Exception):
    """A stored cluster that cannot be read."""


class Cluster:
    """The cluster after `applied_index`. Read the dictionaries, never write to them."""

    __slots__ = (
        "_by_group",
        "_by_unified_name",
        "applied_index",
        "broker_configs",
        "changing",
        "cluster_id",
        "features",
        "next_group",
        "next_producer_id",
        "nodes",
        "revision",
        "states",
        "topics",
        "topics_by_id",
    )

    def __init__(self) -> None:
        self.applied_index = Index(0)
        self.revision = Index(0)
        """The last index that changed something: what caches of metadata compare."""
        self.cluster_id: bytes | None = None
        self.nodes: dict[NodeId, NodeRegistered] = {}
        self.topics: dict[str, Topic] = {}
        self.topics_by_id: dict[TopicId, Topic] = {}
        self.broker_configs: dict[int, dict[str, str]] = {}
        """Settings that were changed at run time, by node or `ALL_NODES`; none is empty."""
        self.states = NodeStates()
        self.features = Features()
        self.changing: dict[GroupId, None] = {}
        """The groups whose replicas are being changed."""
        self.next_group = GroupId(1)
        self.next_producer_id = 0
        self._by_group: dict[GroupId, tuple[TopicId, int]] = {}
        self._by_unified_name: dict[str, str] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cluster) and self.encode() == other.encode()

    __hash__ = None  # type: ignore[assignment]

    def partition_of(self, group: GroupId) -> tuple[Topic, int] | None:
        """Return topic and partition number of a raft group, or None: gone, or not a partition."""
        found = self._by_group.get(group)
        return found and (self.topics_by_id[found[0]], found[1])

    def plan_of(self, group: GroupId) -> PartitionPlan | None:
        """Return the replicas of a raft group, or None: gone, or not a partition."""
        found = self.partition_of(group)
        return found and found[0].partitions[found[1]]

    def member_on(self, plan: PartitionPlan, node: NodeId) -> MemberId | None:
        """Return which member a node has, or is to have, of what it did not lose; None: none."""
        member = plan.member_on(node)
        if member is None or self.states.is_lost(plan.group, member):
            return None
        return member

    def colliding(self, name: str) -> str | None:
        """Return the topic whose name differs from *name* in dots and underscores only."""
        return self._by_unified_name.get(name.replace(".", "_"))

    def skip(self, index: Index) -> None:
        """Note entries of the controller's log that are not commands."""
        assert index >= self.applied_index
        self.applied_index = index

    def apply(self, index: Index, command: Command) -> list[Change]:
        """Fold the command of entry *index*; return what changed."""
        assert index > self.applied_index, "each entry is applied once, in order"
        self.applied_index = index
        changes: list[Change]
        match command:
            case CreateTopic():
                changes = [self._create(index, command)]
            case DeleteTopic():
                changes = [self._delete(command)]
            case AddPartitions():
                changes = [self._add_partitions(index, command)]
            case AlterTopicConfig():
                changes = [self._alter_config(index, command)]
            case AlterBrokerConfig():
                changes = [self._alter_broker(command)]
            case ProducerIdBlock():
                changes = [self._grant(command)]
            case NodeRegistered():
                changes = [self._register(command)]
            case ClusterCreated():
                changes = [self._name(command)]
            case ReassignmentStep():
                changes = [self._step(index, command)]
            case Reassign():
                changes = [self._reassign(index, command)]
            case ElectPreferred():
                changes = [PreferredWanted(command.groups)]
            case DrainNode() | DecommissionNode() | DirectoryLost() | NodeForgotten() | FillNode():
                changes = [self._change_node(index, command)]
            case SetFeatures():
                changes = [self.features.choose(command, self.nodes.values())]
            case _:
                assert_never(command)
        if not isinstance(changes[0], Refused):
            self.revision = index
        return changes

    def encode(self) -> bytes:
        """Return the whole state as bytes; equal clusters have equal bytes."""
        out = Writer()
        for number in (
            _FORMAT,
            self.applied_index,
            self.revision,
            self.next_group,
            self.next_producer_id,
        ):
            out.uint(number)
        out.uint(self.cluster_id is not None)
        if self.cluster_id is not None:
            out.blob(self.cluster_id)
        out.uint(len(self.nodes))
        for node in sorted(self.nodes):
            write_node(out, self.nodes[node])
            write_peer(out, self.nodes[node])
            out.uint(self.nodes[node].transaction_version)
        out.uint(len(self.topics))
        for name in sorted(self.topics):
            topic = self.topics[name]
            out.text(name)
            out.data += topic.topic_id
            out.uint(topic.revision)
            out.uint(len(topic.partitions))
            for partition in topic.partitions:
                write_plan(out, partition)
            write_configs(out, topic.configs)
        out.uint(len(self.broker_configs))
        for number in sorted(self.broker_configs):
            out.uint(number)
            write_configs(out, self.broker_configs[number])
        self.states.write(out)
        self.features.write(out)
        self.states.write_filling(out)
        return bytes(out.data)

    @property
    def transaction_version(self) -> int:
        """Return the level of transactions that may be used (Kafka's finalized feature)."""
        return self.features.level(TRANSACTION, self.nodes.values())

    def dynamic_config(self, node: NodeId) -> dict[str, str]:
        """Return the settings changed at run time that act on a node."""
        common = self.broker_configs.get(ALL_NODES, {})
        return common | self.broker_configs.get(node, {})

    @classmethod
    def decode(cls, data: bytes) -> "Cluster":
        """Return the cluster that `encode` wrote; raises SnapshotError."""
        cluster = cls()
        try:
            cluster._load(Reader(data))
        except BinaryError as error:
            message = f"the stored cluster metadata {error}"
            raise SnapshotError(message) from None
        return cluster

    def _load(self, reader: Reader) -> None:
        form = reader.uint()
        if form not in _NODE_READERS:
            raise reader.fault(f"has format {form}; this version knows {_FORMAT}")
        self.applied_index = Index(reader.uint())
        self.revision = Index(reader.uint(self.applied_index))
        self.next_group = GroupId(reader.uint())
        self.next_producer_id = reader.uint(limits.INT64_MAX)
        if reader.uint(1):
            self.cluster_id = read_cluster_id(reader)
        for _ in range(reader.count(limits.NODES_MAX)):
            node = _NODE_READERS[form](reader)
            self.nodes[node.node] = node
        for _ in range(reader.count(limits.TOPICS_MAX)):
            topic = Topic(
                name=read_topic_name(reader),
                topic_id=read_topic_id(reader),
                revision=Index(reader.uint(self.applied_index)),
                partitions=(self._read_plans(reader) if form > 4 else read_partitions(reader)),
                configs=read_configs(reader),
            )
            fits = topic.name not in self.topics and topic.topic_id not in self.topics_by_id
            for partition in topic.partitions:
                fits = fits and partition.group < self.next_group
                fits = fits and partition.group not in self._by_group
            if not fits:
                raise reader.fault(f"has the topic {topic.name}, whose ids are another's")
            self._put(topic)
        for _ in range(reader.count(limits.NODES_MAX + 1) if form > 1 else 0):
            configured = reader.uint(limits.NODE_ID_MAX)
            configs = read_configs(reader)
            if configured in self.broker_configs or not configs:
                raise reader.fault(f"has settings of node {configured} twice, or none")
            self.broker_configs[configured] = configs
        if form > 4:
            self.states.read(reader)
        if form > 5:
            self.features.read(reader)
        if form > 6:
            self.states.read_filling(reader)
        reader.end()

    def _read_plans(self, reader: Reader) -> tuple[PartitionPlan, ...]:
        count = reader.count(limits.TOPIC_PARTITIONS_MAX)
        if count == 0:
            raise reader.fault("has a topic without partitions")
        return tuple(read_plan(reader, self.applied_index) for _ in range(count))

    def _put(self, topic: Topic) -> None:
        """Make *topic* what its name, its id and its raft groups lead to."""
        self.topics[topic.name] = topic
        self.topics_by_id[topic.topic_id] = topic
        self._by_unified_name[topic.name.replace(".", "_")] = topic.name
        for number, partition in enumerate(topic.partitions):
            self._by_group[partition.group] = (topic.topic_id, number)
            if partition.change is not None:
                self.changing[partition.group] = None
            self.next_group = max(self.next_group, GroupId(partition.group + 1))

    def _create(self, index: Index, command: CreateTopic) -> Change:
        if command.name in self.topics or command.topic_id in self.topics_by_id:
            return Refused(
                ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{command.name}' already exists."
            )
        colliding = self.colliding(command.name)
        if colliding is not None:
            return Refused(
                ErrorCode.INVALID_TOPIC_EXCEPTION, collision_sentence(command.name, colliding)
            )
        if len(self.topics) >= limits.TOPICS_MAX:
            return Refused(
                ErrorCode.POLICY_VIOLATION,
                f"The cluster has {len(self.topics)} topics, as many as it can have.",
            )
        if not self._are_new(command.partitions):
            return _stale_ids()
        topic = Topic(
            command.name, command.topic_id, command.partitions, dict(command.configs), index
        )
        self._put(topic)
        return TopicCreated(topic)

    def _delete(self, command: DeleteTopic) -> Change:
        topic = self.topics_by_id.pop(command.topic_id, None)
        if topic is None:
            return _unknown_topic()
        del self.topics[topic.name]
        del self._by_unified_name[topic.name.replace(".", "_")]
        for partition in topic.partitions:
            del self._by_group[partition.group]
            self.changing.pop(partition.group, None)
        return TopicDeleted(topic)

    def _reassign(self, index: Index, command: Reassign) -> Change:
        topic = self.topics_by_id.get(command.topic_id)
        if topic is None:
            return _unknown_topic()
        plans: dict[int, PartitionPlan] = {}
        for number, places in command.wishes:
            if number >= len(topic.partitions) or any(
                place.node not in self.nodes for place in places
            ):
                continue
            plan = topic.partitions[number]
            if places:
                plans[number] = asked(plan, index, places, self.states.is_lost)
            elif plan.change is not None:
                plans[number] = cancelled(plan, index)
        if not plans:
            return Refused(
                ErrorCode.NO_REASSIGNMENT_IN_PROGRESS,
                "Nothing of it is being reassigned, or a node has left: ask again.",
            )
        return self._replan(index, topic, plans)

    def _step(self, index: Index, command: ReassignmentStep) -> Change:
        found = self.partition_of(command.group)
        if found is None:
            return _unknown_topic()
        topic, number = found
        plan = topic.partitions[number]
        if command.is_done:
            after = done(plan, command.revision, index, self.states.is_lost)
        else:
            after = switches(plan, command.revision)
        if after is None:
            return Refused(ErrorCode.INVALID_REQUEST, "Another change is under way, or none.")
        return self._replan(index, topic, {number: after})

    def _replan(self, index: Index, topic: Topic, plans: dict[int, PartitionPlan]) -> Change:
        partitions = [*topic.partitions]
        for number, plan in plans.items():
            partitions[number] = plan
            self.changing.pop(plan.group, None)
            if plan.change is not None:
                self.changing[plan.group] = None
        topic = replace(topic, partitions=tuple(partitions), revision=index)
        self.topics[topic.name] = self.topics_by_id[topic.topic_id] = topic
        return ReplicasChanged(topic, tuple(plans))

    def _change_node(self, index: Index, command: _OfNode) -> Change:
        states, node = self.states, command.node
        known = self.nodes.get(node)
        if known is None:
            return Refused(ErrorCode.BROKER_ID_NOT_REGISTERED, f"There is no node {node}.")
        match command:
            case DrainNode():
                states.drained.pop(node, None)
                if command.life:
                    states.drained[node] = command.life
            case DecommissionNode():
                states.leaving.pop(node, None)
                if command.is_wanted:
                    states.leaving[node] = index
            case DirectoryLost() if command.directory != known.directory:
                said = f"Node {node} has another data directory by now: look again."
                return Refused(ErrorCode.INVALID_REQUEST, said)
            case DirectoryLost():
                states.lost(node, index, self.next_group, known.directory)
                self.nodes[node] = replace(known, directory="")
            case NodeForgotten():
                return self._forget(index, known)
            case FillNode():
                states.filling.pop(node, None)
                if command.is_wanted:
                    states.filling[node] = ASKED
            case _:
                assert_never(command)
        return NodeStateChanged(node)

    def replica_on(self, node: NodeId) -> str | None:
        """Return the name of a partition that has a replica on a node, or None."""
        for topic in self.topics.values():
            for number, plan in enumerate(topic.partitions):
                if node in plan.nodes:
                    return f"{topic.name}-{number}"
        return None

    def _forget(self, index: Index, known: NodeRegistered) -> Change:
        replica = self.replica_on(known.node)
        if replica is not None:
            said = f"Node {known.node} has a replica of {replica}."
            return Refused(ErrorCode.INVALID_REQUEST, said)
        self.states.lost(known.node, index, self.next_group, known.directory)
        self.states.forgotten(known.node)
        self.broker_configs.pop(known.node, None)
        del self.nodes[known.node]
        return NodeGone(known.node)

    def _add_partitions(self, index: Index, command: AddPartitions) -> Change:
        topic = self.topics_by_id.get(command.topic_id)
        if topic is None:
            return _unknown_topic()
        if len(topic.partitions) + len(command.partitions) > limits.TOPIC_PARTITIONS_MAX:
            return Refused(
                ErrorCode.INVALID_PARTITIONS,
                f"A topic can have {limits.TOPIC_PARTITIONS_MAX} partitions.",
            )
        if not self._are_new(command.partitions):
            return _stale_ids()
        first = len(topic.partitions)
        topic = replace(topic, partitions=topic.partitions + command.partitions, revision=index)
        self._put(topic)
        return PartitionsAdded(topic, first)

    def _alter_config(self, index: Index, command: AlterTopicConfig) -> Change:
        topic = self.topics_by_id.get(command.topic_id)
        if topic is None:
            return _unknown_topic()
        configs = topic.configs | command.values
        for name in command.removed:
            configs.pop(name, None)
        if len(configs) > limits.TOPIC_CONFIGS_MAX:
            return Refused(
                ErrorCode.INVALID_CONFIG,
                f"A topic can have {limits.TOPIC_CONFIGS_MAX} configurations of its own.",
            )
        topic = replace(topic, configs=configs, revision=index)
        self._put(topic)
        return TopicConfigChanged(topic)

    def _alter_broker(self, command: AlterBrokerConfig) -> Change:
        if command.node != ALL_NODES and command.node not in self.nodes:
            return Refused(ErrorCode.INVALID_REQUEST, f"There is no node {command.node}.")
        configs = self.broker_configs.get(command.node, {}) | command.values
        for name in command.removed:
            configs.pop(name, None)
        if len(configs) > limits.TOPIC_CONFIGS_MAX:
            return Refused(
                ErrorCode.INVALID_CONFIG,
                f"{limits.TOPIC_CONFIGS_MAX} settings can be changed at run time.",
            )
        self.broker_configs.pop(command.node, None)
        if configs:
            self.broker_configs[command.node] = configs
        return BrokerConfigChanged(command.node)

    def _grant(self, command: ProducerIdBlock) -> Change:
        if command.first_id < self.next_producer_id:
            return _stale_ids()
        self.next_producer_id = command.first_id + command.count
        return ProducerIdsGranted(command.node, command.core, command.first_id, command.count)

    def _register(self, command: NodeRegistered) -> Change:
        if command.node not in self.nodes and len(self.nodes) >= limits.NODES_MAX:
            return Refused(
                ErrorCode.POLICY_VIOLATION, f"The cluster has {limits.NODES_MAX} nodes already."
            )
        if self.states.is_former(command.node, command.directory):
            return Refused(ErrorCode.INVALID_REQUEST, former_directory_sentence(command.node))
        known = self.nodes.get(command.node)
        if known is not None and known.directory not in {"", command.directory}:
            return Refused(ErrorCode.INVALID_REQUEST, other_directory_sentence(command.node))
        if known is None and self.topics:
            self.states.filling[command.node] = JOINED
        self.nodes[command.node] = command
        return NodeChanged(command)

    def _name(self, command: ClusterCreated) -> Change:
        if self.cluster_id is not None:
            return Refused(ErrorCode.INVALID_REQUEST, "The cluster has its identity already.")
        self.cluster_id = command.cluster_id
        return ClusterNamed(command.cluster_id)

    def _are_new(self, partitions: tuple[PartitionPlan, ...]) -> bool:
        """Say whether all raft groups are above every one given before, and rise."""
        least = self.next_group
        for partition in partitions:
            if partition.group < least:
                return False
            least = GroupId(partition.group + 1)
        return True


class Reservations:
    """Ids the controller's leader has promised to commands that are not applied yet.

    Soft state of one leadership: what is promised and never committed leaves a gap (M2).
    """

    __slots__ = ("_cluster", "_next_group", "_next_producer_id")

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._next_group = GroupId(1)
        self._next_producer_id = 0

    def groups(self, count: int) -> GroupId:
        """Return the first of *count* raft groups that nobody else gets."""
        assert count > 0
        first = max(self._next_group, self._cluster.next_group)
        self._next_group = GroupId(first + count)
        return first

    def producer_ids(self, count: int) -> int:
        """Return the first of *count* producer ids that nobody else gets."""
        assert count > 0
        first = max(self._next_producer_id, self._cluster.next_producer_id)
        self._next_producer_id = first + count
        return first


def collision_sentence(name: str, other: str) -> str:
    """Say why *name* cannot be used beside *other*."""
    return (
        f"Topic '{name}' collides with existing topic '{other}': they differ only in dots and"
        " underscores, which metric names do not tell apart."
    )


def _unknown_topic() -> Refused:
    return Refused(
        ErrorCode.UNKNOWN_TOPIC_ID, "The topic does not exist: it was deleted meanwhile."
    )


def _stale_ids() -> Refused:
    # Retriable at every client: only the ids were wrong, and the next attempt gets other ones.
    return Refused(
        ErrorCode.NOT_CONTROLLER, "Another controller gave these ids away meanwhile; try again."
    )
