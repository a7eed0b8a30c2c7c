"""Kafka Streams and Kafka Connect, which build on what Java's clients offer."""

import contextlib
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tests.conformance import tools
from tests.conformance.probe import Address
from tests.conformance.steps import kafka_tools
from tests.conformance.steps.step import Step, StepError, expect, new_topic, output
from tests.integration.ports import free_ports

CLIENT = "Kafka Streams and Connect 4.3.1"
JAVA: Final = Path(__file__).parents[1] / "java"
WORDS: Final = [f"word-{number % 7}" for number in range(700)]
HALT_AFTER: Final = 300
CONNECT_S_MAX: Final = 90.0
WORKER: Final = "org.apache.kafka.connect.cli.ConnectDistributed"


def steps() -> list[Step]:
    """Return what the frameworks are asked to do, in order."""
    at_least_once = partial(_count, "at_least_once")
    return [
        Step(CLIENT, "Streams counts words, at_least_once", at_least_once),
        Step(CLIENT, "Streams counts each word once, killed meanwhile (exactly_once_v2)", _exactly),
        Step(CLIENT, "a Connect worker starts and copies a file into a topic", _connect),
    ]


def _java(*more: str) -> list[str]:
    libs = tools.kafka_libs()
    return [tools.java(), "-Xmx384M", "-XX:+UseSerialGC", "-cp", f"{libs}/*", *more]


def _prepared(bootstrap: Address, name: str) -> tuple[str, str]:
    """Return an input with words in it, and an output, both new."""
    source, target = new_topic(f"{name}-in"), new_topic(f"{name}-out")
    for topic in (source, target):
        kafka_tools.create(bootstrap, topic, 2)
    server = ("--bootstrap-server", str(bootstrap))
    lines = "".join(f"{word}\n" for word in WORDS)
    kafka_tools.tool(kafka_tools.CONSOLE_PRODUCER, *server, "--topic", source, stdin=lines)
    return source, target


def _run(bootstrap: Address, guarantee: str, places: tuple[str, str], state: str, halt: int) -> str:
    application = f"counting-{places[0]}"
    numbers = (str(halt), str(len(WORDS)))
    program = _java(str(JAVA / "Counting.java"), str(bootstrap), application)
    return output([*program, *places, guarantee, state, *numbers])


def _count(guarantee: str, bootstrap: Address) -> None:
    places = _prepared(bootstrap, "streams")
    with tempfile.TemporaryDirectory(prefix="streams-") as state:
        _is_exact(_run(bootstrap, guarantee, places, state, 0))


def _exactly(bootstrap: Address) -> None:
    places = _prepared(bootstrap, "exactly")
    guarantee = "exactly_once_v2"
    with tempfile.TemporaryDirectory(prefix="streams-") as state:
        said = _run(bootstrap, guarantee, places, state, HALT_AFTER)
        expect("count " in said, False, "it died in the middle")
        _is_exact(_run(bootstrap, guarantee, places, state, 0))


def _is_exact(said: str) -> None:
    """See that each word was counted one by one, without a number twice or left out."""
    counts: dict[str, list[int]] = {}
    for line in said.splitlines():
        if not line.startswith("count "):
            continue
        _, word, count = line.split()
        counts.setdefault(word, []).append(int(count))
    expected = {word: [*range(1, count + 1)] for word, count in Counter(WORDS).items()}
    expect(counts, expected, "the counts of each word")


def _connect(bootstrap: Address) -> None:
    name = new_topic("connect")
    lines = [f"line {number}" for number in range(50)]
    with tempfile.TemporaryDirectory(prefix="connect-") as folder:
        place = Path(folder)
        (place / "input.txt").write_text("".join(f"{line}\n" for line in lines))
        rest = f"http://127.0.0.1:{free_ports(1)[0]}"
        settings = place / "worker.properties"
        settings.write_text(
            "".join(f"{key}={value}\n" for key, value in _worker(bootstrap, name, rest))
        )
        with _worker_process(settings, place / "worker.log"):
            _await_worker(rest, place / "worker.log")
            source = (
                f'{{"name": "{name}", "config": {{'
                '"connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",'
                f'"tasks.max": "1", "topic": "{name}", "file": "{place / "input.txt"}"}}}}'
            )
            _post(f"{rest}/connectors", source)
            server = ("--bootstrap-server", str(bootstrap))
            bounds = ("--max-messages", str(len(lines)), "--timeout-ms", "60000")
            where = ("--topic", name, "--from-beginning")
            read = kafka_tools.tool(kafka_tools.CONSOLE_CONSUMER, *server, *where, *bounds)
            expect(read.splitlines(), lines, "what the connector copied")


def _worker(bootstrap: Address, name: str, rest: str) -> list[tuple[str, str]]:
    kinds = ("config", "offset", "status")
    replicas = [(f"{kind}.storage.replication.factor", "-1") for kind in kinds]
    converter = "org.apache.kafka.connect.storage.StringConverter"
    return [
        ("bootstrap.servers", str(bootstrap)),
        ("group.id", f"workers-{name}"),
        ("listeners", rest),
        ("key.converter", converter),
        ("value.converter", converter),
        ("exactly.once.source.support", "enabled"),
        *((f"{kind}.storage.topic", f"{name}-{kind}") for kind in kinds),
        *replicas,
    ]


@contextlib.contextmanager
def _worker_process(settings: Path, log: Path) -> Iterator[None]:
    with log.open("w") as told:
        process = subprocess.Popen(_java(WORKER, str(settings)), stdout=told, stderr=told)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _await_worker(rest: str, log: Path) -> None:
    deadline_s = time.monotonic() + CONNECT_S_MAX
    while True:
        try:
            with urllib.request.urlopen(f"{rest}/connectors", timeout=5) as answer:  # noqa: S310
                answer.read()
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline_s:
                message = f"no worker after {CONNECT_S_MAX} s: {log.read_text()[-2000:]}"
                raise StepError(message) from None
            time.sleep(0.5)


def _post(url: str, body: str) -> None:
    request = urllib.request.Request(  # noqa: S310 - our own address
        url, data=body.encode(), headers={"Content-Type": "application/json"}
    )
    deadline_s = time.monotonic() + CONNECT_S_MAX
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                answer.read()
                return
        except urllib.error.HTTPError as fault:
            # A worker that is rebalancing says 409, and means: again.
            if fault.code not in {409, 500} or time.monotonic() > deadline_s:
                raise StepError(f"{fault.code}: {fault.read().decode()[:2000]}") from None
        except OSError as fault:
            raise StepError(f"the worker does not answer {url}: {fault}") from fault
        time.sleep(0.5)
