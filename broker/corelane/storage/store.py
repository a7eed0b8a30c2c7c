"""Everything one core keeps on disk, as the one object its shard holds.

Nothing here does I/O: `turn_effects` says what the disk must do, `on_done` takes its answers.
A failed WAL write or sync raises `StorageFailureError`: the core exits at once and never retries,
because after a failed sync nobody knows what is on the disk (fsyncgate).
"""

# performance-critical: see STYLE.md

from collections import deque
from collections.abc import Callable
from typing import Final

from corelane.model.ids import (
    NO_MEMBER,
    ChunkId,
    CoreId,
    GroupId,
    Index,
    JobId,
    Lsn,
    Offset,
    RecordKind,
    Term,
)
from corelane.model.limits import SEGMENT_WRITE_BYTES_MAX
from corelane.model.record import record
from corelane.raft.loss import Loss
from corelane.storage import flush as flushing
from corelane.storage import installing, renewing
from corelane.storage.checkpointing import Checkpointing
from corelane.storage.chunks import Chunks
from corelane.storage.dropping import Dropping
from corelane.storage.effects import (
    DiskDone,
    DiskEffect,
    Unlink,
    WalPrepare,
    WalWrite,
)
from corelane.storage.entries import ENTRIES_MAX
from corelane.storage.flush import Flush, NextJob
from corelane.storage.group_log import GroupLog, LogState
from corelane.storage.installing import Installing, PrefixSnapshot
from corelane.storage.layout import NO_TIMESTAMP, Descriptor, encode_descriptor
from corelane.storage.moving import Exported, Imported, Moving
from corelane.storage.news import (
    NOTHING,
    OUT_OF_SPACE,
    Lack,
    News,
    StorageFailureError,
    failure,
)
from corelane.storage.parcel import Parcel
from corelane.storage.reading import Reading
from corelane.storage.segments import Segment
from corelane.storage.shipping import Shipping
from corelane.storage.wal import Wal, WalFile
from corelane_native import Arena, Received, address_of

FLUSHES_PER_TURN_MAX: Final = 16
RETRY_TURNS: Final = 100
HOLD_ROOM_BYTES: Final = 1024 * 1024
"""Room in prepared WAL files below which produce waits for the next file."""


@record
class StoreSettings:
    """Sizes, in bytes, that an operator may choose."""

    wal_file_bytes: int
    wal_files_max: int
    wal_flight_bytes_max: int
    checkpoint_bytes: int
    recent_bytes: int = 1 << 62
    """Of chunks that stay in memory for readers, at most; half of the arena in any case."""


class CoreStore:
    """The WAL, arena chunks, group logs and checkpoints of one core."""

    def __init__(
        self, arena: Arena, arena_bytes: int, settings: StoreSettings, chunks: Chunks, wal: Wal
    ) -> None:
        self.arena = arena
        self.arena_bytes = arena_bytes
        self.settings = settings
        self._recent_bytes = min(settings.recent_bytes, arena_bytes // 2)
        self.chunks = chunks
        self.wal = wal
        self.groups: dict[GroupId, GroupLog] = {}
        self.flush_queue: deque[GroupLog] = deque()
        self.state_of: Callable[[GroupId], tuple[Index, bytes]] = _no_state
        self.next_job = NextJob()
        self.lacks: set[Lack] = set()  # what there was no space for when it was last tried
        self.file_number = 0
        self.segment_bytes_written = 0
        self.segment_bytes_trimmed = 0
        self.other_bytes_written = 0
        self.unsynced: dict[str, None] = {}
        self.unlinks: list[str] = []
        self.checkpointing = Checkpointing(self)
        self.dropping = Dropping(self)
        self.installing = Installing(self)
        self.moving = Moving(self)
        self.reading = Reading(self)
        self.shipping = Shipping(self)
        self.received = Received(ENTRIES_MAX)
        self._jobs: dict[JobId, Callable[[DiskDone], News]] = {}
        self._effects: list[DiskEffect] = []
        self._borrowed: dict[int, list[ChunkId]] = {}
        self._preparing = False
        self._retry_turns = 0

    # --- groups ---

    def create_group(self, descriptor: Descriptor) -> GroupLog:
        """Make an empty log for a new group; its OWN record is durable with the next write."""
        assert descriptor.group not in self.groups
        assert descriptor.group not in self.moving.imports
        log = GroupLog(self, descriptor, empty_state())
        payload = encode_descriptor(descriptor)
        lsn, _chunk, _position = self.wal.put(
            RecordKind.OWN, Term(0), log.group, Index(0), log.next_offset,
            (address_of(payload), len(payload)),
        )  # fmt: skip
        log.last_lsn = lsn
        log.tail_lsn = lsn  # replay of this group starts at its OWN record
        self.groups[log.group] = log
        self.checkpointing.touched(log)
        return log

    def drop_group(self, log: GroupLog) -> None:
        """Forget a group for ever; its files go when the DROP record is durable."""
        self._end(log, RecordKind.DROP)

    def export_group(self, log: GroupLog, done: Exported) -> None:
        """Make the parcel with which another core goes on with *log*, and hand it to *done*.

        Everything of the log is committed and durable. Nothing may be appended or voted until
        `keep_group`, when nobody took it, or `release_group`, when somebody has. *done* is called
        in a later step, once, but never after one of these or `drop_group`.
        """
        assert self.groups[log.group] is log
        self.moving.export_group(log, done)

    def keep_group(self, log: GroupLog) -> None:
        """Go on with a log that was to leave: nobody took it."""
        assert self.groups[log.group] is log
        self.moving.forget(log)

    def release_group(self, log: GroupLog) -> None:
        """Forget a group that another core has, durably, at a higher revision.

        Its names of the files go when the MOVED record is durable; the other core's stay.
        """
        self._end(log, RecordKind.MOVED)

    def import_group(
        self,
        parcel: Parcel,
        revision: int,
        fold: tuple[Index, bytes],
        source: CoreId,
        done: Imported,
    ) -> None:
        """Own the group in *parcel* from now on, at that revision, with the state of its fold.

        *source* is the core whose directory its files are linked from; it must keep them until
        *done* is called, in a later step and once. Until then the group is not in `groups`.
        """
        self.moving.import_group(parcel, revision, fold, source, done)

    def snapshot(
        self, log: GroupLog, applied: Index, fold: bytes, *, is_whole: bool = False
    ) -> PrefixSnapshot:
        """Return what a replica needs that lacks entries which *log* has no more.

        It begins where *log* does, and what *log* has follows as entries; *fold* is of everything
        up to *applied*, committed. *is_whole*: it begins behind all that is committed, for groups
        whose log is only there to be folded.
        """
        return installing.take(log, applied, fold, is_whole=is_whole)

    def install(self, log: GroupLog, snapshot: PrefixSnapshot) -> Lsn:
        """Discard all that *log* holds; it begins anew, as *snapshot* says, behind the committed.

        Reported with its last index, as entries are, when it is durable. Raises WalFullError or
        MemoryError when there is no room now, LayoutError when it can never be put; nothing has
        changed then.
        """
        return self.installing.install(log, snapshot)

    def renew(self, log: GroupLog, loss: Loss, damaged: Segment | None = None) -> None:
        """Cut damage off a log: it goes back to where it is whole, and says that it lost the rest.

        *damaged* is the segment that cannot be read; none: the damage is in the write-ahead log.
        All that the group said before must be durable. Raises WalFullError or MemoryError when
        there is no room now, LayoutError when it can never be put; nothing has changed then.
        """
        renewing.renew(self, log, loss, damaged)

    def _end(self, log: GroupLog, kind: RecordKind) -> None:
        assert self.groups[log.group] is log
        assert not log.is_dropped
        del self.groups[log.group]
        log.is_dropped = True
        self.has_space(Lack.SEGMENT)  # it may have been the one without; others try again
        log.let_go()
        self.moving.forget(log)
        self.checkpointing.dropped(log)
        self.dropping.add(log, kind)

    def delete_files(self, log: GroupLog) -> None:
        """Remove the directory of a group that ended here (its record is durable)."""
        paths = [p for segment in log.segments.items for p in segment.paths]
        paths += self.take_unlinks(log.descriptor.directory + "/")
        self.unlink([*paths, log.descriptor.directory])

    def take_unlinks(self, prefix: str) -> list[str]:
        """Return, and forget, trimmed files that wait for a checkpoint: no row names them now."""
        paths = [p for p in self.unlinks if p.startswith(prefix)]
        self.unlinks = [p for p in self.unlinks if not p.startswith(prefix)]
        return paths + self.checkpointing.take_unlinks(prefix)

    def trimmed(self, log: GroupLog) -> None:
        """Delete the segments that lie wholly below the log's new start."""
        items = log.segments.items
        paths: list[str] = []
        while len(items) > 1 and items[1].base_offset <= log.start_offset:
            if not items[0].is_sealed:
                break
            segment = log.segments.drop_first()
            first = items[0].base_index
            log.began_at(first, log.term_at(Index(first - 1)))
            paths += segment.paths
            self.segment_bytes_trimmed += segment.log.size_bytes
        if paths:
            self.unlinks += paths

    # --- the turn ---

    def turn_effects(self) -> list[DiskEffect]:
        """Return what the disk must do now; called once at the end of every turn."""
        if self._retry_turns:
            self._retry_turns -= 1
        elif self.flush_queue:
            self._start_flushes()
        if self.dropping.is_waiting:
            self.dropping.advance()
        if self.moving.imports:
            self.moving.advance()
        self.checkpointing.advance()
        if not self.wal.spares or self.lacks:
            self._prepare_file()
        chunks = self.chunks
        if chunks.lent_bytes:
            chunks.take_back()
        if self.shipping.held_bytes:
            self.shipping.take_back()
        if self.reading.is_waiting:
            self.reading.advance()
        if self.shipping.is_waiting:
            self.shipping.advance()
        if chunks.log_bytes > self._recent_bytes:
            chunks.evict(self._recent_bytes)
        effects, self._effects = self._effects, []
        write = self.take_write()
        return effects if write is None else [write, *effects]

    def take_write(self) -> WalWrite | None:
        """Return the log's next write, if there is one and none is in flight."""
        wal = self.wal
        return wal.take_write(self.job(self._wal_done)) if wal.can_write else None

    def on_done(self, done: DiskDone) -> News:
        """Take an answer; StorageFailureError when the core must exit."""
        return self._jobs.pop(done.job)(done)

    @property
    def must_hold(self) -> bool:
        """Whether no produce may be read for now; everything else goes on."""
        in_use, arena_bytes = self.arena.bytes_in_use, self.arena_bytes
        return (
            self.wal.room_bytes < HOLD_ROOM_BYTES
            or self.wal.flight_bytes > self.settings.wal_flight_bytes_max
            or in_use - self.chunks.lent_bytes > arena_bytes * 9 // 16
            or in_use > arena_bytes * 7 // 8
            or self.checkpointing.replay_bytes > arena_bytes // 2
        )

    def has_room(self, size_bytes: int) -> bool:
        """Whether batches of *size_bytes* together can be put now."""
        spread = size_bytes + size_bytes // 8 + 64 * 1024
        in_use = self.arena.bytes_in_use
        return spread < self.wal.room_bytes and in_use + 2 * spread < self.arena_bytes

    @property
    def has_effects(self) -> bool:
        """Whether the disk has something else to do than to write the log."""
        return bool(self._effects)

    @property
    def wants_turn(self) -> bool:
        """Whether there is work for the next turn even if nothing happens."""
        queued = bool(self.flush_queue) and not self._retry_turns
        return bool(self._effects) or queued or self.checkpointing.wants_turn

    @property
    def is_waiting(self) -> bool:
        """Whether a turn is wanted in a while: space may come back, a checkpoint may go on."""
        waits = self.dropping.is_waiting or self.moving.is_waiting
        waits = waits or self.reading.is_waiting or self.shipping.is_waiting
        return waits or self._retry_turns > 0 or self.checkpointing.is_under_way

    @property
    def is_stopped(self) -> bool:
        """Whether the last checkpoint, asked for by `stop`, is durable."""
        return self.checkpointing.is_stopped and self.wal.is_idle

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for the disk."""
        waits = self.dropping.is_waiting or self.moving.is_waiting
        return not waits and not self._jobs and self.wal.is_idle

    def recovered(self) -> None:
        """Take a checkpoint of what was replayed, now that it is committed again.

        Every recovery begins a new WAL file; a core that was killed often, before its first
        checkpoint was due, would otherwise replay a chain of them that only grows.
        """
        if self.wal.used:
            self.checkpointing.wanted = True

    def stop(self) -> None:
        """Begin the last checkpoint; `checkpointing.is_stopped` tells when it is durable."""
        self.checkpointing.stop()

    # --- jobs ---

    def job(self, done: Callable[[DiskDone], News]) -> JobId:
        """Return a new job whose answer goes to *done*."""
        job = self.next_job()
        self._jobs[job] = done
        return job

    def emit(self, effect: DiskEffect) -> None:
        """Add an effect to this turn's."""
        self._effects.append(effect)

    def _wal_done(self, done: DiskDone) -> News:
        if done.error:
            raise StorageFailureError(failure("writing the write-ahead log", done.error))
        write = self.wal.written()
        assert write.lsn_upto == self.wal.durable_lsn
        self.installing.delete_files()
        self.dropping.delete_files()
        if self.moving.imports:
            self.moving.durable()
        entries = [(log, *note) for log, note in write.entries.items()]
        return News(entries, write.votes)

    # --- WAL files ---

    def _prepare_file(self) -> None:
        """Keep one prepared file ahead, so that a full file never makes a write wait."""
        wal = self.wal
        if wal.spares:
            self.has_space(Lack.WAL)
            return
        if self._preparing or self._retry_turns:
            return
        if 1 + len(wal.used) >= self.settings.wal_files_max:
            self.checkpointing.wanted = True
            if not self.checkpointing.is_starved:
                return  # else only one file more than allowed can end the checkpoint
        self._preparing = True
        self.file_number += 1
        path = f"wal/{self.file_number:08d}.wal"
        size = self.settings.wal_file_bytes
        self.emit(WalPrepare(self.job(lambda done: self._prepared(done, path, size)), path, size))

    def _prepared(self, done: DiskDone, path: str, size_bytes: int) -> News:
        assert self._preparing, "one file is prepared at a time"
        self._preparing = False
        if done.error in OUT_OF_SPACE:
            self.out_of_space(Lack.WAL)
        elif done.error:
            raise StorageFailureError(failure(f"preparing {path}", done.error))
        else:
            self.wal.spares.append(WalFile(path, size_bytes, 0))
        return NOTHING

    def recycle(self, files: list[WalFile]) -> None:
        """Take files no checkpoint needs any more: ordinary ones are used again, others go.

        As many are kept as there may be: one that is made anew is written twice.
        """
        wal = self.wal
        for file in files:
            assert file is not wal.file, "W5: no record of it is needed"
            has_room = 1 + len(wal.used) + len(wal.spares) < self.settings.wal_files_max
            if file.size_bytes == self.settings.wal_file_bytes and has_room:
                wal.spares.append(file)
            else:
                self.emit(Unlink(self.job(_ignored), [file.path]))

    @property
    def is_full(self) -> bool:
        """Whether the disk had no room for something: produce is refused, reads go on."""
        return bool(self.lacks)

    @property
    def is_waiting_for_space(self) -> bool:
        """Whether it is too early to try again what found no room."""
        return self._retry_turns > 0 and self.is_full

    def out_of_space(self, lack: Lack) -> None:
        """Refuse produce, and try again in a while; reads go on."""
        self.lacks.add(lack)
        self._retry_turns = RETRY_TURNS

    def has_space(self, lack: Lack) -> None:
        """Take note that there is room for this now, or that nobody needs it any more."""
        self.lacks.discard(lack)

    def unlink(self, paths: list[str]) -> None:
        """Remove files that nobody needs; no later sync may name them."""
        for path in paths:
            self.unsynced.pop(path, None)
            self.checkpointing.unsynced.pop(path, None)
        self.emit(Unlink(self.job(_ignored), paths))

    # --- flushing ---

    def _start_flushes(self) -> None:
        for _ in range(min(FLUSHES_PER_TURN_MAX, len(self.flush_queue))):
            log = self.flush_queue.popleft()
            log.is_flush_wanted = False
            if log.is_dropped or log.is_flushing:
                continue
            if not self._start_flush(log):
                log.want_flush()
                self._retry_turns = 1
                return

    def _start_flush(self, log: GroupLog) -> bool:
        """Start a flush; False when the arena has no room for it now."""
        try:
            flush = flushing.plan(log, self.arena)
        except MemoryError:
            return False
        if flush is None:
            return True
        try:
            writes = flushing.effects(flush, self.arena, lambda: self._flush_job(flush))
        except MemoryError:
            self._release(flush)
            for job in flush.jobs:  # of writes that are not asked for now
                del self._jobs[job]
            return False
        log.is_flushing = True
        assert len(flush.jobs) == len(writes)
        if not writes:
            self._flush_over(flush)
            return True
        for write in writes:
            flush.paths.append(write.path)
            self.segment_bytes_written += write.size_bytes
            self.emit(write)
        return True

    def _flush_job(self, flush: Flush) -> JobId:
        return self.job(lambda done: self._flush_written(flush, done))

    def _flush_written(self, flush: Flush, done: DiskDone) -> News:
        if done.error in OUT_OF_SPACE:
            flush.is_failed = True
            if not flush.log.is_dropped:
                self.out_of_space(Lack.SEGMENT)
        elif done.error and not flush.log.is_dropped:
            raise StorageFailureError(
                failure(f"writing a segment of {flush.log.descriptor.directory}", done.error)
            )
        assert done.job in flush.jobs
        flush.jobs.remove(done.job)
        if not flush.jobs:
            self._flush_over(flush)
        return NOTHING

    def _flush_over(self, flush: Flush) -> None:
        """End a flush, and begin the log's next one if there is more (F2, F3)."""
        log = flush.log
        assert log.is_flushing, "F2"
        assert not flush.jobs, "F2: every write is answered"
        log.is_flushing = False
        self._release(flush)
        self.installing.delete_files()
        if flush.is_failed:
            log.want_flush()
            self.moving.flushed(log, is_failed=True)
            self.dropping.delete_files()
            return
        if flush.paths:
            self.has_space(Lack.SEGMENT)
        if flush.log_life != log.life:
            log.want_flush()  # what was flushed is of the log that it was before
            self.moving.flushed(log, is_failed=False)
            self.dropping.delete_files()
            return
        flushing.finish(flush)
        self.checkpointing.touched(log)
        if log.is_dropped:
            self.dropping.delete_files()
            return
        self.trimmed(log)  # what was flushed may lie below the start already
        if flush.paths:
            self.unsynced.update(dict.fromkeys((*flush.paths, log.descriptor.directory)))
        more = log.flushed_index < log.committed_index
        if more and (
            log.unflushed_bytes >= SEGMENT_WRITE_BYTES_MAX
            or flush.seals
            or log.flushed_offset < log.start_offset
            or flushing.is_left_behind(log)
            or self.checkpointing.needs(log)
        ):
            log.want_flush()
        self.moving.flushed(log, is_failed=False)

    def _release(self, flush: Flush) -> None:
        for chunk in self._borrowed.pop(id(flush), []):
            self.arena.release(chunk)
        if flush.chunk is not None:
            self.arena.release(flush.chunk)

    def borrow(self, flush: Flush, chunk: ChunkId) -> None:
        """Release *chunk* when *flush* is over."""
        self._borrowed.setdefault(id(flush), []).append(chunk)


def empty_state() -> LogState:
    """Return the state of a log that never had an entry."""
    return LogState(
        Term(0), NO_MEMBER, Index(0), Offset(0), Term(0), Index(1), Term(0), Offset(0),
        NO_TIMESTAMP, [],
    )  # fmt: skip


def _no_state(group: GroupId) -> tuple[Index, bytes]:
    raise AssertionError(f"nobody folds group {group}")


def _ignored(done: DiskDone) -> News:
    """A file that could not be removed is found again, as an orphan, at the next start."""
    del done
    return NOTHING
