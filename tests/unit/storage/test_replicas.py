"""Three replicas that send each other entries and snapshots lose nothing at any crash of one.

Method: `replicas.py`; each step of each replica's disk is one run that crashes there. Here a share
of steps and seeds; `python -m tests.unit.storage.hunt --replicas` for the rest.
"""

import errno
import random

import pytest

from corelane.storage.effects import CheckpointWrite, SegmentWrite, Sync, WalPrepare
from tests.unit.storage.replica_script import (
    ReplicaRun,
    ReplicaScript,
    crash_everywhere,
    crash_replica,
)
from tests.unit.storage.replicas import COUNT


def test_replicas_crashed_here_and_there() -> None:
    runs = [run for seed in range(6) for run in crash_everywhere(seed, actions=150, stride=7)]
    assert sum(run.replicas.installs for run in runs) > 30, "otherwise it proves little"
    assert sum(run.replicas.cuts for run in runs) > 100


def test_a_crash_when_only_a_part_was_put_again() -> None:
    """Found by hunting: the part that was there twice then needed less of the WAL than the rest."""
    crash_replica(507, 1, 84, 200)


@pytest.mark.parametrize("seed", range(100, 106))
def test_replicas_on_disks_that_are_full_now_and_then(seed: int) -> None:
    run, luck = ReplicaRun(seed, 0), random.Random(seed)
    run.replicas.start()
    script = ReplicaScript(run.replicas, seed)
    for _ in range(8):
        disk = run.replicas.disks[luck.randrange(COUNT)]
        kind = luck.choice((WalPrepare, SegmentWrite, Sync, CheckpointWrite))
        disk.fail(kind, errno.ENOSPC, times=luck.randrange(1, 4), partly=luck.random() < 0.5)
        script.run(30)
    victim = luck.randrange(COUNT)
    run.replicas.disks[victim].forget_faults()
    run.crash(victim)
    script.run(30)
    for disk in run.replicas.disks:
        disk.forget_faults()
    run.replicas.check()


def test_a_group_without_a_quorum_does_not_stop_the_others() -> None:
    """Entries that nobody can commit are put into the WAL again, and pin none of it (G4)."""
    replicas = ReplicaRun(1, 0).replicas
    replicas.start()
    lonely, busy = replicas.groups
    replicas.settle(replicas.machines[0].has_room)
    replicas.settle(replicas.machines[1].has_room)
    replicas.settle(replicas.machines[2].has_room)
    assert replicas.elect(lonely, 0)
    assert replicas.elect(busy, 0)
    machine = replicas.machines[0]
    for _ in range(4):
        while not machine.append(replicas.log(0, lonely), 3000):
            replicas.turn(everything=True)
    entries = len(machine.groups[lonely].entries)
    wal = machine.store.wal
    for _ in range(1500):
        if wal.generation >= 60:
            break
        machine.append(replicas.log(0, busy), 3000)
        replicas.replicate(busy, 1, 20_000)
        replicas.turn(everything=True)
        assert len(wal.used) <= machine.profile.recovery.store.wal_files_max
    assert wal.generation >= 60, "the log is full for everybody"
    assert not replicas.truth[lonely]
    replicas.disks[0].crash()
    replicas.machines[0] = replicas.recover(0)
    replicas.restart(0)
    assert len(replicas.machines[0].groups[lonely].entries) == entries
    replicas.check()
