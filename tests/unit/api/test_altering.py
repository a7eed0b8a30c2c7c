"""Topics and brokers are altered while they serve: configurations, partitions, elections, sizes."""

from typing import Any

import pytest

from corelane.model.errors import ErrorCode
from corelane.wire.compiler import Message, message_type
from tests.unit.api.world import World, batch_of

TOPIC, BROKER = 2, 4


@pytest.fixture
def world() -> World:
    world = World()
    world.create_topic("t")
    return world


def incremental(
    world: World,
    *rows: tuple[str, int, str | None],
    kind: int = TOPIC,
    name: str = "t",
    validate_only: bool = False,
    copies: int = 1,
) -> Message:
    """Return what is answered for each of *copies* of one resource."""
    config = message_type("IncrementalAlterConfigsRequest.AlterableConfig")
    resource = message_type("IncrementalAlterConfigsRequest.AlterConfigsResource")(
        resource_type=kind,
        resource_name=name,
        configs=[config(name=n, config_operation=op, value=v) for n, op, v in rows],
    )
    request = message_type("IncrementalAlterConfigsRequest")(
        resources=[resource] * copies, validate_only=validate_only
    )
    answers = world.call(request, 1).responses
    assert all(each == answers[0] for each in answers)
    answer: Message = answers[-1]
    return answer


def whole(
    world: World, configs: dict[str, str | None], kind: int = TOPIC, name: str = "t"
) -> Message:
    config = message_type("AlterConfigsRequest.AlterableConfig")
    resource = message_type("AlterConfigsRequest.AlterConfigsResource")(
        resource_type=kind,
        resource_name=name,
        configs=[config(name=n, value=v) for n, v in configs.items()],
    )
    request = message_type("AlterConfigsRequest")(resources=[resource], validate_only=False)
    answer: Message = world.call(request, 2).responses[0]
    return answer


def described(world: World, config: str, kind: int = TOPIC, name: str = "t") -> tuple[str, int]:
    resource = message_type("DescribeConfigsRequest.DescribeConfigsResource")(
        resource_type=kind, resource_name=name, configuration_keys=[config]
    )
    answer = world.call(message_type("DescribeConfigsRequest")(resources=[resource]), 4)
    (row,) = answer.results[0].configs
    return row.value, row.config_source


def test_a_topic_is_altered_live_and_for_good(world: World) -> None:
    assert incremental(world, ("max.message.bytes", 0, "200")).error_code == 0
    assert described(world, "max.message.bytes") == ("200", 1)
    too_large = batch_of(1, value=bytes(500))
    assert world.produce("t", too_large).error_code == ErrorCode.MESSAGE_TOO_LARGE
    world.crash()
    assert described(world, "max.message.bytes") == ("200", 1)
    assert world.produce("t", too_large).error_code == ErrorCode.MESSAGE_TOO_LARGE
    assert incremental(world, ("max.message.bytes", 1, None)).error_code == 0
    assert world.produce("t", too_large).error_code == 0


def test_the_older_way_replaces_everything(world: World) -> None:
    assert whole(world, {"retention.ms": "5", "segment.ms": "6"}).error_code == 0
    assert whole(world, {"retention.ms": "7"}).error_code == 0
    assert described(world, "retention.ms") == ("7", 1)
    assert described(world, "segment.ms")[1] == 5


def test_checking_alone_changes_nothing(world: World) -> None:
    row = incremental(world, ("retention.ms", 0, "5"), validate_only=True)
    assert row.error_code == 0
    assert described(world, "retention.ms")[1] == 5
    refused = incremental(world, ("retention.ms", 0, "x"), validate_only=True)
    assert refused.error_code == ErrorCode.INVALID_CONFIG


@pytest.mark.parametrize(
    ("kind", "name", "error"),
    [
        (TOPIC, "missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "no/name", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (TOPIC, "", ErrorCode.INVALID_REQUEST),
        (BROKER, "2000", ErrorCode.INVALID_REQUEST),
        (BROKER, "one", ErrorCode.INVALID_REQUEST),
        (8, "t", ErrorCode.INVALID_REQUEST),
    ],
)
def test_what_is_not_there_cannot_be_altered(
    world: World, kind: int, name: str, error: ErrorCode
) -> None:
    row = incremental(world, ("num.partitions", 0, "5"), kind=kind, name=name)
    assert (row.error_code, row.resource_name) == (error, name)
    assert whole(world, {"num.partitions": "5"}, kind, name).error_code == error


def test_a_resource_named_twice_is_not_altered_at_all(world: World) -> None:
    row = incremental(world, ("retention.ms", 0, "5"), copies=2)
    assert row.error_code == ErrorCode.INVALID_REQUEST
    assert described(world, "retention.ms")[1] == 5


def test_the_older_way_has_no_word_for_taking_back(world: World) -> None:
    row = whole(world, {"retention.ms": None})
    assert row.error_code == ErrorCode.INVALID_REQUEST
    assert "retention.ms" in row.error_message


def test_a_brokers_setting_acts_at_once_and_after_a_restart(world: World) -> None:
    row = incremental(world, ("num.partitions", 0, "3"), kind=BROKER, name="1000")
    assert (row.error_code, row.error_message) == (0, None)
    assert described(world, "num.partitions", BROKER, "1000") == ("3", 2)
    assert world.create_topic("three", partitions=-1).num_partitions == 3
    world.crash()
    assert world.create_topic("again", partitions=-1).num_partitions == 3
    assert incremental(world, ("num.partitions", 1, None), kind=BROKER, name="1000").error_code == 0
    assert world.create_topic("one", partitions=-1).num_partitions == 1


def test_a_brokers_default_reaches_topics_that_have_none_of_their_own(world: World) -> None:
    world.create_topic("own", max_message_bytes="100000")
    row = incremental(world, ("message.max.bytes", 0, "200"), kind=BROKER, name="")
    assert row.error_code == 0
    assert described(world, "max.message.bytes") == ("200", 3)
    large = batch_of(1, value=bytes(500))
    assert world.produce("t", large).error_code == ErrorCode.MESSAGE_TOO_LARGE
    assert world.produce("own", large).error_code == 0


def extend(world: World, count: int, name: str = "t", **fields: Any) -> Message:
    validate_only = fields.pop("validate_only", False)
    topic = message_type("CreatePartitionsRequest.CreatePartitionsTopic")(
        name=name, count=count, **({"assignments": None} | fields)
    )
    request = message_type("CreatePartitionsRequest")(
        topics=[topic], timeout_ms=5000, validate_only=validate_only
    )
    answer: Message = world.call(request, 3).results[0]
    return answer


def test_partitions_are_added_and_serve_when_it_is_answered(world: World) -> None:
    world.produce("t", batch_of(2))
    assert extend(world, 4).error_code == 0
    assert world.produce("t", batch_of(1), partition=3).error_code == 0
    assert world.fetch("t", 0).high_watermark == 2
    world.crash()
    assert world.fetch("t", 0, partition=3).high_watermark == 1


@pytest.mark.parametrize(
    ("count", "fields", "error", "words"),
    [
        (1, {}, ErrorCode.INVALID_PARTITIONS, "already has 1 partition"),
        (0, {}, ErrorCode.INVALID_PARTITIONS, "would not be an increase"),
        (2_000_000, {}, ErrorCode.INVALID_PARTITIONS, "can have"),
        (2, {"name": "missing"}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "no such topic"),
    ],
)
def test_counts_that_cannot_be_are_refused(
    world: World, count: int, fields: dict[str, Any], error: ErrorCode, words: str
) -> None:
    row = extend(world, count, **fields)
    assert row.error_code == error
    assert words in row.error_message
    assert len(world.shard.groups.cluster.topics["t"].partitions) == 1


def test_partitions_can_be_checked_and_assigned(world: World) -> None:
    assignment = message_type("CreatePartitionsRequest.CreatePartitionsAssignment")
    assert extend(world, 3, validate_only=True).error_code == 0
    assert len(world.shard.groups.cluster.topics["t"].partitions) == 1
    few = extend(world, 3, assignments=[assignment(broker_ids=[1000])])
    assert few.error_code == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    unknown = extend(world, 2, assignments=[assignment(broker_ids=[5000])])
    assert unknown.error_code == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert extend(world, 2, assignments=[assignment(broker_ids=[1000])]).error_code == 0


@pytest.mark.parametrize("kind", [0, 1])
def test_an_election_is_not_needed_where_a_partition_is_led(world: World, kind: int) -> None:
    row = message_type("ElectLeadersRequest.TopicPartitions")
    wanted = [row(topic="t", partitions=[0, 9]), row(topic="missing", partitions=[0])]
    request = message_type("ElectLeadersRequest")(election_type=kind, topic_partitions=wanted)
    answer = world.call(request, 2)
    assert answer.error_code == 0
    found = [
        [part.error_code for part in result.partition_result]
        for result in answer.replica_election_results
    ]
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert found == [[ErrorCode.ELECTION_NOT_NEEDED, unknown], [unknown]]
    every = message_type("ElectLeadersRequest")(election_type=kind, topic_partitions=None)
    (result,) = world.call(every, 2).replica_election_results
    assert (result.topic, result.partition_result) == ("t", []), "nothing had to be done"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (0, ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE),
        (1, ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE),
    ],
)
def test_an_election_cannot_help_where_the_only_replica_is_damaged(
    world: World, kind: int, error: ErrorCode
) -> None:
    partition = world.shard.groups.topics[b"t"].partition(0)
    assert partition is not None
    partition.is_damaged = True
    every = message_type("ElectLeadersRequest")(election_type=kind, topic_partitions=None)
    (result,) = world.call(every, 2).replica_election_results
    assert [row.error_code for row in result.partition_result] == [error]


def test_an_election_of_an_unknown_kind_is_refused(world: World) -> None:
    row = message_type("ElectLeadersRequest.TopicPartitions")
    wanted = [row(topic="t", partitions=[0])]
    request = message_type("ElectLeadersRequest")(election_type=5, topic_partitions=wanted)
    answer = world.call(request, 2)
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    (result,) = answer.replica_election_results
    assert [part.error_code for part in result.partition_result] == [ErrorCode.INVALID_REQUEST]


def test_sizes_on_disk(world: World) -> None:
    row = message_type("DescribeLogDirsRequest.DescribableLogDirTopic")
    wanted = [row(topic="t", partitions=[0, 5]), row(topic="missing", partitions=[0])]
    batch = batch_of(50, value=bytes(1000))
    for _ in range(20):
        world.produce("t", batch)
    world.pass_time(100)
    for topics in (wanted, None):
        request = message_type("DescribeLogDirsRequest")(topics=topics)
        (result,) = world.call(request, 4).results
        (topic,) = result.topics
        (partition,) = topic.partitions
        assert (topic.name, partition.partition_index, partition.offset_lag) == ("t", 0, 0)
        assert partition.partition_size >= 20 * len(batch)
        assert result.log_dir


def test_files_of_partitions_are_closed_at_ages_of_their_own(world: World) -> None:
    world.create_topic("j", 8, segment_ms="1000", segment_jitter_ms="400")

    def ages_ms() -> list[int]:
        partitions = world.shard.groups.topics[b"j"].partitions
        return [each.log.segment_ms for each in partitions if each is not None]

    assert len(set(ages_ms())) > 1
    assert all(600 < age_ms <= 1000 for age_ms in ages_ms())
    assert incremental(world, ("segment.jitter.ms", 1, None), name="j").error_code == 0
    assert ages_ms() == [1000] * 8
