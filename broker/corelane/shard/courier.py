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
from corelane.raft.messages import Append
from corelane.raft.replication import term_in
from corelane.shard.effects import Part
from corelane.shard.member import Member
from corelane.storage.entries import ColdEntries, MemoryEntries
from corelane.storage.segments import Segment
from corelane.storage.shipping import EntriesRead

if TYPE_CHECKING:
    from corelane.storage.store import CoreStore

_ALL_BYTES: Final = 1 << 62

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


class Couriers:
    """All appends of one core that have entries."""

    def __init__(self, store: "CoreStore", put: Put, damaged: Damaged) -> None:
        self._store = store
        self._put = put
        self._damaged = damaged
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
                self._read(member, to, message, entries)
                return False
            now, rest = split(message, entries.last_index)
            self._send_memory(member, to, now, entries)
            if rest is None:
                return True
            message = rest

    def _send_memory(
        self, member: Member, to: MemberId, message: Append, entries: MemoryEntries
    ) -> None:
        chunks = [*{part[0]: None for part in entries.parts if not isinstance(part, bytes)}]
        for chunk in chunks:
            self._store.arena.retain(chunk)
        self._put(member, to, message, entries.parts, chunks)

    def _read(self, member: Member, to: MemberId, message: Append, cold: ColdEntries) -> None:
        key = (member.group, to)
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque([message])
        else:
            waiting[0] = message
        limited = replace(cold, bytes_max=1 << 20)
        try:
            self._store.shipping.read(
                member.log, limited, partial(self._arrived, member, to, cold.segment)
            )
        except MemoryError:
            del self._waiting[key]  # raft asks again with the next heartbeat

    def _arrived(self, member: Member, to: MemberId, segment: Segment, read: EntriesRead) -> None:
        """Send what was read, then what waits behind it."""
        key = (member.group, to)
        waiting = self._waiting.get(key)
        message = waiting[0] if waiting else None
        is_of_use = (
            message is not None
            and member.raft.is_leader
            and member.raft.term == message.term
            and not member.log.is_dropped
        )
        if read.error or read.is_gone or not is_of_use:
            self._store.arena.release(read.chunk)
            self._waiting.pop(key, None)
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
        del self._waiting[key]


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
