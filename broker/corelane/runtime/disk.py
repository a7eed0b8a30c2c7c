"""Performs the shard's disk effects on three C threads and reports what became of them.

`wal` does WAL writes and nothing else, so that a sync waits for no other file; `store` writes and
removes everything else, in the order asked for; `read` reads, so that a consumer of old data
waits for neither. Invariant K1: a failed WAL write ends the process; it is never tried again,
since the kernel may have dropped the pages and would report success the second time.
"""

# performance-critical: see STYLE.md

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from corelane.model.ids import JobId
from corelane.model.metrics import LATENCY_BOUNDS_US, Histogram
from corelane.storage.effects import (
    CheckpointWrite,
    DiskDone,
    LinkFiles,
    Read,
    SearchRead,
    SegmentWrite,
    Sync,
    Unlink,
    WalPrepare,
    WalWrite,
)
from corelane_native import WRITE_CREATE, WRITE_DIRECT, WRITE_DSYNC, Arena, Net, Worker

WAL_FLAGS: Final = WRITE_DIRECT | WRITE_DSYNC
SEGMENT_FLAGS: Final = WRITE_DIRECT | WRITE_CREATE

INLINE_BYTES_MAX: Final = 32 * 1024
INLINE_EVENTS_MAX: Final = 8
INLINE_US_MAX: Final = 1000
"""A write that took longer sends the next ones to the thread."""
INLINE_PAUSE_MIN: Final = 4
INLINE_PAUSE_MAX: Final = 64
"""How many: twice as many after each that was slow again, half as many after one that was not. A
disk that hesitates now and then costs few hand-overs, one that is always slow holds nobody up."""

SYNC_ONE_BY_ONE_MAX: Final = 16
"""Above this one syncfs is cheaper (measured: 512 files in 9 ms, 52 ms one by one)."""

READ_NICENESS: Final = 10
"""Readers of old data take the CPU that is left: with 50 of them at once p99 of a small produce
beside them was 3.5 times that without, now 1.9 (`python -m bench.macro.neighbours`)."""

WAL, STORE, READ = range(3)
_NAMES: Final = ("wal", "store", "read")
_FORGET: Final = JobId(0)
"""The number of jobs of ours that nobody waits for; the shard's start at 1."""


class NativeDisk:
    """The three threads of one core, on its directory."""

    def __init__(self, directory: Path, arena: Arena, die: Callable[[str], None]) -> None:
        self._arena = arena
        self._die = die
        niceness = {"read": READ_NICENESS}
        self._workers = [
            Worker(name, str(directory), niceness=niceness.get(name, 0)) for name in _NAMES
        ]
        self.wal_write_us = Histogram(LATENCY_BOUNDS_US)
        self.segment_writes = 0
        self._wal_began_ns = 0
        self._kept: WalWrite | None = None
        self._inline_pause = 0
        self._next_pause = INLINE_PAUSE_MIN
        self.is_writing = False
        """Whether the thread has a write of the log: its end is a matter of a millisecond."""
        self.performers: dict[type, Callable[[Any], None]] = {
            WalWrite: self._wal_write,
            WalPrepare: self._wal_prepare,
            SegmentWrite: self._segment_write,
            Read: self._read,
            SearchRead: self._search_read,
            Sync: self._sync,
            CheckpointWrite: self._checkpoint_write,
            Unlink: self._unlink,
            LinkFiles: self._link,
        }

    def watch(self, net: Net) -> None:
        """Have *net* report answers, by the number of their worker."""
        for token, worker in enumerate(self._workers):
            net.watch(worker.eventfd, token)

    def reap(self, token: int) -> list[DiskDone]:
        """Return the answers of a worker that has some."""
        answers: list[DiskDone] = []
        for job, result, value in self._workers[token].reap():
            if token == WAL and result != 0:
                self._die_of(result)
            if job != _FORGET:
                answers.append(
                    DiskDone(JobId(job), -result, value if isinstance(value, tuple) else None)
                )
        if token == WAL and answers:
            self.is_writing = False
            # One write is in flight at a time (invariant W3 of storage/wal.py).
            self.wal_write_us.observe((time.monotonic_ns() - self._wal_began_ns) // 1000)
        return answers

    def close(self) -> None:
        """Finish what was submitted and end the threads."""
        for worker in self._workers:
            worker.close()

    def end_turn(self, event_count: int) -> DiskDone | None:
        """Begin the turn's WAL write, after its other effects; its answer if it is done already.

        A small write of a quiet turn is made here and now: no other thread is woken, which costs
        more than the write. It holds up the loop for one sync (0.1 ms); after a slow one, the
        next writes are the thread's. Busy turns leave it to the thread and gather the next batch.
        """
        effect, self._kept = self._kept, None
        if effect is None:
            return None
        address = self._arena.address
        parts = [(address(chunk) + position, size) for chunk, position, size in effect.parts]
        self._wal_began_ns = time.monotonic_ns()
        worker = self._workers[WAL]
        if event_count <= INLINE_EVENTS_MAX and sum(size for _, size in parts) <= INLINE_BYTES_MAX:
            if self._inline_pause == 0:
                result = worker.write_inline(effect.path, effect.position, parts, WAL_FLAGS)
                if result is not None:
                    return self._written_inline(effect.job, result)
            else:
                self._inline_pause -= 1
        worker.write(effect.job, effect.path, effect.position, parts, WAL_FLAGS)
        self.is_writing = True
        return None

    def _written_inline(self, job: JobId, result: int) -> DiskDone:
        took_us = (time.monotonic_ns() - self._wal_began_ns) // 1000
        self.wal_write_us.observe(took_us)
        if took_us > INLINE_US_MAX:
            self._inline_pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, INLINE_PAUSE_MAX)
        else:
            self._next_pause = max(self._next_pause // 2, INLINE_PAUSE_MIN)
        if result != 0:
            self._die_of(result)
        return DiskDone(job, -result)

    def _die_of(self, result: int) -> None:
        self._die(f"a write to the write-ahead log failed: {os.strerror(-result)}")

    def _wal_write(self, effect: WalWrite) -> None:
        assert self._kept is None, "a turn has one WAL write"
        self._kept = effect

    def _wal_prepare(self, effect: WalPrepare) -> None:
        # The wal thread may have an older file of that name open.
        self._workers[WAL].forget(_FORGET, [effect.path])
        self._workers[STORE].zerofill(effect.job, effect.path, effect.size_bytes)

    def _segment_write(self, effect: SegmentWrite) -> None:
        self.segment_writes += 1
        address = self._arena.address(effect.chunk) + effect.chunk_position
        self._workers[STORE].write(
            effect.job,
            effect.path,
            effect.position,
            [(address, effect.size_bytes)] if effect.size_bytes else [],
            SEGMENT_FLAGS,
            effect.truncate_to,
        )

    def _read(self, effect: Read) -> None:
        address = self._arena.address(effect.chunk)
        self._workers[READ].read(
            effect.job, effect.path, effect.position, effect.size_bytes, address
        )

    def _search_read(self, effect: SearchRead) -> None:
        self._workers[READ].search_read(
            effect.job,
            effect.entries_path,
            effect.row_count,
            effect.column,
            effect.key,
            effect.log_path,
            effect.log_bytes,
            effect.bytes_max,
            self._arena.address(effect.chunk),
        )

    def _sync(self, effect: Sync) -> None:
        if len(effect.paths) <= SYNC_ONE_BY_ONE_MAX:
            self._workers[STORE].sync(effect.job, effect.paths)
        else:
            self._workers[STORE].sync_filesystem(effect.job)

    def _checkpoint_write(self, effect: CheckpointWrite) -> None:
        self._workers[STORE].write_file(effect.job, effect.path, effect.data)

    def _link(self, effect: LinkFiles) -> None:
        self._workers[STORE].link(effect.job, effect.pairs)

    def _unlink(self, effect: Unlink) -> None:
        # A removed file takes room on the disk for as long as anybody has it open.
        self._workers[WAL].forget(_FORGET, effect.paths)
        self._workers[READ].forget(_FORGET, effect.paths)
        self._workers[STORE].unlink(effect.job, effect.paths)
