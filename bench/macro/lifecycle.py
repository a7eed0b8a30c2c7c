"""Measures what brokers take to start, to come back, and to keep: each on a directory of its own.

Every function starts its broker itself, kills it where that is what is measured, and returns notes:
what was measured, and the figures.
"""

import contextlib
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from bench.macro import experiments, measure, raw
from bench.macro.experiments import LOAD_S_MAX, RECORD_BYTES, Metrics, Scale, Target
from corelane.model.record import record
from tests.conformance import brokers
from tests.conformance.brokers import Running, Start
from tests.conformance.probe import Address

ROWS_MAX = 500
"""Partitions in one request."""
TOPIC_PARTITIONS = 1_000
RETRY_S = 0.02
SETTLE_S = 2.0

Note = tuple[str, Metrics]
Home = Callable[[], AbstractContextManager[Start]]


@record
class Lifecycle:
    """Something to measure: *run* takes the broker's home and name, and gives notes."""

    name: str
    sentence: str
    run: Callable[[Home, str, Scale], Iterator[Note]]


def home(name: str, kafka: dict[str, object]) -> Home:
    """Return how a new directory for a broker is made."""
    return brokers.corelane_home if name == "corelane" else lambda: brokers.kafka_home(dict(kafka))


def starts(make: Home, name: str, scale: Scale) -> Iterator[Note]:
    """Time a start on nothing, one on data after a stop, and one after kill -9."""
    with make() as start:
        with start() as running:
            raw.create_topic(running.bootstrap, "first", 1)
            yield "start", {"s to first acknowledged": _first_s(running)}
            target = Target(name, running, {})
            target.create("data", experiments.PARTITIONS)
            experiments.produce_librdkafka()(target, scale, "data")
        with start() as running:
            yield "start with data", {"s to first acknowledged": _first_s(running)}
            kill(running)
        with start() as running:
            yield "start after kill -9", {"s to first acknowledged": _first_s(running)}


def wide(count: int) -> Callable[[Home, str, Scale], Iterator[Note]]:
    """Return a run with *count* partitions: made, kept, and back after kill -9."""

    def run(make: Home, name: str, scale: Scale) -> Iterator[Note]:
        del scale
        topics = {
            f"wide-{number}": min(TOPIC_PARTITIONS, count - number * TOPIC_PARTITIONS)
            for number in range(-(-count // TOPIC_PARTITIONS))
        }
        with make() as start:
            with start() as running:
                began_s = time.monotonic()
                for topic, partitions in topics.items():
                    raw.create_topic(running.bootstrap, topic, partitions)
                touch(running.bootstrap, topics)
                made = {"s to last writable": time.monotonic() - began_s}
                yield f"{count} partitions made", made
                measure.settled_usage(running.pid)
                time.sleep(SETTLE_S)
                yield f"{count} partitions idle", experiments.idle(Target(name, running, {}))
                kill(running)
            with start() as running:
                touch(running.bootstrap, topics)
                back = {"s to last writable": time.monotonic() - running.spawned_s}
                yield f"{count} partitions after kill -9", back

    return run


def _first_s(running: Running) -> float:
    """Return the seconds from the broker's command to the first acknowledged record."""
    touch(running.bootstrap, {"first": 1})
    return time.monotonic() - running.spawned_s


def touch(bootstrap: Address, topics: dict[str, int]) -> None:
    """Write one record to each partition of all topics, asking again until it is acknowledged."""
    deadline_s = time.monotonic() + LOAD_S_MAX
    batch = raw.batch([bytes(RECORD_BYTES)], int(time.time() * 1000))
    left = {topic: {*range(partitions)} for topic, partitions in topics.items()}
    while True:
        for topic, open_rows in left.items():
            with contextlib.suppress(OSError, raw.BrokerError):
                _touch_topic(bootstrap, topic, open_rows, batch)
        left = {topic: open_rows for topic, open_rows in left.items() if open_rows}
        if not left:
            return
        if time.monotonic() > deadline_s:
            count = sum(map(len, left.values()))
            message = f"{count} partitions took no record for {LOAD_S_MAX} s"
            raise raw.BrokerError(message)
        time.sleep(RETRY_S)


def _touch_topic(bootstrap: Address, topic: str, open_rows: set[int], batch: bytes) -> None:
    """Ask every leader of partitions in *open_rows* once; what is acknowledged is taken out."""
    asked = raw.request(raw.METADATA, 1, struct.pack(">i", 1) + raw.text(topic))
    led = raw.leaders(raw.once(bootstrap, asked))
    by_leader: dict[tuple[str, int], list[int]] = {}
    for index in sorted(open_rows & led.keys()):
        by_leader.setdefault((led[index].host, led[index].port), []).append(index)
    for place, indexes in by_leader.items():
        connection = raw.Connection(Address(*place))
        try:
            for at in range(0, len(indexes), ROWS_MAX):
                rows = [(index, batch) for index in indexes[at : at + ROWS_MAX]]
                answer = connection.ask(raw.produce_rows(topic, rows))
                open_rows -= {index for index, code in raw.produced(answer, topic) if code == 0}
        finally:
            connection.close()


def kill(running: Running) -> None:
    """Kill all processes of a broker at once, and wait until they are gone."""
    pids = measure.processes_of(running.pid)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + LOAD_S_MAX
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < deadline_s, f"{pids} do not end"
        time.sleep(0.005)


def _lives(pid: int) -> bool:
    """Say whether a process is still there; one that only waits to be reaped is not."""
    fields = measure.stat(pid)
    return bool(fields) and fields[0] not in {"Z", "X"}


LIFECYCLES = (
    Lifecycle("start", "from the command to the first acknowledged record", starts),
    Lifecycle("10000 partitions", "topics of 1,000 partitions, one record in each", wide(10_000)),
    Lifecycle("4000 partitions", "topics of 1,000 partitions, one record in each", wide(4_000)),
)
