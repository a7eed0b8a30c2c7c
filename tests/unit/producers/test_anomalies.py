"""Anomalies of transactions that others had (ANOMALIES.md): what no other test shows."""

import ast
import re
from pathlib import Path

import pytest

from corelane.api.produce_errors import unverified
from corelane.model.errors import ErrorCode
from tests.simulation.cluster import NODES, Cluster
from tests.simulation.mutant_table import BUGS
from tests.unit.api.transactions import TransactionWorld, Writer
from tests.unit.api.txn import Producer, coordinated, find, offset_of
from tests.unit.api.world import World, batch_of, produce_request

ROOT = Path(__file__).parents[3]
TABLE = Path(__file__).with_name("ANOMALIES.md").read_text()
ROWS = re.findall(r"^\| (\d+b?) \| (.+?) \| (.+) \|$", TABLE, re.MULTILINE)
INPUTS = re.findall(
    r"^\| ((?:a|an|anything|partitions) .+?) \| .+? \| (.+) \|$", TABLE, re.MULTILINE
)


@pytest.mark.parametrize(("number", "tests"), [(row[0], row[2]) for row in ROWS] + INPUTS)
def test_the_tests_of_the_table_are_there(number: str, tests: str) -> None:
    places = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", tests)
    assert places, f"anomaly {number} has no test"
    for path, name in places:
        tree = ast.parse((ROOT / path).read_text())
        names = {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}
        assert not name or name in names, f"{path} has no {name}"
    for bug in re.findall(r"planted bug (\d+)", tests):
        assert int(bug) in BUGS


def test_the_table_has_every_anomaly() -> None:
    assert [row[0] for row in ROWS] == [
        *map(str, range(1, 8)), "7b", *map(str, range(8, 20)),
    ]  # fmt: skip


@pytest.fixture
def world() -> World:
    world = coordinated()
    find(world, "g", kind=0)
    return world


@pytest.fixture
def plain() -> TransactionWorld:
    world = TransactionWorld()
    world.create_topic("t", 3)
    return world


def test_an_offset_is_told_of_what_is_committed_there_alone(plain: TransactionWorld) -> None:
    """Anomaly 4: what was appended and lost was never told of; its offset goes to another."""
    writer = Writer(plain, 7)
    plain.holds_disk = True
    writer.send(value=b"lost")
    assert writer.answer() is None
    plain.holds_disk = False
    plain.crash()
    row = plain.produce("t", batch_of(1, value=b"kept"))
    assert (row.error_code, row.base_offset) == (0, 0)
    assert writer.answer() is None, "nobody hears of an entry that is not there"
    records = bytes(plain.fetch("t", 0).records)
    assert b"kept" in records
    assert b"lost" not in records


@pytest.mark.parametrize("version", [9, 11, 12])
def test_no_produce_is_answered_with_an_unknown_error(version: int) -> None:
    """Anomaly 5: clients take UNKNOWN_SERVER_ERROR for a failure and write again, unnumbered."""
    for error in ErrorCode:
        if error not in {ErrorCode.NONE, ErrorCode.UNKNOWN_SERVER_ERROR}:
            assert unverified(error, version)[0] is not ErrorCode.UNKNOWN_SERVER_ERROR
    # Who cannot be asked: nothing was written, so the client may send the same again.
    assert unverified(ErrorCode.REQUEST_TIMED_OUT, version)[0] is ErrorCode.NOT_ENOUGH_REPLICAS


def test_no_batch_enters_before_its_partition_is_added_on_disk(world: World) -> None:
    """Anomaly 6: a begin that only its coordinator's memory knows is lost with it."""
    producer = Producer(world, "one")
    assert producer.init() == 0
    writer = Writer(world, producer.producer_id, "one")  # type: ignore[arg-type]
    writer.version = 12  # the batch itself adds the partition
    topic = world.shard.groups.topics[b"t"]
    partition = topic.partition(0)
    assert partition is not None
    world.holds_disk = True
    writer.send()
    assert partition.log.next_offset == 0, "the batch waits for its begin"
    assert writer.answer() is None
    world.release_disk()
    world.pass_time(100)
    row = writer.answer()
    assert row is not None
    assert (row.error_code, row.base_offset) == (0, 0)
    assert producer.state() == "Ongoing"


def _staged(world: World, name: str, offset: int) -> Producer:
    producer = Producer(world, name)
    assert producer.init() == 0
    assert producer.add_offsets("g") == 0
    assert producer.commit("g", offset) == 0
    return producer


@pytest.mark.parametrize("dies", [True, False])
def test_staged_offsets_count_in_the_order_of_their_markers(world: World, *, dies: bool) -> None:
    """Anomaly 12: not in that in which they were staged, and the same for who replays."""
    first, second = _staged(world, "one", 5), _staged(world, "two", 9)
    assert second.end() == 0
    second.settle()
    world.pass_time(200)
    if dies:
        world.crash()
        world.pass_time(500)
    assert first.end() == 0
    first.settle()
    world.pass_time(200)
    assert offset_of(world, "g") == (5, 0)
    world.crash()
    world.pass_time(500)
    assert offset_of(world, "g") == (5, 0)


def test_an_offset_that_expires_takes_no_staged_one_along() -> None:
    """Anomaly 12: the tombstone of an old offset comes behind what is staged for its key."""
    settings = "transaction.state.log.num.partitions = 3\noffsets.topic.num.partitions = 3\n"
    world = coordinated(settings + "offsets.retention.minutes = 1\n")
    find(world, "g", kind=0)
    before = _staged(world, "one", 3)
    assert before.end() == 0
    before.settle()
    world.pass_time(200)
    assert offset_of(world, "g") == (3, 0)
    after = _staged(world, "two", 8)
    for _ in range(12):
        world.pass_time(10_000)  # the offset of before is old; the transaction times out at 60 s
        if after.state() != "Ongoing":
            break
    assert offset_of(world, "g")[0] in {-1, 3}
    last = _staged(world, "two", 11)
    assert last.end() == 0
    last.settle()
    world.pass_time(200)
    assert offset_of(world, "g") == (11, 0)
    world.crash()
    world.pass_time(500)
    assert offset_of(world, "g") == (11, 0)


def test_what_acks_1_acknowledged_is_not_seen_before_a_majority_has_it() -> None:
    """Anomaly 14: one high watermark for every kind of acknowledgement."""
    cluster = Cluster(7)
    for node in cluster.nodes.values():
        node.rests = True
    cluster.form()
    cluster.create_topic(cluster.nodes[1], "t", 1)
    leader = cluster.leader(1)
    cluster.cut = {(number, leader.number) for number in NODES if number != leader.number}
    answer = cluster.call(leader, produce_request("t", batch_of(3), acks=1), 9, conn=5)
    row = answer.responses[0].partition_responses[0]
    assert (row.error_code, row.base_offset) == (0, 0), "it is on the leader's disk"
    answer = cluster.call(leader, leader.fetch_request("t", 0), 12, conn=6)
    row = answer.responses[0].partitions[0]
    assert (row.high_watermark, bytes(row.records or b"")) == (0, b"")
    cluster.cut = set()
    answer = cluster.call(leader, leader.fetch_request("t", 0, max_wait_ms=5_000), 12, conn=7)
    row = answer.responses[0].partitions[0]
    if row.error_code == 0:
        assert row.high_watermark in {0, 3}


def test_transactions_may_lie_between_one_another(plain: TransactionWorld) -> None:
    """Anomaly 18 is none: writes are not isolated, only read_committed reads are."""
    one, two = Writer(plain, 7), Writer(plain, 8)
    for number in (0, 1):
        assert one.write(value=b"one", number=number) is ErrorCode.NONE
        assert two.write(value=b"two", number=1 - number) is ErrorCode.NONE
        two.sequence = one.sequence = 0
    for number in (0, 1):
        assert plain.marker(8, number=number) == [ErrorCode.NONE]
    assert plain.ends[0] == 0, "the older one is open"
    for number in (0, 1):
        assert plain.marker(7, commits=False, number=number) == [ErrorCode.NONE]
    assert plain.ends[0] == plain.ends[1] == 4
    row = plain.fetch("t", 0, isolation_level=1)
    aborted = [(each.producer_id, each.first_offset) for each in row.aborted_transactions]
    assert aborted == [(7, 0)]
    assert b"two" in bytes(row.records)
