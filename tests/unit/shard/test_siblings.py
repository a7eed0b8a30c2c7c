"""Several shards of one node: one fold, one home per group, and answers that name it."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.ids import CoreId
from corelane.wire.compiler import Message, message_type
from tests.unit.api.world import batch_of
from tests.unit.shard.node import Core, Node


@pytest.fixture
def node() -> Node:
    return Node(3)


def metadata(core: Core, *names: str) -> Message:
    wanted = [message_type("MetadataRequest.MetadataRequestTopic")(name=name) for name in names]
    request = message_type("MetadataRequest")(topics=wanted, allow_auto_topic_creation=False)
    return core.call(request, 9, conn=77)


def leaders(core: Core, name: str) -> list[int]:
    (topic,) = metadata(core, name).topics
    assert topic.error_code == 0
    rows = sorted(topic.partitions, key=lambda row: int(row.partition_index))
    assert all(row.error_code == 0 for row in rows)
    return [row.leader_id for row in rows]


def test_all_cores_come_up(node: Node) -> None:
    assert node.is_ready


@pytest.mark.parametrize("through", [0, 1, 2])
def test_a_topic_made_through_any_core_is_known_to_all_and_spread(node: Node, through: int) -> None:
    result = node[through].create_topic("t", 6)
    assert (result.error_code, result.num_partitions) == (0, 6)
    assert [len(core.shard.groups.members) for core in node.cores.values()] == [3, 2, 2]
    spread = leaders(node[0], "t")
    assert sorted(spread) == [1000, 1000, 1001, 1001, 1002, 1002]
    assert leaders(node[1], "t") == leaders(node[2], "t") == spread


def test_a_core_serves_what_it_leads_and_names_the_leader_of_the_rest(node: Node) -> None:
    node[1].create_topic("t", 3)
    homes = leaders(node[0], "t")
    for number, broker in enumerate(homes):
        own = node[broker - 1000]
        assert own.produce("t", batch_of(3), partition=number).error_code == 0
        assert own.fetch("t", 0, partition=number).high_watermark == 3
        other = node[(broker - 1000 + 1) % 3]
        row = other.produce("t", batch_of(), partition=number, version=11)
        assert row.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert row.current_leader.leader_id == broker
        found = other.fetch("t", 0, partition=number, version=16)
        assert found.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert found.current_leader.leader_id == broker
        assert other.produce("t", batch_of(), partition=9).error_code == (
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        )


@pytest.mark.parametrize("dead", [0, 1])
def test_a_killed_core_comes_back_with_everything_while_others_serve(node: Node, dead: int) -> None:
    node[0].create_topic("t", 6)
    homes = leaders(node[0], "t")
    for number, broker in enumerate(homes):
        assert node[broker - 1000].produce("t", batch_of(2), partition=number).error_code == 0
    node.kill(dead)
    for number, broker in enumerate(homes):
        if broker - 1000 != dead:
            assert node[broker - 1000].produce("t", batch_of(), partition=number).error_code == 0
    node.revive(dead)
    assert node.is_ready
    assert leaders(node[2], "t") == homes
    for number, broker in enumerate(homes):
        expected = 2 if broker - 1000 == dead else 3
        assert node[broker - 1000].fetch("t", 0, partition=number).high_watermark == expected


def test_all_cores_killed_come_back_in_any_order(node: Node) -> None:
    node[0].create_topic("t", 6)
    homes = leaders(node[0], "t")
    for dead in (0, 1, 2):
        node.kill(dead)
    node.revive(2)
    node.revive(0)
    assert not node[0].shard.is_ready, "core 1 has not said yet what it owns"
    node.revive(1)
    assert node.is_ready
    assert [leaders(node[core], "t") for core in range(3)] == [homes] * 3


def test_what_happens_while_a_core_is_away_reaches_it(node: Node) -> None:
    node[0].create_topic("old", 6)
    node.kill(2)
    request = message_type("DeleteTopicsRequest")(
        topics=[message_type("DeleteTopicsRequest.DeleteTopicState")(name="old")], timeout_ms=100
    )
    assert node[1].call(request, 6).responses[0].error_code == 0
    node[1].send(
        message_type("CreateTopicsRequest")(
            topics=[
                message_type("CreateTopicsRequest.CreatableTopic")(
                    name="new", num_partitions=6, replication_factor=1
                )
            ],
            timeout_ms=100,
        ),
        7,
    )
    node.revive(2)
    assert node.is_ready
    assert sorted(leaders(node[2], "new")) == [1000, 1000, 1001, 1001, 1002, 1002]
    assert metadata(node[2], "old").topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert len(node[2].shard.store.groups) == 2


@pytest.mark.parametrize("core", [0, 1, 2])
def test_every_core_hands_out_producer_ids_that_no_other_has(node: Node, core: int) -> None:
    request = message_type("InitProducerIdRequest")(transactional_id=None)
    seen = {node[each].call(request, 4).producer_id for each in (0, 1, 2) for _ in range(3)}
    assert len(seen) == 9
    node.kill(core)
    node.revive(core)
    for each in (0, 1, 2):
        answer = node[each].call(request, 4)
        assert answer.error_code == 0
        assert answer.producer_id not in seen
        seen.add(answer.producer_id)


class Wanted:
    """A producer that waits for an id."""

    is_done = False

    def granted(self, producer_id: int) -> None:
        """Take the id: nobody grants one here."""
        raise AssertionError(producer_id)


@pytest.mark.parametrize("core", [0, 1])
def test_a_block_of_ids_that_came_with_the_whole_fold_is_asked_for_again(
    node: Node, core: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Granted before the fold is acted on, it is seen by nobody: for a minute none had an id."""
    groups, asked = node[core].shard.groups, list[CoreId]()
    monkeypatch.setattr(groups.registration, "propose_producer_ids", asked.append)
    monkeypatch.setattr(groups.siblings, "ask_for_ids", lambda: asked.append(CoreId(1)))
    groups.id_blocks.take(Wanted())
    assert asked == [core]
    if core == 0:
        monkeypatch.setattr(groups, "_has_fold", False)
        groups.established()
    else:
        groups.mirrored(groups.cluster, ())
    assert asked == [core, core]


def test_a_request_for_core_0_waits_until_that_is_back(node: Node) -> None:
    node.kill(0)
    topic = message_type("CreateTopicsRequest.CreatableTopic")
    wish = topic(name="t", num_partitions=3, replication_factor=1)
    node[1].send(message_type("CreateTopicsRequest")(topics=[wish], timeout_ms=5000), 7)
    assert node[1].receive(19, 7) is None
    node.revive(0)
    answer = node[1].receive(19, 7)
    if answer is None:
        node.pass_time(100)
        answer = node[1].receive(19, 7)
    assert answer is not None
    assert answer[1].topics[0].error_code in {0, ErrorCode.NOT_CONTROLLER}


def test_a_request_for_core_0_that_died_closes_the_client(node: Node) -> None:
    node[0].holds_disk = True
    topic = message_type("CreateTopicsRequest.CreatableTopic")
    wish = topic(name="t", num_partitions=3, replication_factor=1)
    node[1].send(message_type("CreateTopicsRequest")(topics=[wish], timeout_ms=5000), 7)
    node.kill(0)
    assert 1 in node[1].closed
    node[0 + 1].holds_disk = False
