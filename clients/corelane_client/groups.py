"""Asks a cluster about its consumer groups, and changes them."""

from collections.abc import Collection, Mapping
from typing import Final

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane_client import group_offsets, protocol
from corelane_client.connection import Connection
from corelane_client.coordinators import Coordinator, Kind, at_coordinator
from corelane_client.errors import KafkaError
from corelane_client.group_offsets import CommittedAt, Place
from corelane_client.pool import Pool
from corelane_client.protocol import Api, check
from corelane_client.subscriptions import assigned

CONSUMER: Final = "consumer"


@record
class GroupListing:
    """A group as ListGroups names it."""

    name: str
    protocol_type: str
    state: str
    kind: str
    """`classic` or `consumer`; empty where the broker does not say."""


@record
class GroupMember:
    """A member, and the partitions it has, by topic."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    partitions: dict[str, list[int]]


@record
class Group:
    """A group as its coordinator describes it."""

    name: str
    kind: str
    state: str
    protocol_type: str
    assignor: str
    coordinator: int
    members: list[GroupMember]


async def list_groups(pool: Pool) -> list[GroupListing]:
    """Return the groups of all brokers, by name. Raises ClientError."""

    async def attempt() -> dict[str, GroupListing]:
        await pool.refresh(())
        found: dict[str, GroupListing] = {}
        for broker_id in sorted(pool.brokers):
            connection = await pool.connection(broker_id)
            body = protocol.message("ListGroupsRequest")
            answer = await connection.request(Api.LIST_GROUPS, body)
            check(answer.error_code, f"broker {broker_id}")
            for row in answer.groups:
                listing = GroupListing(
                    row.group_id, row.protocol_type, row.group_state, row.group_type
                )
                found[row.group_id] = listing
        return found

    found = await pool.retry(attempt)
    return [found[name] for name in sorted(found)]


async def describe_group(pool: Pool, name: str) -> Group:
    """Return a group of either protocol. Raises ClientError, also where there is none."""

    async def ask(connection: Connection, coordinator: int) -> Group:
        body = protocol.message("DescribeGroupsRequest", groups=[name])
        (row,) = (await connection.request(Api.DESCRIBE_GROUPS, body)).groups
        is_missing = row.error_code == ErrorCode.GROUP_ID_NOT_FOUND or row.group_state == "Dead"
        if is_missing and connection.serves(Api.CONSUMER_GROUP_DESCRIBE):
            return await _describe_consumer(connection, coordinator, name)
        if is_missing:
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"group {name!r}")
        check(row.error_code, f"group {name!r}")
        members = [
            GroupMember(
                each.member_id,
                each.group_instance_id,
                each.client_id,
                each.client_host,
                assigned(each.member_assignment) if row.protocol_type == CONSUMER else {},
            )
            for each in row.members
        ]
        return Group(
            name, "classic", row.group_state, row.protocol_type, row.protocol_data, coordinator,
            members,
        )  # fmt: skip

    return await at_coordinator(pool, Kind.GROUP, name, ask)


async def _describe_consumer(connection: Connection, coordinator: int, name: str) -> Group:
    body = protocol.message("ConsumerGroupDescribeRequest", group_ids=[name])
    (row,) = (await connection.request(Api.CONSUMER_GROUP_DESCRIBE, body)).groups
    if row.error_code == ErrorCode.GROUP_ID_NOT_FOUND:
        # It is none of either protocol; the broker's sentence is about this one alone.
        raise KafkaError(row.error_code, f"group {name!r}")
    check(row.error_code, f"group {name!r}", row.error_message)
    members = [
        GroupMember(
            each.member_id,
            each.instance_id,
            each.client_id,
            each.client_host,
            {row.topic_name: [*row.partitions] for row in each.assignment.topic_partitions},
        )
        for each in row.members
    ]
    return Group(name, CONSUMER, row.group_state, CONSUMER, row.assignor_name, coordinator, members)


async def fetch_offsets(pool: Pool, name: str) -> dict[Place, CommittedAt]:
    """Return how far a group has read, by topic and partition. Raises ClientError."""
    coordinator = Coordinator(pool, Kind.GROUP, name)
    return await pool.retry(lambda: group_offsets.fetch(coordinator, name))


async def commit_offsets(pool: Pool, name: str, offsets: Mapping[Place, int]) -> None:
    """Set how far a group has read, which only works while nobody is in it. Raises ClientError."""
    coordinator = Coordinator(pool, Kind.GROUP, name)
    wanted = {place: CommittedAt(offset) for place, offset in offsets.items()}
    await pool.retry(lambda: group_offsets.commit(coordinator, name, wanted))


async def delete_groups(pool: Pool, names: Collection[str]) -> dict[str, KafkaError | None]:
    """Delete groups that nobody is in; return for each None, or why it is still there."""

    async def delete(name: str) -> KafkaError | None:
        async def ask(connection: Connection, _coordinator: int) -> None:
            body = protocol.message("DeleteGroupsRequest", groups_names=[name])
            (row,) = (await connection.request(Api.DELETE_GROUPS, body)).results
            check(row.error_code, f"group {name!r}")

        try:
            await at_coordinator(pool, Kind.GROUP, name, ask)
        except KafkaError as error:
            return error
        return None

    return {name: await delete(name) for name in names}
