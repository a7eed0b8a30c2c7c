"""Which member of a classic group reads what: everything once, evenly, and little moves."""

import random

import pytest

from corelane_client.assignors import (
    ASSIGNORS,
    Assignment,
    Member,
    assign_cooperative,
    assign_range,
    assign_roundrobin,
    is_cooperative,
)
from corelane_client.subscriptions import Subscription


def member(
    name: str,
    topics: set[str],
    owned: list[tuple[str, int]] | None = None,
    generation: int = -1,
    instance_id: str | None = None,
) -> Member:
    said = Subscription(frozenset(topics), frozenset(owned or ()), generation)
    return Member(name, instance_id, said)


def world(seed: int) -> tuple[list[Member], dict[str, int]]:
    choice = random.Random(seed)
    counts = {f"t{number}": choice.randint(0, 9) for number in range(choice.randint(1, 4))}
    topics = sorted(counts)
    members = [
        member(f"m{number}", set(choice.sample(topics, choice.randint(1, len(topics)))))
        for number in range(choice.randint(1, 6))
    ]
    return members, counts


def wanted(members: list[Member], counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(
        {
            (topic, number)
            for each in members
            for topic in each.subscription.topics
            for number in range(counts[topic])
        }
    )


def after(members: list[Member], given: Assignment, generation: int) -> list[Member]:
    """Return the members as they join again with what they were given."""
    return [
        member(each.member_id, {*each.subscription.topics}, given[each.member_id], generation)
        for each in members
    ]


@pytest.mark.parametrize("name", ASSIGNORS)
@pytest.mark.parametrize("seed", range(50))
def test_every_partition_goes_once_to_somebody_who_wants_it(name: str, seed: int) -> None:
    members, counts = world(seed)
    given = ASSIGNORS[name](members, counts)
    assert sorted(place for places in given.values() for place in places) == wanted(members, counts)
    for each in members:
        assert {topic for topic, _ in given[each.member_id]} <= each.subscription.topics


def test_range_gives_runs_and_roundrobin_deals_out() -> None:
    members = [member("a", {"t"}), member("b", {"t"})]
    assert assign_range(members, {"t": 3}) == {"a": [("t", 0), ("t", 1)], "b": [("t", 2)]}
    assert assign_roundrobin(members, {"t": 3}) == {"a": [("t", 0), ("t", 2)], "b": [("t", 1)]}


def test_static_members_keep_their_places_under_other_member_ids() -> None:
    members = [member("z", {"t"}, instance_id="1"), member("a", {"t"}, instance_id="2")]
    assert assign_range(members, {"t": 2}) == {"z": [("t", 0)], "a": [("t", 1)]}


def test_what_moves_is_first_taken_and_then_given() -> None:
    old = member("a", {"t"}, [("t", number) for number in range(4)], 1)
    first = assign_cooperative([old, member("b", {"t"})], {"t": 4})
    assert len(first["a"]) == 2
    assert first["b"] == []
    second = assign_cooperative(after([old, member("b", {"t"})], first, 2), {"t": 4})
    assert second["a"] == first["a"]
    assert len(second["b"]) == 2


@pytest.mark.parametrize("seed", range(50))
def test_nothing_moves_once_it_is_even(seed: int) -> None:
    members, counts = world(seed)
    for generation in range(3):
        given = assign_cooperative(members, counts)
        members = after(members, given, generation)
    assert assign_cooperative(members, counts) == given


@pytest.mark.parametrize("seed", range(50))
def test_no_partition_is_given_away_before_its_owner_let_it_go(seed: int) -> None:
    members, counts = world(seed)
    had = assign_cooperative(members, counts)
    fewer = after(members, had, 1)[1:]
    joined = [*fewer, member("new", {*counts})]
    given = assign_cooperative(joined, counts)
    for each in fewer:
        for other in joined:
            if other is not each:
                assert not set(had[each.member_id]) & set(given[other.member_id])


def test_of_two_claims_the_later_one_is_believed() -> None:
    zombie = member("a", {"t"}, [("t", 0)], 3)
    owner = member("b", {"t"}, [("t", 0)], 4)
    assert assign_cooperative([zombie, owner], {"t": 1}) == {"a": [], "b": [("t", 0)]}


def test_members_stay_at_work_only_if_they_offer_nothing_else() -> None:
    assert is_cooperative(["cooperative-sticky"])
    assert not is_cooperative(["range", "cooperative-sticky"])
