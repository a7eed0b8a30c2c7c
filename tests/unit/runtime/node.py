"""Nodes with a real supervisor and fork server, and cores that only echo."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import Node


@contextmanager
def started(
    directory: Path, kind: str = "echo", patches: str = "", cores: int = 1, settings: str = ""
) -> Iterator[Node]:
    """Start a node; whatever is left of it at the end is killed."""
    script = (
        "from tests.unit.runtime import run_node\n"
        f"{patches}\n"
        f"sys.exit(run_node.main({str(directory)!r}, {kind!r}, {cores}, {settings!r}))\n"
    )
    node = Node(directory, script)
    try:
        yield node
    finally:
        node.kill()


def ask(port: int, line: bytes, seconds_max: float = 5.0, host: str = "127.0.0.1") -> bytes:
    """Send a line to an echoing core and return the answer."""
    with socket.create_connection((host, port), timeout=seconds_max) as connection:
        connection.sendall(line)
        return connection.recv(4096)
