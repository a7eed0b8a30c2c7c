"""This core's links to its siblings: frames both ways, and whole requests handled elsewhere.

Frames are cut like a client's: a length, then kind, flags and number in the first eight bytes.
Nothing here knows what the frames of a kind mean, except for requests (FORWARD, ANSWER, CANCEL,
CLOSE): a Kafka request goes to the sibling as it came, is handled there as if a client had sent
it, and its answer comes back.

Invariants:
L1. What was forwarded over a link is answered exactly once: by the sibling, or with None (outcome
    unknown) when the link ends.
L2. Siblings always read, so nothing here waits for room; what may be under way is bounded by
    `FORWARD_BYTES_MAX` per link, and clients' produce requests are held back above it.
"""

# performance-critical: see STYLE.md

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from corelane.model import limits
from corelane.model.ids import ChunkId, ConnId, CoreId, Position
from corelane.shard.answer import Answer
from corelane.shard.connection import Connection, Slot
from corelane.shard.effects import Effect, Part, Send
from corelane.shard.events import LinkFrame, Request
from corelane_native import bytes_at

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

HEAD: Final = struct.Struct(">ihhi")  # length, kind, flags, number
HEAD_BYTES: Final = 8  # of a frame without its length
LENGTH_BYTES: Final = 4
_ORIGIN: Final = struct.Struct(">qhH")  # client's conn at the origin, listener, bytes of its name
_REQUEST_HEAD: Final = struct.Struct(">hhi")
_NO_CHUNKS: Final[list[ChunkId]] = []
_NUMBER_MAX: Final = 2**31


class Kind(IntEnum):
    """What a frame between siblings says."""

    HELLO = 1
    """Which groups I own at which revision, and which of them I lead."""
    SNAPSHOT = 2
    """The fold of the controller's log, whole."""
    COMMAND = 3
    """One entry of the controller's log."""
    HOMES = 4
    """Which core owns which groups."""
    LEADS = 5
    """Which groups I lead, and in which term."""
    ASK_IDS = 6
    """I need a block of producer ids."""
    PROPOSE = 7
    """A command for the controller's log; what becomes of it the fold tells."""
    FORWARD = 16
    """A client's request, to be answered by ANSWER with the same number."""
    ANSWER = 17
    """Its flags are the first error code in the answer."""
    CANCEL = 18
    """Answer that request now with what there is; its client waits for others, or left."""
    CLOSE = 19
    """Close the connection of the client whose request that was."""
    MOVE = 32
    """Hand a group over to a core."""
    PARCEL = 33
    """A group, to be owned by the receiver."""
    TAKEN = 34
    """The group in a parcel is mine now, durably; or why it is not."""
    ASK_TAKEN = 35
    """Say TAKEN again, once you know that nothing more comes from that life of its source."""
    RAFT = 48
    """A message for a replica of yours, which another node thought to be mine."""
    ASK = 49
    """A question, to be answered by TOLD with the same number (inquiries.py)."""
    TOLD = 50


ARENA_ANSWER_BYTES_MIN: Final = 16 * limits.KIB
"""A larger answer goes into the arena, from where it is sent without another copy."""

Done = Callable[[Answer | None], None]
"""Gets the answer to a forwarded request; None when the sibling ended first: nobody knows what it
did."""


class Forwarded:
    """A request under way at a sibling."""

    __slots__ = ("done", "error", "link", "number", "size_bytes")

    def __init__(self, link: "Link", number: int, size_bytes: int, done: Done) -> None:
        self.link = link
        self.number = number
        self.size_bytes = size_bytes
        self.error = 0
        self.done: Done | None = done

    def cancel(self) -> None:
        """Have it answered soon, with what there is."""
        if self.done is not None:
            self.link.send(Kind.CANCEL, self.number)


class Visitor(Connection):
    """The connection of one forwarded request, at the core that handles it.

    One request, one slot; its answer goes to the link instead of a socket. Its id is negative.
    """

    __slots__ = ("link", "number", "origin")

    def __init__(
        self, link: "Link", number: int, conn: ConnId, origin: tuple[int, int, str]
    ) -> None:
        self.origin, listener, peer = origin
        super().__init__(conn, listener, peer, link.shard.dirty)
        self.link = link
        self.number = number

    def drop_slot(self, slot: Slot) -> None:
        """No answer is due: tell the origin so, that it may forget the request."""
        super().drop_slot(slot)
        if not self.is_closed:
            self.link.send(Kind.ANSWER, self.number)
            self.link.forget(self)

    def flush(self, effects: list[Effect]) -> list[ChunkId]:
        if self.is_closed:
            return self._give_back()
        slot = self.slots.popleft()
        assert slot.parts is not None, "its only slot was filled"
        assert not self.slots
        first = slot.parts[0]
        assert isinstance(first, bytes), "an answer begins with its header"
        size_bytes = int.from_bytes(first[:4], "big")
        head = HEAD.pack(HEAD_BYTES + size_bytes, Kind.ANSWER, slot.error, self.number)
        self.link.count(HEAD.size + size_bytes)
        parts: list[Part] = [head + first[4:], *slot.parts[1:]]
        effects.append(Send(self.link.conn, parts, slot.chunks_held))
        self.link.forget(self)
        return _NO_CHUNKS

    def pause_if_full(self, effects: list[Effect]) -> None:
        """Nothing to pause: what may come is bounded where it comes from (L2)."""


class LocalVisitor(Connection):
    """The connection of this core's own share of a request that was split over several cores."""

    __slots__ = ("client", "done", "shard")

    def __init__(self, shard: "Shard", conn: ConnId, client: Connection, done: Done) -> None:
        super().__init__(conn, client.listener, client.peer, shard.dirty)
        self.shard = shard
        self.client = client
        self.done: Done | None = done

    def cancel(self) -> None:
        """Have it answered now, with what there is."""
        if self.slots and self.slots[0].hurried is not None:
            self.slots[0].hurried()

    def drop_slot(self, slot: Slot) -> None:
        """No answer is due."""
        super().drop_slot(slot)
        self._answered(Answer([], []))

    def refuse(self) -> None:
        """Close the client instead of answering."""
        self.shard.refuse_forwarded(self.client.conn)
        self._answered(Answer([], []))

    def flush(self, effects: list[Effect]) -> list[ChunkId]:
        if self.is_closed or not self.slots:
            return self._give_back()
        slot = self.slots.popleft()
        assert slot.parts is not None, "its only slot was filled"
        first = slot.parts[0]
        assert isinstance(first, bytes), "an answer begins with its header"
        self._answered(Answer([first[LENGTH_BYTES:], *slot.parts[1:]], slot.chunks_held))
        return _NO_CHUNKS

    def pause_if_full(self, effects: list[Effect]) -> None:
        """Nothing to pause: the client's own connection is bounded."""

    def _answered(self, answer: Answer) -> None:
        self.shard.connections.pop(self.conn, None)
        done, self.done = self.done, None
        if done is None:
            answer.release(self.shard.arena)
        else:
            done(answer)


class Link:
    """The way to one life of one sibling."""

    def __init__(
        self, shard: "Shard", conn: ConnId, core: CoreId, boot: int, *, is_retired: bool
    ) -> None:
        self.shard = shard
        self.conn = conn
        self.core = core
        self.boot = boot
        self.is_retired = is_retired
        self.is_down = False
        self.flight_bytes = 0
        self._next_number = 0
        self._forwarded: dict[int, Forwarded] = {}
        self._visitors: dict[int, Visitor] = {}

    def send(self, kind: Kind, number: int, body: bytes = b"", flags: int = 0) -> None:
        """Send one frame; into the void if the sibling is gone."""
        if not self.is_down:
            self.count(HEAD.size + len(body))
            head = HEAD.pack(HEAD_BYTES + len(body), kind, flags, number)
            self.shard.effects.append(Send(self.conn, [head + body], _NO_CHUNKS))

    def count(self, size_bytes: int) -> None:
        """Count a frame that is sent."""
        counts, core = self.shard.counts, self.core
        counts.sibling_frames[core] = counts.sibling_frames.get(core, 0) + 1
        counts.sibling_bytes[core] = counts.sibling_bytes.get(core, 0) + size_bytes

    def forward(self, frame: bytes, client: Connection, done: Done) -> Forwarded:
        """Have *frame*, a whole request, handled there for *client*."""
        number = self._next_number
        self._next_number = (number + 1) % _NUMBER_MAX
        assert number not in self._forwarded
        peer = client.peer.encode()[: limits.PEER_NAME_BYTES_MAX]
        origin = _ORIGIN.pack(client.conn, client.listener, len(peer)) + peer
        forwarded = Forwarded(self, number, len(frame), done)
        self._forwarded[number] = forwarded
        self.flight_bytes += len(frame)
        self.send(Kind.FORWARD, number, origin + frame)
        return forwarded

    def answered(self, frame: LinkFrame) -> None:
        """Take the answer to a forwarded request."""
        forwarded = self._forwarded.pop(frame.number, None)
        assert forwarded is not None, "L1: nobody asked"
        self.flight_bytes -= forwarded.size_bytes
        forwarded.error = frame.flags
        done, forwarded.done = forwarded.done, None
        assert done is not None
        done(self._kept(frame.address + HEAD_BYTES, frame.size_bytes - HEAD_BYTES))

    def _kept(self, address: int, size_bytes: int) -> Answer:
        """Copy an answer out of memory that is borrowed for this step."""
        if size_bytes >= ARENA_ANSWER_BYTES_MIN:
            chunk = self.shard.store.reading.keep(address, size_bytes)
            if chunk is not None:
                return Answer([(chunk, Position(0), size_bytes)], [chunk])
        data = bytes_at(address, size_bytes)
        return Answer([data] if data else [], [])

    def visit(self, frame: LinkFrame, conn: ConnId) -> tuple[Visitor, Request]:
        """Return the connection and the request that a FORWARD frame stands for."""
        at = frame.address + HEAD_BYTES
        origin, listener, peer_bytes = _ORIGIN.unpack(bytes_at(at, _ORIGIN.size))
        at += _ORIGIN.size
        peer = bytes_at(at, peer_bytes).decode(errors="replace")
        at += peer_bytes
        size_bytes = frame.address + frame.size_bytes - at
        key, version, correlation_id = _REQUEST_HEAD.unpack(bytes_at(at, _REQUEST_HEAD.size))
        visitor = Visitor(self, frame.number, conn, (origin, listener, peer))
        self._visitors[frame.number] = visitor
        return visitor, Request(conn, at, size_bytes, key, version, correlation_id)

    def hurry(self, number: int) -> None:
        """Answer a visitor's request with what there is; it may be answered already."""
        visitor = self._visitors.get(number)
        if visitor is not None and visitor.slots and visitor.slots[0].hurried is not None:
            visitor.slots[0].hurried()

    def refuse(self, visitor: Visitor) -> None:
        """Have the client of a visitor closed at its origin, instead of an answer."""
        self.send(Kind.CLOSE, 0, struct.pack(">q", visitor.origin))
        if visitor.number in self._visitors:
            self.send(Kind.ANSWER, visitor.number)
        self.forget(visitor)

    def forget(self, visitor: Visitor) -> None:
        """A visitor's request is answered."""
        self._visitors.pop(visitor.number, None)
        self.shard.connections.pop(visitor.conn, None)

    def end(self) -> None:
        """The sibling is gone: nobody answers, and nobody waits for what it asked for."""
        self.is_down = True
        forwarded, self._forwarded = self._forwarded, {}
        visitors, self._visitors = self._visitors, {}
        self.flight_bytes = 0
        for visitor in visitors.values():
            self.shard.connections.pop(visitor.conn, None)
            visitor.close()
        for each in forwarded.values():
            done, each.done = each.done, None
            assert done is not None, "L1"
            done(None)


class Links:
    """The links of one core, at most one to each sibling."""

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self._by_core: dict[CoreId, Link] = {}
        self._by_conn: dict[ConnId, Link] = {}
        self._next_visitor = -1

    @property
    def is_congested(self) -> bool:
        """Whether clients' produce requests are to be held back (L2)."""
        return any(link.flight_bytes > limits.FORWARD_BYTES_MAX for link in self._by_core.values())

    def all(self) -> list[Link]:
        """Return every link that is up."""
        return [*self._by_core.values()]

    def to(self, core: CoreId) -> Link | None:
        """Return the link to a sibling, or None while it is away."""
        return self._by_core.get(core)

    def of(self, conn: ConnId) -> Link | None:
        """Return the link that a conn is; None: it ended meanwhile."""
        return self._by_conn.get(conn)

    def up(self, conn: ConnId, core: CoreId, boot: int, *, is_retired: bool) -> Link:
        """Take note of a sibling's new life."""
        former = self._by_core.get(core)
        assert former is None, "the link to its life before ended first"
        link = Link(self._shard, conn, core, boot, is_retired=is_retired)
        self._by_core[core] = link
        self._by_conn[conn] = link
        return link

    def down(self, conn: ConnId) -> Link | None:
        """Take note of a sibling's end."""
        link = self._by_conn.pop(conn, None)
        if link is not None:
            del self._by_core[link.core]
            link.end()
        return link

    def visitor_id(self) -> ConnId:
        """Return the id of a visitor's connection, which no client's ever is."""
        self._next_visitor -= 1
        return ConnId(self._next_visitor)
