"""Metadata (key 3), versions 0 to 12: brokers, topics, and who leads each partition.

v1  null means all topics, empty none (in v0 empty means all).  v4  auto-creation may be declined.
v5  offline replicas.  v7  leader epochs.  v8  authorized operations.  v9  flexible.  v10 topic ids
(KIP-516).  v12 topics by id, null names.

A topic that is missing and may be created is created first, and the answer waits (a moment) until
its partitions have leaders, so that clients do not have to ask twice. Encoded topics are cached
per version until something about them changes: 100 partitions cost 146 us to encode. What is not
in the cache is encoded over several turns when there is much of it.
"""

from collections.abc import Generator, Sequence
from functools import partial

from corelane.api.cluster_id import cluster_id_text
from corelane.api.early import EarlyCall
from corelane.api.leaders import (
    NO_LEADER,
    brokers_of,
    controller_of,
    lead_of,
    replica_broker,
)
from corelane.api.metadata_encoding import (
    Encoded,
    encode_answer,
    encode_rows,
    encode_topic,
    join_topic,
)
from corelane.api.topic_creation import TopicReady, create
from corelane.cluster.creation import TopicWish, topic_name_fault
from corelane.model.errors import ErrorCode
from corelane.model.internal_topics import INTERNAL_TOPICS
from corelane.shard.call import Call
from corelane.shard.partition import Topic
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

AUTO_CREATE_WAIT_MS = 2_000
NOT_REQUESTED = -(2**31)
_ALL_IF_EMPTY_BELOW = 1
_AUTO_CREATE_FROM = 4
_FLEXIBLE_FROM = 9
_NO_TOPIC_ID = bytes(16)
_GONE = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
SLICE_PARTITIONS = 32
"""Partitions encoded before others have their turn: about 50 us."""

Response = message_type("MetadataResponse")
Broker = message_type("MetadataResponse.MetadataResponseBroker")
TopicRow = message_type("MetadataResponse.MetadataResponseTopic")
PartitionRow = message_type("MetadataResponse.MetadataResponsePartition")


def handle(shard: Shard, call: Call) -> None:
    """Answer now, after the missing topics were created, or when the topics are known at all."""
    groups = shard.groups
    if not groups.is_reconciled:
        EarlyCall(shard, call, lambda: groups.is_reconciled, partial(_known, shard))
        return
    request = call.decode()
    wanted = request.topics
    if wanted is None or (not wanted and call.version < _ALL_IF_EMPTY_BELOW):
        topics = [*shard.groups.topics.values()]
        shard.go_on(_answer_each(shard, call, topics), is_wide=len(topics) > SLICE_PARTITIONS)
        return
    config = shard.config.config.topics
    may_create = config.auto_create_enable and (
        call.version < _AUTO_CREATE_FROM or request.allow_auto_topic_creation
    )
    missing = [
        topic.name
        for topic in wanted
        if topic.name is not None
        and topic.topic_id == _NO_TOPIC_ID
        and topic.name.encode() not in shard.groups.topics
        and topic_name_fault(topic.name) is None
        and topic.name not in INTERNAL_TOPICS  # made when they are needed, as they must be
    ]
    if missing and may_create and not shard.groups.siblings.is_controller:
        shard.forwarding.to_controller(call)  # it makes them, and answers as we would
        return
    if not missing or not may_create:
        shard.go_on(_answer_each(shard, call, wanted))
        return

    def created() -> None:
        shard.go_on(_answer_each(shard, call, wanted))

    ready = TopicReady(shard, shard.now_ms + AUTO_CREATE_WAIT_MS, created)
    for name in dict.fromkeys(missing):
        create(shard, TopicWish(name), ready, _ignored)
    ready.begin()


def _known(shard: Shard, call: Call, is_known: bool) -> None:
    """Go on with an early request; who still knows nothing says nothing about any topic."""
    if is_known:
        handle(shard, call)
    else:
        shard.forwarding.close(call)


def _ignored(error: int, sentence: str) -> None:
    """The topic's row in the answer says what became of it."""


def _answer(shard: Shard, call: Call, topics: list[Encoded]) -> None:
    head = Response(
        brokers=[
            Broker(node_id=b.broker_id, host=b.host, port=b.port, rack=b.rack)
            for b in brokers_of(shard, call.slot.connection)
        ],
        cluster_id=cluster_id_text(shard),
        controller_id=controller_of(shard),
        cluster_authorized_operations=NOT_REQUESTED,
    )
    error = next((topic.error for topic in topics if topic.error), 0)
    body = encode_answer(head, topics, call.version)
    call.answer_encoded(body, is_flexible=call.version >= _FLEXIBLE_FROM, error=error)


def _answer_each(
    shard: Shard, call: Call, wanted: Sequence[Topic | Message]
) -> Generator[None, None, None]:
    """Answer for each topic, or row of the request, with a pause after every few partitions."""
    rows: list[Encoded] = []
    since_pause = 0
    for each in wanted:
        topic = each if isinstance(each, Topic) else _find(shard, each)
        since_pause += 1
        if isinstance(topic, Topic):
            kept = topic.encoded.get(call.version)
            if kept is None:
                kept = yield from _encode(shard, topic, call.version)
                since_pause += len(topic.partitions) % SLICE_PARTITIONS
            assert isinstance(kept, Encoded)
            rows.append(kept)
        else:
            rows.append(encode_topic(topic, call.version))
        if since_pause >= SLICE_PARTITIONS:
            since_pause = 0
            yield
    if not call.slot.connection.is_closed:
        _answer(shard, call, rows)


def _encode(shard: Shard, topic: Topic, version: int) -> Generator[None, None, Encoded]:
    """Encode a topic's row and keep it until something about the topic changes."""
    kept_in = topic.encoded
    parts: list[bytes] = []
    count = len(topic.partitions)
    for first in range(0, count, SLICE_PARTITIONS):
        if first:
            yield
        if topic.is_deleted:
            return encode_topic(_error_row(_GONE, topic.name, _NO_TOPIC_ID), version)
        last = min(first + SLICE_PARTITIONS, count)
        rows = [_partition_row(shard, topic, number) for number in range(first, last)]
        parts.append(encode_rows(rows, version))
    row = TopicRow(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.name.startswith("__"),
        topic_authorized_operations=NOT_REQUESTED,
    )
    encoded = join_topic(row, count, parts, version)
    kept_in[version] = encoded
    return encoded


def _find(shard: Shard, wanted: Message) -> Topic | Message:
    """Return the topic that is meant, or the row that says why there is none."""
    groups = shard.groups
    if wanted.topic_id != _NO_TOPIC_ID:
        topic = groups.topics_by_id.get(wanted.topic_id)
        return topic or _error_row(ErrorCode.UNKNOWN_TOPIC_ID, None, wanted.topic_id)
    name = wanted.name
    if name is None:
        return _error_row(ErrorCode.INVALID_REQUEST, "", _NO_TOPIC_ID)
    topic = groups.topics.get(name.encode())
    if topic is not None:
        return topic
    if topic_name_fault(name) is not None:
        return _error_row(ErrorCode.INVALID_TOPIC_EXCEPTION, name, _NO_TOPIC_ID)
    return _error_row(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, name, _NO_TOPIC_ID)


def _error_row(error: ErrorCode, name: str | None, topic_id: bytes) -> Message:
    return TopicRow(
        error_code=error,
        name=name,
        topic_id=topic_id,
        topic_authorized_operations=NOT_REQUESTED,
    )


def _partition_row(shard: Shard, topic: Topic, number: int) -> Message:
    partition = topic.partitions[number]
    plan = shard.groups.cluster.topics_by_id[topic.topic_id].partitions[number]
    lead = lead_of(shard, plan.group)
    known = lead is not None
    groups = shard.groups
    replicas = [replica_broker(shard, plan.group, node) for node in plan.nodes]
    heard = groups.lead_of(plan.group)
    in_sync = () if heard is None else heard.in_sync
    is_damaged = partition is not None and partition.is_damaged
    offline = [node for node in plan.nodes if not groups.is_node_up(node)]
    if is_damaged:
        offline.append(shard.config.node)
    return PartitionRow(
        error_code=0 if known else ErrorCode.LEADER_NOT_AVAILABLE,
        partition_index=number,
        leader_id=NO_LEADER if lead is None else lead.leader_id,
        leader_epoch=-1 if lead is None else lead.leader_epoch,
        replica_nodes=replicas,
        isr_nodes=[
            broker
            for node, broker in zip(plan.nodes, replicas, strict=True)
            if known and node in in_sync
        ],
        offline_replicas=[
            broker for node, broker in zip(plan.nodes, replicas, strict=True) if node in offline
        ],
    )
