"""Partitions that move between cores with transactions open, aborted, or waited for."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.ids import Term
from corelane.shard import markers
from corelane.shard.groups import NO_TOPIC_ID
from corelane.shard.partition import Partition
from corelane.shard.verifying import MarkerToWrite, Place, Verified
from corelane.wire.compiler import Message
from tests.unit.api.transactions import Coordinators, Writer
from tests.unit.shard.node import Core, Node
from tests.unit.shard.test_moves import at, order, outcome, servers

SOURCE, TARGET = 1, 2


class Story:
    """A partition of core 1, on its way to core 2."""

    def __init__(self) -> None:
        self.node = Node(3)
        self.node[0].create_topic("t", 3)
        self.number = at(self.node, SOURCE)
        self.coordinators = Coordinators()
        for core in self.node.cores.values():
            core.shard.groups.inquiries = self.coordinators

    def partition(self, core: int) -> Partition:
        found = self.node[core].shard.groups.topics[b"t"].partition(self.number)
        assert found is not None
        return found

    def writer(self, core: int, producer_id: int) -> Writer:
        return Writer(self.node[core], producer_id)  # type: ignore[arg-type]

    def marker(self, core: int, producer_id: int, *, commits: bool) -> list[ErrorCode]:
        told: list[ErrorCode] = []
        place = Place("t", NO_TOPIC_ID, self.number)
        marker = MarkerToWrite(place, producer_id, 0, commits, Term(1))
        shard = self.node[core].shard
        shard.todo.append(lambda: markers.write(shard, marker, told.append))
        self.node[core].run([])
        return told

    def seen(self, core: int) -> tuple[int, list[tuple[int, int]]]:
        """Return the last stable offset and what is aborted, as a reader hears of it."""
        core_of: Core = self.node[core]
        row: Message = core_of.fetch("t", 0, partition=self.number, isolation_level=1)
        aborted = [(each.producer_id, each.first_offset) for each in row.aborted_transactions]
        return row.last_stable_offset, aborted


@pytest.fixture
def story() -> Story:
    return Story()


def test_open_and_aborted_transactions_go_along(story: Story) -> None:
    first, second = story.writer(SOURCE, 7), story.writer(SOURCE, 8)
    assert first.write(number=story.number) == 0
    assert story.marker(SOURCE, 7, commits=False) == [0]
    assert second.write(2, number=story.number) == 0
    before = story.seen(SOURCE)
    assert before == (2, [(7, 0)])
    assert outcome(story.node, order(story.node, story.number, TARGET)) == "done"
    assert servers(story.node, story.number) == [TARGET]
    assert story.seen(TARGET) == before
    for dead in (SOURCE, TARGET):
        story.node.kill(dead)
        story.node.revive(dead)
    assert story.seen(TARGET) == before
    assert story.marker(TARGET, 8, commits=False) == [0]
    assert story.seen(TARGET) == (5, [(7, 0), (8, 2)])
    assert story.marker(SOURCE, 8, commits=False) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]


def test_who_waits_for_the_coordinator_hears_where_the_partition_is_now(story: Story) -> None:
    """What the coordinator says afterwards is for nobody, and opens nothing at either core."""
    story.coordinators.holds = True
    writer = story.writer(SOURCE, 7)
    writer.send(number=story.number)
    assert writer.answer() is None
    assert outcome(story.node, order(story.node, story.number, TARGET)) == "done"
    row = writer.answer()
    assert row is not None
    assert row.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    story.coordinators.answer(Verified(ErrorCode.NONE, 50))
    story.node[SOURCE].run([])
    assert story.partition(TARGET).log.next_offset == 0
    assert story.node[SOURCE].shard.parked_bytes == 0
