"""CreateTopics (key 19), versions 2 to 7: topics with partitions, replicas and configurations.

v4  -1 means the broker's default (KIP-464).  v5  flexible, the answer names what was made
(KIP-525).  v7  topic ids. Answered when the partitions have leaders, or when the client's time is
up: then the topic exists all the same.
"""

from collections import Counter
from functools import partial

from corelane.api.topic_creation import TopicReady, create
from corelane.cluster.creation import TopicWish
from corelane.cluster.describe import topic_rows
from corelane.model.errors import ErrorCode
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

WAIT_MS_MAX = 60_000
UNKNOWN_CONFIGS = -1

Response = message_type("CreateTopicsResponse")
Result = message_type("CreateTopicsResponse.CreatableTopicResult")
ConfigRow = message_type("CreateTopicsResponse.CreatableTopicConfigs")


def handle(shard: Shard, call: Call) -> None:
    """Create what can be created; every topic has an answer of its own."""
    request = call.decode()
    response = Response()
    counts = Counter(topic.name for topic in request.topics)

    def all_ready() -> None:
        for result in response.topics:
            if result.error_code == 0:
                _describe(shard, result)
        if not call.slot.connection.is_closed:
            call.answer(response)

    wait_ms = max(0, min(request.timeout_ms, WAIT_MS_MAX))
    ready = TopicReady(shard, shard.now_ms + wait_ms, all_ready)
    for wanted in {topic.name: topic for topic in request.topics}.values():
        result = Result(name=wanted.name, num_partitions=-1, replication_factor=-1)
        response.topics.append(result)
        told = partial(_told, result)
        if counts[wanted.name] > 1:
            told(ErrorCode.INVALID_REQUEST, "the request names this topic more than once")
            continue
        if wanted.assignments and (wanted.num_partitions != -1 or wanted.replication_factor != -1):
            told(
                ErrorCode.INVALID_REQUEST,
                "both an assignment and a partition count or replication factor are given",
            )
            continue
        wish = TopicWish(
            wanted.name,
            wanted.num_partitions,
            wanted.replication_factor,
            [(row.partition_index, row.broker_ids) for row in wanted.assignments],
            [(row.name, row.value) for row in wanted.configs],
        )
        create(shard, wish, ready, told, validate_only=request.validate_only)
    ready.begin()


def _told(result: Message, error: int, sentence: str) -> None:
    result.error_code = error
    result.error_message = sentence or None


def _describe(shard: Shard, result: Message) -> None:
    """Add what was made (KIP-525)."""
    plan = shard.groups.cluster.topics.get(result.name)
    if plan is None:  # validate only, or deleted again meanwhile
        return
    result.topic_id = plan.topic_id
    result.num_partitions = len(plan.partitions)
    result.replication_factor = len(plan.partitions[0].replicas)
    result.configs = [
        ConfigRow(
            name=row.name,
            value=row.value,
            read_only=row.is_read_only,
            config_source=row.source,
            is_sensitive=row.is_sensitive,
        )
        for row in topic_rows(plan.configs, shard.config.config, {}, None)
    ]
