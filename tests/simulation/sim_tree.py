"""The files and names of a disk in memory, and what a power cut leaves of them."""

import random
from itertools import pairwise

from corelane.model.record import record

BLOCK = 4096
SECTOR = 512
CORRUPT = 0.05
"""How often the last sector of a block that was being written is neither the old nor the new."""


def parent_of(path: str) -> str:
    """Return the directory that *path* is in; "" at the top."""
    return path.rpartition("/")[0]


@record
class Write:
    """Bytes written and not yet synced."""

    position: int
    data: bytes


@record
class Truncate:
    """A size set and not yet synced."""

    size_bytes: int


class File:
    """One file or directory: what is durable, what was done since, and what a reader sees."""

    def __init__(self, *, is_directory: bool = False) -> None:
        self.is_directory = is_directory
        self.durable = bytearray()
        self.pending: list[Write | Truncate] = []
        self.seen = bytearray()

    def write(self, position: int, data: bytes) -> None:
        self.pending.append(Write(position, data))
        _put(self.seen, position, data)

    def truncate(self, size_bytes: int) -> None:
        self.pending.append(Truncate(size_bytes))
        _resize(self.seen, size_bytes)

    def sync(self) -> None:
        for change in self.pending:
            if isinstance(change, Truncate):
                _resize(self.durable, change.size_bytes)
            else:
                _put(self.durable, change.position, change.data)
        self.pending.clear()

    def lose(self, rng: random.Random, *, corrupts: bool = False) -> None:
        """Keep of each un-synced block what luck leaves; or it may be rubbish (*corrupts*)."""
        if not self.pending:
            return
        mood = rng.choice((0.0, 0.2, 0.5, 0.8, 1.0))  # how much of it survives
        for change in self.pending:
            if isinstance(change, Truncate):
                if rng.random() < mood:
                    _resize(self.durable, change.size_bytes)
                continue
            ends = range(change.position // BLOCK * BLOCK + BLOCK, _end(change), BLOCK)
            for start, end in pairwise((change.position, *ends, _end(change))):
                if rng.random() >= mood:
                    continue
                part = change.data[start - change.position : end - change.position]
                if rng.random() < 0.1:  # not even the block is whole
                    part = part[: rng.randrange(1, len(part) // SECTOR + 2) * SECTOR]
                if corrupts and rng.random() < CORRUPT:
                    part = part[:-SECTOR] + rng.randbytes(min(SECTOR, len(part)))
                _put(self.durable, start, part)
        self.pending.clear()
        self.seen = bytearray(self.durable)


def _end(change: Write) -> int:
    return change.position + len(change.data)


def _put(content: bytearray, position: int, data: bytes) -> None:
    if len(content) < position:
        content.extend(bytes(position - len(content)))
    content[position : position + len(data)] = data


def _resize(content: bytearray, size_bytes: int) -> None:
    del content[size_bytes:]
    content.extend(bytes(size_bytes - len(content)))


class Tree:
    """Files and names of one machine's disk: what is there, and what of it is durable."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.files: dict[str, File] = {}
        self.names: dict[str, File] = {}  # the durable ones
        self.changed: dict[str, list[File | None]] = {}  # states of a name since its last sync
        self.room_bytes = 1 << 62
        self.corrupts = False

    @property
    def bytes_used(self) -> int:
        """Bytes of all files, of each once, however many names it has."""
        return sum(len(file.seen) for file in {id(f): f for f in self.files.values()}.values())

    def lose(self) -> None:
        """Cut the power: what no sync covered is lost, kept or torn."""
        names = dict(self.names)
        for path, states in self.changed.items():
            file = self.rng.choice([self.names.get(path), *states])
            names.pop(path, None)
            if file is not None:
                names[path] = file
        self.changed.clear()
        for path in sorted(names):  # a directory comes before what is in it
            parent = parent_of(path)
            if parent and parent not in names:
                del names[path]
        self.files = names
        self.names = dict(names)
        for path in sorted(names):
            names[path].lose(self.rng, corrupts=self.corrupts)

    def set_name(self, path: str, file: File | None) -> None:
        """Give a name to a file, or take it away."""
        if file is None:
            self.files.pop(path, None)
        else:
            self.files[path] = file
        self.changed.setdefault(path, []).append(file)

    def make_parents(self, path: str) -> None:
        """Make the directories that lead to *path*."""
        parent = parent_of(path)
        if parent and parent not in self.files:
            self.make_parents(parent)
            self.set_name(parent, File(is_directory=True))

    def sync_name(self, path: str) -> None:
        """Make durable what a name stands for now."""
        if self.changed.pop(path, None) is None:
            return
        file = self.files.get(path)
        if file is None:
            self.names.pop(path, None)
        else:
            self.names[path] = file

    def sync_names(self, path: str) -> None:
        """Make the names in a directory durable, its own, and those on the way to it."""
        for name in list(self.changed):
            if parent_of(name) == path:
                self.sync_name(name)
        self.sync_way(path)

    def sync_way(self, path: str) -> None:
        """Make a name durable, and those of the directories on the way to it."""
        while path:
            self.sync_name(path)
            path = parent_of(path)
