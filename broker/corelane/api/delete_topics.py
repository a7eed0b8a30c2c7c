"""DeleteTopics (key 20), versions 1 to 6: by name, from version 6 also by id.

v4  flexible.  v5  error sentences.  v6  topic ids (KIP-516). A deleted topic's connections learn
it at their next request; its files go when the deletion is durable.
"""

from collections.abc import Sequence

from corelane.api.proposing import fault_of_loss
from corelane.cluster.changes import Change, Refused, Topic
from corelane.cluster.commands import DeleteTopic
from corelane.model.errors import ErrorCode
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

_TOPICS_FROM = 6
_NO_TOPIC_ID = bytes(16)

Response = message_type("DeleteTopicsResponse")
Result = message_type("DeleteTopicsResponse.DeletableTopicResult")


class DeleteWait:
    """A request whose deletions are being committed."""

    __slots__ = ("call", "response", "rows_open")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.response = Response()
        self.rows_open = 1

    def settle(self) -> None:
        """Count one topic as decided, and answer after the last."""
        self.rows_open -= 1
        if self.rows_open == 0 and not self.call.slot.connection.is_closed:
            self.call.answer(self.response)


def handle(shard: Shard, call: Call) -> None:
    """Delete every topic named; each has an answer of its own."""
    request = call.decode()
    cluster = shard.groups.cluster
    wait = DeleteWait(call)
    if call.version >= _TOPICS_FROM:
        wanted = [(topic.name, topic.topic_id) for topic in request.topics]
    else:
        wanted = [(name, _NO_TOPIC_ID) for name in request.topic_names]
    for name, topic_id in wanted:
        by_id = topic_id != _NO_TOPIC_ID
        result = Result(name=name, topic_id=topic_id)
        wait.response.responses.append(result)
        if by_id and name is not None:
            _refuse(result, ErrorCode.INVALID_REQUEST, "give either the name or the id of a topic")
            continue
        topic = cluster.topics_by_id.get(topic_id) if by_id else cluster.topics.get(name or "")
        if not shard.config.config.topics.delete_enable:
            _refuse(result, ErrorCode.TOPIC_DELETION_DISABLED, "delete.topic.enable is false")
        elif topic is None:
            unknown = ErrorCode.UNKNOWN_TOPIC_ID if by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            _refuse(result, unknown, "there is no such topic")
        else:
            _delete(shard, wait, topic, result)
    wait.settle()


def _delete(shard: Shard, wait: DeleteWait, topic: Topic, result: Message) -> None:
    result.name = topic.name
    result.topic_id = topic.topic_id
    wait.rows_open += 1

    def applied(changes: Sequence[Change] | None) -> None:
        if changes is None:
            _refuse(result, *fault_of_loss(shard))
        else:
            for change in changes:
                if isinstance(change, Refused):
                    _refuse(result, change.error, change.sentence)
        wait.settle()

    shard.groups.propose(DeleteTopic(topic.topic_id), applied)


def _refuse(result: Message, error: int, sentence: str) -> None:
    result.error_code = error
    result.error_message = sentence
