"""One client connection: a FIFO of answer slots that leave in the order of their requests."""

# performance-critical: see STYLE.md

import struct
from collections import deque
from collections.abc import Callable

from corelane.model import limits
from corelane.model.ids import ChunkId, ConnId
from corelane.shard.effects import Effect, Part, Pause, Resume, Send

_FRAME_HEADER = struct.Struct(">ii")
_NO_CHUNKS: list[ChunkId] = []


class Slot:
    """The place of an answer. Whoever completes the request fills it, once.

    Requests that follow one another and are handled as one have one slot, for all their answers.
    """

    __slots__ = (
        "abandoned",
        "api_key",
        "api_version",
        "began_us",
        "chunks_held",
        "connection",
        "correlation_id",
        "count",
        "error",
        "failed",
        "hurried",
        "parts",
    )

    def __init__(
        self, connection: "Connection", key: int, version: int, correlation: int, count: int = 1
    ) -> None:
        assert count > 0
        self.connection = connection
        self.count = count  # of requests
        self.failed = count  # of these, the last ones, whose answer is `error`
        self.api_key = key
        self.api_version = version
        self.correlation_id = correlation
        self.began_us = 0
        self.error = 0  # the first in the answer, for the counts
        self.parts: list[Part] | None = None
        self.chunks_held: list[ChunkId] = _NO_CHUNKS
        # Called if the client leaves before its answer; for waits that nothing else would end.
        self.abandoned: Callable[[], None] | None = None
        # Called to have it answered now, with what there is; only for waits that time would end.
        self.hurried: Callable[[], None] | None = None

    def fill(self, body: bytes, *, header_is_flexible: bool) -> None:
        """Answer with *body*; the frame and response header (v0 or v1) are put before it."""
        if header_is_flexible:
            frame = _FRAME_HEADER.pack(len(body) + 5, self.correlation_id) + b"\0" + body
        else:
            frame = _FRAME_HEADER.pack(len(body) + 4, self.correlation_id) + body
        self.fill_parts([frame], _NO_CHUNKS)

    def fill_parts(self, parts: list[Part], chunks_held: list[ChunkId]) -> None:
        """Answer with a whole frame made of *parts*; takes over the references on *chunks_held*."""
        assert self.parts is None, "an answer slot is filled once"
        assert parts, "an answer has at least its header"
        self.parts = parts
        self.chunks_held = chunks_held
        self.connection.slot_filled(self)


class Connection:
    """A client connection as the shard sees it.

    Invariant C1: answers leave in the order of their requests (Kafka's rule for a connection).
    Invariant C2: at most `CONNECTION_REQUESTS_MAX` requests wait; then no frame is cut.
    Invariant C3: references on chunks leave with a `Send`, or are released after the close.
    """

    __slots__ = (
        "client_software",
        "conn",
        "dirty",
        "fetches",
        "is_closed",
        "is_paused",
        "listener",
        "peer",
        "serial",
        "slots",
        "waiting",
    )

    def __init__(self, conn: ConnId, listener: int, peer: str, dirty: "list[Connection]") -> None:
        self.conn = conn
        self.listener = listener
        self.peer = peer
        self.dirty = dirty
        self.waiting = 0  # requests whose answers have not left
        self.slots: deque[Slot] = deque()
        self.fetches: deque[Callable[[], None]] = deque()  # the first one is being answered
        self.is_closed = False
        self.is_paused = False
        self.client_software = ""
        self.serial = 0
        """The order in which this core's clients have come; 0: one that a sibling passed on."""

    def open_slot(self, key: int, version: int, correlation: int, count: int = 1) -> Slot:
        """Append the place of the next answer, or of the next *count*."""
        assert not self.is_closed, "nobody would read the answer"
        slot = Slot(self, key, version, correlation, count)
        self.slots.append(slot)
        self.waiting += count
        return slot

    def slot_filled(self, slot: Slot) -> None:
        """Put this connection on the list of those with something to send, when it is so."""
        if self.is_closed or (self.slots and self.slots[0] is slot):
            self.dirty.append(self)

    def close(self) -> None:
        """Take note that the client is gone: waits that are its alone end, nothing is sent."""
        self.is_closed = True
        for slot in self.slots:
            if slot.parts is None and slot.abandoned is not None:
                slot.abandoned()
        self.dirty.append(self)

    def drop_slot(self, slot: Slot) -> None:
        """Forget a slot that no answer will ever fill (acks=0)."""
        assert slot.parts is None, "an answer that was made is sent"
        self.slots.remove(slot)
        self.waiting -= slot.count
        if self.is_paused or (self.slots and self.slots[0].parts is not None):
            self.dirty.append(self)

    def flush(self, effects: list[Effect]) -> list[ChunkId]:
        """Append one `Send` with every answer that may leave, and pause or resume reading.

        Returns references to release when the connection is closed and nothing will be sent.
        """
        if self.is_closed:
            return self._give_back()
        slots = self.slots
        parts: list[Part] = []
        chunks: list[ChunkId] = []
        while slots and slots[0].parts is not None:
            slot = slots.popleft()
            assert slot.parts is not None
            self.waiting -= slot.count
            parts += slot.parts
            chunks += slot.chunks_held
        if parts:
            effects.append(Send(self.conn, parts, chunks))
        if self.is_paused and self.waiting <= limits.CONNECTION_REQUESTS_MAX // 2:
            self.is_paused = False
            effects.append(Resume(self.conn))
        return _NO_CHUNKS

    def _give_back(self) -> list[ChunkId]:
        """Forget every answer there is (C3): one that never comes may stand before it."""
        chunks = [chunk for slot in self.slots for chunk in slot.chunks_held]
        self.slots = deque(slot for slot in self.slots if slot.parts is None)
        return chunks

    def pause_if_full(self, effects: list[Effect]) -> None:
        """Stop reading a client that has too many requests waiting (invariant C2)."""
        if self.waiting >= limits.CONNECTION_REQUESTS_MAX and not self.is_paused:
            self.is_paused = True
            effects.append(Pause(self.conn))
