"""What transactions cost: how long one takes to commit, how many there are a second, CPU for each.

`python -m bench.macro.transactions [--turns 5] [--seconds 5] [--producers 10]` runs stock
librdkafka producers against Corelane and Apache Kafka, one after the other in each turn. A
transaction writes one record to each of two partitions. Medians of the turns go to
`results/TRANSACTIONS.json` and the page beside it. Corelane syncs every entry before it counts;
Kafka, as it comes, syncs nothing.
"""

import argparse
import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from bench.macro import beside, measure
from bench.macro.run import DISK, RESULTS
from tests.conformance import brokers
from tests.conformance.brokers import Running

TOPIC = "transfers"
VALUE = b"x" * 100
WAIT_S = 30.0
WARM_UP_COMMITS = 50
Start = Callable[[], AbstractContextManager[Running]]


def main() -> None:
    """Measure both, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--producers", type=int, default=10)
    parser.add_argument("--output", type=Path, default=RESULTS / "TRANSACTIONS.json")
    options = parser.parse_args()
    starts: dict[str, Start] = {"corelane": brokers.corelane, "kafka": brokers.kafka}
    found: beside.Found = {name: {} for name in starts}
    for _ in range(options.turns):
        for name, start in starts.items():
            with start() as running:
                for count in (1, options.producers):
                    for what, value in _measure(running, count, options.seconds):
                        found[name].setdefault(what, []).append(value)
    result = {
        "machine": measure.machine(DISK),
        "turns": options.turns,
        "seconds": options.seconds,
        "found": found,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    page = options.output.with_suffix(".md")
    page.write_text(_page(found, options.turns, options.output.name))
    beside.tell(found, 2)


def _page(found: beside.Found, turns: int, source: str) -> str:
    introduction = [
        "# Transactions",
        "",
        f"Made by `python -m bench.macro.transactions` from `{source}`; median of {turns} turns. A",
        "transaction of librdkafka writes one record of 100 bytes to each of two partitions. The",
        "clients run on the CPUs of the broker. Corelane syncs what it acknowledges; Kafka does",
        "not.",
    ]
    return beside.page(introduction, found, 2)


def _measure(running: Running, count: int, seconds: float) -> list[tuple[str, float]]:
    """Have *count* producers commit one transaction after the other for so long."""
    topic = f"{TOPIC}-{count}"
    admin = AdminClient({"bootstrap.servers": str(running.bootstrap)})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(WAIT_S)
    producers = [_producer(running) for _ in range(count)]
    for producer in producers:
        producer.init_transactions(WAIT_S)
    for _ in range(WARM_UP_COMMITS):
        _transfer(producers[0], topic)
    commits_ms: list[list[float]] = [[] for _ in producers]
    before = measure.usage(running.pid)
    until_s = before.at_s + seconds

    def work(producer: Producer, taken_ms: list[float]) -> None:
        while time.monotonic() < until_s:
            taken_ms.append(_transfer(producer, topic))

    workers = [
        threading.Thread(target=work, args=each) for each in zip(producers, commits_ms, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    after = measure.usage(running.pid)
    taken_ms = sorted(ms for each in commits_ms for ms in each)
    named = f"{count} producer{'s'[: count > 1]}"
    return [
        (f"{named}: transactions per second", len(taken_ms) / (after.at_s - before.at_s)),
        (f"{named}: commit, p50 in ms", taken_ms[len(taken_ms) // 2]),
        (f"{named}: commit, p99 in ms", taken_ms[len(taken_ms) * 99 // 100]),
        (f"{named}: broker CPU, ms each", (after.cpu_s - before.cpu_s) * 1e3 / len(taken_ms)),
    ]


def _producer(running: Running) -> Producer:
    return Producer(
        {
            "bootstrap.servers": str(running.bootstrap),
            "transactional.id": str(uuid.uuid4()),
            "linger.ms": 0,
        }
    )


def _transfer(producer: Producer, topic: str) -> float:
    """Write to both partitions in one transaction; return how long the commit took, in ms."""
    producer.begin_transaction()
    for partition in (0, 1):
        producer.produce(topic, VALUE, partition=partition)
    began_s = time.monotonic()
    producer.commit_transaction(WAIT_S)
    return (time.monotonic() - began_s) * 1e3


if __name__ == "__main__":
    main()
