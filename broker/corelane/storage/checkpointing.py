"""Taking checkpoints while the core runs, a bounded share of it per turn.

    idle -> flushing -> capturing -> syncing -> writing -> idle

flushing: everything committed when it began goes to the segments. capturing: each group's row is
made, and its remainders are put into the WAL again where the old ones are about to go. syncing:
one sync for all segment files, and the WAL up to the last record put when the last row was made.
writing: the slot.

Invariants:
C1-C4 of checkpoint.py, and
C5. A row's remainders are in the TAIL record that it names; recovery uses that one and no other.
C6. A checkpoint tells of nothing that is not durable in the WAL: `replay_lsn` is never beyond its
    durable end, or lsns below it would be given out again and passed over by the next recovery.
"""

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from corelane.model.ids import Index, Lsn, RecordKind, Term
from corelane.storage import checkpoint
from corelane.storage.effects import CheckpointWrite, DiskDone, Sync
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import Tail, encode_tail
from corelane.storage.news import (
    NOTHING,
    OUT_OF_SPACE,
    Lack,
    News,
    StorageFailureError,
    failure,
)
from corelane.storage.wal import WalFullError
from corelane_native import address_of

if TYPE_CHECKING:
    from corelane.storage.store import CoreStore

CAPTURES_PER_TURN_MAX: Final = 500


class Phase(Enum):
    """Where the current checkpoint stands."""

    IDLE = auto()
    FLUSHING = auto()
    CAPTURING = auto()
    SYNCING = auto()
    WRITING = auto()


class Checkpointing:
    """The state machine; `CoreStore` calls `advance` once per turn."""

    def __init__(self, store: "CoreStore") -> None:
        self.store = store
        self.phase = Phase.IDLE
        self.wanted = False
        self.is_stopped = False
        self.is_starved = False  # the WAL has no room for the remainders of the next row
        self.sequence = 0
        self.count = 0
        self.replay_lsn = Lsn(1)
        self._stopping = False
        self._flush_targets: dict[GroupLog, Index] = {}
        self._captures: deque[GroupLog] = deque()
        self._again_index = Index(0)  # the next entry of the first of them to put again
        self._rows: list[bytes] = []
        self._need_lsn = Lsn(0)
        self._await_lsn = Lsn(0)
        self._keep_lsn = Lsn(0)
        self._synced = False
        self.unsynced: dict[str, None] = {}  # what the sync under way was asked to cover
        self._unlinks: list[str] = []
        self._bytes_at_begin = 0
        self._bytes_at_last = 0

    @property
    def replay_bytes(self) -> int:
        """WAL bytes, about, that a recovery would have to load now."""
        return self.store.wal.bytes_put - self._bytes_at_last

    @property
    def wants_turn(self) -> bool:
        """Whether the next turn has captures to make."""
        if self.store.is_waiting_for_space:
            return False
        return self.phase is Phase.CAPTURING or (
            self._stopping and self.phase is Phase.IDLE and not self.is_stopped
        )

    @property
    def is_under_way(self) -> bool:
        """Whether a checkpoint is being taken."""
        return self.phase is not Phase.IDLE

    @property
    def _frees_space(self) -> bool:
        """Whether the disk is full and trimmed files wait for a checkpoint to go with.

        It must not wait for flushes then: they wait for the space.
        """
        return self.store.is_full and bool(self.store.unlinks)

    def stop(self) -> None:
        """Take one last checkpoint; then `is_stopped`."""
        self._stopping = True

    def needs(self, log: GroupLog) -> bool:
        """Whether the checkpoint under way waits for *log* to be flushed further."""
        return log in self._flush_targets

    def touched(self, log: GroupLog) -> None:
        """Take note that *log* was flushed further."""
        target = self._flush_targets.get(log)
        if target is not None and log.flushed_index >= target:
            del self._flush_targets[log]

    def dropped(self, log: GroupLog) -> None:
        """Take note that *log* has ended: nothing of it is waited for."""
        assert log.is_dropped
        self._flush_targets.pop(log, None)

    def take_unlinks(self, prefix: str) -> list[str]:
        """Return, and forget, what is to be removed of a directory that has ended."""
        taken = [path for path in self._unlinks if path.startswith(prefix)]
        self._unlinks = [path for path in self._unlinks if not path.startswith(prefix)]
        return taken

    def advance(self) -> None:
        """Do this turn's share."""
        if self.phase is Phase.IDLE:
            self._begin_if_due()
        if self.phase is Phase.FLUSHING and (not self._flush_targets or self._frees_space):
            self._begin_capture()
        if self.phase is Phase.CAPTURING:
            self._capture()
        if self.phase is Phase.SYNCING and self._synced:
            self._write_if_durable()

    def _begin_if_due(self) -> None:
        store = self.store
        if store.is_waiting_for_space:
            return  # each attempt would log the remainders again, and fail again
        due = store.wal.bytes_put - self._bytes_at_last >= store.settings.checkpoint_bytes
        due = due or self._frees_space  # nothing is put meanwhile that would make one due
        if self._stopping and store.wal.bytes_put == self._bytes_at_last and self.count:
            self.is_stopped = store.wal.is_idle
            return
        if not (due or self.wanted or self._stopping) or self.is_stopped:
            return
        self.wanted = False
        self.phase = Phase.FLUSHING
        self._bytes_at_begin = store.wal.bytes_put
        for log in store.groups.values():
            if log.flushed_index < log.committed_index:
                self._flush_targets[log] = log.committed_index
                log.want_flush()

    def _begin_capture(self) -> None:
        wal = self.store.wal
        assert self.phase is Phase.FLUSHING
        assert not self._captures
        self.phase = Phase.CAPTURING
        if self._flush_targets:  # what could not be flushed stays in the WAL
            self._bytes_at_begin = self._bytes_at_last
            self._flush_targets.clear()
        self._captures = deque([*self.store.groups.values(), *self.store.moving.logs()])
        # The rows do without these; what is trimmed from here on may still be in them.
        self._unlinks, self.store.unlinks = self.store.unlinks, []
        self._rows = []
        self._need_lsn = wal.next_lsn  # votes put from here on are not in the rows
        half = self.store.settings.wal_files_max // 2
        self._keep_lsn = wal.used[-half].first_lsn if len(wal.used) >= half else Lsn(0)

    def _capture(self) -> None:
        for _ in range(min(CAPTURES_PER_TURN_MAX, len(self._captures))):
            log = self._captures[0]
            if not log.is_dropped:
                try:
                    self._log_tail(log)
                    if not self._log_unflushed(log):
                        return
                except WalFullError:
                    self.is_starved = True
                    return
                except MemoryError:
                    return  # next turn there may be room
                self.is_starved = False
                applied, blob = self.store.moving.fold_of(log)
                if log.damage:  # nobody folds it any further, yet what is whole of it is flushed
                    applied = max(applied, log.flushed_index)
                self._rows.append(checkpoint.encode_group(log, applied, blob))
                self._need_lsn = min(self._need_lsn, _needed_from(log))
            self._captures.popleft()
            self._again_index = Index(0)
        if self._captures:
            return
        assert self._need_lsn >= self.replay_lsn, "what is needed of the WAL only rises"
        self.phase = Phase.SYNCING
        self.is_starved = False
        # The rows tell of records up to here (votes, drops): see C6.
        self._await_lsn = Lsn(self.store.wal.next_lsn - 1)
        self._synced = False
        self.unsynced, self.store.unsynced = self.store.unsynced, {}
        if self.unsynced:
            paths = [*self.unsynced, "partitions"]
            self.store.emit(Sync(self.store.job(self._sync_done), paths))
        else:
            self._synced = True

    def _log_tail(self, log: GroupLog) -> None:
        """Put the remainders into the WAL again where the row needs it (C5)."""
        if not log.is_dirty and log.tail_lsn >= self._keep_lsn:
            return
        items = log.segments.items
        if items and not items[-1].is_sealed:
            segment = items[-1]
            tail = Tail(segment.log.remainder, segment.rows.remainder, segment.control.remainder)
            payload = encode_tail(tail)
            lsn, _chunk, _position = self.store.wal.put(
                RecordKind.TAIL, Term(0), log.group, log.flushed_index, log.flushed_offset,
                (address_of(payload), len(payload)),
            )  # fmt: skip
            log.tail_lsn = lsn
        else:
            log.tail_lsn = Lsn(0)
        log.is_dirty = False

    def _log_unflushed(self, log: GroupLog) -> bool:
        """Put entries into the WAL again before they pin all of it (G4); False: not now.

        A group that has lost its quorum, or a follower that hears nothing, must not stop the rest.
        """
        first = Index(log.flushed_index + 1)
        if not self._again_index:
            if first > log.last_index or log.entry(first).lsn >= self._keep_lsn:
                return True
            if log.flushed_index < log.committed_index:
                return True  # the disk is full, and it is the segments that want room
            self._again_index = first
        if log.is_flushing:
            return False
        self._again_index = max(self._again_index, first)
        wal = self.store.wal
        while self._again_index <= log.last_index:
            if not wal.has_half_reserve:
                raise WalFullError  # after a start all is unflushed, and votes want room, too
            log.put_again(self._again_index)
            self._again_index = Index(self._again_index + 1)
        return True

    def _sync_done(self, done: DiskDone) -> News:
        assert self.phase is Phase.SYNCING
        assert not self._synced
        if done.error in OUT_OF_SPACE:
            self._give_up()
        elif done.error:
            raise StorageFailureError(failure("syncing segments", done.error))
        else:
            self.unsynced = {}
        self._synced = True
        return NOTHING

    def _write_if_durable(self) -> None:
        store = self.store
        if store.wal.durable_lsn < self._await_lsn:
            return
        assert self._synced, "C1: frontiers are durable first"
        self.phase = Phase.WRITING
        wal = store.wal
        # A write that fails may have torn its slot: the next attempt is for the same one (C4).
        sequence = self.sequence + 1
        data = checkpoint.encode(
            sequence, self._need_lsn, wal.durable_lsn, wal.generation, self._rows
        )
        self._rows = []
        path = checkpoint.SLOTS[sequence % len(checkpoint.SLOTS)]
        store.other_bytes_written += len(data)
        store.emit(CheckpointWrite(store.job(self._write_done), path, data))

    def _write_done(self, done: DiskDone) -> News:
        assert self.phase is Phase.WRITING
        if done.error in OUT_OF_SPACE:
            self._give_up()
            return NOTHING
        if done.error:
            raise StorageFailureError(failure("writing a checkpoint", done.error))
        store = self.store
        store.has_space(Lack.CHECKPOINT)
        self.phase = Phase.IDLE
        self.sequence += 1
        self.count += 1
        self.replay_lsn = self._need_lsn
        self._bytes_at_last = self._bytes_at_begin
        if self._stopping:
            self._bytes_at_last = store.wal.bytes_put
            self.is_stopped = True
        store.recycle(store.wal.release_before(self.replay_lsn))
        if self._unlinks:
            store.unlink(self._unlinks)
            self._unlinks = []
        return NOTHING

    def _give_up(self) -> None:
        """No space now: the old checkpoint stays good, the WAL keeps everything (C2)."""
        assert self.phase in {Phase.SYNCING, Phase.WRITING}
        assert not self._captures
        self.phase = Phase.IDLE
        self.wanted = True
        self.is_starved = False
        self._flush_targets.clear()
        self.store.unlinks += self._unlinks
        self._unlinks = []
        self.store.unsynced.update(self.unsynced)
        self.unsynced = {}
        self.store.out_of_space(Lack.CHECKPOINT)


def _needed_from(log: GroupLog) -> Lsn:
    """Return the oldest WAL record that recovery needs beside the row of *log*."""
    need = log.tail_lsn or Lsn(2**63)
    at = log.flushed_index + 1 - log.tail_first
    if at < len(log.tail):
        need = min(need, log.tail[at].lsn)
    return need
