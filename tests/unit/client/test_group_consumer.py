"""Members of a group against a cluster in memory: every record is dealt with, whatever moves."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from corelane.model.errors import ErrorCode
from corelane_client.errors import KafkaError
from corelane_client.group_consumer import GroupConsumer
from corelane_client.group_settings import GroupSettings, RebalanceListener
from corelane_client.protocol import Api
from corelane_client.settings import ConnectionSettings, ConsumerSettings
from tests.unit.client.fake import CUT, CUT_AFTER, SILENCE, Cluster, always, new
from tests.unit.client.test_consumer import batch, fill

EAGER = ("range",)
COOPERATIVE = ("cooperative-sticky",)
HURRY = ConsumerSettings(connection=ConnectionSettings(request_timeout_ms=1000))
BEATS = [("classic", Api.HEARTBEAT, 3.5), ("consumer", Api.CONSUMER_GROUP_HEARTBEAT, 5.5)]
"""How members of either protocol say that they are there, and when the next has gone out (s)."""


class Told(RebalanceListener):
    """Takes note of what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, list[int]]] = []

    async def assigned(self, partitions: Sequence[tuple[str, int]]) -> None:
        self.heard.append(("assigned", [number for _topic, number in partitions]))

    async def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        self.heard.append(("revoked", [number for _topic, number in partitions]))

    async def lost(self, partitions: Sequence[tuple[str, int]]) -> None:
        self.heard.append(("lost", [number for _topic, number in partitions]))


@asynccontextmanager
async def member(
    cluster: Cluster, topics: list[str] | re.Pattern[str] | None = None, **settings: Any
) -> AsyncIterator[GroupConsumer]:
    group = GroupSettings(**{"consumer": HURRY, **settings})
    wanted = ["t"] if topics is None else topics
    async with GroupConsumer(cluster.bootstrap, "g", wanted, group, cluster.connect) as consumer:
        yield consumer


async def take(consumer: GroupConsumer, count: int) -> list[bytes | None]:
    return [(await anext(consumer)).value for _ in range(count)]


async def read_until_cancelled(consumer: GroupConsumer, into: list[bytes | None]) -> None:
    while True:
        into += [record.value for record in await consumer.read()]


async def test_what_was_dealt_with_is_committed_at_the_end(
    cluster: Cluster, clock: MockClock
) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 10)
    async with member(cluster) as consumer:
        assert await take(consumer, 4) == values[:4]
    assert cluster.groups.committed("g") == {("t", 0): 4}
    async with member(cluster) as consumer:
        assert await take(consumer, 6) == values[4:]
    assert cluster.groups.state("g") == "Empty"


async def test_the_record_that_an_exception_struck_comes_again(
    cluster: Cluster, clock: MockClock
) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 10)

    async def stumble() -> None:
        async with member(cluster) as consumer:
            await take(consumer, 4)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stumble()
    assert cluster.groups.committed("g") == {("t", 0): 3}
    async with member(cluster) as consumer:
        assert await take(consumer, 1) == values[3:4]


async def test_cancelling_a_reader_that_waits_loses_and_repeats_nothing(
    cluster: Cluster, clock: MockClock
) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 10)
    seen: list[bytes | None] = []
    with trio.move_on_after(5):
        async with member(cluster) as consumer:
            await read_until_cancelled(consumer, seen)
    assert seen == values
    assert cluster.groups.committed("g") == {("t", 0): 10}
    assert cluster.groups.state("g") == "Empty"


async def test_a_record_in_hand_is_not_committed_meanwhile(
    cluster: Cluster, clock: MockClock
) -> None:
    fill(cluster.topic("t")[0], 10)
    async with member(cluster, commit_interval_ms=100) as consumer:
        await take(consumer, 3)
        await trio.sleep(1)
        assert cluster.groups.committed("g") == {("t", 0): 2}
        assert len(await consumer.read(2)) == 2
        await trio.sleep(1)
        assert cluster.groups.committed("g") == {("t", 0): 3}


async def test_an_application_may_commit_by_itself(cluster: Cluster, clock: MockClock) -> None:
    fill(cluster.topic("t")[0], 10)
    async with member(cluster, auto_commit=False) as consumer:
        await take(consumer, 3)
        await consumer.commit()
        assert await consumer.committed() == {("t", 0): 3}
        await consumer.commit({("t", 0): 1})
        await take(consumer, 3)
        await trio.sleep(20)
    assert cluster.groups.committed("g") == {("t", 0): 1}


@pytest.mark.parametrize(("start", "first"), [("beginning", b"0000"), ("end", b"new")])
async def test_a_group_that_has_committed_nothing_begins_where_it_was_told(
    cluster: Cluster, clock: MockClock, start: str, first: bytes
) -> None:
    (log,) = cluster.topic("t")
    fill(log, 10)
    async with member(cluster, start=start) as consumer, trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(1)
            log.write(batch(b"new"))
            cluster.announce()

        nursery.start_soon(later)
        assert await take(consumer, 1) == [first]


@pytest.mark.parametrize("assignors", [EAGER, COOPERATIVE])
async def test_members_share_partitions_and_see_each_other_come_and_go(
    cluster: Cluster, clock: MockClock, assignors: tuple[str, ...]
) -> None:
    logs = cluster.topic("t", 4)
    first, second = Told(), Told()
    seen: list[bytes | None] = []

    async with trio.open_nursery() as nursery:

        async def stay() -> None:
            async with member(cluster, assignors=assignors, listener=first) as consumer:
                await read_until_cancelled(consumer, seen)

        nursery.start_soon(stay)
        await trio.sleep(10)
        with trio.move_on_after(20):
            async with member(cluster, assignors=assignors, listener=second) as consumer:
                await read_until_cancelled(consumer, seen)
        await trio.sleep(10)
        for number, log in enumerate(logs):
            log.write(batch(b"%d" % number))
        cluster.announce()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert sorted(seen, key=str) == [b"0", b"1", b"2", b"3"]
    others = second.heard[0][1]
    assert second.heard == [("assigned", others), ("revoked", others)]
    everything = [0, 1, 2, 3]
    mine = [number for number in everything if number not in others]
    assert len(mine) == 2
    if assignors is EAGER:
        # Whoever stays gives everything away and gets it back, each time.
        assert first.heard == [
            ("assigned", everything),
            ("revoked", everything),
            ("assigned", mine),
            ("revoked", mine),
            ("assigned", everything),
            ("revoked", everything),
        ]
    else:
        assert first.heard == [
            ("assigned", everything),
            ("revoked", others),
            ("assigned", others),
            ("revoked", everything),
        ]


async def test_a_partition_is_given_away_only_between_two_records(
    cluster: Cluster, clock: MockClock
) -> None:
    fill(cluster.topic("t", 2)[0], 10)
    told = Told()
    async with member(cluster, assignors=EAGER, listener=told) as consumer:
        await take(consumer, 3)
        async with trio.open_nursery() as nursery:

            async def other() -> None:
                async with member(cluster, assignors=EAGER) as another:
                    await read_until_cancelled(another, [])

            nursery.start_soon(other)
            await trio.sleep(60)  # longer than the session: its heartbeats go on
            assert told.heard == [("assigned", [0, 1])]
            assert cluster.groups.committed("g") == {("t", 0): 2, ("t", 1): 0}
            with trio.move_on_after(60):
                while True:
                    await anext(consumer)
            assert told.heard[1] == ("revoked", [0, 1])
            nursery.cancel_scope.cancel()
    assert cluster.groups.committed("g")["t", 0] == 10


async def test_an_application_that_is_stuck_leaves_to_others_and_comes_back(
    cluster: Cluster, clock: MockClock
) -> None:
    values = fill(cluster.topic("t")[0], 10)
    told = Told()
    async with member(cluster, max_poll_interval_ms=30_000, listener=told) as consumer:
        await take(consumer, 3)
        await trio.sleep(40)
        assert cluster.groups.state("g") == "Empty"
        # What was in hand is not known to be done; it is read again.
        assert await take(consumer, 8) == values[2:]
        assert told.heard == [("assigned", [0]), ("lost", [0]), ("assigned", [0])]


async def test_a_member_that_is_forgotten_has_lost_what_it_had(
    cluster: Cluster, clock: MockClock
) -> None:
    values = fill(cluster.topic("t")[0], 10)
    told = Told()
    async with member(cluster, listener=told, auto_commit=False) as consumer:
        await take(consumer, 3)
        gone = new("HeartbeatResponse", error_code=ErrorCode.UNKNOWN_MEMBER_ID)
        cluster.script(Api.HEARTBEAT, always(gone))
        await trio.sleep(4)
        assert await take(consumer, 1) == values[:1]
        assert told.heard == [("assigned", [0]), ("lost", [0]), ("assigned", [0])]


async def test_the_coordinator_may_move_and_die(cluster: Cluster, clock: MockClock) -> None:
    cluster.grow(2)
    (log,) = cluster.topic("t")
    cluster.leaders["t", 0] = 0
    values = fill(log, 6)
    told = Told()
    async with member(cluster, listener=told, commit_interval_ms=1000) as consumer:
        assert await take(consumer, 3) == values[:3]
        cluster.groups.move(1)
        await trio.sleep(10)
        assert cluster.groups.committed("g") == {("t", 0): 2}
        cluster.groups.move(None)
        await trio.sleep(10)
        assert await take(consumer, 3) == values[3:]
        cluster.groups.move(0)
        await trio.sleep(10)
        assert told.heard == [("assigned", [0])]  # nothing of it was to be noticed
    assert cluster.groups.committed("g") == {("t", 0): 6}


@pytest.mark.parametrize("step", [CUT, CUT_AFTER])
@pytest.mark.parametrize(
    "api",
    [
        Api.FIND_COORDINATOR,
        Api.JOIN_GROUP,
        Api.SYNC_GROUP,
        Api.OFFSET_FETCH,
        Api.HEARTBEAT,
        Api.OFFSET_COMMIT,
    ],
)
async def test_a_connection_may_be_cut_at_any_step(
    cluster: Cluster, clock: MockClock, api: Api, step: object
) -> None:
    values = fill(cluster.topic("t")[0], 10)
    cluster.script(api, always(step), always(step))
    async with member(cluster) as consumer:
        assert await take(consumer, 10) == values
        await trio.sleep(10)
    assert cluster.groups.committed("g") == {("t", 0): 10}


@pytest.mark.parametrize(("protocol", "beat", "until_s"), BEATS)
async def test_a_coordinator_that_is_silent_delays_heartbeats_and_nothing_else(
    cluster: Cluster, clock: MockClock, protocol: str, beat: Api, until_s: float
) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 6)
    async with member(cluster, protocol=protocol) as consumer:
        assert await take(consumer, 6) == values
        cluster.script(beat, always(SILENCE))
        await trio.sleep(until_s)
        log.write(batch(b"new"))
        cluster.announce()
        assert await take(consumer, 1) == [b"new"]
        await trio.sleep(10)
        assert cluster.groups.state("g") == "Stable"


async def test_a_static_member_comes_back_without_a_rebalance(
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
        for _ in range(3):
            with trio.move_on_after(10):
                async with member(cluster, instance_id="two") as consumer:
                    await read_until_cancelled(consumer, [])
                    assert consumer.partitions == [("t", 1)]
        assert other.heard == [("assigned", [0, 1]), ("revoked", [0, 1]), ("assigned", [0])]
        nursery.cancel_scope.cancel()


async def test_two_instances_of_one_name_fence_each_other(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t")
    async with member(cluster, instance_id="one") as former, trio.open_nursery() as nursery:

        async def newer() -> None:
            async with member(cluster, instance_id="one") as consumer:
                await read_until_cancelled(consumer, [])

        nursery.start_soon(newer)
        for _ in range(2):  # and it stays so
            with pytest.raises(KafkaError) as caught:
                await anext(former)
            assert caught.value.name == "FENCED_INSTANCE_ID"
        nursery.cancel_scope.cancel()


async def test_a_group_that_shares_in_other_ways_refuses(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t")
    async with (
        member(cluster, assignors=EAGER) as _first,
        member(cluster, assignors=("roundrobin",)) as second,
    ):
        await trio.sleep(1)
        with pytest.raises(KafkaError) as caught:
            await anext(second)
        assert caught.value.name == "INCONSISTENT_GROUP_PROTOCOL"


async def test_a_coordinator_that_stays_away_is_told_and_iterating_may_go_on(
    cluster: Cluster, clock: MockClock
) -> None:
    values = fill(cluster.topic("t")[0], 3)
    cluster.groups.move(None)
    async with member(cluster) as consumer:
        with pytest.raises(KafkaError) as caught:
            await anext(consumer)
        assert caught.value.name == "COORDINATOR_NOT_AVAILABLE"
        cluster.groups.move(0)
        assert await take(consumer, 3) == values


async def test_a_topic_that_is_not_there_is_told_at_once(
    cluster: Cluster, clock: MockClock
) -> None:
    with pytest.raises(KafkaError) as caught:
        async with member(cluster):
            pass
    assert caught.value.name == "UNKNOWN_TOPIC_OR_PARTITION"


async def test_new_partitions_are_found_and_shared(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    async with member(cluster) as consumer:
        with trio.move_on_after(5):
            await anext(consumer)
        grown = cluster.topic("t", 2)
        grown[0] = log
        with trio.move_on_after(400):
            await anext(consumer)
        assert consumer.partitions == [("t", 0), ("t", 1)]


async def test_a_listener_may_choose_where_to_begin(cluster: Cluster, clock: MockClock) -> None:
    values = fill(cluster.topic("t")[0], 10)

    class Chooser(RebalanceListener):
        async def assigned(self, partitions: Sequence[tuple[str, int]]) -> None:
            for topic, number in partitions:
                await consumer.seek(topic, number, 7)

    async with member(cluster, listener=Chooser()) as consumer:
        assert await take(consumer, 3) == values[7:]


async def test_after_rewinding_what_was_not_committed_comes_again(
    cluster: Cluster, clock: MockClock
) -> None:
    values = fill(cluster.topic("t")[0], 10)
    async with member(cluster, auto_commit=False) as consumer:
        await take(consumer, 2)
        await consumer.commit()
        await take(consumer, 5)
        await consumer.rewind()
        assert await take(consumer, 8) == values[2:]
