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
        "error",
        "high_watermark",
        "last_stable_offset",
        "leader",
        "log_start_offset",
        "partition",
        "parts",
        "record_count",
        "size_bytes",
    )

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.error = 0
        self.high_watermark = -1
        self.last_stable_offset = -1
        self.log_start_offset = -1
        self.parts: list[Part] = []
        self.size_bytes = 0
        self.record_count = 0
        self.leader: LeaderHint | None = None


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


def encode(
    version: int,
    correlation_id: int,
    error: int,
    topics: list[FetchedTopic],
    endpoints: list[Endpoint],
) -> list[Part]:
    """Return the whole frame, length prefix included, as parts.

    The session id is always 0: this broker refuses incremental sessions (KIP-227 allows it) and
    every request names all of its partitions.
    """
    flexible = version >= _FLEXIBLE_FROM
    parts: list[Part] = []
    head = bytearray(8)
    if flexible:
        head.append(0)  # no tags in the response header
    head += _TOP_V7.pack(0, error, 0) if version >= 7 else _TOP_V4.pack(0)
    head += uvarint(len(topics) + 1) if flexible else _COUNT.pack(len(topics))
    size_bytes = 0
    pending = head
    for topic in topics:
        if version >= _TOPIC_IDS_FROM:
            pending += topic.name_or_id
        elif flexible:
            pending += uvarint(len(topic.name_or_id) + 1) + topic.name_or_id
        else:
            pending += len(topic.name_or_id).to_bytes(2, "big") + topic.name_or_id
        count = len(topic.partitions)
        pending += uvarint(count + 1) if flexible else _COUNT.pack(count)
        for row in topic.partitions:
            _partition_head(pending, version, row)
            if row.size_bytes:
                parts.append(bytes(pending))
                size_bytes += len(pending) + row.size_bytes
                parts += row.parts
                pending = bytearray()
            if flexible:
                hint = row.leader
                pending += b"\0" if hint is None else leader_tag(_LEADER_TAG_NUMBER, hint)
        if flexible:
            pending.append(0)
    if flexible:
        pending += endpoints_tag(endpoints) if version >= _KIP_951_FROM else b"\0"
    parts.append(bytes(pending))
    size_bytes += len(pending)
    first = parts[0]
    assert isinstance(first, bytes)
    parts[0] = _FRAME.pack(size_bytes - 4, correlation_id) + first[8:]
    return parts


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
    out += b"\x01" if flexible else b"\0\0\0\0"  # aborted transactions: none
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
