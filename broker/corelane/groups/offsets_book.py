"""How far groups have read: offsets that count, and those that a transaction has yet to decide.

Invariants:
O1. What counts is a fold of the log in the order of its records; a transaction's offsets count from
    its marker on, not from when they were written (redpanda 31483).
O2. Where a transaction is open, nobody who asks for stable offsets is answered with an older one
    (redpanda 9571).
"""

from collections.abc import Iterator

from corelane.groups.records import CommittedOffset, OffsetRecord, Place

Staged = tuple[str, Place, CommittedOffset]


class OffsetsBook:
    """The offsets of all groups of one coordinator."""

    def __init__(self) -> None:
        self._offsets: dict[str, dict[Place, CommittedOffset]] = {}
        self._staged: dict[int, list[Staged]] = {}
        """By the producer's id, in the order they were written."""

    def __contains__(self, group: str) -> bool:
        return group in self._offsets

    def of(self, group: str) -> dict[Place, CommittedOffset]:
        """Return what a group has committed; not to be changed."""
        return self._offsets.get(group, {})

    def groups(self) -> Iterator[str]:
        """Yield the groups that have committed anything."""
        return iter(self._offsets)

    def replay(self, found: OffsetRecord) -> None:
        """Take in a record of the log."""
        place = (found.topic, found.partition)
        if found.value is not None:
            self._offsets.setdefault(found.group, {})[place] = found.value
            return
        offsets = self._offsets.get(found.group)
        if offsets is not None:
            offsets.pop(place, None)
            if not offsets:
                del self._offsets[found.group]

    def stage(self, producer_id: int, group: str, place: Place, offset: CommittedOffset) -> None:
        """Take in an offset that a transaction is to decide about."""
        self._staged.setdefault(producer_id, []).append((group, place, offset))

    def end(self, producer_id: int, *, commits: bool) -> None:
        """Take in a transaction's marker; one that is not known has ended before."""
        for group, (topic, partition), offset in self._staged.pop(producer_id, []):
            if commits:
                self.replay(OffsetRecord(group, topic, partition, offset))

    def is_staged(self, group: str, place: Place | None = None) -> bool:
        """Whether an open transaction will decide about a group, or one partition of it."""
        return any(
            name == group and place in {None, at}
            for staged in self._staged.values()
            for name, at, _offset in staged
        )

    def expired(self, group: str, before_ms: int) -> list[OffsetRecord]:
        """Return the tombstones of what was committed before a time, and is not undecided."""
        return [
            OffsetRecord(group, *place, None)
            for place, offset in self.of(group).items()
            if offset.commit_ms <= before_ms and not self.is_staged(group, place)
        ]

    def tombstones(self, group: str) -> list[OffsetRecord]:
        """Return what takes back all that a group has committed."""
        return [OffsetRecord(group, *place, None) for place in self.of(group)]

    def live_records(self) -> Iterator[OffsetRecord]:
        """Yield what a fresh log must say."""
        for group, offsets in self._offsets.items():
            for place, offset in offsets.items():
                yield OffsetRecord(group, *place, offset)
