"""Produce through a door of the whole node.

The decoded rows tell which cores it concerns. One core gets the request as it came; only a request
that spans cores is taken apart, which copies its batches.
"""

# performance-critical: see STYLE.md

from typing import Final

import corelane_native as native
from corelane.api import produce
from corelane.api.gather import Shape, owner_of
from corelane.api.gather_rows import Asked, Rows, from_one, gather_rows
from corelane.model.ids import CoreId
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.errors import DecodeError

_FLEXIBLE_FROM = 9

ROWS: Final = Rows(
    "Produce",
    Shape("topic_data", "name", "partition_data", "index"),
    Shape("responses", "name", "partition_responses", "index"),
    "TopicProduceResponse",
    "PartitionProduceResponse",
    produce.handle,
)


def gather(shard: Shard, call: Call) -> None:
    """Have the cores that lead append the batches, and answer for all of them."""
    request = call.request
    is_flexible = request.api_version >= _FLEXIBLE_FROM
    at = produce.body_at(request.address, request.size_bytes, is_flexible=is_flexible)
    decoded = native.decode_produce(request.address, request.size_bytes, at, request.api_version)
    if decoded is None:
        raise DecodeError("the request is cut or malformed")
    acks, _timeout_ms, _transactional_id, rows = decoded
    own = shard.config.core
    cores: set[CoreId] = set()
    asked: Asked = []
    topic_at = -1
    topic = None
    for row in rows:
        if row[0] != topic_at:
            topic_at = row[0]
            name = native.bytes_at(request.address + topic_at, row[1])
            topic = shard.groups.topics.get(name)
            asked.append((name.decode("utf-8", "replace"), []))
        asked[-1][1].append(row[2])
        owner = owner_of(shard, topic, row[2])
        cores.add(own if owner is None else owner)
    if cores <= {own}:
        produce.handle(shard, call)
        return
    if acks == 0:
        # No answer will leave. The shares are sent all the same, each in its own order.
        call.slot.connection.drop_slot(call.slot)
        shard.note_answer(call.slot)
    if len(cores) == 1:
        shard.counts.misrouted[request.api_key] += 1
        from_one(ROWS, shard, call, cores.pop(), asked)
        return
    gather_rows(ROWS, shard, call)
