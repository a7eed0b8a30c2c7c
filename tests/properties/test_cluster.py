"""The controller's fold and its bytes, over commands nobody thought of."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane.cluster.changes import (
    BrokerConfigChanged,
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
    CommandError,
    CreateTopic,
    DecommissionNode,
    DeleteTopic,
    DirectoryLost,
    DrainNode,
    ElectPreferred,
    Endpoint,
    FillNode,
    NodeForgotten,
    NodeRegistered,
    ProducerIdBlock,
    Reassign,
    ReassignmentStep,
    decode,
    encode,
)
from corelane.cluster.difference import difference
from corelane.cluster.metadata import Cluster, SnapshotError
from corelane.cluster.placement import NodeLoad, place_core, place_replicas
from corelane.cluster.replicas import ANY_CORE, PartitionPlan, Place
from corelane.model.ids import CoreId, GroupId, Index, NodeId, TopicId

# Few names and ids, so that commands meet: made again, deleted twice, ids out of order.
names = st.sampled_from(["a", "b", "a.b", "a_b", "x" * 249])
NODE = (NodeId(1),)
topic_ids = st.integers(1, 4).map(lambda number: TopicId(number.to_bytes(16, "big")))
node_ids = st.integers(1, 3).map(NodeId)
texts = st.text(max_size=8)
settings = st.sampled_from(["k", "l"]) | texts
configs = st.dictionaries(settings, texts, max_size=3)
removed = st.lists(settings, max_size=2).map(tuple)
group_ids = st.integers(1, 40).map(GroupId)
wanted_places = st.lists(
    st.builds(Place, node_ids, st.sampled_from([0, 1, ANY_CORE])),
    max_size=3,
    unique_by=lambda place: place.node,
).map(tuple)
plans = st.builds(
    PartitionPlan,
    group_ids,
    st.lists(node_ids, min_size=1, max_size=3, unique=True).map(tuple),
)
partitions = st.lists(plans, min_size=1, max_size=4).map(tuple)
endpoints = st.builds(Endpoint, texts, texts, st.integers(0, 65_535), st.integers(0, 999))
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(CreateTopic, names, topic_ids, partitions, configs),
    st.builds(DeleteTopic, topic_ids),
    st.builds(AddPartitions, topic_ids, partitions),
    st.builds(AlterTopicConfig, topic_ids, configs, removed),
    st.builds(AlterBrokerConfig, st.integers(0, 3), configs, removed),
    st.builds(
        ProducerIdBlock,
        node_ids,
        st.integers(0, 3).map(CoreId),
        st.integers(0, 5_000),
        st.integers(1, 1_000),
    ),
    st.builds(NodeRegistered, node_ids, texts, st.integers(0, 9), st.lists(endpoints).map(tuple)),
    st.builds(ClusterCreated, st.binary(min_size=16, max_size=16)),
    st.builds(
        Reassign,
        topic_ids,
        st.dictionaries(st.integers(0, 3), wanted_places, min_size=1, max_size=2).map(
            lambda wishes: tuple(wishes.items())
        ),
    ),
    st.builds(ReassignmentStep, group_ids, st.integers(1, 30).map(Index), st.booleans()),
    st.builds(ElectPreferred, st.lists(group_ids, max_size=3).map(tuple)),
    st.builds(DrainNode, node_ids, st.integers(0, 2)),
    st.builds(FillNode, node_ids, st.booleans()),
    st.builds(DecommissionNode, node_ids, st.booleans()),
    st.builds(DirectoryLost, node_ids, st.just("")),
    st.builds(NodeForgotten, node_ids),
)


@given(commands)
def test_a_command_comes_back_from_its_bytes(command: Command) -> None:
    assert decode(encode(command)) == command


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda data: b"\x01\x03" + data))
def test_any_bytes_are_a_command_or_an_error(data: bytes) -> None:
    try:
        command = decode(data)
    except CommandError:
        return
    assert decode(encode(command)) == command


@given(commands, st.data())
def test_a_flipped_byte_is_another_command_or_an_error(
    command: Command, data: st.DataObject
) -> None:
    raw = bytearray(encode(command))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(bytes(raw))
    except CommandError:
        return
    Cluster().apply(Index(1), other)


@given(st.lists(commands, max_size=30), st.integers(0, 30))
def test_a_snapshot_and_the_rest_of_the_log_are_the_whole_log(
    log: list[Command], snapshot_at: int
) -> None:
    live, restarted = Cluster(), Cluster()
    for number, command in enumerate(log, 1):
        changes = live.apply(Index(number), command)
        replayed = restarted.apply(Index(number), decode(encode(command)))
        assert changes == replayed
        if number == snapshot_at:
            restarted = Cluster.decode(live.encode())
        assert restarted == live


@given(st.lists(commands, max_size=40))
def test_ids_only_rise_and_lead_to_what_they_name(log: list[Command]) -> None:
    cluster = Cluster()
    given_groups: set[int] = set()
    for number, command in enumerate(log, 1):
        (change,) = cluster.apply(Index(number), command)
        if isinstance(command, CreateTopic | AddPartitions) and not isinstance(change, Refused):
            new = {partition.group for partition in command.partitions}
            assert not new & given_groups
            assert len(new) == len(command.partitions)
            given_groups |= new
        assert all(group < cluster.next_group for group in given_groups)
    unified = [name.replace(".", "_") for name in cluster.topics]
    assert len(unified) == len(set(unified))
    assert len(cluster.topics) == len(cluster.topics_by_id)
    for name, topic in cluster.topics.items():
        assert topic.name == name
        assert cluster.topics_by_id[topic.topic_id] is topic
        for number, partition in enumerate(topic.partitions):
            assert cluster.partition_of(partition.group) == (topic, number)
    alive = {p.group for topic in cluster.topics.values() for p in topic.partitions}
    assert all(cluster.partition_of(GroupId(g)) is None for g in given_groups - alive)


@given(st.sampled_from((b"\x01", b"\x02", b"\x05")), st.binary(max_size=80))
def test_any_bytes_are_a_snapshot_or_an_error(form: bytes, data: bytes) -> None:
    try:
        cluster = Cluster.decode(form + data)
    except SnapshotError:
        return
    assert Cluster.decode(cluster.encode()) == cluster


@given(st.lists(commands, max_size=20), st.data())
def test_a_damaged_snapshot_is_another_or_an_error(log: list[Command], data: st.DataObject) -> None:
    """What is read holds what the fold promises, and is written as it was read."""
    raw = bytearray(folded(log).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        cluster = Cluster.decode(bytes(raw))
    except SnapshotError:
        return
    assert all(cluster.broker_configs.values()), "none is empty"
    assert Cluster.decode(cluster.encode()) == cluster


def folded(log: list[Command]) -> Cluster:
    cluster = Cluster()
    for number, command in enumerate(log, 1):
        cluster.apply(Index(number), command)
    return cluster


FOUNDED: list[Command] = [
    *(NodeRegistered(NodeId(node), "", 1, ()) for node in (1, 2)),
    *(
        CreateTopic(
            name, TopicId(number.to_bytes(16, "big")), (PartitionPlan(GroupId(number), NODE),), {}
        )
        for number, name in enumerate(("a", "b"), 1)
    ),
]
"""What there must be before much can be altered."""
alterations: st.SearchStrategy[Command] = st.one_of(
    st.builds(AlterTopicConfig, topic_ids, configs, removed),
    st.builds(AlterBrokerConfig, st.integers(0, 3), configs, removed),
    commands,
)


few_settings = st.sampled_from(["k", "l"])
broker_alterations = st.builds(
    AlterBrokerConfig,
    st.integers(0, 3),
    st.dictionaries(few_settings, st.sampled_from(["1", "2", "3"]), max_size=1),
    st.lists(few_settings, max_size=2, unique=True).map(tuple),
)


@given(st.lists(broker_alterations, max_size=15).map(lambda log: [*FOUNDED, *log]))
def test_settings_of_brokers_are_what_was_set_last_and_not_taken_back(log: list[Command]) -> None:
    cluster = Cluster()
    expected: dict[int, dict[str, str]] = {}
    for number, command in enumerate(log, 1):
        (change,) = cluster.apply(Index(number), command)
        if isinstance(command, AlterBrokerConfig) and not isinstance(change, Refused):
            settings = expected.setdefault(command.node, {})
            settings.update(command.values)
            for name in command.removed:
                settings.pop(name, None)
    assert cluster.broker_configs == {node: rows for node, rows in expected.items() if rows}
    for node in range(1, 4):
        both = expected.get(0, {}) | expected.get(node, {})
        assert cluster.dynamic_config(NodeId(node)) == both


@given(st.lists(alterations, max_size=30).map(lambda log: FOUNDED + log), st.integers(0, 30))
def test_a_difference_names_everything_that_is_other(log: list[Command], split_at: int) -> None:
    before, after = folded(log[:split_at]), folded(log)
    created, deleted, configured, extended, brokers = set(), set(), set(), set(), set()
    for change in difference(before, after):
        match change:
            case TopicCreated():
                created.add(change.topic.topic_id)
            case TopicDeleted():
                deleted.add(change.topic.topic_id)
            case TopicConfigChanged():
                configured.add(change.topic.topic_id)
            case PartitionsAdded():
                extended.add((change.topic.topic_id, change.first))
            case BrokerConfigChanged():
                brokers.add(change.node)
            case _:
                pass
    old, new = before.topics_by_id, after.topics_by_id
    both = old.keys() & new.keys()
    assert created == new.keys() - old.keys()
    assert deleted == old.keys() - new.keys()
    assert configured == {each for each in both if old[each].configs != new[each].configs}
    assert extended == {
        (each, len(old[each].partitions))
        for each in both
        if len(old[each].partitions) < len(new[each].partitions)
    }
    nodes = before.broker_configs.keys() | after.broker_configs.keys()
    assert brokers == {
        node for node in nodes if before.broker_configs.get(node) != after.broker_configs.get(node)
    }


@given(st.integers(1, 40), st.integers(1, 12), st.data())
def test_partitions_are_spread_evenly(
    partition_count: int, node_count: int, data: st.DataObject
) -> None:
    replica_count = data.draw(st.integers(1, min(node_count, 5)))
    rack_count = data.draw(st.sampled_from([1, node_count]))
    nodes = [
        NodeLoad(NodeId(number + 1), f"r{number % rack_count}", 0, 0)
        for number in range(node_count)
    ]
    placed = place_replicas(partition_count, replica_count, nodes)
    leaders = Counter(replicas[0] for replicas in placed)
    holders = Counter(node for replicas in placed for node in replicas)
    assert all(len(set(replicas)) == replica_count for replicas in placed)
    assert spread(leaders, node_count) <= 1
    assert spread(holders, node_count) <= 2  # leaders come first, and sometimes meet a full node


@given(st.integers(1, 30), st.integers(2, 4), st.integers(1, 4), st.data())
def test_no_two_replicas_share_a_rack_while_there_are_racks(
    partition_count: int, rack_count: int, nodes_per_rack: int, data: st.DataObject
) -> None:
    loads = [
        NodeLoad(NodeId(number + 1), str(number % rack_count), *data.draw(counts))
        for number in range(rack_count * nodes_per_rack)
    ]
    for replicas in place_replicas(partition_count, rack_count, loads):
        assert len({(node - 1) % rack_count for node in replicas}) == rack_count


counts = st.tuples(st.integers(0, 5), st.integers(0, 9))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(1, 1_000))
def test_a_core_is_never_far_above_the_emptiest(counts: list[int], group: int) -> None:
    core = place_core(GroupId(group), counts)
    assert counts[core] <= min(counts) + 1 + min(counts) // 8


def spread(held: Counter[NodeId], node_count: int) -> int:
    """Return how many more the fullest node has than the emptiest."""
    return max(held.values()) - (min(held.values()) if len(held) == node_count else 0)


def test_a_placement_with_too_few_nodes_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        place_replicas(1, 2, [NodeLoad(NodeId(1), "", 0, 0)])
