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


@record
class Scale:
    """How much of everything; small enough to alternate, large enough to mean something."""

    records: int
    requests: int
    pipelined: int
    latencies: int


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
        count = (
            scale.requests if kind in {"raw-connections", "raw-one-to-each"} else scale.latencies
        )
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
    pid = target.running.pid
    before = measure.settled_usage(pid)
    own_before_s = _children_cpu_s()
    metrics = experiment.run(target, scale, topic)
    after = measure.settled_usage(pid)
    client_s = _children_cpu_s() - own_before_s
    cpu_s = after.cpu_s - before.cpu_s
    payload_bytes = metrics.get("requests", 0) * RECORD_BYTES or scale.records * RECORD_BYTES
    metrics["broker CPU s"] = cpu_s
    if "MB/s" in metrics:
        metrics["CPU s/GB"] = cpu_s / payload_bytes * 1e9
    if "requests" in metrics:
        metrics["CPU us/request"] = cpu_s / metrics["requests"] * 1e6
    if experiment.name.startswith("produce"):
        metrics["bytes written/byte"] = (after.written_bytes - before.written_bytes) / payload_bytes
    others_s = after.machine_cpu_s - before.machine_cpu_s - cpu_s - client_s
    metrics["cores used by others"] = max(others_s, 0.0) / (after.at_s - before.at_s)
    return metrics


def idle(target: Target) -> Metrics:
    """Return what the broker uses while nobody asks for anything."""
    before = measure.usage(target.running.pid)
    time.sleep(IDLE_S)
    after = measure.usage(target.running.pid)
    return {
        "RSS MiB": measure.resident_bytes(target.running.pid) / (1 << 20),
        "PSS MiB": measure.memory_bytes(target.running.pid) / (1 << 20),
        "CPU %": (after.cpu_s - before.cpu_s) / IDLE_S * 100,
    }


def first_produce_s(target: Target, topic: str) -> float:
    """Return the seconds from the broker's command to the first acknowledged record."""
    bootstrap = target.running.bootstrap
    raw.create_topic(bootstrap, topic, 1, target.configs)
    partition = raw.Partition(topic, 0)
    frame = raw.produce(partition, raw.batch([bytes(RECORD_BYTES)], int(time.time() * 1000)))
    deadline_s = time.monotonic() + LOAD_S_MAX
    while True:
        connection = raw.Connection(raw.leader(bootstrap, partition))
        try:
            raw.check_produced(connection.ask(frame), partition)
        except raw.BrokerError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.005)
        else:
            return time.monotonic() - target.running.spawned_s
        finally:
            connection.close()


EXPERIMENTS = (
    Experiment("produce java", "Java, default batching", produce_java(), is_synced=True),
    Experiment(
        "produce java 1MB", "Java, 1 MB batches", produce_java(*BIG_BATCHES), is_synced=True
    ),
    Experiment("produce librdkafka", "librdkafka, default batching", produce_librdkafka()),
    Experiment(
        "produce librdkafka 1MB",
        "librdkafka, 1 MB batches",
        produce_librdkafka(linger_ms=50, batch_size=1_000_000, queue_buffering_max_kbytes=262_144),
    ),
    Experiment(
        "fetch librdkafka",
        "librdkafka, by assignment",
        fetch("librdkafka-fetch"),
        reads="produce java",
    ),
    Experiment(
        "fetch raw",
        "a bare client that looks at no record",
        fetch("raw-fetch"),
        reads="produce java",
    ),
    Experiment("one record java", "Java, one record per request", one_record_java, 1),
    Experiment("one record raw 5", "bare client, 5 in flight", pipelined(5), 1, is_synced=True),
    Experiment("one record raw 1000", "bare client, 1,000 in flight", pipelined(1000), 1),
    Experiment("latency", "bare client, one at a time", latency, 1, is_synced=True),
    Experiment("one record librdkafka 5", "5 in flight", one_record_librdkafka(5), 1),
    Experiment("one record librdkafka", "its default in flight", one_record_librdkafka(None), 1),
    Experiment(
        "50 connections", "bare clients, one record at a time", small("raw-connections", 50), 1
    ),
    Experiment(
        "1000 a second", "one record each millisecond", small("raw-rate"), 1, is_synced=True
    ),
    Experiment("write to read", "one record to a waiting reader", small("raw-write-to-read"), 1),
    Experiment("10 partitions", "one record to each", small("raw-one-to-each", partitions=10), 10),
    Experiment(
        "1000 partitions",
        "one record to each",
        small("raw-one-to-each", partitions=1_000),
        1_000,
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
