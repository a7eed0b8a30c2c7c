"""What the tests believe of processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import is_running, wait_gone

# The first thread ends for good while another goes on: the process looks dead at first sight.
HEADLESS = """
import ctypes, os, sys, threading
def work():
    print("up", flush=True)
    sys.stdin.read(1)
threading.Thread(target=work).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
"""


def test_a_process_runs_until_its_last_thread_has_ended() -> None:
    """Before that it holds its files, locks and mounts: whoever came next found them taken."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEADLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        while "State:\tZ" not in Path(f"/proc/{process.pid}/status").read_text():
            pass
        assert is_running(process.pid)
        with pytest.raises(AssertionError, match="still there"):
            wait_gone([process.pid], 0)
        process.kill()
    assert not is_running(process.pid)
