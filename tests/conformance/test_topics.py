"""Topics as stock clients make, see and remove them."""

import time

import pytest

from tests.conformance.clients.base import Client, ClientError, Place, Producing, Sent

UNKNOWN_TOPIC_OR_PARTITION = 3
INVALID_TOPIC = 17
TOPIC_ALREADY_EXISTS = 36
INVALID_PARTITIONS = 37
INVALID_CONFIG = 40
GONE_S_MAX = 30.0


def test_a_topic_is_listed_with_its_partitions(client: Client, topic: str) -> None:
    client.create_topic(topic, 5, {})
    assert topic in client.topics()
    assert client.partitions(topic) == {0, 1, 2, 3, 4}


def test_a_topic_keeps_its_configuration(client: Client, topic: str) -> None:
    client.create_topic(topic, 1, {"retention.ms": "123456", "cleanup.policy": "compact"})
    configs = client.configs(topic)
    assert configs["retention.ms"] == "123456"
    assert configs["cleanup.policy"] == "compact"


def test_settings_that_have_no_effect_here_are_kept_too(client: Client, topic: str) -> None:
    client.create_topic(topic, 1, {"flush.messages": "1000", "preallocate": "true"})
    configs = client.configs(topic)
    assert configs["flush.messages"] == "1000"
    assert configs["preallocate"] == "true"


def test_a_name_is_taken_once(client: Client, topic: str) -> None:
    client.create_topic(topic, 1, {})
    with pytest.raises(ClientError) as refused:
        client.create_topic(topic, 1, {})
    assert refused.value.code == TOPIC_ALREADY_EXISTS


@pytest.mark.parametrize(
    ("name", "partitions", "configs", "code"),
    [
        ("bad/name", 1, {}, INVALID_TOPIC),
        ("no-partitions", 0, {}, INVALID_PARTITIONS),
        ("unknown-setting", 1, {"no.such.setting": "1"}, INVALID_CONFIG),
        ("bad-value", 1, {"retention.ms": "soon"}, INVALID_CONFIG),
    ],
    ids=["name", "partitions", "setting", "value"],
)
def test_a_wrong_topic_is_refused_with_its_reason(
    client: Client, name: str, partitions: int, configs: dict[str, str], code: int
) -> None:
    with pytest.raises(ClientError) as refused:
        client.create_topic(name, partitions, configs)
    assert refused.value.code == code
    assert name not in client.topics()


def test_a_deleted_topic_is_gone(client: Client, topic: str) -> None:
    client.create_topic(topic, 2, {})
    client.produce(topic, 0, [Sent(b"x")], Producing())
    client.delete_topic(topic)
    deadline_s = time.monotonic() + GONE_S_MAX
    while topic in client.topics() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert topic not in client.topics()
    with pytest.raises(ClientError) as refused:
        client.delete_topic(topic)
    assert refused.value.code == UNKNOWN_TOPIC_OR_PARTITION


def test_a_topic_made_again_is_a_new_one(client: Client, topic: str) -> None:
    client.create_topic(topic, 1, {})
    client.produce(topic, 0, [Sent(b"old")] * 3, Producing())
    client.delete_topic(topic)
    deadline_s = time.monotonic() + GONE_S_MAX
    while topic in client.topics() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    client.create_topic(topic, 1, {})
    assert client.produce(topic, 0, [Sent(b"new")], Producing()) == [0]
    (received,) = client.consume(Place(topic, 0, 0), 1)
    assert received.value == b"new"


def test_writing_to_a_new_name_makes_a_topic(client: Client, topic: str) -> None:
    assert client.produce(topic, 0, [Sent(b"x")], Producing()) == [0]
    assert topic in client.topics()
