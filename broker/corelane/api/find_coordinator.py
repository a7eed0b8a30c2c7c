"""FindCoordinator (key 10), versions 0 to 6: where a group or a transaction is coordinated.

v1  kinds of keys.  v3  flexible.  v4  several keys at once (KIP-699).  v5  more retriable errors.
v6  share groups (not served). The topic that they are kept in is made when it is first needed, and
the answer waits (a moment) for that, so that a first consumer or producer has not to ask twice.
"""

from enum import IntEnum
from functools import partial

from corelane.api.coordinating import coordinating_group, offsets_wish, transactions_wish
from corelane.api.early import EarlyCall
from corelane.api.leaders import brokers_of, lead_of
from corelane.api.topic_creation import TopicReady, create
from corelane.cluster.creation import TopicWish
from corelane.model.errors import ErrorCode
from corelane.model.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from corelane.shard.call import Call
from corelane.shard.config import Advertised
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

CREATE_WAIT_MS = 5_000
LEAD_WAIT_MS = 1_000
"""Until somebody leads: librdkafka would ask again after a second, and for whoever asks while the
topic is being made, or has just lost a node, that is nearly all of its time to the first record."""
_BATCHED_FROM = 4

Response = message_type("FindCoordinatorResponse")
Row = message_type("FindCoordinatorResponse.Coordinator")


class KeyType(IntEnum):
    """What a key names."""

    GROUP = 0
    TRANSACTION = 1
    SHARE = 2


_KEPT_IN = {int(KeyType.GROUP): OFFSETS_TOPIC, int(KeyType.TRANSACTION): TRANSACTIONS_TOPIC}
_NAMES = {int(KeyType.GROUP): "group", int(KeyType.TRANSACTION): "transactional id"}


def handle(shard: Shard, call: Call) -> None:
    """Answer now, when the topics are known at all, or when that of the coordinators is made."""
    groups = shard.groups
    if not groups.is_reconciled:
        EarlyCall(shard, call, lambda: groups.is_reconciled, partial(_known, shard))
        return
    request = call.decode()
    wish = _missing(shard, request.key_type)
    if wish is None:
        is_led = partial(_are_led, shard, request, call.version)
        EarlyCall(shard, call, is_led, partial(_looked, shard, request), LEAD_WAIT_MS)
        return
    if not groups.siblings.is_controller:
        shard.forwarding.to_controller(call)  # it makes the topic, and answers as we would
        return
    kept = call.keep()

    def created() -> None:
        if not kept.slot.connection.is_closed:
            _answer(shard, kept, request)

    ready = TopicReady(shard, shard.now_ms + CREATE_WAIT_MS, created)
    create(shard, wish, ready, _ignored)
    ready.begin()


def _missing(shard: Shard, key_type: int) -> TopicWish | None:
    """Return the topic that is to be made first; None: it is there, or cannot be made now."""
    groups, config = shard.groups, shard.config.config
    if key_type not in _KEPT_IN or _KEPT_IN[key_type].encode() in groups.topics:
        return None
    wish = offsets_wish if key_type == KeyType.GROUP else transactions_wish
    return wish(groups.cluster, config)


def _are_led(shard: Shard, request: Message, version: int) -> bool:
    """Whether every key has somebody to name, or cannot have."""
    kept_in = _KEPT_IN.get(request.key_type)
    topic = None if kept_in is None else shard.groups.topics.get(kept_in.encode())
    if topic is None or topic.is_deleted:
        return True
    keys = request.coordinator_keys if version >= _BATCHED_FROM else [request.key]
    return all(lead_of(shard, coordinating_group(shard, topic, key)) is not None for key in keys)


def _looked(shard: Shard, request: Message, call: Call, is_led: bool) -> None:
    """Answer with what is known by now."""
    del is_led
    _answer(shard, call, request)


def _known(shard: Shard, call: Call, is_known: bool) -> None:
    """Go on with an early request; nobody is told that there is no coordinator at all."""
    if is_known:
        handle(shard, call)
    else:
        shard.forwarding.close(call)


def _ignored(error: int, sentence: str) -> None:
    """What is not there is answered as not available, which clients retry."""


def _answer(shard: Shard, call: Call, request: Message) -> None:
    if call.version >= _BATCHED_FROM:
        rows = [_find(shard, call, request.key_type, key) for key in request.coordinator_keys]
        call.answer(Response(coordinators=rows))
        return
    row = _find(shard, call, request.key_type, request.key)
    call.answer(
        Response(
            error_code=row.error_code,
            error_message=row.error_message,
            node_id=row.node_id,
            host=row.host,
            port=row.port,
        )
    )


def _find(shard: Shard, call: Call, key_type: int, key: str) -> Message:
    if key_type not in _KEPT_IN:
        return _refusal(key, ErrorCode.INVALID_REQUEST, f"key type {key_type} is not served")
    if not key and key_type == KeyType.TRANSACTION:
        return _refusal(key, ErrorCode.INVALID_REQUEST, "a transactional id is not empty")
    broker = _coordinator(shard, call, _KEPT_IN[key_type], key)
    if broker is None:
        text = f"the coordinator of this {_NAMES[key_type]} is not there yet: retry"
        return _refusal(key, ErrorCode.COORDINATOR_NOT_AVAILABLE, text)
    return Row(
        key=key, node_id=broker.broker_id, host=broker.host, port=broker.port, error_message=None
    )


def _coordinator(shard: Shard, call: Call, kept_in: str, key: str) -> Advertised | None:
    """Return the broker that leads the partition of *key*; None: nobody, for now."""
    topic = shard.groups.topics.get(kept_in.encode())
    if topic is None or topic.is_deleted:
        return None
    lead = lead_of(shard, coordinating_group(shard, topic, key))
    if lead is None:
        return None
    brokers = brokers_of(shard, call.slot.connection)
    return next((each for each in brokers if each.broker_id == lead.leader_id), None)


def _refusal(key: str, error: ErrorCode, text: str) -> Message:
    return Row(key=key, node_id=-1, host="", port=-1, error_code=error, error_message=text)
