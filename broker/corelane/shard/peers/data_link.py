"""What this core sends to one peer core in a turn: one frame, within what may be under way.

Nothing here waits and nothing is sent twice: raft repeats what matters, so what finds no room is
dropped, and counted.

Invariants:
Q1. At most `PEER_QUEUE_BYTES_MAX` and `PEER_QUEUE_MESSAGES_MAX` wait, of appends and of all other
    messages each, besides the oldest of them, which may be a batch of any size; beyond, that one
    is dropped.
Q2. At most `PEER_FLIGHT_BYTES_MAX` are sent and not acknowledged, and one larger message that
    found less than `PEER_TURN_BYTES` under way.
Q3. Appends leave in their order. Votes and answers leave before them: they are small, and an
    election must not wait for data.
Q4. A connection that was made anew does not count as progress: it is asked for an acknowledgement,
    or a link that opens and carries nothing would look alive for ever.
Q5. Every reference on a chunk is given on with a Send, or given back.
Q6. What has arrived is acknowledged with the next frame that says something, at once where that
    was asked or `PEER_OWED_BYTES_MAX` are owed, and at the latest with the next heartbeat: a frame
    that only acknowledges wakes a core up for nothing.
"""

# performance-critical: see STYLE.md

from collections import deque

from corelane.model import limits
from corelane.model.ids import ChunkId, GroupId
from corelane.model.record import record
from corelane.raft import codec
from corelane.raft.messages import Append, Message, Snapshot
from corelane.shard.effects import Part, Send
from corelane.shard.peers import messages
from corelane.shard.peers.events import PeerMessage
from corelane.shard.peers.frames import Chunks, Kind, check, encode_parts
from corelane.shard.peers.line import Line
from corelane.shard.peers.messages import Outgoing, part_bytes

_NO_PARTS: list[Part] = []


@record
class Address:
    """Between which members of which group a message goes."""

    group: GroupId
    sender: int
    recipient: int


class Queue:
    """Messages of one sort that wait for room."""

    __slots__ = ("_waiting", "size_bytes")

    def __init__(self) -> None:
        self._waiting: deque[Outgoing] = deque()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, outgoing: Outgoing) -> None:
        """Append a message."""
        self._waiting.append(outgoing)
        self.size_bytes += outgoing.size_bytes

    def pop(self) -> Outgoing:
        """Take the oldest one."""
        outgoing = self._waiting.popleft()
        self.size_bytes -= outgoing.size_bytes
        return outgoing

    @property
    def next_bytes(self) -> int:
        """Return the size of the oldest message; 0 without one."""
        return self._waiting[0].size_bytes if self._waiting else 0

    @property
    def is_over(self) -> bool:
        """Whether more waits than may (Q1)."""
        if len(self._waiting) > limits.PEER_QUEUE_MESSAGES_MAX:
            return True
        return self.size_bytes - self.next_bytes > limits.PEER_QUEUE_BYTES_MAX

    def take(self, room_bytes: int, into: list[Outgoing]) -> int:
        """Move what fits into *room_bytes* over to *into*; return the bytes moved."""
        moved_bytes = 0
        waiting = self._waiting
        while waiting and len(into) < limits.PEER_TURN_MESSAGES_MAX:
            size_bytes = waiting[0].size_bytes
            if moved_bytes + size_bytes > room_bytes:
                break
            into.append(self.pop())
            moved_bytes += size_bytes
        return moved_bytes


class DataLink:
    """One peer core's data connection, seen from here."""

    __slots__ = (
        "_acknowledged",
        "_appends",
        "_asks",
        "_chunks",
        "_is_owing",
        "_progress_ms",
        "_received",
        "_sent",
        "_told",
        "_words",
        "dropped",
        "is_stirred",
        "line",
    )

    def __init__(self, line: Line, chunks: Chunks) -> None:
        self.line = line
        self._chunks = chunks
        self._words = Queue()
        self._appends = Queue()
        self.dropped = 0
        """Messages that found no room, or no connection."""
        self.is_stirred = False
        """Whether `flush` may have something to send."""
        self._asks = 0
        self._is_owing = False  # to acknowledge by a frame of its own, if there is no other (Q6)
        self._progress_ms: int | None = None
        """Since when something of ours should arrive; moved by whatever does."""
        self._reset()

    def _reset(self) -> None:
        self._sent = 0
        self._acknowledged = 0
        self._received = 0
        self._told = 0
        self._is_owing = False

    def __len__(self) -> int:
        return len(self._words) + len(self._appends)

    @property
    def queued_bytes(self) -> int:
        """Return what waits for room."""
        return self._words.size_bytes + self._appends.size_bytes

    @property
    def flight_bytes(self) -> int:
        """Return what is sent and not acknowledged."""
        return self._sent - self._acknowledged

    def age_ms(self, now_ms: int) -> int | None:
        """Return how long nothing has arrived that should have; None: all has, or nothing is due.

        A message that finds no connection counts: a leader that cannot send does not lead there.
        """
        return None if self._progress_ms is None else max(0, now_ms - self._progress_ms)

    def is_stuck(self, now_ms: int, resumed_ms: int) -> bool:
        """Whether what is sent does not arrive: the connection is to be made anew."""
        age_ms = self.age_ms(now_ms)
        # Since when there was an acknowledgement to be heard: not during a pause of our own (W4).
        open_ms = now_ms - max(self.line.opened_ms, resumed_ms)
        is_late = age_ms is not None and min(age_ms, open_ms) > limits.PEER_DATA_AGE_MS_MAX
        return is_late and self.line.is_open

    def opened(self) -> None:
        """The connection is greeted; both ends count from 0 (Q4)."""
        self._reset()
        self._asks = 0 if self._progress_ms is None else 1
        self.is_stirred = True

    def closed(self, now_ms: int) -> None:
        """The connection is gone, and what was under way may not have arrived."""
        if self._progress_ms is None and (self.flight_bytes or len(self)):
            self._progress_ms = now_ms
        for queue in (self._words, self._appends):
            while queue:
                self._drop(queue)
        self._reset()

    def forget(self) -> None:
        """The life at the other end is over, or so is its membership: nothing is due."""
        self._progress_ms = None

    def put(
        self, now_ms: int, to: Address, message: Message, payload: list[Part] = _NO_PARTS,
        chunks_held: list[ChunkId] | None = None,
    ) -> None:  # fmt: skip
        """Send a message with the next frame, or drop it (Q1); takes over *chunks_held*."""
        payload_bytes = sum([part_bytes(part) for part in payload]) if payload else 0
        data = codec.encode(message)
        size_bytes = messages.ROW_BYTES + len(data) + payload_bytes
        outgoing = Outgoing(
            to.group, to.sender, to.recipient, data, payload, payload_bytes, chunks_held or [],
            size_bytes,
        )  # fmt: skip
        assert size_bytes + messages.HEAD_BYTES < limits.PEER_FRAME_BYTES_MAX
        queue = self._appends if isinstance(message, Append | Snapshot) else self._words
        queue.put(outgoing)
        self.is_stirred = True
        if self._progress_ms is None:
            self._progress_ms = now_ms
        if not self.line.is_open:
            self._drop(queue)
        while queue.is_over:
            self._drop(queue)

    def _drop(self, queue: Queue) -> None:
        self.dropped += 1
        for chunk in queue.pop().chunks_held:
            self._chunks.release(chunk)

    def flush(self) -> Send | None:
        """Return the frame of this turn: what fits, and how much has arrived here (Q2, Q3)."""
        self.is_stirred = False
        if not self.line.is_open:
            return None
        gathered: list[Outgoing] = []
        flight_bytes = self.flight_bytes
        room_bytes = min(limits.PEER_TURN_BYTES, limits.PEER_FLIGHT_BYTES_MAX - flight_bytes)
        taken_bytes = self._words.take(room_bytes, gathered)
        if not self._appends.take(room_bytes - taken_bytes, gathered):
            flight_bytes += taken_bytes
            size_bytes = self._appends.next_bytes
            fits = flight_bytes + size_bytes <= limits.PEER_FLIGHT_BYTES_MAX
            if size_bytes > limits.PEER_TURN_BYTES and (
                fits or flight_bytes <= limits.PEER_TURN_BYTES
            ):
                gathered.append(self._appends.pop())
        # There may be room in the next turn.
        self.is_stirred = len(self._words) + len(self._appends) > 0
        if not gathered and not self._asks and not self._is_owing:
            return None
        conn = self.line.conn
        assert conn is not None
        first = messages.encode_first(self._received, gathered, self._asks)
        payload = [part for each in gathered for part in each.payload]
        held = [chunk for each in gathered for chunk in each.chunks_held]
        parts = encode_parts(Kind.MESSAGES, self.line.number(), first, payload, self._chunks)
        self._told = self._received
        self._is_owing = False
        self._sent += sum([each.size_bytes for each in gathered]) + self._asks
        self._asks = 0
        return Send(conn, parts, held)

    def take(self, now_ms: int, body: memoryview) -> list[PeerMessage]:
        """Take in a frame; FrameError changes nothing."""
        acknowledged, taken_bytes, has_asked, found = messages.decode(body)
        check(self._acknowledged <= acknowledged <= self._sent, "What was never sent has arrived.")
        if acknowledged > self._acknowledged:
            self._acknowledged = acknowledged
            self._progress_ms = now_ms
            if self.flight_bytes == 0 and not len(self):
                self._progress_ms = None
        self._received += taken_bytes
        if has_asked or self._received - self._told >= limits.PEER_OWED_BYTES_MAX:
            self._is_owing = True
        if self._is_owing or self._words or self._appends:
            self.is_stirred = True
        return found

    def settle(self) -> None:
        """Acknowledge with the next frame what is owed: heartbeats are due (Q6)."""
        if self._told != self._received:
            self._is_owing = self.is_stirred = True
