"""Broken builds on purpose: a checker that does not catch them checks nothing.

Each is run in the broker's process before it starts (`broker.launch(before=...)`), and changes
the runtime in one place, as a careless edit would.
"""

from pathlib import Path
from typing import Any

from corelane.model.ids import JobId
from corelane.runtime import disk
from corelane.runtime.disk import NativeDisk
from corelane.storage.effects import DiskDone

BUSY = 1000
"""More events than a turn has whose write is made inline."""

NO_SYNC = "from tests.integration import planted; planted.no_sync()"
ANSWER_EARLY = "from tests.integration import planted; planted.answer_early()"


def no_sync() -> None:
    """Write the WAL into the page cache only: O_DSYNC is forgotten, and so is the sync."""
    vars(disk)["WAL_FLAGS"] = 0


class HastyDisk(NativeDisk):
    """Takes a WAL write for durable as soon as it is handed to the thread."""

    def __init__(self, directory: Path, *arguments: Any) -> None:
        super().__init__(directory, *arguments)
        self.told: set[JobId] = set()

    def end_turn(self, event_count: int) -> DiskDone | None:
        """Hand the write to the thread, and answer it."""
        kept = self._kept
        super().end_turn(BUSY)
        if kept is None:
            return None
        self.told.add(kept.job)
        return DiskDone(kept.job, 0)

    def reap(self, token: int) -> list[DiskDone]:
        """Return what is done and was not told of before."""
        return [answer for answer in super().reap(token) if answer.job not in self.told]


def answer_early() -> None:
    """Have every core made from now on use the hasty disk."""
    vars(disk)["NativeDisk"] = HastyDisk
