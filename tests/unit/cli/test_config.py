"""`corelane config`: every setting, its value and where that is from."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from corelane.model.config import ConfigError
from corelane.model.config_keys import KEYS
from corelane.runtime.failures import StartError
from corelane_cli import exits
from corelane_cli.__main__ import cli
from corelane_cli.environment import from_environment, variable_of
from corelane_cli.start import load
from corelane_client.protocol import Api
from tests.unit.cli.conftest import Served
from tests.unit.cli.invoking import failed, invoke, printed
from tests.unit.client.fake import always, new


@pytest.fixture
def nowhere() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{probe.getsockname()[1]}"


def tells(name: str, value: str, source: int) -> object:
    """Let a broker describe one setting."""
    row = new(
        "DescribeConfigsResponse.DescribeConfigsResourceResult",
        name=name,
        value=value,
        config_source=source,
        documentation=None,
    )
    result = new(
        "DescribeConfigsResponse.DescribeConfigsResult",
        resource_type=4,
        resource_name="0",
        error_message=None,
        configs=[row],
    )
    return new("DescribeConfigsResponse", results=[result])


@pytest.mark.parametrize(
    ("source", "said"),
    [(5, "default"), (4, "given at the start"), (2, "dynamic"), (3, "dynamic")],
)
def test_a_running_brokers_setting_is_explained(served: Served, source: int, said: str) -> None:
    for _ in range(2):
        answer = tells("log.retention.ms", "77", source)
        served.cluster.script(Api.DESCRIBE_CONFIGS, always(answer))
    text = invoke(served, "config", "explain", "log.retention.ms").stdout
    assert text.splitlines()[0] == f"log.retention.ms = 77   ({said})"
    assert "Records older than this are trimmed" in text
    assert "  default        604800000 ms\n" in text
    assert "  allowed        -1 to 9223372036854775807\n" in text
    assert "  environment    CORELANE__LOG_RETENTION_MS\n" in text
    found = printed(invoke(served, "config", "explain", "log.retention.hours", "--format", "json"))
    assert (found["key"], found["value"], found["source"]) == ("log.retention.ms", "77", said)
    assert (found["unit"], found["restart_needed"]) == ("ms", False)
    assert "log.retention.hours" in found["also"]


def test_a_setting_is_explained_without_a_broker(nowhere: str) -> None:
    words = ["config", "explain", "corelane.advertise", "--bootstrap", nowhere]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0
    assert done.stdout.startswith("corelane.advertise\n")
    assert "  allowed        one of core, node\n" in done.stdout
    assert "  a change acts  at the next start\n" in done.stdout
    assert f"  value unknown: cannot connect to {nowhere}" in done.stdout
    found = printed(CliRunner().invoke(cli, [*words, "--format", "json"]))
    assert found["value"] is None
    assert "cannot connect" in found["value_unknown_because"]


@pytest.mark.parametrize(
    ("words", "value", "source"),
    [
        (("--set", "node.id=1"), "1", "default"),
        (("--config", "file"), "3", "file"),
        (("--config", "file", "--set", "num.partitions=5"), "5", "option"),
    ],
)
def test_what_a_start_would_use_is_told(
    words: tuple[str, ...], value: str, source: str, tmp_path: Path
) -> None:
    file = tmp_path / "corelane.toml"
    file.write_text("num.partitions = 3")
    words = tuple(str(file) if word == "file" else word for word in words)
    arguments = ["config", "explain", "num.partitions", *words, "--format", "json"]
    found = printed(CliRunner().invoke(cli, arguments))
    assert (found["value"], found["source"]) == (value, source)
    environment = {"CORELANE__NUM_PARTITIONS": "4"}
    found = printed(CliRunner().invoke(cli, arguments, env=environment))
    expected = ("5", "option") if source == "option" else ("4", "environment")
    assert (found["value"], found["source"]) == expected


def test_a_setting_without_effect_is_explained_with_why(nowhere: str) -> None:
    text = CliRunner().invoke(cli, ["config", "explain", "flush.ms", "-b", nowhere]).stdout
    assert "No effect here: every record is synced at once." in text
    assert text.count("effect") == 1


def test_a_topics_setting_is_explained(nowhere: str) -> None:
    words = ["config", "explain", "max.message.bytes", "-b", nowhere, "--format", "json"]
    found = printed(CliRunner().invoke(cli, words))
    assert found["default_from"] == "message.max.bytes"
    assert found["environment"] is None
    assert "value_unknown_because" not in found


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("log.retention.mss", "did you mean log.retention.ms or"),
        ("broker.id", "the machine is named by node.id"),
        ("zzzz", "there is no setting zzzz"),
    ],
)
def test_a_name_that_is_none_gets_the_nearest(key: str, said: str) -> None:
    done = CliRunner().invoke(cli, ["config", "explain", key, "--format", "json"])
    error = failed(done, exits.CONFIGURATION)
    assert said in error["message"]
    assert "corelane config list" in error["next"]


def test_all_settings_are_listed(served: Served) -> None:
    words = ("config", "list", "--set", "node.id=7", "--format", "json")
    listed = printed(invoke(served, *words))["settings"]
    assert [row["key"] for row in listed] == sorted(key.name for key in KEYS)
    changed = printed(invoke(served, *words, "--changed"))["settings"]
    assert [(row["key"], row["value"], row["source"]) for row in changed] == [
        ("node.id", "7", "option")
    ]
    again = ("config", "list", "--set", "node.id=1", "--changed")  # given, and the default
    assert invoke(served, *again).stdout == ""
    served.cluster.script(Api.DESCRIBE_CONFIGS, always(tells("node.id", "9", 4)))
    lines = invoke(served, "config", "list").stdout.splitlines()
    assert " ".join(lines[1].split()) == "node.id 9 given at the start at the next start"


def test_a_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "corelane.toml"
    file.write_text("num.partitions = 3\nnode.id = 2")
    done = CliRunner().invoke(cli, ["config", "check", str(file)])
    assert (done.exit_code, "gives 2 of" in done.stdout) == (0, True)
    file.write_text("num.partitions = 0\nnode.idd = 2")
    error = failed(
        CliRunner().invoke(cli, ["config", "check", str(file), "--format", "json"]),
        exits.CONFIGURATION,
    )
    assert "num.partitions: must be a whole number from 1" in error["message"]
    assert "did you mean node.id?" in error["message"]
    done = CliRunner().invoke(cli, ["config", "check", str(tmp_path), "--format", "json"])
    assert done.exit_code == exits.USAGE
    missing = str(tmp_path / "missing")
    done = CliRunner().invoke(cli, ["config", "check", missing, "--format", "json"])
    assert "no such file" in failed(done, exits.CONFIGURATION)["message"]


def test_the_environment_stands_between_file_and_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "corelane.toml"
    file.write_text("num.partitions = 3\nnode.id = 3\ncorelane.cores = 3")
    monkeypatch.setenv("CORELANE__NUM_PARTITIONS", "4")
    monkeypatch.setenv("CORELANE__NODE_ID", "4")
    monkeypatch.setenv("CORELANE_PORT", "tcp://10.0.0.1:9092")  # not ours
    config = load(file, {"node.id": "5"})
    assert config.node.core_count == 3
    assert config.topics.partition_count_default == 4
    assert config.node.id == 5
    monkeypatch.setenv("CORELANE__NODE_IDD", "4")
    with pytest.raises(StartError, match="did you mean CORELANE__NODE_ID"):
        load(file, {})


def test_variables_are_named_after_settings() -> None:
    assert variable_of("corelane.wal.dir") == "CORELANE__WAL_DIR"
    assert from_environment({"CORELANE__LOG_ROLL_HOURS": "1", "HOME": "/"}) == {
        "log.roll.hours": "1"
    }
    with pytest.raises(ConfigError, match="CORELANE__XYZ: no setting has this variable"):
        from_environment({"CORELANE__XYZ": "1"})
