"""What a process asks of the kernel for itself: a death signal, a CPU, more open files."""

import ctypes
import os
import resource
import signal
from collections.abc import Collection
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
OPEN_FILES_WANTED: Final = 1 << 20
OPEN_FILES_MIN: Final = 1024


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies; exits at once if that happened.

    Only the check after the call closes the race with a parent that died before it (prctl(2)).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    status = libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    assert status == 0, os.strerror(ctypes.get_errno())
    if os.getppid() != parent_pid:
        os._exit(0)


def name_process(name: str) -> None:
    """Name this process for `ps` and `top` (15 bytes are shown)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


def ignore_stop_signals() -> None:
    """Leave SIGINT and SIGTERM to the supervisor: a terminal sends Ctrl-C to the whole group."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)


def bind_to_cpu(cpu: int, allowed: Collection[int]) -> bool:
    """Run this thread on one CPU only; False where that is gone or not *allowed*.

    A CPU may be taken away while a process runs (another cpuset, a smaller machine); its affinity
    alone does not tell, since a process may set that to any CPU of its cpuset.
    """
    if cpu not in allowed:
        return False
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:  # EINVAL: none of these is there (sched_setaffinity(2)).
        return False
    return True


def raise_open_files() -> int:
    """Raise the limit on open files as far as allowed and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
