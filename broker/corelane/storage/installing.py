"""Replicas that begin anew: what a leader tells one that needs entries it has no more.

A prefix snapshot is small: the configuration, the fold, and where the log begins. The data are the
log: what the leader still has of it follows as entries.

Invariants (FORMAT.md, N):
N1. An INSTALL record ends all that its group's log was before it: of a log's entries, segments and
    damage none from before it counts, and none is missing from behind it.
N2. A log never begins anew below what is committed in it.
N3. The files of the log before go when the record is durable, and no flush of it is under way.
"""

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from corelane.model.ids import Index, Lsn, Offset, RecordKind, Term
from corelane.model.record import record
from corelane.raft.loss import Loss
from corelane.storage.checkpoint import GroupImage, segment_image
from corelane.storage.configurations import CONFIGURATION_BYTES_MAX, Configured
from corelane.storage.group_log import GroupLog, LogState
from corelane.storage.layout import BLOCK_BYTES, NO_TIMESTAMP, Descriptor, LayoutError, Tail
from corelane.storage.parcel import Parcel
from corelane.storage.segments import Segment
from corelane.storage.wal import WalFullError
from corelane_native import address_of

if TYPE_CHECKING:
    from corelane.storage.store import CoreStore

_VERSION: Final = 1
_HEAD: Final = struct.Struct("<IIQqIQqQQI")
"""Version; last term; last index; next offset; run of the last term: its length in words (0: not
known), index, offset; configuration: index; fold: applied index; bytes of the configuration."""


@record
class PrefixSnapshot:
    """What a log is that begins behind *last_index*: nothing at or before it is ever shipped."""

    last_index: Index
    last_term: Term
    next_offset: Offset
    """Where the records of the log begin: of the entry behind *last_index*."""
    run: tuple[Index, Offset] | None
    """Where the run of entries of *last_term* began; None where the leader knows no more."""
    configuration: Configured
    """In force at *last_index*; index 0: that of the group's beginning."""
    applied_index: Index
    """Of the fold: at or behind *last_index*, so the entries up to it change no fold."""
    fold: bytes

    def encode(self) -> bytes:
        """Return the snapshot as it travels."""
        configured_index, configuration = self.configuration
        run_index, run_offset = self.run or (Index(0), Offset(0))
        head = _HEAD.pack(
            _VERSION, self.last_term, self.last_index, self.next_offset, self.run is not None,
            run_index, run_offset, configured_index, self.applied_index, len(configuration),
        )  # fmt: skip
        return head + configuration + self.fold

    @staticmethod
    def decode(data: bytes) -> "PrefixSnapshot":
        """Return what `encode` made; LayoutError otherwise."""
        if len(data) < _HEAD.size:
            raise LayoutError("a snapshot is cut")
        version, term, index, offset, is_known, *words = _HEAD.unpack_from(data)
        run_index, run_offset, configured_index, applied_index, configuration_bytes = words
        if version != _VERSION:
            raise LayoutError(f"a snapshot of version {version}")
        fold_at = _HEAD.size + configuration_bytes
        is_configured = configured_index > 0
        is_whole = fold_at <= len(data) and configuration_bytes <= CONFIGURATION_BYTES_MAX
        is_ordered = 0 < index <= applied_index and offset >= 0 and configured_index <= index
        if not (is_whole and is_ordered and is_configured == (configuration_bytes > 0)):
            raise LayoutError("a snapshot's numbers do not fit each other")
        if is_known not in {0, 1} or (is_known and not 0 < run_index <= index):
            raise LayoutError("a snapshot's last term begins behind its end")
        return PrefixSnapshot(
            Index(index), Term(term), Offset(offset),
            (Index(run_index), Offset(run_offset)) if is_known else None,
            (Index(configured_index), data[_HEAD.size : fold_at]),
            Index(applied_index), data[fold_at:],
        )  # fmt: skip


def take(log: GroupLog, applied_index: Index, fold: bytes, *, is_whole: bool) -> PrefixSnapshot:
    """Return the snapshot for a replica that needs what *log* has no more; see `CoreStore`."""
    assert not log.damage, "nobody knows what a damaged log holds"
    items = log.segments.items
    last_index = Index(log.first_index - 1)
    offset = items[0].base_offset if items else log.flushed_offset
    assert not items or items[0].base_index == log.first_index
    if is_whole:
        last_index, offset = log.committed_index, log.committed_offset
    assert 0 < last_index <= applied_index <= log.committed_index, "a snapshot is of the committed"
    runs = [start for start in log.term_starts if start[1] <= last_index]
    run = (runs[-1][1], runs[-1][2]) if runs else None
    return PrefixSnapshot(
        last_index, log.term_at(last_index), offset, run, log.configured.at(last_index),
        applied_index, fold,
    )  # fmt: skip


def state_of(snapshot: PrefixSnapshot, log: GroupLog) -> LogState:
    """Return the state of a log that begins behind *snapshot*; its term and vote stay."""
    starts = []
    if snapshot.run is not None:
        starts = [(snapshot.last_term, *snapshot.run)]
    configured = [snapshot.configuration] if snapshot.configuration[0] else []
    return LogState(
        log.term, log.voted_for, snapshot.last_index, snapshot.next_offset, snapshot.last_term,
        Index(snapshot.last_index + 1), snapshot.last_term, snapshot.next_offset, NO_TIMESTAMP,
        starts, configured,
    )  # fmt: skip


@record
class Beginning:
    """What a log begins anew with."""

    kind: RecordKind
    descriptor: Descriptor
    state: LogState
    applied: Index
    fold: bytes
    segments: list[Segment]
    tail: Tail
    loss: Loss | None


class Installing:
    """The logs of a core that have begun anew, while files of what they were are still there."""

    def __init__(self, store: "CoreStore") -> None:
        self._store = store
        self._put: list[tuple[Lsn, GroupLog, list[str]]] = []

    def install(self, log: GroupLog, snapshot: PrefixSnapshot) -> Lsn:
        """See `CoreStore.install`."""
        assert snapshot.last_index > log.committed_index, "N2"
        assert snapshot.last_term <= log.term, "raft has the term on disk first"
        state = state_of(snapshot, log)
        nothing = Tail(b"", b"", b"")
        beginning = Beginning(
            RecordKind.INSTALL, log.descriptor, state, snapshot.applied_index, snapshot.fold,
            [], nothing, log.loss,
        )  # fmt: skip
        return self.begin_anew(log, beginning)

    def begin_anew(self, log: GroupLog, beginning: Beginning) -> Lsn:
        """Put the record, and make *log* what it says."""
        store, wal, state = self._store, self._store.wal, beginning.state
        assert store.groups[log.group] is log
        assert not log.is_leaving, "the other core would not know"
        kept = beginning.segments
        image = GroupImage(
            beginning.descriptor, state, Lsn(0), beginning.applied, beginning.fold,
            [segment_image(each) for each in kept], "", beginning.loss, log.renewed_lsn,
        )  # fmt: skip
        payload = Parcel(image, beginning.tail).encode()
        if len(payload) > store.settings.wal_file_bytes - 2 * BLOCK_BYTES:
            raise LayoutError("the group's state does not fit a file of the write-ahead log")
        if not wal.has_room(len(payload)):
            raise WalFullError
        lsn, _chunk, _position = wal.put(
            beginning.kind, state.flushed_term, log.group, state.flushed_index,
            state.flushed_offset, (address_of(payload), len(payload)),
        )  # fmt: skip
        gone = [segment for segment in log.segments.items if segment not in kept]
        paths = [path for segment in gone for path in segment.paths]
        if log.is_flushing and gone:  # it makes files, perhaps
            paths += [gone[-1].path(s) for s in gone[-1].streams if not s.frontier]
        log.descriptor = beginning.descriptor
        log.begin_anew(replace(state, term_starts=[*state.term_starts]), beginning.applied, lsn)
        for segment in kept:
            log.segments.append(segment)
        log.loss = beginning.loss
        if beginning.kind == RecordKind.RENEW:
            log.renewed_lsn = lsn
        if log.last_index:
            wal.note_entry(log, log.last_index, log.truncations)
        store.checkpointing.touched(log)
        self._put.append((lsn, log, paths))
        return lsn

    def delete_files(self) -> None:
        """Remove the files of former logs whose INSTALL record is durable (N3)."""
        if not self._put:
            return
        durable = self._store.wal.durable_lsn
        left = []
        for lsn, log, paths in self._put:
            if lsn <= durable and not log.is_flushing:
                self._delete(log, paths)
            else:
                left.append((lsn, log, paths))
        self._put = left

    def _delete(self, log: GroupLog, paths: list[str]) -> None:
        """No row that counts names any file of the group now: the new log has written none."""
        there = {path for segment in log.segments.items for path in segment.paths}
        assert not there.intersection(paths) or log.is_dropped
        more = self._store.take_unlinks(log.descriptor.directory + "/")
        if paths or more:
            self._store.unlink([*paths, *more])
