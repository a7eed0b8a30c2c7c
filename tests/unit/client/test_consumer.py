"""A consumer against a cluster in memory: everything once, in order, up to where it was asked."""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import crc32c
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from corelane.model.errors import ErrorCode
from corelane.wire.compression import Compression
from corelane.wire.records import BatchBuilder, Producer, encode_batch, split_batches
from corelane_client.committed import Aborted, visible
from corelane_client.consumer import Consumer
from corelane_client.errors import ConnectError, CorruptRecordsError, KafkaError
from corelane_client.offsets import AtTime, Edge
from corelane_client.protocol import Api
from corelane_client.settings import ConnectionSettings, ConsumerSettings
from tests.unit.client.fake import CUT, SILENCE, Cluster, Log, always, new

TRANSACTIONAL = 0x10
CONTROL = 0x20


def batch(
    *values: bytes,
    attributes: int = 0,
    producer_id: int = -1,
    time_ms: int = 1,
    codec: Compression = Compression.NONE,
) -> bytes:
    builder = BatchBuilder()
    for value in values:
        builder.append(time_ms, None, value, ())
    data = bytearray(encode_batch(builder.payload(codec), Producer(producer_id, 0, 0)))
    data[22] |= attributes
    data[17:21] = struct.pack(">I", crc32c.crc32c(bytes(data[21:])))
    return bytes(data)


def marker(producer_id: int, kind: int) -> bytes:
    builder = BatchBuilder()
    builder.append(1, struct.pack(">hh", 0, kind), struct.pack(">hi", 0, 0), ())
    data = bytearray(encode_batch(builder.payload(Compression.NONE), Producer(producer_id, 0, -1)))
    data[22] |= TRANSACTIONAL | CONTROL
    data[17:21] = struct.pack(">I", crc32c.crc32c(bytes(data[21:])))
    return bytes(data)


def fill(log: Log, count: int, per_batch: int = 3) -> list[bytes]:
    """Write records numbered from 0."""
    values = [b"%04d" % number for number in range(count)]
    for at in range(0, count, per_batch):
        log.write(batch(*values[at : at + per_batch], time_ms=1000 + at))
    return values


@asynccontextmanager
async def consuming(
    cluster: Cluster, settings: ConsumerSettings | None = None
) -> AsyncIterator[Consumer]:
    async with Consumer(cluster.bootstrap, settings, cluster.connect) as consumer:
        yield consumer


async def rest(consumer: Consumer) -> list[bytes | None]:
    return [record.value async for record in consumer]


async def test_everything_comes_in_order_up_to_the_end(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 100)
    async with consuming(cluster) as consumer:
        await consumer.assign("t", stop=Edge.END)
        assert await rest(consumer) == values
        assert consumer.position("t", 0) == 100


@pytest.mark.parametrize("codec", Compression)
async def test_every_codec_is_read(cluster: Cluster, codec: Compression) -> None:
    (log,) = cluster.topic("t")
    log.write(batch(b"a", b"b" * 1000, codec=codec))
    async with consuming(cluster) as consumer:
        await consumer.assign("t", stop=Edge.END)
        assert await rest(consumer) == [b"a", b"b" * 1000]


async def test_start_and_stop_may_lie_inside_batches(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 20)
    async with consuming(cluster) as consumer:
        await consumer.assign("t", start=4, stop=11)
        assert await rest(consumer) == values[4:11]
        await consumer.seek("t", 0, 9)
        assert await rest(consumer) == values[9:11]


@pytest.mark.parametrize(
    ("start", "first"),
    [(Edge.BEGINNING, 0), (Edge.END, 20), (AtTime(1006), 6), (AtTime(5000), 20), (13, 13)],
)
async def test_a_start_may_be_an_end_or_a_time(
    cluster: Cluster, clock: MockClock, start: int | Edge | AtTime, first: int
) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 20)
    async with consuming(cluster) as consumer:
        await consumer.assign("t", start=start, stop=Edge.END)
        assert await rest(consumer) == values[first:]


async def test_all_partitions_of_all_brokers_are_read(cluster: Cluster, clock: MockClock) -> None:
    cluster.grow(3)
    logs = cluster.topic("t", 7)
    for log in logs:
        fill(log, 50)
    async with consuming(cluster) as consumer:
        await consumer.assign("t", stop=Edge.END)
        places = [(record.partition, record.offset) async for record in consumer]
    assert sorted(places) == [(part, offset) for part in range(7) for offset in range(50)]
    for part in range(7):
        assert [offset for each, offset in places if each == part] == [*range(50)]


async def test_new_records_come_as_they_are_written(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    async with consuming(cluster) as consumer:
        await consumer.assign("t")

        async def write_later() -> None:
            await trio.sleep(60)
            log.write(batch(b"late"))
            cluster.changed.set()

        cluster.nursery.start_soon(write_later)
        assert (await anext(consumer)).value == b"late"
        assert trio.current_time() == 60


async def test_read_returns_a_batch_at_a_time(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    fill(log, 6)
    async with consuming(cluster) as consumer:
        await consumer.assign("t", stop=Edge.END)
        first = await anext(consumer)
        sizes = [len(await consumer.read()) for _ in range(3)]
    assert first.offset == 0
    assert sizes == [2, 3, 0]


async def test_prefetching_is_bounded(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    fill(log, 300)
    batch_bytes = len(log.batches[0])
    settings = ConsumerSettings(partition_bytes_max=batch_bytes, prefetch_bytes=2 * batch_bytes)
    async with consuming(cluster, settings) as consumer:
        await consumer.assign("t", stop=Edge.END)
        await anext(consumer)
        await trio.sleep(100)
        assert len(cluster.asked(Api.FETCH)) <= 3
        assert len(await rest(consumer)) == 299


async def test_a_seek_forgets_what_is_on_its_way(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 30)
    async with consuming(cluster) as consumer:
        await consumer.assign("t", stop=30)
        await anext(consumer)
        await consumer.seek("t", 0, 25)
        assert await rest(consumer) == values[25:]


async def test_an_answer_from_before_a_seek_does_not_count(
    cluster: Cluster, clock: MockClock
) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 3)
    async with consuming(cluster) as consumer:
        await consumer.assign("t", start=Edge.END, stop=4)
        await wait_all_tasks_blocked()
        await consumer.seek("t", 0, 0)
        log.write(batch(b"new"))
        cluster.changed.set()
        assert await rest(consumer) == [*values, b"new"]


async def test_prefetching_stops_while_enough_waits(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    fill(log, 3)
    async with consuming(cluster, ConsumerSettings(prefetch_bytes=1)) as consumer:
        await consumer.assign("t", stop=6)
        await trio.sleep(1)
        log.write(batch(b"x", b"y", b"z"))
        await trio.sleep(100)
        assert len(cluster.asked(Api.FETCH)) == 1
        assert len(await rest(consumer)) == 6


async def test_a_partition_without_a_leader_is_waited_for_with_patience(
    cluster: Cluster, clock: MockClock
) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 3)
    cluster.leaders["t", 0] = -1

    async def elect() -> None:
        await trio.sleep(10)
        cluster.leaders["t", 0] = 0

    cluster.nursery.start_soon(elect)
    async with consuming(cluster) as consumer:
        await consumer.assign("t", start=0, stop=3)
        assert await rest(consumer) == values
    assert trio.current_time() < 11
    assert len(cluster.asked(Api.METADATA)) < 110


async def test_a_new_leader_is_found(cluster: Cluster, clock: MockClock) -> None:
    cluster.grow(2)
    (log,) = cluster.topic("t")
    values = fill(log, 6)
    async with consuming(cluster) as consumer:
        await consumer.assign("t", stop=9)
        seen = [(await anext(consumer)).value for _ in range(6)]
        cluster.leaders["t", 0] = 1
        log.write(batch(b"x", b"y", b"z"))
        assert seen + await rest(consumer) == [*values, b"x", b"y", b"z"]


@pytest.mark.parametrize("fate", [CUT, SILENCE])
async def test_a_lost_answer_is_asked_for_again(
    cluster: Cluster, clock: MockClock, fate: object
) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 9)
    cluster.script(Api.FETCH, always(fate), always(fate))
    settings = ConsumerSettings(
        connection=ConnectionSettings(request_timeout_ms=1000, retry_timeout_ms=10_000)
    )
    async with consuming(cluster, settings) as consumer:
        await consumer.assign("t", stop=Edge.END)
        assert await rest(consumer) == values


async def test_brokers_that_stay_away_are_reported_in_the_end(
    cluster: Cluster, clock: MockClock
) -> None:
    (log,) = cluster.topic("t")
    fill(log, 3)
    async with consuming(cluster) as consumer:
        await consumer.assign("t")
        assert len(await consumer.read()) == 3
        cluster.down.add(0)
        cluster.script(Api.FETCH, always(CUT))
        cluster.changed.set()
        with pytest.raises(ConnectError, match="refused"):
            await consumer.read()
        assert 25 < trio.current_time() < 40
        cluster.down.clear()
        log.write(batch(b"back"))
        assert (await anext(consumer)).value == b"back"


async def test_an_offset_that_is_gone_is_an_error(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 9)
    log.start = 6
    async with consuming(cluster) as consumer:
        await consumer.assign("t", start=2, stop=9)
        with pytest.raises(KafkaError, match="offset 2 is not in the log") as caught:
            await rest(consumer)
        assert caught.value.code == ErrorCode.OFFSET_OUT_OF_RANGE
        await consumer.seek("t", 0, Edge.BEGINNING)
        assert await rest(consumer) == values[6:]


async def test_an_offset_that_is_gone_may_mean_the_beginning(
    cluster: Cluster, clock: MockClock
) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 9)
    log.start = 6
    async with consuming(cluster, ConsumerSettings(lost_offset="beginning")) as consumer:
        await consumer.assign("t", start=2, stop=9)
        assert await rest(consumer) == values[6:]


async def test_a_damaged_batch_is_reported_and_can_be_passed(
    cluster: Cluster, clock: MockClock
) -> None:
    (log,) = cluster.topic("t")
    values = fill(log, 9)
    sound = log.batches[1]
    log.batches[1] = sound[:-1] + bytes([sound[-1] ^ 1])
    settings = ConsumerSettings(partition_bytes_max=1)
    async with consuming(cluster, settings) as consumer:
        await consumer.assign("t", stop=9)
        assert [(await anext(consumer)).value for _ in range(3)] == values[:3]
        with pytest.raises(CorruptRecordsError, match="checksum of the batch at offset 3"):
            await anext(consumer)
        await consumer.seek("t", 0, 6)
        assert await rest(consumer) == values[6:]


async def test_a_lie_behind_a_good_checksum_is_reported(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    lie = bytearray(batch(b"a", b"b"))
    lie[60] = 3  # says three records
    lie[17:21] = struct.pack(">I", crc32c.crc32c(bytes(lie[21:])))
    log.write(bytes(lie))
    log.write(batch(b"c"))
    async with consuming(cluster) as consumer:
        await consumer.assign("t", stop=3)
        with pytest.raises(CorruptRecordsError, match="offset 0"):
            await rest(consumer)
        await consumer.seek("t", 0, 2)
        assert await rest(consumer) == [b"c"]


async def test_markers_are_passed_over_even_at_the_end(cluster: Cluster, clock: MockClock) -> None:
    (log,) = cluster.topic("t")
    log.write(batch(b"a", attributes=TRANSACTIONAL, producer_id=7))
    log.write(marker(7, kind=1))
    async with consuming(cluster) as consumer:
        await consumer.assign("t", stop=Edge.END)
        assert await rest(consumer) == [b"a"]
        assert consumer.position("t", 0) == 2


async def test_aborted_records_are_hidden_from_who_wants_committed(
    cluster: Cluster, clock: MockClock
) -> None:
    (log,) = cluster.topic("t")
    log.write(batch(b"aborted", attributes=TRANSACTIONAL, producer_id=7))
    log.write(batch(b"plain"))
    log.write(batch(b"other", attributes=TRANSACTIONAL, producer_id=8))
    log.write(marker(7, kind=0))
    log.write(batch(b"later", attributes=TRANSACTIONAL, producer_id=7))
    log.write(marker(7, kind=1))
    log.aborted = [(7, 0)]
    async with consuming(cluster, ConsumerSettings(isolation="read_committed")) as consumer:
        await consumer.assign("t", stop=Edge.END)
        assert await rest(consumer) == [b"plain", b"other", b"later"]
    assert cluster.asked(Api.FETCH)[0].isolation_level == 1
    assert cluster.asked(Api.LIST_OFFSETS)[0].isolation_level == 1


def test_two_aborted_transactions_of_one_producer_are_told_apart() -> None:
    log = Log()
    for data in (
        batch(b"aborted", attributes=TRANSACTIONAL, producer_id=7),
        marker(7, kind=0),
        batch(b"committed", attributes=TRANSACTIONAL, producer_id=7),
        marker(7, kind=1),
        batch(b"aborted too", attributes=TRANSACTIONAL, producer_id=7),
        marker(7, kind=0),
    ):
        log.write(data)
    batches = [*split_batches(b"".join(log.batches))]
    shown = [seen for _, seen in visible(batches, [Aborted(7, 4), Aborted(7, 0)])]
    assert shown == [False, False, True, False, False, False]


async def test_a_refused_partition_is_reported(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t")
    row = new("FetchResponse.PartitionData", error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED)
    topic = new("FetchResponse.FetchableTopicResponse", topic_id=b"t".ljust(16, b"."))
    topic.partitions = [row]
    cluster.script(Api.FETCH, always(new("FetchResponse", responses=[topic])))
    async with consuming(cluster) as consumer:
        await consumer.assign("t")
        with pytest.raises(KafkaError, match="the user may not access the topic"):
            await anext(consumer)


async def test_an_old_broker_is_asked_by_topic_name(cluster: Cluster, clock: MockClock) -> None:
    cluster.ranges[Api.FETCH] = (4, 11)
    cluster.ranges[Api.METADATA] = (0, 8)
    (log,) = cluster.topic("t")
    values = fill(log, 3)
    async with consuming(cluster) as consumer:
        await consumer.assign("t", stop=3)
        assert await rest(consumer) == values


async def test_what_is_not_there_cannot_be_assigned(cluster: Cluster, clock: MockClock) -> None:
    cluster.topic("t")
    async with consuming(cluster) as consumer:
        with pytest.raises(KafkaError, match="'nowhere'"):
            await consumer.assign("nowhere")
        with pytest.raises(KafkaError, match="none of number 1"):
            await consumer.assign("t", [1])


async def test_unassigned_partitions_send_nothing_more(cluster: Cluster, clock: MockClock) -> None:
    logs = cluster.topic("t", 2)
    for log in logs:
        fill(log, 9)
    async with consuming(cluster) as consumer:
        await consumer.assign("t", stop=9)
        await trio.sleep(1)
        consumer.unassign("t", 1)
        assert {record.partition async for record in consumer} == {0}
