"""Kafka's own tools and Java producers, in transactions."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

from tests.conformance.probe import Address
from tests.conformance.steps.kafka_tools import (
    CLIENT,
    CONSOLE_CONSUMER,
    PERF_PRODUCER,
    TOPICS,
    create,
    tool,
)
from tests.conformance.steps.step import Step, StepError, expect, new_topic

FEATURES = "org.apache.kafka.tools.FeatureCommand"
STATE_TOPIC = "__transaction_state"
TRANSACTIONS = "org.apache.kafka.tools.TransactionsCommand"
RECORDS = 5_000
OVER_S_MAX = 30.0


def steps() -> list[Step]:
    """Return what they are asked to do, in order."""
    return [
        Step(CLIENT, "kafka-producer-perf-test --transactional-id, read committed", _perf),
        Step(CLIENT, "kafka-features: describe, downgrade, upgrade", _features),
        Step(CLIENT, "kafka-transactions: list, describe", _tools),
        Step(CLIENT, "kafka-transactions: forceTerminateTransaction", _terminate),
        Step(CLIENT, "kafka-transactions: describe-producers, find-hanging, abort", _abort),
        Step(CLIENT, "kafka-transactions: find-hanging of what nobody coordinates", _hanging),
    ]


def _transactions(bootstrap: Address, *arguments: str) -> str:
    return tool(TRANSACTIONS, "--bootstrap-server", str(bootstrap), *arguments)


def _features(bootstrap: Address) -> None:
    """The level of transactions goes down and up again, as clients are told."""

    def level() -> str:
        said = tool(FEATURES, "--bootstrap-server", str(bootstrap), "describe")
        row = next(line for line in said.splitlines() if "transaction.version" in line)
        return row.split("FinalizedVersionLevel:")[1].split()[0]

    def update(verb: str, to: int) -> None:
        feature = ("--feature", f"transaction.version={to}")
        tool(FEATURES, "--bootstrap-server", str(bootstrap), verb, *feature)

    expect(level(), "2", "the level of every node")
    update("downgrade", 1)
    expect(level(), "1", "the level chosen")
    update("upgrade", 2)
    expect(level(), "2", "the level after")


def _perf(bootstrap: Address) -> None:
    """A producer of version 2 commits every 50 ms; a reader of committed records gets it all."""
    topic = new_topic("txn-perf")
    create(bootstrap, topic, 2)
    name = ("--transactional-id", f"of-{topic}", "--transaction-duration-ms", "50")
    size = ("--num-records", str(RECORDS), "--record-size", "100", "--throughput", "20000")
    where = ("--command-property", f"bootstrap.servers={bootstrap}")
    report = tool(PERF_PRODUCER, "--topic", topic, *size, *name, *where)
    expect(f"{RECORDS} records sent" in report, True, f"all records in {report!r}")
    read = _read(bootstrap, topic, RECORDS)
    expect(len(read), RECORDS, "committed records")


def _read(bootstrap: Address, topic: str, count: int) -> list[str]:
    bounds = ("--max-messages", str(count), "--timeout-ms", "15000", "--from-beginning")
    isolation = ("--command-property", "isolation.level=read_committed")
    server = ("--bootstrap-server", str(bootstrap))
    return tool(CONSOLE_CONSUMER, *server, "--topic", topic, *bounds, *isolation).splitlines()


@contextmanager
def _open(bootstrap: Address, topic: str) -> Iterator[str]:
    """Begin a transaction that nobody ends."""
    name = f"of-{topic}"
    create(bootstrap, topic)
    producer = Producer({"bootstrap.servers": str(bootstrap), "transactional.id": name})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, value=b"open", partition=0)
    expect(producer.flush(20), 0, "records not sent")
    yield name
    producer.purge()


def _row(table: str, first: str) -> list[str]:
    found = [line.split() for line in table.splitlines() if line.split()[:1] == [first]]
    if len(found) != 1:
        message = f"no row of {first} in {table!r}"
        raise StepError(message)
    return found[0]


def _tools(bootstrap: Address) -> None:
    topic = new_topic("txn-tools")
    with _open(bootstrap, topic) as name:
        row = _row(_transactions(bootstrap, "list"), name)
        expect(row[-1], "Ongoing", f"the state in {row}")
        filtered = _transactions(bootstrap, "list", "--duration-filter", "600000")
        expect(name in filtered, False, "it has not been open for ten minutes")
        described = _transactions(bootstrap, "describe", "--transactional-id", name)
        expect(f"{topic}-0" in described, True, f"its partition in {described!r}")
        expect("Ongoing" in described, True, f"its state in {described!r}")


def _terminate(bootstrap: Address) -> None:
    topic = new_topic("txn-terminate")
    with _open(bootstrap, topic) as name:
        _transactions(bootstrap, "forceTerminateTransaction", "--transactionalId", name)
        deadline_s = time.monotonic() + OVER_S_MAX
        while (state := _row(_transactions(bootstrap, "list"), name)[-1]) == "Ongoing":
            if time.monotonic() > deadline_s:
                raise StepError("it is not terminated")
        expect(state in {"PrepareAbort", "CompleteAbort", "Empty"}, True, f"the state {state}")


def _abort(bootstrap: Address) -> None:
    topic = new_topic("txn-abort")
    with _open(bootstrap, topic) as name:
        where = ("--topic", topic, "--partition", "0")
        producers = _transactions(bootstrap, "describe-producers", *where)
        expect(len(producers.splitlines()), 2, f"one producer in {producers!r}")
        hanging = _transactions(bootstrap, "find-hanging", "--topic", topic)
        expect(name in hanging, False, f"its coordinator knows it, says {hanging!r}")
        _transactions(bootstrap, "abort", *where, "--start-offset", "0")
        after = _transactions(bootstrap, "describe-producers", *where)
        expect(after.splitlines()[1].split()[-1], "None", f"nothing open in {after!r}")


def _hanging(bootstrap: Address) -> None:
    """Last: with their topic coordinators lose all they know, and a transaction stays open."""
    topic = new_topic("txn-hanging")
    with _open(bootstrap, topic):
        tool(TOPICS, "--bootstrap-server", str(bootstrap), "--delete", "--topic", STATE_TOPIC)
        look = ("find-hanging", "--topic", topic, "--max-transaction-timeout", "0")
        found = _row(_transactions(bootstrap, *look), topic)
        expect(found[1], "0", f"the partition in {found}")
        where = ("--topic", topic, "--partition", "0")
        _transactions(bootstrap, "abort", *where, "--start-offset", "0")
        expect(topic in _transactions(bootstrap, *look), False, "it hangs no more")
