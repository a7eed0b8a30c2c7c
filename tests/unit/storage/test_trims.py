"""What a trim takes away and what it must leave: segments, files, terms.

Method: one log on a simulated disk beside a model (`machine.py`), which compares the log's view.
"""

from corelane.model.ids import Index, Offset, RecordKind, Term
from corelane.storage.group_log import GroupLog
from corelane.storage.retention import start_by_size, start_by_time
from tests.unit.storage.lives import Core

BATCH_BYTES = 3500 + 61


def trim(core: Core, log: GroupLog, start: int) -> None:
    core.machine.control(log, RecordKind.TRIM, start.to_bytes(8, "little"))
    core.machine.settle()


def files(core: Core, log: GroupLog) -> list[str]:
    """Return the log's files, as the disk has them now."""
    return [path for path in core.disk.files if path.startswith(log.descriptor.directory + "/")]


def filled(core: Core, wal_bytes: int) -> GroupLog:
    log = core.log()
    core.fill(log, wal_bytes)
    core.checkpoint()  # everything is in segments
    return log


def test_segments_below_the_start_go_with_the_next_checkpoint() -> None:
    core = Core()
    log = filled(core, 100_000)
    assert len(log.segments.items) > 3
    second, third = log.segments.items[1], log.segments.items[2]
    trim(core, log, third.base_offset + 1)
    assert log.segments.items[0] is third
    assert log.first_index == third.base_index
    assert second.paths[0] in files(core, log), "the last checkpoint may still name it"
    core.checkpoint()
    core.machine.settle()
    assert second.paths[0] not in files(core, log)
    core.restart()
    assert core.machine.store.groups[log.group].start_offset == third.base_offset + 1


def test_a_trim_of_everything_frees_the_last_segment_too() -> None:
    core = Core()
    log = filled(core, 60_000)
    trim(core, log, log.committed_offset)
    core.checkpoint()
    core.machine.settle()
    assert not [path for path in files(core, log) if path.endswith(".log")]
    core.machine.append(log, 100)
    core.machine.settle()
    core.restart()
    assert core.machine.store.groups[log.group].next_offset == log.next_offset


def test_what_is_not_flushed_yet_does_not_keep_the_files_below_it() -> None:
    core = Core()
    log = filled(core, 20_000)
    flushed = log.flushed_index
    core.fill(log, 30_000)  # several segments more, not written: there is no need yet
    assert log.flushed_index == flushed < log.committed_index
    trim(core, log, log.committed_offset)
    assert [segment.base_offset for segment in log.segments.items] == [log.start_offset]


def test_a_log_of_less_than_a_block_has_no_file_to_roll() -> None:
    core = Core()
    log = core.log()
    core.machine.append(log, 100)
    core.machine.settle()
    trim(core, log, log.committed_offset)
    core.checkpoint()
    core.machine.settle()
    assert files(core, log) == []
    assert len(log.segments.items) == 1


def test_terms_are_forgotten_with_their_segments_and_known_above() -> None:
    core = Core()
    log = core.log()
    for term in range(2, 12):
        core.machine.vote(log, term, 1)
        core.fill(log, 30_000)
    core.checkpoint()
    core.machine.settle()
    assert len(log.term_starts) == 10
    kept = log.segments.items[3]
    trim(core, log, kept.base_offset)
    assert 1 < len(log.term_starts) < 9
    assert log.term_starts[0][1] <= kept.base_index < log.term_starts[1][1]
    core.machine.check_log(log)
    core.checkpoint()
    core.restart()
    log = core.machine.store.groups[log.group]
    core.machine.check_log(log)
    assert log.epoch_end_offset(Term(2)) == (2, log.start_offset)
    assert log.epoch_end_offset(Term(11)) == (11, log.committed_offset)


def test_a_term_without_records_is_as_if_it_had_never_been() -> None:
    core = Core()
    log = core.log()
    for term, records in ((2, 1), (3, 0), (4, 0), (5, 1)):
        core.machine.vote(log, term, 1)
        core.machine.control(log, RecordKind.NEW_LEADER, b"")
        for _ in range(records):
            core.machine.append(log, 10)
        core.machine.settle()
    second = log.term_starts[-1][2]
    assert log.epoch_end_offset(Term(3)) == (2, second)
    assert log.epoch_end_offset(Term(4)) == (2, second)
    assert log.epoch_end_offset(Term(1)) == (1, 0)
    assert log.epoch_end_offset(Term(6)) == (-1, -1)


def test_size_leaves_at_least_what_was_asked_for_by_whole_segments() -> None:
    core = Core()
    log = filled(core, 100_000)
    sizes = [segment.log.size_bytes for segment in log.segments.items]
    total = sum(sizes)
    second = log.segments.items[1].base_offset
    third = log.segments.items[2].base_offset
    assert start_by_size(log, total) == 0
    assert start_by_size(log, total - sizes[0] + 1) == 0
    assert start_by_size(log, total - sizes[0]) == second
    assert start_by_size(log, total - sizes[0] - sizes[1]) == third
    assert start_by_size(log, sizes[-1] + 1) == log.segments.items[-2].base_offset
    assert start_by_size(log, 1) == log.segments.items[-1].base_offset
    assert start_by_size(log, 0) == log.committed_offset


def test_size_counts_what_is_in_no_segment_yet() -> None:
    core = Core()
    log = filled(core, 100_000)
    total = sum(segment.log.size_bytes for segment in log.segments.items)
    core.machine.append(log, 3500)
    assert start_by_size(log, total + BATCH_BYTES - log.segments.items[0].log.size_bytes) > 0
    assert start_by_size(log, total + BATCH_BYTES) == 0
    assert start_by_size(log, 0) < log.committed_offset, "the last batch is not committed"
    core.machine.settle()
    trim(core, log, log.committed_offset)
    assert start_by_size(log, 1) == log.start_offset


def test_age_takes_whole_segments_whose_newest_record_is_older() -> None:
    core = Core()
    log = filled(core, 100_000)
    first, second = log.segments.items[0], log.segments.items[1]
    assert start_by_time(log, first.max_timestamp) == 0
    assert start_by_time(log, first.max_timestamp + 1) == second.base_offset
    assert start_by_time(log, log.max_timestamp) < log.committed_offset
    assert start_by_time(log, log.max_timestamp + 1) == log.committed_offset
    core.machine.append(log, 10)
    later = log.entry(Index(log.last_index)).max_timestamp + 1
    assert start_by_time(log, later) == log.segments.items[-1].base_offset, "it is uncommitted"


def test_records_without_a_time_do_not_age() -> None:
    core = Core()
    log = core.log()
    core.machine.stamp = -1
    core.machine.rng.seed(1)
    while log.last_index < 4:
        core.machine.stamp = -2
        core.machine.append(log, 10)
    core.machine.settle()
    assert log.max_timestamp < 0
    assert start_by_time(log, 2**62) == Offset(0)
