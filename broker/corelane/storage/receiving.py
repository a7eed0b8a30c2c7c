"""A follower's appends: the entries of a message, judged as a whole and then put in one pass.

Judged is what a leader's disk or memory may have spoilt, besides what makes no sense here: a batch
must have the right CRC of its own, the offset where the log ends and the term of its entry. The
frame's CRC says only that the bytes are those that the leader sent; it may have read them from a
segment that rots, and a new replica must not take that over (it costs 0.06 CPU s/GB).

Invariants (FORMAT.md, E):
E1. Nothing is put before all of a message is judged: a malformed one changes nothing.
E2. Where room ends a prefix of the entries is in the log, each of them whole.
"""

# performance-critical: see STYLE.md

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from corelane.model.ids import Index, Lsn, RecordKind, Term
from corelane.model.limits import COMMAND_BYTES_MAX
from corelane.model.record import record
from corelane.storage.configurations import CONFIGURATION_BYTES_MAX
from corelane.storage.entries import ENTRIES_MAX, ENTRY_HEAD, ENTRY_HEAD_BYTES
from corelane.storage.wal import WalFullError
from corelane_native import RECEIVED_REASONS, address_of

if TYPE_CHECKING:
    from corelane.storage.group_log import GroupLog

TermRun = tuple[Index, Term]
"""(first index, term): from this index on, entries are of this term, until the next run."""

_BATCH: Final = int(RecordKind.BATCH)
_CONFIG: Final = int(RecordKind.CONFIG)
_Row = tuple[int, int, int, int, int]  # as `Received.rows`
_CONTROL_BYTES: Final = {
    RecordKind.NEW_LEADER: (0, 0),
    RecordKind.COMMAND: (0, COMMAND_BYTES_MAX),
    RecordKind.TRIM: (8, 8),
    RecordKind.CONFIG: (1, CONFIGURATION_BYTES_MAX),
}


class MalformedEntriesError(ValueError):
    """What a leader sent is not what can follow here; why, in one sentence."""


@record
class _Run:
    """Rows of one term."""

    term: Term
    first_row: int
    count: int


def append_received(
    log: "GroupLog", runs: Sequence[TermRun], first_index: Index, payload: bytes | memoryview
) -> tuple[Index, Lsn]:
    """See `GroupLog.append_received`."""
    assert first_index == log.last_index + 1, "raft asks for what is missing"
    assert not log.is_leaving, "what is appended now would stay behind"
    position = _skipped(payload, first_index - runs[0][0])
    judged = _judge(log, runs, payload, position)
    rows = log.store.received.rows(sum(run.count for run in judged))
    for row in rows:
        if row[4] != _BATCH:
            _check_control(row)
    lsn = Lsn(0)
    try:
        for run in judged:
            lsn = _put_run(log, run, rows, payload)
    except (WalFullError, MemoryError):
        if log.last_index < first_index:
            raise
        lsn = log.last_lsn
    return log.last_index, lsn


def _skipped(payload: bytes | memoryview, count: int) -> int:
    """Return where the first entry starts that is not here yet."""
    assert count >= 0
    position = 0
    for _ in range(count):
        if position + ENTRY_HEAD_BYTES > len(payload):
            raise MalformedEntriesError("There are fewer entries than their terms say.")
        position += ENTRY_HEAD_BYTES + ENTRY_HEAD.unpack_from(payload, position)[1]
    if position >= len(payload):
        raise MalformedEntriesError("There are fewer entries than their terms say.")
    return position


def _judge(
    log: "GroupLog", runs: Sequence[TermRun], payload: bytes | memoryview, position: int
) -> list[_Run]:
    """Return the entries from *position* on, run by run, if all of them are good (E1)."""
    received = log.store.received
    address, size_bytes = address_of(payload), len(payload)
    index, row, next_offset = log.last_index + 1, 0, int(log.next_offset)
    term_before = log.last_term
    out = []
    for number, (_first, term) in enumerate(runs):
        end = runs[number + 1][0] if number + 1 < len(runs) else index + ENTRIES_MAX - row
        if end <= index:
            continue  # all of it is here
        if not term_before <= term <= log.term:
            raise MalformedEntriesError(f"Term {term} follows {term_before} in term {log.term}.")
        term_before = term
        count_max = min(end - index, ENTRIES_MAX - row)
        found = received.check(address, size_bytes, position, term, next_offset, row, count_max)
        if found.reason:
            raise MalformedEntriesError(
                f"Entry {index + found.row_count}: {RECEIVED_REASONS[found.reason]}"
            )
        if found.row_count == 0:
            raise MalformedEntriesError("There are fewer entries than their terms say.")
        out.append(_Run(term, row, found.row_count))
        index += found.row_count
        row += found.row_count
        position, next_offset = found.position, found.next_offset
    if position != size_bytes:
        raise MalformedEntriesError("There are more entries than a message may hold.")
    return out


def _check_control(row: _Row) -> None:
    bounds = _CONTROL_BYTES.get(RecordKind(row[4])) if row[4] in _CONTROL_BYTES else None
    if bounds is None or not bounds[0] <= row[3] <= bounds[1]:
        raise MalformedEntriesError(f"A control entry of kind {row[4]} has {row[3]} bytes.")


def _put_run(log: "GroupLog", run: _Run, rows: list[_Row], payload: bytes | memoryview) -> Lsn:
    """Put the rows of one term, as many at once as fit a chunk and a file (E2)."""
    wal = log.store.wal
    row, end = run.first_row, run.first_row + run.count
    address = address_of(payload)
    lsn = Lsn(0)
    while row < end:
        put = wal.put_received(
            log.store.received, run.term, log.group, Index(log.last_index + 1), address,
            row, end - row, rows[row][3],
        )  # fmt: skip
        taken = rows[row : row + put.record_count]
        log.load_received(run.term, taken, put.chunk, put.position, put.first_lsn)
        for number, (_offset, _newest, at, size_bytes, kind) in enumerate(taken):
            if kind == _CONFIG:
                index = Index(log.last_index - put.record_count + 1 + number)
                log.configured.appended(index, bytes(payload[at : at + size_bytes]))
        row += put.record_count
        lsn = Lsn(put.first_lsn + put.record_count - 1)
        wal.note_entry(log, log.last_index, log.truncations)
        log.last_lsn = lsn
    return lsn
