"""What the disk's answers mean to the shard, and which of them end the core."""

import errno
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from corelane.model.ids import Index, MemberId, Term
from corelane.model.record import record

if TYPE_CHECKING:
    from corelane.storage.group_log import GroupLog

OUT_OF_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


class Lack(Enum):
    """What there was no space for."""

    WAL = auto()
    SEGMENT = auto()
    CHECKPOINT = auto()


class StorageFailureError(Exception):
    """The disk failed where nothing may fail: this core must exit and recover."""


@record
class News:
    """What the shard must know after an answer of the disk."""

    entries: "list[tuple[GroupLog, Index, int]]"
    """(log, last durable index, truncations at that time), for `RaftGroup.persisted`."""
    votes: "list[tuple[GroupLog, Term, MemberId]]"


NOTHING: Final = News([], [])


def failure(what: str, error: int) -> str:
    """Return what an operator should know of a disk that failed where nothing may."""
    return (
        f"{what} failed: {errno.errorcode.get(error, str(error))}. Nothing acknowledged is lost; "
        "the core stops here, because after a failed write nobody knows what the disk holds. "
        "Check the disk; the core recovers from its log when it starts again."
    )
