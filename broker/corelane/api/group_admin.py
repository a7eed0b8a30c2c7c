"""DescribeGroups (15), ListGroups (16), DeleteGroups (42): what tools ask about groups.

Describe: v3 authorized operations, v4 static members, v5 flexible, v6 GROUP_ID_NOT_FOUND instead of
a dead group. List: v3 flexible, v4 filters by state (KIP-518), v5 by type (KIP-848). Delete: v2
flexible.
"""

from corelane.api.group_calls import host_of, of_all_cores, split_by_key
from corelane.groups.requests import Answer, DeleteGroup, Described, Simple
from corelane.model.errors import ErrorCode
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

_NOT_FOUND_FROM = 6
NOT_REQUESTED = -(2**31)

DescribeResponse = message_type("DescribeGroupsResponse")
DescribedRow = message_type("DescribeGroupsResponse.DescribedGroup")
MemberRow = message_type("DescribeGroupsResponse.DescribedGroupMember")
ListResponse = message_type("ListGroupsResponse")
ListedRow = message_type("ListGroupsResponse.ListedGroup")
DeleteResponse = message_type("DeleteGroupsResponse")
DeletedRow = message_type("DeleteGroupsResponse.DeletableGroupResult")


def describe(shard: Shard, call: Call) -> None:
    """Say what there is to see of groups."""
    request = call.decode()
    rows = [_described(shard, name, call.version) for name in request.groups]
    call.answer(DescribeResponse(groups=rows))


def _described(shard: Shard, name: str, version: int) -> Message:
    host = host_of(shard, name)
    if isinstance(host, ErrorCode):
        return _row(Described(name, host, ""))
    found = host.coordinator.describe(name)
    if name in host.coordinator.consumers and version >= _NOT_FOUND_FROM:
        return _row(found, f"Group {name} is not a classic group.")
    if found.error is ErrorCode.GROUP_ID_NOT_FOUND and version < _NOT_FOUND_FROM:
        return _row(Described(name, ErrorCode.NONE))
    return _row(found)


def _row(found: Described, message: str | None = None) -> Message:
    if message is None and found.error is ErrorCode.GROUP_ID_NOT_FOUND:
        message = f"Group {found.group} not found."
    return DescribedRow(
        error_code=found.error,
        error_message=message,
        group_id=found.group,
        group_state=found.state,
        protocol_type=found.protocol_type,
        protocol_data=found.protocol,
        members=[
            MemberRow(
                member_id=each.member_id,
                group_instance_id=each.instance_id,
                client_id=each.client_id,
                client_host=each.client_host,
                member_metadata=each.subscription,
                member_assignment=each.assignment,
            )
            for each in found.members
        ],
        authorized_operations=NOT_REQUESTED,
    )


def list_groups(shard: Shard, call: Call) -> None:
    """Name the groups of this core's coordinators; clients ask all brokers."""
    request = call.decode()
    states = {state.lower() for state in request.states_filter}
    types = {kind.lower() for kind in request.types_filter}
    rows = []
    for host in shard.groups.hosts.groups.values():
        for name, protocol_type, state, kind in host.coordinator.listed():
            is_wanted = not states or state.lower() in states
            if is_wanted and (not types or kind in types):
                rows.append(
                    ListedRow(
                        group_id=name,
                        protocol_type=protocol_type,
                        group_state=state,
                        group_type=kind,
                    )
                )
    call.answer(ListResponse(groups=rows))


def delete(shard: Shard, call: Call) -> None:
    """Delete groups that nobody is in."""
    request = call.decode()
    DeleteWait(shard, call, list(dict.fromkeys(request.groups_names)))


class DeleteWait:
    """A request to delete groups, each of which its coordinator decides about."""

    def __init__(self, shard: Shard, call: Call, names: list[str]) -> None:
        self._call = call
        self._rows: list[Message] = []
        self._open = 1
        for name in names:
            self._open += 1
            self._begin(shard, name)
        self._close()

    def _begin(self, shard: Shard, name: str) -> None:
        row = DeletedRow(group_id=name)
        self._rows.append(row)

        def done(answer: Answer | None) -> None:
            assert answer is None or isinstance(answer, Simple)
            row.error_code = ErrorCode.NOT_COORDINATOR if answer is None else answer.error
            self._close()

        host = host_of(shard, name)
        if isinstance(host, ErrorCode):
            row.error_code = host
            self._close()
        else:
            host.ask(DeleteGroup(name), done)

    def _close(self) -> None:
        self._open -= 1
        if self._open == 0 and not self._call.slot.connection.is_closed:
            self._call.answer(DeleteResponse(results=self._rows))


gather_describe = split_by_key(describe, "groups", "groups", str)
gather_list = of_all_cores("groups")
gather_delete = split_by_key(delete, "groups_names", "results", str)
