"""The corelane command against a real broker, as people type it: the README's own lines.

The broker is Corelane, or the one that CORELANE_BOOTSTRAP names.
"""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from corelane_cli import exits
from tests.integration import broker as brokers

CORELANE = str(Path(sys.executable).with_name("corelane"))
PIPE_BYTES_FULL = 60 * 1024
COMMAND_S_MAX = 120.0


class Shell:
    """Runs commands of one cluster."""

    def __init__(self, bootstrap: str) -> None:
        self.environment = {**os.environ, "CORELANE_BOOTSTRAP": bootstrap}

    def run(self, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [CORELANE, *words],
            input=data,
            env=self.environment,
            capture_output=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )

    def text(self, *words: str, data: bytes = b"") -> str:
        done = self.run(*words, data=data)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def json(self, *words: str, data: bytes = b"") -> Any:
        return json.loads(self.text(*words, "--format", "json", data=data))


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    named = os.environ.get("CORELANE_BOOTSTRAP")
    if named:
        yield Shell(named)
        return
    with brokers.started(tmp_path_factory.mktemp("cli") / "data") as broker:
        yield Shell(broker.bootstrap)


@pytest.fixture
def topic(shell: Shell) -> str:
    name = f"cli-{uuid.uuid4().hex[:12]}"
    assert shell.text("topic", "create", name, "--partitions", "3") == f"created topic {name}\n"
    return name


@contextmanager
def consuming(topic: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a consumer of partition 0; it is killed if it is still there at the end."""
    command = [CORELANE, "consume", topic, "-p", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def pipe_bytes(descriptor: int) -> int:
    """Return how much a pipe holds."""
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    assert isinstance(count, int)
    return count


def test_the_lines_of_the_readme(shell: Shell, topic: str) -> None:
    shell.text("produce", topic, "--partition", "0", data=b"hello\n")
    assert shell.text("consume", topic, "--partition", "0", "--count", "1") == "hello\n"
    listed = shell.json("topic", "list")
    assert topic in [row["name"] for row in listed["topics"]]


def test_what_goes_in_comes_out(shell: Shell, topic: str) -> None:
    lines = [b"k%d=%s" % (number % 50, os.urandom(20).hex().encode()) for number in range(5000)]
    report = shell.json("produce", topic, "-K", "=", "-z", "zstd", data=b"\n".join(lines) + b"\n")
    assert report["records"] == 5000
    assert sum(row["records"] for row in report["partitions"]) == 5000
    out = shell.text("consume", topic, "-o", ":end", "-f", "%k=%v\\n")
    assert sorted(out.encode().splitlines()) == sorted(lines)


def test_a_topic_goes_through_a_file_with_every_byte(
    shell: Shell, topic: str, tmp_path: Path
) -> None:
    """The lines of the README."""
    lines = b"".join(
        b"%d:%s\n" % (number, bytes([number] * 3).hex().encode()) for number in range(99)
    )
    shell.text("produce", topic, "-p", "0", "-f", "%k:%v{hex}\\n", "-H", "h=1", "-Z", data=lines)
    shell.text("produce", topic, "-p", "0", "-k", "gone", "-Z", "-m", "")
    form = "%K{big32}%V{big32}%H{big32}%h{%K{big32}%V{big32}%k%v}%d{big64}%k%v"
    records = tmp_path / "records"
    records.write_bytes(shell.run("consume", topic, "-o", ":end", "-f", form).stdout)
    copy = f"{topic}-copy"
    shell.text("topic", "create", copy)
    report = shell.json("produce", copy, "--template", form, "--file", str(records), "-z", "lz4")
    assert report["records"] == 100
    every = "%o %d %k=%v{hex} %V %h\\n"
    first, second = (
        shell.text("consume", each, "-o", ":end", "-f", every) for each in (topic, copy)
    )
    assert first == second
    assert first.splitlines()[-1].split(" ", 2)[2] == "gone= -1 "


def test_what_the_broker_knows_of_a_record(shell: Shell, topic: str) -> None:
    shell.text("produce", topic, "-p", "0", "-z", "zstd", data=b"a\nb\n")
    out = shell.text(
        "consume", topic, "-p", "0", "-o", ":end", "-f", "%i %[ %| %] %a{compression}\\n"
    )
    assert out == "1 0 2 2 zstd\n2 0 2 2 zstd\n"


def test_settings_of_the_running_broker(shell: Shell) -> None:
    found = shell.json("config", "explain", "corelane.data.dir")
    assert found["source"] == "given at the start"
    assert found["value"] != found["default"]
    changed = shell.json("config", "list", "--changed")["settings"]
    assert "corelane.data.dir" in [row["key"] for row in changed]


def test_brokers_are_shown_and_healthy(shell: Shell, topic: str) -> None:
    found = shell.json("cluster", "info")
    assert sum(row["partitions_led"] for row in found["brokers"]) >= 3
    assert shell.json("cluster", "health")["healthy"]


def test_a_topic_is_described_and_deleted(shell: Shell, topic: str) -> None:
    shell.text("produce", topic, "-p", "2", data=b"a\nb\n")
    (described,) = shell.json("topic", "describe", topic)["topics"]
    assert [row["next_offset"] for row in described["partitions"]] == [0, 0, 2]
    assert described["configs"]["cleanup.policy"] == {"value": "delete", "source": "default"}
    assert shell.text("topic", "delete", topic) == f"deleted topic {topic}\n"
    done = shell.run("topic", "describe", topic, "--format", "json")
    assert done.returncode == exits.REFUSED
    assert json.loads(done.stderr)["error"]["code"] == "UNKNOWN_TOPIC_OR_PARTITION"


def test_offsets_as_people_write_them(shell: Shell, topic: str) -> None:
    shell.text("produce", topic, "-p", "1", data=b"0\n1\n2\n3\n4\n")
    for offset, expected in {
        ":end": "0 1 2 3 4",
        "1:3": "1 2",
        "-2": "3 4",
        "+4": "4",
        "@-1h:end": "0 1 2 3 4",
    }.items():
        count = len(expected.split())
        out = shell.text("consume", topic, "-p", "1", "-o", offset, "-n", str(count))
        assert out.split() == expected.split(), offset


def test_an_interrupted_consumer_has_printed_what_there_was(shell: Shell, topic: str) -> None:
    shell.text("produce", topic, "-p", "0", data=b"a\nb\n")
    with consuming(topic, shell.environment) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"a\n", b"b\n"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=COMMAND_S_MAX)
    assert (process.returncode, out, err.strip()) == (exits.INTERRUPTED, b"", b"")


def test_a_consumer_whose_reader_stopped_can_be_interrupted(shell: Shell, topic: str) -> None:
    """As `less` does: it stops reading when it has enough, and stays."""
    shell.text("produce", topic, "-p", "0", data=b"".join(b"%099d\n" % n for n in range(10_000)))
    env = {key: value for key, value in shell.environment.items() if key != "PYTHONUNBUFFERED"}
    with consuming(topic, env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while pipe_bytes(process.stdout.fileno()) < PIPE_BYTES_FULL:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(COMMAND_S_MAX) == exits.INTERRUPTED
        assert process.stderr.read().strip() == b""


def test_a_pipe_that_closes_ends_the_consumer_quietly(shell: Shell, topic: str) -> None:
    shell.text("produce", topic, data=b"".join(b"%099d\n" % number for number in range(20_000)))
    script = f"{CORELANE} consume {topic} | head -1 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script],
        env=shell.environment,
        capture_output=True,
        timeout=COMMAND_S_MAX,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"%d\n" % exits.READER_GONE, b"")


def test_the_beginning_of_a_topic_is_trimmed(shell: Shell, topic: str) -> None:
    shell.text("produce", topic, "-p", "1", data=b"0\n1\n2\n3\n4\n")
    done = shell.text("topic", "trim", topic, "-o", "3", "-p", "1", "--yes")
    assert done == f"trimmed {topic}, partition 1: 3 offsets deleted, the first is now 3\n"
    assert shell.text("consume", topic, "-p", "1", "-o", ":end") == "3\n4\n"
    refused = shell.run("topic", "trim", topic, "-o", "99", "-p", "1", "-y", "--format", "json")
    assert refused.returncode == exits.REFUSED
    assert json.loads(refused.stderr)["error"]["code"] == "OFFSET_OUT_OF_RANGE"
    shell.text("topic", "trim", topic, "-o", "end", "--yes")
    (described,) = shell.json("topic", "describe", topic)["topics"]
    assert [row["first_offset"] for row in described["partitions"]] == [0, 5, 0]
