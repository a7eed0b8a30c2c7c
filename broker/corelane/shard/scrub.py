"""Reading old segments slowly, so that damage is found before somebody needs what it hit.

Every segment of every group is read as for a follower (`Shipping`: rows, control entries and the
checksum of each batch are judged) and let go again, piece by piece, at most
`corelane.scrub.bytes.per.second` of them, by the thread that reads old data.

Invariant U1: one piece is under way at a time, and none while reads wait for memory.
"""

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from corelane.model.ids import GroupId, Index
from corelane.model.limits import KIB
from corelane.shard.member import Member
from corelane.shard.partition import Partition
from corelane.storage.entries import ColdEntries, cold_span
from corelane.storage.segments import Segment
from corelane.storage.shipping import EntriesRead

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

PIECE_BYTES: Final = 256 * KIB
IDLE_MS: Final = 1_000
"""Until the next look where others read, or nothing is to be read."""
PASS_MS: Final = 10_000
"""Between the end of a pass and the next one: cores with little data are mostly left alone."""
GROUPS_MAX: Final = 64
"""Groups looked at in one turn that have nothing to read."""
_SECOND_MS: Final = 1_000
_ERROR: Final = 40


class Scrub:
    """The scrub of one core; a waiter that always waits for its next piece."""

    __slots__ = ("_group", "_groups", "_next", "_shard", "is_done")

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self._groups: deque[GroupId] = deque()
        self._group: GroupId | None = None
        self._next = Index(1)
        self.is_done = False  # never: see Deadlines
        shard.deadlines.add(IDLE_MS, self)

    def expire(self, now_ms: int) -> None:
        """Begin the next piece."""
        store = self._shard.store
        rate = self._shard.config.config.replication.scrub_bytes_per_second
        is_busy = store.shipping.is_waiting or store.reading.is_waiting
        is_off = rate == 0 or is_busy or self._shard.is_stopping
        pause_ms = IDLE_MS if is_off else self._begin(rate)
        if pause_ms:
            self._shard.deadlines.add(now_ms + pause_ms, self)

    def _begin(self, rate: int) -> int:
        """Begin to read a piece; return when to look again: 0 when that has come."""
        for _ in range(GROUPS_MAX):
            member = self._member()
            cold = None if member is None else self._piece(member)
            if member is not None and cold is not None:
                arrived = partial(self._arrived, member, cold, rate)
                try:
                    self._shard.store.shipping.read(member.log, cold, arrived)
                except MemoryError:
                    return IDLE_MS
                return 0
            self._group = None
            if not self._groups:
                self._groups.extend(self._shard.groups.members)
                return PASS_MS
        return 1

    def _member(self) -> Member | None:
        """Return the group that is being read, or the next one."""
        if self._group is None and self._groups:
            self._group, self._next = self._groups.popleft(), Index(1)
        return None if self._group is None else self._shard.groups.members.get(self._group)

    def _piece(self, member: Member) -> ColdEntries | None:
        """Return the next entries to read of a group; None: it was read to its end."""
        log = member.log
        items = log.segments.items
        first = max(self._next, log.first_index)
        if not items or first > log.flushed_index or member.is_damaged:
            return None
        segment, last = log.segments.holding_index(first)
        return ColdEntries(
            segment, first, cold_span(segment, first, last, PIECE_BYTES), PIECE_BYTES
        )

    def _arrived(self, member: Member, cold: ColdEntries, rate: int, read: EntriesRead) -> None:
        shard = self._shard
        shard.arena.release(read.chunk)
        shard.counts.scrubbed_bytes += read.size_bytes
        self._next = Index(max(read.last_index, cold.first_index) + 1)
        if read.error:
            self._damaged(member, cold.segment)
            self._next = Index(cold.segment.base_index + cold.segment.row_count)
        pause_ms = max(1, read.size_bytes * _SECOND_MS // rate)
        shard.deadlines.add(shard.now_ms + pause_ms, self)

    def _damaged(self, member: Member, segment: Segment) -> None:
        shard = self._shard
        path = segment.path(segment.log)
        if shard.groups.repairs.found_in_segment(member, segment, f"{path} is not what it was"):
            return
        shard.counts.segments_rotten += 1
        if isinstance(member, Partition):
            name = f"{member.topic.name}-{member.number}"
            shard.log(
                _ERROR,
                f"partition {name}: {path} is damaged, and no other replica has it. What is whole"
                " is served; restore the file from a backup, and check the disk.",
            )
