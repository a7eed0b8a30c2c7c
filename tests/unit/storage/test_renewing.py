"""Logs that go back to where they are whole (FORMAT.md, D), and what a restart makes of that.

Method: cores on simulated disks that lose power right after the record is durable.
"""

from collections import defaultdict

import pytest

from corelane.model.ids import Index, Lsn, RecordKind, Term
from corelane.raft.loss import Loss
from corelane.storage.group_log import GroupLog
from corelane.storage.segments import Segment
from tests.simulation.cluster_rot import wal_payloads
from tests.unit.storage.lives import Core
from tests.unit.storage.machine import KIB

LOSS = Loss(Index(40), Term(5), are_votes_lost=False)
TURNS = 40
ALL = Loss(Index(40), Term(5), are_votes_lost=True)


def filled() -> tuple[Core, GroupLog]:
    """Return a log of several segments that a checkpoint knows, with a tail behind them."""
    core = Core()
    log = core.log()
    for term in range(2, 6):
        core.machine.vote(log, term, 1)
        core.machine.control(log, RecordKind.CONFIG, b"members of %d" % term)
        core.fill(log, 30 * KIB)
    core.checkpoint()
    core.machine.append(log, 3_000)
    core.machine.settle()
    assert len(log.segments.items) > 4
    return core, log


def settle(core: Core) -> None:
    """Let the disk do all; the machine's model knows nothing of logs that go back."""
    lsns = defaultdict(lambda: Lsn(0), core.machine.lsns)
    core.machine.lsns = lsns
    for _ in range(TURNS):
        core.machine.turn(everything=True)


def renew(core: Core, log: GroupLog, loss: Loss, damaged: Segment | None) -> None:
    core.machine.store.renew(log, loss, damaged)
    settle(core)


def after_power_cut(core: Core, log: GroupLog) -> GroupLog:
    core.disk.crash(power=True)
    return core.start().store.groups[log.group]


@pytest.mark.parametrize("number", [0, 2, 4])
def test_what_is_before_the_damaged_segment_stays(number: int) -> None:
    core, log = filled()
    segment = log.segments.items[number]
    kept = [path for each in log.segments.items[:number] for path in each.paths]
    gone = [path for each in log.segments.items[number:] for path in each.paths]
    term, voted_for, last = log.term, log.voted_for, segment.base_index - 1
    expected = log.configured.upto(Index(last))
    renew(core, log, LOSS, segment)
    for each in (log, after_power_cut(core, log)):
        assert each.last_index == each.flushed_index == each.committed_index == last
        assert each.next_offset == segment.base_offset
        assert (each.term, each.voted_for) == (term, voted_for)
        assert each.loss == LOSS
        assert each.configured.items == expected
        assert [path for item in each.segments.items for path in item.paths] == kept
    assert set(kept) <= set(core.disk.files)
    assert not set(gone) & set(core.disk.files)


def test_damage_in_the_log_costs_what_is_not_in_segments() -> None:
    core, log = filled()
    flushed, offset = log.flushed_index, log.flushed_offset
    assert log.last_index > flushed
    renew(core, log, ALL, None)
    for each in (log, after_power_cut(core, log)):
        assert (each.last_index, each.next_offset) == (flushed, offset)
        assert each.loss == ALL
        assert not each.damage


def test_a_lost_remainder_costs_the_open_segment() -> None:
    core, log = filled()
    last = log.segments.items[-1]
    assert not last.is_sealed
    last.rows.remainder = b""  # as after a TAIL record that cannot be read
    renew(core, log, ALL, None)
    assert log.last_index == last.base_index - 1
    assert after_power_cut(core, log).last_index == last.base_index - 1


@pytest.mark.parametrize("has_row", [False, True])
def test_a_log_goes_back_once(has_row: bool) -> None:
    """What was appended behind the record is not cut by reading the record again (D3)."""
    core, log = filled()
    renew(core, log, LOSS, log.segments.items[2])
    back = log.last_index
    for _ in range(30):
        log.append_control(log.term, RecordKind.NEW_LEADER, b"")
    settle(core)
    assert log.last_index == back + 30
    if has_row:
        log.commit(Index(back + 20))
        log.loss = None
        log.want_flush()
        settle(core)
        core.machine.store.checkpointing.wanted = True
        settle(core)
    found = after_power_cut(core, log)
    assert found.last_index == back + 30
    assert found.loss == (None if has_row else LOSS)


def test_a_record_that_is_lost_is_a_loss_again() -> None:
    """Without it the group would be as it was before: with a vote, and entries, that it has not."""
    core, log = filled()
    before = log.last_lsn
    renew(core, log, LOSS, log.segments.items[2])
    renewed = log.renewed_lsn
    assert renewed > before
    log.append_control(log.term, RecordKind.NEW_LEADER, b"")
    settle(core)
    log.append_control(log.term, RecordKind.NEW_LEADER, b"")
    settle(core)
    (place,) = [each for each in wal_payloads(core.disk) if each.lsn == renewed]
    assert place.kind == RecordKind.RENEW
    core.disk.flip(place.path, place.position + 40)
    assert after_power_cut(core, log).damage
