"""Handing a group to another core of the node, and taking one from there.

    export: flushing -> syncing -> reading -> the parcel is handed out
    import: waiting -> linking -> waiting for room -> put -> the group is owned

Invariants (FORMAT.md, M):
M1. No core writes to a file that two have: it is closed, and synced before the parcel is made.
M2. Until the IMPORT record is durable the group is the source's, and nothing here counts.
M3. Of two cores that own a group, the one at the higher revision has it.
M5. A group comes back to a core only when the removal of its former files there was asked for.
"""

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from corelane.model.ids import CoreId, GroupId, Index, Lsn, Position, RecordKind
from corelane.storage.checkpoint import segments_of
from corelane.storage.effects import DiskDone, LinkFiles, Read, Sync, Unlink
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import BLOCK_BYTES
from corelane.storage.news import NOTHING, OUT_OF_SPACE, News, StorageFailureError, failure
from corelane.storage.parcel import Parcel, pack, readdressed
from corelane.storage.segments import Stream
from corelane.storage.wal import WalFullError
from corelane_native import address_of

if TYPE_CHECKING:
    from corelane.storage.store import CoreStore

CARRIED_BYTES_MAX: Final = 1 << 20
"""Rows and control entries that follow the last record: thirty thousand changes of leader."""

Exported = Callable[[Parcel | None], None]
"""Hears the parcel; None: the disk had no room, or did not read: the group stays as it was."""

Imported = Callable[[GroupLog | None, str], None]
"""Hears of the log that is owned now, durably; or None and why not, and nothing of it is kept."""


class Export:
    """A group that is being packed."""

    def __init__(self, log: GroupLog, done: Exported) -> None:
        self.log = log
        self.done = done
        self.is_syncing = False
        self.is_over = False
        self.reads_left = 0
        self.carried: dict[str, bytes] = {}


class Import:
    """A group that is being taken; it can fail until its record is put."""

    def __init__(self, parcel: Parcel, source: CoreId, done: Imported) -> None:
        self.parcel = parcel
        self.payload = parcel.encode()
        self.source = source
        self.done = done
        self.segments = segments_of(parcel.image, parcel.tail)
        self.names = [path for segment in self.segments.items for path in segment.paths]
        self.is_begun = False
        self.is_linked = False
        self.is_failed = False
        self.lsn = Lsn(0)
        self.log: GroupLog | None = None


class Moving:
    """All exports and imports of one core."""

    def __init__(self, store: "CoreStore") -> None:
        self._store = store
        self._exports: dict[GroupId, Export] = {}
        self.imports: dict[GroupId, Import] = {}

    # --- export ---

    def export_group(self, log: GroupLog, done: Exported) -> None:
        """See `CoreStore.export_group`."""
        assert log.group not in self._exports
        assert log.committed_index == log.last_index, "only what is committed moves"
        assert not log.damage, "nobody knows what a damaged log holds"
        log.is_leaving = True
        export = self._exports[log.group] = Export(log, done)
        self._go_on(export)

    def forget(self, log: GroupLog) -> None:
        """End an export of *log*, whose `done` hears nothing any more."""
        export = self._exports.pop(log.group, None)
        if export is not None:
            export.is_over = True
        log.is_leaving = False

    def flushed(self, log: GroupLog, *, is_failed: bool) -> None:
        """Take note that a flush of *log* is over."""
        export = self._exports.get(log.group)
        if export is None or export.is_syncing:
            return
        if is_failed:
            self._keep(export)
        else:
            self._go_on(export)

    def _go_on(self, export: Export) -> None:
        """Flush what is not in the segments, close the last one, and sync them."""
        log = export.log
        if log.is_flushing:
            return
        if log.flushed_index < log.committed_index or log.wants_seal:
            log.want_flush()
            return
        export.is_syncing = True
        store = self._store
        paths = [path for segment in log.segments.items for path in segment.paths]
        paths.append(log.descriptor.directory)
        unsynced = (store.unsynced, store.checkpointing.unsynced)
        wanted = [path for path in paths if any(path in some for some in unsynced)]
        store.emit(
            Sync(store.job(lambda done: self._synced(export, done)), [*wanted, "partitions"])
        )

    def _synced(self, export: Export, done: DiskDone) -> News:
        if done.error and done.error not in OUT_OF_SPACE:
            raise StorageFailureError(failure("syncing segments", done.error))
        if export.is_over:
            return NOTHING
        streams = _open_streams(export.log)
        if done.error or sum(s.frontier for s in streams) > CARRIED_BYTES_MAX:
            self._keep(export)
            return NOTHING
        for stream in streams:
            if not self._read(export, stream):
                self._keep(export)
                return NOTHING
        self._pack(export)
        return NOTHING

    def _read(self, export: Export, stream: Stream) -> bool:
        """Read a whole file of the last segment; False when there is no memory for it now."""
        store, size = self._store, stream.frontier
        path = export.log.segments.items[-1].path(stream)
        try:
            chunk = store.chunks.take(size)
        except MemoryError:
            return False

        def answered(done: DiskDone) -> News:
            data = bytes(store.arena.view(chunk, 0, size))
            store.arena.release(chunk)
            export.reads_left -= 1
            if export.is_over:
                return NOTHING
            if done.error:
                self._keep(export)
            else:
                export.carried[stream.suffix] = data
                self._pack(export)
            return NOTHING

        export.reads_left += 1
        store.emit(Read(store.job(answered), path, Position(0), size, chunk))
        return True

    def _pack(self, export: Export) -> None:
        if export.reads_left:
            return
        log = export.log
        assert not log.is_flushing, "V2: nothing is appended meanwhile"
        assert not log.wants_seal
        del self._exports[log.group]
        export.is_over = True
        carried = export.carried
        export.done(pack(log, carried.get("entries", b""), carried.get("control", b"")))

    def _keep(self, export: Export) -> None:
        self.forget(export.log)
        export.done(None)

    # --- import ---

    def import_group(
        self,
        parcel: Parcel,
        revision: int,
        fold: tuple[Index, bytes],
        source: CoreId,
        done: Imported,
    ) -> None:
        """See `CoreStore.import_group`."""
        assert parcel.group not in self._store.groups, "M3: a core owns a group once"
        assert parcel.group not in self.imports
        taking = Import(readdressed(parcel, revision, *fold), source, done)
        self.imports[parcel.group] = taking
        self._begin(taking)

    def advance(self) -> None:
        """Go on with the imports that wait for a removal or for room."""
        for taking in [*self.imports.values()]:
            if not taking.is_begun:
                self._begin(taking)
            elif taking.is_linked and not taking.lsn and not taking.is_failed:
                self._put(taking)

    @property
    def is_waiting(self) -> bool:
        """Whether an import waits for what no answer of the disk tells."""
        return any(not taking.is_begun or taking.is_linked for taking in self.imports.values())

    def _begin(self, taking: Import) -> None:
        """Link the files, once those of the group's former time here are gone (M5)."""
        store = self._store
        if store.dropping.holds(taking.parcel.group):
            return
        taking.is_begun = True
        if len(taking.payload) > store.settings.wal_file_bytes - 2 * BLOCK_BYTES:
            self._fail(taking, "its state does not fit a file of the write-ahead log")
        elif taking.names:
            other = f"../core-{taking.source:02d}"
            pairs = [(f"{other}/{name}", name) for name in taking.names]
            store.emit(LinkFiles(store.job(lambda done: self._linked(taking, done)), pairs))
        else:
            taking.is_linked = True

    def _linked(self, taking: Import, done: DiskDone) -> News:
        if done.error == errno.EIO:
            raise StorageFailureError(failure("linking segments", done.error))
        if done.error:
            name = errno.errorcode.get(done.error, str(done.error))
            self._fail(taking, f"its files cannot be linked into this core's directory: {name}")
        taking.is_linked = True
        return NOTHING

    def _put(self, taking: Import) -> None:
        """Put the IMPORT record when there is room that is not reserved."""
        store, image = self._store, taking.parcel.image
        state = image.state
        if not store.wal.has_room(len(taking.payload)):
            if store.is_full:
                self._fail(taking, "the disk is full")
            return
        try:
            lsn, _chunk, _position = store.wal.put(
                RecordKind.IMPORT, state.term, taking.parcel.group, state.flushed_index,
                state.flushed_offset, (address_of(taking.payload), len(taking.payload)),
            )  # fmt: skip
        except (WalFullError, MemoryError):
            return
        taking.lsn = lsn
        state = replace(state, term_starts=[*state.term_starts])
        log = taking.log = GroupLog(store, image.descriptor, state)
        log.segments = taking.segments
        log.last_lsn = lsn
        log.tail_lsn = lsn  # replay of this group starts at its IMPORT record

    def durable(self) -> None:
        """Own the groups whose record is durable."""
        durable_lsn = self._store.wal.durable_lsn
        for group, taking in [*self.imports.items()]:
            if taking.log is not None and taking.lsn <= durable_lsn:
                del self.imports[group]
                self._store.groups[group] = taking.log
                taking.done(taking.log, "")

    def _fail(self, taking: Import, why: str) -> None:
        """Remove the links, then tell: nothing of the group is kept (M2)."""
        assert not taking.lsn, "what is in the log stays"
        assert not taking.is_failed
        taking.is_failed = True

        def removed(done: DiskDone) -> News:
            del done  # what could not be removed is nobody's, and goes at the next start
            del self.imports[taking.parcel.group]
            taking.done(None, why)
            return NOTHING

        store = self._store
        paths = [*taking.names, taking.parcel.descriptor.directory]
        store.emit(Unlink(store.job(removed), paths))

    # --- checkpoints ---

    def logs(self) -> list[GroupLog]:
        """Return the logs that are in the WAL already, and not in `CoreStore.groups` yet."""
        return [taking.log for taking in self.imports.values() if taking.log is not None]

    def fold_of(self, log: GroupLog) -> tuple[Index, bytes]:
        """Return the fold for *log*'s row."""
        taking = self.imports.get(log.group)
        if taking is not None and taking.log is log:
            image = taking.parcel.image
            return image.applied_index, image.blob
        return self._store.state_of(log.group)


def _open_streams(log: GroupLog) -> list[Stream]:
    """Return the streams with a file of a segment that could not be closed."""
    items = log.segments.items
    if not items or items[-1].is_sealed:
        return []
    assert items[-1].log.size_bytes == 0, "M1: what holds records is closed"
    return [stream for stream in items[-1].streams if stream.frontier]
