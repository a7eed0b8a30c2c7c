"""The rules of log replication as calculations over a log view and a message."""

from corelane.model.ids import Index, Term
from corelane.raft.log_view import LogView, first_above
from corelane.raft.messages import Append, AppendRejected, TermRun


def term_runs(log: LogView, first_index: Index, last_index: Index) -> tuple[TermRun, ...]:
    """Return the terms of a range of entries; one run, in nearly every message."""
    runs: list[TermRun] = []
    index = first_index
    last_term = log.term_at(last_index) if first_index <= last_index else Term(0)
    while index <= last_index:
        term = log.term_at(index)
        runs.append((index, term))
        if term == last_term:
            break
        index = first_above(log, term, Index(index + 1), last_index)
    return tuple(runs)


def term_in(message: Append, index: Index) -> Term:
    """Return the term of the entry *index* of *message*, or of the one before its first."""
    assert message.prev_index <= index <= message.last_index
    found = message.prev_term
    for first_index, term in message.runs:
        if first_index > index:
            break
        found = term
    return found


def first_missing(log: LogView, message: Append, known_index: Index) -> Index:
    """Return the first entry of *message* that *log* lacks or holds with another term.

    Entries up to *known_index* are known to be equal. `last_index + 1` when nothing is missing.
    """
    index = Index(known_index + 1)
    shared_last = min(message.last_index, log.last_index)
    while index <= shared_last and log.term_at(index) == term_in(message, index):
        index = Index(index + 1)
    return index


def agrees_on_committed(log: LogView, message: Append, committed_index: Index) -> bool:
    """Say whether the last entry of *message* that is committed here is the very same one.

    Then all before it are. False would be a lost entry somewhere: never to be mended by cutting.
    """
    assert message.prev_index <= committed_index
    index = Index(min(committed_index, message.last_index))
    return index < log.first_index or log.term_at(index) == term_in(message, index)


def rejection(log: LogView, term: Term, message: Append, committed_index: Index) -> AppendRejected:
    """Answer an append whose previous entry is not in *log*, with the hint to back up by.

    "the follower can include the term of the conflicting entry and the first index it stores
    for that term" (end of section 5.3). Committed entries cannot conflict: no need to look there.
    """
    prev_index = message.prev_index
    assert prev_index > committed_index
    if prev_index > log.last_index:
        end_index = Index(log.last_index + 1)
        return AppendRejected(term, message.round, prev_index, end_index, Term(0))
    conflict_term = log.term_at(prev_index)
    low = Index(committed_index + 1)
    first = first_above(log, Term(conflict_term - 1), low, prev_index)
    return AppendRejected(term, message.round, prev_index, first, conflict_term)


def next_after_rejection(log: LogView, rejected: AppendRejected) -> Index:
    """Return where to probe next: behind our last entry of the conflicting term, if we have one.

    Otherwise the follower's whole term goes at once: one round trip per term, not per entry.
    """
    low = max(rejected.conflict_index, log.first_index)
    if rejected.conflict_term == 0 or low >= rejected.prev_index:
        return rejected.conflict_index
    after = first_above(log, rejected.conflict_term, low, rejected.prev_index)
    if after > low and log.term_at(Index(after - 1)) == rejected.conflict_term:
        return after
    return rejected.conflict_index
