"""ConsumerGroupHeartbeat (68) and ConsumerGroupDescribe (69): the new protocol (KIP-848).

Heartbeat: v1 patterns, and ids that clients make. Describe: v1 the kind of each member.
"""

from collections.abc import Iterable

from corelane.api.api_versions import finalized
from corelane.api.group_calls import ask, host_of, routed, split_by_key
from corelane.api.group_members import client_host, group_of, new_member_id
from corelane.groups.consumer_requests import (
    ConsumerGroupDescription,
    ConsumerHeartbeat,
    ConsumerHeartbeatAnswer,
    DescribedMember,
    DescribedTopic,
)
from corelane.groups.requests import Answer, ConsumerBeat
from corelane.model.errors import ErrorCode
from corelane.model.features import GROUP
from corelane.model.ids import TopicId
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type
from corelane.wire.frame import client_id_of

_OWN_IDS_FROM = 1
_CLASSIC_MEMBER = 0
_CONSUMER_MEMBER = 1
NOT_REQUESTED = -(2**31)

Response = message_type("ConsumerGroupHeartbeatResponse")
Assignment = message_type("ConsumerGroupHeartbeatResponse.Assignment")
Partitions = message_type("ConsumerGroupHeartbeatResponse.TopicPartitions")
DescribeResponse = message_type("ConsumerGroupDescribeResponse")
GroupRow = message_type("ConsumerGroupDescribeResponse.DescribedGroup")
MemberRow = message_type("ConsumerGroupDescribeResponse.Member")
DescribedAssignment = message_type("ConsumerGroupDescribeResponse.Assignment")
DescribedPartitions = message_type("ConsumerGroupDescribeResponse.TopicPartitions")


def heartbeat(shard: Shard, call: Call) -> None:
    """Take a member's word, and tell it what it has."""
    request = call.decode()
    if not _is_enabled(shard):
        call.answer(Response(error_code=ErrorCode.UNSUPPORTED_VERSION))
        return
    owned = request.topic_partitions
    names = request.subscribed_topic_names
    beat = ConsumerHeartbeat(
        member_id=request.member_id,
        proposed_member_id=new_member_id(shard, "") if call.version < _OWN_IDS_FROM else "",
        member_epoch=request.member_epoch,
        instance_id=request.instance_id,
        rack_id=request.rack_id,
        client_id=client_id_of(call.frame()) or "",
        client_host=client_host(call),
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        topic_names=None if names is None else tuple(sorted(set(names))),
        topic_regex=request.subscribed_topic_regex,
        server_assignor=request.server_assignor,
        owned=None
        if owned is None
        else frozenset((TopicId(row.topic_id), at) for row in owned for at in row.partitions),
    )

    def told(answer: Answer | ErrorCode) -> Message:
        if isinstance(answer, ErrorCode):
            return Response(error_code=answer)
        assert isinstance(answer, ConsumerHeartbeatAnswer)
        return _response(answer)

    ask(shard, call, request.group_id, ConsumerBeat(request.group_id, beat), told)


def _is_enabled(shard: Shard) -> bool:
    """Whether the feature group.version is on."""
    return GROUP in finalized(shard)


def _response(answer: ConsumerHeartbeatAnswer) -> Message:
    if answer.error:
        return Response(error_code=answer.error, error_message=answer.message)
    assignment = None
    if answer.assignment is not None:
        topics: dict[TopicId, list[int]] = {}
        for topic_id, number in sorted(answer.assignment):
            topics.setdefault(topic_id, []).append(number)
        assignment = Assignment(
            topic_partitions=[
                Partitions(topic_id=topic_id, partitions=numbers)
                for topic_id, numbers in topics.items()
            ]
        )
    return Response(
        member_id=answer.member_id,
        member_epoch=answer.member_epoch,
        heartbeat_interval_ms=answer.heartbeat_interval_ms,
        assignment=assignment,
    )


def describe(shard: Shard, call: Call) -> None:
    """Say what there is to see of groups of the new protocol."""
    request = call.decode()
    call.answer(DescribeResponse(groups=[_described(shard, name) for name in request.group_ids]))


def _described(shard: Shard, name: str) -> Message:
    host = host_of(shard, name) if _is_enabled(shard) else ErrorCode.UNSUPPORTED_VERSION
    if isinstance(host, ErrorCode):
        return GroupRow(error_code=host, group_id=name, authorized_operations=NOT_REQUESTED)
    found = host.describe_consumers(name)
    if found is None:
        return GroupRow(
            error_code=ErrorCode.GROUP_ID_NOT_FOUND,
            error_message=f"Group {name} is not a consumer group.",
            group_id=name,
            authorized_operations=NOT_REQUESTED,
        )
    return _row(found)


def _row(found: ConsumerGroupDescription) -> Message:
    return GroupRow(
        group_id=found.group_id,
        group_state=found.state,
        group_epoch=found.group_epoch,
        assignment_epoch=found.assignment_epoch,
        assignor_name=found.assignor_name,
        members=[_member(each) for each in found.members],
        authorized_operations=NOT_REQUESTED,
    )


def _member(each: DescribedMember) -> Message:
    return MemberRow(
        member_id=each.member_id,
        instance_id=each.instance_id,
        rack_id=each.rack_id,
        member_epoch=each.member_epoch,
        client_id=each.client_id,
        client_host=each.client_host,
        subscribed_topic_names=list(each.topic_names),
        subscribed_topic_regex=each.topic_regex,
        assignment=_assignment(each.assignment),
        target_assignment=_assignment(each.target_assignment),
        member_type=_CLASSIC_MEMBER if each.is_classic else _CONSUMER_MEMBER,
    )


def _assignment(topics: Iterable[DescribedTopic]) -> Message:
    return DescribedAssignment(
        topic_partitions=[
            DescribedPartitions(
                topic_id=each.topic_id,
                topic_name=each.topic_name,
                partitions=list(each.partitions),
            )
            for each in topics
        ]
    )


gather_heartbeat = routed(heartbeat, group_of)
gather_describe = split_by_key(describe, "group_ids", "groups", str)
