"""The worker thread against real files: every job, its answer, and what is on the disk after."""

import errno
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from corelane_native import (
    READ_PARTIAL,
    WRITE_CREATE,
    WRITE_DIRECT,
    WRITE_DSYNC,
    Arena,
    Done,
    Worker,
    address_of,
)
from corelane_native._core import ffi, lib
from corelane_native.worker import DONE, JOB

KIB = 1024
DURABLE = WRITE_DIRECT | WRITE_DSYNC
ROW = struct.Struct("<qQqIB3x")


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker("test", str(tmp_path))
    yield made
    made.close()


def answers(worker: Worker, count: int) -> list[Done]:
    """Wait for *count* answers, as the loop does: by the eventfd."""
    found: list[Done] = []
    while len(found) < count:
        ready, _, _ = select.select([worker.eventfd], [], [], 10)
        assert ready, f"{len(found)} of {count} answers came"
        os.eventfd_read(worker.eventfd)
        found += worker.reap()
    assert len(found) == count
    return found


def answer(worker: Worker) -> Done:
    """Wait for one answer."""
    return answers(worker, 1)[0]


def rows_file(path: Path, offsets: list[int], positions: list[int], times: list[int]) -> None:
    """Write an .entries file: a header row and one row per entry."""
    rows = [ROW.pack(*words, 1, 1) for words in zip(offsets, positions, times, strict=True)]
    path.write_bytes(bytes(32) + b"".join(rows))


@pytest.mark.parametrize("flags", [0, WRITE_DSYNC, WRITE_DIRECT, DURABLE])
def test_a_write_puts_its_parts_in_order(worker: Worker, tmp_path: Path, flags: int) -> None:
    arena = Arena(1024 * KIB, 64 * KIB)
    first, second = arena.chunk_new(1), arena.chunk_new(1)
    arena.write(first, 0, b"a" * 8192)
    arena.write(second, 4096, b"b" * 4096)
    parts = [(arena.address(first), 8192), (arena.address(second) + 4096, 4096)]
    worker.write(7, "deep/er/file", 4096, parts, flags | WRITE_CREATE)
    assert answer(worker) == (7, 0, 12_288)
    assert (tmp_path / "deep/er/file").read_bytes() == bytes(4096) + b"a" * 8192 + b"b" * 4096


def test_a_write_of_many_parts(worker: Worker, tmp_path: Path) -> None:
    blocks = [bytes([at]) * (at + 1) for at in range(200)]
    parts = [(address_of(block), len(block)) for block in blocks]
    worker.write(1, "file", 0, parts, WRITE_CREATE)
    assert answer(worker) == (1, 0, sum(map(len, blocks)))
    assert (tmp_path / "file").read_bytes() == b"".join(blocks)


def test_a_write_can_cut_the_file_to_its_exact_size(worker: Worker, tmp_path: Path) -> None:
    arena = Arena(64 * KIB, 64 * KIB)
    chunk = arena.chunk_new(1)
    arena.write(chunk, 0, b"x" * 8192)
    parts = [(arena.address(chunk), 8192)]
    worker.write(1, "file", 0, parts, WRITE_DIRECT | WRITE_CREATE, truncate_to=5000)
    assert answer(worker) == (1, 0, 8192)
    assert (tmp_path / "file").read_bytes() == b"x" * 5000


def test_an_unaligned_direct_write_still_arrives(worker: Worker, tmp_path: Path) -> None:
    data = b"odd bytes at an odd address"
    worker.write(1, "file", 3, [(address_of(data) + 1, 9)], DURABLE | WRITE_CREATE)
    assert answer(worker) == (1, 0, 9)
    assert (tmp_path / "file").read_bytes() == bytes(3) + data[1:10]


def test_writing_an_absent_file_is_an_error_without_create(worker: Worker) -> None:
    worker.write(1, "absent", 0, [], 0)
    assert answer(worker)[:2] == (1, -errno.ENOENT)


def test_no_room_is_a_result(worker: Worker) -> None:
    data = b"x" * 4096
    for flags in (0, WRITE_DSYNC, DURABLE):
        worker.write(1, "/dev/full", 0, [(address_of(data), len(data))], flags)
        assert answer(worker)[:2] == (1, -errno.ENOSPC)


def test_a_read_fills_memory(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    memory = bytearray(6)
    worker.read(1, "file", 2, 6, address_of(memory))
    assert answer(worker) == (1, 0, 6)
    assert memory == b"234567"


def test_reading_past_the_end_is_an_error_unless_allowed(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    memory = bytearray(8)
    worker.read(1, "file", 7, 8, address_of(memory))
    worker.read(2, "file", 7, 8, address_of(memory), READ_PARTIAL)
    worker.read(3, "file", 100, 8, address_of(memory), READ_PARTIAL)
    worker.read(4, "absent", 0, 8, address_of(memory))
    assert [done[:2] for done in answers(worker, 4)] == [
        (1, -errno.EIO), (2, 0), (3, 0), (4, -errno.ENOENT),
    ]  # fmt: skip
    assert memory[:3] == b"789"


@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 129, 1000])
def test_a_search_finds_the_entry_and_reads_from_its_start(
    worker: Worker, tmp_path: Path, count: int
) -> None:
    offsets = [10 * (at + 1) for at in range(count)]
    positions = [7 * (at + 1) for at in range(count)]
    rows_file(tmp_path / "entries", offsets, positions, offsets)
    (tmp_path / "log").write_bytes(bytes(at % 251 for at in range(7 * count)))
    memory = bytearray(20)
    for key in {-1, 0, 9, 10, 11, 10 * count - 1, 10 * count, 10 * count + 1}:
        worker.search_read(
            1, "entries", count, 0, key, "log", 7 * count, 20, address_of(memory)
        )  # fmt: skip
        row = next((at for at, offset in enumerate(offsets) if offset > key), count)
        start = 7 * row if row < count else 0
        size = min(20, 7 * (count - row))
        assert answer(worker) == (1, 0, (row, start, size))
        assert memory[:size] == bytes(at % 251 for at in range(start, start + size))


def test_a_search_by_time_takes_the_first_not_before_it(worker: Worker, tmp_path: Path) -> None:
    rows_file(tmp_path / "entries", [1, 2, 3, 4], [5, 10, 15, 20], [100, 100, 300, 300])
    (tmp_path / "log").write_bytes(bytes(20))
    memory = bytearray(100)
    rows = []
    for key in (99, 100, 101, 300, 301):
        worker.search_read(key, "entries", 4, 2, key, "log", 20, 100, address_of(memory))
        rows.append(answer(worker)[2])
    assert rows == [(0, 0, 20), (0, 0, 20), (2, 10, 10), (2, 10, 10), (4, 0, 0)]


def test_a_search_in_files_that_are_too_short_is_an_error(worker: Worker, tmp_path: Path) -> None:
    rows_file(tmp_path / "entries", [1, 2], [5, 10], [1, 2])
    (tmp_path / "log").write_bytes(bytes(9))
    memory = bytearray(100)
    worker.search_read(1, "entries", 2, 0, 0, "log", 10, 100, address_of(memory))
    worker.search_read(2, "entries", 3, 0, 5, "log", 10, 100, address_of(memory))
    worker.search_read(3, "absent", 3, 0, 5, "log", 10, 100, address_of(memory))
    worker.search_read(4, "entries", 2, 0, 0, "absent", 10, 100, address_of(memory))
    results = [done[1] for done in answers(worker, 4)]
    assert results == [-errno.EIO, -errno.EIO, -errno.ENOENT, -errno.ENOENT]


def test_syncing_files_and_the_file_system(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    worker.sync(1, ["a/one", "two", str(tmp_path / "two")])
    worker.sync_filesystem(2)
    worker.sync(3, ["a/one", "absent"])
    assert [done[1] for done in answers(worker, 3)] == [0, 0, -errno.ENOENT]


@pytest.mark.parametrize("size", [0, 1, 4096, 256 * KIB, 300 * KIB + 17])
def test_a_zero_filled_file_appears_complete(worker: Worker, tmp_path: Path, size: int) -> None:
    (tmp_path / "wal.new").write_bytes(b"left by a crash" * 50_000)
    worker.zerofill(1, "wal", size)
    assert answer(worker) == (1, 0, 0)
    assert (tmp_path / "wal").read_bytes() == bytes(size)
    assert [path.name for path in tmp_path.iterdir()] == ["wal"]


def test_zero_filling_what_cannot_be_leaves_nothing(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "wal").mkdir()
    worker.zerofill(1, "wal", 4096)
    assert answer(worker)[:2] == (1, -errno.EISDIR)
    assert [path.name for path in tmp_path.iterdir()] == ["wal"]


def test_a_small_file_is_replaced_in_place(worker: Worker, tmp_path: Path) -> None:
    for data in (b"a long first content" * 1000, b"short", b""):
        worker.write_file(1, "checkpoint.0", bytes(bytearray(data)))
        assert answer(worker) == (1, 0, len(data))
        assert (tmp_path / "checkpoint.0").read_bytes() == data


def test_linked_files_are_one_file_under_two_names(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    pairs = [("one", "deep/er/one"), ("two", "deep/er/two")]
    worker.link(1, pairs)
    worker.link(2, pairs)  # again: whoever asked first died
    assert answers(worker, 2) == [(1, 0, 0), (2, 0, 0)]
    for before, after in pairs:
        assert (tmp_path / after).samefile(tmp_path / before)
    worker.unlink(3, ["one"])
    assert answer(worker)[1] == 0
    assert (tmp_path / "deep/er/one").read_bytes() == b"1"


def test_a_link_takes_the_name_from_another_file(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"good")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/name").write_bytes(b"left over")
    worker.write(1, "d/name", 0, [])  # the worker has it open
    worker.link(2, [("good", "d/name")])
    worker.write(3, "d/name", 0, [(address_of(b"GOOD"), 4)])
    assert [done[1] for done in answers(worker, 3)] == [0, 0, 0]
    assert (tmp_path / "good").read_bytes() == b"GOOD"


def test_what_cannot_be_linked_is_an_error(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "d/sub").mkdir(parents=True)
    worker.link(1, [("one", "d/one"), ("absent", "d/absent"), ("one", "d/three")])
    worker.link(2, [("one", "d/sub")])
    worker.link(3, [("one", "one/file")])
    errors = [-done[1] for done in answers(worker, 3)]
    assert errors == [errno.ENOENT, errno.EISDIR, errno.ENOTDIR]
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["one", "sub"]
    with pytest.raises(AssertionError):
        worker._on_paths(4, lib.CL_JOB_LINK, ["one", "two", "three"])


def test_files_of_another_file_system_cannot_be_linked(worker: Worker, tmp_path: Path) -> None:
    """As between two cores' directories on different disks."""
    worker.link(1, [("/proc/self/stat", "stat")])
    assert answer(worker)[1] == -errno.EXDEV
    assert not (tmp_path / "stat").exists()


def test_unlink_takes_files_then_their_directory(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_bytes(b"")
    (tmp_path / "d/b").write_bytes(b"")
    worker.unlink(1, ["d/a", "d/absent", "d"])
    assert answer(worker)[:2] == (1, 0)
    assert (tmp_path / "d/b").exists()
    worker.unlink(2, ["d/b", "d"])
    worker.unlink(3, ["d/b", "d"])
    assert [done[1] for done in answers(worker, 2)] == [0, 0]
    assert not (tmp_path / "d").exists()


def test_rename_directories_and_truncate(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"12345")
    worker.rename(1, "old", "new")
    worker.make_directory(2, "p/q/r")
    worker.make_directory(3, "p/q/r")
    worker.truncate(4, "new", 3)
    worker.rename(5, "absent", "x")
    worker.make_directory(6, "new/x")
    results = [done[1] for done in answers(worker, 6)]
    assert results == [0, 0, 0, 0, -errno.ENOENT, -errno.ENOTDIR]
    assert (tmp_path / "new").read_bytes() == b"123"
    assert (tmp_path / "p/q/r").is_dir()


def test_a_file_replaced_behind_its_back_is_opened_anew(worker: Worker, tmp_path: Path) -> None:
    path, memory = tmp_path / "file", bytearray(3)
    for content in (b"one", b"two"):
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        worker.read(1, "file", 0, 3, address_of(memory))
        assert answer(worker)[1] == 0
        assert bytes(memory) == content
        (tmp_path / "other").write_bytes(b"xyz")
        (tmp_path / "other").rename(path)
        worker.read(1, "file", 0, 3, address_of(memory))
        assert answer(worker)[1] == 0
        assert bytes(memory) == b"xyz"


def descriptors(text: str) -> int:
    """Count this process's descriptors whose link contains *text*."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += text in str(link.readlink())
        except FileNotFoundError:
            continue
    return count


def test_open_files_are_bounded_and_can_be_forgotten(worker: Worker, tmp_path: Path) -> None:
    memory = bytearray(1)
    for at in range(300):
        (tmp_path / f"cached-{at}").write_bytes(b"x")
        worker.read(at, f"cached-{at}", 0, 1, address_of(memory))
    assert all(result == 0 for _, result, _ in answers(worker, 300))
    assert descriptors("cached-") == 128
    worker.forget(1, [f"cached-{at}" for at in range(300)])
    assert answer(worker) == (1, 0, 0)
    assert descriptors("cached-") == 0


def test_more_jobs_than_the_queue_takes_are_done_in_order(worker: Worker, tmp_path: Path) -> None:
    data = bytes(range(256))
    for job in range(1000):
        at = job % 256
        worker.write(job, "file", 0, [(address_of(data) + at, 1)], WRITE_CREATE)
    assert [done[0] for done in answers(worker, 1000)] == list(range(1000))
    assert (tmp_path / "file").read_bytes() == bytes([999 % 256])


def test_closing_finishes_what_was_submitted(tmp_path: Path) -> None:
    worker = Worker("test", str(tmp_path))
    data = b"x"
    for job in range(600):
        worker.write(job, f"file-{job}", 0, [(address_of(data), 1)], WRITE_CREATE)
    worker.close()
    worker.close()
    assert len(list(tmp_path.iterdir())) == 600
    with pytest.raises(AssertionError):
        worker.sync_filesystem(1)


def test_an_idle_worker_lets_its_caller_write(worker: Worker, tmp_path: Path) -> None:
    data = b"inline"
    parts = [(address_of(data), len(data))]
    assert worker.write_inline("file", 0, parts, WRITE_CREATE | WRITE_DSYNC) == 0
    assert (tmp_path / "file").read_bytes() == data
    assert worker.write_inline("absent", 0, parts) == -errno.ENOENT
    assert worker.reap() == []
    worker.zerofill(1, "wal", 8192 * KIB)
    assert worker.write_inline("file", 0, parts) is None
    assert answer(worker) == (1, 0, 0)
    assert worker.write_inline("file", 0, parts) == 0


def test_a_path_too_long_is_the_callers_bug(worker: Worker) -> None:
    for path in ("x" * 512, "", "nul\0byte"):
        with pytest.raises(AssertionError):
            worker.make_directory(1, path)
    worker.make_directory(1, "x" * 300)
    assert answer(worker)[1] == -errno.ENAMETOOLONG  # the file system's limit


def test_a_worker_needs_its_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Worker("test", str(tmp_path / "absent"))


def test_the_thread_is_named_and_may_run_everywhere(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        worker = Worker("a-name-that-is-too-long", str(tmp_path))
        bound = Worker("bound", str(tmp_path), bound=True)
    finally:
        os.sched_setaffinity(0, before)
    threads = {
        (task / "comm").read_text().strip(): int(task.name)
        for task in Path("/proc/self/task").iterdir()
    }
    assert os.sched_getaffinity(threads["a-name-that-is-"]) >= before
    assert os.sched_getaffinity(threads["bound"]) == {min(before)}
    worker.close()
    bound.close()


def test_the_layouts_are_those_of_c() -> None:
    assert JOB.size == ffi.sizeof("cl_job")
    assert DONE.size == ffi.sizeof("cl_done")
