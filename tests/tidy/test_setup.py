"""On a machine that lacks something, setting up says in a sentence what, and changes nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy import sources

BASH = shutil.which("bash")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the set-up script and nothing else of the project."""
    script = tmp_path / ".ci" / "setup"
    script.parent.mkdir()
    shutil.copy(sources.ROOT / ".ci" / "setup", script)
    return tmp_path


def complaint(clone: Path, **environment: str) -> str:
    """Run the script, assert that it fails, and return what it says."""
    assert BASH is not None
    command = [BASH, str(clone / ".ci" / "setup"), "run"]
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 1
    return done.stderr.decode()


def test_an_old_python_is_named(clone: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    dirname = shutil.which("dirname")
    assert dirname is not None
    (tools / "dirname").symlink_to(dirname)
    old = tools / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    said = complaint(clone, PATH=str(tools))
    assert "Python 3.11 or newer is not on PATH" in said
    assert not (clone / ".venv").exists()


def test_a_missing_compiler_is_named(clone: Path) -> None:
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    said = complaint(clone, PATH=os.environ["PATH"], CC="no-such-compiler -O2")
    assert "the C compiler 'no-such-compiler' is missing" in said
    assert not (clone / ".venv" / ".installed-run").exists()
