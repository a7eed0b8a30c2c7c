"""How long from `subscribe()` to the first record, and how long a rebalance of many members takes.

`python -m bench.macro.joining [--turns 2] [--members 50]` runs stock librdkafka consumers against
Corelane and Apache Kafka, one after the other in each turn, with the default initial delay, without
one (as `corelane dev` has it), and with the new protocol. Medians of the turns, in milliseconds, go
to `results/JOINING.json` and the page beside it; about two minutes a turn.

150 ms of most first records are librdkafka's own (2.16, debug=cgrp,fetch,broker,metadata). 100 ms
where the group has committed nothing: it asks where to begin from a timer ("(re)starting offset
query timer"). 50 ms since it lets go of its bootstrap broker with the first metadata and does not
begin another connection so soon ("still suppressed for"). So a group that has offsets is measured,
too, and aiokafka, which has no such timers.
"""

import argparse
import asyncio
import json
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.macro import beside
from bench.macro.measure import machine
from bench.macro.run import DISK, RESULTS
from tests.conformance import brokers
from tests.conformance.brokers import Running

TOPIC = "joining"
DELAY = "group.initial.rebalance.delay.ms"
WAIT_S_MAX = 60.0
Start = Callable[[dict[str, object]], AbstractContextManager[Running]]


def main() -> None:
    """Measure both, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--output", type=Path, default=RESULTS / "JOINING.json")
    options = parser.parse_args()
    starts: dict[str, Start] = {"corelane": brokers.corelane, "kafka": brokers.kafka}
    found: beside.Found = {name: {} for name in starts}
    for _ in range(options.turns):
        for name, start in starts.items():
            for delay_ms in (3_000, 0):
                with start({DELAY: delay_ms}) as running:
                    for what, ms in _measure(str(running.bootstrap), delay_ms, options.members):
                        found[name].setdefault(what, []).append(ms)
    result = {"machine": machine(DISK), "turns": options.turns, "ms": found}
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    page = options.output.with_suffix(".md")
    page.write_text(_page(found, options.turns, options.output.name))
    beside.tell(found, 0)


def _page(found: beside.Found, turns: int, source: str) -> str:
    introduction = [
        "# Joining a group",
        "",
        f"Made by `python -m bench.macro.joining` from `{source}`; median of {turns} turns. Stock",
        "clients in one process, on the CPUs of the broker; librdkafka where none is named. Of",
        "its first records 50 ms are its own pause before a second connection, and without",
        "offsets 100 ms its own timer. Members hear of a rebalance by their heartbeats, here each",
        "500 ms, by the new protocol each 5 s as brokers have them by default.",
    ]
    return beside.page(introduction, found, 0, " ms")


def _measure(bootstrap: str, delay_ms: int, members: int) -> list[tuple[str, float]]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(TOPIC, members, 1)])[TOPIC].result(30)
    producer = Producer({"bootstrap.servers": bootstrap})
    for partition in range(members):
        producer.produce(TOPIC, b"x", partition=partition)
    assert producer.flush(30) == 0
    _first_record(bootstrap, "classic")  # the topic of the groups is made
    named = f"initial delay {delay_ms} ms"
    found = [(f"subscribe to first record, {named}", _first_record(bootstrap, "classic"))]
    if delay_ms == 0:
        found.append(("the same, of a group with offsets", _first_record(bootstrap, "classic", 0)))
        found.append(("the same, group.protocol=consumer", _first_record(bootstrap, "consumer")))
        found.append(("the same, aiokafka", asyncio.run(_first_record_aio(bootstrap))))
        for protocol in ("classic", "consumer"):
            everybody, last = _one_more(bootstrap, members, protocol)
            said = f"{members - 1} members at once, until all have a share, {protocol}"
            found.append((said, everybody))
            found.append((f"one more member of {members}, to its share, {protocol}", last))
    return found


def _consumer(bootstrap: str, group: str, protocol: str) -> Consumer:
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "group.protocol": protocol,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    if protocol == "classic":
        settings["heartbeat.interval.ms"] = 500
    return Consumer(settings)


def _first_record(bootstrap: str, protocol: str, committed: int | None = None) -> float:
    group = str(uuid.uuid4())
    if committed is not None:
        before = _consumer(bootstrap, group, protocol)
        places = [TopicPartition(TOPIC, number, committed) for number in _partitions(before)]
        before.commit(offsets=places, asynchronous=False)
        before.close()
    consumer = _consumer(bootstrap, group, protocol)
    began_s = time.monotonic()
    consumer.subscribe([TOPIC])
    while consumer.poll(0.01) is None:
        assert time.monotonic() - began_s < WAIT_S_MAX
    taken_s = time.monotonic() - began_s
    consumer.close()
    return taken_s * 1_000


async def _first_record_aio(bootstrap: str) -> float:
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=bootstrap,
        group_id=str(uuid.uuid4()),
        auto_offset_reset="earliest",
    )
    began_s = time.monotonic()
    await consumer.start()
    await asyncio.wait_for(consumer.getone(), WAIT_S_MAX)
    taken_s = time.monotonic() - began_s
    await consumer.stop()
    return taken_s * 1_000


def _partitions(consumer: Consumer) -> list[int]:
    return sorted(consumer.list_topics(TOPIC, timeout=30).topics[TOPIC].partitions)


def _one_more(bootstrap: str, members: int, protocol: str) -> tuple[float, float]:
    """Return how long it takes that all have partitions, and a new one while others give up."""
    group = str(uuid.uuid4())
    consumers = [_consumer(bootstrap, group, protocol) for _ in range(members - 1)]
    for consumer in consumers:
        consumer.subscribe([TOPIC])
    began_s = time.monotonic()
    while not all(consumer.assignment() for consumer in consumers):
        assert time.monotonic() - began_s < WAIT_S_MAX
        for consumer in consumers:
            consumer.poll(0)
        time.sleep(0.005)
    everybody_s = time.monotonic() - began_s
    last = _consumer(bootstrap, group, protocol)
    began_s = time.monotonic()
    last.subscribe([TOPIC])
    while not last.assignment():
        assert time.monotonic() - began_s < WAIT_S_MAX
        for consumer in (last, *consumers):
            consumer.poll(0)
        time.sleep(0.005)
    taken_s = time.monotonic() - began_s
    for consumer in (last, *consumers):
        consumer.close()
    return everybody_s * 1_000, taken_s * 1_000


if __name__ == "__main__":
    main()
