"""Markers on their way into a partition, and the partition's state of transactions behind them."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.ids import Index, Offset, Term
from corelane.producers.open_transactions import Marker
from corelane.shard import markers
from corelane.shard.groups import NO_TOPIC_ID
from corelane.shard.partition import Batch, Partition
from corelane.shard.transaction_entries import TRANSACTIONAL
from corelane.shard.verifying import MarkerToWrite, Place
from corelane.wire.compression import Compression
from corelane.wire.records import BatchBuilder, Producer, encode_batch
from corelane_native import address_of
from tests.unit.api.world import World

NONE = ErrorCode.NONE


class Story:
    """One partition with a transactional producer, and markers for it."""

    def __init__(self, topic: str = "t") -> None:
        self.world = World()
        self.topic = topic
        assert self.world.create_topic(topic).error_code == 0
        self.sequence = 0
        self.told: list[ErrorCode] = []

    @property
    def partition(self) -> Partition:
        found = self.world.shard.groups.topics[self.topic.encode()].partition(0)
        assert found is not None
        return found

    def append(self, producer_id: int = 7, epoch: int = 0, count: int = 1) -> int:
        """Append a batch of a transaction as the leader, and return its offset."""
        builder = BatchBuilder()
        for _ in range(count):
            builder.append(self.world.wall_ms, b"k", b"v", ())
        producer = Producer(producer_id, epoch, self.sequence)
        data = encode_batch(builder.payload(Compression.NONE), producer, TRANSACTIONAL)
        batch = Batch(
            address_of(data), len(data), count, self.world.wall_ms, -1,
            producer_id, epoch, self.sequence, is_transactional=True,
        )  # fmt: skip
        self.sequence += count
        _index, offset = self.partition.append(batch)
        self.world.run([])
        return offset

    def marker(
        self,
        producer_id: int = 7,
        epoch: int = 0,
        *,
        commits: bool = True,
        term: int = 1,
        leader_term: int = -1,
    ) -> None:
        place = Place(self.topic, self.partition.topic.topic_id, 0)
        marker = MarkerToWrite(
            place, producer_id, epoch, commits, Term(term), leader_term=Term(leader_term)
        )
        markers.write(self.world.shard, marker, self.told.append)
        self.world.run([])

    @property
    def ends(self) -> tuple[int, int]:
        """The last stable offset and the high watermark."""
        return self.partition.last_stable_offset, self.partition.log.committed_offset

    def aborted(self) -> list[tuple[int, int, int]]:
        found = self.partition.transactions.aborted_between(Offset(0), Offset(1_000))
        return [(each.producer_id, each.first_offset, each.last_offset) for each in found]


@pytest.fixture
def story() -> Story:
    return Story()


def test_readers_of_committed_records_wait_at_an_open_transaction(story: Story) -> None:
    story.append(count=3)
    assert story.ends == (0, 3)
    story.marker()
    assert story.told == [NONE]
    assert story.ends == (4, 4)
    assert story.aborted() == []


def test_a_marker_is_told_of_when_it_is_committed_and_not_before(story: Story) -> None:
    story.append()
    story.world.holds_disk = True
    story.marker(commits=False)
    assert story.told == []
    assert story.ends == (0, 1), "nor do readers see it"
    story.marker(commits=False)
    story.world.release_disk()
    assert story.told == [NONE, NONE]
    assert story.ends == (2, 2), "the second attempt shared the fate of the first"
    assert story.aborted() == [(7, 0, 1)]


def test_a_marker_for_nobody_is_written_all_the_same(story: Story) -> None:
    """Only that it is committed shows that who answers still leads (M1)."""
    story.world.holds_disk = True
    story.marker(producer_id=99)
    assert story.told == []
    story.world.release_disk()
    assert story.told == [NONE]
    assert story.ends == (1, 1)
    assert story.aborted() == [], "nothing of it is here"


def test_an_attempt_that_was_meant_for_another_leader_is_refused(story: Story) -> None:
    story.append()
    term = story.partition.raft.term
    story.marker(leader_term=term + 1)
    assert story.told == [ErrorCode.FENCED_LEADER_EPOCH]
    assert story.ends == (0, 1)
    story.marker(leader_term=term)
    assert story.told[1:] == [NONE]


def test_old_coordinators_and_old_epochs_are_refused(story: Story) -> None:
    story.append(epoch=4)
    story.marker(epoch=3)
    story.marker(epoch=4, term=5)
    story.append(epoch=4)
    story.marker(epoch=4, term=4)
    assert story.told == [
        ErrorCode.INVALID_PRODUCER_EPOCH,
        NONE,
        ErrorCode.TRANSACTION_COORDINATOR_FENCED,
    ]


def test_a_partition_that_is_not_here_is_said_to_be_elsewhere_or_unknown(story: Story) -> None:
    nowhere = Place("no such topic", NO_TOPIC_ID, 0)
    for place in (nowhere, Place("t", NO_TOPIC_ID, 1)):
        marker = MarkerToWrite(place, 7, 0, True, Term(1))
        markers.write(story.world.shard, marker, story.told.append)
    assert story.told == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION] * 2


def test_who_waits_for_a_marker_hears_that_this_core_leads_no_more(story: Story) -> None:
    story.append()
    story.world.holds_disk = True
    story.marker()
    story.partition.is_leaving = True
    story.partition.fail_waits()
    assert story.told == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    story.marker()
    assert story.told == [ErrorCode.NOT_LEADER_OR_FOLLOWER] * 2


def test_what_is_open_and_what_was_aborted_survives_every_kind_of_start(story: Story) -> None:
    story.append(7)
    story.append(8, count=2)
    story.marker(7, commits=False)
    story.append(9, epoch=3)
    before = (story.ends, story.aborted())
    assert before == ((1, 5), [(7, 0, 3)])
    for wants_checkpoint in (False, True, True):
        story.world.crash()
        assert (story.ends, story.aborted()) == before
        if wants_checkpoint:
            story.world.shard.store.checkpointing.wanted = True
            story.world.run([])
    story.marker(8)
    story.marker(9, epoch=3)
    assert story.told == [NONE] * 3
    assert story.ends == (7, 7)
    story.world.crash()
    assert story.ends == (7, 7)
    assert story.aborted() == [(7, 0, 3)]


def test_what_was_aborted_goes_with_the_records(story: Story) -> None:
    story.append(7)
    story.marker(7, commits=False)
    story.append(8)
    story.marker(8, commits=False)
    assert [first for _, first, _ in story.aborted()] == [0, 2]
    story.partition.propose_start(Offset(2))
    story.world.run([])
    assert [first for _, first, _ in story.aborted()] == [2]


def test_a_start_behind_the_first_record_of_an_open_transaction_is_its_first_offset(
    story: Story,
) -> None:
    """DeleteRecords may go so far, as in Kafka: the readers do not wait below the log's start."""
    story.append(7, count=3)
    story.partition.propose_start(Offset(2))
    story.world.run([])
    assert story.ends == (2, 3)
    story.world.crash()
    assert story.ends == (2, 3)


def test_what_the_log_loses_is_forgotten(story: Story) -> None:
    """A leader that was replaced may have appended what the next one truncates."""
    story.append(7)
    story.world.holds_disk = True
    first = Index(story.partition.log.last_index + 1)
    story.append(8)
    story.marker(7)
    transactions = story.partition.transactions
    ended = transactions.standing(7)
    assert ended is not None
    assert ended.first_offset is None
    assert transactions.standing(8) is not None
    story.partition.truncated(first)
    back = transactions.standing(7)
    assert back is not None
    assert back.first_offset == 0
    assert transactions.standing(8) is None


def test_a_coordinators_partition_tells_of_each_marker_once(story: Story) -> None:
    """Of the offsets in a transaction a group's coordinator must hear (protocol.md quirk 19)."""
    groups = Story("__consumer_offsets")
    heard: list[Marker] = []
    groups.append()
    groups.partition.marked = heard.append
    groups.world.holds_disk = True
    groups.marker()
    assert heard == []
    groups.world.release_disk()
    assert [(each.producer_id, each.is_commit) for each in heard] == [(7, True)]
    groups.append()
    assert len(heard) == 1
