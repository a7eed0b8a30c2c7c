"""What is measured: one function per figure, the same for every broker."""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.macro import measure, raw
from corelane.model.record import record
from tests.conformance import tools
from tests.conformance.brokers import Running

RECORD_BYTES = 1024
SMALL_BYTES = 100
PARTITIONS = 8
LOAD_S_MAX = 300
MUCH = "2 GB"
MUCH_RECORDS = 2_000_000_000 // RECORD_BYTES
RDKAFKA_BIG = {"linger_ms": 50, "batch_size": 1_000_000, "queue_buffering_max_kbytes": 262_144}
IDLE_S = 5.0
# Both as bin/kafka-producer-perf-test.sh starts it.
PERF_JVM = ("-Xmx512M", "-cp")
PERF_CLASS = "org.apache.kafka.tools.ProducerPerformance"
BIG_BATCHES = ("batch.size=1000000", "linger.ms=10")
ONE_RECORD = ("batch.size=1", "linger.ms=0")
_RATE = re.compile(r"([\d.]+) records/sec \(([\d.]+) MB/sec\)")

Metrics = dict[str, float]


@record
class Target:
    """A broker, and how its topics are set up."""

    name: str
    running: Running
    configs: dict[str, str]
    replicas: int = 1
    others: tuple[int, ...] = ()
    """The processes of the other nodes of a cluster."""

    @property
    def pids(self) -> tuple[int, ...]:
        """What was started, one process for each node."""
        return (self.running.pid, *self.others)

    def create(self, topic: str, partitions: int) -> None:
        """Create a topic as this target has it."""
        raw.create_topic(self.running.bootstrap, topic, partitions, self.configs, self.replicas)


@record
class Scale:
    """How much of everything; small enough to alternate, large enough to mean something."""

    records: int
    requests: int
    pipelined: int
    latencies: int
    rated: int
    """At a thousand a second."""


@record
class Experiment:
    """A figure: `run` does the load and returns what the client saw."""

    name: str
    sentence: str
    run: Callable[[Target, Scale, str], Metrics]
    partitions: int = PARTITIONS
    reads: str = ""
    """The experiment whose topic is read; empty: it writes to one of its own."""
    is_synced: bool = False
    """Whether it is also asked of Kafka with a sync for every append."""
    then_idle: str = ""
    """The name under which it is then measured what the broker takes at rest."""


class LoadError(Exception):
    """A load failed; the message holds its last words."""


def produce_java(*properties: str) -> Callable[[Target, Scale, str], Metrics]:
    """Return Kafka's own ProducerPerformance with *properties*."""

    def run(target: Target, scale: Scale, topic: str) -> Metrics:
        return _java(target, topic, scale.records, properties)

    return run


def produce_librdkafka(**settings: object) -> Callable[[Target, Scale, str], Metrics]:
    """Return a librdkafka producer with *settings* (`_` stands for `.`)."""
    named = {name.replace("_", "."): value for name, value in settings.items()}

    def run(target: Target, scale: Scale, topic: str) -> Metrics:
        more = {"partitions": PARTITIONS, "settings": named}
        return _load("librdkafka-produce", target, topic, count=scale.records, **more)

    return run


def much(kind: str, **settings: object) -> Callable[[Target, Scale, str], Metrics]:
    """Return a load of 2 GB, whatever the scale: what memory keeps has been given up by then."""

    def run(target: Target, scale: Scale, topic: str) -> Metrics:
        del scale
        named = {name.replace("_", "."): value for name, value in settings.items()}
        more: dict[str, Any] = {"partitions": PARTITIONS, "settings": named}
        metrics = _load(kind, target, topic, count=MUCH_RECORDS, **more)
        return metrics | {"payload bytes": MUCH_RECORDS * RECORD_BYTES}

    return run


def fetch(kind: str) -> Callable[[Target, Scale, str], Metrics]:
    """Return a reader of everything that a producer wrote to the topic before."""

    def run(target: Target, scale: Scale, topic: str) -> Metrics:
        return _load(kind, target, topic, count=scale.records, partitions=PARTITIONS)

    return run


def one_record_java(target: Target, scale: Scale, topic: str) -> Metrics:
    """Send one record per request; more than one partition would pack several into one."""
    metrics = _java(target, topic, scale.requests, ONE_RECORD)
    return {"requests/s": metrics["records/s"], "requests": scale.requests}


def pipelined(flight: int) -> Callable[[Target, Scale, str], Metrics]:
    """Return a bare client with *flight* requests on their way."""

    def run(target: Target, scale: Scale, topic: str) -> Metrics:
        count = scale.pipelined if flight > 5 else scale.requests
        metrics = _load("raw-requests", target, topic, count=count, flight=flight)
        return metrics | {"requests": count}

    return run


def small(kind: str, flight: int = 1, partitions: int = 1) -> Callable[..., Metrics]:
    """Return one of the loads of small_loads.py."""

    def run(target: Target, scale: Scale, topic: str) -> Metrics:
        counts = {
            "raw-connections": scale.requests,
            "raw-one-to-each": scale.pipelined,
            "raw-rate": scale.rated,
        }
        count = counts.get(kind, scale.latencies)
        more: dict[str, Any] = {"flight": flight, "partitions": partitions}
        metrics = _load(kind, target, topic, count=count, size=SMALL_BYTES, **more)
        counted = count // partitions * partitions if kind == "raw-one-to-each" else count
        return metrics | {"requests": counted}

    return run


def one_record_librdkafka(flight: int | None) -> Callable[[Target, Scale, str], Metrics]:
    """Return librdkafka with one record per request, and so many in flight; None: its default."""
    settings: dict[str, object] = {"linger.ms": 0, "batch.num.messages": 1}
    if flight is not None:
        settings["max.in.flight.requests.per.connection"] = flight

    def run(target: Target, scale: Scale, topic: str) -> Metrics:
        more: dict[str, Any] = {"partitions": 1, "settings": settings, "size": SMALL_BYTES}
        metrics = _load("librdkafka-produce", target, topic, count=scale.requests, **more)
        return {"requests/s": metrics["records/s"], "requests": scale.requests}

    return run


def latency(target: Target, scale: Scale, topic: str) -> Metrics:
    """One acknowledged record at a time."""
    return _load("raw-latency", target, topic, count=scale.latencies)


def measured(experiment: Experiment, target: Target, scale: Scale, topic: str) -> Metrics:
    """Run *experiment* on *topic* and add what the broker used for it."""
    before = measure.settled_usage(*target.pids)
    own_before_s = _children_cpu_s()
    metrics = experiment.run(target, scale, topic)
    after = measure.settled_usage(*target.pids)
    client_s = _children_cpu_s() - own_before_s
    cpu_s = after.cpu_s - before.cpu_s
    payload_bytes = metrics.get("requests", 0) * RECORD_BYTES or scale.records * RECORD_BYTES
    payload_bytes = metrics.pop("payload bytes", payload_bytes)
    metrics["broker CPU s"] = cpu_s
    if "MB/s" in metrics:
        metrics["CPU s/GB"] = cpu_s / payload_bytes * 1e9
    if "requests" in metrics:
        metrics["CPU us/request"] = cpu_s / metrics["requests"] * 1e6
    if "produce" in experiment.name or experiment.name == MUCH:
        metrics["bytes written/byte"] = (after.written_bytes - before.written_bytes) / payload_bytes
    others_s = after.machine_cpu_s - before.machine_cpu_s - cpu_s - client_s
    metrics["cores used by others"] = max(others_s, 0.0) / (after.at_s - before.at_s)
    return metrics


def idle(target: Target, idle_s: float = IDLE_S) -> Metrics:
    """Return what the broker uses while nobody asks for anything."""
    before = measure.usage(*target.pids)
    time.sleep(idle_s)
    after = measure.usage(*target.pids)
    return {
        "RSS MiB": sum(map(measure.resident_bytes, target.pids)) / (1 << 20),
        "PSS MiB": sum(map(measure.memory_bytes, target.pids)) / (1 << 20),
        "CPU %": (after.cpu_s - before.cpu_s) / idle_s * 100,
    }


EXPERIMENTS = (
    Experiment(
        "produce java",
        "Kafka's ProducerPerformance (-Xmx512M) at its defaults: batch.size=16384, linger.ms=5",
        produce_java(),
        is_synced=True,
    ),
    Experiment(
        "produce java 1MB",
        f"the same with {', '.join(BIG_BATCHES)}",
        produce_java(*BIG_BATCHES),
        is_synced=True,
    ),
    Experiment("produce librdkafka", "librdkafka, its default batching", produce_librdkafka()),
    Experiment(
        "produce librdkafka 1MB",
        "librdkafka, linger.ms=50, batch.size=1000000",
        produce_librdkafka(**RDKAFKA_BIG),
    ),
    Experiment(
        "fetch librdkafka",
        "what `produce java` wrote, by librdkafka, by assignment",
        fetch("librdkafka-fetch"),
        reads="produce java",
    ),
    Experiment(
        "fetch raw",
        "the same by a bare client that looks at no record",
        fetch("raw-fetch"),
        reads="produce java",
    ),
    Experiment("one record java", f"Java, {', '.join(ONE_RECORD)}", one_record_java, 1),
    Experiment("one record raw 5", "bare client, 5 in flight", pipelined(5), 1, is_synced=True),
    Experiment("one record raw 1000", "bare client, 1,000 in flight", pipelined(1000), 1),
    Experiment("latency", "bare client, one record at a time", latency, 1, is_synced=True),
    Experiment(
        "one record librdkafka 5",
        "librdkafka, linger.ms=0, one record per request, 5 in flight",
        one_record_librdkafka(5),
        1,
    ),
    Experiment(
        "one record librdkafka", "the same, its default in flight", one_record_librdkafka(None), 1
    ),
    Experiment(
        "50 connections",
        "50 bare clients, one record at a time each",
        small("raw-connections", 50),
        1,
    ),
    Experiment(
        "1000 a second",
        "bare client, a record each millisecond, timed from when it was due",
        small("raw-rate"),
        1,
        is_synced=True,
    ),
    Experiment(
        "write to read",
        "bare client: from sending one record to when a waiting reader has it",
        small("raw-write-to-read"),
        1,
    ),
    Experiment(
        "10 partitions",
        "bare client, one record to each, round after round",
        small("raw-one-to-each", partitions=10),
        10,
    ),
    Experiment(
        "1000 partitions",
        "the same with 1,000",
        small("raw-one-to-each", partitions=1_000),
        1_000,
    ),
    Experiment(
        MUCH,
        "2 GB by librdkafka, linger.ms=50, batch.size=1000000",
        much("librdkafka-produce", **RDKAFKA_BIG),
        then_idle="idle after 2 GB",
    ),
    Experiment(
        "fetch old",
        "these 2 GB from their begin, by a bare client",
        much("raw-fetch"),
        reads=MUCH,
    ),
)


def _java(target: Target, topic: str, count: int, properties: tuple[str, ...]) -> Metrics:
    libs = tools.kafka_libs()
    size = ("--num-records", str(count), "--record-size", str(RECORD_BYTES), "--throughput", "-1")
    bootstrap = f"bootstrap.servers={target.running.bootstrap}"
    command = [tools.java(), *PERF_JVM, f"{libs}/*", PERF_CLASS, "--topic", topic, *size]
    report = _output([*command, "--command-property", bootstrap, "acks=all", *properties])
    last = report.strip().splitlines()[-1]
    found = _RATE.search(last)
    if found is None or not last.startswith(f"{count} records sent"):
        message = f"not every record was sent: {report[-2000:]}"
        raise LoadError(message)
    rate = float(found.group(1))
    return {"records/s": rate, "MB/s": rate * RECORD_BYTES / 1e6}


def _load(kind: str, target: Target, topic: str, **arguments: Any) -> Metrics:
    given = {
        "bootstrap": str(target.running.bootstrap),
        "topic": topic,
        "size": RECORD_BYTES,
        **arguments,
    }
    report = _output([sys.executable, "-m", "bench.macro.load", kind, json.dumps(given)])
    metrics: Metrics = json.loads(report)
    return metrics


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LOAD_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"no end within {LOAD_S_MAX} s: {' '.join(command)}"
        raise LoadError(message) from None
    if done.returncode != 0:
        message = f"status {done.returncode}: {' '.join(command)}\n{done.stderr[-2000:]}"
        raise LoadError(message)
    return done.stdout


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
