"""The new protocol's heartbeat (KIP-848) of the cluster in memory: what is said, and answered."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from corelane.groups.consumer_requests import ConsumerHeartbeat, ConsumerHeartbeatAnswer
from corelane.groups.requests import Answer, ConsumerBeat
from corelane.model.errors import ErrorCode
from corelane.model.ids import TopicId
from corelane.wire.compiler import message_type

_ID_BYTES = 16


def topic_id(name: str) -> TopicId:
    """Return the id of a topic, which its name is found in."""
    return TopicId(name.encode().ljust(_ID_BYTES, b"."))


class LiveTopics:
    """The topics of the cluster as they are now."""

    def __init__(self, topics: Mapping[str, Sequence[object]]) -> None:
        self._topics = topics
        self._seen: dict[str, int] = {}
        self._names: AbstractSet[str] = frozenset()
        self._revision = 0

    @property
    def revision(self) -> int:
        """Count the changes that were seen."""
        counts = {name: len(logs) for name, logs in self._topics.items()}
        if counts != self._seen:
            self._seen, self._names = counts, frozenset(counts)
            self._revision += 1
        return self._revision

    def topic_id(self, name: str) -> TopicId | None:
        return topic_id(name) if name in self._topics else None

    def topic_name(self, topic_id: TopicId) -> str | None:
        name = topic_id.rstrip(b".").decode()
        return name if name in self._topics else None

    def partition_count(self, topic_id: TopicId) -> int:
        name = self.topic_name(topic_id)
        assert name is not None
        return len(self._topics[name])

    def names(self) -> AbstractSet[str]:
        assert self.revision
        return self._names


def beat(request: Any) -> ConsumerBeat:
    """Return what ConsumerGroupHeartbeat asks for."""
    names, rows = request.subscribed_topic_names, request.topic_partitions
    owned = None
    if rows is not None:
        owned = frozenset((TopicId(row.topic_id), at) for row in rows for at in row.partitions)
    said = ConsumerHeartbeat(
        member_id=request.member_id,
        proposed_member_id="",
        member_epoch=request.member_epoch,
        instance_id=request.instance_id,
        rack_id=request.rack_id,
        client_id="client",
        client_host="/host",
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        topic_names=None if names is None else tuple(names),
        topic_regex=request.subscribed_topic_regex,
        server_assignor=request.server_assignor,
        owned=owned,
    )
    return ConsumerBeat(request.group_id, said)


def beaten(answer: Answer | ErrorCode) -> Any:
    """Return the answer to it."""
    kind = message_type("ConsumerGroupHeartbeatResponse")
    if isinstance(answer, ErrorCode):
        return kind(error_code=answer, error_message=None, member_id=None, assignment=None)
    assert isinstance(answer, ConsumerHeartbeatAnswer)
    assignment = None
    if answer.assignment is not None:
        row = message_type("ConsumerGroupHeartbeatResponse.TopicPartitions")
        topics: dict[TopicId, list[int]] = {}
        for topic, number in sorted(answer.assignment):
            topics.setdefault(topic, []).append(number)
        assignment = message_type("ConsumerGroupHeartbeatResponse.Assignment")(
            topic_partitions=[row(topic_id=at, partitions=each) for at, each in topics.items()]
        )
    return kind(
        error_code=answer.error,
        error_message=answer.message,
        member_id=answer.member_id,
        member_epoch=answer.member_epoch,
        heartbeat_interval_ms=answer.heartbeat_interval_ms,
        assignment=assignment,
    )
