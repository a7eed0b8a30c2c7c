"""Nodes as their operator sees them: processes, a directory, ports, a log on stderr."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
READY_S_MAX = 30.0


class Node:
    """A node started by a Python *script* of its own; `stop` or `kill` it."""

    def __init__(
        self,
        directory: Path,
        script: str,
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.log = directory.parent / f"{directory.name}.log"
        path = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-c", path + script],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
            )

    @property
    def ports(self) -> dict[str, Any]:
        """Return ports.json; raises FileNotFoundError while the node does not serve."""
        ports: dict[str, Any] = json.loads((self.directory / "ports.json").read_text())
        return ports

    def wait_ready(self, seconds_max: float = READY_S_MAX) -> dict[str, Any]:
        """Wait until the node serves and return its ports."""
        deadline_s = time.monotonic() + seconds_max
        while time.monotonic() < deadline_s:
            if (self.directory / "ports.json").exists():
                return self.ports
            assert self.process.poll() is None, self.log_text()
            time.sleep(0.01)
        raise AssertionError(f"not ready after {seconds_max} s:\n{self.log_text()}")

    def health(self) -> dict[str, Any]:
        """Return the health page."""
        body: dict[str, Any] = json.loads(self.page("/health"))
        return body

    def page(self, path: str) -> bytes:
        """Return a page of the admin port, whatever its status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["admin"], timeout=30)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def core_pid(self, other_than: int = 0) -> int:
        """Return the process of core 0, waiting for it to be up (and another than a dead one)."""
        deadline_s = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline_s:
            core = self.health()["cores"][0]
            if core["state"] == "up" and core["pid"] != other_than:
                return int(core["pid"])
            time.sleep(0.002)
        raise AssertionError(f"no core after {READY_S_MAX} s:\n{self.log_text()}")

    def log_text(self) -> str:
        """Return what the node wrote to stdout and stderr."""
        return self.log.read_text()

    def wait_for_line(self, text: str, seconds_max: float = 20.0) -> None:
        """Wait for *text* in the log."""
        deadline_s = time.monotonic() + seconds_max
        while text not in self.log_text():
            assert time.monotonic() < deadline_s, f"no {text!r} in:\n{self.log_text()}"
            time.sleep(0.01)

    def wait(self, seconds_max: float) -> int:
        """Wait for the end of the supervisor and return its exit code."""
        return self.process.wait(seconds_max)

    def stop(self, seconds_max: float = 20.0) -> int:
        """Stop it as an operator does and return the exit code."""
        self.process.terminate()
        return self.wait(seconds_max)

    def kill(self) -> None:
        """Kill the supervisor and wait until nothing is left of the node."""
        pids = self.descendants()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
        wait_gone(pids, 5)

    def descendants(self) -> list[int]:
        """Return the pids of all processes the node consists of, the supervisor's first."""
        return descendants(self.process.pid)


def descendants(pid: int) -> list[int]:
    """Return *pid* and the pids of all its children and theirs."""
    found = [pid]
    for each in found:
        try:
            text = Path(f"/proc/{each}/task/{each}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [int(word) for word in text.split()]
    return found


def wait_gone(pids: list[int], seconds_max: float) -> None:
    """Wait until none of *pids* runs (a zombie nobody reaps does not run)."""
    deadline_s = time.monotonic() + seconds_max
    while alive := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < deadline_s, f"still there after {seconds_max} s: {alive}"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie.

    Its first thread may be one already while others still end and keep what the process held:
    files, locks, mounts.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return threads > 1 or stat.rsplit(")", 1)[1].split()[0] not in ("Z", "X")


def pipes(pid: int) -> Counter[str]:
    """Return the pipes that a process has open, and how many ends of each."""
    found: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = str(link.readlink())
            if target.startswith("pipe:"):
                found[target] += 1
    return found


def check_pipes(node: Node, cores: list[int]) -> None:
    """Check that each pair of cores has a pipe each way, and nobody else holds any end (M1)."""
    supervisor, fork_server = node.descendants()[:2]
    assert pipes(supervisor) == pipes(fork_server) == Counter()
    ends = sum((pipes(pid) for pid in cores), Counter[str]())
    assert len(ends) == len(cores) * (len(cores) - 1)
    assert set(ends.values()) == {2}
    assert all(set(pipes(pid).values()) == {1} for pid in cores), "no core holds both ends"
