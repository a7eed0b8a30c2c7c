"""What the controller's log can say: records, and their bytes.

A command is a decision, already checked and with every id chosen: applying it needs no clock, no
chance and no configuration, so that every node folds the log to the same cluster. The bytes are
`version, kind, fields`; a node refuses versions it does not know instead of guessing.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final, assert_never

from corelane.cluster.binary import BinaryError, Reader, Writer
from corelane.cluster.replicas import (
    PartitionPlan,
    Place,
    read_group,
    read_node_id,
    read_nodes,
    read_places,
    write_nodes,
    write_places,
)
from corelane.model import limits
from corelane.model.ids import CoreId, GroupId, Index, NodeId, TopicId
from corelane.model.record import record

VERSION: Final = 1
TOPIC_ID_BYTES: Final = 16
NODE_ENDPOINT: Final = limits.CORES_MAX + 1
"""The `core` of an endpoint that stands for the whole node."""


class CommandError(Exception):
    """Bytes in the controller's log that are no command: damage, or a newer version."""


@record
class Endpoint:
    """An address clients are told: of one core, or of the whole node (`NODE_ENDPOINT`)."""

    listener: str
    host: str
    port: int
    core: int


@record
class ClusterCreated:
    """The cluster got its identity; the first command of every cluster."""

    cluster_id: bytes


@record
class NodeRegistered:
    """A node is part of the cluster, or is now found elsewhere; replaces what was known of it."""

    node: NodeId
    rack: str
    core_count: int
    endpoints: tuple[Endpoint, ...]
    peer_host: str = ""
    peer_port: int = 0
    """Where other nodes dial it; 0: it stands alone."""
    directory: str = ""
    """Names its data directory: a node that comes back without it has lost what it promised."""
    transaction_version: int = 0
    """The highest level of Kafka's feature transaction.version that it knows."""


@record
class CreateTopic:
    """A topic was made; partition i is `partitions[i]`."""

    name: str
    topic_id: TopicId
    partitions: tuple[PartitionPlan, ...]
    configs: dict[str, str]


@record
class AddPartitions:
    """A topic got more partitions, numbered on from those it has."""

    topic_id: TopicId
    partitions: tuple[PartitionPlan, ...]


@record
class DeleteTopic:
    """A topic is gone, with its partitions and configuration; its ids are never used again."""

    topic_id: TopicId


@record
class AlterTopicConfig:
    """Configurations of a topic were set, and others went back to their defaults."""

    topic_id: TopicId
    values: dict[str, str]
    removed: tuple[str, ...]


@record
class AlterBrokerConfig:
    """Settings of the brokers of a node, or (`node` 0) of all, were set or taken back."""

    node: int
    values: dict[str, str]
    removed: tuple[str, ...]


@record
class ProducerIdBlock:
    """A core may hand out the producer ids from `first_id`, `count` of them."""

    node: NodeId
    core: CoreId
    first_id: int
    count: int


@record
class Reassign:
    """Partitions of a topic are to have their replicas elsewhere."""

    topic_id: TopicId
    wishes: tuple[tuple[int, tuple[Place, ...]], ...]
    """Partition and places, the preferred leader first; none: a change is called off."""


@record
class ReassignmentStep:
    """The leader of a partition goes on with the change of that revision, or has ended it."""

    group: GroupId
    revision: Index
    is_done: bool


@record
class ElectPreferred:
    """The preferred replicas of these raft groups are to lead now, if they can."""

    groups: tuple[GroupId, ...]


@record
class DrainNode:
    """A node is to lead nothing while it lives that life; 0: it may lead again."""

    node: NodeId
    life: int


@record
class DecommissionNode:
    """All replicas of a node are to go elsewhere, and then the node; or not, after all."""

    node: NodeId
    is_wanted: bool


@record
class DirectoryLost:
    """The data directory of a node is gone: it may come back with another one, as new members."""

    node: NodeId
    directory: str
    """Which one: a command that comes late declares no other one lost."""


@record
class NodeForgotten:
    """A node without replicas is part of the cluster no more."""

    node: NodeId


@record
class SetFeatures:
    """An operator chose the levels of features."""

    levels: dict[str, int]
    """By name; no level is above what every node knew when it was chosen."""


@record
class FillNode:
    """A node is to get its share of the replicas that others have; or has it by now."""

    node: NodeId
    is_wanted: bool


Command = (
    CreateTopic
    | DeleteTopic
    | AddPartitions
    | AlterTopicConfig
    | AlterBrokerConfig
    | ProducerIdBlock
    | NodeRegistered
    | ClusterCreated
    | ReassignmentStep
    | Reassign
    | ElectPreferred
    | DrainNode
    | DecommissionNode
    | DirectoryLost
    | NodeForgotten
    | SetFeatures
    | FillNode
)


def encode(command: Command) -> bytes:
    """Return the bytes of *command* for an entry of the controller's log."""
    out = Writer()
    out.uint(VERSION)
    match command:
        case CreateTopic():
            out.uint(3)
            out.text(command.name)
            _write_topic_id(out, command.topic_id)
            write_partitions(out, command.partitions)
            write_configs(out, command.configs)
        case DeleteTopic():
            out.uint(5)
            _write_topic_id(out, command.topic_id)
        case AddPartitions():
            out.uint(4)
            _write_topic_id(out, command.topic_id)
            write_partitions(out, command.partitions)
        case AlterTopicConfig():
            out.uint(6)
            _write_topic_id(out, command.topic_id)
            _write_changes(out, command.values, command.removed)
        case AlterBrokerConfig():
            out.uint(8)
            out.uint(command.node)
            _write_changes(out, command.values, command.removed)
        case ProducerIdBlock():
            out.uint(7)
            for number in (command.node, command.core, command.first_id, command.count):
                out.uint(number)
        case NodeRegistered() if command.transaction_version:
            out.uint(10)
            write_node(out, command)
            write_peer(out, command)
            out.uint(command.transaction_version)
        case NodeRegistered() if command.peer_port == 0:
            out.uint(2)  # as it was before nodes had peers
            write_node(out, command)
        case NodeRegistered():
            out.uint(9)  # as it was before nodes had features
            write_node(out, command)
            write_peer(out, command)
        case ClusterCreated():
            out.uint(1)
            out.blob(command.cluster_id)
        case _:
            _encode_change(out, command)
    assert len(out.data) <= limits.COMMAND_BYTES_MAX
    return bytes(out.data)


_Moving = (
    ReassignmentStep
    | Reassign
    | ElectPreferred
    | DrainNode
    | DecommissionNode
    | DirectoryLost
    | NodeForgotten
    | SetFeatures
    | FillNode
)


def _encode_change(out: Writer, command: _Moving) -> None:
    """Write what moves replicas and leaderships, and takes nodes out."""
    match command:
        case Reassign():
            out.uint(17)
            _write_topic_id(out, command.topic_id)
            out.uint(len(command.wishes))
            for number, places in command.wishes:
                out.uint(number)
                write_places(out, places)
        case ReassignmentStep():
            for number in (11, command.group, command.revision, command.is_done):
                out.uint(number)
        case ElectPreferred():
            out.uint(12)
            out.uint(len(command.groups))
            for group in command.groups:
                out.uint(group)
        case DrainNode():
            for number in (13, command.node, command.life):
                out.uint(number)
        case DecommissionNode():
            for number in (14, command.node, command.is_wanted):
                out.uint(number)
        case DirectoryLost():
            out.uint(15)
            out.uint(command.node)
            out.text(command.directory)
        case NodeForgotten():
            out.uint(16)
            out.uint(command.node)
        case SetFeatures():
            out.uint(18)
            out.uint(len(command.levels))
            for name in sorted(command.levels):
                out.text(name)
                out.uint(command.levels[name])
        case FillNode():
            for number in (19, command.node, command.is_wanted):
                out.uint(number)
        case _:
            assert_never(command)


def decode(data: bytes) -> Command:
    """Return the command in *data*; raises CommandError."""
    reader = Reader(data)
    try:
        version = reader.uint()
        if version != VERSION:
            raise reader.fault(f"has version {version}; this node knows {VERSION}")
        kind = reader.uint()
        read = _READERS.get(kind)
        if read is None:
            raise reader.fault(f"has the unknown kind {kind}")
        command = read(reader)
        reader.end()
    except BinaryError as error:
        message = f"a command of the controller {error}"
        raise CommandError(message) from None
    return command


def write_partitions(out: Writer, partitions: tuple[PartitionPlan, ...]) -> None:
    """Write the partitions of a topic, in order."""
    out.uint(len(partitions))
    for partition in partitions:
        out.uint(partition.group)
        write_nodes(out, partition.replicas)


def read_partitions(reader: Reader) -> tuple[PartitionPlan, ...]:
    """Read what `write_partitions` wrote."""
    count = reader.count(limits.TOPIC_PARTITIONS_MAX)
    if count == 0:
        raise reader.fault("has a topic without partitions")
    return tuple(_read_partition(reader) for _ in range(count))


def _read_partition(reader: Reader) -> PartitionPlan:
    group = read_group(reader)
    replicas = read_nodes(reader)
    if not replicas:
        raise reader.fault("has a partition with no replica")
    return PartitionPlan(group, replicas)


def write_configs(out: Writer, configs: dict[str, str]) -> None:
    """Write configurations in order of their names, so that equal ones have equal bytes."""
    out.uint(len(configs))
    for name in sorted(configs):
        out.text(name)
        out.text(configs[name])


def read_configs(reader: Reader) -> dict[str, str]:
    """Read what `write_configs` wrote."""
    configs: dict[str, str] = {}
    count = reader.count(limits.TOPIC_CONFIGS_MAX)
    for _ in range(count):
        name = reader.text(limits.CONFIG_NAME_BYTES_MAX)
        configs[name] = reader.text(limits.CONFIG_VALUE_BYTES_MAX)
    if len(configs) != count:
        raise reader.fault("sets a configuration twice")
    return configs


def write_node(out: Writer, node: NodeRegistered) -> None:
    """Write what is known of a node."""
    out.uint(node.node)
    out.text(node.rack)
    out.uint(node.core_count)
    out.uint(len(node.endpoints))
    for endpoint in node.endpoints:
        out.text(endpoint.listener)
        out.text(endpoint.host)
        out.uint(endpoint.port)
        out.uint(endpoint.core)


def read_node(reader: Reader) -> NodeRegistered:
    """Read what `write_node` wrote."""
    return NodeRegistered(
        node=read_node_id(reader),
        rack=reader.text(limits.RACK_CHARACTERS_MAX),
        core_count=reader.uint(limits.CORES_MAX),
        endpoints=tuple(
            Endpoint(
                listener=reader.text(limits.HOST_CHARACTERS_MAX),
                host=reader.text(limits.HOST_CHARACTERS_MAX),
                port=reader.uint(limits.PORT_MAX),
                core=reader.uint(NODE_ENDPOINT),
            )
            for _ in range(reader.count(limits.ENDPOINTS_MAX))
        ),
    )


def write_peer(out: Writer, node: NodeRegistered) -> None:
    """Write where a node is dialed by others."""
    out.text(node.peer_host)
    out.uint(node.peer_port)
    out.text(node.directory)


def read_node_with_peer(reader: Reader) -> NodeRegistered:
    """Read what `write_node` and then `write_peer` wrote."""
    node = read_node(reader)
    host = reader.text(limits.HOST_CHARACTERS_MAX)
    port = reader.uint(limits.PORT_MAX)
    directory = reader.text(limits.HOST_CHARACTERS_MAX)
    return replace(node, peer_host=host, peer_port=port, directory=directory)


def read_node_with_features(reader: Reader) -> NodeRegistered:
    """Read what `write_node`, `write_peer` and a level of transactions are."""
    node = read_node_with_peer(reader)
    return replace(node, transaction_version=reader.uint(limits.INT16_MAX))


def read_topic_name(reader: Reader) -> str:
    """Read the name of a topic."""
    name = reader.text(limits.TOPIC_NAME_CHARACTERS_MAX)
    if limits.TOPIC_NAME_PATTERN.match(name) is None:
        raise reader.fault("has a topic name with characters that no topic name has")
    return name


def read_topic_id(reader: Reader) -> TopicId:
    """Read the id of a topic, which is never all zero (that means "none" on the wire)."""
    topic_id = reader.exactly(TOPIC_ID_BYTES)
    if not any(topic_id):
        raise reader.fault("has an empty topic id")
    return TopicId(topic_id)


def read_cluster_id(reader: Reader) -> bytes:
    """Read the identity of a cluster."""
    cluster_id = reader.blob(TOPIC_ID_BYTES)
    if len(cluster_id) != TOPIC_ID_BYTES:
        raise reader.fault("has a cluster id of the wrong size")
    return cluster_id


def _write_changes(out: Writer, values: dict[str, str], removed: tuple[str, ...]) -> None:
    write_configs(out, values)
    out.uint(len(removed))
    for name in removed:
        out.text(name)


def _write_topic_id(out: Writer, topic_id: TopicId) -> None:
    assert len(topic_id) == TOPIC_ID_BYTES
    out.data += topic_id


def _read_create_topic(reader: Reader) -> CreateTopic:
    return CreateTopic(
        name=read_topic_name(reader),
        topic_id=read_topic_id(reader),
        partitions=read_partitions(reader),
        configs=read_configs(reader),
    )


def _read_alter_config(reader: Reader) -> AlterTopicConfig:
    return AlterTopicConfig(read_topic_id(reader), read_configs(reader), _read_removed(reader))


def _read_alter_broker(reader: Reader) -> AlterBrokerConfig:
    node = reader.uint(limits.NODE_ID_MAX)
    return AlterBrokerConfig(node, read_configs(reader), _read_removed(reader))


def _read_removed(reader: Reader) -> tuple[str, ...]:
    return tuple(
        reader.text(limits.CONFIG_NAME_BYTES_MAX)
        for _ in range(reader.count(limits.TOPIC_CONFIGS_MAX))
    )


def _read_producer_ids(reader: Reader) -> ProducerIdBlock:
    node = read_node_id(reader)
    core = CoreId(reader.uint(limits.CORES_MAX))
    first_id = reader.uint(limits.INT64_MAX)
    count = reader.uint(limits.INT32_MAX)
    if count == 0 or first_id + count > limits.INT64_MAX:
        raise reader.fault("grants producer ids that do not exist")
    return ProducerIdBlock(node, core, first_id, count)


def _read_reassign(reader: Reader) -> Reassign:
    topic_id = read_topic_id(reader)
    count = reader.count(limits.TOPIC_PARTITIONS_MAX)
    if count == 0:
        raise reader.fault("reassigns nothing")
    wishes = tuple(
        (reader.uint(limits.TOPIC_PARTITIONS_MAX), read_places(reader)) for _ in range(count)
    )
    if len({number for number, _ in wishes}) != count:
        raise reader.fault("reassigns a partition twice")
    return Reassign(topic_id, wishes)


def _read_elect(reader: Reader) -> ElectPreferred:
    count = reader.count(limits.NODE_GROUPS_MAX)
    return ElectPreferred(tuple(read_group(reader) for _ in range(count)))


def _read_features(reader: Reader) -> SetFeatures:
    count = reader.count(limits.TOPIC_CONFIGS_MAX)
    if count == 0:
        raise reader.fault("sets no feature")
    pairs = [
        (reader.text(limits.CONFIG_NAME_BYTES_MAX), reader.uint(limits.INT16_MAX))
        for _ in range(count)
    ]
    if len(dict(pairs)) != count:
        raise reader.fault("sets a feature twice")
    return SetFeatures(dict(pairs))


_READERS: Final[dict[int, Callable[[Reader], Command]]] = {
    1: lambda reader: ClusterCreated(read_cluster_id(reader)),
    2: read_node,
    3: _read_create_topic,
    4: lambda reader: AddPartitions(read_topic_id(reader), read_partitions(reader)),
    5: lambda reader: DeleteTopic(read_topic_id(reader)),
    6: _read_alter_config,
    7: _read_producer_ids,
    8: _read_alter_broker,
    9: read_node_with_peer,
    10: read_node_with_features,
    17: _read_reassign,
    11: lambda reader: ReassignmentStep(
        read_group(reader), Index(reader.uint()), bool(reader.uint(1))
    ),
    12: _read_elect,
    13: lambda reader: DrainNode(read_node_id(reader), reader.uint()),
    14: lambda reader: DecommissionNode(read_node_id(reader), bool(reader.uint(1))),
    15: lambda reader: DirectoryLost(read_node_id(reader), reader.text(limits.HOST_CHARACTERS_MAX)),
    16: lambda reader: NodeForgotten(read_node_id(reader)),
    18: _read_features,
    19: lambda reader: FillNode(read_node_id(reader), bool(reader.uint(1))),
}
