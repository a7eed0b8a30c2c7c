"""Reading a Fetch answer of another core, without touching the batches in it.

The mirror of fetch_response.py, and only of that: what is read was written there, by a core of
the same node. Batches stay where they are, as parts of the client's answer.
"""

# performance-critical: see STYLE.md

import struct
from typing import Final

from corelane.api.fetch_response import Endpoint, FetchedPartition, FetchedTopic, LeaderHint
from corelane.model.ids import ChunkId, Position
from corelane.model.record import record
from corelane.shard.answer import Answer
from corelane.shard.effects import Part
from corelane_native import Arena

_FLEXIBLE_FROM: Final = 12
_TOPIC_IDS_FROM: Final = 13
_HEAD_V4: Final = struct.Struct(">qi")  # correlation id and throttle time count as one number
_HEAD_V7: Final = struct.Struct(">qhi")
_HEAD_FLEXIBLE: Final = struct.Struct(">ibihi")
_PARTITION_V4: Final = struct.Struct(">ihqq")
_PARTITION_V5: Final = struct.Struct(">ihqqq")
_COUNT: Final = struct.Struct(">i")
_NAME: Final = struct.Struct(">h")
_ABORTED: Final = struct.Struct(">qq")
_ABORTED_FLEXIBLE: Final = struct.Struct(">qqB")
_PREFERRED_BYTES: Final = 4
_LEADER: Final = struct.Struct(">BBiiB")  # tag number, size, leader, epoch, no tags
_TOPIC_ID_BYTES: Final = 16


@record
class FetchedAnswer:
    """What one core answered; `chunks` are held for the parts in it."""

    topics: list[FetchedTopic]
    endpoints: list[Endpoint]
    chunks: list[ChunkId]


class _Pieces:
    """A place in an answer that lies in several pieces of memory."""

    __slots__ = ("_arena", "_at", "_number", "_parts", "_view")

    def __init__(self, parts: list[Part], arena: Arena) -> None:
        assert parts, "a fetch is always answered"
        self._parts = parts
        self._arena = arena
        self._number = -1
        self._at = 0
        self._view = memoryview(b"")

    def _next(self) -> None:
        self._number += 1
        part = self._parts[self._number]
        self._view = memoryview(part) if isinstance(part, bytes) else self._arena.view(*part)
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        """Whether everything was taken."""
        return self._at == len(self._view) and self._number + 1 == len(self._parts)

    def take(self, size_bytes: int) -> bytes | memoryview:
        """Return the next bytes, borrowed from where they lie if they lie in one place."""
        if self._at == len(self._view) and size_bytes:
            self._next()
        end = self._at + size_bytes
        if end <= len(self._view):
            found = self._view[self._at : end]
            self._at = end
            return found
        first = bytes(self._view[self._at :])
        self._next()
        return first + bytes(self.take(size_bytes - len(first)))

    def ranges(self, size_bytes: int) -> list[Part]:
        """Return where the next bytes lie."""
        found: list[Part] = []
        while size_bytes:
            if self._at == len(self._view):
                self._next()
            part = self._parts[self._number]
            size = min(size_bytes, len(self._view) - self._at)
            if isinstance(part, bytes):
                found.append(part[self._at : self._at + size])
            else:
                found.append((part[0], Position(part[1] + self._at), size))
            self._at += size
            size_bytes -= size
        return found

    def uvarint(self) -> int:
        """Return the next unsigned varint."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7


def read(version: int, answer: Answer, arena: Arena) -> FetchedAnswer:
    """Return what *answer* says; its references pass to the result."""
    pieces = _Pieces(answer.parts, arena)
    is_flexible = version >= _FLEXIBLE_FROM
    head = _HEAD_FLEXIBLE if is_flexible else _HEAD_V7 if version >= 7 else _HEAD_V4
    if head is _HEAD_V4:
        (topic_count,) = head.unpack(pieces.take(head.size))[1:]
    else:
        pieces.take(head.size)
        topic_count = pieces.uvarint() - 1 if is_flexible else _count(pieces)
    topics = [_topic(pieces, version) for _ in range(topic_count)]
    endpoints: list[Endpoint] = []
    if is_flexible:
        endpoints = _endpoints(pieces)
    assert pieces.is_at_end, "the answer of a core of this node is longer than it says"
    return FetchedAnswer(topics, endpoints, answer.chunks)


def _count(pieces: _Pieces) -> int:
    count: int = _COUNT.unpack(pieces.take(_COUNT.size))[0]
    return count


def _topic(pieces: _Pieces, version: int) -> FetchedTopic:
    is_flexible = version >= _FLEXIBLE_FROM
    if version >= _TOPIC_IDS_FROM:
        name = bytes(pieces.take(_TOPIC_ID_BYTES))
    elif is_flexible:
        name = bytes(pieces.take(pieces.uvarint() - 1))
    else:
        name = bytes(pieces.take(_NAME.unpack(pieces.take(_NAME.size))[0]))
    count = pieces.uvarint() - 1 if is_flexible else _count(pieces)
    partitions = [_partition(pieces, version) for _ in range(count)]
    if is_flexible:
        assert pieces.uvarint() == 0, "a topic has no tags"
    return FetchedTopic(name, partitions)


def _partition(pieces: _Pieces, version: int) -> FetchedPartition:
    is_flexible = version >= _FLEXIBLE_FROM
    head = _PARTITION_V5 if version >= 5 else _PARTITION_V4
    number, *values = head.unpack(pieces.take(head.size))
    row = FetchedPartition(number)
    row.error, row.high_watermark, row.last_stable_offset = values[:3]
    if version >= 5:
        row.log_start_offset = values[3]
    form = _ABORTED_FLEXIBLE if is_flexible else _ABORTED
    for _ in range(pieces.uvarint() - 1 if is_flexible else _count(pieces)):
        producer_id, first_offset, *_tags = form.unpack(pieces.take(form.size))
        row.aborted.append((producer_id, first_offset))
    if version >= 11:
        pieces.take(_PREFERRED_BYTES)
    size_bytes = pieces.uvarint() - 1 if is_flexible else _count(pieces)
    if size_bytes > 0:
        row.found(pieces.ranges(size_bytes), size_bytes)
    if is_flexible and pieces.uvarint():
        _number, _size, leader, epoch, _tags = _LEADER.unpack(pieces.take(_LEADER.size))
        row.leader = LeaderHint(leader, epoch)
    return row


def _endpoints(pieces: _Pieces) -> list[Endpoint]:
    """Read the tag section at the end: nothing, or the brokers that were named as leaders."""
    if pieces.uvarint() == 0:
        return []
    pieces.uvarint()  # the tag's number: node_endpoints is the only one
    pieces.uvarint()  # its size
    found: list[Endpoint] = []
    for _ in range(pieces.uvarint() - 1):
        broker_id = _count(pieces)
        host = bytes(pieces.take(pieces.uvarint() - 1)).decode()
        port = _count(pieces)
        rack_bytes = pieces.uvarint() - 1
        rack = None if rack_bytes < 0 else bytes(pieces.take(rack_bytes)).decode()
        assert pieces.uvarint() == 0, "an endpoint has no tags"
        found.append(Endpoint(broker_id, host, port, rack))
    return found
