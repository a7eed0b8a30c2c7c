"""Searches in logs against linear ones, and the back-up of a diverged follower against the truth.

Method: logs are generated as raft makes them: two logs share a prefix, and from there on no entry
of one has the index and term of an entry of the other (log matching).
"""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from corelane.model.ids import Index, Term
from corelane.raft.log_view import first_above
from corelane.raft.messages import Append
from corelane.raft.replication import (
    first_missing,
    next_after_rejection,
    rejection,
    term_in,
    term_runs,
)
from tests.simulation.raft_replica import Entry, MemoryLog

TERMS = st.lists(st.integers(min_value=1, max_value=6), max_size=12).map(sorted)


def log_of(terms: Sequence[int]) -> MemoryLog:
    return MemoryLog([Entry(Term(term), f"{term}.{index}") for index, term in enumerate(terms)])


@st.composite
def diverged(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Return (leader, follower, length of what they share).

    Terms of the leader are even behind the shared part, those of the follower odd.
    """
    shared = draw(st.lists(st.integers(min_value=1, max_value=9), max_size=8).map(sorted))
    low = shared[-1] if shared else 1
    tails = st.lists(st.integers(min_value=low, max_value=low + 8), max_size=8).map(sorted)
    leader = [term * 2 + 2 for term in draw(tails)]
    follower = [term * 2 + 3 for term in draw(tails)]
    doubled = [term * 2 for term in shared]
    return doubled + leader, doubled + follower, len(shared)


@given(TERMS, st.integers(min_value=0, max_value=7), st.data())
def test_the_search_for_a_later_term_is_the_linear_one(
    terms: list[int], term: int, data: st.DataObject
) -> None:
    low = data.draw(st.integers(min_value=1, max_value=len(terms) + 1))
    high = data.draw(st.integers(min_value=low - 1, max_value=len(terms)))
    found = [index for index in range(low, high + 1) if terms[index - 1] > term]
    expected = found[0] if found else high + 1
    assert first_above(log_of(terms), Term(term), Index(low), Index(high)) == expected


@given(TERMS, st.data())
def test_runs_give_the_term_of_every_entry(terms: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(min_value=1, max_value=len(terms) + 1))
    last = data.draw(st.integers(min_value=first - 1, max_value=len(terms)))
    log = log_of(terms)
    prev = Index(first - 1)
    runs = term_runs(log, Index(first), Index(last))
    message = Append(Term(9), 0, prev, log.term_at(prev), Index(last), runs, Index(0))
    assert len(runs) == len(set(terms[first - 1 : last]))
    for index in range(first - 1, last + 1):
        assert term_in(message, Index(index)) == log.term_at(Index(index))


@given(diverged(), st.data())
def test_what_is_missing_begins_where_the_logs_part(
    logs: tuple[list[int], list[int], int], data: st.DataObject
) -> None:
    leader, follower, shared = logs
    prev = data.draw(st.integers(min_value=0, max_value=shared))
    last = data.draw(st.integers(min_value=prev, max_value=len(leader)))
    log = log_of(leader)
    runs = term_runs(log, Index(prev + 1), Index(last))
    prev_term = log.term_at(Index(prev))
    message = Append(Term(99), 0, Index(prev), prev_term, Index(last), runs, Index(0))
    assert first_missing(log_of(follower), message, Index(prev)) == min(last, shared) + 1


@given(diverged(), st.data())
def test_a_leader_finds_the_common_end_in_one_probe_per_term(
    logs: tuple[list[int], list[int], int], data: st.DataObject
) -> None:
    """Whatever was committed or trimmed, no probe goes below it or back up."""
    leader, follower, shared = logs
    committed = data.draw(st.integers(min_value=0, max_value=shared))
    trimmed = data.draw(st.integers(min_value=0, max_value=committed))
    leader_log, follower_log = log_of(leader), log_of(follower)
    leader_log.trim(Index(trimmed + 1))
    next_index = len(leader) + 1
    probes = 0
    while True:
        prev = Index(next_index - 1)
        if prev <= committed or (
            prev <= follower_log.last_index
            and follower_log.term_at(prev) == leader_log.term_at(prev)
        ):
            break
        probe = Append(Term(99), 0, prev, leader_log.term_at(prev), prev, (), Index(0))
        rejected = rejection(follower_log, Term(99), probe, Index(committed))
        assert rejected.conflict_index <= prev
        probed = next_after_rejection(leader_log, rejected)
        assert probed < next_index
        assert probed > committed
        next_index = probed
        probes += 1
    assert next_index <= shared + 1
    assert probes <= len(set(follower[shared:])) + len(set(leader[shared:])) + 1


@given(TERMS.filter(bool), st.integers(min_value=1, max_value=40), st.data())
def test_the_model_log_fills_messages_to_the_limit(
    terms: list[int], bytes_max: int, data: st.DataObject
) -> None:
    sizes = [data.draw(st.integers(min_value=1, max_value=20)) for _ in terms]
    log = MemoryLog([Entry(Term(term), "x", size) for term, size in zip(terms, sizes, strict=True)])
    first = data.draw(st.integers(min_value=1, max_value=len(terms)))
    last, size_bytes = log.span(Index(first), bytes_max)
    assert size_bytes == sum(sizes[first - 1 : last])
    assert size_bytes <= bytes_max or last == first
    assert last == len(terms) or size_bytes + sizes[last] > bytes_max
