"""The fold of the controller's log, one command after the other."""

from dataclasses import replace

import pytest

from corelane.cluster.changes import (
    Change,
    ClusterNamed,
    NodeChanged,
    PartitionsAdded,
    ProducerIdsGranted,
    Refused,
    TopicConfigChanged,
    TopicCreated,
    TopicDeleted,
)
from corelane.cluster.commands import (
    AddPartitions,
    AlterTopicConfig,
    ClusterCreated,
    Command,
    CreateTopic,
    DeleteTopic,
    NodeRegistered,
    ProducerIdBlock,
)
from corelane.cluster.metadata import Cluster, Reservations, SnapshotError
from corelane.cluster.replicas import PartitionPlan
from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.ids import CoreId, GroupId, Index, NodeId, TopicId

NODE = NodeId(1)


def topic_id(number: int) -> TopicId:
    return TopicId(number.to_bytes(16, "big"))


def plans(*groups: int) -> tuple[PartitionPlan, ...]:
    return tuple(PartitionPlan(GroupId(group), (NODE,)) for group in groups)


def create(name: str, number: int, *groups: int, **configs: str) -> CreateTopic:
    named = {key.replace("_", "."): value for key, value in configs.items()}
    return CreateTopic(name, topic_id(number), plans(*groups), named)


def apply(cluster: Cluster, command: Command) -> Change:
    """Apply *command* as the next entry, and see that a snapshot would be the same cluster."""
    (change,) = cluster.apply(Index(cluster.applied_index + 1), command)
    assert Cluster.decode(cluster.encode()) == cluster
    return change


def refused(cluster: Cluster, command: Command) -> ErrorCode:
    before = Cluster.decode(cluster.encode())
    change = apply(cluster, command)
    assert isinstance(change, Refused)
    assert change.sentence.endswith((".", "again.", "meanwhile."))
    before.skip(cluster.applied_index)
    assert before == cluster, "a refused command changes nothing"
    return change.error


def test_a_topic_is_found_by_name_by_id_and_by_each_raft_group() -> None:
    cluster = Cluster()
    change = apply(cluster, create("t", 1, 1, 2, retention_ms="5"))
    assert isinstance(change, TopicCreated)
    topic = change.topic
    assert cluster.topics["t"] is topic
    assert cluster.topics_by_id[topic_id(1)] is topic
    assert cluster.partition_of(GroupId(2)) == (topic, 1)
    assert cluster.partition_of(GroupId(0)) is None
    assert topic.configs == {"retention.ms": "5"}
    assert topic.revision == cluster.revision == 1
    assert cluster.next_group == 3


def test_of_two_topics_of_one_name_on_their_way_the_second_is_refused() -> None:
    cluster = Cluster()
    apply(cluster, create("t", 1, 1))
    assert refused(cluster, create("t", 2, 2)) is ErrorCode.TOPIC_ALREADY_EXISTS
    assert refused(cluster, create("u", 1, 2)) is ErrorCode.TOPIC_ALREADY_EXISTS


def test_names_that_differ_in_dots_and_underscores_only_collide() -> None:
    cluster = Cluster()
    apply(cluster, create("a.b_c", 1, 1))
    assert refused(cluster, create("a_b.c", 2, 2)) is ErrorCode.INVALID_TOPIC_EXCEPTION
    assert cluster.colliding("a_b_c") == "a.b_c"
    assert cluster.colliding("a-b-c") is None


def test_raft_groups_are_never_used_again() -> None:
    cluster = Cluster()
    apply(cluster, create("t", 1, 1, 2, 3))
    apply(cluster, DeleteTopic(topic_id(1)))
    assert cluster.partition_of(GroupId(1)) is None
    assert refused(cluster, create("t", 2, 3)) is ErrorCode.NOT_CONTROLLER
    assert refused(cluster, create("t", 2, 5, 4)) is ErrorCode.NOT_CONTROLLER
    assert isinstance(apply(cluster, create("t", 2, 4)), TopicCreated)


def test_a_topic_made_again_is_another_topic() -> None:
    cluster = Cluster()
    apply(cluster, create("t", 1, 1))
    deleted = apply(cluster, DeleteTopic(topic_id(1)))
    assert isinstance(deleted, TopicDeleted)
    assert deleted.topic.name == "t"
    apply(cluster, create("t", 2, 2))
    assert cluster.topics["t"].topic_id == topic_id(2)
    assert refused(cluster, DeleteTopic(topic_id(1))) is ErrorCode.UNKNOWN_TOPIC_ID


def test_partitions_are_numbered_on() -> None:
    cluster = Cluster()
    apply(cluster, create("t", 1, 1))
    change = apply(cluster, AddPartitions(topic_id(1), plans(2, 3)))
    assert isinstance(change, PartitionsAdded)
    assert change.first == 1
    found = cluster.partition_of(GroupId(3))
    assert found == (cluster.topics["t"], 2)
    assert refused(cluster, AddPartitions(topic_id(1), plans(3))) is ErrorCode.NOT_CONTROLLER
    assert refused(cluster, AddPartitions(topic_id(9), plans(4))) is ErrorCode.UNKNOWN_TOPIC_ID


def test_a_topic_has_only_so_many_partitions() -> None:
    cluster = Cluster()
    apply(cluster, create("t", 1, *range(1, limits.TOPIC_PARTITIONS_MAX + 1)))
    more = AddPartitions(topic_id(1), plans(limits.TOPIC_PARTITIONS_MAX + 1))
    assert refused(cluster, more) is ErrorCode.INVALID_PARTITIONS


def test_configurations_are_set_and_go_back_to_their_defaults() -> None:
    cluster = Cluster()
    apply(cluster, create("t", 1, 1, retention_ms="5", segment_ms="7"))
    before = cluster.topics["t"]
    command = AlterTopicConfig(topic_id(1), {"retention.ms": "6"}, ("segment.ms", "flush.ms"))
    assert isinstance(apply(cluster, command), TopicConfigChanged)
    assert cluster.topics["t"] == replace(before, configs={"retention.ms": "6"}, revision=Index(2))
    assert before.configs == {"retention.ms": "5", "segment.ms": "7"}, "values never change"
    assert refused(cluster, replace(command, topic_id=topic_id(2))) is ErrorCode.UNKNOWN_TOPIC_ID


def test_a_topic_has_only_so_many_configurations() -> None:
    cluster = Cluster()
    apply(cluster, create("t", 1, 1))
    many = {f"k{number}": "" for number in range(limits.TOPIC_CONFIGS_MAX)}
    apply(cluster, AlterTopicConfig(topic_id(1), many, ()))
    more = AlterTopicConfig(topic_id(1), {"one": "more"}, ())
    assert refused(cluster, more) is ErrorCode.INVALID_CONFIG


def test_producer_ids_are_granted_once() -> None:
    cluster = Cluster()
    block = ProducerIdBlock(NODE, CoreId(0), 0, 1_000)
    assert apply(cluster, block) == ProducerIdsGranted(NODE, CoreId(0), 0, 1_000)
    assert refused(cluster, block) is ErrorCode.NOT_CONTROLLER
    apply(cluster, replace(block, first_id=5_000))
    assert cluster.next_producer_id == 6_000


def test_a_node_replaces_what_was_known_of_it() -> None:
    cluster = Cluster()
    apply(cluster, NodeRegistered(NODE, "", 1, ()))
    moved = NodeRegistered(NODE, "rack", 2, ())
    assert apply(cluster, moved) == NodeChanged(moved)
    assert cluster.nodes == {NODE: moved}


def test_a_cluster_is_named_once() -> None:
    cluster = Cluster()
    assert apply(cluster, ClusterCreated(bytes(16))) == ClusterNamed(bytes(16))
    assert refused(cluster, ClusterCreated(bytes(15) + b"\1")) is ErrorCode.INVALID_REQUEST


def test_entries_that_are_no_commands_only_move_the_index() -> None:
    cluster = Cluster()
    apply(cluster, create("t", 1, 1))
    cluster.skip(Index(9))
    assert (cluster.applied_index, cluster.revision) == (9, 1)
    with pytest.raises(AssertionError):
        cluster.apply(Index(9), DeleteTopic(topic_id(1)))


def test_a_leader_promises_ids_to_commands_that_are_not_applied_yet() -> None:
    cluster = Cluster()
    promised = Reservations(cluster)
    assert [promised.groups(2), promised.groups(1)] == [1, 3]
    assert [promised.producer_ids(1_000), promised.producer_ids(1_000)] == [0, 1_000]
    apply(cluster, create("t", 1, 10))
    assert promised.groups(1) == 11


def test_the_next_leader_may_give_lost_promises_again() -> None:
    cluster = Cluster()
    assert Reservations(cluster).groups(5) == 1
    assert Reservations(cluster).groups(5) == 1


@pytest.mark.parametrize("cut", [0, 1, 5, 20, -1])
def test_a_damaged_snapshot_is_an_error(cut: int) -> None:
    cluster = Cluster()
    apply(cluster, ClusterCreated(bytes(16)))
    apply(cluster, create("t", 1, 1, 2))
    with pytest.raises(SnapshotError, match="the stored cluster metadata"):
        Cluster.decode(cluster.encode()[:cut])
    with pytest.raises(SnapshotError, match="followed by other bytes"):
        Cluster.decode(cluster.encode() + b"\0")


def test_a_snapshot_in_which_two_topics_share_an_id_is_an_error() -> None:
    one, two = Cluster(), Cluster()
    apply(one, create("t", 1, 1))
    apply(two, create("t", 1, 1))
    apply(two, create("u", 2, 2))
    data = two.encode().replace(topic_id(2), topic_id(1))
    with pytest.raises(SnapshotError, match="whose ids are another's"):
        Cluster.decode(data)
