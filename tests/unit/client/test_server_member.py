"""Members of the new protocol (KIP-848) against a cluster in memory: every record is dealt with."""

import re
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from corelane.model.errors import ErrorCode
from corelane_client.errors import KafkaError
from corelane_client.protocol import Api
from tests.unit.client import test_group_consumer
from tests.unit.client.fake import CUT, CUT_AFTER, Cluster, always, new
from tests.unit.client.test_consumer import batch, fill
from tests.unit.client.test_group_consumer import Told, read_until_cancelled, take

member = partial(test_group_consumer.member, protocol="consumer")


def epochs(cluster: Cluster) -> list[int]:
    """Return the epochs that heartbeats have said, in order."""
    wanted = Api.CONSUMER_GROUP_HEARTBEAT
    return [body.member_epoch for _, api, body in cluster.requests if api == wanted]


async def test_what_was_dealt_with_is_committed_by_the_epoch_and_the_member_leaves(
    cluster: Cluster, clock: MockClock
) -> None:
    values = fill(cluster.topic("t")[0], 10)
    async with member(cluster) as consumer:
        assert await take(consumer, 4) == values[:4]
        assert consumer.membership.generation > 0
    assert cluster.groups.committed("g") == {("t", 0): 4}
    assert cluster.groups.state("g") == "Empty"
    assert epochs(cluster)[0] == 0
    assert epochs(cluster)[-1] == -1
    async with member(cluster) as consumer:
        assert await take(consumer, 6) == values[4:]


async def test_what_one_member_gives_back_the_other_takes_and_nobody_stops_reading(
    cluster: Cluster, clock: MockClock
) -> None:
    logs = cluster.topic("t", 4)
    first, second = Told(), Told()
    seen: list[bytes | None] = []
    async with trio.open_nursery() as nursery:

        async def stay() -> None:
            async with member(cluster, listener=first) as consumer:
                await read_until_cancelled(consumer, seen)

        nursery.start_soon(stay)
        await trio.sleep(10)
        with trio.move_on_after(30):
            async with member(cluster, listener=second) as consumer:
                await read_until_cancelled(consumer, seen)
        await trio.sleep(10)
        for number, log in enumerate(logs):
            log.write(batch(b"%d" % number))
        cluster.announce()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert sorted(seen, key=str) == [b"0", b"1", b"2", b"3"]
    others = second.heard[0][1]
    assert len(others) == 2
    assert second.heard == [("assigned", others), ("revoked", others)]
    assert first.heard == [
        ("assigned", [0, 1, 2, 3]),
        ("revoked", others),
        ("assigned", others),
        ("revoked", [0, 1, 2, 3]),
    ]


@pytest.mark.parametrize(
    "error",
    [
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.FENCED_MEMBER_EPOCH,
        ErrorCode.GROUP_ID_NOT_FOUND,
    ],
)
async def test_a_member_that_is_forgotten_has_lost_what_it_had_and_joins_anew(
    cluster: Cluster, clock: MockClock, error: ErrorCode
) -> None:
    values = fill(cluster.topic("t")[0], 10)
    told = Told()
    async with member(cluster, listener=told, auto_commit=False) as consumer:
        await take(consumer, 3)
        gone = new(
            "ConsumerGroupHeartbeatResponse",
            error_code=error,
            error_message=None,
            member_id=None,
            assignment=None,
        )
        cluster.script(Api.CONSUMER_GROUP_HEARTBEAT, always(gone))
        await trio.sleep(6)
        assert await take(consumer, 1) == values[:1]
        assert told.heard == [("assigned", [0]), ("lost", [0]), ("assigned", [0])]


async def test_the_coordinator_may_move_and_die(cluster: Cluster, clock: MockClock) -> None:
    cluster.grow(2)
    (log,) = cluster.topic("t")
    values = fill(log, 6)
    told = Told()
    async with member(cluster, listener=told, commit_interval_ms=1000) as consumer:
        assert await take(consumer, 3) == values[:3]
        cluster.groups.move(1)
        await trio.sleep(10)
        assert cluster.groups.committed("g") == {("t", 0): 2}
        cluster.groups.move(None)
        await trio.sleep(10)
        cluster.groups.move(0)
        assert await take(consumer, 3) == values[3:]
        assert told.heard == [("assigned", [0])]
    assert cluster.groups.committed("g") == {("t", 0): 6}


@pytest.mark.parametrize("step", [CUT, CUT_AFTER])
async def test_whoever_does_not_know_what_was_heard_says_everything_again(
    cluster: Cluster, clock: MockClock, step: object
) -> None:
    values = fill(cluster.topic("t")[0], 10)
    cluster.script(Api.CONSUMER_GROUP_HEARTBEAT, always(step), always(step))
    async with member(cluster) as consumer:
        assert await take(consumer, 10) == values
        cluster.script(Api.CONSUMER_GROUP_HEARTBEAT, always(step))
        await trio.sleep(20)
        wanted = Api.CONSUMER_GROUP_HEARTBEAT
        said = [body.subscribed_topic_names for _, api, body in cluster.requests if api == wanted]
        # Three that were cut, each followed by one that says all; then those that have no news.
        assert said.count(["t"]) >= 4
        assert said[-1] is None
    assert cluster.groups.committed("g") == {("t", 0): 10}


async def test_a_pattern_finds_topics_that_are_made_later(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t-one")
    fill(cluster.topic("other")[0], 3)
    told = Told()
    async with member(cluster, re.compile("t-.*"), listener=told) as consumer:
        with trio.move_on_after(5):
            await read_until_cancelled(consumer, [])
        assert consumer.partitions == [("t-one", 0)]
        values = fill(cluster.topic("t-two")[0], 3)
        with trio.fail_after(60):
            assert await take(consumer, 3) == values
        assert consumer.partitions == [("t-one", 0), ("t-two", 0)]


async def test_a_static_member_that_comes_back_finds_its_place(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t", 2)
    other = Told()
    async with trio.open_nursery() as nursery:

        async def stay() -> None:
            async with member(cluster, instance_id="one", listener=other) as consumer:
                await read_until_cancelled(consumer, [])

        nursery.start_soon(stay)
        await trio.sleep(1)
        places = []
        for _ in range(3):
            with trio.move_on_after(20):
                async with member(cluster, instance_id="two") as consumer:
                    with trio.move_on_after(15):
                        await read_until_cancelled(consumer, [])
                    places.append(consumer.partitions)
        assert places == [places[0]] * 3
        assert len(places[0]) == 1
        assert [what for what, _ in other.heard] == ["assigned", "revoked"]
        nursery.cancel_scope.cancel()


async def test_a_name_that_another_instance_has_is_waited_for(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t")
    async with member(cluster, instance_id="one") as former:
        with trio.move_on_after(5):
            await read_until_cancelled(former, [])
        with pytest.raises(KafkaError) as caught:
            async with member(cluster, instance_id="one") as newer:
                await anext(newer)
        assert caught.value.name == "UNRELEASED_INSTANCE_ID"
        assert former.partitions == [("t", 0)]


async def test_an_assignor_that_the_broker_does_not_know_is_refused(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t")
    with pytest.raises(KafkaError) as caught:
        async with member(cluster, server_assignor="best") as consumer:
            await anext(consumer)
    assert caught.value.name == "UNSUPPORTED_ASSIGNOR"
