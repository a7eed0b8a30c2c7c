"""Groups that move between two cores: stories, each of one rule of FORMAT.md (M1-M5)."""

import errno
from dataclasses import replace

import pytest

from corelane.model.ids import CoreId, GroupId, Index, MemberId, RecordKind, TopicId
from corelane.storage.checkpointing import Phase
from corelane.storage.dump import verify, wal_files
from corelane.storage.effects import LinkFiles, SegmentWrite, Sync, Unlink, WalPrepare, WalWrite
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import (
    Descriptor,
    LayoutError,
    decode_descriptor,
    decode_revision,
    encode_descriptor,
)
from corelane.storage.news import StorageFailureError
from corelane.storage.parcel import Parcel
from corelane.storage.wal_scan import CorruptWalError
from tests.simulation.sim_disk import Queue
from tests.unit.storage.lives import Core
from tests.unit.storage.machine import KIB, ROOMY, SMALL, Profile
from tests.unit.storage.pair import Pair


def filled(pair: Pair, core: int, batches: int, body_bytes: int = 3000) -> GroupLog:
    """Return a new group of that core with committed batches."""
    machine = pair.machines[core]
    pair.settle(lambda: bool(machine.store.wal.spares))
    log = machine.create()
    machine.vote(log, 1, 1)
    machine.control(log, RecordKind.NEW_LEADER, b"")
    fill(pair, core, log, batches, body_bytes)
    return log


def fill(pair: Pair, core: int, log: GroupLog, batches: int, body_bytes: int = 3000) -> None:
    machine = pair.machines[core]
    for _ in range(batches):
        while not machine.append(log, body_bytes):
            pair.turn(everything=True)
        pair.turn(everything=True)
    pair.settle(lambda: log.committed_index == log.last_index)


def packed(pair: Pair, core: int, log: GroupLog) -> Parcel:
    """Return the parcel of a group."""
    parcels: list[Parcel | None] = []
    pair.machines[core].export(log, parcels.append)
    pair.machines[core].settle(lambda: bool(parcels))
    parcel = parcels[0]
    assert parcel is not None
    return parcel


def started(profile: Profile = SMALL) -> Pair:
    pair = Pair(profile)
    pair.start()
    filled(pair, 0, 1)  # group 0 is the controller's, which stays
    return pair


def test_a_group_goes_on_where_it_moved_to() -> None:
    pair = started()
    log = filled(pair, 0, 20)
    group = log.group
    pair.move(log, 0)
    assert group not in pair.machines[0].store.groups
    there = pair.machines[1].store.groups[group]
    assert there.descriptor.revision == 2
    assert there.last_index == 21
    fill(pair, 1, there, 10)
    pair.check()
    pair.power_cut()
    pair.restart([0, 1])
    pair.check()
    assert pair.machines[1].store.groups[group].last_index == 31


def test_the_files_of_the_target_stay_when_the_source_removes_its_names() -> None:
    pair = started()
    log = filled(pair, 0, 20)
    pair.move(log, 0)
    pair.machines[0].settle()
    assert not [path for path in pair.disks[0].files if log.descriptor.directory in path]
    there = pair.machines[1].store.groups[log.group]
    paths = [path for segment in there.segments.items for path in segment.paths]
    assert len(paths) > 3
    assert set(paths) <= set(pair.disks[1].files)
    assert all(segment.is_sealed for segment in there.segments.items)
    pair.check()


def test_nothing_is_removed_before_the_other_core_is_known_to_have_it() -> None:
    """M2: the MOVED record is durable first."""
    pair = started()
    log = filled(pair, 0, 20)
    pair.settle(lambda: pair.machines[0].store.is_idle)
    machine = pair.machines[0]
    machine.release(log)
    effects = machine.store.turn_effects()
    assert [type(effect) for effect in effects] == [WalWrite]
    machine.driver.submit(effects[0], machine.arena)
    for done in machine.driver.completions(everything=True):
        machine.store.on_done(done)
    (unlink,) = machine.store.turn_effects()
    assert isinstance(unlink, Unlink)
    assert set(unlink.paths) == {
        *(path for segment in log.segments.items for path in segment.paths),
        log.descriptor.directory,
    }


@pytest.mark.parametrize("leaders", [0, 1, 130, 400])
def test_entries_without_records_are_carried_whole(leaders: int) -> None:
    """A segment that holds no records is not closed: the name of the next would be the same."""
    pair = started()
    machine = pair.machines[0]
    log = machine.create()
    machine.vote(log, 1, 1)
    for _ in range(leaders):
        machine.control(log, RecordKind.NEW_LEADER, b"")
    pair.settle(lambda: log.committed_index == log.last_index)
    log.want_flush()
    pair.settle(lambda: log.flushed_index == log.last_index)
    has_file = any(segment.paths for segment in log.segments.items)
    assert has_file == (leaders > 127), "otherwise there is nothing to carry"
    pair.move(log, 0)
    assert not pair.disks[1].performed["LinkFiles"]
    there = pair.machines[1].store.groups[log.group]
    pair.power_cut()
    pair.restart([0, 1])
    there = pair.machines[1].store.groups[log.group]
    assert there.last_index == leaders
    fill(pair, 1, there, 30)
    pair.move(there, 1)
    pair.check()


def test_an_old_record_does_not_end_the_group_that_came_back() -> None:
    """M4: what the row names is on disk, what the records before it named may be gone."""
    pair = started(ROOMY)
    machine = pair.machines[0]
    pin_lsn = machine.create().last_lsn  # an idle group: the log keeps everything from here on
    log = filled(pair, 0, 20)
    pair.move(log, 0)
    pair.move(pair.machines[1].store.groups[log.group], 1)
    back = machine.store.groups[log.group]
    assert back.descriptor.revision == 3
    fill(pair, 0, back, 20)
    machine.control(back, RecordKind.TRIM, back.committed_offset.to_bytes(8, "little"))
    pair.settle(lambda: back.committed_index == back.last_index)
    fill(pair, 0, back, 3)
    back.want_flush()
    pair.settle(lambda: back.flushed_index == back.last_index and not back.is_flushing)
    checkpointing = machine.store.checkpointing
    for _ in range(2):  # what is trimmed goes with the second
        count = checkpointing.count + 1
        checkpointing.wanted = True
        while checkpointing.count < count:
            pair.turn(everything=True)
    assert checkpointing.replay_lsn <= pin_lsn
    pair.settle(lambda: machine.store.is_idle)
    first = back.segments.items[0]
    assert first.base_offset > 0
    pair.power_cut()
    pair.restart([0, 1])
    pair.check()
    again = pair.machines[0].store.groups[log.group]
    assert again.segments.items[0].base_offset == first.base_offset


def test_a_group_comes_back_only_when_its_former_files_are_gone() -> None:
    """M5."""
    pair = started()
    log = filled(pair, 0, 20)
    first, second = pair.machines
    done: list[str] = []
    parcel = packed(pair, 0, log)
    second.take(parcel, CoreId(0), first.groups[log.group], done.append)
    second.settle(lambda: bool(done))
    there = second.store.groups[log.group]
    parcel = packed(pair, 1, there)
    first.release(log)
    first.take(parcel, CoreId(1), second.groups[log.group], done.append)
    assert first.store.dropping.holds(log.group)
    effects = first.store.turn_effects()
    assert not [effect for effect in effects if isinstance(effect, LinkFiles)]
    for effect in effects:
        first.driver.submit(effect, first.arena)
    first.settle(lambda: len(done) == 2)
    assert done == ["", ""]
    second.release(there)
    pair.check()


def test_a_checkpoint_begun_while_an_import_is_written_has_it() -> None:
    """What is in the log before it begins is either in its rows or lost with the next one."""
    pair = started(ROOMY)
    log = filled(pair, 0, 20)
    first, second = pair.machines
    done: list[str] = []
    parcel = packed(pair, 0, log)
    second.take(parcel, CoreId(0), first.groups[log.group], done.append)
    store, disk = second.store, pair.disks[1]
    while not store.moving.imports[log.group].lsn:
        for effect in store.turn_effects():
            disk.submit(effect, second.arena)
        if disk.queues[Queue.STORE]:
            store.on_done(disk.complete(Queue.STORE))
    store.checkpointing.wanted = True
    for effect in store.turn_effects():
        disk.submit(effect, second.arena)
    assert store.checkpointing.phase is Phase.SYNCING, "all rows are made"
    second.settle(lambda: bool(done) and store.checkpointing.count > 0)
    assert done == [""]
    first.release(log)
    pair.power_cut()
    pair.restart([0, 1])
    pair.check()
    assert log.group in pair.machines[1].store.groups


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EMLINK, errno.ENOSPC, errno.EPERM])
def test_a_group_whose_files_cannot_be_linked_stays_where_it_is(error: int) -> None:
    pair = started()
    log = filled(pair, 0, 20)
    pair.disks[1].fail(LinkFiles, error, partly=True)
    move = pair.move(log, 0)
    assert errno.errorcode[error] in move.why
    assert not [path for path in pair.disks[1].files if log.descriptor.directory in path]
    assert log.group not in pair.machines[1].store.groups
    fill(pair, 0, log, 10)
    assert pair.move(log, 0).why == ""
    pair.check()


def test_a_directory_that_cannot_be_synced_ends_the_target() -> None:
    pair = started()
    log = filled(pair, 0, 20)
    pair.disks[1].fail(LinkFiles, errno.EIO, partly=True)
    with pytest.raises(StorageFailureError, match="EIO"):
        pair.move(log, 0)
    pair.power_cut()
    pair.restart([0, 1])
    pair.check()
    assert log.group in pair.machines[0].store.groups


@pytest.mark.parametrize("kind", [SegmentWrite, Sync])
def test_a_group_that_finds_no_room_for_its_last_blocks_stays_where_it_is(kind: type) -> None:
    pair = started()
    log = filled(pair, 0, 3)
    pair.disks[0].fail(kind, errno.ENOSPC)
    move = pair.move(log, 0)
    assert move.why == "not packed"
    fill(pair, 0, log, 10)
    assert pair.move(log, 0).why == ""
    pair.check()


def test_a_group_whose_state_fits_no_log_file_stays_where_it_is() -> None:
    pair = started()
    log = filled(pair, 0, 3)
    parcel = packed(pair, 0, log)
    heard: list[str] = []
    fold = (Index(log.last_index), bytes(64 * KIB))
    target = pair.machines[1]
    target.store.import_group(parcel, 2, fold, CoreId(0), lambda _log, why: heard.append(why))
    target.settle(lambda: bool(heard))
    assert "does not fit" in heard[0]
    pair.machines[0].store.keep_group(log)
    pair.check()


def test_an_import_waits_for_room_in_the_log_and_fails_when_the_disk_is_full() -> None:
    pair = started()
    log = filled(pair, 0, 20)
    target = pair.machines[1].store
    target.wal.spares.clear()
    pair.disks[1].fail(WalPrepare, errno.ENOSPC, times=1000)
    move = pair.move(log, 0)
    assert move.why == "the disk is full"
    pair.disks[1].forget_faults()
    pair.settle(lambda: bool(target.wal.spares))
    assert pair.move(log, 0).why == ""
    pair.check()


def test_a_group_that_is_dropped_on_its_way_is_not_handed_out() -> None:
    pair = started()
    log = filled(pair, 0, 5)
    machine = pair.machines[0]
    machine.export(log, lambda _parcel: pytest.fail("handed out"))
    machine.drop(log)
    machine.settle()
    pair.promised.clear()
    pair.check()


def test_a_group_that_is_kept_goes_on_and_can_move_later() -> None:
    pair = started()
    log = filled(pair, 0, 5)
    machine = pair.machines[0]
    machine.export(log, lambda _parcel: pytest.fail("handed out"))
    machine.store.keep_group(log)
    fill(pair, 0, log, 5)
    assert pair.move(log, 0).why == ""
    pair.check()


def test_a_damaged_import_record_stops_the_start() -> None:
    """As an OWN record: without it nobody knows the group, and it is nowhere else."""
    pair = started()
    log = filled(pair, 0, 20)
    pair.move(log, 0)
    pair.settle(lambda: pair.machines[1].store.is_idle)
    filled(pair, 1, 1)
    (place,) = [
        (file.path, entry.record.payload_at)
        for file in wal_files(pair.disks[1])
        for entry in file.records
        if entry.record.kind == RecordKind.IMPORT
    ]
    pair.power_cut()
    pair.disks[1].flip(*place)
    with pytest.raises(CorruptWalError, match="damaged"):
        pair.recover(1)


def test_a_dump_shows_what_moved_and_verifies_it() -> None:
    pair = started()
    log = filled(pair, 0, 20)
    pair.move(log, 0)
    pair.settle(lambda: all(machine.store.is_idle for machine in pair.machines))
    notes = {
        (core, entry.kind): entry.note
        for core in (0, 1)
        for file in wal_files(pair.disks[core])
        for entry in file.records
        if entry.group == log.group
    }
    assert notes[0, "OWN"] == "topic1-0, revision 1"
    assert notes[0, "MOVED"] == "revision 1"
    assert notes[1, "IMPORT"] == "topic1-0, revision 2, entries up to 21, 3 segments"
    report = verify(pair.disks[1])
    assert report.problems == []
    (group,) = report.groups
    assert (group.group, group.revision, group.flushed_index) == (log.group, 2, 21)
    assert [segment.is_sealed for segment in group.segments] == [True] * 3
    pair.disks[1].flip(group.segments[1].path + ".log", 100)
    assert "checksum" in verify(pair.disks[1]).problems[0]


def test_thousands_of_groups_are_dropped_with_a_full_log() -> None:
    """Half of the reserve is for it; the rest waits, and nothing is lost."""
    core = Core(ROOMY)
    logs = [core.log() for _ in range(1500)]
    core.machine.settle()
    store = core.machine.store
    core.disk.fail(WalPrepare, errno.ENOSPC, times=10_000)
    store.wal.spares.clear()
    while core.machine.append(logs[0], 2000):
        core.machine.turn(everything=True)
    while store.wal.has_half_reserve:  # votes and tails may take of it, too
        core.machine.vote(logs[0], logs[0].term + 1, 1)
    for log in logs[1:]:
        store.drop_group(log)
    assert store.dropping.is_waiting
    assert not store.is_idle
    core.disk.forget_faults()
    core.machine.settle()
    assert not store.dropping.is_waiting
    assert core.disk.names("partitions") == []
    core.disk.crash()
    machine = core.start()
    assert list(machine.store.groups) == [logs[0].group]


def test_a_directory_from_before_groups_could_move_is_read() -> None:
    """A description ended before the revision, and a DROP record was empty."""
    old = Descriptor(GroupId(7), "topic", TopicId(bytes(16)), 3, (MemberId(1), MemberId(2)))
    assert decode_descriptor(encode_descriptor(old)[:-4]) == old
    assert decode_descriptor(encode_descriptor(replace(old, revision=9))).revision == 9
    again = replace(old, revision=9, incarnation=3)
    assert decode_descriptor(encode_descriptor(again)) == again
    assert decode_revision(b"") == 1
    for bad in (b"\1", b"\1\0\0\0\0", bytes(4)):
        with pytest.raises(LayoutError):
            decode_revision(bad)
        with pytest.raises(LayoutError):
            decode_descriptor(encode_descriptor(old)[:-4] + bad)


def test_a_parcel_cut_anywhere_is_refused() -> None:
    pair = started()
    log = filled(pair, 0, 5)
    parcel = packed(pair, 0, log)
    data = parcel.encode()
    assert Parcel.decode(data) == parcel
    for size in range(len(data)):
        with pytest.raises(LayoutError):
            Parcel.decode(data[:size])
    with pytest.raises(LayoutError):
        Parcel.decode(data + b"\0")
