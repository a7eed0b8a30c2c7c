"""JoinGroup (11), SyncGroup (14), Heartbeat (12), LeaveGroup (13): the life of classic members.

Join: v1 rebalance timeout, v4 MEMBER_ID_REQUIRED (KIP-394), v5 static members (KIP-345), v6
flexible, v7 protocol type, v8 reason (KIP-800), v9 skip_assignment. Sync: v3 static members, v4
flexible, v5 protocol type and name. Heartbeat: v3 static, v4 flexible. Leave: v3 several members.
"""

from corelane.api.group_calls import ask, routed
from corelane.groups.requests import (
    Answer,
    Beat,
    Identity,
    Join,
    Joined,
    Leave,
    Left,
    Simple,
    Sync,
    Synced,
)
from corelane.model.errors import ErrorCode
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type
from corelane.wire.frame import client_id_of

_MEMBER_ID_REQUIRED_FROM = 4
_SKIPS_FROM = 9
_NULL_PROTOCOL_FROM = 7
_SEVERAL_LEAVE_FROM = 3

JoinResponse = message_type("JoinGroupResponse")
JoinMember = message_type("JoinGroupResponse.JoinGroupResponseMember")
SyncResponse = message_type("SyncGroupResponse")
HeartbeatResponse = message_type("HeartbeatResponse")
LeaveResponse = message_type("LeaveGroupResponse")
LeaveMember = message_type("LeaveGroupResponse.MemberResponse")


def group_of(request: Message) -> str:
    """Return the group that a request is about."""
    name: str = request.group_id
    return name


def _identity(request: Message) -> Identity:
    return Identity(
        request.group_id,
        request.generation_id,
        request.member_id,
        request.group_instance_id,
    )


def new_member_id(shard: Shard, prefix: str) -> str:
    """Return an id that nobody has: the client's name and a random uuid, as Kafka makes them."""
    number = shard.config.random.randbytes(16).hex()
    parts = (number[:8], number[8:12], number[12:16], number[16:20], number[20:])
    return f"{prefix}-{'-'.join(parts)}"


def join(shard: Shard, call: Call) -> None:
    """Have a member join; the answer waits for the others."""
    request = call.decode()
    client_id = client_id_of(call.frame()) or ""
    instance_id = request.group_instance_id
    rebalance_ms = request.rebalance_timeout_ms
    wish = Join(
        request.group_id,
        request.member_id,
        new_member_id(shard, client_id if instance_id is None else instance_id),
        instance_id,
        client_id,
        client_host(call),
        request.session_timeout_ms,
        request.session_timeout_ms if rebalance_ms < 0 else rebalance_ms,
        request.protocol_type,
        tuple((row.name, bytes(row.metadata)) for row in request.protocols),
        needs_known_member=call.version >= _MEMBER_ID_REQUIRED_FROM,
        may_skip_assignment=call.version >= _SKIPS_FROM,
    )

    def told(answer: Answer | ErrorCode) -> Message:
        if isinstance(answer, ErrorCode):
            answer = Joined(answer, request.member_id)
        assert isinstance(answer, Joined)
        return _joined(answer, call.version)

    ask(shard, call, request.group_id, wish, told)


def _joined(answer: Joined, version: int) -> Message:
    empty = None if version >= _NULL_PROTOCOL_FROM else ""
    return JoinResponse(
        error_code=answer.error,
        generation_id=answer.generation_id,
        protocol_type=answer.protocol_type,
        protocol_name=empty if answer.protocol is None else answer.protocol,
        leader=answer.leader,
        skip_assignment=answer.skip_assignment,
        member_id=answer.member_id,
        members=[
            JoinMember(member_id=member_id, group_instance_id=instance_id, metadata=metadata)
            for member_id, instance_id, metadata in answer.members
        ],
    )


def client_host(call: Call) -> str:
    """Return the client's address as tools show it: with a slash, without the port."""
    return "/" + call.slot.connection.peer.rpartition(":")[0].strip("[]")


def sync(shard: Shard, call: Call) -> None:
    """Tell a member what it is to read, once its leader has said so."""
    request = call.decode()
    wish = Sync(
        _identity(request),
        request.protocol_type,
        request.protocol_name,
        tuple((row.member_id, bytes(row.assignment)) for row in request.assignments),
    )

    def told(answer: Answer | ErrorCode) -> Message:
        if isinstance(answer, ErrorCode):
            return SyncResponse(error_code=answer)
        assert isinstance(answer, Synced)
        return SyncResponse(
            error_code=answer.error,
            protocol_type=answer.protocol_type,
            protocol_name=answer.protocol,
            assignment=answer.assignment,
        )

    ask(shard, call, request.group_id, wish, told)


def heartbeat(shard: Shard, call: Call) -> None:
    """Take note that a member lives."""
    request = call.decode()

    def told(answer: Answer | ErrorCode) -> Message:
        return HeartbeatResponse(error_code=error_of(answer))

    ask(shard, call, request.group_id, Beat(_identity(request)), told)


def error_of(answer: Answer | ErrorCode) -> ErrorCode:
    """Return the error of an answer that has nothing else."""
    if isinstance(answer, ErrorCode):
        return answer
    assert isinstance(answer, Simple)
    return answer.error


def leave(shard: Shard, call: Call) -> None:
    """Let members go."""
    request = call.decode()
    is_single = call.version < _SEVERAL_LEAVE_FROM
    members = (
        ((request.member_id, None),)
        if is_single
        else tuple((row.member_id, row.group_instance_id) for row in request.members)
    )

    def told(answer: Answer | ErrorCode) -> Message:
        if isinstance(answer, ErrorCode):
            return LeaveResponse(error_code=answer)
        assert isinstance(answer, Left)
        if is_single:
            error = answer.members[0][2] if answer.members else answer.error
            return LeaveResponse(error_code=error)
        return LeaveResponse(
            error_code=answer.error,
            members=[
                LeaveMember(member_id=member_id, group_instance_id=instance_id, error_code=error)
                for member_id, instance_id, error in answer.members
            ],
        )

    ask(shard, call, request.group_id, Leave(request.group_id, members), told)


gather_join = routed(join, group_of)
gather_sync = routed(sync, group_of)
gather_heartbeat = routed(heartbeat, group_of)
gather_leave = routed(leave, group_of)
