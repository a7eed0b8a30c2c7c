"""`corelane transaction`, transactional `produce` and the trio client against a real broker."""

from collections.abc import Iterator

import pytest
import trio
from confluent_kafka import Consumer as StockConsumer
from confluent_kafka import Producer as StockProducer

from corelane_cli import exits
from corelane_client import (
    Consumer,
    ConsumerSettings,
    Edge,
    FencedError,
    GroupConsumer,
    GroupSettings,
    Message,
    Producer,
    ProducerSettings,
)
from tests.conformance import brokers
from tests.integration.test_cli import Shell
from tests.integration.test_cli_groups import bootstrap

RECORDS = 20


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with brokers.corelane({"group.initial.rebalance.delay.ms": 0}) as running:
        yield Shell(str(running.bootstrap))


def opened(shell: Shell, name: str, topic: str) -> StockProducer:
    """Return a stock producer whose transaction is open from offset 0 of a new topic."""
    shell.text("topic", "create", topic)
    producer = StockProducer(
        {"bootstrap.servers": bootstrap(shell), "transactional.id": name, "linger.ms": 0}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"open")
    assert producer.flush(30) == 0
    return producer


def test_an_open_transaction_is_listed_described_and_aborted(shell: Shell) -> None:
    producer = opened(shell, "held", "held-topic")
    (listed,) = shell.json("transaction", "list", "--state", "Ongoing")["transactions"]
    assert listed["transactional_id"] == "held"
    assert "held" in shell.text("transaction", "list", "--producer-id", str(listed["producer_id"]))
    (described,) = shell.json("transaction", "describe", "held")["transactions"]
    assert described["state"] == "Ongoing"
    assert described["partitions"] == [{"topic": "held-topic", "partition": 0}]
    assert "held: Ongoing" in shell.text("transaction", "describe", "held")
    # Its coordinator means to end it: it does not hang.
    looked = shell.json("transaction", "list", "--hanging", "--older-than", "0")
    assert looked == {"hanging": []}
    assert "aborted" in shell.text("transaction", "abort", "--transactional-id", "held")
    (described,) = shell.json("transaction", "describe", "held")["transactions"]
    assert (described["started"], described["partitions"]) == (None, [])
    with pytest.raises(Exception, match=r"(?i)fenced|epoch"):
        producer.commit_transaction(30)


def test_what_is_open_in_a_partition_is_ended_there(shell: Shell) -> None:
    opened(shell, "stuck", "stuck-topic")
    where = ("--topic", "stuck-topic", "--partition", "0", "--start-offset")
    wrong = shell.run("transaction", "abort", *where, "7")
    assert wrong.returncode == exits.REFUSED
    assert b"begin at: 0" in wrong.stderr
    done = shell.json("transaction", "abort", *where, "0")
    assert (done["status"], done["start_offset"]) == ("aborted", 0)
    assert shell.run("transaction", "abort", *where, "0").returncode == exits.REFUSED
    assert shell.text("consume", "stuck-topic", "-o", ":end", "--read-committed") == ""


def test_errors_have_their_codes_and_sentences(shell: Shell) -> None:
    done = shell.run("transaction", "describe", "nobody", "--format", "json")
    assert done.returncode == exits.REFUSED
    assert b"TRANSACTIONAL_ID_NOT_FOUND" in done.stderr
    for words in (
        ("abort",),
        ("abort", "--topic", "t"),
        ("abort", "--transactional-id", "x", "--topic", "t"),
        ("list", "--older-than", "1"),
        ("list", "--hanging", "--state", "Ongoing"),
        ("list", "--interval", "1"),
    ):
        assert shell.run("transaction", *words).returncode == exits.USAGE, words


def test_produce_sends_its_input_as_one_transaction(shell: Shell) -> None:
    shell.text("topic", "create", "whole", "--partitions", "3")
    words = ("produce", "whole", "--transactional-id", "cli", "--template", "%k=%v\\n")
    shell.text(*words, data=b"a=1\nb=2\nc=3\n")
    assert shell.run(*words, data=b"d=4\nnothing\n").returncode == exits.FAILED
    read = ("consume", "whole", "-o", ":end", "--read-committed")
    assert sorted(shell.text(*read).split()) == ["1", "2", "3"]
    assert shell.run(*words, "--acks", "1").returncode == exits.USAGE


async def committed_values(bootstrap: str, topic: str) -> list[bytes | None]:
    settings = ConsumerSettings(isolation="read_committed")
    async with Consumer(bootstrap, settings) as consumer:
        await consumer.assign(topic, stop=Edge.END)
        return sorted([record.value async for record in consumer], key=str)


def test_the_trio_client_copies_exactly_once_beside_a_stock_member(shell: Shell) -> None:
    """Read, write and commit in transactions, some of them aborted, in a group with librdkafka."""
    address = bootstrap(shell)
    for topic in ("source", "target"):
        shell.text("topic", "create", topic, "--partitions", "3")
    lines = b"".join(b"%d=%d\n" % (number, number) for number in range(RECORDS))
    shell.text("produce", "source", "--key-separator", "=", data=lines)

    async def copy() -> None:
        settings = ProducerSettings(transactional_id="copier")
        group = GroupSettings(auto_commit=False)
        async with (
            Producer(address, settings) as producer,
            GroupConsumer(address, "copiers", ["source"], group) as consumer,
        ):
            copied = attempts = 0
            while copied < RECORDS:
                attempts += 1
                try:
                    async with producer.transaction() as transaction:
                        records = await consumer.read(3)
                        for record in records:
                            await producer.enqueue(Message("target", record.value))
                        await transaction.send_offsets(consumer)
                        if attempts % 3 == 0:
                            raise ZeroDivisionError
                except ZeroDivisionError:
                    await consumer.rewind()
                else:
                    copied += len(records)
            async with Producer(address, settings) as newer:
                with pytest.raises(FencedError):
                    await write(producer, b"zombie")
                await write(newer, b"newer")

    async def write(producer: Producer, value: bytes) -> None:
        async with producer.transaction():
            await producer.send("target", value)

    trio.run(copy)
    found = trio.run(committed_values, address, "target")
    wanted = [b"%d" % number for number in range(RECORDS)]
    assert found == sorted([*wanted, b"newer"], key=str)
    (described,) = shell.json("group", "describe", "copiers")["groups"]
    assert (described["state"], described["lag"]) == ("Empty", 0)
    stock = StockConsumer(
        {"bootstrap.servers": address, "group.id": "copiers", "auto.offset.reset": "earliest"}
    )
    stock.subscribe(["source"])
    assert stock.poll(3) is None  # everything is committed
    stock.close()


def test_what_no_coordinator_knows_is_listed_as_hanging_and_ended(shell: Shell) -> None:
    """Last in this file: its coordinators lose all they know, with their topic."""
    opened(shell, "orphan", "orphan-topic")
    shell.text("produce", "orphan-topic", data=b"behind it\n")
    read = ("consume", "orphan-topic", "-o", ":end", "--read-committed")
    assert shell.text(*read) == "", "its end is before what is open"
    shell.text("topic", "delete", "__transaction_state")
    look = ("transaction", "list", "--hanging", "--topic", "orphan-topic", "--older-than", "0")
    (hanging,) = shell.json(*look)["hanging"]
    place = (hanging["topic"], hanging["partition"], hanging["start_offset"])
    assert place == ("orphan-topic", 0, 0)
    where = ("--topic", "orphan-topic", "--partition", "0", "--start-offset", "0")
    assert "aborted" in shell.text("transaction", "abort", *where)
    assert shell.json(*look) == {"hanging": []}
    assert shell.text(*read).strip() == "behind it"
