"""Appends that are cut: what goes now and the rest say together what the whole said."""

from hypothesis import given
from hypothesis import strategies as st

from corelane.model.ids import Index, MemberId, Term
from corelane.raft.membership import Configuration
from corelane.raft.messages import Append
from corelane.raft.replication import term_in
from corelane.shard.courier import split

COUNT = 12


@st.composite
def appends(draw: st.DrawFn) -> Append:
    prev = draw(st.integers(0, 5))
    last = prev + draw(st.integers(1, COUNT))
    starts = sorted(draw(st.sets(st.integers(prev + 1, last))) | {prev + 1})
    runs = tuple((Index(start), Term(2 + at)) for at, start in enumerate(starts))
    members = Configuration((MemberId(1),))
    configured = sorted(draw(st.sets(st.integers(prev + 1, last), max_size=2)))
    configurations = tuple((Index(at), members) for at in configured)
    return Append(Term(50), 3, Index(prev), Term(1), Index(last), runs, Index(prev), configurations)


@given(appends(), st.data())
def test_a_cut_append_says_what_the_whole_said(message: Append, data: st.DataObject) -> None:
    at = Index(data.draw(st.integers(message.prev_index + 1, message.last_index)))
    now, rest = split(message, at)
    if at == message.last_index:
        assert (now, rest) == (message, None)
        return
    assert rest is not None
    assert (now.prev_index, now.last_index) == (message.prev_index, at)
    assert (rest.prev_index, rest.last_index) == (at, message.last_index)
    assert rest.prev_term == term_in(message, at)
    for part in (now, rest):
        assert part.runs[0][0] == part.prev_index + 1
        assert (part.term, part.round, part.committed_index) == (Term(50), 3, message.prev_index)
        for index in range(part.prev_index + 1, part.last_index + 1):
            assert term_in(part, Index(index)) == term_in(message, Index(index))
    assert now.configurations + rest.configurations == message.configurations
