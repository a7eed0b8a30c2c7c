"""Broken builds on purpose: a checker that does not catch them checks nothing.

Each is run in the broker's process before it starts (`broker.launch(before=...)`), and changes
the runtime in one place, as a careless edit would.
"""

import os
from pathlib import Path
from typing import Any

from corelane.model.ids import JobId
from corelane.runtime import disk
from corelane.runtime.disk import WAL, NativeDisk
from corelane.storage.effects import DiskDone, WalWrite

NO_SYNC = "from tests.integration import planted; planted.no_sync()"
ANSWER_EARLY = "from tests.integration import planted; planted.answer_early()"


def no_sync() -> None:
    """Write the WAL into the page cache only: O_DSYNC is forgotten, and so is the sync."""
    vars(disk)["WAL_FLAGS"] = 0


class HastyDisk(NativeDisk):
    """Takes a WAL write for durable as soon as it is handed to the thread."""

    def __init__(self, directory: Path, *arguments: Any) -> None:
        super().__init__(directory, *arguments)
        self.early: list[DiskDone] = []
        self.told: set[JobId] = set()

    def _wal_write(self, effect: WalWrite) -> None:
        super()._wal_write(effect)
        self.early.append(DiskDone(effect.job, 0))
        self.told.add(effect.job)
        os.eventfd_write(self._workers[WAL].eventfd, 1)

    def reap(self, token: int) -> list[DiskDone]:
        """Return what is done, and first what is not."""
        done = [answer for answer in super().reap(token) if answer.job not in self.told]
        early, self.early = self.early, []
        return early + done


def answer_early() -> None:
    """Have every core made from now on use the hasty disk."""
    vars(disk)["NativeDisk"] = HastyDisk
