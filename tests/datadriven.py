"""Run `command args` / `----` / expected-output scripts, after cockroachdb/datadriven.

REWRITE=1 in the environment writes the actual output back; review it as you would code.
"""

import os
from collections.abc import Callable
from pathlib import Path


def run(path: Path, handle: Callable[[str, list[str]], str]) -> None:
    """Feed every directive of *path* to *handle* and compare what it answers.

    Blocks are separated by one blank line, so an answer holds none; an empty one prints `ok`.
    """
    actual = ""
    for block in path.read_text().split("\n\n"):
        head, separator, _ = block.partition("\n----")
        if not separator:
            actual += block.rstrip("\n") + "\n\n"  # a comment of its own
            continue
        command, *arguments = head.splitlines()[-1].split()
        output = handle(command, arguments).rstrip("\n") or "ok"
        actual += f"{head}\n----\n{output}\n\n"
    actual = actual.rstrip("\n") + "\n"
    if os.environ.get("REWRITE"):
        path.write_text(actual)
    assert path.read_text() == actual
