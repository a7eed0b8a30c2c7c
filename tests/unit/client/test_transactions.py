"""Transactions against a cluster in memory: all of a block counts or nothing, whatever fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from corelane.model.errors import ErrorCode
from corelane_client.batching import Message
from corelane_client.consumer import Consumer
from corelane_client.errors import ClientError, FencedError, KafkaError
from corelane_client.offsets import Edge
from corelane_client.producer import Producer
from corelane_client.protocol import Api
from corelane_client.settings import ConnectionSettings, ConsumerSettings, ProducerSettings
from tests.unit.client.fake import CUT, CUT_AFTER, Cluster, always, new, refuse_produce
from tests.unit.client.test_consumer import fill
from tests.unit.client.test_group_consumer import member

HURRY = ConnectionSettings(request_timeout_ms=1000)


@asynccontextmanager
async def producing(cluster: Cluster, name: str = "tx", **more: Any) -> AsyncIterator[Producer]:
    settings = ProducerSettings(transactional_id=name, connection=HURRY, **more)
    async with Producer(cluster.bootstrap, settings, cluster.connect) as producer:
        yield producer


async def seen(cluster: Cluster, topic: str = "t") -> list[bytes | None]:
    """Return what readers of committed transactions see."""
    settings = ConsumerSettings(isolation="read_committed")
    async with Consumer(cluster.bootstrap, settings, cluster.connect) as consumer:
        await consumer.assign(topic, stop=Edge.END)
        return sorted([record.value async for record in consumer], key=str)


async def write(producer: Producer, *values: bytes) -> None:
    async with producer.transaction():
        for value in values:
            await producer.enqueue(Message("t", value, key=value))


async def test_a_block_is_there_as_a_whole(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t", 3)
    async with producing(cluster) as producer:
        for number in range(3):
            await write(producer, *(b"%d%d" % (number, each) for each in range(4)))
    assert len(await seen(cluster)) == 12
    assert not cluster.transactions.known["tx"].partitions


async def test_an_exception_aborts_and_leaves_as_it_is(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t")
    async with producing(cluster) as producer:

        async def stumble() -> None:
            async with producer.transaction():
                await producer.send("t", b"lost")
                await producer.enqueue(Message("t", b"not even sent"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await stumble()
        await write(producer, b"kept")
    assert await seen(cluster) == [b"kept"]


async def test_a_cancellation_aborts(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t")
    with trio.move_on_after(1):
        async with producing(cluster) as producer, producer.transaction():
            await producer.send("t", b"lost")
            await trio.sleep_forever()
    assert not cluster.transactions.known["tx"].partitions
    assert await seen(cluster) == []


async def test_what_was_refused_aborts_though_nobody_looked(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t", 2)
    async with producing(cluster) as producer:
        cluster.script(Api.PRODUCE, *refuse_produce(ErrorCode.INVALID_RECORD))
        with pytest.raises(KafkaError) as caught:
            await write(producer, b"1", b"2", b"3", b"4")
        assert caught.value.name == "INVALID_RECORD"
        await write(producer, b"kept")
    assert await seen(cluster) == [b"kept"]


async def test_nothing_is_sent_after_a_failure(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t")
    async with producing(cluster) as producer:
        cluster.script(Api.PRODUCE, *refuse_produce(ErrorCode.INVALID_RECORD))

        async def go_on() -> None:
            async with producer.transaction():
                for _ in range(3):
                    with pytest.raises(KafkaError, match="partition 0"):
                        await producer.send("t", b"x")

        with pytest.raises(KafkaError):
            await go_on()
    assert len(cluster.asked(Api.PRODUCE)) == 1


@pytest.mark.parametrize("step", [CUT, CUT_AFTER])
@pytest.mark.parametrize(
    "api",
    [
        Api.FIND_COORDINATOR,
        Api.INIT_PRODUCER_ID,
        Api.ADD_PARTITIONS_TO_TXN,
        Api.PRODUCE,
        Api.END_TXN,
    ],
)
async def test_a_connection_may_be_cut_at_any_step(
    cluster: Cluster, clock: MockClock, api: Api, step: object
) -> None:
    cluster.topic("t", 2)
    cluster.script(api, always(step))
    async with producing(cluster) as producer:
        await write(producer, b"1", b"2", b"3")
        await write(producer, b"4")
    assert await seen(cluster) == [b"1", b"2", b"3", b"4"]


async def test_the_coordinator_may_move(cluster: Cluster, clock: MockClock) -> None:
    cluster.grow(2)
    cluster.topic("t", 2)
    async with producing(cluster) as producer:
        await write(producer, b"1")
        cluster.transactions.at = 1
        await write(producer, b"2")
        async with producer.transaction():
            await producer.send("t", b"3")
            cluster.transactions.at = 0
    assert await seen(cluster) == [b"1", b"2", b"3"]


async def test_a_coordinator_that_is_still_ending_the_last_one_is_waited_for(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t")
    busy = new("EndTxnResponse", error_code=ErrorCode.CONCURRENT_TRANSACTIONS)
    async with producing(cluster) as producer:
        cluster.script(Api.END_TXN, always(busy), always(busy))
        await write(producer, b"1")
    assert await seen(cluster) == [b"1"]


async def test_the_older_of_two_is_fenced_for_good(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t")
    async with producing(cluster) as former:
        await write(former, b"1")
        async with former.transaction():
            await former.send("t", b"2")
        async with producing(cluster) as newer:
            with pytest.raises(FencedError) as caught:
                await write(former, b"zombie")
            assert caught.value.name == "PRODUCER_FENCED"
            with pytest.raises(FencedError):
                await write(former, b"zombie")
            await write(newer, b"3")
    assert await seen(cluster) == [b"1", b"2", b"3"]


async def test_who_is_fenced_in_a_transaction_hears_so_at_its_next_record(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t")
    async with producing(cluster) as former:

        async def overtaken() -> None:
            async with former.transaction():
                await former.send("t", b"lost")
                async with producing(cluster):
                    await former.send("t", b"zombie")

        with pytest.raises(FencedError):
            await overtaken()
    assert await seen(cluster) == []


async def test_an_end_that_nobody_answers_is_an_unknown_outcome_and_the_next_one_waits_for_it(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t")
    async with producing(cluster) as producer:
        cluster.script(Api.END_TXN, *[always(CUT)] * 100)
        with pytest.raises(ClientError):
            await write(producer, b"lost")
        cluster.scripts[Api.END_TXN].clear()
        await write(producer, b"kept")  # under a new epoch, which has ended the last one
    assert cluster.transactions.known["tx"].epoch == 1
    assert await seen(cluster) == [b"kept"]


async def test_offsets_are_committed_with_the_records(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("out")
    values = fill(cluster.topic("t")[0], 9)
    async with producing(cluster) as producer, member(cluster, auto_commit=False) as consumer:

        async def copy(count: int, *, fails: bool = False) -> None:
            async with producer.transaction() as transaction:
                for _ in range(count):
                    await producer.enqueue(Message("out", (await anext(consumer)).value))
                await transaction.send_offsets(consumer)
                if fails:
                    raise ZeroDivisionError

        await copy(4)
        assert cluster.groups.committed("g") == {("t", 0): 4}
        with pytest.raises(ZeroDivisionError):
            await copy(3, fails=True)
        assert cluster.groups.committed("g") == {("t", 0): 4}
        await consumer.rewind()
        await copy(5)
    assert cluster.groups.committed("g") == {("t", 0): 9}
    assert await seen(cluster, "out") == values


async def test_records_are_sent_in_transactions_and_one_at_a_time(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t")
    async with producing(cluster) as producer:
        with pytest.raises(ClientError, match="no transaction open"):
            await producer.send("t", b"x")

        async def twice() -> None:
            async with producer.transaction(), producer.transaction():
                pass

        with pytest.raises(ClientError, match="has a transaction open"):
            await twice()
    plain = Producer(cluster.bootstrap, None, cluster.connect)
    with pytest.raises(ValueError, match="transactional_id"):
        plain.transaction()
    with pytest.raises(ValueError, match="acks"):
        Producer(cluster.bootstrap, ProducerSettings(transactional_id="tx", acks="1"))
