"""A disk without room: what is refused ends with the lack, and nothing that counts is touched.

Method: `SimDisk` answers ENOSPC to one kind of effect, or has no room left; the core is left to
itself as the shard would leave it: while `is_full`, nothing is appended.
"""

import contextlib
import errno

from corelane.model.ids import RecordKind
from corelane.storage import checkpoint
from corelane.storage.effects import CheckpointWrite, DiskDone, SegmentWrite
from corelane.storage.group_log import GroupLog
from corelane.storage.news import Lack
from corelane.storage.store import RETRY_TURNS
from tests.simulation.sim_disk import PowerCutError
from tests.unit.storage.lives import Core
from tests.unit.storage.machine import KIB, ROOMY

TURNS = 1500


def core_with_checkpoint() -> Core:
    """Return a core that has taken a checkpoint, with something to lose."""
    core = Core()
    core.fill(core.log(), 30 * KIB)
    core.checkpoint()
    core.machine.settle()
    return core


def idle(core: Core, turns: int = TURNS) -> None:
    """Let time pass without a client."""
    for _ in range(turns):
        core.machine.turn(everything=True)
        core.machine.commit_all()


def test_a_checkpoint_that_found_no_room_is_tried_again_in_the_same_slot() -> None:
    """C4: the other slot is the only valid one."""
    core = core_with_checkpoint()
    checkpointing, store = core.machine.store.checkpointing, core.machine.store
    newest = checkpoint.SLOTS[checkpointing.sequence % 2]
    core.disk.fail(CheckpointWrite, errno.ENOSPC, times=3, partly=True)
    checkpointing.wanted = True
    written: list[str] = []
    for _ in range(TURNS):
        for effect in store.turn_effects():
            if isinstance(effect, CheckpointWrite):
                written.append(effect.path)
            core.disk.submit(effect, core.machine.arena)
        for done in core.machine.driver.completions(everything=True):
            core.machine._take(store.on_done(done))
    assert len(written) == 4
    assert newest not in written
    core.restart()


def test_a_power_cut_while_a_failed_checkpoint_is_tried_again_leaves_one_slot() -> None:
    for seed in range(30):
        core = Core(ROOMY, seed)
        logs = [core.log() for _ in range(60)]  # a checkpoint of several blocks
        for _ in range(3):
            for log in logs:
                core.machine.append(log, 100)
            core.machine.settle()
            core.checkpoint()
        for log in logs:
            core.machine.append(log, 100)
        core.machine.settle()
        core.disk.fail(CheckpointWrite, errno.ENOSPC, partly=True)
        core.machine.store.checkpointing.wanted = True
        attempts = core.disk.performed["CheckpointWrite"]
        while core.disk.performed["CheckpointWrite"] == attempts:
            idle(core, 1)
        core.disk.steps_left = 0  # the next attempt
        with contextlib.suppress(PowerCutError):
            idle(core, 400)
        core.restart()


def test_a_full_disk_is_over_when_the_checkpoint_is_written() -> None:
    core = core_with_checkpoint()
    core.disk.fail(CheckpointWrite, errno.ENOSPC, times=2)
    core.machine.store.checkpointing.wanted = True
    idle(core, 20)
    assert core.machine.store.is_full
    idle(core)
    assert not core.machine.store.is_full
    core.restart()


def test_a_full_disk_is_over_when_the_group_that_needed_it_is_dropped() -> None:
    core = core_with_checkpoint()
    log = core.log()
    core.machine.append(log, 9000)
    core.machine.settle()
    core.disk.fail(SegmentWrite, errno.ENOSPC, times=1000)
    log.want_flush()
    idle(core, 20)
    assert core.machine.store.is_full
    core.machine.drop(log)
    idle(core, 300)
    assert not core.machine.store.is_full
    core.restart()


def test_a_flush_that_fails_after_its_group_was_dropped_fills_nothing() -> None:
    core = core_with_checkpoint()
    log = core.log()
    core.machine.append(log, 9000)
    core.machine.settle()
    log.want_flush()
    store = core.machine.store
    (write,) = [e for e in store.turn_effects() if isinstance(e, SegmentWrite)]
    core.machine.drop(log)
    core.machine._take(store.on_done(DiskDone(write.job, errno.ENOSPC)))
    assert not store.is_full
    core.machine.settle()
    core.restart()


def test_a_checkpoint_that_finds_no_room_fills_no_wal_with_remainders() -> None:
    core = Core(ROOMY)
    for _ in range(20):
        core.machine.append(core.log(), 100)
    core.machine.settle()
    core.disk.fail(CheckpointWrite, errno.ENOSPC, times=1_000_000)
    core.machine.store.checkpointing.wanted = True
    idle(core, 50)
    wal = core.machine.store.wal
    before = wal.bytes_put
    attempts = core.disk.performed["CheckpointWrite"]
    idle(core)
    assert wal.bytes_put == before
    assert 5 < core.disk.performed["CheckpointWrite"] - attempts < 50
    core.restart()


def test_what_is_trimmed_on_a_full_disk_makes_room() -> None:
    """Nothing is appended then, so no checkpoint is due; flushes wait for the room."""
    core = core_with_checkpoint()
    (log,) = core.machine.store.groups.values()
    core.fill(log, 200 * KIB)
    core.machine.settle()
    core.disk.room_bytes = core.disk.bytes_used + 10 * KIB
    for _ in range(TURNS):
        if not core.machine.store.is_full:
            core.machine.append(log, 3000)
        idle(core, 1)
    assert core.machine.store.is_full
    start = log.committed_offset
    core.machine.control(log, RecordKind.TRIM, start.to_bytes(8, "little"))
    idle(core)
    assert not core.machine.store.is_full
    assert not core.machine.store.unlinks
    core.machine.append(log, 3000)
    core.machine.settle()
    core.disk.room_bytes = 1 << 62  # recovery needs a fresh file, and says so otherwise
    core.restart()
    core.machine.read_everything()


def test_a_file_begun_on_a_full_disk_is_whole_after_the_next_checkpoint() -> None:
    """A checkpoint that frees space waits for no flush: one may have begun a file, and no more.

    Found by seed 50013 of fleet_storm.
    """
    core = Core(ROOMY)
    store = core.machine.store
    log, first, second = (core.log() for _ in range(3))
    for each in (log, first, second):
        core.fill(each, 40 * KIB)
    core.checkpoint()
    core.fill(log, 40 * KIB)
    trim(core, first)
    store.checkpointing.wanted = True
    while not log.segments.items[-1].is_sealed:
        idle(core, 1)
    store.out_of_space(Lack.SEGMENT)  # another log's write found no room
    core.disk.fail(SegmentWrite, errno.ENOSPC, times=1_000_000)
    idle(core, RETRY_TURNS + 5)
    assert store.checkpointing.count == 2
    assert not log.segments.items[-1].row_count, "it was begun, and has nothing"
    trim(core, second)
    idle(core, 2 * RETRY_TURNS)
    assert store.checkpointing.count == 3
    core.restart(power=False)


def trim(core: Core, log: GroupLog) -> None:
    """Delete what a log has; it is not waited for that anything is flushed."""
    start = log.committed_offset
    core.machine.control(log, RecordKind.TRIM, start.to_bytes(8, "little"))
    while log.start_offset < start:
        idle(core, 1)
