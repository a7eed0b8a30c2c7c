"""Requests that come to a core before it has read the controller's log after a start.

Found by simulation: it showed, and altered, the cluster of its last checkpoint.
"""

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.ids import ConnId
from corelane.shard.events import Closed
from corelane.wire.compiler import Message, message_type
from tests.unit.api.world import World

TOPIC, BROKER = 2, 4


class EarlyWorld(World):
    """A world whose shard is asked before it is ready."""

    is_early = False

    def come_up(self) -> None:
        if not self.is_early:
            super().come_up()
            return
        self.holds_disk = True
        self.run([])
        assert not self.shard.groups.is_established

    def restart_early(self) -> None:
        """Lose everything but the disk, and start again, with the disk held."""
        self.is_early = True
        self.crash()


@pytest.fixture
def world() -> EarlyWorld:
    world = EarlyWorld()
    world.create_topic("t", retention_ms="5")
    world.restart_early()
    return world


def describing(kind: int, name: str) -> Message:
    resource = message_type("DescribeConfigsRequest.DescribeConfigsResource")(
        resource_type=kind, resource_name=name, configuration_keys=["retention.ms"]
    )
    return message_type("DescribeConfigsRequest")(resources=[resource])


def test_configurations_are_described_when_they_are_known(world: EarlyWorld) -> None:
    world.send(describing(TOPIC, "t"), 4)
    assert world.receive(32, 4) is None
    world.release_disk()
    world.pass_time(100)
    answer = world.receive(32, 4)
    assert answer is not None
    (row,) = answer[1].results[0].configs
    assert (row.value, row.config_source) == ("5", 1)


@pytest.mark.parametrize(("kind", "name"), [(TOPIC, "t"), (BROKER, "1000")])
def test_who_asks_for_configurations_is_told_in_the_end(
    world: EarlyWorld, kind: int, name: str
) -> None:
    world.send(describing(kind, name), 4)
    world.pass_time(60_000)
    answer = world.receive(32, 4)
    assert answer is not None
    assert answer[1].results[0].error_code == ErrorCode.REQUEST_TIMED_OUT
    assert answer[1].results[0].resource_name == name


def test_who_has_left_is_not_answered(world: EarlyWorld) -> None:
    world.send(describing(TOPIC, "t"), 4)
    world.run([Closed(ConnId(1), "gone")])
    world.release_disk()
    world.pass_time(100)
    assert not world.inbox.get(1)


def test_nothing_is_altered_that_is_not_known(world: EarlyWorld) -> None:
    config = message_type("IncrementalAlterConfigsRequest.AlterableConfig")
    resource = message_type("IncrementalAlterConfigsRequest.AlterConfigsResource")(
        resource_type=TOPIC, resource_name="t", configs=[config(name="flush.ms", value="5")]
    )
    for validate_only in (False, True):
        request = message_type("IncrementalAlterConfigsRequest")(
            resources=[resource], validate_only=validate_only
        )
        assert world.call(request, 1).responses[0].error_code == ErrorCode.NOT_CONTROLLER


def test_no_partitions_are_added_to_what_is_not_known(world: EarlyWorld) -> None:
    topic = message_type("CreatePartitionsRequest.CreatePartitionsTopic")(
        name="t", count=3, assignments=None
    )
    for validate_only in (False, True):
        request = message_type("CreatePartitionsRequest")(
            topics=[topic], timeout_ms=5000, validate_only=validate_only
        )
        assert world.call(request, 3).results[0].error_code == ErrorCode.NOT_CONTROLLER


def test_no_elections_are_held_before_the_partitions_are_known(world: EarlyWorld) -> None:
    request = message_type("ElectLeadersRequest")(election_type=0, topic_partitions=None)
    answer = world.call(request, 2)
    assert answer.error_code == ErrorCode.NOT_CONTROLLER
    assert answer.replica_election_results == []


@pytest.mark.parametrize("is_named", [True, False])
def test_no_topic_is_unknown_before_the_topics_are_known(world: EarlyWorld, is_named: bool) -> None:
    """A producer whose topic is said not to exist fails what it has (100 rounds, seed 2)."""
    row = message_type("MetadataRequest.MetadataRequestTopic")(name="t")
    wanted = [row] if is_named else None
    request = message_type("MetadataRequest")(topics=wanted, allow_auto_topic_creation=False)
    world.send(request, 9)
    assert world.receive(3, 9) is None
    world.release_disk()
    world.pass_time(100)
    answer = world.receive(3, 9)
    assert answer is not None
    (topic,) = answer[1].topics
    assert (topic.name, topic.error_code, len(topic.partitions)) == ("t", 0, 1)


def test_who_knows_no_topics_for_long_closes_and_lets_another_answer(world: EarlyWorld) -> None:
    world.send(message_type("MetadataRequest")(topics=None), 9, conn=4)
    world.pass_time(60_000)
    assert world.receive(3, 9, conn=4) is None
    assert 4 in world.closed
