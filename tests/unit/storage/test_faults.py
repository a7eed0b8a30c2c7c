"""A disk that fails, is full, or an arena that is: the core stops, waits or refuses, as promised.

Method: one fault of `SimDisk` at a time on a core beside its model; afterwards everything that was
promised must be there, now and after a crash.
"""

import errno

import pytest

from corelane.model.ids import Offset, RecordKind
from corelane.storage.effects import (
    CheckpointWrite,
    Read,
    SearchRead,
    SegmentWrite,
    Sync,
    Unlink,
    WalPrepare,
    WalWrite,
)
from corelane.storage.log_reads import ColdRead
from corelane.storage.news import StorageFailureError
from corelane.storage.reading import ColdResult
from tests.unit.storage.lives import Core
from tests.unit.storage.machine import KIB, SMALL

FATAL = (WalWrite, WalPrepare, SegmentWrite, Sync, CheckpointWrite)
SPACE = (WalPrepare, SegmentWrite, Sync, CheckpointWrite)


def busy_core(seed: int = 0, kind: type = WalWrite) -> Core:
    """Return a core in the middle of its life; one that has its WAL files to make, if need be."""
    core = Core(seed=seed)
    logs = core.log(), core.log()
    for log in logs if kind is not WalPrepare else ():
        core.fill(log, 60 * KIB)
    return core


def work(core: Core, rounds: int) -> None:
    """Append to every log, and commit what is durable."""
    for _ in range(rounds):
        for log in list(core.machine.store.groups.values()):
            core.machine.append(log, 3000)
        for _ in range(3):
            core.machine.turn(everything=True)
        core.machine.commit_all()


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("kind", FATAL, ids=lambda kind: kind.__name__)
def test_an_io_error_on_a_write_ends_the_core_and_loses_nothing(
    kind: type, *, partly: bool
) -> None:
    for skip in range(3):
        core = busy_core(skip, kind)
        core.disk.fail(kind, errno.EIO, skip=skip, partly=partly)
        with pytest.raises(StorageFailureError, match="EIO"):
            work(core, 400)
        core.restart(power=skip % 2 == 0)
        work(core, 20)
        core.machine.settle()
        core.restart()
        core.machine.read_everything()


def test_a_wal_write_that_finds_no_space_ends_the_core() -> None:
    """Its file is preallocated, so nobody knows what that means."""
    core = busy_core()
    core.disk.fail(WalWrite, errno.ENOSPC)
    with pytest.raises(StorageFailureError, match="ENOSPC"):
        work(core, 10)
    core.restart()


@pytest.mark.parametrize("kind", SPACE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("partly", [False, True])
def test_a_full_disk_is_waited_for(kind: type, *, partly: bool) -> None:
    core = busy_core(kind=kind)
    core.disk.fail(kind, errno.ENOSPC, times=5, partly=partly)
    was_full = False
    for _ in range(400):
        work(core, 2)
        was_full |= core.machine.store.is_full
    assert was_full
    core.machine.settle()
    core.checkpoint()
    core.machine.settle()
    assert not core.machine.store.is_full
    core.machine.read_everything()
    core.restart()
    core.machine.read_everything()


def test_a_disk_that_is_really_full_serves_reads_and_recovers_when_space_is_back() -> None:
    core = busy_core()
    core.disk.room_bytes = core.disk.bytes_used + 20 * KIB
    work(core, 300)
    store = core.machine.store
    assert store.is_full
    log = next(iter(store.groups.values()))
    before = log.last_index
    core.machine.append(log, 30_000)
    core.machine.append(log, 30_000)
    assert log.last_index == before, "the WAL has no room: produce is refused"
    core.machine.read(log, log.start_offset, 1000)
    core.disk.room_bytes = 1 << 62
    core.machine.settle()
    work(core, 20)
    core.machine.settle()
    assert not store.is_full
    core.restart()
    core.machine.read_everything()


def test_a_crash_on_a_full_disk_loses_nothing() -> None:
    for seed in range(6):
        core = busy_core(seed)
        core.disk.room_bytes = core.disk.bytes_used + 10 * KIB
        work(core, 100)
        core.disk.room_bytes = 1 << 62  # recovery needs a fresh file, and says so otherwise
        core.restart()
        core.machine.read_everything()


def test_recovery_on_a_full_disk_raises_and_changes_nothing_that_counts() -> None:
    core = busy_core()
    core.disk.crash()
    core.disk.room_bytes = core.disk.bytes_used
    with pytest.raises(OSError, match="no space"):
        core.start()
    core.disk.room_bytes = 1 << 62
    core.restart()


@pytest.mark.parametrize("kind", [Read, SearchRead], ids=lambda kind: kind.__name__)
def test_a_failed_read_is_its_readers_news_alone(kind: type) -> None:
    core = busy_core()
    core.checkpoint()
    log = next(iter(core.machine.store.groups.values()))
    core.machine.store.chunks.evict(0)
    results: list[ColdResult] = []
    found = log.read(log.start_offset, 5000, log.committed_offset, at_least_one=True)
    assert isinstance(found, ColdRead)
    if kind is Read:
        found = ColdRead(found.segment, found.column, found.key, 0, found.bytes_max)
    core.disk.fail(kind, errno.EIO)
    core.machine.store.reading.read_cold(log, found, results.append)
    core.machine.settle(lambda: bool(results))
    assert results[0].error == errno.EIO
    core.machine.arena.release(results[0].chunk)
    work(core, 10)
    core.machine.settle()
    core.machine.check_arena()
    core.machine.read_everything()


def test_a_file_that_cannot_be_removed_is_an_orphan_until_the_next_start() -> None:
    core = busy_core()
    log = next(iter(core.machine.store.groups.values()))
    core.disk.fail(Unlink, errno.EIO, times=3)
    core.machine.drop(log)
    core.machine.settle()
    assert [path for path in core.disk.files if log.descriptor.directory in path]
    core.restart()
    assert not [path for path in core.disk.files if log.descriptor.directory in path]


def test_a_small_arena_evicts_refuses_and_corrupts_nothing() -> None:
    core = Core(SMALL)
    arena_bytes = core.machine.profile.recovery.arena_bytes
    logs = [core.log() for _ in range(3)]
    core.machine.settle()
    taken = [core.machine.arena.chunk_new(32 * KIB) for _ in range(arena_bytes // (32 * KIB) - 12)]
    refused = 0
    for number in range(600):
        refused += not core.machine.append(logs[number % 3], 20_000 if number % 5 else 100)
        core.machine.turn(everything=True)
        core.machine.commit_all()
        if number % 50 == 0:
            core.machine.read(logs[0], logs[0].start_offset, 10) if logs[0].committed_offset else 0
    assert refused
    assert logs[0].tail_first > 1, "evicted"
    for chunk in taken:
        core.machine.arena.release(chunk)
    core.machine.settle()
    core.machine.read_everything()
    core.machine.check_arena()
    core.restart()
    core.machine.read_everything()


def test_produce_is_held_before_memory_or_wal_run_out() -> None:
    core = Core()
    log = core.log()
    store = core.machine.store
    assert store.must_hold, "the small files have less room than the reserve"
    assert not store.has_room(1)
    assert core.machine.control(log, RecordKind.COMMAND, b"x"), "notes go on"
    core.machine.settle()
    assert log.committed_offset == Offset(0)


def test_a_flush_without_memory_for_all_its_writes_gives_back_what_it_took() -> None:
    core = Core()
    log = core.log()
    for _ in range(300):  # more than a block of each stream
        core.machine.control(log, RecordKind.COMMAND, bytes(40))
    core.machine.append(log, 9000)
    core.machine.settle()
    arena = core.machine.arena
    chunk_bytes = SMALL.chunk_bytes
    taken = []
    while arena.bytes_in_use + 2 * chunk_bytes <= SMALL.recovery.arena_bytes:
        taken.append(arena.chunk_new(chunk_bytes))
    log.want_flush()
    for _ in range(10):
        core.machine.turn(everything=True)
    assert log.flushed_index == 0
    for chunk in taken:
        arena.release(chunk)
    core.machine.settle()
    assert log.flushed_index == log.committed_index
    core.machine.check_arena()
    core.restart()
