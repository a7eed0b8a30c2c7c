"""The cgroups that limit this process: where the kernel keeps what a container may use."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")


def directories(controller: str, root: Path = ROOT, own: Path = OWN) -> Iterator[tuple[Path, int]]:
    """Yield (directory, version) of every cgroup that limits this process, its own first.

    A limit of each of them applies. Where a container shows only a part of the tree, some of the
    directories are not there; version 1 has a tree for each *controller*.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, version = root, 2
        elif controller in controllers.split(","):
            top, version = root / controller, 1
        else:
            continue
        directory = top / path.lstrip("/")
        for each in (directory, *directory.parents):
            if each.is_relative_to(top):
                yield each, version
