"""Readers that take much and slowly: what they hold is bounded, and nobody else's."""

import pytest

from corelane.model import limits
from corelane.shard.effects import HoldProduce
from corelane.storage.reading import SHARED_READ_BYTES
from corelane.wire.batch import whole_batches
from tests.unit.api.world import MIB, World, batch_of

BATCHES = 60
BATCH = batch_of(1, value=bytes(900 * 1024))


@pytest.fixture
def world() -> World:
    """A topic of 54 MB, all of it flushed and none of it in memory."""
    made = World()
    made.create_topic("old", internal_segment_bytes=str(20 * MIB))
    made.create_topic("new")
    for _ in range(BATCHES):
        assert made.produce("old", BATCH).error_code == 0
    for _ in range(3):
        made.shard.store.chunks.evict(0)
        made.run([])
    return made


def hold_everything(world: World) -> None:
    """Be clients that take nothing of their answers: each keeps its references."""
    perform = world.perform

    def slow(effect: object) -> list[object]:
        if hasattr(effect, "chunks_held"):
            world.hoard += effect.chunks_held  # type: ignore[attr-defined]
            for chunk in effect.chunks_held:
                world.arena.retain(chunk)
        return perform(effect)  # type: ignore[arg-type,return-value]

    world.hoard = []  # type: ignore[attr-defined]
    world.perform = slow  # type: ignore[method-assign,assignment]


def test_what_slow_readers_hold_is_bounded_and_holds_up_no_producer(world: World) -> None:
    hold_everything(world)
    reading = world.shard.store.reading
    conns = range(100, 150)
    for conn in conns:
        request = world.fetch_request("old", 0, max_bytes=50 * MIB, partition_max_bytes=50 * MIB)
        world.send(request, 12, conn=conn)
        assert world.shard.store.chunks.lent_bytes <= reading.bytes_max
    answered = [conn for conn in conns if world.inbox.get(conn)]
    assert 4 <= len(answered) < len(conns)
    assert reading.is_waiting
    assert world.shard.is_short_of_memory
    for _ in range(100):
        assert world.produce("new", BATCH).error_code == 0
    assert not any(isinstance(effect, HoldProduce) for effect in world.told)


def test_reads_go_on_when_memory_comes_back(world: World) -> None:
    hold_everything(world)
    for conn in range(100, 150):
        world.send(world.fetch_request("old", 5, partition_max_bytes=50 * MIB), 12, conn=conn)
    for _ in range(BATCHES):
        hoard = world.hoard  # type: ignore[attr-defined]
        while hoard:
            world.arena.release(hoard.pop())
        world.pass_time(limits.TICK_MS)
    assert all(world.inbox.get(conn) for conn in range(100, 150))
    assert not world.shard.is_short_of_memory
    assert world.shard.store.chunks.lent_bytes == 0


def test_while_others_read_too_one_read_is_a_megabyte(world: World) -> None:
    hold_everything(world)
    sizes = []
    for conn in range(100, 106):
        row = world.fetch_request("old", 0, max_bytes=50 * MIB, partition_max_bytes=50 * MIB)
        world.send(row, 12, conn=conn)
        sizes.append(len(world.inbox.get(conn, b"")))
    assert sizes[0] > 3 * MIB
    assert sizes[-1] <= SHARED_READ_BYTES + 200


def test_a_tail_that_is_sent_while_it_is_evicted_is_not_the_logs(world: World) -> None:
    """Or producers would wait for readers of what the log has long let go."""
    hold_everything(world)
    for _ in range(20):
        world.produce("new", BATCH)
        world.fetch("new", 0, max_bytes=50 * MIB, partition_max_bytes=50 * MIB)
    for _ in range(3):
        world.shard.store.chunks.evict(0)
        world.run([])
    chunks = world.shard.store.chunks
    assert chunks.lent_bytes > 0
    assert chunks.log_bytes + chunks.lent_bytes == world.arena.bytes_in_use


def test_every_batch_is_found_also_one_whose_end_is_in_no_block_yet(world: World) -> None:
    """A segment's file has whole blocks only; the rest of the last batch is in memory."""
    for _ in range(3):  # the last chunk is closed
        world.produce("new", BATCH)
        world.shard.store.chunks.evict(0)
        world.run([])
    partition = world.shard.groups.topics[b"old"].partition(0)
    assert partition is not None
    assert partition.log.tail_offset == BATCHES, "all of it is read from disk"
    for offset in range(BATCHES):
        row = world.fetch("old", offset, partition_max_bytes=1)
        (found,) = whole_batches(bytes(row.records), len(row.records))
        assert found[1].base_offset == offset
    rows = [world.fetch("old", BATCHES - 3, partition_max_bytes=4 * MIB)]
    heads = [head for _at, head in whole_batches(bytes(rows[0].records), 4 * MIB)]
    assert [head.base_offset for head in heads] == [BATCHES - 3, BATCHES - 2, BATCHES - 1]
