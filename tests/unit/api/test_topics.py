"""Topics, metadata and configurations (quirks 9 to 13), by one shard."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.ids import GroupId
from corelane.shard.peers.leads import Lead
from corelane.wire.compiler import Message, message_type
from tests.unit.api.world import World, batch_of

Metadata = message_type("MetadataRequest")
Wanted = message_type("MetadataRequest.MetadataRequestTopic")
Create = message_type("CreateTopicsRequest")
Topic = message_type("CreateTopicsRequest.CreatableTopic")
Assignment = message_type("CreateTopicsRequest.CreatableReplicaAssignment")
Delete = message_type("DeleteTopicsRequest")
DeleteState = message_type("DeleteTopicsRequest.DeleteTopicState")
Describe = message_type("DescribeConfigsRequest")
Resource = message_type("DescribeConfigsRequest.DescribeConfigsResource")


@pytest.fixture
def world() -> World:
    return World()


def metadata(world: World, *names: str, auto: bool = False, version: int = 12) -> Message:
    topics = [Wanted(name=name) for name in names]
    return world.call(Metadata(topics=topics, allow_auto_topic_creation=auto), version)


@pytest.mark.parametrize("version", range(13))
def test_all_topics_and_no_topics(world: World, version: int) -> None:
    world.create_topic("a", 2)
    everything = world.call(Metadata(topics=[] if version == 0 else None), version)
    assert [topic.name for topic in everything.topics] == ["a"]
    assert [row.leader_id for row in everything.topics[0].partitions] == [1000, 1000]
    if version > 0:
        assert world.call(Metadata(topics=[]), version).topics == []


def test_authorized_operations_are_the_least_int_when_not_asked_for(world: World) -> None:
    world.create_topic("a")
    answer = metadata(world, "a", version=8)
    assert answer.cluster_authorized_operations == -(2**31)
    assert answer.topics[0].topic_authorized_operations == -(2**31)


def test_auto_creation_is_honoured_and_ready_when_answered(world: World) -> None:
    refused = metadata(world, "new")
    assert refused.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    made = metadata(world, "new", auto=True).topics[0]
    assert (made.error_code, made.partitions[0].leader_id) == (0, 1000)
    assert world.produce("new", batch_of()).base_offset == 0


def test_auto_creation_can_be_turned_off() -> None:
    world = World('"auto.create.topics.enable" = false')
    answer = metadata(world, "new", auto=True)
    assert answer.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("name", [".", "..", "a b", "x" * 250, "ä"])
def test_bad_names_are_invalid_topics(world: World, name: str) -> None:
    error = metadata(world, name, auto=True).topics[0].error_code
    assert error == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert world.create_topic(name).error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


def test_topic_ids_last_for_life_and_a_topic_made_again_gets_another(world: World) -> None:
    first = world.create_topic("a").topic_id
    world.crash()
    assert metadata(world, "a").topics[0].topic_id == first
    by_id = world.call(Metadata(topics=[Wanted(name=None, topic_id=first)]), 12).topics[0]
    assert by_id.name == "a"
    world.call(Delete(topics=[DeleteState(name="a")]), 6)
    assert world.create_topic("a").topic_id != first
    gone = world.call(Metadata(topics=[Wanted(name=None, topic_id=first)]), 12).topics[0]
    assert gone.error_code == ErrorCode.UNKNOWN_TOPIC_ID


def test_a_deleted_topic_is_gone_with_its_files(world: World) -> None:
    world.create_topic("a")
    for _ in range(40):
        world.produce("a", batch_of(1, value=bytes(20_000)))
    answer = world.call(Delete(topics=[DeleteState(name="a")]), 6)
    assert answer.responses[0].error_code == 0
    world.pass_time(100)
    assert not [path for path in world.disk.files if "/a-0" in path]
    assert world.produce("a", batch_of()).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    world.crash()
    assert metadata(world, "a").topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    again = world.create_topic("a")
    assert again.error_code == 0
    assert world.fetch("a", 0).high_watermark == 0


def test_a_fetch_that_waits_on_a_deleted_topic_is_answered(world: World) -> None:
    world.create_topic("a")
    world.send(world.fetch_request("a", 0, max_wait_ms=60_000), 12, conn=2)
    world.call(Delete(topics=[DeleteState(name="a")]), 6)
    answer = world.receive(1, 12, conn=2)
    assert answer is not None
    row = answer[1].responses[0].partitions[0]
    assert row.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_creating_twice_and_with_impossible_wishes(world: World) -> None:
    world.create_topic("a")
    assert world.create_topic("a").error_code == ErrorCode.TOPIC_ALREADY_EXISTS

    def error(**fields: object) -> int:
        wish = Topic(**{"name": "b", "num_partitions": 1, "replication_factor": 1} | fields)
        code: int = world.call(Create(topics=[wish], timeout_ms=100), 7).topics[0].error_code
        return code

    assert error(num_partitions=0) == ErrorCode.INVALID_PARTITIONS
    assert error(replication_factor=3) == ErrorCode.INVALID_REPLICATION_FACTOR
    both = [Assignment(partition_index=0, broker_ids=[1000])]
    assert error(assignments=both) == ErrorCode.INVALID_REQUEST
    assert metadata(world, "b").topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_defaults_validate_only_and_what_the_answer_names(world: World) -> None:
    wish = Topic(name="d", num_partitions=-1, replication_factor=-1)
    dry = world.call(Create(topics=[wish], validate_only=True, timeout_ms=100), 7).topics[0]
    assert dry.error_code == 0
    assert metadata(world, "d").topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    made = world.call(Create(topics=[wish], timeout_ms=1000), 7).topics[0]
    assert (made.error_code, made.num_partitions, made.replication_factor) == (0, 1, 1)
    assert len(made.configs) > 20


def test_well_known_configs_are_accepted_stored_and_described(world: World) -> None:
    made = world.create_topic("c", flush_messages="1", unclean_leader_election_enable="true")
    assert made.error_code == 0
    assert world.create_topic("x", no_such_config="1").error_code == ErrorCode.INVALID_CONFIG
    assert world.create_topic("x", retention_ms="soon").error_code == ErrorCode.INVALID_CONFIG
    world.crash()
    request = Describe(
        resources=[Resource(resource_type=2, resource_name="c", configuration_keys=None)],
        include_synonyms=True,
    )
    rows = {row.name: row for row in world.call(request, 4).results[0].configs}
    assert (rows["flush.messages"].value, rows["flush.messages"].config_source) == ("1", 1)
    assert rows["retention.ms"].config_source == 5
    assert len(rows) > 25


def test_brokers_are_described_and_others_are_unknown(world: World) -> None:
    def describe(kind: int, name: str) -> Message:
        wanted = Resource(resource_type=kind, resource_name=name, configuration_keys=None)
        row: Message = world.call(Describe(resources=[wanted]), 1).results[0]
        return row

    assert len(describe(4, "1000").configs) > 10
    assert describe(4, "5").error_code == ErrorCode.INVALID_REQUEST
    assert describe(2, "none").error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert describe(8, "x").error_code == ErrorCode.INVALID_REQUEST


def test_the_cluster_is_described_with_an_id_for_life(world: World) -> None:
    before = world.call(message_type("DescribeClusterRequest")(), 1)
    world.crash()
    after = world.call(message_type("DescribeClusterRequest")(), 1)
    assert before.cluster_id == after.cluster_id == metadata(world).cluster_id
    assert [broker.broker_id for broker in after.brokers] == [1000]
    assert after.controller_id == 1000


def test_thousands_of_partitions_open_over_many_turns(world: World) -> None:
    assert world.create_topic("wide", 2000).error_code == 0
    assert all(row.leader_id == 1000 for row in metadata(world, "wide").topics[0].partitions)
    assert world.produce("wide", batch_of(), partition=1999).base_offset == 0
    world.crash()
    assert world.fetch("wide", 0, partition=1999).high_watermark == 1


def test_what_is_not_decided_in_time_is_said_to_be_in_doubt(world: World) -> None:
    wish = Topic(name="late", num_partitions=1, replication_factor=1)
    grow = message_type("CreatePartitionsRequest")
    more = message_type("CreatePartitionsRequest.CreatePartitionsTopic")
    world.create_topic("grown")
    world.holds_disk = True
    world.send(Create(topics=[wish], timeout_ms=900), 7)
    world.send(grow(topics=[more(name="grown", count=3, assignments=None)], timeout_ms=900), 3, 2)
    world.pass_time(100)
    assert world.receive(19, 7) is None
    world.pass_time(900)
    for got in (world.receive(19, 7), world.receive(37, 3, 2)):
        assert got is not None
        answer = got[1]
        (row,) = answer.topics if hasattr(answer, "topics") else answer.results
        assert row.error_code == ErrorCode.REQUEST_TIMED_OUT
        assert "may still come about" in row.error_message
    world.release_disk()
    assert metadata(world, "late").topics[0].error_code == 0
    assert len(metadata(world, "grown").topics[0].partitions) == 3


def test_who_waits_for_many_partitions_looks_once_at_each_that_leads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    lead_of = world.shard.groups.lead_of

    def counted(group: GroupId) -> Lead | None:
        nonlocal looks
        looks += 1
        return lead_of(group)

    monkeypatch.setattr(world.shard.groups, "lead_of", counted)
    assert world.create_topic("wide", 2000).error_code == 0
    assert 2000 <= looks < 4000
