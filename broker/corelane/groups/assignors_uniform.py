"""Gives every member as much as the others, and moves as little as that allows.

Two ways, as in Kafka: where all members are subscribed to the same topics, each has its share or
one more, and only what is above a share moves. Where subscriptions differ there need not be such a
share; there partitions go from a member to another that may have them until no two members differ
by two or more while the larger one has something the smaller may have.
"""

import heapq
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

from corelane.groups.assignors_spec import MemberSpec
from corelane.groups.consumer_records import Partition, Partitions
from corelane.model.ids import TopicId

ROUNDS_MAX: Final = 100
"""Of balancing where subscriptions differ: each round makes the loads more even, most groups need
two or three, and a group that would need more than this stays a little uneven."""


def assign(members: Sequence[MemberSpec], counts: Mapping[TopicId, int]) -> dict[str, Partitions]:
    """Return what each member is to have; see `assignors.Assign`."""
    if not members:
        return {}
    ordered = sorted(members, key=lambda member: member.member_id)
    first = ordered[0].topics
    if all(member.topics == first for member in ordered):
        return _assign_shares(ordered, first, counts)
    return _Balance(ordered, counts).assign()


def _assign_shares(
    members: list[MemberSpec], topics: frozenset[TopicId], counts: Mapping[TopicId, int]
) -> dict[str, Partitions]:
    """Assign where everybody may have everything."""
    wanted = [(topic_id, n) for topic_id in sorted(topics) for n in range(counts[topic_id])]
    kept = _kept(members, counts)
    share, larger = divmod(len(wanted), len(members))
    # One more goes to who has most: there is least to move.
    by_load = sorted(members, key=lambda member: (-len(kept[member.member_id]), member.member_id))
    open_places: list[tuple[str, int]] = []
    for place, member in enumerate(by_load):
        room = share + (place < larger)
        had = kept[member.member_id]
        del had[room:]
        if len(had) < room:
            open_places.append((member.member_id, room - len(had)))
    taken = set(chain.from_iterable(kept.values()))
    loose = [partition for partition in wanted if partition not in taken]
    # One each in turn, so that a topic is spread over members, not given to one of them.
    while open_places:
        still_open = []
        for (member_id, room), partition in zip(open_places, loose, strict=False):
            kept[member_id].append(partition)
            if room > 1:
                still_open.append((member_id, room - 1))
        loose = loose[len(open_places) :]
        open_places = still_open
    assert not loose
    return {member_id: frozenset(partitions) for member_id, partitions in kept.items()}


def _kept(members: list[MemberSpec], counts: Mapping[TopicId, int]) -> dict[str, list[Partition]]:
    """Return what each member had and may still have, in order; no partition twice."""
    taken: set[Partition] = set()
    kept: dict[str, list[Partition]] = {}
    for member in members:
        mine = kept[member.member_id] = []
        for partition in sorted(member.partitions - taken):
            topic_id, number = partition
            if topic_id in member.topics and number < counts[topic_id]:
                mine.append(partition)
        taken.update(mine)
    return kept


class _Balance:
    """Partitions of one topic are alike, so what is counted is numbers per member and topic."""

    __slots__ = ("_counts", "_held", "_load", "_subscribers")

    def __init__(self, members: list[MemberSpec], counts: Mapping[TopicId, int]) -> None:
        self._counts = counts
        self._load: dict[str, int] = {}
        self._subscribers: dict[TopicId, list[str]] = {}
        self._held: dict[TopicId, dict[str, list[int]]] = {}
        for member in members:
            self._load[member.member_id] = 0
            for topic_id in member.topics:
                self._subscribers.setdefault(topic_id, []).append(member.member_id)
                self._held.setdefault(topic_id, {})[member.member_id] = []
        for member_id, partitions in _kept(members, counts).items():
            self._load[member_id] = len(partitions)
            for topic_id, number in partitions:
                self._held[topic_id][member_id].append(number)

    def assign(self) -> dict[str, Partitions]:
        topics = sorted(self._subscribers)
        for topic_id in topics:
            self._give_loose(topic_id)
        for _ in range(ROUNDS_MAX):
            moved = [self._even_out(topic_id) for topic_id in topics]
            if not any(moved):
                break
        given: dict[str, list[Partition]] = {member_id: [] for member_id in self._load}
        for topic_id, held in self._held.items():
            for member_id, numbers in held.items():
                given[member_id] += [(topic_id, number) for number in numbers]
        return {member_id: frozenset(partitions) for member_id, partitions in given.items()}

    def _give_loose(self, topic_id: TopicId) -> None:
        """Give what nobody has to whoever has least."""
        held = self._held[topic_id]
        taken = set(chain.from_iterable(held.values()))
        loads = [(self._load[member_id], member_id) for member_id in self._subscribers[topic_id]]
        heapq.heapify(loads)
        for number in range(self._counts[topic_id]):
            if number not in taken:
                load, member_id = loads[0]
                held[member_id].append(number)
                self._load[member_id] = load + 1
                heapq.heapreplace(loads, (load + 1, member_id))

    def _even_out(self, topic_id: TopicId) -> bool:
        """Move partitions of one topic from the largest to the smallest; tell whether any moved.

        Each move takes at least 2 from the sum of the squares of the loads, so this ends.
        """
        held = self._held[topic_id]
        smallest = [(self._load[member_id], member_id) for member_id in held]
        largest = [(-load, member_id) for load, member_id in smallest if held[member_id]]
        heapq.heapify(smallest)
        heapq.heapify(largest)
        moved = False
        while largest:
            minus, giver = largest[0]
            load, taker = smallest[0]
            if -minus != self._load[giver] or not held[giver]:
                heapq.heappop(largest)
            elif load != self._load[taker]:
                heapq.heappop(smallest)
            elif -minus - load < 2:
                break
            else:
                held[taker].append(held[giver].pop())
                moved = True
                for member_id, change in ((giver, -1), (taker, 1)):
                    self._load[member_id] += change
                    heapq.heappush(smallest, (self._load[member_id], member_id))
                    heapq.heappush(largest, (-self._load[member_id], member_id))
        return moved
