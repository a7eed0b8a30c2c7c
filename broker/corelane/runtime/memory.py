"""How much memory this process may use: what the machine has, or what its cgroup allows."""

import os
from pathlib import Path
from typing import Final

from corelane.runtime import cgroups

_FILES: Final = {1: "memory.limit_in_bytes", 2: "memory.max"}


def limit_bytes(root: Path = cgroups.ROOT, own: Path = cgroups.OWN) -> int | None:
    """Return the lowest limit that applies, None when nothing is known."""
    limits = [limit for limit in (_machine_bytes(), _cgroup_bytes(root, own)) if limit]
    return min(limits, default=None)


def _machine_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _cgroup_bytes(root: Path, own: Path) -> int | None:
    found: list[int] = []
    for directory, version in cgroups.directories("memory", root, own):
        found += _read_limit(directory / _FILES[version])
    return min(found, default=None)


def _read_limit(file: Path) -> list[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return []  # Another cgroup version, or a container that does not show it.
    return [int(text)] if text.isdigit() else []
