"""Altering configurations: operations in, one command or one refusal out."""

from dataclasses import replace

import pytest

from corelane.cluster.altering import (
    Change,
    Operation,
    plan_broker_changes,
    plan_topic_changes,
)
from corelane.cluster.binary import Writer
from corelane.cluster.changes import (
    BrokerConfigChanged,
    FeaturesChanged,
    NodeChanged,
    PartitionsAdded,
    Refused,
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
    DeleteTopic,
    NodeRegistered,
    SetFeatures,
    decode,
    encode,
    write_configs,
    write_node,
)
from corelane.cluster.creation import Refusal
from corelane.cluster.difference import difference
from corelane.cluster.metadata import ALL_NODES, Cluster, SnapshotError
from corelane.cluster.replicas import PartitionPlan
from corelane.model.config import defaults, parse, with_dynamic
from corelane.model.errors import ErrorCode
from corelane.model.ids import GroupId, Index, NodeId, TopicId

SET, DELETE, APPEND, SUBTRACT = Operation
TOPIC = TopicId(b"t" * 16)


def cluster_with_a_topic(**configs: str) -> Cluster:
    cluster = Cluster()
    cluster.apply(Index(1), NodeRegistered(NodeId(1), "", 1, ()))
    plan = (PartitionPlan(GroupId(1), (NodeId(1),)),)
    cluster.apply(Index(2), CreateTopic("t", TOPIC, plan, configs))
    return cluster


def changed(
    *changes: tuple[str, int, str | None], configs: dict[str, str] | None = None
) -> AlterTopicConfig | Refusal:
    topic = cluster_with_a_topic(**(configs or {})).topics["t"]
    wanted = [Change(*change) for change in changes]
    return plan_topic_changes(topic, {"cleanup.policy": "delete"}, wanted)


def test_what_is_not_named_stays() -> None:
    plan = changed(
        ("retention.ms", SET, " 5 "), ("segment.ms", DELETE, None), configs={"segment.ms": "7"}
    )
    assert plan == AlterTopicConfig(TOPIC, {"retention.ms": "5"}, ("segment.ms",))


def test_lists_get_more_and_lose_items_from_what_acts_now() -> None:
    assert changed(("cleanup.policy", APPEND, "compact")) == AlterTopicConfig(
        TOPIC, {"cleanup.policy": "delete,compact"}, ()
    )
    both = {"cleanup.policy": "compact,delete"}
    assert changed(("cleanup.policy", SUBTRACT, "delete"), configs=both) == AlterTopicConfig(
        TOPIC, {"cleanup.policy": "compact"}, ()
    )
    again = changed(("cleanup.policy", APPEND, "delete"))
    assert again == AlterTopicConfig(TOPIC, {"cleanup.policy": "delete"}, ())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (("nonsense", SET, "1"), ErrorCode.INVALID_CONFIG, "Unknown topic config name: nonsense"),
        (("retention.ms", SET, "soon"), ErrorCode.INVALID_CONFIG, "a whole number from -1"),
        (("retention.ms", SET, None), ErrorCode.INVALID_REQUEST, "Null value"),
        (("retention.ms", APPEND, "1"), ErrorCode.INVALID_CONFIG, "is not a list"),
        (("retention.ms", 9, "1"), ErrorCode.INVALID_REQUEST, "no operation 9"),
    ],
)
def test_one_bad_operation_refuses_the_resource(
    change: tuple[str, int, str | None], error: ErrorCode, words: str
) -> None:
    plan = changed(("segment.ms", SET, "100"), change)
    assert isinstance(plan, Refusal)
    assert plan.error == error
    assert words in plan.sentence


def test_what_another_version_stored_can_be_taken_back() -> None:
    """And what was never there, too, as with Kafka."""
    assert changed(("later.version", DELETE, None)) == AlterTopicConfig(TOPIC, {}, ())
    stored = changed(("later.version", DELETE, None), configs={"later.version": "1"})
    assert stored == AlterTopicConfig(TOPIC, {}, ("later.version",))
    plan = broker(("later.version", DELETE, None), stored={"later.version": "1"})
    assert plan == AlterBrokerConfig(0, {}, ("later.version",))
    beside = broker(("num.partitions", SET, "3"), stored={"later.version": "1"})
    assert beside == AlterBrokerConfig(0, {"num.partitions": "3"}, ())


def test_values_are_stored_as_they_are_shown() -> None:
    plan = changed(
        ("preallocate", SET, "TRUE"),
        ("retention.ms", SET, "+007"),
        ("cleanup.policy", SET, "compact , delete"),
        ("min.cleanable.dirty.ratio", SET, " 0.25"),
    )
    assert isinstance(plan, AlterTopicConfig)
    assert plan.values == {
        "preallocate": "true",
        "retention.ms": "7",
        "cleanup.policy": "compact,delete",
        "min.cleanable.dirty.ratio": "0.25",
    }


def test_a_name_comes_once() -> None:
    plan = changed(("segment.ms", SET, "100"), ("segment.ms", DELETE, None))
    assert isinstance(plan, Refusal)
    assert plan.error == ErrorCode.INVALID_REQUEST


def broker(
    *changes: tuple[str, int, str | None],
    is_whole: bool = False,
    node: int = ALL_NODES,
    stored: dict[str, str] | None = None,
) -> AlterBrokerConfig | Refusal:
    cluster = cluster_with_a_topic()
    present = {"log.retention.ms": "9"} if stored is None else stored
    cluster.apply(Index(3), AlterBrokerConfig(node, present, ()))
    wanted = [Change(*change) for change in changes]
    return plan_broker_changes(cluster, defaults(), node, wanted, is_whole=is_whole)


def test_settings_of_brokers_that_act_at_run_time_can_be_set() -> None:
    assert broker(("num.partitions", SET, "3")) == AlterBrokerConfig(0, {"num.partitions": "3"}, ())
    assert broker(("log.retention.ms", DELETE, None), node=1) == AlterBrokerConfig(
        1, {}, ("log.retention.ms",)
    )
    whole = broker(("num.partitions", SET, "3"), is_whole=True)
    assert whole == AlterBrokerConfig(0, {"num.partitions": "3"}, ("log.retention.ms",))


def test_a_brokers_list_gets_more_than_the_file_has() -> None:
    policy = "log.cleanup.policy"
    more = broker((policy, APPEND, "compact"))
    assert more == AlterBrokerConfig(0, {policy: "delete,compact"}, ())
    less = broker((policy, SUBTRACT, "delete"), stored={policy: "delete,compact"})
    assert less == AlterBrokerConfig(0, {policy: "compact"}, ())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (("node.id", SET, "3"), ErrorCode.INVALID_REQUEST, "Cannot update node.id dynamically"),
        (("no.such", SET, "3"), ErrorCode.INVALID_CONFIG, "Unknown broker config name: no.such"),
        (("num.partitions", SET, "0"), ErrorCode.INVALID_REQUEST, "a whole number from 1"),
        (("num.partitions", SET, None), ErrorCode.INVALID_REQUEST, "Null value"),
    ],
)
def test_other_settings_of_brokers_cannot(
    change: tuple[str, int, str | None], error: ErrorCode, words: str
) -> None:
    plan = broker(change)
    assert isinstance(plan, Refusal)
    assert plan.error == error
    assert words in plan.sentence


def test_changed_settings_are_kept_in_the_fold_and_its_bytes() -> None:
    cluster = cluster_with_a_topic()
    command = AlterBrokerConfig(1, {"num.partitions": "3"}, ())
    assert decode(encode(command)) == command
    assert cluster.apply(Index(3), command) == [BrokerConfigChanged(1)]
    cluster.apply(Index(4), AlterBrokerConfig(ALL_NODES, {"num.partitions": "4"}, ()))
    assert cluster.dynamic_config(NodeId(1)) == {"num.partitions": "3"}
    assert cluster.dynamic_config(NodeId(2)) == {"num.partitions": "4"}
    assert Cluster.decode(cluster.encode()) == cluster
    cluster.apply(Index(5), AlterBrokerConfig(1, {}, ("num.partitions",)))
    assert cluster.dynamic_config(NodeId(1)) == {"num.partitions": "4"}
    (refused,) = cluster.apply(Index(6), AlterBrokerConfig(7, {"num.partitions": "5"}, ()))
    assert isinstance(refused, Refused)


NO_STATES = b"\0\0\0"
"""No node is drained, leaves, or has lost its directory."""
NO_FILLING = b"\0"


def test_a_fold_of_the_first_format_is_read() -> None:
    cluster = cluster_with_a_topic()
    (node,) = cluster.nodes.values()
    assert node.peer_port == 0
    seventh = cluster.encode()
    assert (seventh[0], seventh[-1:]) == (7, NO_FILLING)
    sixth = b"\x06" + seventh[1:-1]
    assert Cluster.decode(sixth) == cluster
    assert sixth[-1] == 0, "no level of a feature was chosen"
    fifth = b"\x05" + sixth[1:-1]
    assert Cluster.decode(fifth) == cluster
    plan, changes = b"\1\1\1", b"\0\0\0"  # group 1 on node 1: no founders, incarnations, change
    assert (fifth[0], fifth.count(plan + changes), fifth[-4:]) == (5, 1, b"\0" + NO_STATES)
    blob = b"\x04" + fifth[1:].replace(plan + changes, plan)[: -len(NO_STATES)]
    assert Cluster.decode(blob) == cluster
    out = Writer()
    write_node(out, node)
    known, peer = bytes(out.data), b"\0\0\0"  # no host, no port, no directory
    features = b"\0"
    assert (blob[0], blob.count(known + peer + features), blob[-1]) == (4, 1, 0)
    third = b"\x03" + blob[1:].replace(known + peer + features, known + peer)
    assert Cluster.decode(third) == cluster
    second = b"\x02" + blob[1:].replace(known + peer + features, known)
    assert Cluster.decode(second) == cluster
    assert Cluster.decode(b"\x01" + second[1:-1]) == cluster


def test_a_feature_is_final_when_every_node_knows_it() -> None:
    cluster = Cluster()
    assert cluster.transaction_version == 0
    new = NodeRegistered(NodeId(7), "a", 2, (), "one.example", 9192, "d1", transaction_version=2)
    assert decode(encode(new)) == new
    cluster.apply(Index(1), new)
    assert cluster.transaction_version == 2
    old = NodeRegistered(NodeId(8), "a", 2, (), "two.example", 9192, "d2")
    cluster.apply(Index(2), old)
    assert cluster.transaction_version == 0
    assert Cluster.decode(cluster.encode()) == cluster
    cluster.apply(Index(3), replace(old, transaction_version=1))
    assert cluster.transaction_version == 1


def test_a_level_that_was_chosen_stays_and_is_never_above_what_a_node_knows() -> None:
    cluster = Cluster()
    new = NodeRegistered(NodeId(7), "a", 2, (), "one.example", 9192, "d1", transaction_version=2)
    cluster.apply(Index(1), new)
    chosen = SetFeatures({"transaction.version": 1})
    assert decode(encode(chosen)) == chosen
    (change,) = cluster.apply(Index(2), chosen)
    assert change == FeaturesChanged()
    assert cluster.transaction_version == 1
    copy = Cluster.decode(cluster.encode())
    assert copy == cluster
    assert FeaturesChanged() in difference(Cluster(), copy)
    old = NodeRegistered(NodeId(8), "a", 2, (), "two.example", 9192, "d2")
    cluster.apply(Index(3), old)
    assert cluster.transaction_version == 0
    for level in ({"transaction.version": 2}, {"metadata.version": 1}):
        (refused,) = cluster.apply(Index(cluster.applied_index + 1), SetFeatures(level))
        assert isinstance(refused, Refused)
    cluster.apply(Index(cluster.applied_index + 1), replace(old, transaction_version=2))
    assert cluster.transaction_version == 1


def test_where_peers_dial_a_node_is_kept() -> None:
    node = NodeRegistered(NodeId(7), "a", 2, (), "one.example", 9192, "d1")
    assert decode(encode(node)) == node
    cluster = cluster_with_a_topic()
    cluster.apply(Index(cluster.applied_index + 1), node)
    assert Cluster.decode(cluster.encode()).nodes[NodeId(7)] == node
    other = NodeRegistered(NodeId(7), "a", 2, (), "one.example", 9192, "d2")
    (refused,) = cluster.apply(Index(cluster.applied_index + 1), other)
    assert isinstance(refused, Refused)
    assert "another data directory" in refused.sentence
    assert cluster.nodes[NodeId(7)] == node


@pytest.mark.parametrize(
    "rows", [[(1, {})], [(1, {"a": "b"}), (1, {"c": "d"})]], ids=["empty", "twice"]
)
def test_a_fold_with_settings_that_no_fold_has_is_not_read(
    rows: list[tuple[int, dict[str, str]]],
) -> None:
    blob = cluster_with_a_topic().encode()
    out = Writer()
    out.uint(len(rows))
    for node, configs in rows:
        out.uint(node)
        write_configs(out, configs)
    states = NO_STATES + b"\0" + NO_FILLING
    with pytest.raises(SnapshotError, match="settings of node 1"):
        Cluster.decode(blob[: -1 - len(states)] + out.data + states)


def test_dynamic_settings_lie_over_the_file() -> None:
    config = parse("num.partitions = 4\nlog.retention.ms = 6")
    merged = with_dynamic(config, {"num.partitions": "7", "from.a.later.version": "1"})
    assert merged.topics.partition_count_default == 7
    assert merged.log.retention_ms == 6
    assert merged.given == config.given
    assert with_dynamic(config, {}) is config


def test_the_difference_of_two_folds_is_what_a_core_must_do() -> None:
    before = cluster_with_a_topic()
    gone = TopicId(b"g" * 16)
    plan = (PartitionPlan(GroupId(2), (NodeId(1),)),)
    before.apply(Index(3), CreateTopic("gone", gone, plan, {}))
    after = Cluster.decode(before.encode())
    assert difference(before, after) == []
    commands: list[Command] = [
        ClusterCreated(b"c" * 16),
        NodeRegistered(NodeId(1), "rack", 2, ()),
        DeleteTopic(gone),
        CreateTopic("gone", TopicId(b"n" * 16), (PartitionPlan(GroupId(3), (NodeId(1),)),), {}),
        AddPartitions(TOPIC, (PartitionPlan(GroupId(4), (NodeId(1),)),)),
        AlterTopicConfig(TOPIC, {"retention.ms": "5"}, ()),
        AlterBrokerConfig(1, {"num.partitions": "3"}, ()),
    ]
    for index, command in enumerate(commands, 4):
        after.apply(Index(index), command)
    changes = difference(before, after)
    kinds = [type(change) for change in changes[1:]]
    assert kinds == [
        NodeChanged,
        BrokerConfigChanged,
        TopicDeleted,
        PartitionsAdded,
        TopicConfigChanged,
        TopicCreated,
    ]
    assert len(difference(Cluster(), before)) == 3
