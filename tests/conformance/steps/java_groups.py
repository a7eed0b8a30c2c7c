"""Java consumers of both protocols in one group, which goes from one to the other and back."""

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from tests.conformance import tools
from tests.conformance.probe import Address
from tests.conformance.steps import kafka_tools
from tests.conformance.steps.step import Step, StepError, expect, new_topic

CLIENT: Final = kafka_tools.CLIENT
PARTITIONS: Final = 4
WAIT_S: Final = 100.0
LIST_GROUPS: Final = "org.apache.kafka.tools.GroupsCommand"


def steps() -> list[Step]:
    """Return what the consumers are asked to do, in order."""
    return [Step(CLIENT, "a group of both protocols, up and down while it reads", _rolls)]


class _Consumer:
    """One console consumer, and what it has printed so far."""

    def __init__(self, bootstrap: Address, topic: str, protocol: str, place: Path) -> None:
        self.printed = place / f"{time.monotonic_ns()}.{protocol}"
        properties = {"group.protocol": protocol, "auto.offset.reset": "earliest"}
        if protocol == "classic":
            properties["heartbeat.interval.ms"] = "500"
        said = [f"--command-property={name}={value}" for name, value in properties.items()]
        server = ("--bootstrap-server", str(bootstrap), "--topic", topic, "--group", topic)
        with self.printed.open("w") as out, self.printed.with_suffix(".log").open("w") as log:
            self.process = subprocess.Popen(
                _java(kafka_tools.CONSOLE_CONSUMER, *server, *said), stdout=out, stderr=log
            )

    def lines(self) -> list[str]:
        return self.printed.read_text().splitlines()

    def stop(self) -> None:
        """Have it commit and leave, as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(WAIT_S)


def _java(main_class: str, *arguments: str) -> list[str]:
    libs = tools.kafka_libs()
    java = [tools.java(), "-Xmx128M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return [*java, "-cp", f"{libs}/*", main_class, *arguments]


def _rolls(bootstrap: Address) -> None:
    topic = new_topic("mixed")
    kafka_tools.create(bootstrap, topic, PARTITIONS)
    with tempfile.TemporaryDirectory(prefix="mixed-") as folder, contextlib.ExitStack() as stack:
        writer = stack.enter_context(_writer(bootstrap, topic))
        consumers: list[_Consumer] = []
        sent = 0

        def say() -> None:
            nonlocal sent
            for _ in range(PARTITIONS * 2):
                writer.write(f"{sent}\n")
                sent += 1
            writer.flush()

        def joined(protocol: str) -> _Consumer:
            """Start a member; it has its share once it prints what is new."""
            consumer = _Consumer(bootstrap, topic, protocol, Path(folder))
            consumers.append(consumer)
            stack.callback(consumer.process.kill)

            def has_share() -> bool:
                say()
                return bool(consumer.lines())

            _until(has_share, f"a {protocol} member reads", consumers)
            return consumer

        first = joined("classic")
        second = joined("consumer")
        expect(_kind(bootstrap, topic), "Consumer", "the group with a member of either protocol")
        first.stop()
        third = joined("classic")
        second.stop()
        fourth = joined("classic")
        expect(_kind(bootstrap, topic), "Classic", "the group that went back")
        wanted = {str(number) for number in range(sent)}

        def missing() -> set[str]:
            return wanted - {line for each in consumers for line in each.lines()}

        _until(lambda: not missing(), "every record is read", consumers)
        for each in (third, fourth):
            each.stop()


@contextlib.contextmanager
def _writer(bootstrap: Address, topic: str) -> Iterator[IO[str]]:
    """Yield what a console producer reads lines from; they are spread over all partitions."""
    properties = ("--command-property=partitioner.adaptive.partitioning.enable=false",)
    spread = ("--command-property=batch.size=1", "--command-property=linger.ms=0")
    server = ("--bootstrap-server", str(bootstrap), "--topic", topic)
    command = _java(kafka_tools.CONSOLE_PRODUCER, *server, *properties, *spread)
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        yield process.stdin
        process.stdin.close()
        process.wait(WAIT_S)
    finally:
        process.kill()
        process.wait()


def _kind(bootstrap: Address, group: str) -> str:
    said = kafka_tools.tool(LIST_GROUPS, "--bootstrap-server", str(bootstrap), "--list")
    for line in said.splitlines():
        words = line.split()
        if words and words[0] == group:
            return words[1]
    message = f"{group} is not listed:\n{said}"
    raise StepError(message)


def _until(is_so: Callable[[], object], what: str, consumers: list[_Consumer]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not is_so():
        if time.monotonic() > deadline_s:
            logs = [each.printed.with_suffix(".log").read_text()[-700:] for each in consumers]
            message = f"not within {WAIT_S} s: {what}\n" + "\n".join(logs)
            raise StepError(message)
        time.sleep(0.5)
