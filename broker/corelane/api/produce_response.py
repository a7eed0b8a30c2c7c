"""The Produce answer, versions 3 to 12, as one frame.

Written by hand because it is made once per request on the hot path; a test compares it with the
codec made from the message table, version by version.
"""

# performance-critical: see STYLE.md

import struct
from functools import lru_cache

from corelane.api.fetch_response import Endpoint, LeaderHint, endpoints_tag, leader_tag
from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane.wire.primitives import uvarint

_FLEXIBLE_FROM = 9
_FRAME = struct.Struct(">ii")
_COUNT = struct.Struct(">i")
_ROW_V3 = struct.Struct(">ihqq")
_ROW_V5 = struct.Struct(">ihqqq")
_NO_ERRORS_V8 = b"\0\0\0\0\xff\xff"
_KIP_951_FROM = 10
_LEADER_TAG_NUMBER = 0
_END = b"\0\0\0\0"  # throttle time
_END_FLEXIBLE = b"\0" + _END + b"\0"  # no tags of the topic, none of the answer
_HEADS_KEPT = 1024
_GOOD = dict.fromkeys((3, 4), (_ROW_V3.pack, b""))
_GOOD |= {version: (struct.Struct(">ihqqq0s").pack, b"") for version in (5, 6, 7)}
_GOOD |= {8: (struct.Struct(">ihqqq6s").pack, _NO_ERRORS_V8)}
_GOOD |= {version: (struct.Struct(">ihqqq3s").pack, b"\x01\0\0") for version in (9, 10, 11, 12)}
"""How a row without error is packed, and what stands behind its numbers."""
_SENTENCE_CHARACTERS_MAX = 1000
CORRELATION = struct.Struct(">4xi")
"""What stands in an answer behind its length."""
_BASE_OFFSET_AT = 6  # of a row, behind partition and error


class ProducedPartition:
    """What became of one partition's batch; offsets are -1 where there is an error."""

    __slots__ = (
        "base_offset",
        "error",
        "is_open",
        "leader",
        "log_append_time_ms",
        "log_start_offset",
        "partition",
        "sentence",
    )

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.error = 0
        self.base_offset = -1
        self.log_append_time_ms = -1
        self.log_start_offset = -1
        self.sentence = ""
        self.leader: LeaderHint | None = None
        self.is_open = True  # not settled yet

    def refuse(self, error: int, sentence: str) -> None:
        """Settle with an error; *sentence* says what to do about it."""
        self.error = error
        self.sentence = sentence
        self.base_offset = -1
        self.log_append_time_ms = -1
        self.is_open = False


@record
class ProducedTopic:
    """A topic by its name as the request spelled it."""

    name: bytes
    partitions: list[ProducedPartition]


@lru_cache(_HEADS_KEPT)
def _head_of_one(flexible: bool, name: bytes, count: int) -> bytes:
    """Return what stands between the correlation id and the rows of an answer of one topic."""
    if flexible:
        return b"\0\x02" + uvarint(len(name) + 1) + name + uvarint(count + 1)
    return _COUNT.pack(1) + len(name).to_bytes(2, "big") + name + _COUNT.pack(count)


def encode_good(version: int, correlation_id: int, topic: ProducedTopic) -> bytes:
    """Return the frame of an answer for one topic without any error: what `encode` returns."""
    rows = topic.partitions
    head = _head_of_one(version >= _FLEXIBLE_FROM, topic.name, len(rows))
    pack, tail = _GOOD[version]
    if version >= 5:
        packed = [
            pack(r.partition, 0, r.base_offset, r.log_append_time_ms, r.log_start_offset, tail)
            for r in rows
        ]
    else:
        packed = [pack(r.partition, 0, r.base_offset, r.log_append_time_ms) for r in rows]
    end = _END_FLEXIBLE if version >= _FLEXIBLE_FROM else _END
    body = b"".join((head, *packed, end))
    return _FRAME.pack(len(body) + 4, correlation_id) + body


@lru_cache(_HEADS_KEPT)
def good_of_one(
    version: int, name: bytes, partition: int, log_append_time_ms: int, log_start_offset: int
) -> tuple[bytes, int]:
    """Return a good answer for one batch, and where in it the base offset has its place."""
    row = ProducedPartition(partition)
    row.log_append_time_ms = log_append_time_ms
    row.log_start_offset = log_start_offset
    head = _head_of_one(version >= _FLEXIBLE_FROM, name, 1)
    offset_at = _FRAME.size + len(head) + _BASE_OFFSET_AT
    return encode_good(version, 0, ProducedTopic(name, [row])), offset_at


def refuse_late(row: ProducedPartition) -> None:
    """Settle a row whose batch is in the log and not durable in time."""
    row.refuse(
        ErrorCode.REQUEST_TIMED_OUT,
        "not committed in time, it may still be: retry with the same sequence",
    )


def encode(
    version: int, correlation_id: int, topics: list[ProducedTopic], endpoints: list[Endpoint]
) -> bytes:
    """Return the whole frame, length prefix included."""
    flexible = version >= _FLEXIBLE_FROM
    out = bytearray(8)
    if flexible:
        out.append(0)
        out += uvarint(len(topics) + 1)
    else:
        out += _COUNT.pack(len(topics))
    for topic in topics:
        count = len(topic.partitions)
        if flexible:
            out += uvarint(len(topic.name) + 1) + topic.name + uvarint(count + 1)
        else:
            out += len(topic.name).to_bytes(2, "big") + topic.name + _COUNT.pack(count)
        for row in topic.partitions:
            _row(out, version, row)
        if flexible:
            out.append(0)
    out += b"\0\0\0\0"  # throttle time
    if flexible:
        out += endpoints_tag(endpoints) if version >= _KIP_951_FROM else b"\0"
    _FRAME.pack_into(out, 0, len(out) - 4, correlation_id)
    return bytes(out)


def _row(out: bytearray, version: int, row: ProducedPartition) -> None:
    if version >= 5:
        out += _ROW_V5.pack(
            row.partition,
            row.error,
            row.base_offset,
            row.log_append_time_ms,
            row.log_start_offset,
        )
    else:
        out += _ROW_V3.pack(row.partition, row.error, row.base_offset, row.log_append_time_ms)
    if version >= _FLEXIBLE_FROM:
        if row.sentence:
            text = row.sentence[:_SENTENCE_CHARACTERS_MAX].encode()
            out += b"\x01" + uvarint(len(text) + 1) + text  # no record errors, one sentence
        else:
            out += b"\x01\x00"
        hint = row.leader if version >= _KIP_951_FROM else None
        out += b"\0" if hint is None else leader_tag(_LEADER_TAG_NUMBER, hint)
    elif version == 8:
        if row.sentence:
            text = row.sentence[:_SENTENCE_CHARACTERS_MAX].encode()
            out += b"\0\0\0\0" + len(text).to_bytes(2, "big") + text
        else:
            out += _NO_ERRORS_V8
