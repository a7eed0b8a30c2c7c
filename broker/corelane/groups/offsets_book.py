"""How far groups have read: offsets that count, and those that a transaction has yet to decide.

Invariants:
O1. What counts is a fold of the log in the order of its records; a transaction's offsets count from
    its marker on, not from when they were written (redpanda 31483).
O2. Where a transaction is open, nobody who asks for stable offsets is answered with an older one
    (redpanda 9571).
O3. What is taken back is taken back from open transactions, too: their markers do not bring it
    again (Kafka: OffsetMetadataManager).
"""

from collections.abc import Iterator

from corelane.groups.records import CommittedOffset, OffsetRecord, Place


class OffsetsBook:
    """The offsets of all groups of one coordinator."""

    def __init__(self) -> None:
        self._offsets: dict[str, dict[Place, CommittedOffset]] = {}
        self._staged: dict[int, dict[tuple[str, Place], CommittedOffset]] = {}
        """By the producer's id, in the order they were written."""
        self._open: dict[str, dict[Place, set[int]]] = {}
        """The producers whose transactions will decide about a partition of a group."""

    def __contains__(self, group: str) -> bool:
        return group in self._offsets or group in self._open

    def of(self, group: str) -> dict[Place, CommittedOffset]:
        """Return what a group has committed; not to be changed."""
        return self._offsets.get(group, {})

    def groups(self) -> Iterator[str]:
        """Yield the groups that have committed anything, or will when a transaction commits."""
        yield from self._offsets
        yield from [group for group in self._open if group not in self._offsets]

    def places(self, group: str) -> list[Place]:
        """Return the partitions that a group has offsets of, staged ones too."""
        return [*dict.fromkeys([*self.of(group), *self._open.get(group, ())])]

    def replay(self, found: OffsetRecord) -> None:
        """Take in a record of the log."""
        place = (found.topic, found.partition)
        if found.value is not None:
            self._offsets.setdefault(found.group, {})[place] = found.value
            return
        for producer_id in [*self._open.get(found.group, {}).get(place, ())]:  # O3
            self._unstage(producer_id, found.group, place)
        offsets = self._offsets.get(found.group)
        if offsets is not None:
            offsets.pop(place, None)
            if not offsets:
                del self._offsets[found.group]

    def stage(self, producer_id: int, group: str, place: Place, offset: CommittedOffset) -> None:
        """Take in an offset that a transaction is to decide about."""
        staged = self._staged.setdefault(producer_id, {})
        staged.pop((group, place), None)
        staged[group, place] = offset
        self._open.setdefault(group, {}).setdefault(place, set()).add(producer_id)

    def _unstage(self, producer_id: int, group: str, place: Place) -> CommittedOffset:
        staged, places = self._staged[producer_id], self._open[group]
        offset = staged.pop((group, place))
        places[place].remove(producer_id)
        if not places[place]:
            del places[place]
        if not places:
            del self._open[group]
        if not staged:
            del self._staged[producer_id]
        return offset

    def end(self, producer_id: int, *, commits: bool) -> None:
        """Take in a transaction's marker; one that is not known has ended before."""
        for group, place in [*self._staged.get(producer_id, {})]:
            offset = self._unstage(producer_id, group, place)
            if commits:
                self.replay(OffsetRecord(group, *place, offset))

    def is_staged(self, group: str, place: Place | None = None) -> bool:
        """Whether an open transaction will decide about a group, or one partition of it."""
        places = self._open.get(group, {})
        return bool(places) if place is None else place in places

    def expired(self, group: str, before_ms: int) -> list[OffsetRecord]:
        """Return the tombstones of what was committed before a time, and is not undecided."""
        return [
            OffsetRecord(group, *place, None)
            for place, offset in self.of(group).items()
            if offset.commit_ms <= before_ms and not self.is_staged(group, place)
        ]

    def tombstones(self, group: str) -> list[OffsetRecord]:
        """Return what takes back all that a group has committed, or staged (O3)."""
        return [OffsetRecord(group, *place, None) for place in self.places(group)]

    def live_records(self) -> Iterator[OffsetRecord]:
        """Yield what a fresh log must say."""
        for group, offsets in self._offsets.items():
            for place, offset in offsets.items():
                yield OffsetRecord(group, *place, offset)
