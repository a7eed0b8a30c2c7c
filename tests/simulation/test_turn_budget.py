"""No turn grows with what one client asks for: Python calls per step, counted.

A turn of a core is a step, the sends it asks for, and the next poll. What is sent is bounded in C
(tests/unit/native/test_net_send.py); here the step is. Calls, unlike times, are the same on every
machine and at every run, and what grows with the size of a request shows in them at once: without
pauses a fetch of 1,000 partitions is a step of 20,000.
"""

import sys
from types import FrameType
from typing import Any

import pytest

from corelane.model.ids import ConnId
from corelane.model.limits import TICK_MS
from corelane.shard.events import Event, Opened
from corelane.wire.compiler import Message, message_type
from corelane.wire.frame import encode_request
from tests.unit.api.world import MIB, World, batch_of, key_of, produce_request, request_event

CALLS_MAX = 4_500
"""Of Python and C functions in one step: about a millisecond."""
CALLS_OF_ALL_MAX = 8_000
"""In one step that serves fifty clients at once: what each costs at least is theirs."""
WIDE_TOPICS, WIDE_PARTITIONS = 4, 500
TURNS_MAX = 10_000


class Budget:
    """Steps a world, and remembers the step with the most calls."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.most = 0
        self.frames: list[bytes] = []

    def ask(self, message: Message, version: int, conn: int) -> Event:
        frame = encode_request(key_of(message), version, 1, "test", message)[4:]
        self.frames.append(frame)  # its address stays good
        return request_event(frame, conn)

    def run(self, events: list[Event]) -> None:
        """Step until everything rests."""
        for _ in range(TURNS_MAX):
            events = self._step(events)
            deadline_ms = self.world.shard.next_deadline_ms()
            rests = deadline_ms is None or deadline_ms > self.world.now_ms + TICK_MS
            rests = rests and not self.world.shard.store.reading.is_waiting
            if not events and rests:
                return
        raise AssertionError("the shard never comes to rest")

    def _step(self, events: list[Event]) -> list[Event]:
        calls = 0

        def count(_frame: FrameType, event: str, _argument: Any) -> None:
            nonlocal calls
            calls += event in {"call", "c_call"}

        shard = self.world.shard
        self.world.now_ms += 1
        sys.setprofile(count)
        try:
            effects = shard.step(self.world.now_ms, self.world.wall_ms, events)
        finally:
            sys.setprofile(None)
        self.most = max(self.most, calls)
        return [done for effect in effects for done in self.world.perform(effect)]


@pytest.fixture(scope="module")
def world() -> World:
    """A core with 2,000 partitions, one of them large and on disk, one with many tiny batches."""
    made = World()
    made.create_topic("huge", internal_segment_bytes=str(20 * MIB))
    made.create_topic("tiny")
    for _ in range(50):
        made.produce("huge", batch_of(1, value=bytes(900 * 1024)))
    for _ in range(3):
        made.shard.store.chunks.evict(0)
        made.run([])
    for _ in range(3_000):
        made.produce("tiny", batch_of(1))
    for number in range(WIDE_TOPICS):
        made.create_topic(f"wide-{number}", partitions=WIDE_PARTITIONS)
    return made


def fetch_of(topics: dict[str, int], **fields: int) -> Message:
    """Return a fetch of so many partitions of each topic."""
    inner = message_type("FetchRequest.FetchPartition")
    rows = [
        message_type("FetchRequest.FetchTopic")(
            topic=name,
            partitions=[inner(partition=at, partition_max_bytes=50 * MIB) for at in range(count)],
        )
        for name, count in topics.items()
    ]
    return message_type("FetchRequest")(**{"topics": rows, "max_bytes": 50 * MIB, **fields})


def connected(world: World, conns: range) -> None:
    world.run([Opened(ConnId(conn), 0, "client") for conn in conns])


@pytest.mark.parametrize("wait_ms", [0, 500])
def test_a_fetch_of_very_many_partitions(world: World, wait_ms: int) -> None:
    connected(world, range(100 + wait_ms, 102 + wait_ms))
    budget = Budget(world)
    wide = fetch_of({f"wide-{n}": WIDE_PARTITIONS for n in range(WIDE_TOPICS)}, max_wait_ms=wait_ms)
    budget.run([budget.ask(wide, 12, 100 + wait_ms)])
    world.pass_time(wait_ms)
    answer = world.receive(1, 12, conn=100 + wait_ms)
    assert answer is not None
    assert sum(len(topic.partitions) for topic in answer[1].responses) == 2_000
    assert budget.most < CALLS_MAX


def test_a_commit_wakes_a_wide_fetch_without_looking_at_all_of_it(world: World) -> None:
    connected(world, range(200, 202))
    budget = Budget(world)
    wide = fetch_of({"wide-0": WIDE_PARTITIONS}, max_wait_ms=60_000, min_bytes=1)
    world.run([budget.ask(wide, 12, 200)])
    budget.run([budget.ask(produce_request("wide-0", batch_of(), partition=499), 9, 201)])
    assert world.receive(1, 12, conn=200) is not None
    assert budget.most < CALLS_MAX


def test_fifty_fetches_of_fifty_megabytes(world: World) -> None:
    conns = range(300, 350)
    connected(world, conns)
    budget = Budget(world)
    huge = fetch_of({"huge": 1})
    budget.run([budget.ask(huge, 12, conn) for conn in conns])
    assert all(world.inbox.pop(conn, None) for conn in conns)
    assert budget.most < CALLS_OF_ALL_MAX


def test_a_hundred_requests_for_megabytes_of_one_that_never_reads(world: World) -> None:
    connected(world, range(400, 401))
    budget = Budget(world)
    budget.run([budget.ask(fetch_of({"huge": 1}), 12, 400) for _ in range(100)])
    assert len(world.inbox.pop(400)) > 100 * MIB
    assert budget.most < CALLS_OF_ALL_MAX


def test_fifty_fetches_of_very_many_partitions(world: World) -> None:
    conns = range(800, 850)
    connected(world, conns)
    budget = Budget(world)
    wide = fetch_of({f"wide-{n}": WIDE_PARTITIONS for n in range(WIDE_TOPICS)})
    budget.run([budget.ask(wide, 12, conn) for conn in conns])
    assert all(world.inbox.pop(conn, None) for conn in conns)
    assert budget.most < CALLS_OF_ALL_MAX


def test_a_fetch_of_very_many_tiny_batches(world: World) -> None:
    connected(world, range(500, 501))
    budget = Budget(world)
    budget.run([budget.ask(fetch_of({"tiny": 1}), 12, 500)])
    assert world.inbox.pop(500)
    assert budget.most < CALLS_MAX


@pytest.mark.parametrize("version", [1, 12])
def test_metadata_of_very_many_partitions(world: World, version: int) -> None:
    conns = range(600 + 10 * version, 602 + 10 * version)
    connected(world, conns)
    budget = Budget(world)
    every = message_type("MetadataRequest")(topics=None)
    for conn in conns:  # encoded anew, then from what was kept
        budget.run([budget.ask(every, version, conn)])
        answer = world.receive(3, version, conn=conn)
        assert answer is not None
        assert sum(len(topic.partitions) for topic in answer[1].topics) == 2_002
    assert budget.most < CALLS_MAX
