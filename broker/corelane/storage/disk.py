"""The blocking disk that recovery alone uses: a protocol, and the operating system's."""

import errno
import os
import secrets
from pathlib import Path
from typing import Protocol

ZERO_BYTES = bytes(1024 * 1024)
FIRST_LSN_BITS = 60
"""Half of the lsns are left even above the highest: enough for ever."""


class Disk(Protocol):
    """Files below one core's directory; every failure is an OSError."""

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory; empty where it does not exist."""

    def size_bytes(self, path: str) -> int:
        """Return a file's size; FileNotFoundError where there is none."""

    def read(self, path: str, position: int, size_bytes: int) -> bytes:
        """Read at most that much; shorter at the end of the file, empty where none exists."""

    def sync(self, paths: list[str]) -> None:
        """Make files, and their names, durable: what can be read need not be."""

    def make_zeroed(self, path: str, size_bytes: int) -> None:
        """Make a zero-filled file, durable, under its name only when whole."""

    def make_directory(self, path: str) -> None:
        """Make a directory, durable; fine where it exists."""

    def remove(self, paths: list[str]) -> None:
        """Remove files and directories with all they hold; fine where absent."""

    def overwrite(self, path: str, position: int, data: bytes) -> None:
        """Write into an existing file, durable."""

    def first_lsn(self) -> int:
        """Return where a new core begins to count: a number that nobody can guess."""


class OsDisk:
    """A directory of the operating system's."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, directory: str) -> list[str]:
        try:
            return sorted(path.name for path in (self.root / directory).iterdir())
        except FileNotFoundError:
            return []

    def size_bytes(self, path: str) -> int:
        return (self.root / path).stat().st_size

    def read(self, path: str, position: int, size_bytes: int) -> bytes:
        try:
            with (self.root / path).open("rb", buffering=0) as file:
                return _pread_all(file.fileno(), position, size_bytes)
        except FileNotFoundError:
            return b""

    def sync(self, paths: list[str]) -> None:
        for path in paths:
            with (self.root / path).open("rb", buffering=0) as file:
                os.fsync(file.fileno())
            _sync_directory((self.root / path).parent)

    def make_zeroed(self, path: str, size_bytes: int) -> None:
        final = self.root / path
        temporary = final.with_name(final.name + ".new")
        with temporary.open("wb", buffering=0) as file:
            left = size_bytes
            while left > 0:
                left -= file.write(ZERO_BYTES[:left])
            os.fsync(file.fileno())
        temporary.replace(final)
        _sync_directory(final.parent)

    def make_directory(self, path: str) -> None:
        (self.root / path).mkdir(parents=True, exist_ok=True)
        _sync_directory((self.root / path).parent)

    def remove(self, paths: list[str]) -> None:
        for path in paths:
            target = self.root / path
            if target.is_dir():
                for child in target.iterdir():
                    child.unlink()
                target.rmdir()
            else:
                target.unlink(missing_ok=True)

    def overwrite(self, path: str, position: int, data: bytes) -> None:
        with (self.root / path).open("r+b", buffering=0) as file:
            if os.pwrite(file.fileno(), data, position) != len(data):
                raise OSError(errno.EIO, "short write", path)
            os.fsync(file.fileno())

    def first_lsn(self) -> int:
        return 1 + secrets.randbits(FIRST_LSN_BITS)


def _pread_all(fd: int, position: int, size_bytes: int) -> bytes:
    pieces = []
    while size_bytes > 0:
        piece = os.pread(fd, size_bytes, position)
        if not piece:
            break
        pieces.append(piece)
        position += len(piece)
        size_bytes -= len(piece)
    return b"".join(pieces)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
