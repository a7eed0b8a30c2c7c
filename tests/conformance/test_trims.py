"""Logs whose beginning is deleted, by request or by size, as stock clients see them."""

import time
from collections.abc import Iterator

import pytest

from tests.conformance import brokers
from tests.conformance.clients.base import Client, ClientError, Place, Producing, Sent
from tests.conformance.clients.librdkafka import Librdkafka

OFFSET_OUT_OF_RANGE = 1
UNKNOWN_TOPIC_OR_PARTITION = 3
POLICY_VIOLATION = 44
# librdkafka's own codes: it refuses by itself, or resets where it must not.
LOCAL_AUTO_OFFSET_RESET = -140
LOCAL_UNKNOWN_PARTITION = -190
TO_END = -1
PASS_MS = 500
TRIMMED_S_MAX = 60.0
MIB = 1 << 20


def filled(client: Client, topic: str, count: int = 20) -> list[int]:
    """Create *topic* with records of one millisecond each; return their timestamps."""
    client.create_topic(topic, 1, {})
    start_ms = int(time.time() * 1000) - 100_000
    times_ms = [start_ms + number for number in range(count)]
    sent = [Sent(b"%d" % number, timestamp_ms=times_ms[number]) for number in range(count)]
    assert client.produce(topic, 0, sent, Producing()) == list(range(count))
    return times_ms


def test_deleted_records_are_gone_and_the_others_stay(client: Client, topic: str) -> None:
    """Also where the new start lies inside a batch."""
    filled(client, topic)
    assert client.delete_records(topic, 0, 7) == 7
    assert client.bounds(topic, 0) == (7, 20)
    received = client.consume(Place(topic, 0, 7), 13)
    assert [each.offset for each in received] == list(range(7, 20))
    with pytest.raises(ClientError) as refused:
        client.consume(Place(topic, 0, 6), 1)
    assert refused.value.code in (OFFSET_OUT_OF_RANGE, LOCAL_AUTO_OFFSET_RESET)


def test_everything_can_be_deleted_and_offsets_go_on(client: Client, topic: str) -> None:
    filled(client, topic)
    assert client.delete_records(topic, 0, TO_END) == 20
    assert client.bounds(topic, 0) == (20, 20)
    assert client.produce(topic, 0, [Sent(b"next")], Producing()) == [20]
    (received,) = client.consume(Place(topic, 0, 20), 1)
    assert received.value == b"next"


def test_what_was_deleted_before_changes_nothing(client: Client, topic: str) -> None:
    filled(client, topic)
    assert client.delete_records(topic, 0, 12) == 12
    assert client.delete_records(topic, 0, 3) == 12


def test_records_beyond_the_end_cannot_be_deleted(client: Client, topic: str) -> None:
    filled(client, topic)
    with pytest.raises(ClientError) as refused:
        client.delete_records(topic, 0, 21)
    assert refused.value.code == OFFSET_OUT_OF_RANGE
    assert client.bounds(topic, 0) == (0, 20)


def test_records_of_compacted_topics_cannot_be_deleted(client: Client, topic: str) -> None:
    client.create_topic(topic, 1, {"cleanup.policy": "compact"})
    client.produce(topic, 0, [Sent(b"x", key=b"k")], Producing())
    with pytest.raises(ClientError) as refused:
        client.delete_records(topic, 0, 1)
    assert refused.value.code == POLICY_VIOLATION


def test_times_of_deleted_records_lead_to_the_first_that_is_left(
    client: Client, topic: str
) -> None:
    times_ms = filled(client, topic)
    client.delete_records(topic, 0, 7)
    assert client.offset_at(topic, 0, times_ms[15]) == 15
    assert client.offset_at(topic, 0, times_ms[7]) == 7
    assert client.offset_at(topic, 0, times_ms[19] + 1) is None


@pytest.fixture(scope="module")
def retaining() -> Iterator[Client]:
    """A client of a broker that looks twice a second for what it may trim.

    Of the kind that the other tests judge: the broker that `CORELANE_BOOTSTRAP` names is Kafka.
    """
    settings: dict[str, object] = {"log.retention.check.interval.ms": PASS_MS}
    if brokers.environment_bootstrap() is None:
        with brokers.corelane(settings) as running:
            yield Librdkafka(running.bootstrap)
        return
    with brokers.kafka(settings | {"log.initial.task.delay.ms": PASS_MS}) as running:
        yield Librdkafka(running.bootstrap)


def await_start(client: Client, topic: str, least: int) -> int:
    """Wait until a log begins at *least* or above; return where it does."""
    deadline_s = time.monotonic() + TRIMMED_S_MAX
    while client.bounds(topic, 0)[0] < least and time.monotonic() < deadline_s:
        time.sleep(PASS_MS / 1000)
    return client.bounds(topic, 0)[0]


def test_size_trims_whole_segments_and_leaves_what_was_asked_for(
    retaining: Client, topic: str
) -> None:
    configs = {"segment.bytes": str(MIB), "retention.bytes": str(2 * MIB)}
    retaining.create_topic(topic, 1, configs)
    for first in range(0, 60, 10):
        sent = [Sent(bytes(100_000)) for _ in range(10)]
        offsets = retaining.produce(topic, 0, sent, Producing())
        assert offsets == list(range(first, first + 10))
    start = await_start(retaining, topic, 30)
    assert 30 <= start <= 39, "between two and three segments of ten records are left"
    (received,) = retaining.consume(Place(topic, 0, start), 1)
    assert received.offset == start


def test_age_trims_a_quiet_log_to_its_end(retaining: Client, topic: str) -> None:
    retaining.create_topic(topic, 1, {"retention.ms": "1000"})
    retaining.produce(topic, 0, [Sent(b"x")] * 5, Producing())
    assert await_start(retaining, topic, 5) == 5
    assert retaining.produce(topic, 0, [Sent(b"y")], Producing()) == [5]
