"""Kafka's own command-line tools, which are the Java clients with a shell around them."""

import time

from tests.conformance import tools
from tests.conformance.probe import Address
from tests.conformance.steps.step import Step, StepError, expect, new_topic, output

CLIENT = "Kafka's Java tools 4.3.1"
TOPICS = "org.apache.kafka.tools.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
PERF_PRODUCER = "org.apache.kafka.tools.ProducerPerformance"
CONSOLE_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
API_VERSIONS = "org.apache.kafka.tools.BrokerApiVersionsCommand"

LINES = [f"line {i}" for i in range(100)]
PERF_RECORDS = 20_000


def steps() -> list[Step]:
    """Return what the tools are asked to do, in order."""
    return [
        Step(CLIENT, "kafka-topics: create, list, describe, delete", _topics),
        Step(CLIENT, "kafka-configs: describe", _configs),
        Step(CLIENT, "kafka-broker-api-versions", _api_versions),
        Step(CLIENT, "kafka-producer-perf-test, defaults (idempotent)", _perf_default),
        Step(CLIENT, "kafka-producer-perf-test, acks=1, zstd, 1 MB batches", _perf_tuned),
        Step(CLIENT, "kafka-console-producer and -consumer by partition and offset", _console),
        Step(CLIENT, "kafka-get-offsets: earliest, latest, time, max-timestamp", _offsets),
    ]


def tool(main_class: str, *arguments: str, stdin: str = "") -> str:
    """Run one of Kafka's tools as its shell script would."""
    libs = tools.kafka_libs()
    java = [tools.java(), "-Xmx256M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return output([*java, "-cp", f"{libs}/*", main_class, *arguments], stdin)


def _server(bootstrap: Address) -> tuple[str, str]:
    return ("--bootstrap-server", str(bootstrap))


def _create(bootstrap: Address, topic: str, partitions: int = 1, *more: str) -> None:
    count = ("--partitions", str(partitions))
    tool(TOPICS, *_server(bootstrap), "--create", "--topic", topic, *count, *more)


def _topics(bootstrap: Address) -> None:
    server = _server(bootstrap)
    topic = new_topic("topics")
    _create(bootstrap, topic, 3, "--config", "retention.ms=7200000")
    expect(topic in tool(TOPICS, *server, "--list").splitlines(), True, "it is listed")
    described = tool(TOPICS, *server, "--describe", "--topic", topic)
    expect("PartitionCount: 3" in described, True, f"three partitions in {described!r}")
    expect("retention.ms=7200000" in described, True, f"the setting in {described!r}")
    expect(described.count("Leader: none"), 0, f"leaders in {described!r}")
    try:
        _create(bootstrap, topic)
    except StepError as error:
        expect("already exists" in str(error), True, f"the reason in {error}")
    else:
        message = "a topic could be created twice"
        raise StepError(message)
    tool(TOPICS, *server, "--delete", "--topic", topic)
    expect(topic in tool(TOPICS, *server, "--list").splitlines(), False, "it is still listed")


def _configs(bootstrap: Address) -> None:
    topic = new_topic("configs")
    _create(bootstrap, topic, 1, "--config", "segment.bytes=1048576")
    entity = ("--entity-type", "topics", "--entity-name", topic)
    described = tool(CONFIGS, *_server(bootstrap), "--describe", *entity)
    expect("segment.bytes=1048576" in described, True, f"the setting in {described!r}")
    everything = tool(CONFIGS, *_server(bootstrap), "--describe", "--all", *entity)
    expect("max.message.bytes=1048588" in everything, True, f"a default in {everything!r}")


def _api_versions(bootstrap: Address) -> None:
    table = tool(API_VERSIONS, *_server(bootstrap))
    expect("Produce(0)" in table, True, f"Produce in {table!r}")


def _perf(bootstrap: Address, *properties: str) -> None:
    topic = new_topic("perf")
    _create(bootstrap, topic, 4)
    size = ("--num-records", str(PERF_RECORDS), "--record-size", "1000", "--throughput", "-1")
    command = ("--command-property", f"bootstrap.servers={bootstrap}", *properties)
    report = tool(PERF_PRODUCER, "--topic", topic, *size, *command)
    expect(f"{PERF_RECORDS} records sent" in report, True, f"all records in {report!r}")
    ends = tool(OFFSETS, *_server(bootstrap), "--topic", topic, "--time", "-1")
    expect(sum(_offset_rows(ends).values()), PERF_RECORDS, "records on the broker")


def _perf_default(bootstrap: Address) -> None:
    _perf(bootstrap)


def _perf_tuned(bootstrap: Address) -> None:
    batches = ("batch.size=1000000", "linger.ms=10", "max.request.size=1048588")
    plain = ("acks=1", "enable.idempotence=false", "compression.type=zstd")
    _perf(bootstrap, *plain, *batches)


def _console(bootstrap: Address) -> None:
    topic = new_topic("console")
    _create(bootstrap, topic)
    server = _server(bootstrap)
    tool(CONSOLE_PRODUCER, *server, "--topic", topic, stdin="\n".join(LINES) + "\n")
    where = ("--topic", topic, "--partition", "0")
    for offset, expected in (("earliest", LINES), ("40", LINES[40:])):
        count = ("--max-messages", str(len(expected)), "--timeout-ms", "30000")
        read = tool(CONSOLE_CONSUMER, *server, *where, "--offset", offset, *count)
        expect(read.splitlines(), expected, f"from offset {offset}")


def _offsets(bootstrap: Address) -> None:
    topic = new_topic("offsets")
    _create(bootstrap, topic, 2)
    server = _server(bootstrap)
    before_ms = time.time_ns() // 1_000_000
    tool(CONSOLE_PRODUCER, *server, "--topic", topic, stdin="one\n")
    time.sleep(0.01)
    between_ms = time.time_ns() // 1_000_000
    tool(CONSOLE_PRODUCER, *server, "--topic", topic, stdin="two\n")
    ends = _ask(bootstrap, topic, "-1")
    expect(sum(ends.values()), 2, "latest")
    expect(_ask(bootstrap, topic, "earliest"), {0: 0, 1: 0}, "earliest")
    newest = _ask(bootstrap, topic, "max-timestamp")
    filled = {partition: end - 1 for partition, end in ends.items() if end}
    expect({partition: newest[partition] for partition in filled}, filled, "max-timestamp")
    expect(max(_ask(bootstrap, topic, str(before_ms)).values()), 0, "a time before both")
    later = [offset for offset in _ask(bootstrap, topic, str(between_ms)).values() if offset >= 0]
    expect(len(later), 1, "partitions with a record after the time between both")


def _ask(bootstrap: Address, topic: str, time_spec: str) -> dict[int, int]:
    rows = tool(OFFSETS, *_server(bootstrap), "--topic", topic, "--time", time_spec)
    return _offset_rows(rows)


def _offset_rows(text: str) -> dict[int, int]:
    """Return partition -> offset from lines of topic:partition:offset; -1 where there is none."""
    rows = [line.rsplit(":", 2) for line in text.splitlines() if line.count(":") >= 2]
    return {int(partition): int(offset or -1) for _, partition, offset in rows}
