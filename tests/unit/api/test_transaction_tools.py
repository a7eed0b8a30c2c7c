"""What operators use where a transaction hangs: DescribeProducers and WriteTxnMarkers."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.wire.compiler import Message, message_type
from tests.unit.api.transactions import NONE, TransactionWorld, Writer
from tests.unit.api.world import World, delete_topic

Describe = message_type("DescribeProducersRequest")
DescribeTopic = message_type("DescribeProducersRequest.TopicRequest")
Write = message_type("WriteTxnMarkersRequest")
Marker = message_type("WriteTxnMarkersRequest.WritableTxnMarker")
MarkerTopic = message_type("WriteTxnMarkersRequest.WritableTxnMarkerTopic")


@pytest.fixture
def world() -> TransactionWorld:
    made = TransactionWorld()
    assert made.create_topic("t", partitions=3).error_code == 0
    return made


def describe(world: World, topic: str = "t", numbers: tuple[int, ...] = (0,)) -> list[Message]:
    topics = [DescribeTopic(name=topic, partition_indexes=list(numbers))]
    rows: list[Message] = world.call(Describe(topics=topics), 0).topics[0].partitions
    return rows


def marker(producer_id: int, numbers: list[int], **fields: object) -> Message:
    topics = [MarkerTopic(name="t", partition_indexes=numbers)]
    known: dict[str, object] = {
        "producer_epoch": 0,
        "transaction_result": False,
        "coordinator_epoch": 0,
    }
    return Marker(producer_id=producer_id, topics=topics, **known | fields)


def errors(answer: Message) -> list[tuple[int, int, int]]:
    return [
        (row.producer_id, part.partition_index, part.error_code)
        for row in answer.markers
        for topic in row.topics
        for part in topic.partitions
    ]


def shown(row: Message) -> tuple[int, ...]:
    return (
        row.producer_id,
        row.producer_epoch,
        row.last_sequence,
        row.coordinator_epoch,
        row.current_txn_start_offset,
    )


def test_producers_are_described_with_their_open_transactions(world: TransactionWorld) -> None:
    plain, writer, done = Writer(world, 1), Writer(world, 2), Writer(world, 3)
    plain.write(2, plain=True)
    done.epoch = 4
    done.write()
    world.marker(3, epoch=5, term=9)
    writer.write(3)
    (row,) = describe(world)
    assert row.error_code == 0
    assert [shown(each) for each in row.active_producers] == [
        (1, 0, 1, -1, -1),
        (2, 0, 2, -1, 4),
        (3, 5, 0, 9, -1),
    ]
    assert row.active_producers[0].last_timestamp == world.wall_ms


def test_partitions_that_are_not_there_are_described_by_an_error(world: TransactionWorld) -> None:
    there, beyond = describe(world, numbers=(2, 7))
    assert (there.error_code, there.active_producers) == (0, [])
    assert beyond.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert beyond.error_message
    (row,) = describe(world, "nowhere")
    assert row.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("version", [1, 2])
def test_an_operator_ends_a_transaction_that_hangs(world: TransactionWorld, version: int) -> None:
    """As `kafka-transactions abort` does: with what DescribeProducers says of it."""
    writer = Writer(world, 7)
    writer.write()
    assert writer.write(number=1) is NONE
    assert world.ends == (0, 1)
    answer = world.call(Write(markers=[marker(7, [0]), marker(7, [1, 9])]), version)
    assert errors(answer) == [(7, 0, 0), (7, 1, 0), (7, 9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)]
    assert world.ends == (2, 2)
    (row,) = describe(world)
    assert shown(row.active_producers[0])[3:] == (0, -1)


def test_it_is_answered_when_the_markers_are_committed(world: TransactionWorld) -> None:
    Writer(world, 7).write()
    world.holds_disk = True
    world.send(Write(markers=[marker(7, [0])]), 1)
    assert world.receive(27, 1) is None
    world.release_disk()
    found = world.receive(27, 1)
    assert found is not None
    assert errors(found[1]) == [(7, 0, 0)]


def test_what_is_not_committed_in_time_is_in_doubt(world: TransactionWorld) -> None:
    Writer(world, 7).write()
    world.holds_disk = True
    world.send(Write(markers=[marker(7, [0])]), 1)
    world.pass_time(31_000)
    found = world.receive(27, 1)
    assert found is not None
    assert errors(found[1]) == [(7, 0, ErrorCode.REQUEST_TIMED_OUT)]
    world.release_disk()
    assert world.ends == (2, 2)


def test_markers_that_cannot_be_are_refused(world: TransactionWorld) -> None:
    writer = Writer(world, 7)
    writer.epoch = 3
    writer.write()
    wrong = [
        marker(7, [0], producer_epoch=2),
        marker(-1, [0]),
        marker(7, [0], producer_epoch=-1),
        marker(7, [0], producer_epoch=3, coordinator_epoch=-1),
    ]
    answer = world.call(Write(markers=wrong), 1)
    assert [error for _, _, error in errors(answer)] == [
        ErrorCode.INVALID_PRODUCER_EPOCH,
        *[ErrorCode.INVALID_REQUEST] * 3,
    ]
    assert world.ends == (0, 1)
    assert world.call(Write(), 1).markers == []


def test_a_late_marker_of_an_old_coordinator_is_refused(world: TransactionWorld) -> None:
    writer = Writer(world, 7)
    writer.write()
    world.marker(7, term=5)
    writer.write()
    answer = world.call(Write(markers=[marker(7, [0], coordinator_epoch=4)]), 1)
    assert errors(answer) == [(7, 0, ErrorCode.TRANSACTION_COORDINATOR_FENCED)]


def test_a_marker_for_what_is_deleted_is_answered_and_blocks_nothing(
    world: TransactionWorld,
) -> None:
    Writer(world, 7).write()
    delete_topic(world, "t")
    answer = world.call(Write(markers=[marker(7, [0, 99])]), 1)
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert errors(answer) == [(7, 0, unknown), (7, 99, unknown)]
    assert world.create_topic("t").error_code == 0
    assert world.ends == (0, 0), "another topic, with nothing open"
    assert (
        world.call(Write(markers=[marker(7, [0])]), 1).markers[0].topics[0].partitions[0].error_code
        == ErrorCode.NONE
    )
