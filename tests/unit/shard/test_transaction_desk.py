"""Coordinators of transactions on the cores of a node: asked, pushed, killed, and begun anew."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.ids import TopicId
from corelane.producers.transactions.requests import PushVerdict
from corelane.shard.key_hash import partition_number
from corelane.shard.transaction_host import TransactionHost
from corelane.shard.verifying import Place, Pushed, PushTransaction, Verified, VerifyTransaction
from tests.unit.api.txn import SETTINGS, Add, AddTopic, Producer, find
from tests.unit.api.world import delete_topic
from tests.unit.shard.node import BOOTSTRAP, Core, Node

NAMES = ["one", "two", "three", "four"]
EVERY = [("t", number) for number in range(6)]


@pytest.fixture
def node() -> Node:
    node = Node(3, SETTINGS)
    for core in node.cores.values():
        core.listener = BOOTSTRAP
    node[0].create_topic("t", 6)
    find(node[0], "one")
    return node


def host_of(node: Node, name: str) -> tuple[Core, TransactionHost]:
    for core in node.cores.values():
        host = core.shard.groups.desk.host_of(name)
        if not isinstance(host, ErrorCode):
            return core, host
    raise AssertionError("nobody coordinates it")


def open_everywhere(node: Node, name: str, core: int = 0) -> Producer:
    producer = Producer(node[core], name, 20 + core)
    assert producer.init() == 0
    assert producer.add(*EVERY) == [0] * 6
    return producer


def place(node: Node, number: int) -> Place:
    topic = node[0].shard.groups.cluster.topics["t"]
    return Place("t", TopicId(topic.topic_id), number)


def verify(node: Node, core: int, producer: Producer, number: int, *, adds: bool) -> Verified:
    told: list[Verified] = []
    shard = node[core].shard
    question = VerifyTransaction(
        producer.name, producer.producer_id, producer.epoch, place(node, number), adds
    )
    shard.todo.append(lambda: shard.groups.desk.verify(question, told.append))
    node.run()
    node.pass_time(3_000)
    (one,) = told
    return one


def push(node: Node, core: int, producer: Producer, number: int, *, named: bool) -> Pushed:
    told: list[Pushed] = []
    shard = node[core].shard
    name = producer.name if named else None
    question = PushTransaction(name, producer.producer_id, producer.epoch, place(node, number))
    shard.todo.append(lambda: shard.groups.desk.push(question, told.append))
    node.run()
    node.pass_time(3_000)
    (one,) = told
    return one


def test_coordinators_are_on_all_cores(node: Node) -> None:
    found = {host_of(node, f"id-{number}")[0].core for number in range(50)}
    assert found == {0, 1, 2}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("commits", [True, False])
def test_a_transaction_of_all_cores_ends_through_any_door(
    node: Node, name: str, commits: bool
) -> None:
    producer = open_everywhere(node, name)
    assert producer.end(commits=commits) == 0
    producer.settle()
    assert producer.state() == ("CompleteCommit" if commits else "CompleteAbort")


def test_a_core_says_that_it_coordinates_something_else(node: Node) -> None:
    at = host_of(node, "one")[0].core
    other = node[(at + 1) % 3]
    other.listener = 0  # its own port
    assert Producer(other, "one", 40).init() == ErrorCode.NOT_COORDINATOR


def test_any_core_may_ask_whether_a_partition_is_part_of_it(node: Node) -> None:
    producer = Producer(node[0], "one")
    producer.init()
    producer.add(("t", 1))
    for core in range(3):
        said = verify(node, core, producer, 1, adds=False)
        assert said.error is ErrorCode.NONE
        assert said.started_ms > 0
        assert verify(node, core, producer, 2, adds=False).error == ErrorCode.TRANSACTION_ABORTABLE
    assert verify(node, 1, producer, 2, adds=True).error is ErrorCode.NONE
    assert verify(node, 2, producer, 2, adds=False).error is ErrorCode.NONE
    producer.epoch += 1
    assert verify(node, 0, producer, 1, adds=False).error == ErrorCode.PRODUCER_FENCED


def test_who_cannot_be_asked_is_not_available(node: Node) -> None:
    producer = open_everywhere(node, "one")
    core = host_of(node, "one")[0].core
    asker = (core + 1) % 3
    node.kill(core)
    assert verify(node, asker, producer, 1, adds=False).error in {
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
    node.revive(core)
    node.pass_time(500)
    assert verify(node, asker, producer, 1, adds=False).error is ErrorCode.NONE


@pytest.mark.parametrize("named", [True, False])
def test_a_push_is_answered_by_who_knows(node: Node, named: bool) -> None:
    producer = open_everywhere(node, "one")
    for core in range(3):
        assert push(node, core, producer, 1, named=named).verdict is PushVerdict.WAIT
    stranger = Producer(node[0], "one")
    stranger.producer_id, stranger.epoch = 999_999, 0
    assert push(node, 1, stranger, 1, named=named).verdict is PushVerdict.UNKNOWN
    assert producer.end(version=5) == 0
    producer.settle()
    producer.epoch = 0
    said = push(node, 2, producer, 1, named=named)
    host = host_of(node, "one")[1]
    assert (said.verdict, said.epoch) == (PushVerdict.ABORT, 0)
    assert said.coordinator_term == host.term


def test_where_one_coordinator_is_away_nothing_is_unknown(node: Node) -> None:
    stranger = Producer(node[0], "one")
    stranger.producer_id, stranger.epoch = 999_999, 0
    node.kill(2)
    assert push(node, 1, stranger, 1, named=False).verdict is PushVerdict.WAIT


@pytest.mark.parametrize("name", NAMES)
def test_a_coordinator_that_dies_after_its_decision_finishes_it(node: Node, name: str) -> None:
    core, host = host_of(node, name)
    producer = open_everywhere(node, name, core.core)
    other = next(each for each in node.cores if each != core.core)
    node.kill(other)  # some markers cannot be delivered
    assert producer.end() == 0
    node.pass_time(1_000)
    assert host.coordinator.undelivered_count == 1
    node.kill(core.core)
    node.revive(core.core)
    node.revive(other)
    node.pass_time(1_000)
    assert host_of(node, name)[1] is not host
    producer.settle()
    assert producer.state() == "CompleteCommit"


def test_what_comes_while_markers_are_on_their_way_waits_a_moment(node: Node) -> None:
    """X2: with all cores there it is never refused; without, it is told why after a while."""
    producer = open_everywhere(node, "one")
    core = host_of(node, "one")[0]
    for _ in range(3):
        assert producer.end() == 0
        assert producer.add(*EVERY) == [0] * 6
    other = next(each for each in node.cores if each not in {0, core.core})
    node.kill(other)
    assert producer.end() == 0
    topics = [AddTopic(name="t", partitions=[0])]
    request = Add(
        v3_and_below_transactional_id="one",
        v3_and_below_producer_id=producer.producer_id,
        v3_and_below_producer_epoch=producer.epoch,
        v3_and_below_topics=topics,
    )
    node[0].send(request, 3, 50)
    assert node[0].receive(24, 3, 50) is None
    node.pass_time(150)
    answer = node[0].receive(24, 3, 50)
    assert answer is not None
    row = answer[1].results_by_topic_v3_and_below[0].results_by_partition[0]
    assert row.partition_error_code == ErrorCode.CONCURRENT_TRANSACTIONS


def test_a_topic_that_is_deleted_meanwhile_holds_up_nothing(node: Node) -> None:
    producer = open_everywhere(node, "one")
    host = host_of(node, "one")[0]
    away = next(core for core in (1, 2) if core != host.core)
    node.kill(away)
    assert producer.end() == 0
    delete_topic(node[0], "t")
    node.pass_time(5_000)
    producer.settle()
    assert producer.state() == "CompleteCommit"


def test_a_fold_that_lags_is_no_proof_that_a_topic_is_deleted(node: Node) -> None:
    """M1: a coordinator whose controller is away takes nothing for deleted."""
    core, host = host_of(node, "two")
    assert core.core != 0, "partition numbers place it elsewhere"
    producer = open_everywhere(node, "two", core.core)
    plan = core.shard.groups.cluster.topics.pop("t")  # as if it were not known here yet
    node.kill(0)
    assert producer.end() == 0
    node.pass_time(5_000)
    assert host.coordinator.undelivered_count == 1
    core.shard.groups.cluster.topics["t"] = plan
    node.revive(0)
    producer.settle()
    assert producer.state() == "CompleteCommit"


def test_keys_are_spread_as_in_kafka() -> None:
    assert {partition_number(name, 3) for name in NAMES} >= {0, 1}
