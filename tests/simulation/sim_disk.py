"""A disk in memory that loses, at a crash, what nobody waited for: deterministic from its seed.

The driver calls `submit(effect, arena)` for every disk effect, then `complete(queue)` as often as
it likes: each call performs the oldest effect of one queue and returns its `DiskDone`. The queues
are the runtime's threads (WAL, STORE, READ): in order within one, in any order between them.

`crash(power=True)` is a power cut. What no sync covered is kept, lost or torn, each 4 KiB block
for itself, so that a later block of a write may survive without an earlier one; names made or
removed since the last sync of their directory may or may not be there. The oldest effect of each
queue may have been half done. `crash(power=False)` is kill -9: what was written stays readable,
but it is no more durable than it was, and a later power cut may take it.

Several cores of one machine share a `Tree`: `SimDisk(seed, tree, "core-01")`. A power cut is the
whole tree's: kill every core, then `tree.lose()`.

`SimDisk` is also the blocking `Disk` that recovery uses. `steps_left` counts down with everything
that changes the disk, in recovery too, and raises `PowerCutError` at 0.

Faults: `fail(kind, error, skip=, times=, partly=)`, `room_bytes` (ENOSPC beyond it), `flip`.
"""

import contextlib
import errno
import posixpath
import random
from collections import Counter, deque
from dataclasses import dataclass
from enum import IntEnum

from corelane.model.ids import JobId
from corelane.storage.effects import (
    CheckpointWrite,
    DiskDone,
    DiskEffect,
    LinkFiles,
    Read,
    SearchRead,
    SegmentWrite,
    Sync,
    Unlink,
    WalPrepare,
    WalWrite,
)
from corelane.storage.layout import ROW, ROW_BYTES
from corelane_native import Arena, address_of, entries_search
from tests.simulation.sim_tree import BLOCK, File, Tree, parent_of


class PowerCutError(Exception):
    """The power went away at this step: call `crash`, then recover."""


class Queue(IntEnum):
    """The runtime's threads."""

    WAL = 0
    STORE = 1
    READ = 2


_QUEUE_OF: dict[type, Queue] = {
    WalWrite: Queue.WAL,
    WalPrepare: Queue.STORE,
    SegmentWrite: Queue.STORE,
    Sync: Queue.STORE,
    CheckpointWrite: Queue.STORE,
    Unlink: Queue.STORE,
    LinkFiles: Queue.STORE,
    Read: Queue.READ,
    SearchRead: Queue.READ,
}


@dataclass(slots=True)
class Fault:
    """Answer *error* to the next *times* effects of a kind, after letting *skip* of them pass."""

    kind: type
    error: int
    skip: int
    times: int
    partly: bool


class SimDisk:
    """The disk of one core; see the head of this file."""

    wal_is_synced = True  # False: a planted bug
    lsn_base = 1

    def __init__(self, seed: int, tree: Tree | None = None, root: str = "") -> None:
        self.rng = random.Random(seed)
        self.tree = Tree(self.rng) if tree is None else tree
        self.root = root
        if root and root not in self.tree.files:  # the supervisor made it
            self.tree.set_name(root, File(is_directory=True))
            self.tree.sync_way(root)
        self.queues: tuple[deque[DiskEffect], ...] = (deque(), deque(), deque())
        self.steps = 0
        self.steps_left = -1
        self.performed: Counter[str] = Counter()
        self._faults: list[Fault] = []
        self._arena: Arena | None = None

    def at(self, path: str) -> str:
        """Return a path of this core's as the tree knows it."""
        return posixpath.normpath(f"{self.root}/{path}") if self.root else path

    @property
    def files(self) -> dict[str, File]:
        """Files by path, below this core's directory."""
        if not self.root:
            return self.tree.files
        prefix = self.root + "/"
        files = self.tree.files.items()
        return {path[len(prefix) :]: file for path, file in files if path.startswith(prefix)}

    @property
    def room_bytes(self) -> int:
        """What the whole disk may hold."""
        return self.tree.room_bytes

    @room_bytes.setter
    def room_bytes(self, room_bytes: int) -> None:
        self.tree.room_bytes = room_bytes

    @property
    def bytes_used(self) -> int:
        """Bytes of all files of the disk."""
        return self.tree.bytes_used

    # --- effects ---

    def submit(self, effect: DiskEffect, arena: Arena) -> Queue:
        """Queue an effect; its arena memory is read when it is performed."""
        self._arena = arena
        queue = _QUEUE_OF[type(effect)]
        self.queues[queue].append(effect)
        return queue

    def busy(self) -> list[Queue]:
        """Return the queues that have something to complete."""
        return [queue for queue in Queue if self.queues[queue]]

    def complete(self, queue: Queue) -> DiskDone:
        """Perform the oldest effect of *queue* and return its answer."""
        self._step()
        effect = self.queues[queue].popleft()
        self.performed[type(effect).__name__] += 1
        fault = self._fault(effect)
        if fault is not None:
            if fault.partly:
                with contextlib.suppress(OSError):  # there may be no room even for the part
                    self._perform_partly(effect)
            return DiskDone(effect.job, fault.error)
        try:
            value = self._perform(effect)
        except OSError as error:
            return DiskDone(effect.job, error.errno or errno.EIO)
        if isinstance(effect, WalWrite) and self.wal_is_synced:
            self._open(effect.path).sync()
        return DiskDone(effect.job, 0, value)

    def _perform(self, effect: DiskEffect) -> tuple[int, int, int] | None:
        match effect:
            case WalWrite():
                self._wal_write(effect)
            case SegmentWrite():
                self._segment_write(effect)
            case Read():
                data = self.read(effect.path, effect.position, effect.size_bytes)
                if len(data) != effect.size_bytes:
                    raise OSError(errno.EIO, "short read", effect.path)
                self.arena.write(effect.chunk, 0, data)
            case SearchRead():
                return self._search_read(effect)
            case WalPrepare():
                self._make_zeroed(effect.path, effect.size_bytes)
            case Sync():
                for path in effect.paths:
                    self._sync(path)
            case CheckpointWrite():
                self._checkpoint_write(effect)
                self._sync(effect.path)
            case Unlink():
                self._remove_files(effect.paths)
            case LinkFiles():
                for path, name in effect.pairs:
                    self._link(path, name)
                for _path, name in effect.pairs:
                    self.tree.sync_names(parent_of(self.at(name)))
        return None

    @property
    def arena(self) -> Arena:
        """The arena of the core that runs."""
        assert self._arena is not None
        return self._arena

    def _bytes(self, chunk: int, position: int, size_bytes: int) -> bytes:
        return bytes(self.arena.view(chunk, position, size_bytes))

    def _wal_write(self, effect: WalWrite) -> None:
        file = self._open(effect.path)
        data = b"".join(self._bytes(*part) for part in effect.parts)
        assert effect.position % BLOCK == 0
        assert len(data) % BLOCK == 0
        assert effect.position + len(data) <= len(file.seen), "a WAL file never grows"
        file.write(effect.position, data)

    def _segment_write(self, effect: SegmentWrite) -> None:
        assert effect.position % BLOCK == 0
        assert effect.size_bytes % BLOCK == 0
        file = self._open_or_make(effect.path)
        data = self._bytes(effect.chunk, effect.chunk_position, effect.size_bytes)
        self._take_room(effect.position + len(data) - len(file.seen))
        file.write(effect.position, data)
        if effect.truncate_to >= 0:
            file.truncate(effect.truncate_to)

    def _search_read(self, effect: SearchRead) -> tuple[int, int, int]:
        rows = bytes(self._open(effect.entries_path).seen)
        rows = rows[ROW_BYTES : ROW_BYTES * (effect.row_count + 1)]
        if len(rows) != ROW_BYTES * effect.row_count:
            raise OSError(errno.EIO, "short read", effect.entries_path)
        found = entries_search(address_of(rows), effect.row_count, effect.column, effect.key)
        if found == effect.row_count:
            return found, 0, 0
        start = ROW.unpack_from(rows, (found - 1) * ROW_BYTES)[1] if found else 0
        if start >= effect.log_bytes:
            return found, start, 0
        size = min(effect.bytes_max, effect.log_bytes - start)
        data = bytes(self._open(effect.log_path).seen[start : start + size])
        if len(data) != size:
            raise OSError(errno.EIO, "short read", effect.log_path)
        self.arena.write(effect.chunk, 0, data)
        return found, start, size

    def _checkpoint_write(self, effect: CheckpointWrite) -> None:
        file = self._open_or_make(effect.path)
        self._take_room(len(effect.data) - len(file.seen))
        file.write(0, effect.data)
        file.truncate(len(effect.data))

    def _perform_partly(self, effect: DiskEffect) -> None:
        """Do some of an effect that is cut short; nothing of it is durable."""
        match effect:
            case WalWrite():
                self._wal_write(effect)
            case SegmentWrite():
                self._segment_write(effect)
            case CheckpointWrite():
                self._checkpoint_write(effect)
            case WalPrepare():
                self._open_or_make(effect.path + ".new").write(0, bytes(BLOCK))
            case Unlink():
                self._remove_files([p for p in effect.paths if self.rng.random() < 0.5])
            case Sync():
                for path in effect.paths:
                    if self.rng.random() < 0.5 and self._exists(path):
                        self._sync(path)
            case LinkFiles():
                for path, name in effect.pairs:
                    if self.rng.random() < 0.5:
                        self._link(path, name)
            case Read() | SearchRead():
                pass

    # --- crashes and faults ---

    def crash(self, *, power: bool = True) -> None:
        """Cut the power, or only kill the process; every queued effect is gone afterwards."""
        self.steps_left = -1
        for queue in self.queues:
            if queue and self.rng.random() < 0.7:
                with contextlib.suppress(OSError):
                    self._perform_partly(queue[0])
            queue.clear()
        self._arena = None
        if power:
            self.tree.lose()

    def fail(
        self, kind: type, error: int, *, skip: int = 0, times: int = 1, partly: bool = False
    ) -> None:
        """Answer *error* to effects of *kind*; *partly*: after doing some of the work."""
        self._faults.append(Fault(kind, error, skip, times, partly))

    def forget_faults(self) -> None:
        """Let everything succeed from here on."""
        self._faults.clear()

    def _fault(self, effect: DiskEffect) -> Fault | None:
        for fault in self._faults:
            if fault.kind is type(effect):
                if fault.skip:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                if not fault.times:
                    self._faults.remove(fault)
                return fault
        return None

    def flip(self, path: str, position: int, bit: int = 0) -> None:
        """Flip a bit that is durable."""
        file = self._open(path)
        for content in (file.durable, file.seen):
            content[position] ^= 1 << bit

    def _step(self) -> None:
        self.steps += 1
        if self.steps_left == 0:
            raise PowerCutError
        self.steps_left -= 1

    # --- files ---

    def _exists(self, path: str) -> bool:
        return self.at(path) in self.tree.files

    def _open(self, path: str) -> File:
        file = self.tree.files.get(self.at(path))
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return file

    def _open_or_make(self, path: str) -> File:
        if not self._exists(path):
            self.tree.make_parents(self.at(path))
            self.tree.set_name(self.at(path), File())
        return self._open(path)

    def _link(self, path: str, name: str) -> None:
        file = self._open(path)
        if self.tree.files.get(self.at(name)) is not file:
            self.tree.make_parents(self.at(name))
            self.tree.set_name(self.at(name), file)

    def _sync(self, path: str) -> None:
        """A file: its bytes and its name. A directory: the names in it, and its own."""
        file = self._open(path) if path else None
        if file is not None and not file.is_directory:
            file.sync()
            self.tree.sync_way(self.at(path))
        else:
            self.tree.sync_names(self.at(path) if path else self.root)

    def _remove_files(self, paths: list[str]) -> None:
        for path in paths:
            file = self.tree.files.get(self.at(path))
            if file is None or (file.is_directory and self.names(path)):
                continue
            self.tree.set_name(self.at(path), None)

    def _take_room(self, size_bytes: int) -> None:
        if size_bytes > 0 and self.bytes_used + size_bytes > self.room_bytes:
            raise OSError(errno.ENOSPC, "no space left")

    def _make_zeroed(self, path: str, size_bytes: int) -> None:
        temporary = path + ".new"
        self._take_room(size_bytes)
        tree, path = self.tree, self.at(path)
        tree.set_name(self.at(temporary), None)
        tree.make_parents(path)
        file = File()
        file.truncate(size_bytes)
        file.sync()
        tree.set_name(path, file)
        tree.sync_name(path)

    # --- the blocking disk of recovery ---

    def names(self, directory: str) -> list[str]:
        """As `Disk`."""
        where = self.at(directory) if directory else self.root
        prefix = where + "/" if where else ""
        inside = [path[len(prefix) :] for path in self.tree.files if path.startswith(prefix)]
        return sorted(name for name in inside if name and "/" not in name)

    def size_bytes(self, path: str) -> int:
        """As `Disk`."""
        return len(self._open(path).seen)

    def read(self, path: str, position: int, size_bytes: int) -> bytes:
        """As `Disk`."""
        file = self.tree.files.get(self.at(path))
        return bytes(file.seen[position : position + size_bytes]) if file is not None else b""

    def make_zeroed(self, path: str, size_bytes: int) -> None:
        """As `Disk`."""
        self._blocking(WalPrepare(JobId(0), path, size_bytes))
        self._make_zeroed(path, size_bytes)

    def make_directory(self, path: str) -> None:
        """As `Disk`."""
        self._step()
        path = self.at(path)
        if path not in self.tree.files:
            self.tree.make_parents(path)
            self.tree.set_name(path, File(is_directory=True))
        self.tree.sync_name(path)

    def remove(self, paths: list[str]) -> None:
        """As `Disk`: file by file, so that a crash may fall between any two."""
        for path in paths:
            inside = [f"{path}/{name}" for name in self.names(path)]
            for name in (*inside, path):
                self._step()
                if self._exists(name):
                    self.tree.set_name(self.at(name), None)

    def sync(self, paths: list[str]) -> None:
        """As `Disk`."""
        for path in paths:
            self._step()
            self._sync(path)

    def overwrite(self, path: str, position: int, data: bytes) -> None:
        """As `Disk`."""
        self._step()
        self._open(path).write(position, data)
        self._sync(path)

    def first_lsn(self) -> int:
        """As `Disk`; not by lot, so that a story can name its lsns."""
        return self.lsn_base

    def _blocking(self, effect: DiskEffect) -> None:
        try:
            self._step()
        except PowerCutError:
            if self.rng.random() < 0.5:
                self._perform_partly(effect)
            raise

    def copy(self) -> "SimDisk":
        """Return an idle disk with the same files, all durable, and the same luck."""
        twin = SimDisk(0)
        twin.rng.setstate(self.rng.getstate())
        for path, file in self.files.items():
            other = File(is_directory=file.is_directory)
            other.durable[:] = file.seen
            other.seen[:] = file.seen
            twin.tree.files[path] = twin.tree.names[path] = other
        return twin
