"""Decides, in the leader of a classic group, which member reads which partitions.

Calculations, the same as other clients do under these names, so that they may meet in one group.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final, Literal

from corelane.model.record import record
from corelane_client.group_offsets import Place
from corelane_client.subscriptions import Subscription

Strategy = Literal["range", "roundrobin", "cooperative-sticky"]
COOPERATIVE: Final[Strategy] = "cooperative-sticky"


@record
class Member:
    """A member as the leader sees it."""

    member_id: str
    instance_id: str | None
    subscription: Subscription


Assignment = dict[str, list[Place]]
"""What each member is to have, by its id; every partition that somebody wants, once at most."""
Assign = Callable[[Collection[Member], Mapping[str, int]], Assignment]
"""(members, the number of partitions of each topic that exists) -> assignment."""


def assign_range(members: Collection[Member], counts: Mapping[str, int]) -> Assignment:
    """Give each subscriber of a topic a run of its partitions."""
    given: Assignment = {member.member_id: [] for member in members}
    for topic, subscribers in _subscribers(members, counts).items():
        each, larger = divmod(counts[topic], len(subscribers))
        first = 0
        for index, member in enumerate(subscribers):
            end = first + each + (index < larger)
            given[member.member_id] += [(topic, number) for number in range(first, end)]
            first = end
    return given


def assign_roundrobin(members: Collection[Member], counts: Mapping[str, int]) -> Assignment:
    """Deal all partitions out, one after the other, to those who want them."""
    ordered = sorted(members, key=_order)
    given: Assignment = {member.member_id: [] for member in ordered}
    at = 0
    for place in _wanted(members, counts):
        while place[0] not in ordered[at % len(ordered)].subscription.topics:
            at += 1
        given[ordered[at % len(ordered)].member_id].append(place)
        at += 1
    return given


def assign_cooperative(members: Collection[Member], counts: Mapping[str, int]) -> Assignment:
    """Move as little as an even share allows; what moves is nobody's until its owner let it go.

    So there are two rounds (KIP-429): who is to lose partitions hears of it in this one, revokes
    them and joins again; the next one gives them to others.
    """
    owners = _owners(members, counts)
    target = _balanced(members, counts, owners)
    given: Assignment = {member.member_id: [] for member in members}
    for member_id, wanted in target.items():
        given[member_id] = sorted(
            place for place in wanted if owners.get(place, member_id) == member_id
        )
    return given


ASSIGNORS: Final[dict[str, Assign]] = {
    "range": assign_range,
    "roundrobin": assign_roundrobin,
    COOPERATIVE: assign_cooperative,
}


def is_cooperative(strategies: Collection[str]) -> bool:
    """Return whether members keep what they have while the group decides anew.

    As in Java's consumers: only if they offer no strategy that would take it away from them.
    """
    return set(strategies) == {COOPERATIVE}


def _order(member: Member) -> tuple[bool, str, str]:
    """Static members come first, by their own names, so that they keep their places."""
    return member.instance_id is None, member.instance_id or "", member.member_id


def _subscribers(members: Collection[Member], counts: Mapping[str, int]) -> dict[str, list[Member]]:
    """Return who wants each topic that exists, in order."""
    found: dict[str, list[Member]] = {}
    for member in sorted(members, key=_order):
        for topic in sorted(member.subscription.topics):
            if topic in counts:
                found.setdefault(topic, []).append(member)
    return found


def _wanted(members: Collection[Member], counts: Mapping[str, int]) -> list[Place]:
    """Return every partition that somebody wants, in order."""
    topics = sorted(_subscribers(members, counts))
    return [(topic, number) for topic in topics for number in range(counts[topic])]


def _owners(members: Collection[Member], counts: Mapping[str, int]) -> dict[Place, str]:
    """Return who owns what: of two that claim a partition, who was given it later.

    Of two of one generation neither can be believed; it is then nobody's.
    """
    owners: dict[Place, tuple[int, str]] = {}
    disputed: set[Place] = set()
    for member in sorted(members, key=_order):
        claim = (member.subscription.generation, member.member_id)
        for place in member.subscription.owned:
            topic, number = place
            if topic not in member.subscription.topics or number >= counts.get(topic, 0):
                continue
            other = owners.get(place)
            if other is None or claim[0] > other[0]:
                owners[place] = claim
                disputed.discard(place)
            elif claim[0] == other[0]:
                disputed.add(place)
    return {
        place: member_id
        for place, (_generation, member_id) in owners.items()
        if place not in disputed
    }


def _balanced(
    members: Collection[Member], counts: Mapping[str, int], owners: Mapping[Place, str]
) -> dict[str, list[Place]]:
    """Return an even assignment near to *owners*.

    Partitions go from who has most to who has least and wants them, until no such move makes the
    two more even. Each move lessens the sum of the squares of the loads, so this ends.
    """
    loads = {member.member_id: 0 for member in members}
    held: dict[str, dict[str, list[int]]] = {member_id: {} for member_id in loads}
    subscribers = {
        topic: [member.member_id for member in found]
        for topic, found in _subscribers(members, counts).items()
    }
    owned = sorted(owners.items())
    loose = [place for place in _wanted(members, counts) if place not in owners]
    for (topic, number), owner in [*owned, *((place, None) for place in loose)]:
        member_id = owner or min(subscribers[topic], key=loads.__getitem__)
        held[member_id].setdefault(topic, []).append(number)
        loads[member_id] += 1
    while (move := _best_move(held, loads, subscribers)) is not None:
        topic, giver, taker = move
        held[taker].setdefault(topic, []).append(held[giver][topic].pop())
        loads[giver] -= 1
        loads[taker] += 1
    return {
        member_id: [(topic, number) for topic, numbers in rows.items() for number in numbers]
        for member_id, rows in held.items()
    }


def _best_move(
    held: Mapping[str, Mapping[str, list[int]]],
    loads: Mapping[str, int],
    subscribers: Mapping[str, list[str]],
) -> tuple[str, str, str] | None:
    """Return of which topic a partition should move, from whom, to whom; None: all is even."""
    for giver in sorted(loads, key=lambda member_id: (-loads[member_id], member_id)):
        takers = [
            (loads[taker], taker, topic)
            for topic, numbers in held[giver].items()
            if numbers
            for taker in subscribers[topic]
        ]
        if takers and min(takers)[0] + 1 < loads[giver]:
            _load, taker, topic = min(takers)
            return topic, giver, taker
    return None
