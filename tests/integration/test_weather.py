"""Three real nodes in bad weather, for seconds each; `weather.py` does it for as long as one likes.

`WEATHER_ROUNDS` does all of it so many times. The network is the test's own: see `network.py` for
what it needs; without that these tests fail and say so.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.integration import network
from tests.processes import ROOT

SECONDS_MAX = 400


def weather(*options: str) -> dict[str, Any]:
    """Run it, and return what came of it."""
    program = [sys.executable, "-m", "tests.integration.weather", "--inside", *options]
    rounds = os.environ.get("WEATHER_ROUNDS", "1")
    done = subprocess.run(
        network.command([*program, "--rounds", rounds]),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX * int(rounds),
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    assert lines[-1].startswith("{"), done.stdout + done.stderr
    result: dict[str, Any] = json.loads(lines[-1])
    assert result["faults"] == [], done.stdout
    assert done.returncode == 0
    print(done.stdout)  # shown with -s, and when something below fails
    return result


def test_nothing_is_lost_whatever_the_network_does() -> None:
    """Cut off, not heard, hearing nothing, slow: one node after the other."""
    result = weather("--kinds", "partition,one-way,deaf,slow", "--hold", "2.5")
    assert result["acknowledged"] > 500
    assert result["read"] > 1.5 * result["acknowledged"], "by a reader meanwhile, and one later"


def test_nothing_is_lost_when_processes_die_or_hang_and_disks_are_full() -> None:
    """On one node; at last all disks are full at once: nobody can write, and then all can."""
    result = weather("--kinds", "kill,stop,full,all-full", "--hold", "2.5")
    assert result["acknowledged"] > 500
    assert result["read"] > 1.5 * result["acknowledged"], "by a reader meanwhile, and one later"


def test_a_missing_tool_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(network.MissingError, match="iproute2"):
        network.command(["true"])
