"""Replicas that rot among three nodes: repaired, and never believed meanwhile."""

import pytest

from corelane.model.ids import GroupId, RecordKind
from corelane.shard.member import Member
from corelane.shard.repairs import Repairs
from corelane.storage.dump import Inspector
from corelane.storage.layout import RECORD_HEADER_BYTES
from corelane.storage.recovery import WAL_DIRECTORY, newest_checkpoint
from corelane.storage.repair import rehearse, repair
from corelane.storage.wal_scan import CorruptWalError, file_heads
from tests.simulation.cluster_rot import is_whole, wal_payloads
from tests.simulation.cluster_storm import Storm

GROUP = 2
"""The raft group of partition 1."""


class Story(Storm):
    """Three nodes with a topic in segments, and no bad weather."""

    def __init__(self) -> None:
        super().__init__(3)
        self.cluster.form()
        self.cluster.create_topic(self.cluster.nodes[1], "t", 4, segment_bytes=4096)
        self.produce(60)

    def produce(self, count: int) -> None:
        for number in range(count):
            self._produce(number % 4)
            self.cluster.go(5)
            self._collect()

    def repaired(self, number: int) -> int:
        return self.cluster.nodes[number].shard.counts.repairs_done

    def replica(self, number: int) -> Member:
        """Wait until a node has opened its replica, and return that."""
        for _ in range(5_000):
            if GROUP in self.cluster.nodes[number].members:
                return self.cluster.nodes[number].members[GROUP]
            self.cluster.go(1)
        raise AssertionError("not opened")

    def go_until_repaired(self, number: int, ms_max: int = 60_000) -> None:
        for _ in range(ms_max // 100):
            if self.repaired(number):
                return
            self.cluster.go(100)
        raise AssertionError(f"node {number} was not repaired")

    def end(self) -> None:
        """Nothing is lost, and all replicas are the same."""
        self.cluster.go(3_000)
        self._collect()
        members = [node.members[GROUP] for node in self.cluster.nodes.values()]
        assert len({(each.log.last_index, each.log.committed_index) for each in members}) == 1
        assert all(each.log.loss is None and each.raft.recollection is None for each in members)
        for partition in range(4):
            records = self.read("t", partition + 1, partition)
            values = [value for at, value, _offset in self.acknowledged if at == partition]
            assert all(records.count(value) == 1 for value in values)
            assert values


def rot_log(story: Story, number: int) -> None:
    disk = story.cluster.nodes[number].disk
    found = [each for each in wal_payloads(disk) if each.group == GROUP]
    batches = [each for each in found if each.kind == RecordKind.BATCH]
    place = batches[len(batches) // 2]
    disk.flip(place.path, place.position + 70)


def test_a_record_of_the_log_that_rots_is_fetched_again() -> None:
    story = Story()
    story.cluster.kill(2)
    rot_log(story, 2)
    story.produce(40)
    story.cluster.revive(2)
    member = story.replica(2)
    assert member.is_damaged or member.raft.is_asking
    story.go_until_repaired(2)
    story.produce(20)
    story.end()


def test_a_node_whose_log_was_cut_believes_nothing_of_itself_until_it_is_repaired() -> None:
    """A header that rots keeps it down; an operator cuts the log there and starts it again."""
    story = Story()
    story.cluster.kill(2)
    disk = story.cluster.nodes[2].disk
    places = [each for each in wal_payloads(disk) if each.kind == RecordKind.BATCH]
    place = places[len(places) // 2]
    disk.flip(place.path, place.position - RECORD_HEADER_BYTES + 44)
    with pytest.raises(CorruptWalError, match="can no longer prove what it acknowledged"):
        Inspector(disk, newest_checkpoint(disk)).run(file_heads(disk, WAL_DIRECTORY))
    story.produce(40)
    assert rehearse(disk).cut
    assert repair(disk).problems_left == []
    story.cluster.revive(2)
    assert story.replica(2).raft.recollection is not None
    node = story.cluster.nodes[2]
    for _ in range(600):
        losses = [each.raft.recollection for each in node.members.values()]
        for each in node.members.values():
            assert each.raft.recollection is None or not each.raft.is_leader
        if len(losses) == 5 and not any(losses):
            break
        story.cluster.go(100)
    story.produce(20)
    story.end()


def test_a_repair_that_dies_goes_on_with_the_next_life() -> None:
    story = Story()
    story.cluster.kill(2)
    rot_log(story, 2)
    story.cluster.revive(2)
    for _ in range(100):
        repair = story.cluster.nodes[2].shard.groups.repairs.open.get(GroupId(GROUP))
        if repair is not None and repair.is_begun:
            break
        story.cluster.go(20)
    story.cluster.go(20)
    story.cluster.kill(2)
    story.cluster.revive(2)
    assert story.replica(2).raft.recollection is not None
    story.go_until_repaired(2)
    story.produce(20)
    story.end()


def test_a_segment_that_rots_is_found_and_fetched_again() -> None:
    """The leader hands over first: nobody leads over what is damaged."""
    story = Story()
    node = story.cluster.leader(GROUP)
    number = node.number
    log = node.members[GROUP].log
    story.produce(60)
    node.shard.store.checkpointing.wanted = True
    story.cluster.go(50)
    segment = next(each for each in log.segments.items if each.log.frontier)
    path = segment.path(segment.log)
    node.disk.flip(path, 100)
    assert not is_whole(node.disk.read(path, 0, 1 << 20))
    story.go_until_repaired(number)
    story.produce(20)
    story.end()
    for each in node.members[GROUP].log.segments.items:
        if each.log.frontier:
            assert is_whole(node.disk.read(each.path(each.log), 0, 1 << 20))


def test_nothing_whole_is_thrown_away_while_nobody_else_leads() -> None:
    """Q1: two nodes are away, so the third keeps what it has."""
    story = Story()
    for number in (1, 2, 3):
        story.cluster.kill(number)
    rot_log(story, 2)
    story.cluster.revive(2)
    story.cluster.go(5_000)
    repair = story.cluster.nodes[2].shard.groups.repairs.open
    assert not any(each.is_begun for each in repair.values())
    story.cluster.revive(1)
    story.cluster.revive(3)
    story.go_until_repaired(2)
    story.produce(20)
    story.end()


def test_the_test_finds_a_replica_that_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: damage is noted, and nothing is done about it."""
    monkeypatch.setattr(Repairs, "found_in_log", lambda *_: True)
    story = Story()
    story.cluster.kill(2)
    rot_log(story, 2)
    story.cluster.revive(2)
    with pytest.raises(AssertionError):
        story.go_until_repaired(2, 10_000)


def damaged_majority() -> Story:
    """Return three nodes of which two have lost an acknowledged record of one partition."""
    story = Story()
    story.cluster.go(1_000)
    for number in (1, 2, 3):
        story.cluster.kill(number)
    rot_log(story, 1)
    rot_log(story, 2)
    for number in (1, 2, 3):
        story.cluster.revive(number)
    return story


def leaders_over(story: Story, ms: int) -> set[int]:
    """Let time pass, and return who led the partition in it."""
    found: set[int] = set()
    for _ in range(ms // 100):
        story.cluster.go(100)
        found |= {node.number for node in story.cluster.leaders(GROUP)}
    return found


def test_a_damaged_majority_leads_nothing_and_says_what_can_be_done() -> None:
    """Two of three: what was acknowledged may be gone, and nobody can tell (multiraft.md F)."""
    story = damaged_majority()
    assert leaders_over(story, 15_000) == set()
    for number in (1, 2):
        node = story.cluster.nodes[number]
        said = [line for line in node.logs if "--accept-loss" in line]
        assert len(said) == 1, node.logs
        assert "partition t-1 is damaged here" in said[0]
        assert "nobody leads it" in said[0]
        (named,) = node.shard.groups.repairs.names()
        assert "it waits: nobody leads it" in named
    story.produce(8)
    assert {at for at, _value, _offset in story.acknowledged[-6:]} == {0, 2, 3}, "others serve"


@pytest.mark.parametrize("accepts", [1, 2])
def test_a_person_may_give_up_what_is_lost_and_the_whole_replica_leads(accepts: int) -> None:
    """Here it has all, so nothing is lost; and it repairs the other one."""
    story = damaged_majority()
    assert leaders_over(story, 3_000) == set()
    story.cluster.kill(accepts)
    disk = story.cluster.nodes[accepts].disk
    (named,) = rehearse(disk, accepts_loss=True).given_up
    assert "t-1" in named
    assert repair(disk, accepts_loss=True).given_up == [named]
    story.cluster.revive(accepts)
    assert leaders_over(story, 5_000) == {3}, "who has more than the others"
    story.go_until_repaired(3 - accepts)
    story.produce(20)
    story.end()


def test_a_repair_that_accepts_no_loss_ends_no_wait() -> None:
    story = damaged_majority()
    for number in (1, 2):
        story.cluster.kill(number)
        assert repair(story.cluster.nodes[number].disk).given_up == []
        story.cluster.revive(number)
    assert leaders_over(story, 15_000) == set()
    said = [line for line in story.cluster.nodes[1].logs if "do not tell their terms" in line]
    assert len(said) == 1


def test_segments_that_rot_on_two_nodes_are_repaired_one_from_the_other() -> None:
    """Votes are known then: the third one leads, and has what both lost."""
    story = Story()
    for number in (1, 2):
        node = story.cluster.nodes[number]
        node.shard.store.checkpointing.wanted = True
        story.cluster.go(50)
        log = node.members[GROUP].log
        segment = next(each for each in log.segments.items if each.log.frontier)
        node.disk.flip(segment.path(segment.log), 100)
    for number in (1, 2):
        story.go_until_repaired(number)
    story.produce(20)
    story.end()
