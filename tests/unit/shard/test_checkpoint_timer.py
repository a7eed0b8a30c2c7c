"""Checkpoints by time: after writes, and not for ever after them."""

from tests.unit.api.world import World, batch_of

INTERVAL_MS = 60_000


def count(world: World) -> int:
    return world.shard.store.checkpointing.count


def test_what_was_written_is_in_a_checkpoint_after_the_interval() -> None:
    world = World()
    world.create_topic("t")
    world.pass_time(INTERVAL_MS)
    before = count(world)
    world.produce("t", batch_of(3))
    world.pass_time(INTERVAL_MS + 1)
    assert count(world) == before + 1
    world.crash()
    assert world.fetch("t", 0).high_watermark == 3


def test_a_quiet_core_takes_no_more_of_them() -> None:
    world = World()
    world.create_topic("t", 5)
    for number in range(5):
        world.produce("t", batch_of(3), partition=number)
    for _ in range(3):
        world.pass_time(INTERVAL_MS)
    before = count(world)
    for _ in range(10):
        world.pass_time(INTERVAL_MS)
    assert count(world) == before


def test_the_interval_is_the_one_of_the_configuration() -> None:
    world = World("corelane.checkpoint.interval.ms = 1000")
    world.create_topic("t")
    before = count(world)
    for _ in range(3):
        world.produce("t", batch_of(1))
        world.pass_time(1001)
    assert count(world) >= before + 3
