"""The bytes of every message, pinned: two versions of a node must understand each other.

Method: one message of each kind against its bytes, and one damage of each kind against its fault.
"""

import pytest

from corelane.model.ids import GroupId, Index, Term
from corelane.raft import codec
from corelane.raft.messages import (
    Append,
    Appended,
    AppendRejected,
    Heartbeat,
    HeartbeatAnswer,
    Message,
    PreVote,
    PreVoteAnswer,
    Snapshot,
    TimeoutNow,
    Vote,
    VoteAnswer,
)

APPEND = Append(
    Term(9), 5, Index(4), Term(2), Index(7), ((Index(5), Term(2)), (Index(7), Term(8))), Index(3)
)

APPEND_DATA = (
    "01 09000000 05000000 0400000000000000 02000000 0700000000000000 0300000000000000 0200 00"
    " 0500000000000000 02000000 0700000000000000 08000000"
)

PINNED = [
    (
        APPEND,
        APPEND_DATA,
    ),
    (Appended(Term(9), Index(6), Index(7)), "02 09000000 0600000000000000 0700000000000000"),
    (Heartbeat(Term(9), 77, Index(3)), "03 09000000 4d000000 0300000000000000"),
    (HeartbeatAnswer(Term(9), 77), "04 09000000 4d000000"),
    (
        AppendRejected(Term(9), 5, Index(6), Index(5), Term(2)),
        "05 09000000 05000000 0600000000000000 0500000000000000 02000000 00",
    ),
    (PreVote(Term(9), 77, Index(6), Term(2)), "06 09000000 4d000000 0600000000000000 02000000"),
    (Vote(Term(9), 77, Index(6), Term(2)), "07 09000000 4d000000 0600000000000000 02000000 00"),
    (PreVoteAnswer(Term(9), 77, True), "08 09000000 4d000000 01"),
    (VoteAnswer(Term(9), 77, False), "09 09000000 4d000000 00"),
    (TimeoutNow(Term(9)), "0a 09000000"),
    (
        Snapshot(Term(9), 5, Index(6), Term(8)),
        "0b 09000000 05000000 0600000000000000 08000000",
    ),
]


@pytest.mark.parametrize(("message", "data"), PINNED, ids=lambda value: type(value).__name__)
def test_the_bytes_of_a_message(message: Message, data: str) -> None:
    assert codec.encode(message) == bytes.fromhex(data)
    assert codec.decode(bytes.fromhex(data)) == message


def test_every_kind_is_pinned() -> None:
    assert {data[:2] for _, data in PINNED} == {f"{kind:02x}" for kind in range(1, 12)}


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ("", "no bytes"),
        ("00", "unknown kind 0"),
        ("0c", "unknown kind 12"),
        ("04 09000000", "5 bytes do not fit kind 4"),
        ("04 00000000 4d000000", "term out of range"),
        ("04 00000080 4d000000", "term out of range"),
        ("02 09000000 0700000000000000 0600000000000000", "durable beyond the end"),
        (
            "05 09000000 05000000 0600000000000000 0700000000000000 02000000 00",
            "behind the entry asked for",
        ),
        ("05 09000000 05000000 0600000000000000 0500000000000000 0a000000 00", "of a later term"),
        ("07 02000000 4d000000 0600000000000000 02000000 00", "newer than the term stood for"),
        ("07 02000000 4d000000 0000000000000000 01000000 00", "only index 0 has term 0"),
        ("07 09000000 4d000000 0600000000000000 02000000 02", "neither a transfer nor none"),
        ("0b 09000000 05000000 0600000000000000 0a000000", "after the sender"),
        ("0b 09000000 05000000 0000000000000000 00000000", "index out of range"),
        ("09 09000000 4d000000 02", "neither yes nor no"),
    ],
)
def test_a_damaged_message_is_refused_with_its_fault(data: str, fault: str) -> None:
    with pytest.raises(codec.MalformedMessageError, match=fault):
        codec.decode(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("altered", "fault"),
    [
        (Append(Term(9), 0, Index(8), Term(2), Index(7), (), Index(0)), "end before they begin"),
        (Append(Term(9), 0, Index(0), Term(2), Index(0), (), Index(0)), "only index 0 has term 0"),
        (Append(Term(9), 0, Index(4), Term(2), Index(7), (), Index(0)), "do not match the entries"),
        (
            Append(Term(9), 0, Index(4), Term(2), Index(7), ((Index(6), Term(2)),), Index(0)),
            "begins elsewhere",
        ),
        (
            Append(Term(9), 0, Index(4), Term(2), Index(7), ((Index(5), Term(1)),), Index(0)),
            "falling term",
        ),
        (
            Append(Term(9), 0, Index(4), Term(2), Index(7), ((Index(5), Term(10)),), Index(0)),
            "after the sender's",
        ),
    ],
)
def test_an_append_that_no_leader_makes_is_refused(altered: Append, fault: str) -> None:
    with pytest.raises(codec.MalformedMessageError, match=fault):
        codec.decode(codec.encode(altered))


def test_a_row_of_a_heartbeat_frame_has_20_bytes() -> None:
    rows = [(GroupId(1 << 63), Term(9), Index(3))]
    data = bytes.fromhex("0000000000000080 09000000 0300000000000000")
    assert codec.pack_heartbeats(rows) == data
    assert codec.unpack_heartbeats(data) == rows
    with pytest.raises(codec.MalformedMessageError, match="half a heartbeat row"):
        codec.unpack_heartbeats(data[:-1])
    with pytest.raises(codec.MalformedMessageError, match="half an answer row"):
        codec.unpack_heartbeat_answers(data)
