"""The parts of a turn: what is written at once is answered in it, and who tends the core, when."""

from dataclasses import replace

import pytest

from corelane.model import limits
from corelane.model.ids import NodeId
from corelane.shard.config import PeerPlace, ShardConfig
from corelane.shard.effects import Dial, Effect, Send
from corelane.shard.events import Event
from corelane.shard.peers.events import DialFailed
from corelane.shard.shard import TEND_MS
from corelane.storage.effects import DiskDone, WalWrite
from corelane.wire.compiler import message_type
from corelane.wire.frame import encode_request
from tests.unit.api.world import World, batch_of, produce_request, request_event

PRODUCE, METADATA = 0, 3
VERSION = 9


class Turns:
    """Drives the shard in parts, at a time that stands still."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.tended = 0
        self.frames: list[bytes] = []
        tick = world.shard.groups.tick

        def counted() -> None:
            self.tended += 1
            tick()

        monkeypatch.setattr(world.shard.groups, "tick", counted)

    def request(self) -> Event:
        message = produce_request("t", batch_of())
        self.frames.append(encode_request(PRODUCE, VERSION, 1, "test", message)[4:])
        return request_event(self.frames[-1], 1)

    def begin(self, events: list[Event]) -> list[Effect]:
        return self.world.shard.begin(self.world.now_ms, self.world.wall_ms, events)

    def turn(self, events: list[Event]) -> None:
        """Turn as the loop does, with the write made at once."""
        world, done = self.world, None
        for effect in self.begin(events):
            if isinstance(effect, WalWrite):
                done = world._disk_done(effect)
            else:
                world.perform(effect)
        for effect in world.shard.finish(done):
            world.perform(effect)
        for effect in world.shard.tend():
            world.perform(effect)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    world = World()
    world.create_topic("t")
    world.produce("t", batch_of())
    world.now_ms += TEND_MS
    return Turns(world, monkeypatch)


def test_small_turns_are_tended_once_in_a_while_and_all_answered(turns: Turns) -> None:
    for count in range(1, 6):
        turns.turn([turns.request()])
        answer = turns.world.receive(PRODUCE, VERSION)
        assert answer is not None
        assert answer[1].responses[0].partition_responses[0].base_offset == count
        assert turns.tended == 1
        due_ms = turns.world.shard.next_deadline_ms()
        assert due_ms is not None
        assert due_ms > turns.world.now_ms, "nothing else is due"
    turns.world.now_ms += TEND_MS
    turns.turn([turns.request()])
    assert turns.tended == 2


def test_what_is_due_is_tended_though_only_plain_produce_comes(turns: Turns) -> None:
    turns.turn([turns.request()])
    shard = turns.world.shard
    due_ms = shard.next_deadline_ms()
    assert due_ms is not None
    shard.now_ms = turns.world.now_ms = due_ms
    shard._tended_ms = due_ms  # as if it had been just now, but for what is due
    turns.turn([turns.request()])
    assert turns.tended == 2


def test_a_turn_that_was_not_tended_is_followed_by_one_that_is(turns: Turns) -> None:
    turns.turn([turns.request()])
    turns.turn([turns.request()])
    due_ms = turns.world.shard.next_deadline_ms()
    assert due_ms is not None
    assert due_ms <= turns.world.now_ms + limits.TICK_MS
    turns.turn([])
    assert turns.tended == 2
    due_ms = turns.world.shard.next_deadline_ms()
    assert due_ms is None or due_ms > turns.world.now_ms + limits.TICK_MS, "then it rests"


def test_what_is_not_plain_produce_is_tended_in_its_turn(turns: Turns) -> None:
    turns.turn([turns.request()])
    frame = encode_request(METADATA, 1, 1, "test", message_type("MetadataRequest")(topics=[]))[4:]
    turns.frames.append(frame)
    turns.turn([request_event(frame, 1)])
    assert turns.tended == 2


def test_nothing_is_answered_before_its_write_is_done(turns: Turns) -> None:
    shard = turns.world.shard
    effects = [*turns.begin([turns.request()]), *shard.finish(None), *shard.tend()]
    (write,) = [each for each in effects if isinstance(each, WalWrite)]
    assert not any(isinstance(each, Send) for each in effects)
    turns.begin([])
    assert not any(isinstance(each, Send) for each in [*shard.finish(None), *shard.tend()])
    done: DiskDone = turns.world._disk_done(write)
    assert any(isinstance(each, Send) for each in turns.begin([done]))


class Peered(World):
    """A node that has heard of another one, which does not answer."""

    def shard_config(self) -> ShardConfig:
        place = PeerPlace("127.0.0.1", 9192, 1, "x", ((NodeId(2), "127.0.0.1", 9193),))
        return replace(super().shard_config(), peer=place)

    def perform(self, effect: Effect) -> list[Event]:
        return (
            [DialFailed(effect.dial, is_refused=True, reason="refused")]
            if isinstance(effect, Dial)
            else super().perform(effect)
        )


def test_with_peers_each_turn_is_tended_before_its_write_and_the_core_rests() -> None:
    world = Peered()
    world.create_topic("t")
    frame = encode_request(PRODUCE, VERSION, 1, "test", produce_request("t", batch_of()))[4:]
    shard, turns = world.shard, 0
    effects = shard.begin(world.now_ms, world.wall_ms, [request_event(frame, 1)])
    (write,) = [each for each in effects if isinstance(each, WalWrite)]
    shard.finish(world._disk_done(write))
    shard.tend()
    end_ms = world.now_ms + 1_000
    while world.now_ms < end_ms:
        events = world.step_once([])
        while events:
            events = world.step_once(events)
        turns += 1
        due_ms = shard.next_deadline_ms()
        assert due_ms is not None
        world.now_ms = max(world.now_ms, due_ms - 1)
    assert turns < 50, "an idle core wakes up for its peers only"
