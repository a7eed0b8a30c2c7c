"""What a client may wish for when it creates, extends or alters a topic: checks and decisions.

Each function answers with the command to propose, or with the Kafka error and a sentence. The
order of the checks is Kafka's (ReplicationControlManager), so that tools see the error they know.
"""

from collections.abc import Callable, Sequence
from typing import Final

from corelane.cluster import placement, topic_config
from corelane.cluster.changes import Topic
from corelane.cluster.commands import AddPartitions, AlterTopicConfig, CreateTopic
from corelane.cluster.metadata import Cluster, Reservations, collision_sentence
from corelane.cluster.placement import NodeLoad
from corelane.cluster.replicas import PartitionPlan
from corelane.model import limits
from corelane.model.config import Config
from corelane.model.errors import ErrorCode
from corelane.model.ids import BROKERS_PER_NODE, BrokerId, GroupId, NodeId, TopicId
from corelane.model.record import record

USE_DEFAULT: Final = -1
"""What a request says instead of a number when the broker shall choose."""


@record
class TopicWish:
    """A topic as a client asks for it, before anything of it is believed."""

    name: str
    partition_count: int = USE_DEFAULT
    replication_factor: int = USE_DEFAULT
    assignments: Sequence[tuple[int, Sequence[BrokerId]]] = ()
    """Partition number and brokers; empty: the cluster places the partitions."""
    configs: Sequence[tuple[str, str | None]] = ()


IsUp = Callable[[NodeId], bool]


@record
class Means:
    """What a wish is granted with."""

    reservations: Reservations
    is_up: IsUp
    """Says whether a node can be reached."""


@record
class Refusal:
    """Why a wish cannot be granted."""

    error: ErrorCode
    sentence: str


def plan_topic(
    cluster: Cluster,
    config: Config,
    wish: TopicWish,
    topic_id: TopicId,
    means: Means,
) -> CreateTopic | Refusal:
    """Return the command that makes the topic; raft groups are reserved for it."""
    refusal = _name_refusal(cluster, wish.name)
    if refusal is not None:
        return refusal
    configs = _checked_configs(wish.configs)
    if isinstance(configs, Refusal):
        return configs
    if wish.assignments:
        replicas = _assigned(cluster, wish, means.is_up)
    else:
        replicas = _placed(cluster, config, wish, means.is_up)
    if isinstance(replicas, Refusal):
        return replicas
    partitions = _with_groups(replicas, means.reservations)
    return CreateTopic(wish.name, topic_id, partitions, configs)


def plan_partitions(
    cluster: Cluster,
    topic: Topic,
    partition_count: int,
    means: Means,
    assignments: Sequence[Sequence[BrokerId]] | None = None,
) -> AddPartitions | Refusal:
    """Return the command that extends *topic* to *partition_count* partitions.

    *assignments* are the brokers of each new partition, where the client chooses them.
    """
    present = len(topic.partitions)
    if partition_count == present:
        return Refusal(ErrorCode.INVALID_PARTITIONS, f"Topic already has {present} partition(s).")
    if partition_count < present:
        return Refusal(
            ErrorCode.INVALID_PARTITIONS,
            f"The topic {topic.name} currently has {present} partition(s); {partition_count} would"
            " not be an increase.",
        )
    refusal = _count_refusal(partition_count)
    if refusal is not None:
        return refusal
    if assignments is None:
        nodes = placement.loads(cluster, means.is_up)
        replica_count = min(len(topic.partitions[0].target), len(nodes))
        refusal = _too_few_refusal(replica_count, nodes, means.is_up)
        if refusal is not None:
            return refusal
        replicas = placement.place_replicas(partition_count - present, replica_count, nodes)
    else:
        fault = _new_assignments_fault(cluster, topic, partition_count, assignments)
        replicas = [tuple(_node_of(broker) for broker in brokers) for brokers in assignments]
        fault = fault or _quorum_fault(replicas, present, means.is_up)
        if fault is not None:
            return Refusal(ErrorCode.INVALID_REPLICA_ASSIGNMENT, fault)
    return AddPartitions(topic.topic_id, _with_groups(replicas, means.reservations))


def plan_configs(
    topic: Topic, values: Sequence[tuple[str, str | None]], *, is_whole: bool
) -> AlterTopicConfig | Refusal:
    """Return the command that sets *values*; None sets one back to its default.

    *is_whole*: what is not named goes back to its default too (AlterConfigs); otherwise it stays
    (IncrementalAlterConfigs).
    """
    wanted = _checked_configs([(name, value) for name, value in values if value is not None])
    if isinstance(wanted, Refusal):
        return wanted
    removed = {name for name, value in values if value is None}
    if is_whole:
        removed |= topic.configs.keys() - wanted.keys()
    result = {n: v for n, v in (topic.configs | wanted).items() if n not in removed}
    fault = topic_config.fault_of_all(result)
    if fault is not None:
        return Refusal(ErrorCode.INVALID_CONFIG, fault)
    return AlterTopicConfig(topic.topic_id, wanted, tuple(sorted(removed & topic.configs.keys())))


def topic_name_fault(name: str) -> str | None:
    """Return why no topic can have this name, in Kafka's words, or None."""
    if not name:
        return "the empty string is not allowed"
    if name in (".", ".."):
        return f"'{name}' is not allowed"
    if len(name) > limits.TOPIC_NAME_CHARACTERS_MAX:
        return (
            f"the length of '{name[:40]}…' is longer than the max allowed length"
            f" {limits.TOPIC_NAME_CHARACTERS_MAX}"
        )
    if limits.TOPIC_NAME_PATTERN.match(name) is None:
        return (
            f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_'"
            " and '-'"
        )
    return None


def _name_refusal(cluster: Cluster, name: str) -> Refusal | None:
    fault = topic_name_fault(name)
    if fault is not None:
        return Refusal(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {fault}")
    if name in cluster.topics:
        return Refusal(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
    colliding = cluster.colliding(name)
    if colliding is not None:
        return Refusal(ErrorCode.INVALID_TOPIC_EXCEPTION, collision_sentence(name, colliding))
    return None


def _checked_configs(configs: Sequence[tuple[str, str | None]]) -> dict[str, str] | Refusal:
    checked: dict[str, str] = {}
    for name, value in configs:
        fault = topic_config.fault_of(name, value)
        if fault is not None:
            return Refusal(ErrorCode.INVALID_CONFIG, fault)
        assert value is not None
        checked[name] = topic_config.canonical(name, value)
    fault = topic_config.fault_of_all(checked)
    return checked if fault is None else Refusal(ErrorCode.INVALID_CONFIG, fault)


def _placed(
    cluster: Cluster, config: Config, wish: TopicWish, is_up: IsUp
) -> list[tuple[NodeId, ...]] | Refusal:
    """Decide where the partitions of a wish without assignments go."""
    partition_count, replica_count = wish.partition_count, wish.replication_factor
    if replica_count < USE_DEFAULT or replica_count == 0:
        return Refusal(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        )
    if partition_count < USE_DEFAULT or partition_count == 0:
        return Refusal(
            ErrorCode.INVALID_PARTITIONS,
            "Number of partitions was set to an invalid non-positive value.",
        )
    if partition_count == USE_DEFAULT:
        partition_count = config.topics.partition_count_default
    if replica_count == USE_DEFAULT:
        replica_count = config.topics.replication_factor_default
    refusal = _count_refusal(partition_count)
    if refusal is not None:
        return refusal
    nodes = placement.loads(cluster, is_up)
    refusal = _too_few_refusal(replica_count, nodes, is_up)
    if refusal is not None:
        return refusal
    return placement.place_replicas(partition_count, replica_count, nodes)


def _too_few_refusal(replica_count: int, nodes: Sequence[NodeLoad], is_up: IsUp) -> Refusal | None:
    """Return why there are too few nodes for so many replicas, or None.

    As Kafka, all registered nodes count, if some of them are there: here a majority of a
    partition's replicas, as nobody could write to it before.
    """
    up = [load.node for load in nodes if is_up(load.node)]
    if replica_count > limits.REPLICAS_MAX:
        have = f"a partition can have at most {limits.REPLICAS_MAX}"
    elif replica_count > len(nodes):
        have = f"only {len(nodes)} node(s) are registered"
    elif len(up) < _quorum(replica_count):
        away = ", ".join(str(load.node) for load in nodes if load.node not in up)
        have = (
            f"only {len(up)} of {len(nodes)} nodes can be reached, and {_quorum(replica_count)} of"
            f" its replicas are needed to write to it; start node(s) {away}"
        )
    else:
        return None
    return Refusal(
        ErrorCode.INVALID_REPLICATION_FACTOR,
        f"Unable to replicate the partition {replica_count} time(s): {have}.",
    )


def _quorum(replica_count: int) -> int:
    """Return how many of so many replicas a write needs."""
    return replica_count // 2 + 1


def _quorum_fault(
    replicas: Sequence[Sequence[NodeId]], first_number: int, is_up: IsUp
) -> str | None:
    """Return why nobody could write to a partition placed by a client, or None."""
    for number, nodes in enumerate(replicas, first_number):
        away = [node for node in nodes if not is_up(node)]
        if len(nodes) - len(away) < _quorum(len(nodes)):
            return (
                f"Partition {number} would have no quorum: of its {len(nodes)} replicas those on"
                f" node(s) {', '.join(map(str, away))} cannot be reached."
            )
    return None


def _assigned(cluster: Cluster, wish: TopicWish, is_up: IsUp) -> list[tuple[NodeId, ...]] | Refusal:
    """Check the places a client chose itself."""
    for field, value in (
        ("replication factor", wish.replication_factor),
        ("numPartitions", wish.partition_count),
    ):
        if value != USE_DEFAULT:
            return Refusal(
                ErrorCode.INVALID_REQUEST,
                f"A manual partition assignment was specified, but {field} was not set to -1.",
            )
    refusal = _count_refusal(len(wish.assignments))
    if refusal is not None:
        return refusal
    by_number = dict(wish.assignments)
    fault = None
    if len(by_number) != len(wish.assignments):
        fault = "Found multiple manual partition assignments for one partition."
    elif sorted(by_number) != list(range(len(by_number))):
        fault = "Partitions should be a consecutive 0-based integer sequence."
    elif len({len(brokers) for brokers in by_number.values()}) != 1:
        fault = "All partitions must have the same number of replicas."
    else:
        for number in sorted(by_number):
            fault = fault or _assignment_fault(cluster, number, by_number[number])
    replicas = [tuple(map(_node_of, by_number[number])) for number in sorted(by_number)]
    fault = fault or _quorum_fault(replicas, 0, is_up)
    if fault is not None:
        return Refusal(ErrorCode.INVALID_REPLICA_ASSIGNMENT, fault)
    return replicas


def _assignment_fault(cluster: Cluster, number: int, brokers: Sequence[BrokerId]) -> str | None:
    nodes = [_node_of(broker) for broker in brokers]
    if not nodes:
        return f"The manual partition assignment of partition {number} is empty."
    if len(nodes) > limits.REPLICAS_MAX:
        return f"Partition {number} is given {len(nodes)} replicas; {limits.REPLICAS_MAX} are most."
    if len(set(nodes)) != len(nodes):
        return f"Partition {number} is given two replicas on one node: {list(brokers)}."
    for broker, node in zip(brokers, nodes, strict=True):
        if broker < 0 or node not in cluster.nodes:
            return f"Partition {number} is given to the unknown broker {broker}."
        if not cluster.states.takes_replicas(node):
            return f"Partition {number} is given to node {node}, which is being decommissioned."
    return None


def _new_assignments_fault(
    cluster: Cluster,
    topic: Topic,
    partition_count: int,
    assignments: Sequence[Sequence[BrokerId]],
) -> str | None:
    """Return what is wrong with the places a client chose for new partitions, or None."""
    present, wanted = len(topic.partitions), len(topic.partitions[0].target)
    if len(assignments) != partition_count - present:
        return (
            f"Attempted to add {partition_count - present} additional partition(s), but only"
            f" {len(assignments)} assignment(s) were specified."
        )
    for number, brokers in enumerate(assignments, present):
        fault = _assignment_fault(cluster, number, brokers)
        if fault is None and len(brokers) != wanted:
            fault = f"Partition {number} is given {len(brokers)} replica(s), the others {wanted}."
        if fault is not None:
            return fault
    return None


def _node_of(broker: BrokerId) -> NodeId:
    return NodeId(broker // BROKERS_PER_NODE)


def _count_refusal(partition_count: int) -> Refusal | None:
    if partition_count <= limits.TOPIC_PARTITIONS_MAX:
        return None
    return Refusal(
        ErrorCode.INVALID_PARTITIONS,
        f"A topic can have {limits.TOPIC_PARTITIONS_MAX} partitions, not {partition_count}.",
    )


def _with_groups(
    replicas: Sequence[tuple[NodeId, ...]], reservations: Reservations
) -> tuple[PartitionPlan, ...]:
    first = reservations.groups(len(replicas))
    return tuple(
        PartitionPlan(GroupId(first + number), nodes) for number, nodes in enumerate(replicas)
    )
