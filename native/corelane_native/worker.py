"""A thread that does disk jobs in order and never touches Python."""

# performance-critical: see STYLE.md

import errno
import os
import struct
import time
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Final

from corelane_native._core import ffi, lib
from corelane_native.memory import address_of

WRITE_DIRECT: Final[int] = lib.CL_WRITE_DIRECT
WRITE_DSYNC: Final[int] = lib.CL_WRITE_DSYNC
WRITE_CREATE: Final[int] = lib.CL_WRITE_CREATE
READ_PARTIAL: Final[int] = lib.CL_READ_PARTIAL

PATH_BYTES_MAX: Final = 511

Value = int | tuple[int, int, int]
"""Bytes written or read; of a search: (row, start position, bytes read)."""

Done = tuple[int, int, Value]
"""(job, result, value); result is 0 or a negative errno."""

JOB: Final = struct.Struct("@QiiQqQQqQi4x")
DONE: Final = struct.Struct("@Qiiqqq")

_DONE_ROWS: Final = 64
_PARTS_CACHED_MAX: Final = 64
_CLOSE_NAP_S: Final = 0.001
_NO_SIZE: Final = -1
_SEARCH_READ: Final[int] = lib.CL_JOB_SEARCH_READ
_WRITE: Final[int] = lib.CL_JOB_WRITE

_Queued = tuple[bytes, bytes, int, bytes, int]
"""(packed cl_job, paths, path count, parts, part count)"""


@lru_cache(_PARTS_CACHED_MAX)
def _parts_struct(count: int) -> struct.Struct:
    return struct.Struct("@" + "QQ" * count)


def _packed(parts: Sequence[tuple[int, int]]) -> bytes:
    return _parts_struct(len(parts)).pack(*chain.from_iterable(parts))


NICENESS_MAX: Final = 19


def _path(path: str) -> bytes:
    return os.fsencode(path) + b"\0"


class Worker:
    """One C thread with a queue; paths are relative to *directory*.

    A method with a *job* only queues it. Its answer comes from `reap` when `eventfd` says so, in
    the order of the jobs. Memory that a job reads or fills must stay where it is until then.
    Errors of the disk are results, never exceptions; a path longer than 511 bytes is the caller's
    bug. Not bound to the CPU of its maker unless *bound*; gives way to it by *niceness* (0 to 19).
    """

    __slots__ = (
        "_alive", "_done", "_done_bytes", "_job", "_job_bytes", "_run_done", "_waiting",
        "_worker", "eventfd",
    )  # fmt: skip

    def __init__(
        self, name: str, directory: str = "", *, bound: bool = False, niceness: int = 0
    ) -> None:
        assert 0 <= niceness <= NICENESS_MAX
        error = ffi.new("int *")
        path = os.fsencode(directory)
        worker = lib.cl_worker_new(name.encode(), path, int(not bound), niceness, error)
        if worker == ffi.NULL:
            status = int(error[0])
            raise OSError(-status, os.strerror(-status), directory)
        self._worker: ffi.CData | None = worker
        self.eventfd: int = lib.cl_worker_eventfd(worker)
        self._job = ffi.new("cl_job *")
        self._job_bytes = ffi.buffer(self._job)
        self._done = ffi.new("cl_done[]", _DONE_ROWS)
        self._done_bytes = memoryview(ffi.buffer(self._done))
        self._run_done = ffi.new("cl_done *")
        self._waiting: deque[_Queued] = deque()
        self._alive: dict[int, bytes] = {}

    def close(self) -> None:
        """Finish what was submitted, then end the thread; answers not reaped are lost."""
        while self._waiting:
            time.sleep(_CLOSE_NAP_S)
            self.reap()
        worker, self._worker = self._worker, None
        if worker is not None:
            lib.cl_worker_free(worker)

    def write(
        self,
        job: int,
        path: str,
        position: int,
        parts: Sequence[tuple[int, int]],
        flags: int = 0,
        truncate_to: int = _NO_SIZE,
    ) -> None:
        """Write (address, size) *parts* one after another at *position*; see WRITE_... flags.

        With *truncate_to* >= 0 the file is then cut to that size.
        """
        words = JOB.pack(job, _WRITE, flags, position, truncate_to, 0, 0, 0, 0, 0)
        self._submit((words, _path(path), 1, _packed(parts), len(parts)))

    def write_inline(
        self, path: str, position: int, parts: Sequence[tuple[int, int]], flags: int = 0
    ) -> int | None:
        """Write at once, on this thread; return the result (0 or -errno), or None.

        None: the thread is at work, `write` must be used. Blocks for as long as the disk takes.
        """
        if self._waiting:
            return None
        words = (0, _WRITE, flags, position, _NO_SIZE, 0, 0, 0, 0, 0)
        JOB.pack_into(self._job_bytes, 0, *words)
        text = _path(path)
        status = lib.cl_worker_run(
            self._live(), self._job, text, len(text), 1, _packed(parts), len(parts), self._run_done
        )
        if status == -errno.EBUSY:
            return None
        assert status == 0, f"{os.strerror(-status)}: {path!r}"
        result: int = DONE.unpack(ffi.buffer(self._run_done))[1]
        return result

    def read(
        self, job: int, path: str, position: int, size: int, address: int, flags: int = 0
    ) -> None:
        """Read *size* bytes into memory; fewer are -EIO, unless READ_PARTIAL allows them."""
        words = JOB.pack(job, lib.CL_JOB_READ, flags, position, size, address, 0, 0, 0, 0)
        self._submit((words, _path(path), 1, b"", 0))

    def search_read(
        self,
        job: int,
        entries_path: str,
        row_count: int,
        column: int,
        key: int,
        log_path: str,
        log_bytes: int,
        bytes_max: int,
        address: int,
    ) -> None:
        """Find the first entry row that matches, then read the log from where its entry starts.

        Columns as in `entries_search`. At most *bytes_max* bytes, and none from *log_bytes* on.
        Value: (row, start position, bytes read); (row_count, 0, 0) where no row matches.
        """
        words = JOB.pack(
            job, _SEARCH_READ, 0, 0, bytes_max, address, row_count, key, log_bytes, column
        )
        self._submit((words, _path(entries_path) + _path(log_path), 2, b"", 0))

    def sync(self, job: int, paths: Sequence[str]) -> None:
        """Make the files and their names durable, one by one."""
        self._on_paths(job, lib.CL_JOB_SYNC, paths)

    def sync_filesystem(self, job: int, path: str = ".") -> None:
        """Make everything of the file system that holds *path* durable (syncfs)."""
        self._on_paths(job, lib.CL_JOB_SYNC_FILESYSTEM, (path,))

    def zerofill(self, job: int, path: str, size: int) -> None:
        """Make a durable file of *size* zeros; it has its name only when it is complete."""
        self._on_paths(job, lib.CL_JOB_ZEROFILL, (path,), size)

    def write_file(self, job: int, path: str, data: bytes) -> None:
        """Write the whole content of a small file in place, and make it durable."""
        self._alive[job] = data
        words = JOB.pack(job, lib.CL_JOB_WRITE_FILE, 0, 0, _NO_SIZE, 0, 0, 0, 0, 0)
        parts = _packed([(address_of(data), len(data))])
        self._submit((words, _path(path), 1, parts, 1))

    def unlink(self, job: int, paths: Sequence[str]) -> None:
        """Remove files and empty directories, in order; absent ones are no error.

        What other workers keep open of them keeps its room on the disk: see `forget`.
        """
        self._on_paths(job, lib.CL_JOB_UNLINK, paths)

    def rename(self, job: int, path: str, path_new: str) -> None:
        """Rename durably."""
        self._on_paths(job, lib.CL_JOB_RENAME, (path, path_new))

    def link(self, job: int, pairs: Sequence[tuple[str, str]]) -> None:
        """Give each first file the second path as another name, durably; makes directories.

        A name that another file has is taken from it. At the first error the rest stays undone.
        """
        self._on_paths(job, lib.CL_JOB_LINK, [path for pair in pairs for path in pair])

    def make_directory(self, job: int, path: str) -> None:
        """Make a directory and its parents, durably; existing ones are no error."""
        self._on_paths(job, lib.CL_JOB_MAKE_DIRECTORY, (path,))

    def truncate(self, job: int, path: str, size: int) -> None:
        """Cut (or extend) a file to *size*, durably."""
        self._on_paths(job, lib.CL_JOB_TRUNCATE, (path,), size)

    def forget(self, job: int, paths: Sequence[str]) -> None:
        """Close what this worker keeps open of *paths*, which another worker is to remove."""
        self._on_paths(job, lib.CL_JOB_FORGET, paths)

    def reap(self) -> list[Done]:
        """Return every answer there is, in order."""
        answers: list[Done] = []
        count = _DONE_ROWS
        while count == _DONE_ROWS:
            count = lib.cl_worker_reap(self._live(), self._done, _DONE_ROWS)
            for job, result, op, *values in DONE.iter_unpack(self._done_bytes[: count * DONE.size]):
                value = (values[0], values[1], values[2]) if op == _SEARCH_READ else values[0]
                answers.append((job, result, value))
        if self._alive:
            for job, _, _ in answers:
                self._alive.pop(job, None)
        while self._waiting and self._try(self._waiting[0]):
            self._waiting.popleft()
        return answers

    def _on_paths(self, job: int, op: int, paths: Sequence[str], size: int = _NO_SIZE) -> None:
        words = JOB.pack(job, op, 0, 0, size, 0, 0, 0, 0, 0)
        self._submit((words, b"".join(map(_path, paths)), len(paths), b"", 0))

    def _submit(self, queued: _Queued) -> None:
        """Queue in C; what does not fit there waits here until answers were reaped."""
        if self._waiting or not self._try(queued):
            self._waiting.append(queued)

    def _try(self, queued: _Queued) -> bool:
        words, paths, path_count, parts, part_count = queued
        self._job_bytes[:] = words
        status = lib.cl_worker_submit(
            self._live(), self._job, paths, len(paths), path_count, parts, part_count
        )
        if status == -errno.EAGAIN:
            return False
        if status == -errno.ENOMEM:
            raise MemoryError("no memory for a disk job")
        assert status == 0, f"{os.strerror(-status)}: {paths!r}"
        return True

    def _live(self) -> ffi.CData:
        assert self._worker is not None, "the worker was closed"
        return self._worker
