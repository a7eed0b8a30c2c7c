"""What recovery once got wrong, or must not get wrong: one story each.

Method: a core on a simulated disk beside a model (`machine.py`); `restart` compares everything.
"""

from contextlib import suppress

from corelane.model.ids import Offset, RecordKind
from corelane.storage.checkpointing import Phase
from corelane.storage.effects import SegmentWrite
from corelane.storage.log_reads import ColdRead
from corelane.storage.reading import ColdResult
from tests.simulation.sim_disk import PowerCutError, Queue
from tests.unit.storage.lives import Core
from tests.unit.storage.machine import KIB


def test_an_empty_directory_recovers_to_an_empty_store() -> None:
    core = Core()
    assert core.machine.store.groups == {}
    core.restart()
    core.restart()
    assert core.machine.store.wal.next_lsn == 1


def test_what_a_killed_process_left_readable_is_synced_before_it_counts() -> None:
    """Invariant R5."""
    core = Core()
    log = core.log()
    core.machine.settle()
    core.machine.append(log, 100)
    for effect in core.machine.store.turn_effects():
        core.disk.submit(effect, core.machine.arena)
    write = core.disk.queues[Queue.WAL][0]
    core.disk._perform_partly(write)  # killed between the write and its sync
    core.restart(power=False)
    assert core.machine.store.groups[log.group].last_index == 1
    for seed in range(20):
        core.disk.rng.seed(seed)
        core.restart(power=True)
        assert core.machine.store.groups[log.group].last_index == 1


def test_a_truncation_below_and_above_the_flushed_index_is_replayed() -> None:
    core = Core()
    pin, log = core.log(), core.log()
    machine = core.machine
    machine.append(pin, 10)  # never committed: keeps the WAL from here on
    for _ in range(6):
        machine.append(log, 10)
    machine.turn(everything=True)
    machine.commit(log, 4)
    machine.truncate(log, 5)
    machine.vote(log, 2, 1)
    machine.append(log, 20)
    machine.append(log, 20)
    while machine.durable[log.group] < 6:
        machine.turn(everything=True)
    machine.commit(log, 5)
    checkpointing = machine.store.checkpointing
    checkpointing.wanted = True
    while not checkpointing.count:
        machine.turn(everything=True)
    assert log.flushed_index == 5
    core.restart()


def test_lsns_never_go_back_when_only_stale_files_hold_records() -> None:
    core = Core()
    log = core.log()
    core.fill(log, 700 * KIB)  # several files are recycled
    for _ in range(4):
        before = core.machine.store.wal.next_lsn
        core.machine.stop()
        core.disk.crash()
        core.start().boot()
        assert core.machine.store.wal.next_lsn >= before
    log = core.machine.store.groups[log.group]
    core.machine.append(log, 50)
    core.machine.settle()
    core.restart()


def test_no_more_wal_files_are_made_than_there_may_be() -> None:
    """One that is made anew is written twice: with zeros, then with records."""
    core = Core()
    log = core.log()
    core.fill(log, 4000 * KIB)
    store = core.machine.store
    assert store.checkpointing.count > 10
    assert store.file_number <= store.settings.wal_files_max + 1  # the first one is smaller


def test_a_dropped_groups_files_are_not_synced() -> None:
    core = Core()
    gone, log = core.log(), core.log()
    core.fill(gone, 12 * KIB)
    core.checkpoint()
    core.fill(gone, 12 * KIB)
    gone.want_flush()
    core.machine.settle()
    core.machine.drop(gone)
    core.machine.settle()
    core.fill(log, 8 * KIB)
    core.checkpoint()
    assert not [path for path in core.disk.files if gone.descriptor.directory in path]
    core.restart()


def test_files_trimmed_while_a_checkpoint_is_taken_stay_until_the_next_one() -> None:
    core = Core()
    log = core.log()
    core.fill(log, 80 * KIB)
    core.checkpoint()
    machine, checkpointing = core.machine, core.machine.store.checkpointing
    first = log.segments.items[0].paths
    while checkpointing.phase not in {Phase.SYNCING, Phase.WRITING}:
        checkpointing.wanted = True
        machine.turn()
    start = log.segments.items[1].base_offset
    machine.control(log, RecordKind.TRIM, start.to_bytes(8, "little"))
    machine.settle()
    assert set(first) <= set(core.disk.files), "its rows are in the newest checkpoint"
    core.checkpoint()
    core.machine.settle()
    assert not set(first) & set(core.disk.files)
    core.restart()


def test_a_checkpoint_tells_of_nothing_that_the_wal_may_lose() -> None:
    """Invariant C5: a drop that is in flight when its group has no row any more."""
    for step in range(30):
        core = Core(seed=step)
        log, gone = core.log(), core.log()
        core.fill(log, 8 * KIB)
        core.machine.drop(gone)
        core.machine.store.checkpointing.wanted = True
        core.disk.steps_left = step
        with suppress(PowerCutError):
            for _ in range(100):
                core.machine.turn()
        core.restart()
        core.machine.create()
        core.machine.settle()
        core.restart()


def test_an_entry_whose_row_is_on_disk_is_read_from_the_remainder() -> None:
    core = Core()
    log = core.log()
    machine = core.machine
    for _ in range(60):
        machine.control(log, RecordKind.COMMAND, b"x")
    machine.append(log, 300)
    second = log.next_offset
    machine.append(log, 300)
    for _ in range(80):  # more than a block of rows
        machine.control(log, RecordKind.COMMAND, b"x")
    machine.settle()
    log.want_flush()
    machine.settle()
    machine.store.chunks.evict(0)
    log.tail_offset = Offset(log.next_offset)
    segment = log.segments.items[0]
    assert segment.rows_on_disk > 62
    assert segment.log.frontier == 0
    found = log.read(second, 1000, log.committed_offset, at_least_one=True)
    assert isinstance(found, ColdRead)
    results: list[ColdResult] = []
    machine.store.reading.read_cold(log, found, results.append)
    machine.settle(lambda: bool(results))
    stream, _ = machine.groups[log.group].stream(second, log.committed_index)
    assert results[0].suffix == stream


def test_a_wal_write_never_leaves_its_file() -> None:
    """`SimDisk` asserts it; a chunk that ends at odd places made one do so."""
    core = Core()
    log = core.log()
    for number in range(400):
        while not core.machine.append(log, 900 + number * 37 % 3000):
            core.machine.settle()
        if number % 7 == 0:
            core.machine.turn(everything=True)
            core.machine.commit_all()
    core.machine.settle()
    core.restart()


def test_a_segment_that_was_rolled_after_the_checkpoint_is_written_again() -> None:
    """Invariant S4, also with another segment size than before."""
    core = Core()
    log = core.log()
    core.fill(log, 12 * KIB)
    core.checkpoint()
    core.fill(log, 70 * KIB)
    while log.flushed_index < log.committed_index:
        log.want_flush()
        core.machine.settle()
    rolled = len(log.segments.items)
    core.restart(power=False)
    log = core.machine.store.groups[log.group]
    assert len(log.segments.items) < rolled
    log.segment_bytes = 100 * KIB
    core.checkpoint()
    core.machine.read_everything()
    core.restart()
    core.machine.read_everything()


def test_a_write_cut_short_by_a_full_disk_is_made_again() -> None:
    core = Core()
    log = core.log()
    core.fill(log, 20 * KIB)
    core.disk.fail(SegmentWrite, 28, times=3, partly=True)
    log.want_flush()
    core.machine.settle()
    assert log.flushed_index == log.committed_index
    core.restart()
    core.machine.read_everything()


def test_entries_whose_cut_predecessors_the_checkpoint_left_behind_are_no_gap() -> None:
    core = Core()
    log, pin = core.log(), core.log()
    machine = core.machine
    machine.append(log, 10)
    machine.settle()
    machine.append(log, 10)
    machine.append(pin, 10)  # never committed: the checkpoint needs the WAL from here on
    machine.append(log, 10)
    machine.truncate(log, 2)
    checkpointing = machine.store.checkpointing
    checkpointing.wanted = True
    while not checkpointing.count:
        machine.turn(everything=True)
    assert log.flushed_index <= 1
    core.restart()
    core.machine.append(core.machine.store.groups[log.group], 10)
    core.machine.settle()
    core.restart()


def test_a_record_of_an_older_generation_is_not_the_next_one() -> None:
    """R1: a recycled file keeps its old bytes, and lsns that were cut are given out again."""
    core = Core()
    log = core.log()
    core.machine.append(log, 10)
    core.machine.settle()
    wal = core.machine.store.wal
    chunk = core.machine.arena.chunk_new(4096)
    core.machine.arena.put_record(
        chunk, 0, RecordKind.COMMAND, wal.generation - 1, 1, wal.next_lsn, wal.durable_lsn,
        log.group, 2, log.next_offset, 0, 0,
    )  # fmt: skip
    end = core.machine.arena.pad(chunk, 64)
    old = bytes(core.machine.arena.view(chunk, 0, end))
    path, position = wal.file.path, wal._file_position
    core.disk.overwrite(path, position, old)
    core.restart()
    assert core.machine.store.groups[log.group].last_index == 1
