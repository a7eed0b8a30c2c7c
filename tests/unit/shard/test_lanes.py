"""How fast old entries are read for followers that lag: as their cores ask, a few at a time."""

from dataclasses import replace

from corelane.model.config import defaults
from corelane.model.ids import CONTROLLER_GROUP, CoreId, GroupId, MemberId, NodeId
from corelane.raft.state import NEVER_MS
from corelane.shard.lanes import BURST_MS, Key, Lanes

PEER = (NodeId(2), CoreId(0))
OTHER = (NodeId(3), CoreId(0))
RATE = 10_000
READ = 1_000


class World:
    """Reads of a thousand bytes that end at once, over and over."""

    def __init__(self, groups_max: int) -> None:
        self.rates = {PEER: RATE, OTHER: RATE}
        replication = defaults().replication
        self.settings = replace(replication, catchup_groups_max=groups_max)
        self.lanes = Lanes(self.rates.__getitem__, lambda: self.settings)
        self.bytes: dict[Key, int] = {}
        self.busy: set[Key] = set()
        self.most = 0
        self.now_ms = 1_000

    def lag(self, group: int, peer: tuple[NodeId, CoreId] = PEER) -> None:
        key = (GroupId(group), MemberId(peer[0]))
        self.lanes.ask(peer, key, lambda: self.read(key, peer))

    def read(self, key: Key, peer: tuple[NodeId, CoreId]) -> None:
        self.busy.add(key)
        self.most = max(self.most, len(self.busy))
        self.bytes[key] = self.bytes.get(key, 0) + READ
        self.lanes.used(key, READ)
        if self.bytes[key] < 50 * READ:
            self.lanes.ask(peer, key, lambda: self.read(key, peer))
        else:
            self.busy.discard(key)
            self.lanes.ended(key)

    def go(self, ms: int) -> None:
        for _ in range(ms // 10):
            self.now_ms += 10
            self.lanes.turn(self.now_ms)


def test_a_core_gets_what_it_asks_for_a_second() -> None:
    world = World(8)
    for group in range(1, 9):
        world.lag(group)
    world.go(10_000)
    assert abs(sum(world.bytes.values()) - 10 * RATE) <= RATE * BURST_MS // 1_000 + READ


def test_a_core_gives_no_more_than_it_is_to_give_all_together() -> None:
    """kafka-reassign-partitions --throttle sets the rate of leaders, too (T3)."""
    world = World(8)
    world.settings = replace(world.settings, feeding_bytes_per_second=RATE // 2)
    for group in range(1, 5):
        world.lag(group)
        world.lag(group + 4, OTHER)
    world.go(10_000)
    given = sum(world.bytes.values())
    assert abs(given - 5 * RATE) <= RATE * BURST_MS // 1_000 + 2 * READ
    assert len({key[0] for key in world.bytes}) == 8, "nobody starves"


def test_a_core_that_asks_for_nothing_gets_nothing() -> None:
    world = World(8)
    world.rates[PEER] = 0
    world.lag(1)
    world.lag(2, OTHER)
    world.go(5_000)
    assert {key[0] for key in world.bytes} == {2}
    assert world.lanes.next_ms(0) < NEVER_MS
    world.rates[PEER] = RATE
    world.go(5_000)
    assert {key[0] for key in world.bytes} == {1, 2}


def test_groups_go_a_few_at_a_time_and_all_come_to_an_end() -> None:
    world = World(2)
    for group in range(1, 6):
        world.lag(group)
    world.go(2_000)
    assert world.most == 2
    world.go(40_000)
    assert set(world.bytes.values()) == {50 * READ}
    assert world.lanes.next_ms(0) == NEVER_MS
    assert len(world.bytes) == 5


def test_the_controllers_group_waits_for_nobody() -> None:
    world = World(1)
    world.rates[PEER] = 0
    world.lag(int(CONTROLLER_GROUP))
    assert world.bytes == {(CONTROLLER_GROUP, MemberId(2)): 50 * READ}


def test_what_is_not_used_is_not_saved_up() -> None:
    world = World(8)
    world.lag(1)
    world.go(60_000)
    assert world.bytes[GroupId(1), MemberId(2)] == 50 * READ
    world.lag(2)
    world.lanes.turn(world.now_ms)
    assert world.bytes.get((GroupId(2), MemberId(2)), 0) <= RATE * BURST_MS // 1_000 + READ


def test_reads_that_need_no_disk_are_over_before_the_next_is_looked_at() -> None:
    """Seen when a node came back: the core of the leader died, as nothing was left to look at."""
    world = World(8)
    world.rates[PEER] = 1_000_000_000
    world.settings = replace(world.settings, feeding_bytes_per_second=1_000_000_000)
    for group in range(1, 4):
        world.lag(group)
    world.go(10)
    assert world.bytes == {(GroupId(group), MemberId(2)): 50 * READ for group in range(1, 4)}
