"""Groups that move between two cores: stories, each of one rule of FORMAT.md (M1-M5)."""

from corelane.model.ids import RecordKind
from corelane.storage.group_log import GroupLog
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


def started() -> Pair:
    pair = Pair()
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
