"""The Fetch answer, versions 4 to 17, as parts: headers here, batches from where they lie.

Written by hand because records must not be copied into a message first; a test compares it with
the codec made from the message table, version by version.
"""

# performance-critical: see STYLE.md

import struct
from collections.abc import Sequence

from corelane.model.record import record
from corelane.shard.effects import Part
from corelane.wire.primitives import uvarint

_FLEXIBLE_FROM = 12
_TOPIC_IDS_FROM = 13
_FRAME = struct.Struct(">ii")
_TOP_V4 = struct.Struct(">i")
_TOP_V7 = struct.Struct(">ihi")
_PARTITION_V4 = struct.Struct(">ihqq")
_PARTITION_V5 = struct.Struct(">ihqqq")
_COUNT = struct.Struct(">i")
_ABORTED = struct.Struct(">qq")
_ABORTED_FLEXIBLE = struct.Struct(">qqB")
_LEADER_TAG = struct.Struct(">iiB")
_LEADER_TAG_NUMBER = 1
_KIP_951_FROM = 16


@record
class LeaderHint:
    """KIP-951: who leads, told with NOT_LEADER_OR_FOLLOWER to save clients a metadata round."""

    leader_id: int
    leader_epoch: int


class FetchedPartition:
    """One partition's share of the answer; `parts` together are `size_bytes` of whole batches."""

    __slots__ = (
        "aborted",
        "error",
        "high_watermark",
        "last_stable_offset",
        "leader",
        "log_start_offset",
        "partition",
        "parts",
        "size_bytes",
    )

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.error = 0
        self.high_watermark = -1
        self.last_stable_offset = -1
        self.log_start_offset = -1
        self.aborted: list[tuple[int, int]] = []
        """Of what is in it, for readers of committed transactions: producer ids and where each
        begins, in that order.
        """
        self.parts: list[Part] = []
        self.size_bytes = 0
        self.leader: LeaderHint | None = None

    def found(self, parts: list[Part], size_bytes: int) -> None:
        """Note the batches to be returned."""
        self.parts = parts
        self.size_bytes = size_bytes


@record
class FetchedTopic:
    """A topic as the request named it: by name up to version 12, by id from 13."""

    name_or_id: bytes
    partitions: list[FetchedPartition]


@record
class Endpoint:
    """Where a broker named in a `LeaderHint` listens."""

    broker_id: int
    host: str
    port: int
    rack: str | None


def error_of(topics: Sequence[FetchedTopic]) -> int:
    """Return the first error in an answer; 0: none."""
    return next((row.error for topic in topics for row in topic.partitions if row.error), 0)


class Encoder:
    """Makes the whole frame, length prefix included, as parts, piece by piece.

    Session id 0 says that there is no session: every request then names all of its partitions.
    """

    __slots__ = ("_correlation_id", "_is_flexible", "_parts", "_pending", "_size_bytes", "_version")

    def __init__(
        self,
        version: int,
        correlation_id: int,
        error: int,
        topic_count: int,
        session_id: int = 0,
    ) -> None:
        self._version = version
        self._correlation_id = correlation_id
        self._is_flexible = version >= _FLEXIBLE_FROM
        self._parts: list[Part] = []
        self._size_bytes = 0
        head = bytearray(_FRAME.size)
        if self._is_flexible:
            head.append(0)  # no tags in the response header
        head += _TOP_V7.pack(0, error, session_id) if version >= 7 else _TOP_V4.pack(0)
        head += self._count(topic_count)
        self._pending = head

    def _count(self, count: int) -> bytes:
        return uvarint(count + 1) if self._is_flexible else _COUNT.pack(count)

    def topic(self, topic: FetchedTopic) -> None:
        """Begin a topic; all of its partitions follow."""
        name = topic.name_or_id
        if self._version >= _TOPIC_IDS_FROM:
            self._pending += name
        elif self._is_flexible:
            self._pending += uvarint(len(name) + 1) + name
        else:
            self._pending += len(name).to_bytes(2, "big") + name
        self._pending += self._count(len(topic.partitions))

    def partition(self, row: FetchedPartition) -> None:
        """Add a partition of the topic that was begun."""
        pending = self._pending
        _partition_head(pending, self._version, row)
        if row.size_bytes:
            self._parts.append(bytes(pending))
            self._size_bytes += len(pending) + row.size_bytes
            self._parts += row.parts
            self._pending = pending = bytearray()
        if self._is_flexible:
            hint = row.leader
            pending += b"\0" if hint is None else leader_tag(_LEADER_TAG_NUMBER, hint)

    def topic_end(self) -> None:
        """End a topic."""
        if self._is_flexible:
            self._pending.append(0)

    def end(self, endpoints: list[Endpoint]) -> list[Part]:
        """Return the frame; *endpoints* are those of the brokers that were named as leaders."""
        pending, parts = self._pending, self._parts
        if self._is_flexible:
            pending += endpoints_tag(endpoints) if self._version >= _KIP_951_FROM else b"\0"
        if pending:
            parts.append(bytes(pending))
        size_bytes = self._size_bytes + len(pending) - _COUNT.size
        first = parts[0]
        assert isinstance(first, bytes)
        parts[0] = _FRAME.pack(size_bytes, self._correlation_id) + first[_FRAME.size :]
        return parts


def encode(
    version: int,
    correlation_id: int,
    error: int,
    topics: list[FetchedTopic],
    endpoints: list[Endpoint],
) -> list[Part]:
    """Return the whole frame at once, of an answer without a session."""
    return encode_all(Encoder(version, correlation_id, error, len(topics)), topics, endpoints)


def encode_all(
    encoder: Encoder, topics: list[FetchedTopic], endpoints: list[Endpoint]
) -> list[Part]:
    """Return the whole frame at once, with an encoder that was told how many topics there are."""
    for topic in topics:
        encoder.topic(topic)
        for row in topic.partitions:
            encoder.partition(row)
        encoder.topic_end()
    return encoder.end(endpoints)


def _partition_head(out: bytearray, version: int, row: FetchedPartition) -> None:
    """Append everything of a partition up to its records, their length included."""
    if version >= 5:
        out += _PARTITION_V5.pack(
            row.partition,
            row.error,
            row.high_watermark,
            row.last_stable_offset,
            row.log_start_offset,
        )
    else:
        out += _PARTITION_V4.pack(
            row.partition, row.error, row.high_watermark, row.last_stable_offset
        )
    flexible = version >= _FLEXIBLE_FROM
    if flexible:
        out += uvarint(len(row.aborted) + 1)
        for aborted in row.aborted:
            out += _ABORTED_FLEXIBLE.pack(*aborted, 0)
    else:
        out += _COUNT.pack(len(row.aborted))
        for aborted in row.aborted:
            out += _ABORTED.pack(*aborted)
    if version >= 11:
        # Anything but -1 sends the consumer away; garbage here broke librdkafka for a rival
        # (protocol.md quirk 29).
        out += b"\xff\xff\xff\xff"
    out += uvarint(row.size_bytes + 1) if flexible else _COUNT.pack(row.size_bytes)


def leader_tag(number: int, leader: LeaderHint) -> bytes:
    """Return a tag section with the one tag *number*, a LeaderIdAndEpoch."""
    body = _LEADER_TAG.pack(leader.leader_id, leader.leader_epoch, 0)
    return bytes((1, number, len(body))) + body


def endpoints_tag(endpoints: list[Endpoint]) -> bytes:
    """Return a tag section with tag 0, node_endpoints, or an empty one."""
    if not endpoints:
        return b"\0"
    body = bytearray(uvarint(len(endpoints) + 1))
    for endpoint in endpoints:
        host = endpoint.host.encode()
        body += _COUNT.pack(endpoint.broker_id) + uvarint(len(host) + 1) + host
        body += _COUNT.pack(endpoint.port)
        if endpoint.rack is None:
            body += b"\0"
        else:
            rack = endpoint.rack.encode()
            body += uvarint(len(rack) + 1) + rack
        body.append(0)
    return b"\x01\x00" + uvarint(len(body)) + bytes(body)
