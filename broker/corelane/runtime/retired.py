"""Directories of cores that an earlier start had and this one has not: found, and removed.

Invariant R1: a core's directory is removed by renaming it first, so that a crash leaves all of it
or something that is no core's, which the next start finishes removing.
Invariant R2: a log on another device (`wal_place`) goes before the link to it, so that a core of
that number that comes back later never finds it.
"""

import logging
import shutil
from pathlib import Path
from typing import Final

from corelane.runtime.data_directory import core_directory, sync_directory

_PREFIX: Final = "core-"
_REMOVED: Final = "removed-"

_log = logging.getLogger(__name__)


def retired_cores(path: Path, core_count: int) -> list[int]:
    """Return the numbers of the cores in data directory *path* that are not below *core_count*."""
    numbers = [each.name.removeprefix(_PREFIX) for each in path.glob(f"{_PREFIX}*")]
    cores = [int(number) for number in numbers if number.isascii() and number.isdigit()]
    return sorted(
        core for core in cores if core >= core_count and core_directory(path, core).is_dir()
    )


def remove_core(path: Path, core: int) -> None:
    """Remove the directory of a core whose process is gone and that owns nothing any more.

    Raises OSError; the next start goes on then, wherever it came to an end.
    """
    directory = core_directory(path, core)
    removed = path / f"{_REMOVED}{directory.name}"
    if removed.exists():  # Could not be removed whole last time.
        _remove(removed)
    directory.rename(removed)
    sync_directory(path)
    _remove(removed)


def finish_removals(path: Path) -> None:
    """Remove what an interrupted `remove_core` left; before any core of this start is made.

    What cannot be removed takes some room, and nobody reads it: told, and left alone.
    """
    for removed in path.glob(f"{_REMOVED}{_PREFIX}*"):
        try:
            _remove(removed)
        except OSError as error:
            _log.warning("cannot remove %s: %s", removed, error.strerror)


def _remove(removed: Path) -> None:
    wal = removed / "wal"
    if wal.is_symlink():
        place = wal.readlink()
        # Under another name somebody else put it there.
        if place.is_dir() and removed.name == f"{_REMOVED}{place.name}":
            shutil.rmtree(place)
            sync_directory(place.parent)
        wal.unlink()
    shutil.rmtree(removed)
