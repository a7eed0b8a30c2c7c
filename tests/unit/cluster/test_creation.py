"""What clients may wish for: Kafka's rules, errors and order of checks."""

from collections.abc import Sequence

import pytest

from corelane.cluster.changes import Topic
from corelane.cluster.commands import (
    AddPartitions,
    AlterTopicConfig,
    CreateTopic,
    DecommissionNode,
    DrainNode,
    NodeRegistered,
)
from corelane.cluster.creation import (
    Means,
    Refusal,
    TopicWish,
    plan_configs,
    plan_partitions,
    plan_topic,
    topic_name_fault,
)
from corelane.cluster.metadata import Cluster, Reservations
from corelane.cluster.replicas import PartitionPlan
from corelane.model.config import defaults, parse
from corelane.model.errors import ErrorCode
from corelane.model.ids import BrokerId, GroupId, Index, NodeId, TopicId

ID = TopicId(bytes(15) + b"\1")


def cluster_of(*nodes: int) -> Cluster:
    cluster = Cluster()
    for node in nodes:
        index = Index(cluster.applied_index + 1)
        cluster.apply(index, NodeRegistered(NodeId(node), "", 1, ()))
    return cluster


def with_topic(cluster: Cluster, name: str, *configs: tuple[str, str]) -> Topic:
    planned = plan(cluster, TopicWish(name, configs=configs))
    assert isinstance(planned, CreateTopic)
    cluster.apply(Index(cluster.applied_index + 1), planned)
    return cluster.topics[name]


def means(cluster: Cluster, *down: int) -> Means:
    return Means(Reservations(cluster), lambda node: node not in down)


def plan(
    cluster: Cluster, wish: TopicWish, settings: str = "", down: Sequence[int] = ()
) -> CreateTopic | Refusal:
    return plan_topic(cluster, parse(settings), wish, ID, means(cluster, *down))


def error(planned: object) -> ErrorCode:
    assert isinstance(planned, Refusal)
    assert planned.sentence
    return planned.error


def brokers(*ids: int) -> list[BrokerId]:
    return [BrokerId(broker) for broker in ids]


def test_numbers_nobody_names_are_the_brokers_defaults() -> None:
    planned = plan(cluster_of(1), TopicWish("t"), "num.partitions = 3")
    node = (NodeId(1),)
    partitions = tuple(PartitionPlan(GroupId(group), node) for group in (1, 2, 3))
    assert planned == CreateTopic("t", ID, partitions, {})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "the empty string is not allowed"),
        (".", "'.' is not allowed"),
        ("..", "'..' is not allowed"),
        ("x" * 250, "longer than the max allowed length 249"),
        ("a b", "contains one or more characters other than"),
        ("ä", "contains one or more characters other than"),
        ("a/b", "contains one or more characters other than"),
        ("a\n", "contains one or more characters other than"),
    ],
)
def test_a_bad_name_is_refused_in_kafkas_words(name: str, why: str) -> None:
    planned = plan(cluster_of(1), TopicWish(name))
    assert error(planned) is ErrorCode.INVALID_TOPIC_EXCEPTION
    assert isinstance(planned, Refusal)
    assert why in planned.sentence


@pytest.mark.parametrize("name", ["x" * 249, "...", "__consumer_offsets", "A.b-c_9"])
def test_a_good_name_is_good(name: str) -> None:
    assert topic_name_fault(name) is None


def test_a_name_in_use_or_colliding_is_refused() -> None:
    cluster = cluster_of(1)
    with_topic(cluster, "a.b")
    assert error(plan(cluster, TopicWish("a.b"))) is ErrorCode.TOPIC_ALREADY_EXISTS
    assert error(plan(cluster, TopicWish("a_b"))) is ErrorCode.INVALID_TOPIC_EXCEPTION


@pytest.mark.parametrize(
    ("partitions", "replicas", "code"),
    [
        (0, -1, ErrorCode.INVALID_PARTITIONS),
        (-2, -1, ErrorCode.INVALID_PARTITIONS),
        (10_001, -1, ErrorCode.INVALID_PARTITIONS),
        (2**31 - 1, 1, ErrorCode.INVALID_PARTITIONS),
        (1, 0, ErrorCode.INVALID_REPLICATION_FACTOR),
        (1, -2, ErrorCode.INVALID_REPLICATION_FACTOR),
        (1, 2, ErrorCode.INVALID_REPLICATION_FACTOR),
        (1, 32_767, ErrorCode.INVALID_REPLICATION_FACTOR),
        (0, 0, ErrorCode.INVALID_REPLICATION_FACTOR),
    ],
)
def test_impossible_numbers_are_refused(partitions: int, replicas: int, code: ErrorCode) -> None:
    assert error(plan(cluster_of(1), TopicWish("t", partitions, replicas))) is code


def placed(planned: CreateTopic | AddPartitions | Refusal) -> list[tuple[NodeId, ...]]:
    assert not isinstance(planned, Refusal), planned.sentence
    return [partition.replicas for partition in planned.partitions]


def test_nodes_that_are_away_or_drained_get_replicas_only_where_others_are_too_few() -> None:
    cluster = cluster_of(1, 2, 3, 4)
    cluster.apply(Index(5), DrainNode(NodeId(2), 77))
    for replicas in placed(plan(cluster, TopicWish("t", 4, 2), down=[1])):
        assert {*replicas} == {3, 4}
    for replicas in placed(plan(cluster, TopicWish("t", 4, 3), down=[1])):
        assert 1 not in replicas or 2 not in replicas, "only one of them is needed"
        assert replicas[0] in (3, 4), "neither is to lead"
    topic = with_topic(cluster, "t")
    more = plan_partitions(cluster, topic, 5, means(cluster, 1))
    assert {node for replicas in placed(more) for node in replicas} <= {3, 4}


def test_a_decommissioned_node_gets_nothing() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.apply(Index(4), DecommissionNode(NodeId(2), is_wanted=True))
    for replicas in placed(plan(cluster, TopicWish("t", 3, 2))):
        assert {*replicas} == {1, 3}
    assert error(plan(cluster, TopicWish("t", 1, 3))) is ErrorCode.INVALID_REPLICATION_FACTOR
    chosen = TopicWish("t", assignments=[(0, brokers(1000, 2000))])
    assert error(plan(cluster, chosen)) is ErrorCode.INVALID_REPLICA_ASSIGNMENT


def test_a_partition_that_nobody_could_write_to_is_not_made() -> None:
    """Kafka refuses where no broker is there; a quorum of replicas is needed here."""
    cluster = cluster_of(1, 2, 3)
    assert placed(plan(cluster, TopicWish("t", 1, 3), down=[2])), "two of three will do"
    refused = plan(cluster, TopicWish("t", 1, 3), down=[2, 3])
    assert error(refused) is ErrorCode.INVALID_REPLICATION_FACTOR
    assert isinstance(refused, Refusal)
    assert "only 1 of 3 nodes can be reached" in refused.sentence
    assert "start node(s) 2, 3" in refused.sentence
    chosen = TopicWish("t", assignments=[(0, brokers(2000, 3000, 1000))])
    assert error(plan(cluster, chosen, down=[2, 3])) is ErrorCode.INVALID_REPLICA_ASSIGNMENT
    topic = with_topic(cluster, "t")
    grown = plan_partitions(cluster, topic, 2, means(cluster, 1, 2, 3))
    assert error(grown) is ErrorCode.INVALID_REPLICATION_FACTOR
    grown = plan_partitions(cluster, topic, 2, means(cluster, 2), [brokers(2000)])
    assert error(grown) is ErrorCode.INVALID_REPLICA_ASSIGNMENT


def test_a_default_replication_factor_that_cannot_be_met_is_refused_too() -> None:
    planned = plan(cluster_of(1), TopicWish("t"), "default.replication.factor = 3")
    assert error(planned) is ErrorCode.INVALID_REPLICATION_FACTOR
    assert isinstance(planned, Refusal)
    assert "only 1 node(s) are registered" in planned.sentence


def test_a_refused_wish_reserves_nothing() -> None:
    cluster = cluster_of(1)
    reservations = Reservations(cluster)
    plan_topic(cluster, defaults(), TopicWish("t", 0), ID, Means(reservations, lambda _: True))
    assert reservations.groups(1) == 1


def test_an_assignment_names_brokers_and_becomes_nodes() -> None:
    wish = TopicWish("t", assignments=[(1, brokers(2001)), (0, brokers(1000))])
    planned = plan(cluster_of(1, 2), wish)
    assert isinstance(planned, CreateTopic)
    assert [plan.replicas for plan in planned.partitions] == [(1,), (2,)]


@pytest.mark.parametrize(
    "assignments",
    [
        [(0, [1000]), (0, [1000])],
        [(1, [1000])],
        [(0, [1000]), (2, [1000])],
        [(-1, [1000])],
        [(0, [])],
        [(0, [1000]), (1, [1000, 2000])],
        [(0, [1000, 1001])],
        [(0, [3000])],
        [(0, [-1])],
        [(0, [7])],
        [(0, [1000, 2000, 1000])],
    ],
)
def test_a_bad_assignment_is_refused(assignments: list[tuple[int, list[int]]]) -> None:
    wish = TopicWish("t", assignments=[(number, brokers(*ids)) for number, ids in assignments])
    assert error(plan(cluster_of(1, 2), wish)) is ErrorCode.INVALID_REPLICA_ASSIGNMENT


@pytest.mark.parametrize(("partitions", "replicas"), [(1, -1), (-1, 1), (1, 1)])
def test_numbers_beside_an_assignment_are_refused(partitions: int, replicas: int) -> None:
    wish = TopicWish("t", partitions, replicas, assignments=[(0, brokers(1000))])
    assert error(plan(cluster_of(1), wish)) is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no.such.config", "1"),
        ("retention.ms", None),
        ("retention.ms", "a week"),
        ("retention.ms", "-2"),
        ("retention.ms", "1" * 5_000),
        ("max.compaction.lag.ms", "0"),
    ],
)
def test_a_bad_configuration_is_refused(name: str, value: str | None) -> None:
    planned = plan(cluster_of(1), TopicWish("t", configs=[(name, value)]))
    assert error(planned) is ErrorCode.INVALID_CONFIG
    assert isinstance(planned, Refusal)
    assert name in planned.sentence


def test_configurations_that_contradict_each_other_are_refused() -> None:
    lags = [("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "9")]
    assert error(plan(cluster_of(1), TopicWish("t", configs=lags))) is ErrorCode.INVALID_CONFIG


def test_good_configurations_are_stored_as_text() -> None:
    topic = with_topic(cluster_of(1), "t", ("retention.ms", " 5 "), ("flush.ms", "1"))
    assert topic.configs == {"retention.ms": "5", "flush.ms": "1"}


def test_partitions_are_added_up_to_a_count() -> None:
    cluster = cluster_of(1)
    topic = with_topic(cluster, "t")
    planned = plan_partitions(cluster, topic, 3, means(cluster))
    assert isinstance(planned, AddPartitions)
    assert [partition.group for partition in planned.partitions] == [2, 3]
    for count in (1, 0, -1, 10_001):
        planned = plan_partitions(cluster, topic, count, means(cluster))
        assert error(planned) is ErrorCode.INVALID_PARTITIONS


def test_an_increment_leaves_the_rest_alone_and_a_whole_does_not() -> None:
    topic = with_topic(cluster_of(1), "t", ("retention.ms", "5"), ("flush.ms", "1"))
    change = [("segment.ms", "7"), ("flush.ms", None)]
    some = plan_configs(topic, change, is_whole=False)
    assert some == AlterTopicConfig(ID, {"segment.ms": "7"}, ("flush.ms",))
    whole = plan_configs(topic, [("segment.ms", "7")], is_whole=True)
    assert whole == AlterTopicConfig(ID, {"segment.ms": "7"}, ("flush.ms", "retention.ms"))


def test_an_alteration_is_checked_together_with_what_is_there() -> None:
    topic = with_topic(cluster_of(1), "t", ("max.compaction.lag.ms", "9"))
    for bad in ([("min.compaction.lag.ms", "10")], [("nonsense", "1")], [("flush.ms", "x")]):
        assert error(plan_configs(topic, bad, is_whole=False)) is ErrorCode.INVALID_CONFIG
    good = plan_configs(topic, [("min.compaction.lag.ms", "10")], is_whole=True)
    assert isinstance(good, AlterTopicConfig)
