"""Who leads what is merged by term and revision, in whatever order it comes, and stays bounded.

Method: a property against a dumb second version, and the stories of deletion and of new sessions.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane.model import limits
from corelane.model.ids import CoreId, GroupId, NodeId, Term
from corelane.shard.peers.leads import Lead, Leads, decode, encode

PEER = (NodeId(2), CoreId(0))
OTHER = (NodeId(3), CoreId(0))


def lead(group: int, term: int, revision: int = 0, node: int = 1, core: int = 0) -> Lead:
    """Return a leader's word."""
    return Lead(GroupId(group), Term(term), revision, NodeId(node), CoreId(core), (NodeId(node),))


WORDS = st.builds(
    lead,
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(0, 3),
)


def nobody(group: GroupId) -> bool:
    """Say that no group was ever deleted."""
    return False


@given(words=st.lists(WORDS, max_size=30), order=st.randoms())
def test_the_newest_word_stays_in_any_order(words: list[Lead], order: object) -> None:
    said = {(each.group, each.term, each.revision): each for each in words}
    shuffled = [*said.values(), *said.values()]
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    table = Leads(nobody)
    for each in shuffled:
        before = table.of(each.group)
        changed = table.take([each], PEER)
        assert bool(changed) == (table.of(each.group) != before)
    for group in {each.group for each in words}:
        newest = max((each for each in said.values() if each.group == group), key=lambda e: e.age)
        assert table.of(group) == newest


@given(words=st.lists(WORDS, max_size=30))
def test_rows_survive_the_wire(words: list[Lead]) -> None:
    assert decode(memoryview(encode(words))) == words


def test_a_new_session_hears_all_that_this_node_leads_and_then_only_changes() -> None:
    table = Leads(nobody)
    table.take([lead(1, 1), lead(2, 1)])
    table.take([lead(3, 1, node=3)], OTHER)
    table.listen(PEER, NodeId(1))
    assert [each.group for each in told(table)] == [1, 2]
    assert told(table) == []
    table.take([lead(2, 2)])
    table.take([lead(2, 2)])
    table.take([lead(3, 2, node=3)], OTHER)
    assert told(table) == [lead(2, 2)], "each node speaks for itself"
    table.leave(PEER)
    table.take([lead(2, 3)])
    assert told(table) == []
    table.listen(PEER, NodeId(1))
    assert {(each.group, each.term) for each in told(table)} == {(1, 1), (2, 3)}


def test_a_large_table_is_told_in_frames_that_fit() -> None:
    table = Leads(nobody)
    table.take([lead(group, 1) for group in range(1, 5_001)])
    table.listen(PEER, NodeId(1))
    heard: list[GroupId] = []
    while True:
        body = table.next_frame(PEER)
        if body is None:
            break
        assert len(body) <= limits.PEER_LEADS_FRAME_BYTES
        heard += [each.group for each in decode(memoryview(body))]
    assert heard == [*range(1, 5_001)]


def told(table: Leads) -> list[Lead]:
    """Return what the next frame says."""
    body = table.next_frame(PEER)
    return [] if body is None else decode(memoryview(body))


def test_a_deleted_group_is_forgotten_and_stays_so() -> None:
    gone: set[GroupId] = set()
    table = Leads(gone.__contains__)
    table.listen(PEER, NodeId(1))
    table.take([lead(1, 1), lead(2, 1)])
    table.found(GroupId(1), NodeId(5), CoreId(3))
    gone.add(GroupId(1))
    table.deleted([GroupId(1)])
    table.take([lead(1, 9, node=3)], OTHER)
    table.found(GroupId(1), NodeId(5), CoreId(3))
    assert table.of(GroupId(1)) is None
    assert table.home(GroupId(1), NodeId(5)) is None
    assert [each.group for each in told(table)] == [2]
    assert table.refused == 1


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NODE_GROUPS_MAX", 10)
    table = Leads(nobody)
    table.take([lead(group, 1) for group in range(1, 21)], OTHER)
    for group in range(1, 100):
        table.found(GroupId(group), NodeId(4), CoreId(0))
    for node in range(1, 1000):
        table.found(GroupId(1), NodeId(node), CoreId(0))
    assert table.refused == 10
    assert len(table) <= 10 + 10
    assert table.take([lead(1, 2)], OTHER) == [1], "what is known goes on changing"
    assert len(table._homes[GroupId(1)]) <= 2 * limits.REPLICAS_MAX


def test_a_replica_is_where_it_was_heard_last() -> None:
    table = Leads(nobody)
    table.found(GroupId(1), NodeId(2), CoreId(0))
    table.found(GroupId(1), NodeId(2), CoreId(3))
    table.found(GroupId(1), NodeId(3), CoreId(1))
    assert table.home(GroupId(1), NodeId(2)) == 3
    assert table.home(GroupId(1), NodeId(3)) == 1
    assert table.home(GroupId(1), NodeId(4)) is None
