"""Puts a core's write-ahead log on another device (`corelane.wal.dir`): `wal` is a link then.

Invariant L1: once a core has a log, its place never changes by itself, and a log that should be
there and is not (a device that is not mounted) is never taken for a new, empty one.
Invariant L2: a new core never takes over the log of another one that had its number.
"""

from pathlib import Path

from corelane.runtime.data_directory import sync_directory
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
        _check_free(wanted, core_directory)
        wanted.mkdir(parents=True, exist_ok=True)
        for directory in (wanted.parent, wanted.parent.parent):
            sync_directory(directory)
        link.symlink_to(wanted)
        sync_directory(core_directory)


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


def _check_free(wanted: Path, core_directory: Path) -> None:
    """Refuse a log in the place of a core that has no files yet. (One that has was moved there.)"""
    is_new = all(each.name == "lock" for each in core_directory.iterdir())
    if is_new and wanted.is_dir() and any(wanted.iterdir()):
        raise StartError(
            f"cannot use {wanted} for the write-ahead log",
            f"it holds a log already, and {core_directory} is new",
            "Restore that core's directory, or remove the log if nothing in it is needed.",
            EXIT_DATA_DIRECTORY,
        )
