"""Groups on their way between cores: nothing lost, nothing served twice, whoever dies when."""

import itertools

import pytest

from corelane.model.errors import ErrorCode
from corelane.shard.effects import Emptied
from corelane.shard.events import OperatorRequest
from corelane.shard.moves import EMPTY_AGAIN_MS, Moves
from corelane.wire.records import Producer
from tests.unit.api.world import batch_of, delete_topic, produce_request
from tests.unit.shard.node import Core, Node

_numbers = itertools.count(1)


def order(node: Node, partition: int, target: int, topic: str = "t") -> int:
    """Ask core 0 to move a partition; return the number of the request."""
    number = next(_numbers)
    arguments = {"topic": topic, "partition": str(partition), "core": str(target)}
    node[0].run([OperatorRequest(number, "move", arguments)])
    return number


def outcome(node: Node, number: int) -> str | None:
    for answer in node[0].operated:
        if answer.number == number:
            return answer.error or "done"
    return None


def home(node: Node, partition: int, topic: str = "t") -> int:
    groups = node[0].shard.groups
    found = groups.siblings.home_of(groups.cluster.topics[topic].partitions[partition].group)
    assert found is not None
    return int(found)


def servers(node: Node, partition: int, topic: str = "t") -> list[int]:
    """Return the cores that serve a partition."""
    found = []
    for number, core in node.cores.items():
        known = core.shard.groups.topics.get(topic.encode())
        own = None if known is None else known.partition(partition)
        if own is not None and own.serves:
            found.append(number)
    return found


def produce(core: Core, partition: int, count: int, sequence: int) -> int:
    batch = batch_of(count, producer=Producer(5, 0, sequence))
    row = core.produce("t", batch, partition=partition)
    return int(row.base_offset) if row.error_code == 0 else -int(row.error_code)


@pytest.fixture
def node() -> Node:
    made = Node(3)
    made[0].create_topic("t", 3)
    return made


def at(node: Node, core: int) -> int:
    """Return a partition that lives on a core."""
    return next(number for number in range(3) if home(node, number) == core)


@pytest.mark.parametrize(("source", "target"), [*itertools.permutations(range(3), 2)])
def test_a_partition_moves_with_everything_it_has(node: Node, source: int, target: int) -> None:
    partition = at(node, source)
    assert produce(node[source], partition, 3, 0) == 0
    assert produce(node[source], partition, 2, 3) == 3
    number = order(node, partition, target)
    assert outcome(node, number) == "done"
    assert (home(node, partition), servers(node, partition)) == (target, [target])
    assert produce(node[target], partition, 2, 3) == 3, "its producers are known there"
    assert produce(node[target], partition, 4, 5) == 5
    assert node[target].fetch("t", 0, partition=partition).high_watermark == 9
    row = node[source].produce("t", batch_of(), partition=partition, version=11)
    assert row.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert row.current_leader.leader_id == 1000 + target
    for dead in (source, target):
        node.kill(dead)
        node.revive(dead)
    assert node.is_ready
    assert servers(node, partition) == [target]
    assert node[target].fetch("t", 0, partition=partition).high_watermark == 9
    again = order(node, partition, source)
    assert outcome(node, again) == "done"
    assert node[source].fetch("t", 0, partition=partition).high_watermark == 9


def test_a_move_to_where_it_is_is_done_and_one_to_nowhere_refused(node: Node) -> None:
    assert outcome(node, order(node, at(node, 1), 1)) == "done"
    assert outcome(node, order(node, 0, 7)) == "INVALID_REQUEST"
    assert outcome(node, order(node, 9, 1)) == "UNKNOWN_TOPIC_OR_PARTITION"
    assert outcome(node, order(node, 0, 1, "missing")) == "UNKNOWN_TOPIC_OR_PARTITION"


def test_what_is_on_its_way_to_the_disk_is_answered_before_the_move(node: Node) -> None:
    partition = at(node, 1)
    node[1].holds_disk = True
    node[1].send(produce_request("t", batch_of(3), partition=partition), 9)
    number = order(node, partition, 2)
    assert node[1].receive(0, 9) is None
    assert outcome(node, number) is None
    late = node[1].call(produce_request("t", batch_of(), partition=partition), 9, conn=2)
    (row,) = late.responses[0].partition_responses
    assert row.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER, "V2"
    node[1].release_disk()
    node.pass_time(20)
    assert outcome(node, number) == "done"
    assert node[2].fetch("t", 0, partition=partition).high_watermark == 3


@pytest.mark.parametrize("held", [0, 1, 2])
@pytest.mark.parametrize("dead", [(1,), (2,), (0,), (1, 2), (2, 1), (0, 1), (0, 2), (0, 1, 2)])
def test_whoever_dies_during_a_move_nothing_is_lost_or_owned_twice(
    node: Node, held: int, dead: tuple[int, ...]
) -> None:
    """*held*: whose disk stops, so that the move stops where it needs that disk."""
    partition = at(node, 1)
    assert produce(node[1], partition, 3, 0) == 0
    node[held].holds_disk = True
    order(node, partition, 2)
    for core in dead:
        node.kill(core)
    if held not in dead:
        node[held].release_disk()
    for core in reversed(dead):
        node.dead[core].holds_disk = False
        node.revive(core)
    for each in node.cores.values():
        each.release_disk()
    node.pass_time(100)
    node.pass_time(100)
    assert node.is_ready
    (server,) = servers(node, partition)
    assert home(node, partition) == server
    assert produce(node[server], partition, 3, 0) == 0, "it is a duplicate"
    assert produce(node[server], partition, 2, 3) == 3
    group = group_of(node, partition)
    owners = [n for n, core in node.cores.items() if group in core.shard.groups.owned()]
    assert owners == [server]
    for core in (0, 1, 2):
        node.kill(core)
        node.revive(core)
    assert servers(node, partition) == [server]
    assert node[server].fetch("t", 0, partition=partition).high_watermark == 5


def group_of(node: Node, partition: int) -> int:
    return int(node[0].shard.groups.cluster.topics["t"].partitions[partition].group)


def test_a_topic_that_is_deleted_during_a_move_leaves_nothing(node: Node) -> None:
    partition = at(node, 1)
    produce(node[1], partition, 3, 0)
    for held in (1, 2):
        node[held].holds_disk = True
    order(node, partition, 2)
    delete_topic(node[0], "t")
    for held in (1, 2):
        node[held].release_disk()
    node.pass_time(100)
    assert [core.shard.groups.owned() for core in node.cores.values()] == [{}, {}, {}]


def test_a_retired_core_hands_everything_over_and_says_so() -> None:
    first = Node(4)
    first[0].create_topic("t", 8)
    for partition in range(8):
        assert produce(first[home(first, partition)], partition, 3, 0) == 0
    for core in range(4):
        first.kill(core)
    node = Node(1, retired=(1, 2, 3), tree=first.tree)
    node.pass_time(100)
    node.pass_time(100)
    assert node.is_ready
    for retired in (1, 2, 3):
        assert any(isinstance(effect, Emptied) for effect in node[retired].told)
        assert node[retired].shard.groups.owned() == {}
    assert [servers(node, partition) for partition in range(8)] == [[0]] * 8
    for partition in range(8):
        assert produce(node[0], partition, 1, 3) == 3
    node.kill(0)
    wider = Node(4, tree=node.tree)
    wider.pass_time(100)
    assert min(len(core.shard.groups.owned()) for core in wider.cores.values()) >= 1
    for partition in range(8):
        (server,) = servers(wider, partition)
        assert wider[server].fetch("t", 0, partition=partition).high_watermark == 4


def test_a_retired_core_tries_again_what_could_not_be_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = Node(2)
    first[0].create_topic("t", 4)
    for core in range(2):
        first.kill(core)
    exported = Moves._exported
    monkeypatch.setattr(
        Moves, "_exported", lambda moves, leaving, _parcel: exported(moves, leaving, None)
    )
    node = Node(1, retired=(1,), tree=first.tree)
    node.pass_time(100)
    assert len(node[1].shard.groups.owned()) == 2, "its files cannot be written"
    monkeypatch.undo()
    for _ in range(3):
        node.pass_time(EMPTY_AGAIN_MS)
    assert node[1].shard.groups.owned() == {}
    assert any(isinstance(effect, Emptied) for effect in node[1].told)
    assert [servers(node, partition) for partition in range(4)] == [[0]] * 4
