"""What the shell is offered when somebody presses Tab."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from corelane_cli import completion, exits
from corelane_cli.__main__ import cli
from tests.unit.cli.conftest import Served
from tests.unit.cli.invoking import failed, invoke, printed

CORELANE = str(Path(sys.executable).with_name("corelane"))
README = (Path(completion.__file__).parent / "README.md").read_text()


def offered(*words: str, incomplete: str = "") -> list[str]:
    shell = BashComplete(cli, {}, "corelane", completion.VARIABLE)
    return [item.value for item in shell.get_completions([*words], incomplete)]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_as_documented(served: Served, shell: str) -> None:
    script = invoke(served, "completion", shell).stdout
    assert completion.VARIABLE in script
    words = ("completion", shell, "--format", "json")
    assert printed(invoke(served, *words)) == {"shell": shell, "script": script[:-1]}
    assert f"corelane completion {shell}" in README
    assert f"corelane completion {shell}" in invoke(served, "completion", "--help").stdout


def test_another_shell_is_a_usage_error(served: Served) -> None:
    failed(invoke(served, "completion", "csh", "--format", "json"), exits.USAGE)


def test_bash_takes_the_script_and_completes_a_command() -> None:
    """Through bash itself: the script is loaded, and its function asks the program."""
    script = (
        f'PATH="{Path(CORELANE).parent}:$PATH"\neval "$(corelane completion bash)"\n'
        "COMP_WORDS=(corelane topic add); COMP_CWORD=2\n"
        '_corelane_completion corelane add topic; echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("add-partitions\n", "")


def test_commands_and_choices_are_offered() -> None:
    assert "consume" in offered(incomplete="con")
    assert offered("completion") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize(
    "words",
    [
        ("consume",),
        ("produce",),
        ("topic", "describe"),
        ("topic", "delete"),
        ("topic", "alter"),
        ("topic", "add-partitions"),
        ("topic", "trim"),
        ("cluster", "move-core"),
        ("cluster", "reassign"),
    ],
    ids=" ".join,
)
def test_topics_are_offered(
    words: tuple[str, ...], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for topic in ("orders", "other", "users"):
        served.cluster.topic(topic)
    monkeypatch.setenv("CORELANE_BOOTSTRAP", served.bootstrap)
    assert offered(*words, incomplete="o") == ["orders", "other"]


def test_topics_come_from_the_broker_that_was_named_and_once(served: Served) -> None:
    for topic in ("a", "b"):
        served.cluster.topic(topic)
    assert offered("consume", "--bootstrap", served.bootstrap, "a") == ["b"]


@pytest.fixture
def silent() -> Iterator[str]:
    """Return an address where connections are taken and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_slow_or_missing_broker_offers_nothing_and_says_nothing(
    served: Served, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.cluster.topic("there")
    monkeypatch.setattr(completion, "WAIT_S_MAX", 0)
    assert offered("consume", "--bootstrap", served.bootstrap) == []
    monkeypatch.setattr(completion, "WAIT_S_MAX", 0.05)
    assert offered("consume", "--bootstrap", silent) == []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{probe.getsockname()[1]}"
    assert offered("consume", "--bootstrap", nobody) == []
    assert offered("consume", "--bootstrap", "not:an:address") == []
    environment = {
        **os.environ,
        "CORELANE_BOOTSTRAP": nobody,
        completion.VARIABLE: "bash_complete",
        "COMP_WORDS": "corelane consume ",
        "COMP_CWORD": "2",
    }
    done = subprocess.run([CORELANE], env=environment, capture_output=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (b"", b"")


def test_settings_are_offered() -> None:
    assert offered("config", "explain", incomplete="log.retention.b") == ["log.retention.bytes"]
    assert "retention.ms" in offered("config", "explain", incomplete="ret")
    names = offered("topic", "alter", "t", "--delete", incomplete="retention.")
    assert names == ["retention.bytes", "retention.ms"]


def test_the_table_of_commands_is_whole() -> None:
    words = json.dumps([*cli.commands])
    assert all(f"corelane {name}" in README for name in cli.commands), words
