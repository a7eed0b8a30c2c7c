"""ElectLeaders (key 43), versions 0 to 2: have the preferred replica lead, or any (unclean).

v1  election types (KIP-460), a top-level error.  v2  flexible. null means every partition. The wish
goes through the controller's log to whoever leads; the answer waits until the preferred replicas
lead, until nobody tries any more to have them lead, or until the time of the request is up
(REQUEST_TIMED_OUT, as with Kafka; it may still come about). A leader is never replaced by one that
lacks acknowledged records: so an unclean election is refused, with the reason why nobody leads.
"""

from collections.abc import Iterable

from corelane.api.leaders import lead_of
from corelane.api.proposing import propose
from corelane.cluster.commands import ElectPreferred
from corelane.cluster.replicas import PartitionPlan
from corelane.model.errors import ErrorCode
from corelane.model.ids import GroupId
from corelane.raft.quorum import quorum_size
from corelane.shard.call import Call
from corelane.shard.homecoming import HURRY_MS
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

PREFERRED = 0
UNCLEAN = 1
CHECK_MS = 20
WAIT_MS_MAX = 60_000
TRIED_MS = HURRY_MS + 2_000
"""After the decision: by then the last hand-over that was tried has ended, too."""

Response = message_type("ElectLeadersResponse")
TopicRow = message_type("ElectLeadersResponse.ReplicaElectionResult")
PartitionRow = message_type("ElectLeadersResponse.PartitionResult")


class _Electing:
    """A request that is answered when the preferred replicas lead, or time is up."""

    def __init__(self, shard: Shard, call: Call, kind: int) -> None:
        self.is_done = False
        self.response = Response()
        self._shard = shard
        self._call = call
        self._kind = kind
        self._open: dict[GroupId, tuple[PartitionPlan, Message]] = {}
        self._until_ms = self._tried_ms = shard.now_ms
        self._is_decided = False

    def row(self, name: str, number: int) -> Message:
        """Return the row of a partition; those that an election can help are taken down."""
        topic = self._shard.groups.cluster.topics.get(name)
        row = PartitionRow(partition_id=number, error_code=0, error_message=None)
        if self._kind not in {PREFERRED, UNCLEAN}:
            _told(row, ErrorCode.INVALID_REQUEST, f"Unknown election type {self._kind}")
        elif topic is None or not 0 <= number < len(topic.partitions):
            _told(row, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "there is no such partition")
        elif self._kind == UNCLEAN:
            self._judge_unclean(topic.partitions[number], row)
        else:
            self._judge(topic.partitions[number], row)
        return row

    def _judge_unclean(self, plan: PartitionPlan, row: Message) -> None:
        groups = self._shard.groups
        if lead_of(self._shard, plan.group) is not None:
            _told(row, ErrorCode.ELECTION_NOT_NEEDED, "it has a leader")
            return
        up = [node for node in plan.replicas if groups.is_node_up(node)]
        said = (
            f"only a replica with every acknowledged record may lead, and of {len(plan.replicas)}"
            f" replicas {len(up)} can be reached, a majority of them must: start the others"
        )
        if len(up) >= quorum_size(len(plan.replicas)):
            said = (
                "only a replica with every acknowledged record may lead, and its replicas can be"
                " reached: they are voting, or too many are damaged, see the nodes' health"
            )
        if len(plan.replicas) == 1:
            said = "its only replica cannot lead now: see the broker's health"
        _told(row, ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, said)

    def _judge(self, plan: PartitionPlan, row: Message) -> None:
        groups, home = self._shard.groups, plan.replicas[0]
        lead = groups.lead_of(plan.group)
        if lead is not None and lead.node == home:
            _told(row, ErrorCode.ELECTION_NOT_NEEDED, "its preferred replica leads already")
            return
        fault = None
        if len(plan.replicas) == 1:
            fault = "its only replica cannot lead now: see the broker's health"
        elif lead is None:
            fault = "nobody leads it: too few of its replicas can be reached, or they are voting"
        elif not groups.is_node_up(home):
            fault = f"node {home}, which is preferred, cannot be reached"
        elif home in groups.cluster.states.drained:
            fault = f"node {home}, which is preferred, is drained: undrain it first"
        elif home not in lead.in_sync:
            fault = f"the replica on node {home}, which is preferred, has not caught up"
        if fault is not None:
            _told(row, ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, fault)
            return
        self._open[plan.group] = (plan, row)

    def begin(self, timeout_ms: int) -> None:
        """Have the wish decided, and wait for what comes of it."""
        if not self._open:
            self._answer()
            return
        self._until_ms = self._shard.now_ms + max(0, min(timeout_ms, WAIT_MS_MAX))
        self._shard.deadlines.add(self._until_ms, self)

        def told(error: int, sentence: str) -> None:
            if self.is_done:
                return
            if error:
                for _plan, row in self._open.values():
                    _told(row, error, sentence)
                self._answer()
            else:
                self._is_decided = True
                self._tried_ms = self._shard.now_ms + TRIED_MS
                self.expire(self._shard.now_ms)

        propose(self._shard, ElectPreferred(tuple(self._open)), told)

    def expire(self, now_ms: int) -> None:
        """Look who leads by now."""
        groups = self._shard.groups
        for group, (plan, _row) in [*self._open.items()]:
            lead = groups.lead_of(group)
            if lead is not None and lead.node == plan.replicas[0]:
                del self._open[group]
        end_ms = min(self._until_ms, self._tried_ms) if self._is_decided else self._until_ms
        if self._open and now_ms < end_ms:
            self._shard.deadlines.add(min(now_ms + CHECK_MS, end_ms), self)
            return
        for plan, row in self._open.values():
            if now_ms >= self._until_ms:
                _told(row, ErrorCode.REQUEST_TIMED_OUT, self._late(plan))
            else:
                said = f"node {plan.replicas[0]}, which is preferred, did not take over: retry"
                _told(row, ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, said)
        self._answer()

    def _late(self, plan: PartitionPlan) -> str:
        if not self._is_decided:
            return "the controller's group has not decided in time: retry"
        return f"node {plan.replicas[0]}, which is preferred, has not taken over in time"

    def _answer(self) -> None:
        self.is_done = True
        if not self._call.slot.connection.is_closed:
            self._call.answer(self.response)


def handle(shard: Shard, call: Call) -> None:
    """Answer for each partition whether an election was needed, and what came of it."""
    request = call.decode()
    if not shard.groups.takes_commands:
        call.answer(Response(error_code=ErrorCode.NOT_CONTROLLER))
        return
    electing = _Electing(shard, call, request.election_type)
    if request.election_type not in {PREFERRED, UNCLEAN}:
        electing.response.error_code = ErrorCode.INVALID_REQUEST
    topics = shard.groups.cluster.topics
    wanted: list[tuple[str, Iterable[int]]]
    if request.topic_partitions is None:
        wanted = [(name, range(len(topic.partitions))) for name, topic in topics.items()]
    else:
        wanted = [(row.topic, row.partitions) for row in request.topic_partitions]
    for name, numbers in wanted:
        rows = [electing.row(name, number) for number in numbers]
        if request.topic_partitions is None:
            # Asked for everything, Kafka names every topic, but only those partitions of it that
            # it did something about.
            rows = [row for row in rows if row.error_code != ErrorCode.ELECTION_NOT_NEEDED]
        found = TopicRow(topic=name, partition_result=rows)
        electing.response.replica_election_results.append(found)
    electing.begin(request.timeout_ms)


def _told(row: Message, error: int, sentence: str) -> None:
    row.error_code = error
    row.error_message = sentence
