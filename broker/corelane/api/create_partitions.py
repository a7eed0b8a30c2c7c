"""CreatePartitions (key 37), versions 0 to 3: more partitions for topics that exist.

v2  flexible.  v3  throttling by quota, of which there is none. A topic's count only rises. Answered
when the new partitions have leaders, or when the client's time is up: then they exist all the same.
"""

from collections import Counter

from corelane.api.proposing import NOT_READY, propose
from corelane.api.topic_creation import UNDECIDED, TopicReady
from corelane.cluster.creation import Means, Refusal, plan_partitions
from corelane.model.errors import ErrorCode
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

WAIT_MS_MAX = 60_000

Response = message_type("CreatePartitionsResponse")
Result = message_type("CreatePartitionsResponse.CreatePartitionsTopicResult")


def handle(shard: Shard, call: Call) -> None:
    """Extend what can be extended; every topic has an answer of its own."""
    request = call.decode()
    response = Response()
    counts = Counter(topic.name for topic in request.topics)

    def all_ready() -> None:
        if not call.slot.connection.is_closed:
            call.answer(response)

    wait_ms = max(0, min(request.timeout_ms, WAIT_MS_MAX))
    ready = TopicReady(shard, shard.now_ms + wait_ms, all_ready)
    for wanted in {topic.name: topic for topic in request.topics}.values():
        result = Result(name=wanted.name)
        response.results.append(result)
        if counts[wanted.name] > 1:
            _told(result, ErrorCode.INVALID_REQUEST, "the request names this topic more than once")
        else:
            _extend(shard, ready, wanted, result, validate_only=request.validate_only)
    ready.begin()


def _extend(
    shard: Shard, ready: TopicReady, wanted: Message, result: Message, *, validate_only: bool
) -> None:
    groups = shard.groups
    if not groups.takes_commands:
        # Nor is anything judged by a cluster that is not known yet.
        _told(result, ErrorCode.NOT_CONTROLLER, NOT_READY)
        return
    topic = groups.cluster.topics.get(wanted.name)
    if topic is None:
        said = "there is no such topic"
        _told(result, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, said)
        return
    assigned = wanted.assignments
    plan = plan_partitions(
        groups.cluster,
        topic,
        wanted.count,
        Means(groups.reservations, groups.is_node_up),
        None if assigned is None else [row.broker_ids for row in assigned],
    )
    if isinstance(plan, Refusal):
        _told(result, plan.error, plan.sentence)
        return
    if validate_only:
        return

    def told(error: int, sentence: str) -> None:
        _told(result, error, sentence)
        ready.applied(None if error else wanted.name)

    _told(result, ErrorCode.REQUEST_TIMED_OUT, UNDECIDED)  # as long as nothing better is known
    ready.proposed()
    propose(shard, plan, told)


def _told(result: Message, error: int, sentence: str) -> None:
    result.error_code = error
    result.error_message = sentence or None
