"""Logs that go back: damage is cut off, and what was behind it comes again from the other replicas.

What is whole stays: the segments before the damaged one, or all of them where the damage is in the
write-ahead log. The record says what was lost (raft/loss.py), and the log says so until that is
made good.

Invariants (FORMAT.md, D):
D1. Nothing a log is after a RENEW record comes from behind the place that it goes back to.
D2. What a RENEW record keeps in files was synced before.
D3. A row that was made after a RENEW record names it or a later one: it is not obeyed twice.
"""

from typing import TYPE_CHECKING

from corelane.model.ids import Index, RecordKind
from corelane.model.record import record
from corelane.raft.loss import Loss
from corelane.storage.checkpoint import image_of
from corelane.storage.group_log import GroupLog, LogState
from corelane.storage.installing import Beginning
from corelane.storage.layout import NO_TIMESTAMP, Tail
from corelane.storage.segments import Segment

if TYPE_CHECKING:
    from corelane.storage.store import CoreStore


@record
class Cut:
    """How much of a log stays: so many segments, and the log's state at their end."""

    segments: list[Segment]
    state: LogState
    tail: Tail


def cut(store: "CoreStore", log: GroupLog, damaged: Segment | None) -> Cut:
    """Return what stays of *log*; *damaged* is the segment that cannot be read, if it is one."""
    items = log.segments.items
    count = len(items) if damaged is None else items.index(damaged)
    unsynced = (store.unsynced, store.checkpointing.unsynced)
    for number, segment in enumerate(items[:count]):
        is_last = number + 1 == len(items)
        is_synced = not any(path in some for path in segment.paths for some in unsynced)
        if not is_synced or not (segment.is_sealed or (is_last and _is_whole(log, segment))):
            count = number
            break
    kept = items[:count]
    if count == len(items):
        last = kept[-1] if kept else None
        tail = Tail(b"", b"", b"")
        if last is not None and not last.is_sealed:
            tail = Tail(last.log.remainder, last.rows.remainder, last.control.remainder)
        return Cut(kept, image_of(log, log.flushed_index, b"").state, tail)
    return Cut(kept, _state_before(log, items[count]), Tail(b"", b"", b""))


def _is_whole(log: GroupLog, segment: Segment) -> bool:
    """Whether an open segment's rows end where they should: a lost remainder leaves fewer."""
    return segment.base_index + segment.row_count - 1 == log.flushed_index


def _state_before(log: GroupLog, segment: Segment) -> LogState:
    """Return the state of a log that ends where *segment* begins."""
    last = Index(segment.base_index - 1)
    items = log.segments.items
    before = items[: items.index(segment)]
    newest = max((each.max_timestamp for each in before), default=NO_TIMESTAMP)
    return LogState(
        log.term, log.voted_for, last, segment.base_offset, log.term_at(last),
        log.first_index, log.first_term, min(log.start_offset, segment.base_offset), newest,
        [start for start in log.term_starts if start[1] <= last], log.configured.upto(last),
    )  # fmt: skip


def renew(store: "CoreStore", log: GroupLog, loss: Loss, damaged: Segment | None) -> None:
    """See `CoreStore.renew`."""
    assert log.last_lsn <= store.wal.durable_lsn, "what it said last is on disk"
    applied, fold = store.state_of(log.group)
    found = cut(store, log, damaged)
    beginning = Beginning(
        RecordKind.RENEW,
        log.descriptor,
        found.state,
        applied,
        fold,
        found.segments,
        found.tail,
        loss,
    )
    store.installing.begin_anew(log, beginning)
