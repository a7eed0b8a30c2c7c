"""What a shard counts: each answered request once, under its first error, and bytes by topic."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.shard.effects import Effect
from corelane.shard.events import Event
from corelane.shard.shard import Shard
from corelane.wire.compiler import message_type
from corelane.wire.frame import encode_request
from tests.unit.api.world import World, batch_of, produce_request

PRODUCE, FETCH, METADATA, CREATE_TOPICS = 0, 1, 3, 19


class CountingShard(Shard):
    """A shard whose runtime counts at the end of each turn, as the loop does."""

    def step(self, now_ms: int, wall_ms: int, events: list[Event]) -> list[Effect]:
        self.counts.now_us = now_ms * 1000
        effects = super().step(now_ms, wall_ms, events)
        self.counts.count_answers(now_ms * 1000 + 300)
        return effects


@pytest.fixture
def world() -> World:
    world = World()
    world.shard.__class__ = CountingShard
    world.create_topic("t")
    return world


def test_an_answer_without_error_is_counted_once(world: World) -> None:
    world.produce("t", batch_of())
    world.fetch("t", 0)
    counts = world.shard.counts
    assert counts.requests == {(CREATE_TOPICS, 0): 1, (PRODUCE, 0): 1, (FETCH, 0): 1}
    assert counts.request_us[FETCH].total == 300, "answered in the turn it came in"
    assert counts.request_us[PRODUCE].total > 300, "it waited for the disk"


def test_an_answer_is_counted_under_its_first_error(world: World) -> None:
    counts = world.shard.counts
    counts.requests.clear()
    world.produce("nothing", batch_of())
    world.fetch("t", 99)
    wanted = message_type("MetadataRequest.MetadataRequestTopic")(name="nothing")
    request = message_type("MetadataRequest")(topics=[wanted], allow_auto_topic_creation=False)
    world.call(request, 9)
    assert counts.requests == {
        (PRODUCE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION): 1,
        (FETCH, ErrorCode.OFFSET_OUT_OF_RANGE): 1,
        (METADATA, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION): 1,
    }


def test_a_request_without_answer_is_counted_when_it_is_done(world: World) -> None:
    counts = world.shard.counts
    counts.requests.clear()
    world.send(produce_request("t", batch_of(), acks=0), 9)
    assert counts.requests == {(PRODUCE, 0): 1}
    world.send(produce_request("nothing", batch_of(), acks=0), 9)
    assert counts.requests[PRODUCE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION] == 1


def test_an_unknown_version_is_counted_under_its_error(world: World) -> None:
    world.shard.counts.requests.clear()
    request = message_type("ApiVersionsRequest")(
        client_software_name="x", client_software_version="1"
    )
    frame = bytearray(encode_request(18, 3, 1, "test", request)[4:])
    frame[2:4] = (99).to_bytes(2, "big")
    world.send_frame(bytes(frame))
    assert world.shard.counts.requests == {(18, ErrorCode.UNSUPPORTED_VERSION): 1}


def test_bytes_and_records_are_counted_by_topic(world: World) -> None:
    world.create_topic("u")
    batch = batch_of(3)
    for _ in range(2):
        world.produce("t", batch)
    for _ in range(5):
        world.fetch("t", 3)
    counts = world.shard.groups.topics[b"t"].counts
    assert (counts.bytes_in, counts.records_in) == (2 * len(batch), 6)
    assert (counts.bytes_out, counts.records_out) == (5 * len(batch), 15)
    assert world.shard.groups.topics[b"u"].counts.bytes_in == 0


def test_a_fetch_from_the_middle_of_a_batch_counts_what_its_client_gets(world: World) -> None:
    world.produce("t", batch_of(5))
    world.fetch("t", 2)
    assert world.shard.groups.topics[b"t"].counts.records_out == 3
