"""The command line's own manners: help, errors, exit codes, pipes; nothing that needs a broker."""

import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from corelane.runtime import failures
from corelane_cli import exits
from corelane_cli.__main__ import cli
from corelane_cli.application import is_json_wanted

HEAVY = {"trio", "corelane.runtime", "corelane.wire", "corelane_client", "corelane_native"}
HEAVY |= {"zstandard", "lz4", "cramjam", "msgspec", "json", "asyncio", "importlib.metadata"}


CORELANE = str(Path(sys.executable).with_name("corelane"))


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words of every command."""
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
        else:
            found.append((*path, name))
    return found


def unused_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("words", [(), ("topic",), *commands()], ids=" ".join)
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    """Milliseconds depend on the machine; what is imported does not. 150 ms is the promise."""
    script = (
        "import sys\nfrom corelane_cli.__main__ import cli\n"
        "try:\n    cli.main([*sys.argv[1:], '--help'])\n"
        "finally:\n    print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, check=True)
    assert done.stdout.startswith(b"Usage: ")
    assert not set(done.stderr.decode().split()) & HEAVY


def test_the_version_is_the_packages() -> None:
    assert re.fullmatch(r"corelane \d+\.\d+\.\d+\n", invoke("--version").stdout)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_json_and_says_what_it_does(words: tuple[str, ...]) -> None:
    text = invoke(*words, "--help").stdout
    assert "--format [text|json]" in text
    assert len(text.splitlines()[2].strip()) > 10


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_usage_error_is_json_where_json_was_asked_for(words: tuple[str, ...]) -> None:
    done = invoke(*words, "--no-such-option", "--format", "json")
    assert done.exit_code == exits.USAGE
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    assert set(error) == {"code", "message", "next", "exit_code"}
    assert error["code"] == "USAGE"
    assert "--no-such-option" in error["message"]
    assert error["next"] == f"See `corelane {' '.join(words)} --help`."


@pytest.mark.parametrize("words", [("nosuch",), ("topic", "nosuch")], ids=" ".join)
def test_a_command_that_is_none_is_told_as_json(words: tuple[str, ...]) -> None:
    error = json.loads(invoke(*words, "--format", "json").stderr)["error"]
    assert (error["code"], error["message"]) == ("USAGE", "No such command 'nosuch'.")


@pytest.mark.parametrize("words", [(), ("topic",), ("cluster",), ("config",)], ids=" ".join)
def test_a_group_alone_shows_its_help(words: tuple[str, ...]) -> None:
    done = invoke(*words)
    assert (done.exit_code, done.stdout) == (exits.USAGE, "")
    assert done.stderr.startswith("Usage: corelane")


@pytest.mark.parametrize(
    ("error", "exit_code", "code", "message"),
    [
        (PermissionError(13, "Permission denied", "/f"), 1, "FAILED", "/f: permission denied"),
        (OSError(28, "No space left on device"), 1, "FAILED", "no space left on device"),
        (ZeroDivisionError("oh"), 70, "BUG", "ZeroDivisionError: oh (" ),
    ],
)  # fmt: skip
def test_what_nobody_expected_is_told_too(
    error: Exception, exit_code: int, code: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("corelane_cli.topic_actions.list_topics", fail)
    done = invoke("topic", "list", "--format", "json")
    told = json.loads(done.stderr)["error"]
    assert (done.exit_code, told["exit_code"], told["code"]) == (exit_code, exit_code, code)
    assert message in told["message"]
    done = invoke("topic", "list")
    assert done.exit_code == exit_code
    assert ("Traceback" in done.stderr) == (exit_code == exits.BUG)


def test_a_usage_error_is_a_sentence_otherwise() -> None:
    done = invoke("topic", "create")
    assert done.exit_code == exits.USAGE
    assert done.stderr == (
        "corelane: Missing argument 'NAME...'.\nSee `corelane topic create --help`.\n"
    )


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["topic", "--format", "json"], True),
        (["--format=json"], True),
        (["--format", "text", "json"], False),
        (["json"], False),
        ([], False),
    ],
)
def test_json_is_recognised_even_when_the_rest_is_not(argv: list[str], wanted: bool) -> None:
    assert is_json_wanted(argv) is wanted


CONNECTING = [
    ("topic", "create", "t"),
    ("topic", "list"),
    ("topic", "describe", "t"),
    ("topic", "delete", "t"),
    ("topic", "alter", "t", "--set", "a=b"),
    ("topic", "add-partitions", "t", "--num", "1"),
    ("topic", "trim", "t", "--offset", "1", "--yes"),
    ("produce", "t", "-m", "x"),
    ("consume", "t"),
    ("cluster", "info"),
    ("cluster", "health"),
    ("config", "list"),
]


@pytest.mark.parametrize("words", CONNECTING, ids=" ".join)
def test_a_missing_broker_is_told_as_json(words: tuple[str, ...]) -> None:
    address = unused_address()
    done = invoke(*words, "--bootstrap", address, "--format", "json")
    assert done.exit_code == exits.CANNOT_CONNECT
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "CANNOT_CONNECT"
    assert error["message"] == f"cannot connect to {address}: connection refused"
    assert "corelane start" in error["next"] or words[0] == "config"
    assert error["exit_code"] == exits.CANNOT_CONNECT


def test_a_missing_broker_is_told_in_words() -> None:
    done = invoke("topic", "list", "--bootstrap", unused_address())
    assert done.exit_code == exits.CANNOT_CONNECT
    assert done.stderr.startswith("corelane: cannot connect to 127.0.0.1:")
    assert "--bootstrap names another" in done.stderr


def test_an_address_that_is_none_is_a_usage_error() -> None:
    done = invoke("topic", "list", "--bootstrap", "a:b")
    assert done.exit_code == exits.USAGE
    assert "'b' in 'a:b' is not a port" in done.stderr


def test_the_exit_codes_of_start_are_the_runtimes() -> None:
    names = {
        "EXIT_OK": exits.OK,
        "EXIT_PORT": exits.ADDRESS,
        "EXIT_BUG": exits.BUG,
        "EXIT_SYSTEM": exits.SYSTEM,
        "EXIT_DATA_DIRECTORY": exits.DATA_DIRECTORY,
        "EXIT_DISK": exits.DISK,
        "EXIT_IN_USE": exits.IN_USE,
        "EXIT_CONFIG": exits.CONFIGURATION,
    }
    known = {name: value for name, value in vars(failures).items() if name.startswith("EXIT_")}
    assert known == names


def test_every_exit_code_is_in_the_help() -> None:
    text = invoke("--help").stdout
    for row in exits.EXIT_CODES:
        assert f"{row.number:>5}  {row.meaning}" in text


def test_every_exit_code_is_in_the_readme() -> None:
    text = (Path(exits.__file__).parent / "README.md").read_text()
    for row in exits.EXIT_CODES:
        assert f"| {row.number} | {row.word} | {row.meaning} |" in text


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    command = f"{CORELANE} --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout in {"141\n", "0\n"}  # 0 when all was written before the reader went
    assert done.stderr == ""


def test_ctrl_c_ends_a_command_whose_reader_has_stopped_reading() -> None:
    """The interpreter would wait at its end for the little that was not taken."""
    script = (
        "import click, sys\nfrom corelane_cli.application import Application\n"
        "@click.group(cls=Application)\ndef cli(): pass\n"
        "@cli.command()\ndef flood():\n"
        "    while True:\n        sys.stdout.write('x' * 99)\n        sys.stdout.flush()\n"
        "cli.main(['flood'])\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
        try:
            assert process.stdout is not None
            held_bytes = 0
            while held_bytes < 60 * 1024:
                assert process.poll() is None
                time.sleep(0.01)
                held = fcntl.ioctl(process.stdout, termios.FIONREAD, bytes(4))
                (held_bytes,) = struct.unpack("i", held)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == exits.INTERRUPTED
        finally:
            process.kill()


def test_ctrl_c_ends_a_command_quietly() -> None:
    """A listener that never answers keeps the command waiting."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        command = [CORELANE, "topic", "list", "-b", address]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with listener.accept()[0]:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert process.returncode == exits.INTERRUPTED
    assert (out, err.strip()) == (b"", b"")


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        ((), {}),
        (
            ("--port", "1", "--data-dir", "d", "--set", "broker.rack=r"),
            {"broker.rack": "r", "corelane.port": "1", "corelane.data.dir": "d"},
        ),
        (
            ("--host", "h", "--advertised-host", "a", "--advertise", "node", "--cores", "2"),
            {
                "corelane.bind.host": "h",
                "corelane.advertised.host": "a",
                "corelane.advertise": "node",
                "corelane.cores": "2",
            },
        ),
        (
            ("--core-port-base", "5", "--admin-port", "6", "--node-id", "7"),
            {"corelane.core.port.base": "5", "corelane.admin.port": "6", "node.id": "7"},
        ),
        (("--port", "1", "--set", "corelane.port=2"), {"corelane.port": "1"}),
        (("--no-pin-cores",), {"corelane.pin.cores": "false"}),
        (("--pin-cores", "--set", "corelane.pin.cores=false"), {"corelane.pin.cores": "true"}),
    ],
)
def test_options_of_start_are_settings(
    arguments: tuple[str, ...], overrides: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, ...]] = []

    def start(*given: object) -> int:
        seen.append(given)
        return 73

    monkeypatch.setattr("corelane_cli.start.start", start)
    done = invoke("start", "--config", "x.toml", "--format", "json", *arguments)
    assert done.exit_code == 73
    assert seen == [(Path("x.toml"), overrides, "json")]


def test_a_bad_setting_of_start_is_told_as_json(tmp_path: Path) -> None:
    path = str(tmp_path)
    done = invoke("start", "--data-dir", path, "--set", "no.such=1", "--format", "json")
    assert done.exit_code == exits.CONFIGURATION
    error = json.loads(done.stderr)["error"]
    assert "no.such" in error["message"]
    assert error["code"] == "CONFIGURATION"
    assert error["next"]


def test_a_setting_without_a_value_is_a_usage_error() -> None:
    assert "write KEY=VALUE" in invoke("dev", "--set", "x").stderr
