"""The shard's disk effects on real threads and files: each does what its docstring promises."""

import errno
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corelane.model.ids import ChunkId, JobId, Lsn, Position
from corelane.runtime import disk as disks
from corelane.runtime.disk import READ, STORE, WAL, NativeDisk
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
from corelane.storage.layout import ROW, ROWS_HEADER
from corelane_native import Arena

BLOCK = 4096
LAST = 98


class DiedError(Exception):
    """The core would have ended here."""


class Bench:
    """A disk whose answers are waited for one by one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events = 1
        self.arena = Arena(16 << 20)
        self.disk = NativeDisk(directory, self.arena, self.die)

    @staticmethod
    def die(reason: str) -> None:
        raise DiedError(reason)

    def perform(self, effect: DiskEffect) -> DiskDone:
        """Perform one effect and wait for its answer."""
        performer: Callable[[DiskEffect], None] = self.disk.performers[type(effect)]
        performer(effect)
        done = self.disk.end_turn(self.events)
        if done is not None:
            return done
        poll = select.poll()
        for worker in self.disk._workers:
            poll.register(worker.eventfd, select.POLLIN)
        while True:
            assert poll.poll(5000), "no answer"
            for token in (WAL, STORE, READ):
                for done in self.disk.reap(token):
                    assert done.job == effect.job
                    return done

    def rest(self) -> None:
        """Wait until the log's thread has nothing to do: preparing leaves it a file to forget."""
        worker = self.disk._workers[WAL]
        worker.forget(LAST, ["none"])
        while LAST not in [job for job, _, _ in worker.reap()]:
            time.sleep(0.001)

    def chunk(self, data: bytes) -> ChunkId:
        chunk = self.arena.chunk_new(len(data))
        self.arena.write(chunk, 0, data)
        return ChunkId(chunk)

    def content(self, chunk: ChunkId, size: int) -> bytes:
        return bytes(self.arena.view(chunk, 0, size))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.disk.close()


def test_every_disk_effect_has_a_performer(bench: Bench) -> None:
    assert set(bench.disk.performers) == set(DiskEffect.__args__)


def test_a_wal_file_is_prepared_written_in_parts_and_read_back(bench: Bench) -> None:
    path = "wal/00000001"
    assert bench.perform(WalPrepare(JobId(1), path, 16 * BLOCK)) == DiskDone(JobId(1), 0)
    file = bench.directory / path
    assert file.read_bytes() == bytes(16 * BLOCK)
    one, two = bench.chunk(b"1" * BLOCK), bench.chunk(b"0" * BLOCK + b"2" * 2 * BLOCK)
    parts = [(one, Position(0), BLOCK), (two, Position(BLOCK), 2 * BLOCK)]
    write = WalWrite(JobId(2), path, Position(BLOCK), parts, Lsn(1))
    assert bench.perform(write) == DiskDone(JobId(2), 0)
    assert file.read_bytes()[: 5 * BLOCK] == (
        bytes(BLOCK) + b"1" * BLOCK + b"2" * 2 * BLOCK + bytes(BLOCK)
    )
    assert sum(bench.disk.wal_write_us.counts) == 1


def test_a_failed_wal_write_ends_the_core(bench: Bench) -> None:
    chunk = bench.chunk(b"x" * BLOCK)
    write = WalWrite(JobId(1), "wal/missing", Position(0), [(chunk, Position(0), BLOCK)], Lsn(1))
    with pytest.raises(DiedError, match="a write to the write-ahead log failed: No such file"):
        bench.perform(write)


def test_a_segment_is_made_appended_sealed_and_synced(bench: Bench) -> None:
    path = "partitions/a-0.12345678/00000000000000000000.log"
    chunk = bench.chunk(b"a" * BLOCK + b"b" * BLOCK)
    first = SegmentWrite(JobId(1), path, Position(0), chunk, Position(0), BLOCK, -1)
    sealing = SegmentWrite(
        JobId(2), path, Position(BLOCK), chunk, Position(BLOCK), BLOCK, BLOCK + 10
    )
    assert bench.perform(first).error == 0
    assert bench.perform(sealing).error == 0
    assert bench.perform(Sync(JobId(3), [path])).error == 0
    assert (bench.directory / path).read_bytes() == b"a" * BLOCK + b"b" * 10


def test_a_segment_can_be_cut_without_being_written(bench: Bench) -> None:
    chunk = bench.chunk(b"a" * BLOCK)
    bench.perform(SegmentWrite(JobId(1), "s", Position(0), chunk, Position(0), BLOCK, -1))
    cut = SegmentWrite(JobId(2), "s", Position(0), chunk, Position(0), 0, 7)
    assert bench.perform(cut).error == 0
    assert (bench.directory / "s").read_bytes() == b"aaaaaaa"


def test_many_files_are_synced_as_one_file_system(bench: Bench) -> None:
    paths = [f"partitions/p{number}" for number in range(disks.SYNC_ONE_BY_ONE_MAX + 1)]
    chunk = bench.chunk(b"a" * BLOCK)
    for number, path in enumerate(paths, 1):
        write = SegmentWrite(JobId(number), path, Position(0), chunk, Position(0), BLOCK, -1)
        assert bench.perform(write).error == 0
    assert bench.perform(Sync(JobId(99), paths)).error == 0


def test_a_read_is_exact_or_an_error(bench: Bench) -> None:
    (bench.directory / "s").write_bytes(b"0123456789")
    chunk = bench.chunk(b"." * BLOCK)
    assert bench.perform(Read(JobId(1), "s", Position(2), 5, chunk)).error == 0
    assert bench.content(chunk, 6) == b"23456."
    assert bench.perform(Read(JobId(2), "s", Position(8), 5, chunk)).error == errno.EIO
    assert bench.perform(Read(JobId(3), "t", Position(0), 1, chunk)).error == errno.ENOENT


def test_a_search_finds_the_entry_and_reads_from_its_start(bench: Bench) -> None:
    rows = b"".join(ROW.pack(10 * (i + 1), 100 * (i + 1), 1000 + i, 1, 1) for i in range(300))
    (bench.directory / "e").write_bytes(bytes(ROWS_HEADER.size) + rows)
    (bench.directory / "l").write_bytes(bytes(i // 100 % 251 for i in range(30_000)))
    chunk = bench.chunk(b"." * BLOCK)
    search = SearchRead(JobId(1), "e", 300, 0, 1234, "l", 30_000, 50, chunk)
    assert bench.perform(search) == DiskDone(JobId(1), 0, (123, 12_300, 50))
    assert bench.content(chunk, 50) == bytes([123]) * 50
    missing = SearchRead(JobId(2), "e", 300, 0, 3000, "l", 30_000, 50, chunk)
    assert bench.perform(missing) == DiskDone(JobId(2), 0, (300, 0, 0))


def test_a_checkpoint_slot_is_replaced(bench: Bench) -> None:
    assert bench.perform(CheckpointWrite(JobId(1), "checkpoint.0", b"long " * 2000)).error == 0
    assert bench.perform(CheckpointWrite(JobId(2), "checkpoint.0", b"short")).error == 0
    assert (bench.directory / "checkpoint.0").read_bytes() == b"short"


def test_files_and_then_their_directory_are_removed(bench: Bench) -> None:
    chunk = bench.chunk(b"a" * BLOCK)
    for number, path in enumerate(["d/one", "d/two"], 1):
        bench.perform(SegmentWrite(JobId(number), path, Position(0), chunk, Position(0), BLOCK, -1))
    bench.perform(Read(JobId(3), "d/one", Position(0), BLOCK, chunk))
    assert bench.perform(Unlink(JobId(4), ["d/one", "d/two", "d/absent", "d"])).error == 0
    assert not (bench.directory / "d").exists()
    deadline_s = time.monotonic() + 5
    while deleted_files(bench.directory):  # the reader lets go of them a moment later
        assert time.monotonic() < deadline_s, deleted_files(bench.directory)
        time.sleep(0.001)


def deleted_files(directory: Path) -> list[str]:
    """Return the files of a directory that are removed, and open here all the same."""
    names = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
    return [name for name in names if "(deleted)" in name and str(directory) in name]


def test_files_of_another_core_are_linked_and_stay_when_it_removes_them(bench: Bench) -> None:
    other = bench.directory / "core-01"
    other.mkdir()
    disk = NativeDisk(other, bench.arena, bench.die)
    chunk = bench.chunk(b"a" * BLOCK)
    bench.perform(SegmentWrite(JobId(1), "d/one", Position(0), chunk, Position(0), BLOCK, -1))
    bench.disk, first = disk, bench.disk
    assert bench.perform(LinkFiles(JobId(2), [("../d/one", "e/one")])).error == 0
    assert bench.perform(LinkFiles(JobId(3), [("../d/two", "e/two")])).error == errno.ENOENT
    bench.disk = first
    assert bench.perform(Unlink(JobId(4), ["d/one", "d"])).error == 0
    assert (other / "e/one").read_bytes() == b"a" * BLOCK
    disk.close()


def wal_write(bench: Bench, job: int, size: int = BLOCK) -> WalWrite:
    if job == 1:
        bench.perform(WalPrepare(JobId(99), "wal/1", 64 * BLOCK))
        bench.rest()
    parts = [(bench.chunk(b"x" * size), Position(0), size)]
    return WalWrite(JobId(job), "wal/1", Position(0), parts, Lsn(1))


def test_a_small_write_of_a_quiet_turn_is_made_at_once(bench: Bench) -> None:
    bench.disk.performers[WalWrite](wal_write(bench, 1))
    assert bench.disk.end_turn(1) == DiskDone(JobId(1), 0)
    assert bench.disk.end_turn(1) is None, "it is written once"


@pytest.mark.parametrize(
    ("events", "size"), [(disks.INLINE_EVENTS_MAX + 1, BLOCK), (1, disks.INLINE_BYTES_MAX + BLOCK)]
)
def test_other_writes_are_the_threads(bench: Bench, events: int, size: int) -> None:
    write = wal_write(bench, 1, size)
    bench.disk.performers[WalWrite](write)
    assert bench.disk.end_turn(events) is None
    bench.events = 1000
    assert bench.perform(Sync(JobId(1), ["wal/1"])).error == 0


def test_after_a_slow_write_the_next_ones_are_the_threads(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = wal_write(bench, 1)

    def inline(jobs: range) -> str:
        """Write so often; say which writes were made at once, and which by the thread."""
        made = ""
        for job in jobs:
            write = WalWrite(JobId(job), first.path, Position(0), first.parts, Lsn(1))
            bench.disk.performers[WalWrite](write)
            done = bench.disk.end_turn(1)
            made += "t" if done is None else "o"
            while done is None:
                done = next(iter(bench.disk.reap(WAL)), None)
        return made

    monkeypatch.setattr(disks, "INLINE_PAUSE_MAX", 8)
    monkeypatch.setattr(disks, "INLINE_US_MAX", -1)
    assert inline(range(1, 26)) == "ottttottttttttottttttttott"[:25], "twice as many, to a bound"
    monkeypatch.setattr(disks, "INLINE_US_MAX", 1 << 40)
    assert inline(range(30, 40)) == "ttttttt" + "ooo", "all are quick again"
    monkeypatch.setattr(disks, "INLINE_US_MAX", -1)
    assert inline(range(40, 46)) == "otttto", "and what was slow is forgotten"


def test_a_failed_inline_write_ends_the_core(bench: Bench) -> None:
    chunk = bench.chunk(b"x" * BLOCK)
    write = WalWrite(JobId(1), "wal/none", Position(0), [(chunk, Position(0), BLOCK)], Lsn(1))
    bench.disk.performers[WalWrite](write)
    with pytest.raises(DiedError, match="a write to the write-ahead log failed"):
        bench.disk.end_turn(1)
