"""How much memory this process may use: what the machine has, or what its cgroup allows."""

import os
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


def limit_bytes(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int | None:
    """Return the lowest limit that applies, None when nothing is known."""
    limits = [limit for limit in (_machine_bytes(), _cgroup_bytes(cgroups, own)) if limit]
    return min(limits, default=None)


def _machine_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _cgroup_bytes(cgroups: Path, own: Path) -> int | None:
    """Return the lowest limit on the way from our cgroup to the root (cgroup v2, then v1)."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    found: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = cgroups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        directory = root / path.lstrip("/")
        for each in (directory, *directory.parents):
            if each.is_relative_to(root):
                found += _read_limit(each / name)
    return min(found, default=None)


def _read_limit(file: Path) -> list[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return []  # Another cgroup version, or a container that does not show it.
    return [int(text)] if text.isdigit() else []
