"""Which CPUs the cores run on: how many this process may use, and in which order."""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from corelane.runtime import cgroups


def allowed_count(affinity_count: int, root: Path = cgroups.ROOT, own: Path = cgroups.OWN) -> int:
    """Return how many cores have a CPU: *affinity_count*, or fewer where the cgroup allows less.

    A part of a CPU counts as one: cores that are throttled now and then still serve more clients
    than one core fewer, which could not use that part at all.
    """
    assert affinity_count > 0
    quota = _quota_cpus(root, own)
    return affinity_count if quota is None else min(affinity_count, max(1, math.ceil(quota)))


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


def _quota_cpus(root: Path, own: Path) -> float | None:
    """Return the CPU time per time that the cgroups allow; None: as much as there is."""
    found: list[float] = []
    for directory, version in cgroups.directories("cpu", root, own):
        found += _read_v2(directory) if version == 2 else _read_v1(directory)
    return min(found, default=None)


def _read_v2(directory: Path) -> list[float]:
    try:
        quota_us, period_us = (directory / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return []  # The root has none, and a container may not show it.
    return _ratio(quota_us, period_us)


def _read_v1(directory: Path) -> list[float]:
    try:
        quota_us = (directory / "cpu.cfs_quota_us").read_text().strip()
        period_us = (directory / "cpu.cfs_period_us").read_text().strip()
    except OSError:
        return []
    return _ratio(quota_us, period_us)


def _ratio(quota_us: str, period_us: str) -> list[float]:
    """Return quota / period, nothing where there is no limit ("max", or -1 in version 1)."""
    if quota_us.isdigit() and period_us.isdigit() and int(period_us) > 0:
        return [int(quota_us) / int(period_us)]
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
