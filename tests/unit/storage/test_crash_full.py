"""A crash at any step of a life on a disk that is full now and then loses nothing either.

Method: the crash script of `test_crash.py`; between its actions effects fail with ENOSPC, some
after a part of their work, or the disk has no room for a while. A crash ends the lack: recovery
needs a fresh file, and refuses to start without one.
"""

import errno
import random

import pytest

from corelane.storage.effects import CheckpointWrite, SegmentWrite, Sync, WalPrepare
from tests.unit.storage.machine import KIB, LARGE, SMALL, Profile
from tests.unit.storage.script import Run, Script

KINDS = (WalPrepare, SegmentWrite, Sync, CheckpointWrite)
ROOM_BYTES = 1 << 62


class FullRun(Run):
    """A story whose first life lacks space at random times."""

    def first_life(self, actions: int) -> None:
        luck = random.Random(self.seed)
        machine = self.machine()
        machine.boot()
        script = Script(machine, self.seed)
        while actions > 0:
            self._lack(luck)
            count = luck.randrange(5, 40)
            script.run(count)
            actions -= count
        machine.commit_all()

    def _lack(self, luck: random.Random) -> None:
        self.disk.room_bytes = ROOM_BYTES
        if luck.random() < 0.3:
            self.disk.room_bytes = self.disk.bytes_used + luck.randrange(60 * KIB)
            return
        kind, is_partly = luck.choice(KINDS), luck.random() < 0.6
        skip, times = luck.randrange(3), luck.randrange(1, 4)
        self.disk.fail(kind, errno.ENOSPC, skip=skip, times=times, partly=is_partly)

    def crash(self) -> None:
        self.disk.room_bytes = ROOM_BYTES
        self.disk.forget_faults()
        super().crash()


@pytest.mark.parametrize(("profile", "seeds"), [(SMALL, range(24)), (LARGE, range(100, 103))])
def test_a_full_disk_crashed_here_and_there(profile: Profile, seeds: range) -> None:
    crashes = 0
    for seed in seeds:
        count = FullRun(profile, seed, 0)
        count.first_life(150)
        for step in range(seed % 7, count.disk.steps, 7):
            FullRun(profile, seed, step).crash_at(step, 150)
            crashes += 1
    assert crashes > 20
