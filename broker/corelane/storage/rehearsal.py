"""A disk that changes nothing: what is written to it is kept in memory, and read from there."""

from corelane.storage.disk import Disk


class Rehearsal:
    """What a disk would hold if it had been written to."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._files: dict[str, bytearray] = {}
        self._removed: set[str] = set()

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory."""
        prefix = f"{directory}/"
        names = {
            name for name in self._disk.names(directory) if not self._is_removed(prefix + name)
        }
        names |= {
            path.removeprefix(prefix).split("/")[0]
            for path in self._files
            if path.startswith(prefix)
        }
        return sorted(names)

    def size_bytes(self, path: str) -> int:
        """Return a file's size."""
        if path in self._files:
            return len(self._files[path])
        if self._is_removed(path):
            raise FileNotFoundError(path)
        return self._disk.size_bytes(path)

    def read(self, path: str, position: int, size_bytes: int) -> bytes:
        """Read at most that much."""
        if path in self._files:
            return bytes(self._files[path][position : position + size_bytes])
        return b"" if self._is_removed(path) else self._disk.read(path, position, size_bytes)

    def sync(self, paths: list[str]) -> None:
        """Nothing is there to be made durable."""

    def make_zeroed(self, path: str, size_bytes: int) -> None:
        """Make a zero-filled file."""
        self._files[path] = bytearray(size_bytes)

    def make_directory(self, path: str) -> None:
        """Directories are where their files are."""

    def remove(self, paths: list[str]) -> None:
        """Remove files and directories with all they hold."""
        for path in paths:
            self._removed.add(path)
            for kept in [each for each in self._files if _is_below(each, path)]:
                del self._files[kept]

    def overwrite(self, path: str, position: int, data: bytes) -> None:
        """Write into an existing file."""
        if path not in self._files:
            self._files[path] = bytearray(self.read(path, 0, self.size_bytes(path)))
        self._files[path][position : position + len(data)] = data

    def first_lsn(self) -> int:
        """Return where a new core begins to count."""
        return self._disk.first_lsn()

    def _is_removed(self, path: str) -> bool:
        return any(_is_below(path, each) for each in self._removed)


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")
