"""The trio client in groups of either protocol, by names and by patterns, against a real broker."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import pytest
import trio

from corelane_client.admin import Admin, NewTopic
from corelane_client.group_consumer import GroupConsumer
from corelane_client.group_settings import GroupSettings
from corelane_client.producer import Producer
from tests.conformance import brokers

Topics = list[str] | re.Pattern[str]
Protocol = Literal["classic", "consumer"]
PARTITIONS = 4
RECORDS = 8
WAIT_S = 30.0


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    settings: dict[str, object] = {
        "group.initial.rebalance.delay.ms": 0,
        "group.consumer.heartbeat.interval.ms": 100,
        "num.partitions": PARTITIONS,
    }
    with brokers.corelane(settings) as running:
        yield str(running.bootstrap)


class Member:
    """One consumer in its own task, until it is told to stop."""

    def __init__(self, bootstrap: str, group: str, topics: Topics, protocol: Protocol) -> None:
        self.values: list[bytes] = []
        self.consumer: GroupConsumer | None = None
        self.scope = trio.CancelScope()
        self.has_ended = trio.Event()
        settings = GroupSettings(protocol=protocol, heartbeat_interval_ms=100)
        self._new: Callable[[], GroupConsumer] = partial(
            GroupConsumer,
            bootstrap,
            group,
            topics,
            settings,
        )

    async def run(self) -> None:
        with self.scope:
            async with self._new() as consumer:
                self.consumer = consumer
                async for record in consumer:
                    self.values.append(record.value or b"")
        self.has_ended.set()

    @property
    def count(self) -> int:
        return 0 if self.consumer is None else len(self.consumer.partitions)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(WAIT_S):
        while not condition():
            await trio.sleep(0.01)


async def send(bootstrap: str, topic: str, first: int) -> set[bytes]:
    """Write records to every partition, and return what they say."""
    values = [b"%s %d" % (topic.encode(), number) for number in range(first, first + RECORDS)]
    async with Producer(bootstrap) as producer:
        for number, value in enumerate(values):
            await producer.send(topic, value, partition=number % PARTITIONS)
    return set(values)


async def make(bootstrap: str, *topics: str) -> None:
    async with Admin(bootstrap) as admin:
        for topic in topics:
            await admin.create_topic(NewTopic(topic, PARTITIONS))


@pytest.mark.parametrize("second", ["consumer", "classic"])
def test_members_share_and_go_on_when_one_leaves(bootstrap: str, second: Protocol) -> None:
    topic = f"shared-{second}"

    async def main() -> None:
        await make(bootstrap, topic)
        wanted = await send(bootstrap, topic, 0)
        a = Member(bootstrap, topic, [topic], "consumer")
        b = Member(bootstrap, topic, [topic], second)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.run)
            await until(lambda: a.count == PARTITIONS and set(a.values) == wanted)
            nursery.start_soon(b.run)
            await until(lambda: a.count == b.count == PARTITIONS // 2)
            wanted |= await send(bootstrap, topic, RECORDS)
            await until(lambda: set(a.values) | set(b.values) == wanted)
            a.scope.cancel()
            await a.has_ended.wait()
            await until(lambda: b.count == PARTITIONS)
            wanted |= await send(bootstrap, topic, 2 * RECORDS)
            await until(lambda: set(a.values) | set(b.values) == wanted)
            assert len(a.values) + len(b.values) == len(wanted), "each record once"
            b.scope.cancel()

    trio.run(main)


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_a_pattern_finds_its_topics(bootstrap: str, protocol: Protocol) -> None:
    one, two, other = (f"{protocol}-{name}" for name in ("in-1", "in-2", "out-in-1"))

    async def main() -> None:
        await make(bootstrap, one, two, other)
        wanted = await send(bootstrap, one, 0) | await send(bootstrap, two, 0)
        await send(bootstrap, other, 0)
        pattern = re.compile(f"{protocol}-in-.*")
        member = Member(bootstrap, protocol, pattern, protocol)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(member.run)
            await until(lambda: set(member.values) >= wanted)
            assert sorted(member.values) == sorted(wanted)
            member.scope.cancel()

    trio.run(main)
