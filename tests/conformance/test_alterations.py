"""Topics and brokers that are altered while they serve, as stock clients do it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.conformance.clients.base import (
    Administrator,
    Change,
    Client,
    ClientError,
    Place,
    Producing,
    Sent,
    Where,
)
from tests.conformance.clients.kafka_python import KafkaPython

UNKNOWN_TOPIC_OR_PARTITION = 3
MESSAGE_TOO_LARGE = 10
INVALID_PARTITIONS = 37
INVALID_CONFIG = 40
INVALID_REQUEST = 42
ELECTION_NOT_NEEDED = 84
INVALID_RECORD = 87
LEARNED_S_MAX = 30.0
WEEK_MS = "604800000"
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def await_configs(read: Callable[[], dict[str, str]], **expected: str) -> None:
    """Wait until configurations are as expected (_ for the dot): Kafka learns them late."""
    wanted = {name.replace("_", "."): value for name, value in expected.items()}
    deadline_s = time.monotonic() + LEARNED_S_MAX
    while not wanted.items() <= read().items() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    found = read()
    assert {name: found[name] for name in wanted} == wanted


def test_added_partitions_serve_and_the_others_stay(client: Client, topic: str) -> None:
    client.create_topic(topic, 1, {})
    client.produce(topic, 0, [Sent(b"before")], Producing())
    client.add_partitions(topic, 4)
    assert client.partitions(topic) == {0, 1, 2, 3}
    for partition in range(1, 4):
        assert client.produce(topic, partition, [Sent(b"%d" % partition)], Producing()) == [0]
        (received,) = client.consume(Place(topic, partition, 0), 1)
        assert received.value == b"%d" % partition
    assert client.produce(topic, 0, [Sent(b"after")], Producing()) == [1]
    assert [each.value for each in client.consume(Place(topic, 0, 0), 2)] == [b"before", b"after"]


@pytest.mark.parametrize("count", [3, 2, 1])
def test_partitions_do_not_become_fewer(client: Client, topic: str, count: int) -> None:
    client.create_topic(topic, 3, {})
    with pytest.raises(ClientError) as refused:
        client.add_partitions(topic, count)
    assert refused.value.code == INVALID_PARTITIONS
    assert client.partitions(topic) == {0, 1, 2}


def test_a_topic_that_is_not_there_gets_no_partitions(client: Client, topic: str) -> None:
    with pytest.raises(ClientError) as refused:
        client.add_partitions(topic, 3)
    assert refused.value.code == UNKNOWN_TOPIC_OR_PARTITION


def test_configurations_are_replaced_as_a_whole(client: Client, topic: str) -> None:
    client.create_topic(topic, 1, {"retention.ms": "123456"})
    client.replace_configs(topic, {"segment.ms": "7000000", "max.message.bytes": "2000"})
    read = partial(client.configs, topic)
    await_configs(read, segment_ms="7000000", max_message_bytes="2000")
    if client.name != "kafka-python":  # this one names all that is set, so that it stays
        await_configs(read, retention_ms=WEEK_MS)


def test_a_wrong_configuration_leaves_all_as_it_was(client: Client, topic: str) -> None:
    client.create_topic(topic, 1, {"retention.ms": "123456"})
    for wrong in ({"segment.ms": "soon"}, {"no.such.setting": "1"}, {"cleanup.policy": "burn"}):
        with pytest.raises(ClientError) as refused:
            client.replace_configs(topic, wrong | {"retention.ms": "5"})
        assert refused.value.code == INVALID_CONFIG
    assert client.configs(topic)["retention.ms"] == "123456"


def test_single_configurations_are_changed(administrator: Administrator, topic: str) -> None:
    administrator.create_topic(topic, 1, {"retention.ms": "123456", "segment.ms": "7000000"})
    where = Where(topic)
    administrator.alter_configs(
        where, Change("SET", "max.message.bytes", "2000"), Change("DELETE", "segment.ms")
    )
    read = partial(administrator.configs_of, where)
    await_configs(read, max_message_bytes="2000", retention_ms="123456", segment_ms=WEEK_MS)
    administrator.alter_configs(where, Change("APPEND", "cleanup.policy", "compact"))
    await_configs(read, cleanup_policy="delete,compact")
    administrator.alter_configs(where, Change("SUBTRACT", "cleanup.policy", "delete"))
    await_configs(read, cleanup_policy="compact", max_message_bytes="2000")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (Change("SET", "segment.ms", "soon"), INVALID_CONFIG),
        (Change("SET", "segment.ms", "0"), INVALID_CONFIG),
        (Change("SET", "no.such.setting", "1"), INVALID_CONFIG),
        (Change("APPEND", "segment.ms", "7"), INVALID_CONFIG),
        (Change("SET", "compression.gzip.level", "0"), INVALID_CONFIG),
        (Change("SET", "leader.replication.throttled.replicas", "x"), INVALID_CONFIG),
    ],
    ids=["text", "range", "name", "no list", "level", "replicas"],
)
def test_one_wrong_change_refuses_those_beside_it(
    administrator: Administrator, topic: str, change: Change, code: int
) -> None:
    administrator.create_topic(topic, 1, {})
    with pytest.raises(ClientError) as refused:
        administrator.alter_configs(Where(topic), Change("SET", "retention.ms", "5"), change)
    assert refused.value.code == code
    assert administrator.configs_of(Where(topic))["retention.ms"] != "5"


def test_a_topic_that_is_not_there_is_not_altered(administrator: Administrator, topic: str) -> None:
    with pytest.raises(ClientError) as refused:
        administrator.alter_configs(Where(topic), Change("SET", "retention.ms", "5"))
    assert refused.value.code == UNKNOWN_TOPIC_OR_PARTITION


def test_a_changed_limit_acts_at_once(administrator: Administrator, topic: str) -> None:
    administrator.create_topic(topic, 1, {})
    large = [Sent(bytes(10_000))]
    assert administrator.produce(topic, 0, large, Producing()) == [0]
    administrator.alter_configs(Where(topic), Change("SET", "max.message.bytes", "2000"))
    await_configs(partial(administrator.configs_of, Where(topic)), max_message_bytes="2000")
    with pytest.raises(ClientError) as refused:
        administrator.produce(topic, 0, large, Producing())
    assert refused.value.code == MESSAGE_TOO_LARGE
    administrator.alter_configs(Where(topic), Change("DELETE", "max.message.bytes"))
    assert administrator.produce(topic, 0, large, Producing()) == [1]


def test_a_topic_that_becomes_compacted_wants_keys(
    administrator: Administrator, topic: str
) -> None:
    administrator.create_topic(topic, 1, {})
    administrator.produce(topic, 0, [Sent(b"keyless")], Producing())
    administrator.alter_configs(Where(topic), Change("SET", "cleanup.policy", "compact"))
    await_configs(partial(administrator.configs_of, Where(topic)), cleanup_policy="compact")
    with pytest.raises(ClientError) as refused:
        administrator.produce(topic, 0, [Sent(b"keyless")], Producing())
    assert refused.value.code == INVALID_RECORD
    assert administrator.produce(topic, 0, [Sent(b"x", key=b"k")], Producing()) == [1]
    assert len(administrator.consume(Place(topic, 0, 0), 2)) == 2


@pytest.mark.parametrize("stored", ["uncompressed", *CODECS[1:]])
def test_a_topic_keeps_records_in_its_own_codec(client: Client, topic: str, stored: str) -> None:
    client.create_topic(topic, 1, {"compression.type": stored})
    values = []
    for number, codec in enumerate(CODECS):
        sent = [Sent(b"%s %d " % (codec.encode(), n) * 100, key=b"k") for n in range(20)]
        values += [each.value for each in sent]
        offsets = client.produce(topic, 0, sent, Producing(codec=codec, is_idempotent=True))
        assert offsets == list(range(number * 20, number * 20 + 20))
    received = client.consume(Place(topic, 0, 0), 100)
    assert [each.value for each in received] == values
    assert [each.offset for each in received] == list(range(100))


@contextmanager
def altered(administrator: Administrator, where: Where, name: str, value: str) -> Iterator[None]:
    """Change a broker's setting for a while: the broker is shared by all tests."""
    administrator.alter_configs(where, Change("SET", name, value))
    try:
        yield
    finally:
        administrator.alter_configs(where, Change("DELETE", name))


def test_a_brokers_setting_is_the_default_of_topics(
    administrator: Administrator, topic: str
) -> None:
    """Of every broker, one after the other: the brokers of one node have theirs together."""
    administrator.create_topic(topic, 1, {})
    read = partial(administrator.configs_of, Where(topic))
    before = read()["retention.ms"]
    for number, broker in enumerate(sorted(administrator.brokers())):
        own = Where(broker=str(broker))
        value = str(86_400_000 + number)
        with altered(administrator, own, "log.retention.ms", value):
            await_configs(partial(administrator.configs_of, own), log_retention_ms=value)
            await_configs(read, retention_ms=value)
        await_configs(read, retention_ms=before)


def test_a_setting_of_the_start_is_not_changed_later(administrator: Administrator) -> None:
    (broker, *_) = sorted(administrator.brokers())
    own = Where(broker=str(broker))
    with pytest.raises(ClientError) as refused:
        administrator.alter_configs(own, Change("SET", "node.id", "7"))
    assert refused.value.code == INVALID_REQUEST


def test_no_election_is_needed_where_a_partition_is_led(
    administrator: Administrator, topic: str
) -> None:
    administrator.create_topic(topic, 2, {})
    for partition in range(2):
        with pytest.raises(ClientError) as refused:
            administrator.elect(topic, partition)
        assert refused.value.code == ELECTION_NOT_NEEDED
    with pytest.raises(ClientError) as refused:
        administrator.elect(topic, 2)
    assert refused.value.code == UNKNOWN_TOPIC_OR_PARTITION


def test_each_partition_has_its_size_once(measurer: KafkaPython, topic: str) -> None:
    measurer.create_topic(topic, 4, {})
    for partition in range(4):
        size_bytes = 1000 * (partition + 1)
        measurer.produce(topic, partition, [Sent(bytes(size_bytes))], Producing())
    sizes = measurer.sizes(topic)
    assert [partition for _, partition, _ in sorted(sizes, key=lambda row: row[1])] == [0, 1, 2, 3]
    for _, partition, size_bytes in sizes:
        assert 1000 * (partition + 1) < size_bytes < 1000 * (partition + 1) + 300
