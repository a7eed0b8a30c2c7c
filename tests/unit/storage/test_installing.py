"""A replica that begins anew behind a snapshot, and the configuration that every log knows.

Method: machines on simulated disks beside their models; `test_replicas.py` crashes the same things.
"""

from collections.abc import Callable

import pytest

from corelane.model.ids import Index, Lsn, Offset, RecordKind, Term
from corelane.raft import membership
from corelane.raft.membership import Configuration
from corelane.storage import checkpoint
from corelane.storage.group_log import GroupLog
from corelane.storage.installing import PrefixSnapshot
from corelane.storage.layout import LayoutError, Tail, encode_tail
from corelane.storage.parcel import Parcel
from corelane.storage.wal import WalFullError
from corelane_native import crc32c
from tests.simulation.sim_disk import PowerCutError
from tests.unit.storage.lives import Core
from tests.unit.storage.machine import KIB, ROOMY

SNAPSHOT = PrefixSnapshot(
    Index(7), Term(3), Offset(40), (Index(5), Offset(30)), (Index(6), b"members"), Index(9), b"fold"
)
GOLDEN = (
    "01000000 03000000 0700000000000000 2800000000000000 01000000 0500000000000000"
    "1e00000000000000 0600000000000000 0900000000000000 07000000 6d656d62657273 666f6c64"
)


def trimmed(core: Core) -> GroupLog:
    """Return a leader's log that has lost its first segments, with configurations in it."""
    log, machine = core.log(), core.machine
    for term in range(2, 6):
        machine.vote(log, term, 1)
        machine.control(log, RecordKind.CONFIG, b"members of %d" % term)
        core.fill(log, 30 * KIB)
    core.checkpoint()
    start = log.segments.items[4].base_offset
    machine.control(log, RecordKind.TRIM, start.to_bytes(8, "little"))
    machine.settle()
    assert log.first_index > 1
    return log


def snapshot_of(core: Core, log: GroupLog, *, is_whole: bool = False) -> PrefixSnapshot:
    fold = core.machine.groups[log.group].fold(log.committed_index)
    return core.machine.store.snapshot(log, log.committed_index, fold, is_whole=is_whole)


def follower(entries: int = 3) -> tuple[Core, GroupLog]:
    """Return a replica with a few committed entries in segments, and an uncommitted tail."""
    core = Core()
    log = core.log()
    for _ in range(entries):
        core.machine.append(log, 5000)
    core.machine.settle()
    core.checkpoint()
    core.machine.vote(log, 5, 1)
    core.machine.control(log, RecordKind.CONFIG, b"of nobody")
    core.machine.append(log, 100)
    return core, log


def test_a_snapshot_begins_where_its_log_does() -> None:
    leader = Core()
    log = trimmed(leader)
    snapshot = snapshot_of(leader, log)
    want = leader.machine.groups[log.group]
    assert snapshot.last_index == log.first_index - 1
    assert snapshot.next_offset == log.segments.items[0].base_offset
    assert snapshot.last_term == want.entry(snapshot.last_index).term
    assert snapshot.applied_index == log.committed_index
    assert snapshot.configuration == log.configured.at(snapshot.last_index)
    whole = snapshot_of(leader, log, is_whole=True)
    assert (whole.last_index, whole.next_offset) == (log.committed_index, log.committed_offset)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_replica_begins_anew_and_stays_so(is_whole: bool) -> None:
    leader = Core()
    source = trimmed(leader)
    core, log = follower()
    machine = core.machine
    snapshot = snapshot_of(leader, source, is_whole=is_whole)
    old_files = log.segments.items[0].paths
    assert machine.install(log, snapshot, leader.machine.groups[source.group])
    assert log.last_index == log.committed_index == snapshot.last_index
    assert log.configuration == snapshot.configuration
    assert set(old_files) <= set(core.disk.files), "the record is not durable yet"
    machine.settle()
    assert not set(old_files) & set(core.disk.files), "N3"
    machine.append(log, 3000)
    machine.settle()
    machine.check_log(log)
    for _ in range(3):
        core.restart()
        core.checkpoint()
    log = core.machine.store.groups[log.group]
    assert log.first_index == snapshot.last_index + 1
    core.machine.read_everything()
    core.machine.check_arena()


@pytest.mark.parametrize("has_row", [False, True])
def test_a_tail_longer_than_the_snapshot_is_gone(has_row: bool) -> None:
    leader = Core()
    source = trimmed(leader)
    core = Core(ROOMY)
    log, pin = core.log(), core.log()
    machine = core.machine
    machine.append(pin, 10)  # never committed: keeps the WAL from here on
    machine.vote(log, 5, 1)
    snapshot = snapshot_of(leader, source)
    for _ in range(snapshot.last_index + 5):
        machine.append(log, 10)
    while machine.durable[log.group] <= snapshot.last_index:
        machine.turn(everything=True)
    assert machine.install(log, snapshot, leader.machine.groups[source.group])
    machine.append(log, 20)
    while machine.durable[log.group] <= snapshot.last_index:
        machine.turn(everything=True)
    if has_row:
        checkpointing = machine.store.checkpointing
        checkpointing.wanted = True
        while not checkpointing.count:
            machine.turn(everything=True)
    core.restart(commit_all=False)
    assert core.machine.store.groups[log.group].last_index == snapshot.last_index + 1


def test_a_crash_at_any_step_leaves_the_old_log_or_the_new_start() -> None:
    outcomes = set()
    for power in (False, True):
        for step in range(40):
            leader = Core()
            source = trimmed(leader)
            core, log = follower()
            before = log.first_index
            core.disk.steps_left = step
            snapshot = snapshot_of(leader, source)
            try:
                core.machine.install(log, snapshot, leader.machine.groups[source.group])
                core.machine.store.checkpointing.wanted = True
                core.machine.settle()
                core.machine.append(log, 6000)
                core.machine.settle()
            except PowerCutError:
                pass
            core.disk.steps_left = -1
            core.restart(power=power, commit_all=False)
            if log.group in core.machine.store.groups:
                outcomes.add(core.machine.store.groups[log.group].first_index)
    assert outcomes == {before, snapshot.last_index + 1}


def test_without_room_nothing_changes() -> None:
    leader = Core()
    source = trimmed(leader)
    core, log = follower()
    machine = core.machine
    while machine.append(log, 3000):
        pass
    snapshot = snapshot_of(leader, source)
    with pytest.raises(WalFullError):
        machine.store.install(log, snapshot)
    machine.check_log(log)


def test_a_fold_that_fits_no_file_is_refused() -> None:
    leader = Core()
    source = trimmed(leader)
    core, log = follower()
    snapshot = snapshot_of(leader, source)
    large = PrefixSnapshot(
        snapshot.last_index, snapshot.last_term, snapshot.next_offset, snapshot.run,
        snapshot.configuration, snapshot.applied_index, bytes(100 * KIB),
    )  # fmt: skip
    with pytest.raises(LayoutError, match="does not fit"):
        core.machine.store.install(log, large)
    core.machine.check_log(log)


def test_a_snapshot_below_what_is_committed_is_never_taken() -> None:
    core, log = follower()
    low = PrefixSnapshot(Index(1), Term(1), Offset(1), None, (Index(0), b""), Index(1), b"")
    with pytest.raises(AssertionError, match="N2"):
        core.machine.store.install(log, low)


def test_a_flush_of_the_log_before_changes_nothing_of_the_new_one() -> None:
    leader = Core()
    source = trimmed(leader)
    core = Core(ROOMY)
    log, machine = core.log(), core.machine
    for _ in range(6):
        machine.append(log, 2000)
    while machine.durable[log.group] < 6:
        machine.turn(everything=True)
    machine.commit_all()
    machine.vote(log, 5, 1)
    log.want_flush()
    for effect in machine.store.turn_effects():
        core.disk.submit(effect, machine.arena)
    assert log.is_flushing
    group = leader.machine.groups[source.group]
    assert machine.install(log, snapshot_of(leader, source), group)
    machine.settle()
    machine.append(log, 3000)
    machine.settle()
    machine.check_log(log)
    assert [path for path in core.disk.files if path.endswith(".log")] == []
    core.restart()


# --- configurations ---


def config(core: Core, log: GroupLog, payload: bytes) -> None:
    core.machine.control(log, RecordKind.CONFIG, payload)


def test_a_truncation_brings_the_configuration_before_back() -> None:
    core = Core()
    log = core.log()
    assert log.configuration == (0, b"")
    config(core, log, b"one")
    core.machine.settle()
    config(core, log, b"two")
    assert log.configuration == (2, b"two")
    core.machine.truncate(log, 2)
    assert log.configuration == (1, b"one")
    core.machine.settle()
    core.restart()


@pytest.mark.parametrize(
    "end", [lambda core: core.checkpoint(), lambda core: core.machine.settle()], ids=["row", "wal"]
)
def test_a_start_knows_the_configuration_in_force(end: Callable[[Core], None]) -> None:
    core = Core()
    log = core.log()
    core.fill(log, 20 * KIB)
    config(core, log, b"one")
    core.machine.settle()
    end(core)
    config(core, log, b"two")
    core.machine.settle()
    core.restart()
    log = core.machine.store.groups[log.group]
    assert [payload for _index, payload in log.configured.items] == [b"one", b"two"]


def test_a_trim_keeps_the_configuration_that_is_in_force_where_the_log_begins() -> None:
    core = Core()
    log = trimmed(core)
    assert len(log.configured.items) < 4
    own = [index for index, _payload in log.configured.items if index >= log.first_index]
    assert log.configured.items[0][0] < log.first_index
    assert len(log.configured.items) == 1 + len(own)
    core.checkpoint()
    core.restart()


def test_raft_is_told_the_configurations_in_a_range() -> None:
    core = Core()
    log = core.log()
    one, two = Configuration((1, 2, 3)), Configuration((1, 2), (1, 2, 3))  # type: ignore[arg-type]
    assert log.configurations(Index(1), Index(9)) == ()
    config(core, log, membership.encode(one))
    core.machine.append(log, 10)
    config(core, log, membership.encode(two))
    assert log.configurations(Index(1), Index(3)) == [(1, one), (3, two)]
    assert log.configurations(Index(2), Index(3)) == [(3, two)]
    assert log.configurations(Index(1), Index(2)) == [(1, one)]
    assert log.configurations(Index(4), Index(9)) == ()


# --- bytes ---


def test_a_snapshot_travels_as_these_bytes() -> None:
    assert SNAPSHOT.encode() == bytes.fromhex(GOLDEN)
    assert PrefixSnapshot.decode(bytes.fromhex(GOLDEN)) == SNAPSHOT


def test_what_is_no_snapshot_is_refused() -> None:
    data = bytearray(bytes.fromhex(GOLDEN))
    for size in range(64):
        with pytest.raises(LayoutError):
            PrefixSnapshot.decode(bytes(data[:size]))
    for at, byte in ((0, 2), (8, 10), (24, 2), (28, 8), (44, 8), (44, 0), (60, 200), (8, 0)):
        damaged = bytearray(data)
        damaged[at] = byte
        with pytest.raises(LayoutError):
            PrefixSnapshot.decode(bytes(damaged))


def test_rows_from_before_there_were_configurations_are_read() -> None:
    core = Core()
    log = core.log()
    core.fill(log, 20 * KIB)
    image = checkpoint.image_of(log, log.flushed_index, b"fold")
    row = checkpoint.encode_image(image)
    assert row.endswith(bytes(4 + 32)), "the count of configurations, and no loss"
    old = row[:-36]
    data = checkpoint.encode(3, Lsn(5), Lsn(9), 2, [old, old])
    head = bytearray(data[:32])
    head[:8] = b"CLCKPT01"
    head[28:32] = crc32c(bytes(head[:28])).to_bytes(4, "little")
    found = checkpoint.decode(bytes(head) + data[32:])
    assert found.groups == [image, image]
    new = checkpoint.decode(checkpoint.encode(3, Lsn(5), Lsn(9), 2, [row, row]))
    assert new.groups == found.groups
    tail = Tail(b"log", b"rows", b"control")
    parcel = len(old).to_bytes(4, "little") + old + encode_tail(tail)
    assert Parcel.decode(parcel) == Parcel(image, tail)
    assert Parcel.decode(Parcel(image, tail).encode()) == Parcel(image, tail)
