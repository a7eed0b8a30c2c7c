"""Groups that end on this core, because they are deleted or live on another one: DROP and MOVED.

A log is forgotten at once; its record may wait for room in the WAL, and its files for the record.
Until that is durable a start may find the group again: whoever ended it does so once more then.
"""

from collections import deque
from typing import TYPE_CHECKING

from corelane.model.ids import GroupId, Index, Lsn, RecordKind, Term
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import encode_revision
from corelane.storage.wal import WalFullError
from corelane_native import address_of

if TYPE_CHECKING:
    from corelane.storage.store import CoreStore


class Dropping:
    """The logs that have ended and whose files are still there; `CoreStore` advances it."""

    def __init__(self, store: "CoreStore") -> None:
        self._store = store
        self._waiting: deque[tuple[GroupLog, RecordKind]] = deque()
        self._put: list[tuple[Lsn, GroupLog]] = []

    def add(self, log: GroupLog, kind: RecordKind) -> None:
        """End *log* with a record of that kind, now or when there is room for it."""
        assert log.is_dropped
        assert kind in {RecordKind.DROP, RecordKind.MOVED}
        self._waiting.append((log, kind))
        self._put_records()

    def advance(self) -> None:
        """Put records that wait."""
        if self._waiting:
            self._put_records()

    @property
    def is_waiting(self) -> bool:
        """Whether a record waits for room."""
        return bool(self._waiting)

    def holds(self, group: GroupId) -> bool:
        """Whether files of the group are there whose removal was not asked for yet (M5)."""
        return any(log.group == group for log, _kind in self._waiting) or any(
            log.group == group for _lsn, log in self._put
        )

    def _put_records(self) -> None:
        """Half of the reserve is for these: with a full disk it is they that make room."""
        wal = self._store.wal
        while self._waiting and wal.has_half_reserve:
            log, kind = self._waiting[0]
            payload = encode_revision(log.descriptor.revision)
            try:
                lsn, _chunk, _position = wal.put(
                    kind, Term(0), log.group, Index(0), log.next_offset,
                    (address_of(payload), len(payload)),
                )  # fmt: skip
            except (WalFullError, MemoryError):
                break
            self._waiting.popleft()
            self._put.append((lsn, log))
        if self._waiting:
            self._store.checkpointing.wanted = True  # it frees files of the WAL

    def delete_files(self) -> None:
        """Remove the files of those whose record is durable, and whose last flush is over."""
        if not self._put:
            return
        durable = self._store.wal.durable_lsn
        left = []
        for lsn, log in self._put:
            if lsn <= durable and not log.is_flushing:
                self._store.delete_files(log)
            else:
                left.append((lsn, log))
        self._put = left
