"""The data directory: made, locked, and recognised before anything in it is touched.

Layout (DESIGN section 12): `cluster.toml`, `lock`, `ports.json` while serving, `core-NN/`.
Invariant D1: one process holds the lock of `lock`, from before it reads
`cluster.toml` until it ends.
Invariant D2: `cluster.toml` appears whole or not at all, and before any `core-NN`.
"""

import errno
import fcntl
import os
import tomllib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from corelane.model.record import record
from corelane.runtime.failures import EXIT_DATA_DIRECTORY, EXIT_IN_USE, StartError

FORMAT_VERSION: Final = 1
FREE_BYTES_MIN: Final = 16 << 20
"""What a new data directory needs for checkpoints and the first segments, beside the WAL."""

_REASONS: Final = {
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EROFS: "the file system is mounted read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "files may not grow large enough (ulimit -f)",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "it is a file, not a directory",
    errno.EIO: "the disk reported an error",
}
_NEXT_STEPS: Final = {
    errno.ENOSPC: "Free some space, or choose another directory with --data-dir.",
    errno.EDQUOT: "Free some space, or choose another directory with --data-dir.",
    errno.EFBIG: "Raise the limit (ulimit -f unlimited) and start again.",
    errno.EIO: "Look at the kernel's log (dmesg) before starting again.",
}
_NEXT_STEP: Final = "Make it writable for this user, or choose another with --data-dir."


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `cluster.toml` says."""

    cluster_uuid: str
    node_id: int
    format_version: int


_JOINED: Final = "joined"
"""A file that is there when this node joined a cluster instead of founding it."""


_NAME: Final = "directory"


def has_peers(path: Path) -> bool:
    """Whether the node of a data directory has ever been one of several: it stays one."""
    return (path / _NAME).exists()


def _alone() -> tuple[str, bool]:
    return str(uuid.uuid4()), True


@record
class DataDirectory:
    """A data directory that this process holds; `lock_fd` is open as long as it does."""

    path: Path
    identity: Identity
    lock_fd: int
    device: int

    @property
    def founds(self) -> bool:
        """Whether this node began its cluster; otherwise it joined it."""
        return not (self.path / _JOINED).exists()

    @property
    def name(self) -> str:
        """Return what tells this directory from any other; made when it is asked for first."""
        file = self.path / _NAME
        try:
            return file.read_text().strip()
        except FileNotFoundError:
            name = str(uuid.uuid4())
            write_file_atomically(file, f"{name}\n".encode())
            return name

    @property
    def ports_path(self) -> Path:
        """Return where the ports are written when the broker serves."""
        return self.path / "ports.json"


def refusal(path: Path, error: OSError) -> StartError:
    """Return the sentence for an operating system's refusal to use a data directory."""
    number = error.errno or 0
    why = _REASONS.get(number, error.strerror or "the system refused")
    if error.filename and Path(os.fsdecode(error.filename)) != path:
        why = f"{why} ({os.fsdecode(error.filename)})"
    return StartError(
        f"cannot use the data directory {path}",
        why,
        _NEXT_STEPS.get(number, _NEXT_STEP),
        EXIT_DATA_DIRECTORY,
    )


def open_data_directory(
    path: Path,
    node_id: int,
    bytes_needed: int = FREE_BYTES_MIN,
    decide: Callable[[], tuple[str, bool]] = _alone,
) -> DataDirectory:
    """Make, lock and recognise the data directory at *path*; raises `StartError`.

    *bytes_needed* must be free for a new one; an old one may have its files and be full. For a new
    one *decide* returns the cluster that it is to belong to, and whether it founds that.
    """
    path = path.absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock_fd = lock_file(path / "lock")
    except OSError as error:
        raise refusal(path, error) from error
    if lock_fd is None:
        raise StartError(
            f"cannot use the data directory {path}",
            f"another broker is using it{_holder(path / 'lock')}",
            "Stop that one first, or choose another directory with --data-dir.",
            EXIT_IN_USE,
        )
    try:
        identity = _identity(path, node_id, bytes_needed, decide)
        (path / "ports.json").unlink(missing_ok=True)
        device = path.stat().st_dev
    except OSError as error:
        os.close(lock_fd)
        raise refusal(path, error) from error
    except StartError:
        os.close(lock_fd)
        raise
    return DataDirectory(path, identity, lock_fd, device)


def lock_file(path: Path) -> int | None:
    """Lock *path* and return its descriptor, or None when another process holds it.

    flock, not fcntl locks: those vanish when any descriptor of the file is closed. The lock ends
    with the last descriptor, however the process dies. The holder's pid in the file is a courtesy.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        # A full disk must not keep a broker from starting to serve reads.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            os.close(descriptor)
            raise
    return descriptor


def is_lock_free(path: Path) -> bool:
    """Return whether nobody holds the lock of *path*, which need not exist."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def write_file_atomically(path: Path, data: bytes) -> None:
    """Write *path* so that a reader, or a crash at any time, sees the old or the new content."""
    scratch = path.with_name(path.name + ".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    scratch.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make durable which files there are in a directory, and what they are called."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def core_directory(path: Path, core: int) -> Path:
    """Return where core number *core* keeps everything it owns."""
    return path / f"core-{core:02d}"


def _holder(lock: Path) -> str:
    try:
        text = lock.read_text().strip()
    except OSError:
        return ""
    return f" (process {text})" if text.isdigit() else ""


def _identity(
    path: Path, node_id: int, bytes_needed: int, decide: Callable[[], tuple[str, bool]]
) -> Identity:
    """Read `cluster.toml`, or write it when the directory is new; refuse what does not fit."""
    file = path / "cluster.toml"
    try:
        # The version first: a later format may have other keys.
        raw = tomllib.loads(file.read_text())
        version = raw.get("format_version", FORMAT_VERSION)
        identity = msgspec.convert(raw, Identity) if version == FORMAT_VERSION else None
    except FileNotFoundError:
        return _new_identity(path, node_id, bytes_needed, decide)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise StartError(
            f"cannot use the data directory {path}",
            f"cluster.toml is not readable as ours: {error}",
            "Restore that file from a backup; the data beside it are untouched.",
            EXIT_DATA_DIRECTORY,
        ) from error
    if identity is None:
        raise StartError(
            f"cannot use the data directory {path}",
            f"it has format version {version}, this broker reads {FORMAT_VERSION}",
            "Start the version of corelane that wrote it, or choose another with --data-dir.",
            EXIT_DATA_DIRECTORY,
        )
    if identity.node_id != node_id:
        raise StartError(
            f"cannot use the data directory {path}",
            f"it belongs to node {identity.node_id}, and this is node {node_id}",
            f"Start with --node-id {identity.node_id}, or choose another with --data-dir.",
            EXIT_DATA_DIRECTORY,
        )
    return identity


def _new_identity(
    path: Path, node_id: int, bytes_needed: int, decide: Callable[[], tuple[str, bool]]
) -> Identity:
    if any(path.glob("core-*")):
        raise StartError(
            f"cannot use the data directory {path}",
            "it holds data of cores, but its cluster.toml is missing",
            "Restore that file from a backup, or choose another with --data-dir.",
            EXIT_DATA_DIRECTORY,
        )
    space = os.statvfs(path)
    free_bytes = space.f_bavail * space.f_frsize
    if free_bytes < bytes_needed:
        raise StartError(
            f"cannot use the data directory {path}",
            f"the disk is full: {free_bytes >> 20} MiB are free,"
            f" {bytes_needed >> 20} MiB are needed",
            _NEXT_STEPS[errno.ENOSPC],
            EXIT_DATA_DIRECTORY,
        )
    cluster_uuid, founds = decide()
    if not founds:  # before the identity: a crash between the two asks again
        write_file_atomically(path / _JOINED, b"")
    else:
        (path / _JOINED).unlink(missing_ok=True)
    identity = Identity(cluster_uuid, node_id, FORMAT_VERSION)
    text = (
        "# Who this data directory belongs to. Written once; never edit it.\n"
        f'cluster_uuid = "{identity.cluster_uuid}"\n'
        f"node_id = {identity.node_id}\n"
        f"format_version = {identity.format_version}\n"
    )
    write_file_atomically(path / "cluster.toml", text.encode())
    return identity
