"""The extension in use is the one these sources make."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import corelane_native
from corelane_native import source_digest

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "native" / "src"


def test_the_extension_was_built_from_the_sources_that_lie_here() -> None:
    digest = hashlib.sha256()
    for path in sorted([*SOURCE.glob("*.c"), *SOURCE.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    assert source_digest() == digest.hexdigest(), "rebuild: pip install -e ."


def test_one_extension_serves_every_python() -> None:
    (extension,) = Path(corelane_native.__file__).parent.glob("_core*.so")
    assert extension.name == "_core.abi3.so"


def test_a_sanitizer_run_tests_the_sanitized_extension() -> None:
    (extension,) = Path(corelane_native.__file__).parent.glob("_core*.so")
    sanitized = b"__asan_init" in extension.read_bytes()
    assert sanitized == ("CORELANE_SANITIZED" in os.environ), "see native/sanitize.py"


def test_assertions_are_on_in_c() -> None:
    script = "from corelane_native._core import lib; lib.cl_arena_new(4096, 1)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGABRT
    assert b"CL_BLOCK_BYTES" in done.stderr
