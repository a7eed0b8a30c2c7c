"""What an administrator may ask, and what it is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from corelane.model.errors import ErrorCode
from corelane_client.admin import Admin, ConfigEntry, NewTopic
from corelane_client.changes import END_OF_LOG, UNKNOWN_BYTES, ConfigChange, EpochEnd, Operation
from corelane_client.errors import ConnectError, KafkaError
from corelane_client.offsets import AtTime, Edge, Resolved
from corelane_client.protocol import Api
from tests.unit.client.fake import CUT, Cluster, always, new


@asynccontextmanager
async def administering(cluster: Cluster) -> AsyncIterator[Admin]:
    async with Admin(cluster.bootstrap, connect=cluster.connect) as admin:
        yield admin


async def test_the_cluster_is_described(cluster: Cluster) -> None:
    cluster.grow(2)
    async with administering(cluster) as admin:
        found = await admin.describe_cluster()
    assert [broker.broker_id for broker in found.brokers] == [0, 1]
    assert found.controller == 0


async def test_a_topic_lives_from_creation_to_deletion(cluster: Cluster) -> None:
    async with administering(cluster) as admin:
        made = await admin.create_topic(NewTopic("t", 3, configs={"retention.ms": "5"}))
        assert made is not None
        assert [*made.partitions] == [0, 1, 2]
        assert [topic.name for topic in await admin.list_topics()] == ["t"]
        configs = await admin.describe_topic_configs("t")
        assert ConfigEntry("retention.ms", "5", "topic", False, False, "") in configs
        await admin.delete_topic("t")
        assert await admin.list_topics() == []


async def test_refusals_carry_the_brokers_words(cluster: Cluster) -> None:
    cluster.topic("t")
    async with administering(cluster) as admin:
        with pytest.raises(KafkaError, match="topic 't' exists") as caught:
            await admin.create_topic(NewTopic("t"))
        assert (caught.value.name, caught.value.code) == ("TOPIC_ALREADY_EXISTS", 36)


async def test_what_is_not_there_is_told_at_once(cluster: Cluster, clock: MockClock) -> None:
    async with administering(cluster) as admin:
        for ask in (admin.delete_topic, admin.describe_topic):
            with pytest.raises(KafkaError, match="'nowhere': the topic or partition does not"):
                await ask("nowhere")
        with pytest.raises(KafkaError):
            await admin.list_offsets("nowhere", Edge.END)
        assert trio.current_time() < 1


async def test_the_controller_is_found_again(cluster: Cluster, clock: MockClock) -> None:
    row = new(
        "CreateTopicsResponse.CreatableTopicResult",
        name="t",
        error_code=ErrorCode.NOT_CONTROLLER,
        error_message=None,
    )
    cluster.script(Api.CREATE_TOPICS, always(new("CreateTopicsResponse", topics=[row])))
    async with administering(cluster) as admin:
        await admin.create_topic(NewTopic("t"))
    assert "t" in cluster.topics


async def test_a_cut_connection_is_made_again(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t")
    cluster.script(Api.METADATA, always(None), always(CUT), always(CUT))
    async with administering(cluster) as admin:
        assert [topic.name for topic in await admin.list_topics()] == ["t"]


async def test_offsets_come_from_each_partitions_leader(cluster: Cluster, clock: MockClock) -> None:
    cluster.grow(3)
    cluster.topic("t", 5)[4].end = 7
    async with administering(cluster) as admin:
        ends = await admin.list_offsets("t", Edge.END)
        assert [row.offset for row in ends.values()] == [0, 0, 0, 0, 7]
        assert await admin.list_offsets("t", AtTime(1), [2]) == {2: Resolved(-1, -1)}
        cluster.leaders["t", 4] = 0
        assert (await admin.list_offsets("t", Edge.END, [4]))[4].offset == 7
    assert {broker for broker, api, _ in cluster.requests if api == Api.LIST_OFFSETS} == {0, 1, 2}


async def test_an_advertised_address_that_cannot_be_reached_is_named(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.grow(2)
    cluster.topic("t", 2)
    cluster.down.add(1)
    async with administering(cluster) as admin:
        with pytest.raises(ConnectError, match="names this address for broker 1") as caught:
            await admin.list_offsets("t", Edge.END, [1])
    assert "advertised host" in caught.value.next_step


async def test_partitions_are_added_and_waited_for(cluster: Cluster, clock: MockClock) -> None:
    cluster.grow(2)
    cluster.topic("t")
    told: list[int] = []
    async with administering(cluster) as admin:
        assert await admin.create_partitions("t", 9, validate_only=True) is None
        assert len(cluster.topics["t"]) == 1
        stale = cluster._metadata(cluster.asked(Api.METADATA)[0])
        stale.topics = [cluster._metadata_topic("t")]
        cluster.script(Api.METADATA, always(stale))
        made = await admin.create_partitions("t", 3, told=told.append)
        assert made is not None
        assert [each.leader for each in made.partitions.values()] == [0, 1, 0]
        assert told == [1, 3]
        with pytest.raises(KafkaError, match="it has 3 partitions already") as caught:
            await admin.create_partitions("t", 2)
        assert caught.value.name == "INVALID_PARTITIONS"


async def test_settings_are_changed_together(cluster: Cluster) -> None:
    cluster.topic("t")
    cluster.configs["t"] = {"retention.ms": "5", "cleanup.policy": "compact"}
    change = ConfigChange
    async with administering(cluster) as admin:
        await admin.alter_topic_configs(
            "t",
            [
                change(Operation.SET, "segment.ms", "7"),
                change(Operation.DELETE, "retention.ms"),
                change(Operation.APPEND, "cleanup.policy", "delete"),
            ],
        )
        assert cluster.configs["t"] == {"cleanup.policy": "compact,delete", "segment.ms": "7"}
        await admin.alter_topic_configs(
            "t", [change(Operation.SUBTRACT, "cleanup.policy", "compact")]
        )
        before = {"cleanup.policy": "delete", "segment.ms": "7"}
        assert cluster.configs["t"] == before
        bad = [change(Operation.SET, "segment.ms", "9"), change(Operation.SET, "no.such", "1")]
        with pytest.raises(KafkaError, match=r"topic 't': there is no setting no\.such"):
            await admin.alter_topic_configs("t", bad)
        await admin.alter_topic_configs("t", bad[:1], validate_only=True)
        assert cluster.configs["t"] == before
        with pytest.raises(KafkaError, match="'nowhere'"):
            await admin.alter_topic_configs("nowhere", bad)


async def test_records_are_deleted_by_each_partitions_leader(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.grow(3)
    logs = cluster.topic("t", 5)
    for log in logs:
        log.end = 10
    async with administering(cluster) as admin:
        assert await admin.delete_records("t", {0: 3, 3: 4, 4: END_OF_LOG}) == {0: 3, 3: 4, 4: 10}
        assert [log.start for log in logs] == [3, 0, 0, 4, 10]
        assert sorted(
            broker for broker, api, _ in cluster.requests if api == Api.DELETE_RECORDS
        ) == [0, 1]
        cluster.leaders["t", 0] = 2  # it moved, and nobody told the client
        found = await admin.delete_records("t", {0: 5, 1: 99})
        assert found[0] == 5
        assert isinstance(found[1], KafkaError)
        assert found[1].name == "OFFSET_OUT_OF_RANGE"
        with pytest.raises(KafkaError, match="none of number 7"):
            await admin.delete_records("t", {7: 1})


async def test_a_partition_that_never_answers_does_not_hide_the_others(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.grow(2)
    cluster.topic("t", 2)[0].end = 9
    cluster.leaders["t", 1] = -1
    async with administering(cluster) as admin:
        found = await admin.delete_records("t", {0: 9, 1: 0})
    assert found[0] == 9
    assert isinstance(found[1], KafkaError)
    assert found[1].name == "LEADER_NOT_AVAILABLE"
    assert trio.current_time() > 20  # it was asked again as long as that may help
    assert len(cluster.asked(Api.DELETE_RECORDS)) == 1  # but not for what was done


async def test_ends_of_epochs_come_from_the_leaders(cluster: Cluster) -> None:
    cluster.grow(2)
    cluster.topic("t", 2)[1].end = 9
    async with administering(cluster) as admin:
        assert await admin.epoch_ends("t", {0: 0, 1: 3}) == {0: EpochEnd(0, 0), 1: EpochEnd(0, 9)}


async def test_every_broker_tells_what_it_keeps(cluster: Cluster) -> None:
    cluster.grow(2)
    cluster.topic("t", 3)[1].batches = [bytes(70)]
    cluster.topic("u")
    async with administering(cluster) as admin:
        found = await admin.describe_log_dirs(["t"])
        assert [(each.broker_id, each.partitions) for each in found] == [
            (0, {("t", 0): 0, ("t", 2): 0}),
            (1, {("t", 1): 70}),
        ]
        assert (found[0].path, found[0].error, found[0].total_bytes) == ("/data", None, 1000)
        everything = await admin.describe_log_dirs()
        assert ("u", 0) in everything[0].partitions


async def test_a_copy_that_is_being_made_is_not_counted(cluster: Cluster) -> None:
    part = "DescribeLogDirsResponse.DescribeLogDirsPartition"
    rows = [
        new(part, partition_index=0, partition_size=7),
        new(part, partition_index=0, partition_size=3, is_future_key=True),
    ]
    topic = new("DescribeLogDirsResponse.DescribeLogDirsTopic", name="t", partitions=rows)
    result = new("DescribeLogDirsResponse.DescribeLogDirsResult", log_dir="/d", topics=[topic])
    answer = new("DescribeLogDirsResponse", results=[result])
    cluster.script(Api.DESCRIBE_LOG_DIRS, always(answer))
    async with administering(cluster) as admin:
        (found,) = await admin.describe_log_dirs()
    assert found.partitions == {("t", 0): 7}
    assert found.usable_bytes == UNKNOWN_BYTES


async def test_leaders_are_elected(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t", 2)
    async with administering(cluster) as admin:
        found = await admin.elect_leaders("t", [0, 1, 5])
        assert (found[0], found[1]) == (None, None)
        assert isinstance(found[5], KafkaError)
    (asked,) = cluster.asked(Api.ELECT_LEADERS)
    assert asked.election_type == 0


async def test_any_bootstrap_address_will_do(cluster: Cluster) -> None:
    cluster.grow(3)
    cluster.down.add(0)
    bootstrap = "broker-9:9092,broker-0:9092,broker-2:9092"
    async with Admin(bootstrap, connect=cluster.connect) as admin:
        assert len((await admin.describe_cluster()).brokers) == 3


async def test_if_none_answers_all_are_named(cluster: Cluster) -> None:
    cluster.down.add(0)
    with pytest.raises(ConnectError, match=r"no broker answers.*broker-9:1.*broker-0:9092"):
        async with Admin("broker-9:1,broker-0:9092", connect=cluster.connect):
            pass
