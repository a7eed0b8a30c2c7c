"""Entries on their way to followers: from memory as they lie, from segments once they are read.

raft says which entries a follower is to get; here the bytes are found. What memory has no longer
is read by the store thread, and what raft sends behind it to the same follower waits for it, so
that appends leave in their order. Nothing is sent twice: what is dropped here raft repeats.

Invariants:
R1. Of one follower of one group at most one read is under way, and what waits behind it is within
    raft's window for that follower.
R2. Every reference on a chunk is given on with a message, or given back.
"""

# performance-critical: see STYLE.md

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from corelane.model.ids import ChunkId, GroupId, Index, MemberId
from corelane.model.record import record
from corelane.raft.messages import Append
from corelane.raft.replication import term_in
from corelane.shard.effects import Part
from corelane.shard.lanes import Lanes
from corelane.shard.member import Member
from corelane.shard.peers.hello import PeerId
from corelane.storage.entries import ColdEntries, MemoryEntries
from corelane.storage.segments import Segment
from corelane.storage.shipping import EntriesRead

if TYPE_CHECKING:
    from corelane.storage.store import CoreStore

_ALL_BYTES: Final = 1 << 62
READ_BYTES: Final = 1 << 20

Damaged = Callable[[Member, Segment, int], None]
"""Told which segment of a group cannot be read, and the errno."""


class Put(Protocol):
    """Sends an append with its entries."""

    def __call__(
        self,
        member: Member,
        to: MemberId,
        message: Append,
        payload: list[Part],
        chunks: list[ChunkId],
        /,
    ) -> None:
        """Send it, or lose it; takes over the references on *chunks*."""


@record
class Places:
    """Where members are, and when what is old may be read for them."""

    of: Callable[[GroupId, MemberId], PeerId]
    lanes: Lanes


class Couriers:
    """All appends of one core that have entries."""

    def __init__(self, store: "CoreStore", put: Put, damaged: Damaged, places: Places) -> None:
        self._store = store
        self._put = put
        self._damaged = damaged
        self._place_of = places.of
        self.lanes = places.lanes
        self._waiting: dict[tuple[GroupId, MemberId], deque[Append]] = {}

    def send(self, member: Member, to: MemberId, message: Append) -> None:
        """Send *message* with its entries, behind what was to be sent to the same member."""
        waiting = self._waiting.get((member.group, to))
        if waiting is not None:
            if waiting[0].term == message.term:
                waiting.append(message)
            return  # a read for an earlier term is under way: raft repeats this one
        self._go(member, to, message)

    def _go(self, member: Member, to: MemberId, message: Append) -> bool:
        """Send a message; return False while some of it is being read."""
        log = member.log
        while True:
            first = Index(message.prev_index + 1)
            if first > log.last_index:
                return True
            entries = log.entries(first, message.last_index, _ALL_BYTES)
            if entries is None:
                return True  # trimmed meanwhile: raft notices when it is asked again
            if isinstance(entries, ColdEntries):
                self._read(member, to, message)
                return False
            now, rest = split(message, entries.last_index)
            self._send_memory(member, to, now, entries)
            if rest is None:
                return True
            message = rest

    def is_busy(self, group: GroupId, to: MemberId) -> bool:
        """Whether something for a follower waits to be read, or is."""
        return (group, to) in self._waiting

    def _send_memory(
        self, member: Member, to: MemberId, message: Append, entries: MemoryEntries
    ) -> None:
        chunks = [*{part[0]: None for part in entries.parts if not isinstance(part, bytes)}]
        for chunk in chunks:
            self._store.arena.retain(chunk)
        self._put(member, to, message, entries.parts, chunks)

    def _read(self, member: Member, to: MemberId, message: Append) -> None:
        key = (member.group, to)
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque([message])
        else:
            waiting[0] = message
        self.lanes.ask(self._place_of(member.group, to), key, partial(self._begin, member, to))

    def _begin(self, member: Member, to: MemberId) -> None:
        """Read on, now that the follower's core has asked for it."""
        key = (member.group, to)
        waiting = self._waiting.get(key)
        if not waiting:
            self.lanes.ended(key)
            return
        log, message = member.log, waiting[0]
        cold = None
        if self._is_of_use(member, message) and message.prev_index < log.last_index:
            cold = log.entries(Index(message.prev_index + 1), message.last_index, _ALL_BYTES)
        if not isinstance(cold, ColdEntries):
            self._end(key)  # raft notices when it asks again
            return
        limited = replace(cold, bytes_max=READ_BYTES)
        try:
            arrived = partial(self._arrived, member, to, cold.segment)
            self._store.shipping.read(log, limited, arrived)
        except MemoryError:
            self._end(key)  # raft asks again with the next heartbeat

    def _is_of_use(self, member: Member, message: Append | None) -> bool:
        is_current = message is not None and member.raft.term == message.term
        return is_current and member.raft.is_leader and not member.log.is_dropped

    def _end(self, key: tuple[GroupId, MemberId]) -> None:
        self._waiting.pop(key, None)
        self.lanes.ended(key)

    def _arrived(self, member: Member, to: MemberId, segment: Segment, read: EntriesRead) -> None:
        """Send what was read, then what waits behind it."""
        key = (member.group, to)
        waiting = self._waiting.get(key)
        message = waiting[0] if waiting else None
        self.lanes.used(key, read.size_bytes)
        if read.error or read.is_gone or not self._is_of_use(member, message):
            self._store.arena.release(read.chunk)
            self._end(key)
            if read.error:
                self._damaged(member, segment, read.error)
            return
        assert message is not None
        assert waiting is not None
        now, rest = split(message, min(read.last_index, message.last_index))
        self._put(member, to, now, read.parts, [read.chunk])
        if rest is not None:
            waiting[0] = rest
            if not self._go(member, to, rest):
                return
        waiting.popleft()
        while waiting:
            if not self._go(member, to, waiting[0]):
                return
            if self._waiting.get(key) is not waiting:
                return  # dropped
            waiting.popleft()
        self._end(key)


def split(message: Append, last_index: Index) -> tuple[Append, Append | None]:
    """Cut a message behind *last_index*: what goes now, and the rest of it."""
    assert message.prev_index < last_index <= message.last_index
    if last_index == message.last_index:
        return message, None
    term = term_in(message, last_index)
    now = replace(
        message,
        last_index=last_index,
        runs=tuple(run for run in message.runs if run[0] <= last_index),
        configurations=tuple(each for each in message.configurations if each[0] <= last_index),
    )
    following = Index(last_index + 1)
    rest = replace(
        message,
        prev_index=last_index,
        prev_term=term,
        runs=(
            (following, term_in(message, following)),
            *(run for run in message.runs if run[0] > following),
        ),
        configurations=tuple(each for each in message.configurations if each[0] > last_index),
    )
    return now, rest
