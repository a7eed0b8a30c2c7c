"""Stock clients find every record again: by offset, by time, at the end while it is written."""

import threading
import time

import pytest

from tests.conformance.clients.base import Client, ClientError, Place, Producing, Sent

OFFSET_OUT_OF_RANGE = 1
# librdkafka's own code for "no offset, and the reset policy is: error".
LOCAL_AUTO_OFFSET_RESET = -140
TAIL_S_MAX = 30.0


def filled(client: Client, topic: str, count: int, partitions: int = 1) -> None:
    """Create *topic* with records 0.., written `count` to each partition."""
    client.create_topic(topic, partitions, {})
    for partition in range(partitions):
        sent = [Sent(b"%d/%d" % (partition, i)) for i in range(count)]
        assert client.produce(topic, partition, sent, Producing()) == list(range(count))


@pytest.mark.parametrize("offset", [0, 1, 99, 199])
def test_reading_starts_exactly_where_asked(client: Client, topic: str, offset: int) -> None:
    """Also in the middle of a batch."""
    filled(client, topic, 200)
    received = client.consume(Place(topic, 0, offset), 200 - offset)
    assert [each.offset for each in received] == list(range(offset, 200))
    assert received[0].value == b"0/%d" % offset


def test_partitions_are_separate(client: Client, topic: str) -> None:
    filled(client, topic, 10, partitions=4)
    for partition in range(4):
        received = client.consume(Place(topic, partition, 0), 10)
        assert [each.value for each in received] == [b"%d/%d" % (partition, i) for i in range(10)]


def test_the_bounds_of_a_partition(client: Client, topic: str) -> None:
    client.create_topic(topic, 2, {})
    assert client.bounds(topic, 1) == (0, 0)
    client.produce(topic, 1, [Sent(b"x")] * 5, Producing())
    assert client.bounds(topic, 1) == (0, 5)
    assert client.bounds(topic, 0) == (0, 0)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_time_leads_to_the_first_record_that_is_not_older(
    client: Client, topic: str, codec: str
) -> None:
    """Inside a batch too, compressed or not: the record, not the batch, is looked for."""
    client.create_topic(topic, 1, {})
    start_ms = int(time.time() * 1000) - 100_000
    sent = [Sent(b"%d" % i, timestamp_ms=start_ms + i * 100) for i in range(50)]
    client.produce(topic, 0, sent, Producing(codec=codec))
    assert client.offset_at(topic, 0, start_ms) == 0
    assert client.offset_at(topic, 0, start_ms + 1) == 1
    assert client.offset_at(topic, 0, start_ms + 4_900) == 49
    assert client.offset_at(topic, 0, start_ms - 1) == 0
    assert client.offset_at(topic, 0, start_ms + 4_901) is None


def test_a_waiting_reader_is_told_at_once(client: Client, topic: str) -> None:
    """A fetch at the end waits for a record, and does not sleep through it."""
    filled(client, topic, 3)
    waited_s: list[float] = []

    def read_next() -> None:
        (received,) = client.consume(Place(topic, 0, 3), 1)
        waited_s.append(time.monotonic())
        assert received.value == b"late"

    reader = threading.Thread(target=read_next)
    reader.start()
    time.sleep(1)
    client.produce(topic, 0, [Sent(b"late")], Producing())
    produced_s = time.monotonic()
    reader.join(TAIL_S_MAX)
    assert waited_s, "the reader still waits"
    assert waited_s[0] - produced_s < TAIL_S_MAX


def test_an_offset_beyond_the_end_is_an_error(client: Client, topic: str) -> None:
    filled(client, topic, 3)
    with pytest.raises(ClientError) as refused:
        client.consume(Place(topic, 0, 1_000), 1)
    assert refused.value.code in (OFFSET_OUT_OF_RANGE, LOCAL_AUTO_OFFSET_RESET)


def test_much_is_read_as_it_was_written(client: Client, topic: str) -> None:
    """Several fetches, each cut at a limit of bytes, add up to the whole."""
    client.create_topic(topic, 1, {})
    sent = [Sent(b"%08d" % i * 128) for i in range(6_000)]
    client.produce(topic, 0, sent, Producing())
    received = client.consume(Place(topic, 0, 0), len(sent))
    assert [each.value for each in received] == [each.value for each in sent]
