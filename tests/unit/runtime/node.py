"""Runs a whole node with fake cores in a process of its own, and looks at it from outside."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
READY_S_MAX = 20.0


class Node:
    """A node as its operator sees it: a process, a directory, ports."""

    def __init__(self, directory: Path, kind: str, patches: str = "") -> None:
        self.directory = directory
        self.log = directory.parent / f"{directory.name}.log"
        script = (
            "import sys\n"
            f"sys.path[:0] = [{str(ROOT)!r}]\n"
            "from tests.unit.runtime import run_node\n"
            f"{patches}\n"
            f"sys.exit(run_node.main({str(directory)!r}, {kind!r}))\n"
        )
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", script], stderr=output, stdin=subprocess.DEVNULL
            )

    def wait_ready(self) -> dict[str, Any]:
        """Wait until the node serves and return its ports."""
        deadline_s = time.monotonic() + READY_S_MAX
        path = self.directory / "ports.json"
        while time.monotonic() < deadline_s:
            if path.exists():
                ports: dict[str, Any] = json.loads(path.read_text())
                return ports
            assert self.process.poll() is None, self.log_text()
            time.sleep(0.01)
        raise AssertionError(f"not ready after {READY_S_MAX} s:\n{self.log_text()}")

    def health(self) -> dict[str, Any]:
        """Return the health page."""
        port = json.loads((self.directory / "ports.json").read_text())["admin"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            body: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return body

    def log_text(self) -> str:
        """Return what the node wrote to stderr."""
        return self.log.read_text()

    def wait(self, seconds_max: float) -> int:
        """Wait for the end of the supervisor and return its exit code."""
        return self.process.wait(seconds_max)

    def descendants(self) -> list[int]:
        """Return the pids of all processes the node consists of, the supervisor's first."""
        return descendants(self.process.pid)


def descendants(pid: int) -> list[int]:
    """Return *pid* and the pids of all its children and theirs."""
    found = [pid]
    for each in found:
        children = Path(f"/proc/{each}/task/{each}/children")
        if children.exists():
            found += [int(text) for text in children.read_text().split()]
    return found


def wait_gone(pids: list[int], seconds_max: float) -> None:
    """Wait until none of *pids* runs (a zombie nobody reaps does not run)."""
    deadline_s = time.monotonic() + seconds_max
    while alive := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < deadline_s, f"still there after {seconds_max} s: {alive}"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in ("Z", "X")


@contextmanager
def started(directory: Path, kind: str = "echo", patches: str = "") -> Iterator[Node]:
    """Start a node; whatever is left of it at the end is killed."""
    node = Node(directory, kind, patches)
    try:
        yield node
    finally:
        pids = node.descendants()
        if node.process.poll() is None:
            os.kill(node.process.pid, signal.SIGKILL)
            node.process.wait()
        wait_gone(pids, 5)


def ask(port: int, line: bytes, seconds_max: float = 5.0) -> bytes:
    """Send a line to an echoing core and return the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds_max) as connection:
        connection.sendall(line)
        return connection.recv(4096)
