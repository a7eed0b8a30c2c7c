"""`corelane group` against a real broker, with stock consumers in the groups."""

import json
import signal
import subprocess
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer

from corelane_cli import exits
from tests.conformance import brokers
from tests.integration.test_cli import CORELANE, Shell

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


def test_consume_shares_with_its_group_and_commits_what_it_printed(shell: Shell) -> None:
    shell.text("topic", "create", "shared", "--partitions", "2")
    shell.text("produce", "shared", "--partition", "0", data=b"a\nb\nc\n")
    words = ("consume", "shared", "--group", "cli")
    assert shell.text(*words, "--count", "2") == "a\nb\n"
    assert shell.text(*words, "--count", "1", "--balancer", "cooperative-sticky") == "c\n"
    (described,) = shell.json("group", "describe", "cli")["groups"]
    assert (described["state"], described["lag"]) == ("Empty", 0)
    assert described["topics"] == [{"topic": "shared", "partitions": 2, "assigned": 0, "lag": 0}]
    listed = {row["name"]: row for row in shell.json("group", "list", "--lag")["groups"]}
    assert (listed["cli"]["members"], listed["cli"]["lag"]) == (0, 0)
    assert "cli" in shell.text("group", "describe", "cli", "--summary")
    assert "shared" in shell.text("group", "describe", "cli", "--topics")
    assert shell.run(*words, "--partition", "0").returncode == exits.USAGE


def test_consume_takes_patterns_and_the_new_protocol(shell: Shell) -> None:
    for topic in ("wide-a", "wide-b", "narrow"):
        shell.text("topic", "create", topic, "--partitions", "1")
        shell.text("produce", topic, data=f"{topic}\n".encode())
    words = ("consume", "--regex", "wide-.*", "--count", "2")
    assert set(shell.text(*words).split()) == {"wide-a", "wide-b"}
    new = ("--group", "wide", "--protocol", "consumer", "--assignor", "range")
    assert set(shell.text(*words, *new).split()) == {"wide-a", "wide-b"}
    (described,) = shell.json("group", "describe", "wide")["groups"]
    assert (described["type"], described["lag"]) == ("consumer", 0)
    assert set(shell.text(*words, "--group", "wide-2").split()) == {"wide-a", "wide-b"}
    assert shell.run("consume", "--regex", "nothing-.*").returncode == exits.FAILED
    for wrong in (
        ("consume", "--regex", "wide-("),
        ("consume", "narrow", "--protocol", "consumer"),
        ("consume", "narrow", *new, "--balancer", "range"),
        ("consume", "narrow", "--group", "wide", "--assignor", "range"),
    ):
        assert shell.run(*wrong).returncode == exits.USAGE


@pytest.mark.parametrize("form", ["text", "json"])
def test_watching_writes_a_line_each_time_into_a_pipe(shell: Shell, form: str) -> None:
    shell.text("topic", "create", f"watched-{form}")
    shell.text("group", "seek", f"w-{form}", "--to", "end", "--topic", f"watched-{form}")
    words = ("group", "describe", f"w-{form}", "--watch", "--interval", "0.1", "--format", form)
    with subprocess.Popen(
        [CORELANE, *words], env=shell.environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline().decode() for _ in range(3)]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == exits.INTERRUPTED
        finally:
            process.kill()
    for line in lines:
        if form == "json":
            assert json.loads(line)["groups"][0]["name"] == "w-json"
        else:
            assert f"  w-{form}: Empty, 0 members, lag 0, coordinator " in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_member_that_is_told_to_stop_commits_and_leaves(
    shell: Shell, number: signal.Signals
) -> None:
    topic = f"stopped-{number.name}"
    shell.text("topic", "create", topic)
    producer = Producer({"bootstrap.servers": bootstrap(shell)})
    for _ in range(RECORDS):
        producer.produce(topic, b"x", partition=0)
    assert producer.flush(20) == 0
    words = ("consume", topic, "--group", topic)
    with subprocess.Popen(
        [CORELANE, *words], env=shell.environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            for _ in range(RECORDS):
                process.stdout.readline()
            producer.produce(topic, b"y", partition=0)
            assert producer.flush(20) == 0
            assert process.stdout.readline(), "it has dealt with all that came before"
            process.send_signal(number)
            assert process.wait(20) == exits.INTERRUPTED
        finally:
            process.kill()
    (described,) = shell.json("group", "describe", topic)["groups"]
    assert not described["members"]
    assert described["partitions"][0]["offset"] >= RECORDS


def test_groups_are_completed(shell: Shell) -> None:
    shell.text("topic", "create", "completed")
    shell.text("group", "seek", "comp-1", "--to", "end", "--topic", "completed")
    asked = {"_CORELANE_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    environment = {**shell.environment, **asked, "COMP_WORDS": "corelane group describe comp-"}
    done = subprocess.run([CORELANE], env=environment, capture_output=True, check=True, timeout=20)
    assert done.stdout == b"plain,comp-1\n"
