"""Runs commands in this process and takes their answers apart."""

import json
from typing import Any

from click.testing import CliRunner, Result

from corelane_cli.__main__ import cli
from tests.unit.cli.conftest import Served


def invoke(served: Served, *arguments: str, data: bytes | None = None) -> Result:
    """Run a command against *served*, with *data* as standard input."""
    environment = {"CORELANE_BOOTSTRAP": served.bootstrap}
    return CliRunner().invoke(cli, list(arguments), input=data, env=environment)


def printed(done: Result) -> Any:
    """Return the JSON that a command printed which must have succeeded."""
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def failed(done: Result, exit_code: int) -> dict[str, Any]:
    """Return the error of a command that must have ended with *exit_code*."""
    assert done.exit_code == exit_code, done.stderr
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert set(error) == {"code", "message", "next", "exit_code"}
    assert error["exit_code"] == exit_code
    found: dict[str, Any] = error
    return found
