"""`corelane group` against a real broker, with stock consumers in the groups."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer

from corelane_cli import exits
from tests.conformance import brokers
from tests.integration.test_cli import Shell

RECORDS = 10


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with brokers.corelane({"group.initial.rebalance.delay.ms": 0}) as running:
        yield Shell(str(running.bootstrap))


def bootstrap(shell: Shell) -> str:
    return shell.environment["CORELANE_BOOTSTRAP"]


def reading(shell: Shell, topic: str, group: str, protocol: str = "classic") -> Consumer:
    """Return a consumer that has read and committed half of a new topic."""
    producer = Producer({"bootstrap.servers": bootstrap(shell)})
    for _ in range(RECORDS):
        producer.produce(topic, b"x", partition=0)
    assert producer.flush(20) == 0
    settings = {
        "bootstrap.servers": bootstrap(shell),
        "group.id": group,
        "group.protocol": protocol,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    for _ in range(RECORDS // 2):
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        consumer.commit(message=message, asynchronous=False)
    return consumer


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_is_listed_described_set_back_and_deleted(shell: Shell, protocol: str) -> None:
    topic, group = f"t-{protocol}", f"g-{protocol}"
    consumer = reading(shell, topic, group, protocol)
    listed = {row["name"]: row for row in shell.json("group", "list")["groups"]}
    assert (listed[group]["state"], listed[group]["type"]) == ("Stable", protocol)
    (described,) = shell.json("group", "describe", group)["groups"]
    (member,) = described["members"]
    assert described["partitions"] == [
        {
            "topic": topic,
            "partition": 0,
            "offset": 5,
            "end": RECORDS,
            "lag": 5,
            "member": member["member"],
        }
    ]
    assert f"{group}: Stable, 1 member, lag 5" in shell.text("group", "describe", group)
    refused = shell.run("group", "seek", group, "--to", "start")
    assert refused.returncode == exits.REFUSED
    assert b"Stop its consumers first" in refused.stderr
    consumer.close()
    tried = shell.json("group", "seek", group, "--to", "-3", "--dry-run")
    assert tried["partitions"] == [{"topic": topic, "partition": 0, "before": 5, "after": 7}]
    shell.text("group", "seek", group, "--to", "start")
    (described,) = shell.json("group", "describe", group)["groups"]
    assert (described["state"], described["lag"]) == ("Empty", RECORDS)
    assert "deleted group" in shell.text("group", "delete", group)
    assert group not in shell.text("group", "list")


def test_a_group_that_is_not_there_is_said_to_be_missing(shell: Shell) -> None:
    for command in ("describe", "delete"):
        done = shell.run("group", command, "nobody", "--format", "json")
        assert done.returncode == exits.REFUSED
        assert b"GROUP_ID_NOT_FOUND" in done.stderr
        assert not done.stdout


def test_a_group_begins_to_exist_by_its_first_offsets(shell: Shell) -> None:
    reading(shell, "first", "other").close()
    done = shell.run("group", "seek", "new", "--to", "end")
    assert done.returncode == exits.REFUSED
    assert b"--topic" in done.stderr
    shell.text("group", "seek", "new", "--to", "end", "--topic", "first")
    (described,) = shell.json("group", "describe", "new")["groups"]
    assert described["lag"] == 0
