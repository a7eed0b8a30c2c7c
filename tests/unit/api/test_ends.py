"""What ends while something waits for it: connections and topics, by one shard."""

import pytest

from corelane.model.ids import ConnId
from corelane.shard.events import Closed
from tests.unit.api.world import World, batch_of


@pytest.fixture
def world() -> World:
    made = World()
    made.create_topic("t", 2)
    return made


def references(world: World) -> int:
    """Return how many references are held on chunks of the log."""
    return sum(world.arena.references(chunk.id) for chunk in world.shard.store.chunks.fifo)


def test_a_closed_connection_gives_back_answers_behind_one_that_never_comes(world: World) -> None:
    """A fetch that found data waits behind one that waits for data: then the client leaves."""
    world.produce("t", batch_of(), partition=0)
    before = references(world)
    world.send(world.fetch_request("t", 0, partition=1, max_wait_ms=60_000), 12, conn=2)
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
