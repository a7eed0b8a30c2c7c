"""Offsets that count when a transaction is committed (KIP-98, KIP-447, KIP-890)."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.shard.key_hash import partition_number
from corelane.wire.compiler import Message, message_type
from tests.unit.api.txn import Producer, coordinated, find, offset_of
from tests.unit.api.world import World, key_of

UNSTABLE = ErrorCode.UNSTABLE_OFFSET_COMMIT


@pytest.fixture
def world() -> World:
    world = coordinated()
    find(world, "g", kind=0)
    return world


class Offsets:
    """The partition of a group's offsets, and who speaks to it, each on a connection of its own."""

    def __init__(self, world: World, group: str) -> None:
        self.world = world
        self.group = group
        self.sent: list[tuple[int, int, int]] = []

    def ask(self, message: Message, version: int) -> None:
        conn = 50 + len(self.sent)
        self.world.send(message, version, conn)
        self.sent.append((key_of(message), version, conn))

    def answers(self) -> list[int]:
        """Return to which APIs answers have come."""
        return [sent[0] for sent in self.sent if self.world.receive(*sent) is not None]

    def commit(self, offset: int) -> None:
        row = message_type("OffsetCommitRequest.OffsetCommitRequestPartition")(
            partition_index=0, committed_offset=offset, committed_metadata=""
        )
        topic = message_type("OffsetCommitRequest.OffsetCommitRequestTopic")(
            name="t", partitions=[row]
        )
        request = message_type("OffsetCommitRequest")(group_id=self.group, topics=[topic])
        self.ask(request, 8)

    def mark(self, producer_id: int) -> None:
        number = partition_number(self.group, 3)
        topic = message_type("WriteTxnMarkersRequest.WritableTxnMarkerTopic")(
            name="__consumer_offsets", partition_indexes=[number]
        )
        marker = message_type("WriteTxnMarkersRequest.WritableTxnMarker")(
            producer_id=producer_id, producer_epoch=0, coordinator_epoch=0, topics=[topic]
        )
        self.ask(message_type("WriteTxnMarkersRequest")(markers=[marker]), 1)

    def beat(self) -> None:
        beat = message_type("HeartbeatRequest")(
            group_id=self.group, generation_id=1, member_id="nobody"
        )
        self.ask(beat, 4)


def begun(world: World, version: int = 3) -> Producer:
    producer = Producer(world, "one")
    assert producer.init() == 0
    if version < 5:
        assert producer.add_offsets("g") == 0
    return producer


@pytest.mark.parametrize("version", range(6))
@pytest.mark.parametrize("commits", [True, False])
def test_offsets_count_from_the_marker_on(world: World, version: int, commits: bool) -> None:
    producer = begun(world, version)
    assert producer.commit("g", 5, version) == 0
    assert offset_of(world, "g") == (-1, UNSTABLE)
    assert offset_of(world, "g", stable=False) == (-1, 0)
    assert producer.end(commits=commits, version=5 if version >= 5 else 1) == 0
    producer.settle()
    world.pass_time(500)
    assert offset_of(world, "g") == (5 if commits else -1, 0)


def test_a_coordinator_that_dies_forgets_no_offset(world: World) -> None:
    producer = begun(world)
    assert producer.commit("g", 5) == 0
    world.crash()
    world.pass_time(500)
    assert offset_of(world, "g") == (-1, UNSTABLE)
    assert producer.end() == 0
    producer.settle()
    assert offset_of(world, "g") == (5, 0)
    world.crash()
    world.pass_time(500)
    assert offset_of(world, "g") == (5, 0)


@pytest.mark.parametrize(("version", "error"), [(3, 48), (4, 120)])
def test_a_group_that_was_not_added_takes_nothing(world: World, version: int, error: int) -> None:
    producer = Producer(world, "one")
    producer.init()
    producer.add(("t", 0))
    assert producer.commit("g", 5, version) == error
    assert offset_of(world, "g") == (-1, 0)
    assert producer.end() == 0


def test_a_fenced_producer_commits_no_offsets(world: World) -> None:
    first = begun(world)
    assert first.commit("g", 5) == 0
    second = Producer(world, "one")
    assert second.init() == ErrorCode.CONCURRENT_TRANSACTIONS
    second.settle()
    assert second.init() == 0
    assert first.commit("g", 6) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert offset_of(world, "g") == (-1, 0)
    assert second.add_offsets("g") == 0
    assert second.commit("g", 7) == 0
    assert second.end() == 0
    second.settle()
    assert offset_of(world, "g") == (7, 0)


def test_a_partition_that_does_not_exist_is_refused(world: World) -> None:
    producer = begun(world)
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert producer.commit("g", 5, place=("t", 9)) == unknown
    assert producer.commit("g", 5, place=("u", 0)) == unknown


def test_the_next_transaction_waits_for_the_last_one_by_itself(world: World) -> None:
    producer = begun(world, 5)
    for offset in range(3):
        assert producer.commit("g", offset, 5) == 0
        assert producer.end(version=5) == 0
    producer.settle()
    assert offset_of(world, "g") == (2, 0)


def test_an_offset_of_a_transaction_that_timed_out_never_counts(world: World) -> None:
    producer = begun(world)
    assert producer.commit("g", 5) == 0
    world.pass_time(70_000)
    producer.settle()
    assert offset_of(world, "g") == (-1, 0)
    assert producer.commit("g", 6) == ErrorCode.INVALID_PRODUCER_EPOCH


def test_an_answer_without_an_entry_waits_behind_a_marker_that_came_before_it(
    world: World,
) -> None:
    """Found by seed 10 of transaction_storm: the core ended with the assertion P2."""
    group = Offsets(world, "g")
    world.holds_disk = True
    group.commit(5)  # an entry, which waits
    group.mark(producer_id=77)  # another behind it
    group.beat()  # nothing, but what it says rests on the first
    assert group.answers() == []
    world.release_disk()
    assert group.answers() == [8, 27, 12]
    assert offset_of(world, "g") == (5, 0)
