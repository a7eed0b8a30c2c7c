"""What clients, operators and smaller machines do to a core's directory without meaning its log.

Method: a core on a simulated disk beside its model; each story ends with a recovery that finds
everything, or refuses with a sentence and has changed nothing.
"""

import struct
from pathlib import Path

import pytest

from corelane.model.ids import GroupId, Index, RecordKind
from corelane.storage.disk import FIRST_LSN_BITS, OsDisk
from corelane.storage.dump import verify, wal_files
from corelane.storage.layout import RECORD_HEADER
from corelane.storage.recovery import RecoverySettings
from corelane.storage.repair import TOPICS_MAY_GO, repair
from corelane.storage.store import StoreSettings
from corelane.storage.wal_scan import CorruptWalError
from corelane_native import crc32c
from tests.simulation.sim_disk import PowerCutError, SimDisk
from tests.unit.storage.lives import Core
from tests.unit.storage.machine import KIB, MIB, ROOMY, Held, Machine, Profile, SimDriver

FIRST_LSN = 0x0123_4567_89AB_CDEF


def snapshot(disk: SimDisk) -> dict[str, bytes]:
    """Return all that is on a disk."""
    return {path: bytes(file.seen) for path, file in disk.files.items()}


# --- bytes of clients ---


def fake(lsn: int, generation: int, durable_upto: int) -> bytes:
    """Return what would be a WAL record in another place."""
    words = (0, generation, 1, lsn, durable_upto, 1, 99, 99, RecordKind.COMMAND)
    data = RECORD_HEADER.pack(0, *words)[4:]
    return struct.pack("<I", crc32c(data)) + data


def guesses() -> bytes:
    """Return records with all the lsns and generations that a client would try."""
    lsns = (1, 2, 10, 1000, 1 << 20, 1 << 40, 1 << 61, (1 << 64) - 1)
    generations = (1, 2, 3, 10, (1 << 32) - 1)
    return b"".join(fake(lsn, g, lsn - 1) for lsn in lsns for g in generations)


def test_records_that_a_client_makes_up_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """R7: neither what was durable nor what comes next is taken from them."""
    monkeypatch.setattr(SimDisk, "lsn_base", FIRST_LSN)
    for shift in range(0, 64, 8):
        core = Core(ROOMY)
        log = core.log()
        for number in range(64):  # some of them begin a block
            core.machine.control(log, RecordKind.COMMAND, bytes(shift + 64 * number) + guesses())
            core.machine.turn(everything=True)
            core.machine.commit_all()
        core.restart(power=False)
        core.restart()
        core.machine.settle()
        assert verify(core.disk).problems == []


def test_made_up_records_in_a_recycled_file_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows the log's end is old bytes: here nothing but guesses."""
    monkeypatch.setattr(SimDisk, "lsn_base", FIRST_LSN)
    core = Core()
    log = core.log()
    core.fill(log, 100 * KIB)
    core.machine.settle()
    wal = core.machine.store.wal
    path, end = wal.file.path, -(-wal._file_position // 4096) * 4096
    rest = wal.file.size_bytes - end
    core.disk.overwrite(path, end, (guesses() * (rest // len(guesses()) + 1))[:rest])
    core.restart()
    assert core.machine.store.wal.next_lsn == wal.next_lsn


def test_a_new_core_counts_from_a_number_that_nobody_knows(tmp_path: Path) -> None:
    lsns = {OsDisk(tmp_path).first_lsn() for _ in range(20)}
    assert len(lsns) == 20
    assert 0 < min(lsns) <= max(lsns) <= 1 << FIRST_LSN_BITS


def test_a_new_core_may_crash_before_it_has_its_first_lsn(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(12):
        for luck in range(4):
            monkeypatch.setattr(SimDisk, "lsn_base", FIRST_LSN + step)
            disk = SimDisk(luck)
            disk.steps_left = step
            held = Held()
            try:
                Machine(SimDriver(disk, 0), ROOMY, held, 0)
            except PowerCutError:
                disk.crash()
            disk.steps_left = -1
            machine = Machine(SimDriver(disk, 0), ROOMY, held, 0)
            machine.boot()
            assert machine.store.wal.next_lsn == FIRST_LSN + step
            machine.create()
            machine.settle()
            disk.crash()
            Machine(SimDriver(disk, 0), ROOMY, held, 0).boot()


# --- a directory of which a part is missing, or that has more than ours ---


@pytest.mark.parametrize("prefixes", [("wal/",), ("wal/", "checkpoint.")])
def test_a_core_without_its_log_is_no_new_core(prefixes: tuple[str, ...]) -> None:
    """Recovery would remove every segment: nobody owns them."""
    core = Core()
    log = core.log()
    core.fill(log, 40 * KIB)
    log.want_flush()
    core.machine.settle()
    core.disk.crash(power=False)
    core.disk.remove([path for path in core.disk.files if path.startswith(prefixes)])
    assert any(path.endswith(".log") for path in core.disk.files)
    before = snapshot(core.disk)
    with pytest.raises(CorruptWalError, match="missing"):
        core.start()
    assert snapshot(core.disk) == before


def test_repair_accepts_the_loss_of_the_whole_log() -> None:
    core = Core()
    core.fill(core.log(), 40 * KIB)
    core.checkpoint()
    core.disk.crash()
    core.disk.remove([file.path for file in wal_files(core.disk)])
    for step in range(8):
        twin = Core()
        twin.disk = core.disk.copy()
        twin.disk.steps_left = step
        try:
            repair(twin.disk)
        except PowerCutError:
            twin.disk.crash()
            twin.disk.steps_left = -1
            assert TOPICS_MAY_GO in repair(twin.disk).cut or step > 3
        twin.disk.steps_left = -1
        twin.start()


def test_files_of_others_in_the_log_directory_are_left_alone() -> None:
    core = Core()
    core.fill(core.log(), 8 * KIB)
    core.disk.crash()
    names = ("copy of 00000001.wal", "00000001.wal.bak", "x.wal", ".wal")
    for name in names:
        core.disk.make_zeroed(f"wal/{name}", 4096)
    core.restart()
    assert set(names) < set(core.disk.names("wal"))


# --- a smaller machine ---


def test_a_log_that_does_not_fit_the_arena_any_more_is_refused_whole() -> None:
    """Found by review: the chunks of entries already read were evicted for the next ones."""
    store = StoreSettings(4 * MIB, 6, 8 * MIB, 64 * MIB)
    large = RecoverySettings(store, 16 * MIB, 4 * MIB)
    small = RecoverySettings(store, 2 * MIB, 4 * MIB)
    core = Core(Profile("large", large, 64 * KIB, 64 * MIB, (1000,)))
    logs = [core.log(), core.log()]
    for number in range(900):
        assert core.machine.append(logs[number % 2], 3500)
        core.machine.turn(everything=True)
    core.disk.crash()
    core.profile = Profile("small", small, 64 * KIB, 64 * MIB, (1000,))
    for _ in range(3):
        with pytest.raises(MemoryError):
            core.start()
    core.profile = Profile("large", large, 64 * KIB, 64 * MIB, (1000,))
    core.restart()
    core.machine.read_everything()


# --- a damaged group that nobody has opened yet ---


def test_a_damaged_group_is_flushed_beyond_its_fold() -> None:
    """The assertion that a fold is never behind the segments is about groups that are led."""
    core = Core(ROOMY)
    logs = [core.log(), core.log()]
    for _ in range(10):
        for log in logs:
            core.machine.append(log, 200)
            core.machine.settle()
    core.disk.crash()
    (file,) = [file for file in wal_files(core.disk) if file.records]
    found = [e for e in file.records if e.kind == "BATCH" and e.group == 1][6]
    core.disk.flip(file.path, found.record.payload_at + 70)
    machine = core.start()
    machine.store.state_of = lambda _group: (Index(0), b"")  # as in the checkpoint
    checkpointing = machine.store.checkpointing
    checkpointing.wanted = True
    while not checkpointing.count:
        for effect in machine.store.turn_effects():
            core.disk.submit(effect, machine.arena)
        for done in machine.driver.completions(everything=True):
            machine.store.on_done(done)
    assert machine.store.groups[GroupId(1)].flushed_index == 6
    core.disk.crash()
    again = core.start()
    assert set(again.recovered.damaged) == {1}
    assert again.store.groups[GroupId(1)].last_index == 6
