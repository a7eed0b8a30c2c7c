"""Produce (key 0), versions 3 to 12: append one batch per partition, answer when it is durable.

v3  KIP-98: the transactional id, message format 2 only.  v5  log_start_offset.  v7  zstd (KIP-110).
v8  error sentences (KIP-467).  v9  flexible.  v10 leader hints (KIP-951).  v11 knows
TRANSACTION_ABORTABLE, v12 makes the partition part of the transaction by the batch (KIP-890).

acks=0 gets no frame at all; where one of its batches is refused the connection is closed, as
Kafka does, since there is no other way to tell. acks=1 waits for this leader's own sync, acks=-1
for the commit. A transactional batch without a transactional id is refused with all others of its
request, as in Kafka.
"""

# performance-critical: see STYLE.md

from collections.abc import Sequence

import corelane_native as native
from corelane.api.leaders import endpoints_for, fault_of_absent
from corelane.api.produce_append import RowAppend
from corelane.api.produce_response import (
    ProducedPartition,
    ProducedTopic,
    encode,
    encode_good,
    refuse_late,
)
from corelane.model.errors import ErrorCode
from corelane.model.limits import REQUEST_HEADER_BYTES_MIN
from corelane.shard.call import Call
from corelane.shard.partition import Topic
from corelane.shard.shard import Shard
from corelane.shard.transaction_entries import TRANSACTIONAL
from corelane.wire.errors import DecodeError
from corelane.wire.primitives import read_tags

ACKS_ALLOWED = (-1, 0, 1)
_FLEXIBLE_FROM = 9
_ABSENT = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: (
        "the topic or partition does not exist: create it, or refresh the metadata"
    ),
    ErrorCode.NOT_LEADER_OR_FOLLOWER: (
        "another broker leads this partition: refresh the metadata and send the batch there"
    ),
}


class ProduceWait:
    """One Produce request on its way to the disk; answered when its last batch is settled."""

    __slots__ = ("acks", "call", "is_done", "rows_open", "shard", "topics")

    def __init__(self, shard: Shard, call: Call, acks: int) -> None:
        self.shard = shard
        self.call = call
        self.acks = acks
        self.is_done = False
        self.rows_open = 1  # the request itself, until all its rows were looked at
        self.topics: list[ProducedTopic] = []

    def settle(self) -> None:
        """Count one row as decided, and answer after the last."""
        self.rows_open -= 1
        if self.rows_open == 0 and not self.is_done:
            self._answer()

    def expire(self, now_ms: int) -> None:
        """Answer what is not committed with REQUEST_TIMED_OUT: in doubt, never lost silently."""
        del now_ms
        self.shard.counts.requests_timed_out += 1
        for topic in self.topics:
            for row in topic.partitions:
                if row.is_open:
                    refuse_late(row)
        self._answer()

    def _answer(self) -> None:
        self.is_done = True
        shard, call = self.shard, self.call
        error, hints = 0, []
        for topic in self.topics:
            for row in topic.partitions:
                if row.error:
                    error = error or row.error
                    if row.leader is not None:
                        hints.append(row.leader)
        if self.acks == 0:
            call.slot.error = error
            shard.note_answer(call.slot)
            if error:
                connection = call.slot.connection
                shard.close(connection, f"client {connection.peer}: acks=0 batch refused")
            return
        request = call.request
        if error == 0 and len(self.topics) == 1:
            frame = encode_good(request.api_version, request.correlation_id, self.topics[0])
        else:
            endpoints = endpoints_for(shard, call.slot.connection, hints) if hints else []
            frame = encode(request.api_version, request.correlation_id, self.topics, endpoints)
        call.answer_parts([frame], [], error)
        shard.deadlines.note_done()


def handle(shard: Shard, call: Call) -> None:
    """Append every batch of the request, in order, and answer when they are settled."""
    request = call.request
    version = request.api_version
    decoded = native.decode_produce(
        request.address, request.size_bytes, body_at(request.address, request.size_bytes,
        is_flexible=version >= _FLEXIBLE_FROM), version,
    )  # fmt: skip
    if decoded is None:
        raise DecodeError("the request is cut or malformed")
    if shard.must_defer(request.size_bytes):
        shard.defer(call)
        return
    acks, timeout_ms, transactional_id, rows = decoded
    if acks == 0:
        # No frame will ever leave, so the slot must not stand in the way of later answers.
        call.slot.connection.drop_slot(call.slot)
    wait = ProduceWait(shard, call, acks)
    fault = _fault_of_transaction(transactional_id, rows)
    topic_at = -1
    topic = None
    produced: list[ProducedPartition] = []
    for row in rows:
        if row[0] != topic_at:
            topic_at = row[0]
            name = native.bytes_at(request.address + topic_at, row[1])
            topic = shard.groups.topics.get(name)
            produced = []
            wait.topics.append(ProducedTopic(name, produced))
        out = ProducedPartition(row[2])
        produced.append(out)
        if acks not in ACKS_ALLOWED:
            out.refuse(ErrorCode.INVALID_REQUIRED_ACKS, f"acks is {acks}; use -1 (all), 0 or 1")
            continue
        if fault is not None:
            out.refuse(*fault)
            continue
        partition = None if topic is None else topic.partition(row[2])
        if partition is None:
            refuse_absent(shard, topic, out)
            continue
        wait.rows_open += 1
        RowAppend(wait, partition, out, row, transactional_id).begin(request.address)
    if wait.rows_open > 1 and acks != 0:
        shard.deadlines.add(shard.now_ms + max(0, timeout_ms), wait)
    wait.settle()


def _fault_of_transaction(
    transactional_id: str | None, rows: Sequence[native.ProduceRow]
) -> tuple[ErrorCode, str] | None:
    """Return what is wrong with the transactional batches of a request, if it has any."""
    producers = {row[9] for row in rows if row[8] & TRANSACTIONAL and not row[3]}
    if not producers:
        return None
    if transactional_id is None:
        return (
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "the request has transactional batches and no transactional id",
        )
    if len(producers) > 1:
        return (
            ErrorCode.INVALID_PRODUCER_ID_MAPPING,
            "the request has transactional batches of more than one producer id",
        )
    return None


def refuse_absent(shard: Shard, topic: Topic | None, out: ProducedPartition) -> None:
    """Refuse a batch for a partition that is not here."""
    error, out.leader = fault_of_absent(shard, topic, out.partition)
    out.refuse(error, _ABSENT[error])


def body_at(address: int, size_bytes: int, *, is_flexible: bool) -> int:
    """Return where the body starts, for requests whose frame is not copied."""
    head = native.bytes_at(address, min(size_bytes, REQUEST_HEADER_BYTES_MIN + 2))
    if len(head) < REQUEST_HEADER_BYTES_MIN + 2:
        raise DecodeError("the request header is cut")
    client_id_bytes = int.from_bytes(head[8:10], "big", signed=True)
    at = 10 + max(0, client_id_bytes)
    if client_id_bytes < -1 or at >= size_bytes:
        raise DecodeError("the request header is cut")
    if is_flexible:
        # Clients send no tags in the header (one zero byte); skip what a future one might.
        if native.bytes_at(address + at, 1) == b"\0":
            return at + 1
        _tags, used = read_tags(native.bytes_at(address + at, min(size_bytes - at, 4096)), 0)
        at += used
    return at
