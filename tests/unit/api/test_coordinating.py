"""Which partition coordinates a group, and how clients find its leader."""

from dataclasses import replace

import pytest

from corelane.api import find_coordinator
from corelane.api.coordinating import offsets_wish
from corelane.model.errors import ErrorCode
from corelane.shard.key_hash import java_hash, partition_number
from corelane.wire.compiler import Message, message_type
from tests.unit.api.world import World, batch_of

Request = message_type("FindCoordinatorRequest")


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0),
        ("a", 97),
        ("hello", 99_162_322),
        ("polygenelubricants", 0),  # its hashCode is -2^31, whose absolute value is no int
        ("ü", 252),
        ("𝄞", 0xD834 * 31 + 0xDD1E),
    ],
)
def test_the_hash_is_javas(text: str, value: int) -> None:
    assert java_hash(text) == value


def test_keys_are_spread_over_all_partitions() -> None:
    found = {partition_number(f"group-{number}", 50) for number in range(1_000)}
    assert found == set(range(50))


def find(world: World, version: int, key: str = "g", kind: int = 0) -> Message:
    answer = world.call(Request(key=key, coordinator_keys=[key], key_type=kind), version)
    row: Message = answer.coordinators[0] if version >= 4 else answer
    return row


@pytest.mark.parametrize("version", range(7))
def test_the_first_question_makes_the_topic_and_waits_for_it(world: World, version: int) -> None:
    world.send(Request(key="g", coordinator_keys=["g"]), version)
    for _ in range(200):
        found = world.receive(10, version)
        if found is not None:
            break
        world.pass_time(5)
    assert found is not None
    row = found[1].coordinators[0] if version >= 4 else found[1]
    assert (row.error_code, row.node_id) == (0, 1000)
    topic = world.shard.groups.topics[b"__consumer_offsets"]
    assert len(topic.partitions) == 50
    assert topic.settings.is_compacted


@pytest.mark.parametrize("comes", [True, False])
def test_a_question_waits_a_moment_for_a_leader(
    world: World, monkeypatch: pytest.MonkeyPatch, *, comes: bool
) -> None:
    """Or librdkafka would ask again after a whole second."""
    ready(world)
    with monkeypatch.context() as patched:
        patched.setattr(find_coordinator, "lead_of", lambda shard, group: None)
        world.send(Request(key="g"), 2)
        for _ in range(5):
            world.pass_time(20)
        assert world.receive(10, 2) is None
        if not comes:
            world.pass_time(find_coordinator.LEAD_WAIT_MS)
    for _ in range(5):
        world.pass_time(20)
    found = world.receive(10, 2)
    assert found is not None
    expected = ErrorCode.NONE if comes else ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert found[1].error_code == expected


def test_kinds_that_are_not_served_are_refused(world: World) -> None:
    assert find(world, 6, kind=2).error_code == ErrorCode.INVALID_REQUEST


def ready(world: World) -> World:
    """Wait until the groups' topic is there and coordinated."""
    world.send(Request(key="g"), 0)
    for _ in range(100):
        world.pass_time(10)
    world.inbox.clear()
    return world


def test_offsets_of_the_empty_name_have_a_coordinator_as_in_kafka(world: World) -> None:
    assert find(ready(world), 4, key="").error_code == ErrorCode.NONE


def test_only_the_broker_writes_its_own_topics(world: World) -> None:
    row = ready(world).produce("__consumer_offsets", batch_of())
    assert row.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


def commit(world: World, offset: int, group: str = "g") -> int:
    topic = message_type("OffsetCommitRequest.OffsetCommitRequestTopic")
    part = message_type("OffsetCommitRequest.OffsetCommitRequestPartition")
    rows = [part(partition_index=0, committed_offset=offset, committed_metadata="")]
    request = message_type("OffsetCommitRequest")(
        group_id=group, topics=[topic(name="t", partitions=rows)]
    )
    error: int = world.call(request, 8).topics[0].partitions[0].error_code
    return error


def committed(world: World, group: str = "g") -> int:
    topic = message_type("OffsetFetchRequest.OffsetFetchRequestTopics")
    row = message_type("OffsetFetchRequest.OffsetFetchRequestGroup")
    wish = row(group_id=group, topics=[topic(name="t", partition_indexes=[0])])
    answer = world.call(message_type("OffsetFetchRequest")(groups=[wish]), 8)
    assert answer.groups[0].error_code == 0
    offset: int = answer.groups[0].topics[0].partitions[0].committed_offset
    return offset


def test_offsets_survive_a_crash_and_a_checkpoint(world: World) -> None:
    ready(world).create_topic("t")
    assert commit(world, 5) == 0
    world.crash()
    for _ in range(20):
        world.pass_time(10)
    assert committed(world) == 5
    assert commit(world, 7) == 0
    world.shard.store.checkpointing.wanted = True
    for _ in range(20):
        world.pass_time(10)
    world.crash()
    for _ in range(20):
        world.pass_time(10)
    assert committed(world) == 7


def test_offsets_of_partitions_that_are_not_there_are_refused(world: World) -> None:
    assert commit(ready(world), 5) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_who_does_not_coordinate_says_so(world: World) -> None:
    world.create_topic("t")
    assert commit(world, 5) == ErrorCode.NOT_COORDINATOR


def test_a_topics_offsets_go_with_it(world: World) -> None:
    ready(world).create_topic("t")
    commit(world, 5)
    world.call(message_type("DeleteTopicsRequest")(topic_names=["t"], timeout_ms=100), 3)
    world.create_topic("t")
    assert committed(world) == -1


def test_a_long_log_is_written_anew_and_its_beginning_let_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start must not grow with age, and tools still find every key in the topic."""
    monkeypatch.setattr("corelane.shard.host.REWRITE_RECORDS_MIN", 50)
    ready(world).create_topic("t")
    commit(world, 1, group="other-g")
    for number in range(200):
        assert commit(world, number) == 0
    topic = world.shard.groups.topics[b"__consumer_offsets"]
    partition = topic.partitions[partition_number("g", 50)]
    assert partition is not None
    assert partition.latest is not None
    assert partition.log.start_offset > 100
    assert partition.log.next_offset - partition.log.start_offset < 100
    world.crash()
    for _ in range(20):
        world.pass_time(10)
    assert committed(world) == 199
    assert committed(world, "other-g") == 1


def test_a_full_log_loses_no_group(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be appended was never decided: the coordinator is made anew."""
    ready(world).create_topic("t")
    assert commit(world, 5) == 0
    with monkeypatch.context() as patch:
        patch.setattr(type(world.shard.store), "has_room", lambda _store, _size: False)
        assert commit(world, 9) == ErrorCode.NOT_COORDINATOR
        assert commit(world, 9) == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    for _ in range(20):
        world.pass_time(10)
    assert committed(world) == 5
    assert commit(world, 9) == 0
    assert committed(world) == 9


@pytest.mark.parametrize(
    ("seeds", "factor", "replicas"),
    [("", 3, 1), ("a:1,b:1,c:1", 3, None), ("a:1,b:1", 3, None), ("a:1,b:1", 1, 1), ("a:1", 3, 1)],
)
def test_the_topic_is_not_made_before_the_nodes_it_is_for(
    world: World, seeds: str, factor: int, replicas: int | None
) -> None:
    """One made by an early consumer would have one replica for ever."""
    config = world.shard.config.config
    config = replace(
        config,
        network=replace(config.network, seeds=seeds),
        groups=replace(config.groups, replication_factor=factor),
    )
    wish = offsets_wish(world.shard.groups.cluster, config)
    assert (None if wish is None else wish.replication_factor) == replicas


def test_asking_for_the_topic_does_not_make_another_one(world: World) -> None:
    """Auto-creation would give it one partition, and no compaction."""
    topic = message_type("MetadataRequest.MetadataRequestTopic")(name="__consumer_offsets")
    request = message_type("MetadataRequest")(topics=[topic], allow_auto_topic_creation=True)
    row = world.call(request, 9).topics[0]
    assert row.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert len(ready(world).shard.groups.topics[b"__consumer_offsets"].partitions) == 50


def test_nothing_is_appended_while_the_partition_is_handed_over(world: World) -> None:
    """Found by review: a session that ended meanwhile wrote behind what had been handed over."""
    ready(world)
    protocol = message_type("JoinGroupRequest.JoinGroupRequestProtocol")(name="range", metadata=b"")
    join = message_type("JoinGroupRequest")(
        group_id="g",
        session_timeout_ms=6_000,
        rebalance_timeout_ms=6_000,
        protocol_type="consumer",
        protocols=[protocol],
    )
    world.send(join, 3)
    world.pass_time(4_000)
    answer = world.receive(11, 3)
    assert answer is not None
    member = answer[1]
    row = message_type("SyncGroupRequest.SyncGroupRequestAssignment")
    sync = message_type("SyncGroupRequest")(
        group_id="g",
        generation_id=member.generation_id,
        member_id=member.member_id,
        assignments=[row(member_id=member.member_id, assignment=b"a")],
    )
    assert world.call(sync, 3).error_code == 0
    partition = world.shard.groups.topics[b"__consumer_offsets"].partitions[
        partition_number("g", 50)
    ]
    assert partition is not None
    last = partition.log.last_index
    partition.is_leaving = True
    for _ in range(100):
        world.pass_time(200)
    assert partition.log.last_index == last, "the member was silent, and nothing says so yet"
    partition.is_leaving = False
    for _ in range(100):
        world.pass_time(200)
    assert partition.log.last_index > last
    described = world.call(message_type("DescribeGroupsRequest")(groups=["g"]), 5).groups[0]
    assert described.group_state == "Empty"
