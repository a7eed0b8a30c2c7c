"""Kafka's own command-line tools, which are the Java clients with a shell around them."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.conformance import tools
from tests.conformance.probe import Address
from tests.conformance.steps.step import Step, StepError, expect, new_topic, output

CLIENT = "Kafka's Java tools 4.3.1"
TOPICS = "org.apache.kafka.tools.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
PERF_PRODUCER = "org.apache.kafka.tools.ProducerPerformance"
PERF_CONSUMER = "org.apache.kafka.tools.ConsumerPerformance"
CONSOLE_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
LOG_DIRS = "org.apache.kafka.tools.LogDirsCommand"
ELECTION = "org.apache.kafka.tools.LeaderElectionCommand"
REASSIGN = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
API_VERSIONS = "org.apache.kafka.tools.BrokerApiVersionsCommand"

LINES = [f"line {i}" for i in range(100)]
PERF_RECORDS = 20_000
LEARNED_S_MAX = 30.0
UNKNOWN_BROKER = 2_000_000


def steps() -> list[Step]:
    """Return what the tools are asked to do, in order."""
    return [
        Step(CLIENT, "kafka-topics: create, list, describe, delete", _topics),
        Step(CLIENT, "kafka-configs: describe", _configs),
        Step(CLIENT, "kafka-configs: alter topics, a broker, all brokers", _alter_configs),
        Step(CLIENT, "kafka-topics: alter the number of partitions", _alter_partitions),
        Step(CLIENT, "kafka-log-dirs: describe", _log_dirs),
        Step(CLIENT, "kafka-leader-election: preferred and unclean", _elect),
        Step(CLIENT, "kafka-reassign-partitions: all five actions, on one node", _reassign),
        Step(CLIENT, "kafka-broker-api-versions", _api_versions),
        Step(CLIENT, "kafka-producer-perf-test, defaults (idempotent)", _perf_default),
        Step(CLIENT, "kafka-producer-perf-test, acks=1, zstd, 1 MB batches", _perf_tuned),
        Step(CLIENT, "kafka-console-producer and -consumer by partition and offset", _console),
        Step(CLIENT, "kafka-consumer-perf-test: 30 partitions in a fetch session", _fetch_session),
        Step(CLIENT, "kafka-console-consumer in a group", partial(_group, "classic")),
        Step(CLIENT, "the same, group.protocol=consumer", partial(_group, "consumer")),
        Step(CLIENT, "kafka-get-offsets: earliest, latest, time, max-timestamp", _offsets),
    ]


def tool(main_class: str, *arguments: str, stdin: str = "") -> str:
    """Run one of Kafka's tools as its shell script would."""
    libs = tools.kafka_libs()
    java = [tools.java(), "-Xmx256M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return output([*java, "-cp", f"{libs}/*", main_class, *arguments], stdin)


def _server(bootstrap: Address) -> tuple[str, str]:
    return ("--bootstrap-server", str(bootstrap))


def create(bootstrap: Address, topic: str, partitions: int = 1, *more: str) -> None:
    count = ("--partitions", str(partitions))
    tool(TOPICS, *_server(bootstrap), "--create", "--topic", topic, *count, *more)


def _topics(bootstrap: Address) -> None:
    server = _server(bootstrap)
    topic = new_topic("topics")
    create(bootstrap, topic, 3, "--config", "retention.ms=7200000")
    expect(topic in tool(TOPICS, *server, "--list").splitlines(), True, "it is listed")
    described = tool(TOPICS, *server, "--describe", "--topic", topic)
    expect("PartitionCount: 3" in described, True, f"three partitions in {described!r}")
    expect("retention.ms=7200000" in described, True, f"the setting in {described!r}")
    expect(described.count("Leader: none"), 0, f"leaders in {described!r}")
    _refused("already exists", TOPICS, *server, "--create", "--topic", topic)
    tool(TOPICS, *server, "--delete", "--topic", topic)
    expect(topic in tool(TOPICS, *server, "--list").splitlines(), False, "it is still listed")


def _configs(bootstrap: Address) -> None:
    topic = new_topic("configs")
    create(bootstrap, topic, 1, "--config", "segment.bytes=1048576")
    entity = ("--entity-type", "topics", "--entity-name", topic)
    described = tool(CONFIGS, *_server(bootstrap), "--describe", *entity)
    expect("segment.bytes=1048576" in described, True, f"the setting in {described!r}")
    everything = tool(CONFIGS, *_server(bootstrap), "--describe", "--all", *entity)
    expect("max.message.bytes=1048588" in everything, True, f"a default in {everything!r}")


def _alter_configs(bootstrap: Address) -> None:
    topic = new_topic("alter")
    create(bootstrap, topic)
    broker = str(min(_log_dir_rows(bootstrap)))
    for entity, change, gone in (
        (("topics", topic), "max.message.bytes=2000", "max.message.bytes"),
        (("brokers", broker), "log.retention.ms=86400001", "log.retention.ms"),
        (("brokers", ""), "log.retention.ms=86400002", "log.retention.ms"),
    ):
        kind, name = entity
        named = ("--entity-name", name) if name else ("--entity-default",)
        where = (*_server(bootstrap), "--entity-type", kind, *named)
        describe = partial(tool, CONFIGS, *where, "--describe")
        tool(CONFIGS, *where, "--alter", "--add-config", change)
        _await(describe, change, is_there=True)
        tool(CONFIGS, *where, "--alter", "--delete-config", gone)
        _await(describe, change, is_there=False)
    wrong = (*_server(bootstrap), "--entity-type", "topics", "--entity-name", topic, "--alter")
    _refused("for configuration retention.ms", CONFIGS, *wrong, "--add-config", "retention.ms=soon")


def _alter_partitions(bootstrap: Address) -> None:
    topic = new_topic("more")
    create(bootstrap, topic, 2)
    alter = (*_server(bootstrap), "--alter", "--topic", topic, "--partitions")
    tool(TOPICS, *alter, "5")
    described = tool(TOPICS, *_server(bootstrap), "--describe", "--topic", topic)
    expect("PartitionCount: 5" in described, True, f"five partitions in {described!r}")
    expect(described.count("Leader: none"), 0, f"leaders in {described!r}")
    _refused("would not be an increase", TOPICS, *alter, "3")


def _log_dirs(bootstrap: Address) -> None:
    topic = new_topic("sizes")
    create(bootstrap, topic, 3)
    tool(CONSOLE_PRODUCER, *_server(bootstrap), "--topic", topic, stdin="line\n" * 100)
    sizes: dict[str, int] = {}
    for directories in _log_dir_rows(bootstrap).values():
        for directory in directories:
            expect(directory["error"], None, "the directory's error")
            for row in directory["partitions"]:
                if row["partition"].startswith(topic):
                    expect(row["partition"] in sizes, False, f"{row['partition']} twice")
                    sizes[row["partition"]] = row["size"]
    expect(sorted(sizes), [f"{topic}-{number}" for number in range(3)], "partitions")
    expect(sum(sizes.values()) > 400, True, f"bytes in {sizes}")


def _log_dir_rows(bootstrap: Address) -> dict[int, list[dict[str, Any]]]:
    """Return the log directories of every broker."""
    told = tool(LOG_DIRS, *_server(bootstrap), "--describe")
    found = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
    return {row["broker"]: row["logDirs"] for row in found["brokers"]}


def _elect(bootstrap: Address) -> None:
    topic = new_topic("elect")
    create(bootstrap, topic)
    where = ("--topic", topic, "--partition", "0")
    for kind in ("PREFERRED", "UNCLEAN"):
        told = tool(ELECTION, *_server(bootstrap), "--election-type", kind, *where)
        expect("already elected" in told, True, f"no need in {told!r}")
        tool(ELECTION, *_server(bootstrap), "--election-type", kind, "--all-topic-partitions")


def _reassign(bootstrap: Address) -> None:
    """Ask for replicas on one broker; ours may have them on another core of the node before."""
    topic = new_topic("reassign")
    create(bootstrap, topic, 2)
    broker = min(_log_dir_rows(bootstrap))
    there = [{"topic": topic, "partition": number, "replicas": [broker]} for number in range(2)]
    nowhere = [{"topic": topic, "partition": 0, "replicas": [UNKNOWN_BROKER]}]
    server = _server(bootstrap)
    with TemporaryDirectory() as directory:
        plans = {"topics": [{"topic": topic}], "there": there, "nowhere": nowhere}
        files = {name: Path(directory, f"{name}.json") for name in plans}
        for name, plan in plans.items():
            key = "topics" if name == "topics" else "partitions"
            files[name].write_text(json.dumps({"version": 1, key: plan}))
        of = {name: ("--reassignment-json-file", str(file)) for name, file in files.items()}
        topics = ("--topics-to-move-json-file", str(files["topics"]))
        made = tool(REASSIGN, *server, "--generate", *topics, "--broker-list", str(broker))
        proposed = json.loads(made.strip().splitlines()[-1])["partitions"]
        expect([row["replicas"] for row in proposed], [[broker]] * 2, f"replicas in {made!r}")
        unknown = f"Unknown broker id {UNKNOWN_BROKER}"
        _refused(unknown, REASSIGN, *server, "--execute", *of["nowhere"])
        told = tool(REASSIGN, *server, "--execute", *of["there"])
        expect("Successfully started" in told, True, f"it is begun in {told!r}")
        verify = partial(tool, REASSIGN, *server, "--verify", *of["there"])
        for number in range(2):
            done = f"Reassignment of partition {topic}-{number} is completed."
            _await(verify, done, is_there=True)
        told = tool(REASSIGN, *server, "--cancel", *of["there"])
        expect("None of the specified partition" in told, True, f"nothing goes on in {told!r}")
    listed = tool(REASSIGN, *server, "--list")
    expect(listed.strip(), "No partition reassignments found.", "what goes on")
    described = tool(TOPICS, *server, "--describe", "--topic", topic)
    expect(described.count(f"Leader: {broker}\t"), 2, f"leaders in {described!r}")


def _await(ask: Callable[[], str], text: str, *, is_there: bool) -> None:
    """Ask until *text* is in the answer, or not: Kafka's brokers learn of changes late."""
    deadline_s = time.monotonic() + LEARNED_S_MAX
    while (text in (told := ask())) != is_there and time.monotonic() < deadline_s:
        pass
    expect(text in told, is_there, f"{text} in {told!r}")


def _refused(reason: str, main_class: str, *arguments: str) -> None:
    try:
        tool(main_class, *arguments)
    except StepError as error:
        expect(reason in str(error), True, f"the reason in {error}")
    else:
        message = f"{' '.join(arguments)} was taken"
        raise StepError(message)


def _api_versions(bootstrap: Address) -> None:
    table = tool(API_VERSIONS, *_server(bootstrap))
    expect("Produce(0)" in table, True, f"Produce in {table!r}")


def _perf(bootstrap: Address, *properties: str) -> None:
    topic = new_topic("perf")
    create(bootstrap, topic, 4)
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
    create(bootstrap, topic)
    server = _server(bootstrap)
    tool(CONSOLE_PRODUCER, *server, "--topic", topic, stdin="\n".join(LINES) + "\n")
    where = ("--topic", topic, "--partition", "0")
    for offset, expected in (("earliest", LINES), ("40", LINES[40:])):
        count = ("--max-messages", str(len(expected)), "--timeout-ms", "30000")
        read = tool(CONSOLE_CONSUMER, *server, *where, "--offset", offset, *count)
        expect(read.splitlines(), expected, f"from offset {offset}")


def _fetch_session(bootstrap: Address) -> None:
    """Read many partitions in small answers: all but the first request of the session name few."""
    topic, server = new_topic("session"), _server(bootstrap)
    create(bootstrap, topic, 30)
    count = ("--num-records", "3000")
    size = (*count, "--record-size", "1000", "--throughput", "-1", "--topic", topic)
    tool(PERF_PRODUCER, *size, "--command-property", f"bootstrap.servers={bootstrap}")
    small = ("--command-property", "fetch.max.bytes=8192", "max.partition.fetch.bytes=2048")
    bounds = (*count, "--timeout", "30000", "--hide-header")
    read = tool(PERF_CONSUMER, *server, "--topic", topic, *bounds, *small)
    expect(int(read.splitlines()[-1].split(",")[4]), 3_000, f"records in {read!r}")


def _group(protocol: str, bootstrap: Address) -> None:
    """Read in two sittings, see the offsets, set them back, and delete the group."""
    topic, server = new_topic(f"group-{protocol}"), _server(bootstrap)
    create(bootstrap, topic, 2)
    tool(CONSOLE_PRODUCER, *server, "--topic", topic, stdin="\n".join(LINES) + "\n")
    group = ("--group", f"of-{topic}")
    properties = ("--command-property", f"group.protocol={protocol}")
    place = ("--topic", topic, "--from-beginning", *group, *properties)
    read: list[str] = []
    for count in (40, 60):
        bounds = ("--max-messages", str(count), "--timeout-ms", "30000")
        read += tool(CONSOLE_CONSUMER, *server, *place, *bounds).splitlines()
    expect(sorted(read), sorted(LINES), "every line once")
    expect(group[1] in tool(GROUPS, *server, "--list").splitlines(), True, "it is listed")
    rows = _described(bootstrap, group, topic)
    expect(sum(int(row[3]) for row in rows), len(LINES), f"committed offsets in {rows}")
    expect({row[5] for row in rows}, {"0"}, f"no lag in {rows}")
    back = ("--reset-offsets", "--topic", topic, "--to-earliest", "--execute")
    tool(GROUPS, *server, *group, *back)
    rows = _described(bootstrap, group, topic)
    expect({row[3] for row in rows}, {"0"}, f"offsets set back in {rows}")
    tool(GROUPS, *server, *group, "--delete")
    expect(group[1] in tool(GROUPS, *server, "--list").splitlines(), False, "it is gone")


def _described(bootstrap: Address, group: tuple[str, str], topic: str) -> list[list[str]]:
    """Return the rows of a group's description: GROUP TOPIC PARTITION CURRENT END LAG ..."""
    said = tool(GROUPS, *_server(bootstrap), *group, "--describe")
    return [row.split() for row in said.splitlines() if topic in row.split()[1:2]]


def _offsets(bootstrap: Address) -> None:
    topic = new_topic("offsets")
    create(bootstrap, topic, 2)
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
