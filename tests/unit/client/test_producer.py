"""A producer against a cluster that fails in every way the protocol has: in order, once, told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from corelane.model.errors import ErrorCode
from corelane.wire.records import batch_records, split_batches
from corelane_client.batching import Delivery, Message, Outcome
from corelane_client.errors import (
    ClientError,
    ConnectError,
    DeliveryTimeoutError,
    KafkaError,
    ProtocolError,
)
from corelane_client.partitioner import partition_of_key
from corelane_client.producer import Producer
from corelane_client.protocol import Api
from corelane_client.settings import ConnectionSettings, ProducerSettings
from tests.unit.client.fake import (
    CUT,
    CUT_AFTER,
    SILENCE,
    Cluster,
    Log,
    always,
    refuse_produce,
)


def values(log: Log) -> list[bytes | None]:
    """Return what a partition holds, in order."""
    batches = [batch for data in log.batches for batch in split_batches(data)]
    return [record.value for batch in batches for record in batch_records(batch, "t", 0)]


def numbered(count: int) -> list[bytes]:
    return [b"%04d" % number for number in range(count)]


@asynccontextmanager
async def producing(
    cluster: Cluster, settings: ProducerSettings | None = None
) -> AsyncIterator[Producer]:
    async with Producer(cluster.bootstrap, settings, cluster.connect) as producer:
        yield producer


async def test_a_record_is_acknowledged_with_its_place(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    async with producing(cluster) as producer:
        await producer.send("t", b"first")
        delivery = await producer.send("t", b"second", b"key", headers=(("h", b"1"),))
    assert (delivery.topic, delivery.partition, delivery.offset) == ("t", 0, 1)
    assert values(log) == [b"first", b"second"]


async def test_send_does_not_linger_and_enqueue_does(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    async with producing(cluster, ProducerSettings(linger_ms=1000)) as producer:
        start_s = trio.current_time()
        await producer.send("t", b"now")
        assert trio.current_time() == start_s
        pending = [await producer.enqueue(Message("t", value)) for value in (b"a", b"b")]
        assert not pending[0].is_done
        deliveries = [await each.wait() for each in pending]
        assert trio.current_time() == start_s + 1
    assert [each.offset for each in deliveries] == [1, 2]
    assert len(log.batches) == 2


async def test_leaving_the_block_waits_for_all_that_was_handed_over(
    cluster: Cluster, clock: MockClock
) -> None:
    (log,) = cluster.topic("t")
    outcomes: list[Outcome] = []
    async with producing(cluster, ProducerSettings(linger_ms=10_000)) as producer:
        for value in numbered(100):
            await producer.enqueue(Message("t", value), outcomes.append)
        start_s = trio.current_time()
    assert trio.current_time() == start_s
    assert values(log) == numbered(100)
    assert [each.offset for each in outcomes if isinstance(each, Delivery)] == [*range(100)]


async def test_a_key_goes_where_java_would_send_it(cluster: Cluster, clock: MockClock) -> None:
    cluster.grow(3)
    cluster.topic("t", 7)
    async with producing(cluster) as producer:
        for key in numbered(20):
            delivery = await producer.send("t", b"v", key)
            assert delivery.partition == partition_of_key(key, 7)


async def test_keyless_records_fill_batches_and_reach_every_partition(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.grow(2)
    logs = cluster.topic("t", 4)
    async with producing(cluster, ProducerSettings(batch_bytes=1000)) as producer:
        for value in numbered(2000):
            await producer.enqueue(Message("t", value))
    assert all(logs_of.end for logs_of in logs)
    assert sum(log.end for log in logs) == 2000
    assert sum(len(log.batches) for log in logs) < 200


async def test_batches_of_several_partitions_share_a_request(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t", 10)
    async with producing(cluster) as producer:
        for number in range(10):
            await producer.enqueue(Message("t", b"v", partition=number))
    assert len(cluster.asked(Api.PRODUCE)) == 1


@pytest.mark.parametrize(
    "error",
    [
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.CORRUPT_MESSAGE,
    ],
)
async def test_what_may_pass_is_tried_again_in_order(
    cluster: Cluster, clock: MockClock, error: ErrorCode
) -> None:
    (log,) = cluster.topic("t")
    cluster.script(Api.PRODUCE, *refuse_produce(error, 3))
    async with producing(cluster, ProducerSettings(batch_bytes=300)) as producer:
        for value in numbered(200):
            await producer.enqueue(Message("t", value))
    assert values(log) == numbered(200)


@pytest.mark.parametrize("fate", [CUT, CUT_AFTER, SILENCE])
async def test_a_lost_answer_never_repeats_a_record(
    cluster: Cluster, clock: MockClock, fate: object
) -> None:
    (log,) = cluster.topic("t")
    cluster.script(Api.PRODUCE, *[always(each) for each in (None, fate, fate, None, None, fate)])
    async with producing(cluster, ProducerSettings(batch_bytes=300)) as producer:
        for value in numbered(200):
            await producer.enqueue(Message("t", value))
    assert values(log) == numbered(200)


async def test_a_new_leader_is_found(cluster: Cluster, clock: MockClock) -> None:
    cluster.grow(2)
    (log,) = cluster.topic("t")
    async with producing(cluster) as producer:
        await producer.send("t", b"a")
        cluster.leaders["t", 0] = 1
        await producer.send("t", b"b")
    assert values(log) == [b"a", b"b"]


async def test_a_broker_that_is_down_for_a_while_is_waited_for(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.grow(2)
    (log,) = cluster.topic("t")
    cluster.leaders["t", 0] = 1
    cluster.down.add(1)

    async def come_back() -> None:
        await trio.sleep(30)
        cluster.down.clear()

    cluster.nursery.start_soon(come_back)
    async with producing(cluster) as producer:
        await producer.send("t", b"a")
    assert values(log) == [b"a"]


async def test_a_delivery_time_out_says_what_stood_in_the_way(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.grow(2)
    cluster.topic("t")
    cluster.leaders["t", 0] = 1
    cluster.down.add(1)
    async with producing(cluster, ProducerSettings(delivery_timeout_ms=3000)) as producer:
        start_s = trio.current_time()
        with pytest.raises(DeliveryTimeoutError, match=r"in 3000 ms.*broker-1:9092.*refused"):
            await producer.send("t", b"a")
        assert 3 <= trio.current_time() - start_s < 5


async def test_a_refused_batch_fails_alone(cluster: Cluster, clock: MockClock) -> None:
    """What follows goes on under another producer id: the broker would refuse the hole."""
    (log,) = cluster.topic("t")
    cluster.script(Api.PRODUCE, *refuse_produce(ErrorCode.INVALID_RECORD))
    outcomes: list[Outcome] = []
    async with producing(cluster, ProducerSettings(batch_bytes=300)) as producer:
        for value in numbered(100):
            await producer.enqueue(Message("t", value), outcomes.append)
    refused = [each for each in outcomes if isinstance(each, KafkaError)]
    assert 0 < len(refused) < 20
    assert {each.code for each in refused} == {ErrorCode.INVALID_RECORD}
    assert values(log) == numbered(100)[len(refused) :]
    assert len(cluster.asked(Api.INIT_PRODUCER_ID)) == 2


async def test_a_batch_too_large_for_the_topic_is_split(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    cluster.script(Api.PRODUCE, *refuse_produce(ErrorCode.MESSAGE_TOO_LARGE, 3))
    async with producing(cluster, ProducerSettings(linger_ms=50)) as producer:
        for value in numbered(100):
            await producer.enqueue(Message("t", value))
    assert values(log) == numbered(100)
    assert len(log.batches) > 2


async def test_one_record_too_large_is_the_users_to_hear(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t")
    cluster.script(Api.PRODUCE, *refuse_produce(ErrorCode.MESSAGE_TOO_LARGE))
    async with producing(cluster) as producer:
        with pytest.raises(KafkaError, match="larger than the topic allows"):
            await producer.send("t", b"a")


async def test_acks_0_has_no_answer_and_no_offset(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    async with producing(cluster, ProducerSettings(acks="0")) as producer:
        delivery = await producer.send("t", b"a")
        await wait_all_tasks_blocked()
    assert delivery.offset == -1
    assert values(log) == [b"a"]
    assert cluster.asked(Api.INIT_PRODUCER_ID) == []


async def test_acks_0_leaves_nothing_unsent_behind(cluster: Cluster, clock: MockClock) -> None:
    """Found in a slow run: a producer that was closed at once cut what it had just taken."""
    (log,) = cluster.topic("t")
    async with producing(cluster, ProducerSettings(acks="0")) as producer:
        for value in numbered(3):
            await producer.send("t", value)
    await wait_all_tasks_blocked()
    assert values(log) == numbered(3)


class SlowToTell(Cluster):
    """Answers about metadata come late, once that is wanted, and what was sent after waits."""

    is_slow = False

    async def send(
        self, stream: trio.abc.Stream, api: Api, version: int, correlation_id: int, answer: Any
    ) -> None:
        if api == Api.METADATA and self.is_slow:
            await trio.sleep(1)
        await super().send(stream, api, version, correlation_id, answer)


async def test_acks_0_is_not_lost_for_an_answer_that_comes_after_the_end(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    """A connection that is closed before an answer arrives is reset, with what was not read."""
    cluster = SlowToTell(nursery)
    (log,) = cluster.topic("t")

    async def ask(producer: Producer) -> None:
        with suppress(ClientError, trio.ClosedResourceError):
            await producer.enqueue(Message("unknown", b"x"))

    async with producing(cluster, ProducerSettings(acks="0")) as producer:
        await producer.send("t", b"first")
        cluster.is_slow = True
        nursery.start_soon(ask, producer)
        await wait_all_tasks_blocked()
        await producer.send("t", b"second")
    await trio.sleep(10)
    assert values(log) == [b"first", b"second"]


async def test_acks_0_does_not_wait_for_ever_at_its_end(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t")
    connection = ConnectionSettings(request_timeout_ms=5000)
    async with producing(cluster, ProducerSettings(acks="0", connection=connection)) as producer:
        cluster.script(Api.PRODUCE, always(SILENCE))
        await producer.send("t", b"first")
        start_s = trio.current_time()
    assert trio.current_time() == start_s + 5


@pytest.mark.parametrize(
    "settings", [ProducerSettings(acks="1"), ProducerSettings(idempotence=False)]
)
async def test_without_idempotence_nothing_overtakes_either(
    cluster: Cluster, clock: MockClock, settings: ProducerSettings
) -> None:
    (log,) = cluster.topic("t")
    cluster.script(Api.PRODUCE, always(CUT), *refuse_produce(ErrorCode.NOT_ENOUGH_REPLICAS))
    async with producing(cluster, settings) as producer:
        for value in numbered(100):
            await producer.enqueue(Message("t", value))
    assert values(log) == numbered(100)
    assert cluster.asked(Api.INIT_PRODUCER_ID) == []


async def test_a_full_buffer_makes_senders_wait(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    settings = ProducerSettings(buffer_bytes=2000, linger_ms=1000)
    async with producing(cluster, settings) as producer:
        start_s = trio.current_time()
        for value in numbered(100):
            await producer.enqueue(Message("t", value))
            assert producer.buffered_bytes <= 2000
        assert trio.current_time() > start_s
    assert values(log) == numbered(100)


async def test_a_record_larger_than_the_buffer_goes_alone(
    cluster: Cluster, clock: MockClock
) -> None:
    (log,) = cluster.topic("t")
    async with producing(cluster, ProducerSettings(buffer_bytes=100)) as producer:
        await producer.enqueue(Message("t", bytes(1000)))
        await producer.enqueue(Message("t", bytes(1000)))
    assert log.end == 2


async def test_a_missing_topic_is_told_at_once(cluster: Cluster, clock: MockClock) -> None:
    async with producing(cluster) as producer:
        start_s = trio.current_time()
        with pytest.raises(KafkaError, match="'t': the topic or partition does not exist"):
            await producer.send("t", b"a")
        assert trio.current_time() - start_s < 1


async def test_a_missing_topic_is_made_where_that_is_wanted(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.auto_create = True
    async with producing(cluster, ProducerSettings(create_topics=True)) as producer:
        await producer.send("t", b"a")
    assert values(cluster.topics["t"][0]) == [b"a"]


async def test_a_partition_that_is_not_there_is_refused(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t", 2)
    async with producing(cluster) as producer:
        with pytest.raises(KafkaError, match="has 2 partitions and none of number 2"):
            await producer.send("t", b"a", partition=2)


async def test_the_blocks_own_error_leaves_as_it_is(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t")
    cluster.script(Api.PRODUCE, always(SILENCE))
    outcomes: list[Outcome] = []

    async def block() -> None:
        async with producing(cluster, ProducerSettings(linger_ms=1000)) as producer:
            await producer.enqueue(Message("t", b"in flight"), outcomes.append)
            await trio.sleep(2)
            await producer.enqueue(Message("t", b"waiting"), outcomes.append)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await block()
    assert len(outcomes) == 2
    assert all(isinstance(each, ConnectError) for each in outcomes)


async def test_after_the_block_nothing_is_taken_any_more(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t")
    async with producing(cluster, ProducerSettings(buffer_bytes=100)) as producer:
        await producer.send("t", b"a")
    with pytest.raises(trio.ClosedResourceError):
        await producer.send("t", b"b")


async def test_who_waits_for_room_is_told_of_the_end(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t")
    cluster.script(Api.PRODUCE, always(SILENCE))
    ended = trio.Event()

    async def wait_for_room(producer: Producer) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await producer.enqueue(Message("t", bytes(100)))
        ended.set()

    async def block() -> None:
        async with producing(cluster, ProducerSettings(buffer_bytes=100)) as producer:
            await producer.enqueue(Message("t", bytes(100)))
            cluster.nursery.start_soon(wait_for_room, producer)
            await trio.sleep(1)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await block()
    await ended.wait()


async def test_no_broker_at_the_start_is_told_at_once(cluster: Cluster) -> None:
    cluster.down.add(0)
    with pytest.raises(ConnectError, match="refused"):
        async with producing(cluster):
            pass


async def test_a_broker_that_cannot_produce_fails_what_waits(
    cluster: Cluster, clock: MockClock
) -> None:
    cluster.topic("t")
    cluster.ranges[Api.PRODUCE] = (90, 91)
    async with producing(cluster) as producer:
        with pytest.raises(ProtocolError, match="Produce in versions 90 to 91"):
            await producer.send("t", b"a")


async def test_a_broker_has_five_requests_at_most(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t", 10)
    cluster.script(Api.PRODUCE, always(SILENCE))
    settings = ProducerSettings(request_bytes_max=1, delivery_timeout_ms=1000)
    outcomes: list[Outcome] = []
    async with producing(cluster, settings) as producer:
        for partition in range(10):
            await producer.enqueue(Message("t", b"v", partition=partition), outcomes.append)
        await trio.sleep(0.5)
        connection = producer._pool.opened(0)
        assert connection is not None
        assert connection.pending_count == 5
    assert len(outcomes) == 10


async def test_no_partition_starves_another(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t", 10)
    settings = ProducerSettings(request_bytes_max=1, batch_bytes=1)
    async with producing(cluster, settings) as producer:
        for _ in range(30):
            for partition in range(10):
                await producer.enqueue(Message("t", b"v", partition=partition))
    requests = cluster.asked(Api.PRODUCE)
    served = [request.topic_data[0].partition_data[0].index for request in requests]
    for partition in range(10):
        share = served[:150].count(partition)
        assert 10 <= share <= 20, f"partition {partition} had {share} of 150 turns"


async def test_many_tasks_share_a_producer(cluster: Cluster, clock: MockClock) -> None:
    cluster.grow(3)
    logs = cluster.topic("t", 6)

    async def send(first: int) -> None:
        for number in range(first, first + 20):
            await producer.send("t", b"%d" % number, b"%d" % first)

    settings = ProducerSettings(connection=ConnectionSettings(client_id="many"))
    async with producing(cluster, settings) as producer, trio.open_nursery() as senders:
        for task in range(10):
            senders.start_soon(send, task * 100)
    assert sum(log.end for log in logs) == 200
    assert len(cluster.asked(Api.METADATA)) == 2  # at the start, and for the topic
    for log in logs:
        by_task: dict[int, list[int]] = {}
        for value in values(log):
            assert value is not None
            by_task.setdefault(int(value) // 100, []).append(int(value))
        assert all(numbers == sorted(numbers) for numbers in by_task.values())
