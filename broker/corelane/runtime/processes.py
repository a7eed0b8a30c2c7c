"""What a process asks of the kernel for itself: a death signal, a CPU, more open files."""

import ctypes
import os
import resource
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
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


def raise_open_files() -> int:
    """Raise the limit on open files as far as allowed and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def cpu_order(allowed: Iterable[int], device: int, interrupts: Sequence[str]) -> list[int]:
    """Return *allowed* CPUs, the ones that take most interrupts of disk *device* first.

    On virtual disks with one queue the CPU that takes the disk's interrupts sees the shorter
    latency, so cores are not pinned by number alone. *interrupts* are lines of /proc/interrupts.
    """
    names = _device_interrupt_names(device)
    counts: dict[int, int] = dict.fromkeys(allowed, 0)
    cpu_numbers = [int(word[3:]) for word in interrupts[0].split()] if interrupts else []
    for line in interrupts[1:]:
        columns = line.split()
        if not any(columns[-1].startswith(name) for name in names):
            continue
        for cpu, text in zip(cpu_numbers, columns[1:], strict=False):
            if text.isdigit() and cpu in counts:
                counts[cpu] += int(text)
    return sorted(counts, key=lambda cpu: (-counts[cpu], cpu))


def read_interrupts() -> list[str]:
    """Return the lines of /proc/interrupts, none where it cannot be read (containers)."""
    try:
        return Path("/proc/interrupts").read_text().splitlines()
    except OSError:
        return []


def _device_interrupt_names(device: int) -> list[str]:
    """Return what the interrupts of a block device are called: its bus name, or nvme<n>."""
    link = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    try:
        path = link.resolve(strict=True)
    except OSError:
        return []
    # .../virtio1/block/vda/vda1 -> virtio1-req; .../nvme/nvme0/nvme0n1 -> nvme0q
    parts = path.parts
    names = [f"{part}-" for part in parts if part.startswith("virtio")]
    names += [f"{part}q" for part in parts if part.startswith("nvme") and part[4:].isdigit()]
    return names
