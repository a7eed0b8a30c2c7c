"""AlterPartitionReassignments (key 45), versions 0 and 1, and ListPartitionReassignments (46), 0.

v1  whether the number of replicas may change (KIP-860).

A reassignment is a fact in the controller's log; the leaders of the partitions carry it out. The
answer says that it was taken, not that it is done: that ListPartitionReassignments shows. null
instead of replicas calls one off.
"""

from collections.abc import Iterable

from corelane.api.leaders import replica_broker
from corelane.api.proposing import NOT_READY, propose
from corelane.cluster.changes import Topic
from corelane.cluster.commands import Reassign
from corelane.cluster.creation import Refusal
from corelane.cluster.reassigning import plan_reassignment
from corelane.cluster.replicas import PartitionPlan, Place
from corelane.model.errors import ErrorCode
from corelane.model.ids import BrokerId, NodeId
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

AlterResponse = message_type("AlterPartitionReassignmentsResponse")
AlterTopic = message_type("AlterPartitionReassignmentsResponse.ReassignableTopicResponse")
AlterRow = message_type("AlterPartitionReassignmentsResponse.ReassignablePartitionResponse")
ListResponse = message_type("ListPartitionReassignmentsResponse")
ListTopic = message_type("ListPartitionReassignmentsResponse.OngoingTopicReassignment")
ListRow = message_type("ListPartitionReassignmentsResponse.OngoingPartitionReassignment")

_GONE = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


class _Altering:
    """A request that is answered once each of its topics has been decided."""

    def __init__(self, shard: Shard, call: Call, request: Message) -> None:
        self._shard = shard
        self._call = call
        self._may_resize = call.version == 0 or request.allow_replication_factor_change
        self._open = 1
        self._response = AlterResponse(allow_replication_factor_change=self._may_resize)
        for topic in request.topics:
            self._ask(topic)
        self._decided()

    def _ask(self, wanted: Message) -> None:
        rows = {each.partition_index: AlterRow(partition_index=each.partition_index)
                for each in wanted.partitions}  # fmt: skip
        self._response.responses.append(AlterTopic(name=wanted.name, partitions=[*rows.values()]))
        topic = self._shard.groups.cluster.topics.get(wanted.name)
        wishes: list[tuple[int, tuple[Place, ...]]] = []
        for each in wanted.partitions:
            found = self._plan(topic, each.partition_index, each.replicas)
            if len(rows) != len(wanted.partitions):
                said = "The request names a partition of this topic more than once."
                found = Refusal(ErrorCode.INVALID_REQUEST, said)
            if isinstance(found, Refusal):
                _told(rows[each.partition_index], found.error, found.sentence)
            else:
                wishes.append((each.partition_index, found))
        if not wishes or topic is None:
            return
        self._open += 1

        def told(error: int, sentence: str) -> None:
            for number, _places in wishes:
                _told(rows[number], error, sentence)
            self._decided()

        propose(self._shard, Reassign(topic.topic_id, tuple(wishes)), told)

    def _plan(
        self, topic: Topic | None, number: int, brokers: list[BrokerId] | None
    ) -> tuple[Place, ...] | Refusal:
        groups = self._shard.groups
        if topic is None or not 0 <= number < len(topic.partitions):
            return Refusal(_GONE, "There is no such partition.")
        return plan_reassignment(
            groups.cluster,
            topic.partitions[number],
            brokers,
            groups.is_node_up,
            may_resize=self._may_resize,
        )

    def _decided(self) -> None:
        self._open -= 1
        if not self._open and not self._call.slot.connection.is_closed:
            self._call.answer(self._response)


def alter(shard: Shard, call: Call) -> None:
    """Take reassignments down, or call them off; every partition has an answer of its own."""
    request = call.decode()
    if not shard.groups.takes_commands:
        response = AlterResponse(error_code=ErrorCode.NOT_CONTROLLER, error_message=NOT_READY)
        call.answer(response)
        return
    _Altering(shard, call, request)


def list_ongoing(shard: Shard, call: Call) -> None:
    """Answer which partitions are being reassigned, of those asked for or of all."""
    request = call.decode()
    cluster = shard.groups.cluster
    if not shard.groups.is_reconciled:
        response = ListResponse(error_code=ErrorCode.NOT_CONTROLLER, error_message=NOT_READY)
        call.answer(response)
        return
    wanted: Iterable[tuple[Topic, int]]
    if request.topics is None:
        found = [cluster.partition_of(group) for group in cluster.changing]
        wanted = [each for each in found if each is not None]
    else:
        topics = [(cluster.topics.get(row.name), row.partition_indexes) for row in request.topics]
        wanted = [
            (topic, number)
            for topic, numbers in topics
            if topic is not None
            for number in numbers
            if 0 <= number < len(topic.partitions)
        ]
    rows: dict[str, list[Message]] = {}
    for topic, number in wanted:
        plan = topic.partitions[number]
        if plan.adding or plan.removing:
            rows.setdefault(topic.name, []).append(_ongoing(shard, plan, number))
    answer = ListResponse()
    for name, partitions in rows.items():
        answer.topics.append(ListTopic(name=name, partitions=partitions))
    call.answer(answer)


def _ongoing(shard: Shard, plan: PartitionPlan, number: int) -> Message:
    def brokers(nodes: tuple[NodeId, ...]) -> list[BrokerId]:
        return [replica_broker(shard, plan.group, node) for node in nodes]

    return ListRow(
        partition_index=number,
        replicas=brokers(plan.nodes),
        adding_replicas=brokers(plan.adding),
        removing_replicas=brokers(plan.removing),
    )


def _told(row: Message, error: int, sentence: str) -> None:
    row.error_code = error
    row.error_message = sentence or None
