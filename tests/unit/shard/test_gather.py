"""Doors of the whole node: requests that span cores are split, and answered as by one broker."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.ids import ConnId
from corelane.shard.events import Closed
from corelane.shard.partition import Batch
from corelane.shard.transaction_entries import TRANSACTIONAL
from corelane.wire.compiler import Message, message_type
from corelane.wire.compression import Compression
from corelane.wire.records import BatchBuilder, Producer, encode_batch, split_batches
from corelane_native import address_of
from tests.unit.api.world import WALL_MS, batch_of, produce_request
from tests.unit.shard.node import BOOTSTRAP, Node

NODE_MODE = '[corelane]\nadvertise = "node"\n'
PARTITIONS = 6


@pytest.fixture(params=["bootstrap", "node"])
def node(request: pytest.FixtureRequest) -> Node:
    """Every core answers for the node: at its bootstrap door, or because it advertises so."""
    node = Node(3, NODE_MODE if request.param == "node" else "")
    for core in node.cores.values():
        core.listener = BOOTSTRAP if request.param == "bootstrap" else 0
    node[0].create_topic("t", PARTITIONS)
    return node


def produce_all(count: int, *, acks: int = -1) -> Message:
    """Return a request with a batch of *count* records for every partition."""
    row = message_type("ProduceRequest.PartitionProduceData")
    data = message_type("ProduceRequest.TopicProduceData")(
        name="t",
        partition_data=[row(index=each, records=batch_of(count)) for each in range(PARTITIONS)],
    )
    return message_type("ProduceRequest")(acks=acks, timeout_ms=30_000, topic_data=[data])


def fetch_all(node: Node, *, offset: int = 0, max_wait_ms: int = 0, min_bytes: int = 1) -> Message:
    part = message_type("FetchRequest.FetchPartition")
    topic_id = node[0].shard.groups.topics[b"t"].topic_id
    row = message_type("FetchRequest.FetchTopic")(
        topic="t",
        topic_id=topic_id,
        partitions=[
            part(partition=each, fetch_offset=offset, partition_max_bytes=1 << 20)
            for each in range(PARTITIONS)
        ],
    )
    return message_type("FetchRequest")(
        topics=[row], max_wait_ms=max_wait_ms, min_bytes=min_bytes, max_bytes=50 << 20
    )


def homes(node: Node) -> list[int]:
    cluster = node[0].shard.groups.cluster
    found = [node[0].shard.groups.siblings.home_of(p.group) for p in cluster.topics["t"].partitions]
    return [int(home) for home in found if home is not None]


@pytest.mark.parametrize("core", [0, 1, 2])
@pytest.mark.parametrize("version", [3, 8, 9, 11])
def test_produce_that_spans_cores(node: Node, core: int, version: int) -> None:
    answer = node[core].call(produce_all(2), version)
    (topic,) = answer.responses
    assert topic.name == "t"
    assert [row.index for row in topic.partition_responses] == list(range(PARTITIONS))
    assert [row.error_code for row in topic.partition_responses] == [0] * PARTITIONS
    again = node[core].call(produce_all(1), version)
    assert [row.base_offset for row in again.responses[0].partition_responses] == [2] * PARTITIONS
    assert node[core].shard.counts.misrouted[0] == 2


@pytest.mark.parametrize("version", [4, 11, 12, 13, 17])
def test_fetch_that_spans_cores(node: Node, version: int) -> None:
    node[1].call(produce_all(3), 9)
    answer = node[2].call(fetch_all(node), version)
    (topic,) = answer.responses
    rows = topic.partitions
    assert [row.partition_index for row in rows] == list(range(PARTITIONS))
    assert [row.error_code for row in rows] == [0] * PARTITIONS
    assert [row.high_watermark for row in rows] == [3] * PARTITIONS
    assert [next(iter(split_batches(row.records))).last_offset for row in rows] == [2] * PARTITIONS


@pytest.mark.parametrize("partition", range(PARTITIONS))
def test_a_request_for_one_other_core_goes_there_as_it_is(node: Node, partition: int) -> None:
    home = homes(node)[partition]
    row = node[0].produce("t", batch_of(), partition=partition)
    assert (row.error_code, row.base_offset) == (0, 0)
    assert node[0].shard.counts.misrouted[0] == (home != 0)
    found = node[0].fetch("t", 0, partition=partition)
    assert (found.error_code, found.high_watermark) == (0, 1)


def test_offsets_of_partitions_on_several_cores(node: Node) -> None:
    node[0].call(produce_all(5), 9)
    part = message_type("ListOffsetsRequest.ListOffsetsPartition")
    row = message_type("ListOffsetsRequest.ListOffsetsTopic")(
        name="t", partitions=[part(partition_index=each, timestamp=-1) for each in (5, 0, 9, 3)]
    )
    answer = node[2].call(message_type("ListOffsetsRequest")(replica_id=-1, topics=[row]), 7)
    rows = answer.topics[0].partitions
    assert [each.partition_index for each in rows] == [5, 0, 9, 3]
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert [each.error_code for each in rows] == [0, 0, unknown, 0]
    assert [each.offset for each in rows] == [5, 5, -1, 5]


def test_records_are_deleted_on_several_cores(node: Node) -> None:
    node[0].call(produce_all(5), 9)
    wishes = {5: 4, 0: -1, 9: 0, 3: 6}
    part = message_type("DeleteRecordsRequest.DeleteRecordsPartition")
    row = message_type("DeleteRecordsRequest.DeleteRecordsTopic")(
        name="t",
        partitions=[part(partition_index=each, offset=offset) for each, offset in wishes.items()],
    )
    request = message_type("DeleteRecordsRequest")(topics=[row], timeout_ms=5000)
    rows = node[1].call(request, 2).topics[0].partitions
    assert [(each.partition_index, each.error_code, each.low_watermark) for each in rows] == [
        (5, 0, 4),
        (0, 0, 5),
        (9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
        (3, ErrorCode.OFFSET_OUT_OF_RANGE, -1),
    ]


def test_epochs_of_partitions_on_several_cores(node: Node) -> None:
    node[0].call(produce_all(5), 9)
    part = message_type("OffsetForLeaderEpochRequest.OffsetForLeaderPartition")
    wanted = [part(partition=each, leader_epoch=1) for each in (3, 0, 9, 5)]
    row = message_type("OffsetForLeaderEpochRequest.OffsetForLeaderTopic")(
        topic="t", partitions=wanted
    )
    request = message_type("OffsetForLeaderEpochRequest")(topics=[row])
    rows = node[1].call(request, 4).topics[0].partitions
    assert [each.partition for each in rows] == [3, 0, 9, 5]
    assert [each.end_offset for each in rows] == [5, 5, -1, 5]


def test_acks_0_is_appended_everywhere_and_not_answered(node: Node) -> None:
    node[0].send(produce_all(1, acks=0), 9)
    assert node[0].receive(0, 9) is None
    answer = node[0].call(fetch_all(node), 12)
    assert [row.high_watermark for row in answer.responses[0].partitions] == [1] * PARTITIONS


def test_a_refused_acks_0_batch_closes_the_client_wherever_it_was_refused(node: Node) -> None:
    away = next(number for number, home in enumerate(homes(node)) if home != 0)
    damaged = bytearray(batch_of(1))
    damaged[-1] ^= 1
    node[0].send(produce_request("t", bytes(damaged), partition=away, acks=0), 9, conn=5)
    assert 5 in node[0].closed


def test_a_fetch_waits_on_every_core_and_the_first_batch_ends_it(node: Node) -> None:
    node[0].send(fetch_all(node, max_wait_ms=60_000), 12, conn=4)
    assert node[0].receive(1, 12, conn=4) is None
    away = next(number for number, home in enumerate(homes(node)) if home == 2)
    assert node[2].produce("t", batch_of(4), partition=away).error_code == 0
    answer = node[0].receive(1, 12, conn=4)
    assert answer is not None
    rows = {row.partition_index: row.high_watermark for row in answer[1].responses[0].partitions}
    assert rows[away] == 4
    assert sum(rows.values()) == 4


def test_a_fetch_that_finds_nothing_is_answered_in_time(node: Node) -> None:
    node[0].send(fetch_all(node, max_wait_ms=500), 12, conn=4)
    node.pass_time(400)
    assert node[0].receive(1, 12, conn=4) is None
    node.pass_time(200)
    answer = node[0].receive(1, 12, conn=4)
    assert answer is not None
    assert [row.error_code for row in answer[1].responses[0].partitions] == [0] * PARTITIONS


def test_fetches_of_a_connection_are_answered_in_order(node: Node) -> None:
    first = node[0].send(fetch_all(node, max_wait_ms=60_000), 12, conn=4)
    home = homes(node)
    there = [home.index(core) for core in (0, 1, 2)]
    others = [
        node[0].send(node[0].fetch_request("t", 0, partition=number), 12, conn=4)
        for number in there
    ]
    assert node[0].receive(1, 12, conn=4) is None
    assert node[1].produce("t", batch_of(), partition=there[1]).error_code == 0
    answers = [node[0].receive(1, 12, conn=4) for _ in range(4)]
    assert [each and each[0] for each in answers] == [first, *others]


def test_a_client_that_leaves_ends_its_waits_on_every_core(node: Node) -> None:
    node[0].send(fetch_all(node, max_wait_ms=300_000), 12, conn=4)
    node[0].run([Closed(ConnId(4), "")])
    for core in node.cores.values():
        members = core.shard.groups.members.values()
        assert not any(getattr(member, "fetch_waits", None) for member in members)
        assert all(conn >= 0 for conn in core.shard.connections)


@pytest.mark.parametrize("dead", [1, 2])
def test_the_partitions_of_a_dead_core_are_without_leader_the_others_are_served(
    node: Node, dead: int
) -> None:
    node.kill(dead)
    answer = node[0].call(produce_all(1), 9)
    errors = [row.error_code for row in answer.responses[0].partition_responses]
    lost = ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert errors == [lost if home == dead else 0 for home in homes(node)]
    found = node[0].call(fetch_all(node, max_wait_ms=60_000), 12)
    assert [row.error_code for row in found.responses[0].partitions] == errors
    node.revive(dead)
    whole = node[0].call(produce_all(1), 9)
    assert [row.error_code for row in whole.responses[0].partition_responses] == [0] * PARTITIONS


@pytest.mark.parametrize("dead", [1, 2])
def test_a_core_that_dies_with_a_share_leaves_its_outcome_open(node: Node, dead: int) -> None:
    node[dead].holds_disk = True
    node[0].send(produce_all(1), 9)
    assert node[0].receive(0, 9) is None
    node.kill(dead)
    answer = node[0].receive(0, 9)
    assert answer is not None
    errors = [row.error_code for row in answer[1].responses[0].partition_responses]
    lost = ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert errors == [lost if home == dead else 0 for home in homes(node)]


@pytest.mark.parametrize("slow", [0, 1])
def test_the_last_share_may_be_anybodys(node: Node, slow: int) -> None:
    """Found by stock clients: the own share came last, and its answer completed the client's."""
    node[slow].holds_disk = True
    node[0].send(produce_all(2), 9)
    assert node[0].receive(0, 9) is None
    node[slow].release_disk()
    answer = node[0].receive(0, 9)
    assert answer is not None
    rows = answer[1].responses[0].partition_responses
    assert [row.error_code for row in rows] == [0] * PARTITIONS


def test_a_malformed_request_closes_its_client_only(node: Node) -> None:
    away = next(number for number, home in enumerate(homes(node)) if home != 0)
    whole = produce_request("t", batch_of(), partition=away)
    node[0].send_frame(b"\0\0\0\x09\0\0\0\x01\0\x04test\0\0\xff\xff\xff\xff\xff", conn=8)
    assert 8 in node[0].closed
    assert node[0].call(whole, 9).responses[0].partition_responses[0].error_code == 0


def test_batches_of_other_cores_are_sent_from_one_copy_and_given_back(node: Node) -> None:
    big = batch_of(1, value=bytes(100_000))
    for core in node.cores.values():
        for number, home in enumerate(homes(node)):
            if home == core.core:
                assert core.produce("t", big, partition=number).error_code == 0
    door = node[0]
    before = door.arena.bytes_in_use
    answer = door.call(fetch_all(node), 12)
    rows = answer.responses[0].partitions
    assert [len(row.records) for row in rows] == [len(big)] * PARTITIONS
    door.run([])
    assert door.arena.bytes_in_use == before, "the copies are gone with the answer"
    request = fetch_all(node, max_wait_ms=60_000, min_bytes=10**7)
    door.send(request, 12, conn=4)
    door.run([Closed(ConnId(4), "gone")])
    assert door.arena.bytes_in_use == before, "and when nobody wanted it"


def write_markers(producer_ids: list[int], numbers: list[int]) -> Message:
    """Return aborts of these producers' transactions in these partitions of t."""
    topic = message_type("WriteTxnMarkersRequest.WritableTxnMarkerTopic")
    marker = message_type("WriteTxnMarkersRequest.WritableTxnMarker")
    return message_type("WriteTxnMarkersRequest")(
        markers=[
            marker(
                producer_id=each,
                producer_epoch=0,
                coordinator_epoch=1,
                topics=[topic(name="t", partition_indexes=numbers)],
            )
            for each in producer_ids
        ]
    )


def test_markers_that_span_cores_and_what_is_described_of_their_producers(node: Node) -> None:
    every = [*range(PARTITIONS), PARTITIONS + 3]
    answer = node[1].call(write_markers([5, 6, 5], every), 1)
    assert [row.producer_id for row in answer.markers] == [5, 6, 5]
    for row in answer.markers:
        (topic,) = row.topics
        assert topic.name == "t"
        assert [part.partition_index for part in topic.partitions] == every
        assert [part.error_code for part in topic.partitions] == [0] * PARTITIONS + [3]
    assert node[1].shard.counts.misrouted[27] == 1
    topic = message_type("DescribeProducersRequest.TopicRequest")
    wanted = [topic(name="t", partition_indexes=every)]
    described = node[2].call(message_type("DescribeProducersRequest")(topics=wanted), 0)
    rows = described.topics[0].partitions
    assert [row.partition_index for row in rows] == every
    for row in rows[:-1]:
        assert [each.producer_id for each in row.active_producers] == [5, 6]
    assert rows[-1].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_readers_of_committed_records_through_a_door_hear_of_the_aborted(node: Node) -> None:
    """Each core tells of its own, and none of it is lost when the answers are put together."""
    builder = BatchBuilder()
    builder.append(WALL_MS, b"k", b"v", ())
    batch = encode_batch(builder.payload(Compression.NONE), Producer(5, 0, 0), TRANSACTIONAL)
    for core in node.cores.values():
        for partition in core.shard.groups.topics[b"t"].partitions:
            if partition is not None:
                appended = (address_of(batch), len(batch), 1, WALL_MS, -1, 5, 0, 0)
                partition.append(Batch(*appended, is_transactional=True))
    request = fetch_all(node)
    request.isolation_level = 1
    for version in (4, 11, 12, 17):
        rows = node[2].call(request, version).responses[0].partitions
        assert [(row.last_stable_offset, row.records) for row in rows] == [(0, b"")] * PARTITIONS
    node[0].call(write_markers([5], [*range(PARTITIONS)]), 1)
    for version in (4, 11, 12, 17):
        rows = node[2].call(request, version).responses[0].partitions
        assert [row.last_stable_offset for row in rows] == [2] * PARTITIONS
        for row in rows:
            assert [(a.producer_id, a.first_offset) for a in row.aborted_transactions] == [(5, 0)]
