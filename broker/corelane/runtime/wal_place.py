"""Puts a core's write-ahead log on another device (`corelane.wal.dir`): `wal` is a link then.

Invariant L1: once a core has a log, its place never changes by itself, and a log that should be
there and is not (a device that is not mounted) is never taken for a new, empty one.
"""

import os
from pathlib import Path

from corelane.runtime.failures import EXIT_DATA_DIRECTORY, StartError


def place_wal(core_directory: Path, wal_directory: str, cluster_uuid: str) -> None:
    """Make or check the link; raises `StartError`, and OSError where the system refuses.

    Below *wal_directory* each core of each cluster has a directory of its own.
    """
    link = core_directory / "wal"
    wanted = Path(wal_directory).absolute() / cluster_uuid / core_directory.name
    if link.is_symlink():
        _check_link(link, wanted if wal_directory else None)
    elif link.exists():
        if wal_directory:
            raise StartError(
                f"cannot use corelane.wal.dir {wal_directory}",
                f"the write-ahead log is already in {link}",
                f"Leave it empty, or move that directory to {wanted} and link it from there.",
                EXIT_DATA_DIRECTORY,
            )
    elif wal_directory:
        wanted.mkdir(parents=True, exist_ok=True)
        for directory in (wanted.parent, wanted.parent.parent):
            _sync(directory)
        link.symlink_to(wanted)
        _sync(core_directory)


def _check_link(link: Path, wanted: Path | None) -> None:
    found = link.readlink()
    if wanted is not None and found != wanted:
        raise StartError(
            f"cannot use {wanted} for the write-ahead log",
            f"it is in {found}",
            "Correct corelane.wal.dir, or move the directory and the link to it.",
            EXIT_DATA_DIRECTORY,
        )
    if not found.is_dir():
        raise StartError(
            f"cannot use the write-ahead log in {found}",
            "it is not there",
            "Is its device mounted? Acknowledged records are in it; nothing was changed.",
            EXIT_DATA_DIRECTORY,
        )


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
