"""What ends while something waits for it: connections and topics, by one shard."""

import pytest

from corelane.cluster.changes import TopicDeleted
from corelane.model.errors import ErrorCode
from corelane.model.ids import CONTROLLER_GROUP, ConnId
from corelane.shard.events import Closed, Event
from corelane.storage.dump import wal_files
from corelane.storage.effects import Read, SearchRead
from corelane.wire.compiler import message_type
from corelane.wire.compression import Compression
from tests.unit.api.world import World, batch_of, delete_topic, produce_request, references


@pytest.fixture
def world() -> World:
    made = World()
    made.create_topic("t", 2)
    return made


def test_a_closed_connection_gives_back_answers_behind_one_that_never_comes(world: World) -> None:
    """A fetch that found data waits behind a produce in flight: then the client leaves."""
    world.produce("t", batch_of(), partition=0)
    world.holds_disk = True
    world.send(produce_request("t", batch_of(), partition=1), 9, conn=2)
    before = references(world)
    world.send(world.fetch_request("t", 0, partition=0), 12, conn=2)
    assert references(world) == before + 1
    world.run([Closed(ConnId(2), "gone")])
    assert references(world) == before


def test_a_fetch_of_a_closed_connection_waits_no_more(world: World) -> None:
    world.send(world.fetch_request("t", 0, max_wait_ms=300_000), 12, conn=2)
    partition = world.shard.groups.topics[b"t"].partitions[0]
    assert partition is not None
    assert len(partition.fetch_waits) == 1
    world.run([Closed(ConnId(2), "gone")])
    assert len(partition.fetch_waits) == 0


def test_a_batch_that_is_looked_into_never_enters_a_topic_deleted_meanwhile(world: World) -> None:
    """It would stay in the arena for ever: nobody flushes a log that is gone."""
    world.create_topic("c", cleanup_policy="compact")
    world.holds_work = True
    world.send(produce_request("c", batch_of(3, codec=Compression.GZIP)), 9, conn=2)
    world.send(produce_request("c", batch_of(3)), 9, conn=2)
    delete_topic(world, "c")
    appended = world.shard.counts.batches_appended
    world.release_work()
    for _ in range(2):
        answer = world.receive(0, 9, conn=2)
        assert answer is not None
        row = answer[1].responses[0].partition_responses[0]
        assert row.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert world.shard.counts.batches_appended == appended


def test_a_batch_in_flight_is_refused_when_its_topic_is_deleted(world: World) -> None:
    world.holds_disk = True
    world.send(produce_request("t", batch_of()), 9, conn=2)
    partition = world.shard.groups.topics[b"t"].partitions[0]
    assert partition is not None
    world.shard.groups.changed(TopicDeleted(world.shard.groups.cluster.topics["t"]))
    world.run([])
    answer = world.receive(0, 9, conn=2)
    assert answer is not None
    row = answer[1].responses[0].partition_responses[0]
    assert row.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_read_of_a_topic_deleted_meanwhile_is_no_damage(world: World) -> None:
    for _ in range(8):
        world.produce("t", batch_of(1, value=bytes(300_000)))
    for _ in range(3):  # the first makes room for the second: what is in it is flushed
        world.shard.store.chunks.evict(0)
        world.run([])
    world.holds_disk, world.kinds_held = True, (SearchRead, Read)
    world.send(world.fetch_request("t", 0), 12, conn=2)
    assert world.held, "the batch is read from disk"
    asked = world.shard.groups.topics[b"t"].topic_id
    delete_topic(world, "t")
    world.pass_time(1000)
    world.release_disk()
    answer = world.receive(1, 12, conn=2)
    assert answer is not None
    assert asked not in world.shard.groups.topics_by_id
    row = answer[1].responses[0].partitions[0]
    assert row.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert not [line for line in world.logs if "offline" in line]


def test_a_topic_deleted_before_its_partitions_were_opened_again_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a start thousands of partitions are opened in many turns; a deletion may be quicker."""
    with monkeypatch.context() as patch:
        patch.setattr("corelane.shard.shard.CHORES_PER_TURN_MAX", 0)
        with pytest.raises(AssertionError, match="never comes to rest"):
            world.crash()
    groups = world.shard.groups
    assert groups.opening.count == 2
    groups.changed(TopicDeleted(groups.cluster.topics["t"]))
    world.run([])
    assert groups.opening.count == 0
    assert list(world.shard.store.groups) == [CONTROLLER_GROUP]
    assert not [path for path in world.disk.files if path.startswith("partitions/t")]


def test_a_core_that_is_killed_again_and_again_does_not_pile_up_wal_files(world: World) -> None:
    for number in range(12):
        assert world.produce("t", batch_of()).base_offset == number
        world.crash()
        world.pass_time(100)
    assert len(world.disk.names("wal")) <= 4
    assert world.recovered.records_replayed < 50


def test_a_damaged_controller_log_deletes_nothing(world: World) -> None:
    """Without it nobody knows which topics there are: what it does not name is not garbage."""
    world.create_topic("u")
    for _ in range(4):
        world.produce("u", batch_of(1, value=bytes(300_000)))
    (file,) = [file for file in wal_files(world.disk) if file.records]
    found = [e for e in file.records if e.kind == "COMMAND"][-1]
    world.disk.flip(file.path, found.record.payload_at + 5)
    with pytest.raises(AssertionError):
        world.crash()
    assert not world.shard.is_ready
    (log,) = [log for log in world.shard.store.groups.values() if log.descriptor.topic == "u"]
    assert log.last_index == 5, "four batches, and what the leader began with"
    assert "offline" in world.logs[-1]
    assert world.create_topic("v").error_code == ErrorCode.NOT_CONTROLLER


@pytest.mark.parametrize("is_new", [True, False], ids=["topic", "more partitions"])
def test_partitions_whose_core_died_before_it_made_their_logs_are_served(*, is_new: bool) -> None:
    """Found by simulation: they had no home, and got none at any later start."""
    world = World()
    if not is_new:
        world.create_topic("t")
    world.holds_disk = True
    if is_new:
        topic = message_type("CreateTopicsRequest.CreatableTopic")(
            name="t", num_partitions=2, replication_factor=1
        )
        world.send(message_type("CreateTopicsRequest")(topics=[topic], timeout_ms=5000), 7)
    else:
        wanted = message_type("CreatePartitionsRequest.CreatePartitionsTopic")(
            name="t", count=2, assignments=None
        )
        world.send(message_type("CreatePartitionsRequest")(topics=[wanted], timeout_ms=5000), 3)
    # The command becomes durable, and nothing of what follows from it.
    done: list[Event] = [world._disk_done(effect) for effect in world.held]
    world.shard.step(world.now_ms + 1, world.wall_ms, done)
    assert len(world.shard.groups.cluster.topics["t"].partitions) == 2
    world.holds_disk = False
    world.crash()
    assert len(world.shard.groups.topics[b"t"].partitions) == 2
    for number in range(2):
        assert world.produce("t", batch_of(1), partition=number).error_code == 0
