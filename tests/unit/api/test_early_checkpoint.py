"""A checkpoint that is taken while a start is under way, before its groups lead again.

What was folded in the life before is committed, though the new life does not know it yet.
"""

import pytest

from corelane.producers.sequences import ProducerTable
from corelane.storage.effects import SegmentWrite, WalWrite
from corelane.wire.records import Producer
from tests.unit.api.world import World, batch_of


def produce(world: World, sequence: int, value_bytes: int) -> int:
    batch = batch_of(value=bytes(value_bytes), producer=Producer(5, 0, sequence))
    row = world.produce("t", batch)
    assert row.error_code == 0
    return int(row.base_offset)


@pytest.fixture
def world() -> World:
    """A node that has just started on a checkpoint whose folds are ahead of its segments."""
    made = World()
    made.create_topic("t")
    made.holds_disk, made.kinds_held = True, (SegmentWrite,)
    for sequence in range(3):
        produce(made, sequence, 100_000)
    made.shard.store.checkpointing.wanted = True
    made.run([])
    for sequence in range(3, 8):
        produce(made, sequence, 10)  # committed, and behind what the checkpoint waits for
    made.release_disk()
    assert made.shard.store.checkpointing.count == 1
    made.holds_disk, made.kinds_held = True, (WalWrite,)
    with pytest.raises(AssertionError):
        made.crash()  # the world wants it ready, but its votes cannot become durable
    return made


def release_once(world: World) -> None:
    """Let the disk do what it was asked for until now."""
    done = [world._disk_done(effect) for effect in world.held]
    world.held.clear()
    world.run(list(done))


@pytest.mark.parametrize("writes", range(6))
def test_it_tells_the_truth(world: World, writes: int) -> None:
    for number in range(writes + 1):
        world.shard.store.checkpointing.wanted = number == writes
        release_once(world)
    release_once(world)
    world.holds_disk = False
    world.crash()
    assert produce(world, 7, 10) == 7, "a duplicate"
    assert produce(world, 8, 10) == 8


def test_a_fold_says_how_far_it_goes(world: World) -> None:
    is_ahead = False
    while world.held:
        for group, log in world.shard.store.groups.items():
            applied, blob = world.shard.groups._state_of(group)
            if group in world.shard.groups.members and log.descriptor.topic:
                is_ahead |= applied > log.committed_index
                assert ProducerTable.decode(blob, 1000).committed_index == applied
        release_once(world)
    assert is_ahead
