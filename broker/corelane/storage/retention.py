"""What a log may lose by its age or size: whole segments from the front, as Kafka counts them.

The last segment, and what is not in a segment yet, count as one active segment: it goes only as a
whole, when it has no record that must stay. A segment whose records carry no time has no age.
"""

from typing import Final

from corelane.model.ids import Offset, RecordKind
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import NO_TIMESTAMP

FOREVER: Final = -1
"""Of an age or a size: no limit."""


def start_by_size(log: GroupLog, bytes_min: int) -> Offset:
    """Return the start offset that leaves *bytes_min* or more, and as little as may be.

    The start that *log* has now where there is nothing to trim.
    """
    assert bytes_min >= 0
    start = log.start_offset
    ends = _sealed_ends(log)
    spare_bytes = sum(size_bytes for _end, size_bytes, _newest in ends) - bytes_min
    if spare_bytes + _active_bytes_at_most(log) < 0:
        return start
    active_bytes = _active_bytes(log)
    spare_bytes += active_bytes
    for end, size_bytes, _newest in ends:
        if spare_bytes < size_bytes:
            return start
        spare_bytes -= size_bytes
        start = end
    return _behind_all(log, start) if spare_bytes >= active_bytes else start


def start_by_time(log: GroupLog, before_ms: int) -> Offset:
    """Return the start offset that loses only segments all of whose records are older.

    The start that *log* has now where there is nothing to trim.
    """
    start = log.start_offset
    for end, _size_bytes, newest in _sealed_ends(log):
        if not NO_TIMESTAMP < newest < before_ms:
            return start
        start = end
    segments = log.segments.items
    if segments and not segments[-1].is_sealed and segments[-1].log.size_bytes:
        newest = segments[-1].max_timestamp
        if log.flushed_offset > start and not NO_TIMESTAMP < newest < before_ms:
            return start
    tail = log.tail
    for at in range(len(tail) - 1, log.flushed_index - log.tail_first, -1):
        entry = tail[at]  # the newest is the likeliest to be young
        if entry.kind != RecordKind.BATCH or entry.next_offset <= start:
            continue
        if not NO_TIMESTAMP < entry.max_timestamp < before_ms:
            return start
    return _behind_all(log, start)


def gains_by_flush(log: GroupLog, before_ms: int) -> bool:
    """Whether the active segment begins before that time and has entries that are not written.

    Once they are, `segment.ms` may have closed a segment that is old enough to go.
    """
    if log.flushed_index == log.committed_index:
        return False
    items = log.segments.items
    if items and not items[-1].is_sealed and items[-1].first_timestamp != NO_TIMESTAMP:
        return items[-1].first_timestamp < before_ms
    unflushed = log.tail.slice(log.flushed_index + 1 - log.tail_first, len(log.tail))
    first = next((e for e in unflushed if e.kind == RecordKind.BATCH), None)
    return first is not None and NO_TIMESTAMP < first.max_timestamp < before_ms


def _sealed_ends(log: GroupLog) -> list[tuple[Offset, int, int]]:
    """Return (end offset, bytes, newest timestamp) of the closed segments, from the first on."""
    items = log.segments.items
    out = []
    for number, segment in enumerate(items):
        if not segment.is_sealed:
            break
        end = items[number + 1].base_offset if number + 1 < len(items) else log.flushed_offset
        if end > log.start_offset:
            out.append((end, segment.log.size_bytes, segment.max_timestamp))
    return out


def _active_bytes_at_most(log: GroupLog) -> int:
    """Return what `_active_bytes` cannot exceed, without a look at each entry."""
    items = log.segments.items
    segment_bytes = items[-1].log.size_bytes if items and not items[-1].is_sealed else 0
    return segment_bytes + log.unflushed_bytes + log.uncommitted_bytes


def _active_bytes(log: GroupLog) -> int:
    items = log.segments.items
    segment_bytes = items[-1].log.size_bytes if items and not items[-1].is_sealed else 0
    unflushed = log.tail.slice(log.flushed_index + 1 - log.tail_first, len(log.tail))
    return segment_bytes + sum(e.size_bytes for e in unflushed if e.kind == RecordKind.BATCH)


def _behind_all(log: GroupLog, start: Offset) -> Offset:
    """Return the end of the log if everything is committed: else the active segment stays."""
    return log.committed_offset if log.committed_offset == log.next_offset else start
