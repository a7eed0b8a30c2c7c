"""Raft messages survive the wire, and bytes that are none are refused with a sentence.

Method: round trips of generated messages; random bytes, cut, lengthened and altered messages: what
is accepted encodes to the very same bytes again, so nothing has two meanings.
"""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corelane.model.ids import GroupId, Index, Term
from corelane.raft import codec
from corelane.raft.codec import MalformedMessageError
from corelane.raft.messages import (
    Append,
    Appended,
    AppendRejected,
    Heartbeat,
    HeartbeatAnswer,
    Message,
    PreVote,
    PreVoteAnswer,
    Vote,
    VoteAnswer,
)

U32_MAX = (1 << 32) - 1
U64_MAX = (1 << 64) - 1
TERMS = st.integers(min_value=1, max_value=codec.TERM_MAX).map(Term)
ROUNDS = st.integers(min_value=0, max_value=U32_MAX)
INDEXES = st.integers(min_value=0, max_value=codec.INDEX_MAX).map(Index)
GROUPS = st.integers(min_value=0, max_value=U64_MAX).map(GroupId)


@st.composite
def appends(draw: st.DrawFn) -> Append:
    """Generate an append as a leader makes it, with several terms."""
    prev_index = draw(st.integers(min_value=0, max_value=1 << 62))
    prev_term = draw(st.integers(min_value=1, max_value=1 << 20)) if prev_index else 0
    steps = draw(st.lists(st.integers(min_value=1, max_value=1000), max_size=5))
    terms = draw(st.lists(st.integers(min_value=1, max_value=1000), max_size=5))
    runs: list[tuple[Index, Term]] = []
    index, term = prev_index, prev_term
    for step, rise in zip(steps, terms, strict=False):
        term += rise
        runs.append((Index(index + 1), Term(term)))
        index += step
    sender_term = max(term, 1) + draw(st.integers(min_value=0, max_value=5))
    return Append(
        Term(sender_term),
        draw(ROUNDS),
        Index(prev_index),
        Term(prev_term),
        Index(index),
        tuple(runs),
        draw(INDEXES),
    )


@st.composite
def requests(draw: st.DrawFn) -> PreVote | Vote:
    term = draw(st.integers(min_value=2, max_value=codec.TERM_MAX))
    last_term = draw(st.integers(min_value=0, max_value=term - 1))
    last_index = draw(st.integers(min_value=1, max_value=codec.INDEX_MAX)) if last_term else 0
    make = PreVote if draw(st.booleans()) else Vote
    return make(Term(term), draw(ROUNDS), Index(last_index), Term(last_term))


@st.composite
def rejections(draw: st.DrawFn) -> AppendRejected:
    term, prev_index = draw(TERMS), draw(INDEXES)
    conflict_index = draw(st.integers(min_value=0, max_value=prev_index))
    conflict_term = draw(st.integers(min_value=0, max_value=term))
    conflict = (Index(conflict_index), Term(conflict_term))
    return AppendRejected(term, draw(ROUNDS), prev_index, *conflict)


MESSAGES: st.SearchStrategy[Message] = st.one_of(
    appends(),
    requests(),
    rejections(),
    st.builds(
        lambda term, ends: Appended(term, min(ends), max(ends)), TERMS, st.tuples(INDEXES, INDEXES)
    ),
    st.builds(Heartbeat, TERMS, ROUNDS, INDEXES),
    st.builds(HeartbeatAnswer, TERMS, ROUNDS),
    st.builds(PreVoteAnswer, TERMS | st.just(Term(0)), ROUNDS, st.booleans()),
    st.builds(VoteAnswer, TERMS | st.just(Term(0)), ROUNDS, st.booleans()),
)


@given(MESSAGES)
def test_every_message_survives_the_wire(message: Message) -> None:
    decoded = codec.decode(codec.encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


@given(st.binary(max_size=80))
@example(b"")
@example(bytes(80))
@example(b"\xff" * 80)
def test_random_bytes_are_refused_or_mean_one_thing(data: bytes) -> None:
    assert_refused_or_canonical(data)


@given(MESSAGES, st.data())
def test_altered_messages_are_refused_or_mean_one_thing(
    message: Message, data: st.DataObject
) -> None:
    encoded = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(min_value=1, max_value=3))):
        at = data.draw(st.integers(min_value=0, max_value=len(encoded) - 1))
        encoded[at] = data.draw(st.integers(min_value=0, max_value=255))
    assert_refused_or_canonical(bytes(encoded))


@given(MESSAGES, st.integers(min_value=1, max_value=8))
def test_half_a_message_and_one_and_a_half_are_refused(message: Message, count: int) -> None:
    encoded = codec.encode(message)
    for damaged in (encoded[:-count], encoded + encoded[:count]):
        with pytest.raises(MalformedMessageError):
            codec.decode(damaged)


@given(st.lists(st.tuples(GROUPS, TERMS, INDEXES), max_size=20))
def test_heartbeats_of_many_groups_share_a_frame(
    rows: list[tuple[GroupId, Term, Index]],
) -> None:
    assert codec.unpack_heartbeats(codec.pack_heartbeats(rows)) == rows
    answers = [(group, term) for group, term, _ in rows]
    assert codec.unpack_heartbeat_answers(codec.pack_heartbeat_answers(answers)) == answers


@given(st.binary(max_size=100))
def test_random_rows_are_refused_or_mean_one_thing(data: bytes) -> None:
    try:
        beats = codec.unpack_heartbeats(data)
    except MalformedMessageError:
        beats = None
    try:
        answers = codec.unpack_heartbeat_answers(data)
    except MalformedMessageError:
        answers = None
    assert beats is None or codec.pack_heartbeats(beats) == data
    assert answers is None or codec.pack_heartbeat_answers(answers) == data


def assert_refused_or_canonical(data: bytes) -> None:
    """Decode *data*: only our own error, and only one encoding per message."""
    try:
        message = codec.decode(data)
    except MalformedMessageError:
        return
    assert codec.encode(message) == data
