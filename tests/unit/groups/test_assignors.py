"""The server-side assignors: everything is given once, evenly, and what need not move stays."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane.groups.assignors import ASSIGNORS
from corelane.groups.assignors_spec import MemberSpec
from corelane.groups.consumer_records import NOTHING, Partition, Partitions
from corelane.model.ids import TopicId

T, U, V, W = (TopicId(bytes([number]) * 16) for number in range(4))
uniform = ASSIGNORS["uniform"]
range_ = ASSIGNORS["range"]

counts_of = st.dictionaries(st.sampled_from([T, U, V, W]), st.integers(0, 9), min_size=1)


def member(
    name: str, topics: Sequence[TopicId], had: Partitions = NOTHING, instance: str | None = None
) -> MemberSpec:
    return MemberSpec(name, instance, frozenset(topics), had)


def some(topic: TopicId, *numbers: int) -> Partitions:
    return frozenset((topic, number) for number in numbers)


@st.composite
def groups(draw: st.DrawFn, *, alike: bool) -> tuple[list[MemberSpec], dict[TopicId, int]]:
    """Return members with some history, which may be of topics that they have left."""
    counts = draw(counts_of)
    owners: dict[Partition, int] = {}
    size = draw(st.integers(1, 7))
    for topic_id in (T, U, V, W):
        for number in range(draw(st.integers(0, 11))):
            owners[topic_id, number] = draw(st.integers(-1, size))
    specs = []
    for place in range(size):
        topics = list(counts) if alike else draw(st.lists(st.sampled_from(list(counts))))
        had = frozenset(partition for partition, owner in owners.items() if owner == place)
        instance = draw(st.none() | st.just(f"i{9 - place}"))
        specs.append(member(f"m{place}", topics, had, instance))
    return specs, counts


def check_whole(
    members: list[MemberSpec], counts: dict[TopicId, int], given_: dict[str, Partitions]
) -> None:
    """Every partition that somebody may have is given once, to who may have it."""
    assert given_.keys() == {spec.member_id for spec in members}
    wanted = {(t, n) for spec in members for t in spec.topics for n in range(counts[t])}
    assert sum(map(len, given_.values())) == len(wanted)
    assert frozenset().union(*given_.values()) == wanted
    for spec in members:
        assert {topic_id for topic_id, _ in given_[spec.member_id]} <= spec.topics


@pytest.mark.parametrize("name", ASSIGNORS)
@pytest.mark.parametrize("alike", [True, False])
def test_everything_is_given_once_to_subscribers(name: str, alike: bool) -> None:
    @given(groups(alike=alike))
    def check(group: tuple[list[MemberSpec], dict[TopicId, int]]) -> None:
        members, counts = group
        given_ = ASSIGNORS[name](members, counts)
        check_whole(members, counts, given_)
        assert ASSIGNORS[name](members[::-1], counts) == given_, "the order of members matters"

    check()


@given(groups(alike=True))
def test_with_equal_subscriptions_loads_differ_by_one_at_most_and_little_moves(
    group: tuple[list[MemberSpec], dict[TopicId, int]],
) -> None:
    members, counts = group
    given_ = uniform(members, counts)
    loads = [len(partitions) for partitions in given_.values()]
    assert max(loads) - min(loads) <= 1

    # No assignment that is as even keeps more: who has more than a share, or a share and one
    # where there are such places, must give the rest away; nobody else gives anything.
    share, larger = divmod(sum(loads), len(members))
    valid = [{(t, n) for t, n in spec.partitions if n < counts.get(t, 0)} for spec in members]
    places = sorted(map(len, valid), reverse=True)
    best = sum(min(had, share + (place < larger)) for place, had in enumerate(places))
    assert (
        sum(len(had & given_[s.member_id]) for had, s in zip(valid, members, strict=True)) == best
    )


@given(groups(alike=False))
def test_with_other_subscriptions_no_single_move_would_be_more_even(
    group: tuple[list[MemberSpec], dict[TopicId, int]],
) -> None:
    members, counts = group
    given_ = uniform(members, counts)
    for giver in members:
        mine = given_[giver.member_id]
        for taker in members:
            if any(topic_id in taker.topics for topic_id, _ in mine):
                assert len(mine) - len(given_[taker.member_id]) <= 1


@pytest.mark.parametrize("alike", [True, False])
def test_an_even_assignment_stays_as_it_is(alike: bool) -> None:
    @given(groups(alike=alike))
    def check(group: tuple[list[MemberSpec], dict[TopicId, int]]) -> None:
        members, counts = group
        first = uniform(members, counts)
        again = [
            MemberSpec(spec.member_id, None, spec.topics, first[spec.member_id]) for spec in members
        ]
        assert uniform(again, counts) == first

    check()


def test_a_member_that_joins_takes_only_its_share() -> None:
    first = uniform([member("a", [T]), member("b", [T])], {T: 6})
    both = [member(name, [T], first[name]) for name in "ab"]
    then = uniform([*both, member("c", [T])], {T: 6})
    assert len(then["c"]) == 2
    for name in "ab":
        assert then[name] < first[name]


def test_what_a_member_leaves_is_spread_and_the_rest_stays() -> None:
    first = uniform([member(name, [T]) for name in "abc"], {T: 9})
    then = uniform([member(name, [T], first[name]) for name in "ab"], {T: 9})
    for name in "ab":
        assert first[name] < then[name]
    assert sorted(map(len, then.values())) == [4, 5]


def test_a_fresh_group_spreads_each_topic() -> None:
    given_ = uniform([member(name, [T, U]) for name in "abc"], {T: 3, U: 3})
    for partitions in given_.values():
        assert {topic_id for topic_id, _ in partitions} == {T, U}


def test_who_may_have_less_gets_it_and_the_others_make_up() -> None:
    given_ = uniform([member("a", [T, U]), member("b", [U])], {T: 3, U: 3})
    assert given_ == {"a": some(T, 0, 1, 2), "b": some(U, 0, 1, 2)}


def test_what_two_members_had_is_given_to_one() -> None:
    """It never happens in a log of ours; an assignor that was fooled would give it twice."""
    members = [member(name, [T], some(T, 0, 1)) for name in "ab"]
    check_whole(members, {T: 2}, uniform(members, {T: 2}))
    members[0] = member("a", [T, U], some(T, 0, 1))
    check_whole(members, {T: 2, U: 1}, uniform(members, {T: 2, U: 1}))


def test_no_member_no_assignment() -> None:
    assert uniform([], {}) == {}
    assert range_([], {}) == {}


# Range.


@given(groups(alike=False))
def test_a_range_is_a_run_of_each_topic_within_one_of_the_others(
    group: tuple[list[MemberSpec], dict[TopicId, int]],
) -> None:
    members, counts = group
    given_ = range_(members, counts)
    for topic_id in counts:
        runs = [
            sorted(n for t, n in given_[spec.member_id] if t == topic_id)
            for spec in members
            if topic_id in spec.topics
        ]
        for run in filter(None, runs):
            assert run == list(range(run[0], run[-1] + 1))
        if runs:
            assert max(map(len, runs)) - min(map(len, runs)) <= 1


def test_topics_of_one_size_are_split_alike() -> None:
    """For joins; the example of Kafka's RangeAssignor."""
    given_ = range_([member("b", [T, U]), member("a", [T, U])], {T: 3, U: 3})
    assert given_ == {"a": some(T, 0, 1) | some(U, 0, 1), "b": some(T, 2) | some(U, 2)}


def test_static_members_keep_their_runs_under_other_ids() -> None:
    first = range_([member("a", [T], instance="1"), member("b", [T], instance="2")], {T: 3})
    then = range_([member("y", [T], instance="1"), member("x", [T], instance="2")], {T: 3})
    assert (then["y"], then["x"]) == (first["a"], first["b"])


def test_static_members_come_first() -> None:
    given_ = range_([member("a", [T]), member("z", [T], instance="9")], {T: 3})
    assert given_ == {"z": some(T, 0, 1), "a": some(T, 2)}


def test_with_fewer_partitions_than_members_the_last_get_none() -> None:
    given_ = range_([member(name, [T]) for name in "abc"], {T: 2})
    assert given_ == {"a": some(T, 0), "b": some(T, 1), "c": NOTHING}
