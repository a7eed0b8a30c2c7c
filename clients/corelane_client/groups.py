"""Asks a cluster about its consumer groups, and changes them."""

import struct
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, TypeVar

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane_client import protocol
from corelane_client.connection import Connection
from corelane_client.errors import KafkaError
from corelane_client.pool import Pool
from corelane_client.protocol import Api

T = TypeVar("T")

CONSUMER: Final = "consumer"
_GROUP_KEY: Final = 0
_COORDINATOR_ERRORS: Final = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)
_HEAD: Final = struct.Struct(">hi")
_SIZE: Final = struct.Struct(">h")
_COUNT: Final = struct.Struct(">i")


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


@record
class CommittedAt:
    """How far a group has read a partition."""

    offset: int
    leader_epoch: int
    metadata: str


async def list_groups(pool: Pool) -> list[GroupListing]:
    """Return the groups of all brokers, by name. Raises ClientError."""

    async def attempt() -> dict[str, GroupListing]:
        await pool.refresh(())
        found: dict[str, GroupListing] = {}
        for broker_id in sorted(pool.brokers):
            connection = await pool.connection(broker_id)
            body = protocol.message("ListGroupsRequest")
            answer = await connection.request(Api.LIST_GROUPS, body)
            _check(answer.error_code, f"broker {broker_id}")
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
        _check(row.error_code, f"group {name!r}")
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

    return await _at_coordinator(pool, name, ask)


async def _describe_consumer(connection: Connection, coordinator: int, name: str) -> Group:
    body = protocol.message("ConsumerGroupDescribeRequest", group_ids=[name])
    (row,) = (await connection.request(Api.CONSUMER_GROUP_DESCRIBE, body)).groups
    _check(row.error_code, f"group {name!r}", row.error_message)
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


async def fetch_offsets(pool: Pool, name: str) -> dict[tuple[str, int], CommittedAt]:
    """Return how far a group has read, by topic and partition. Raises ClientError."""

    async def ask(connection: Connection, _coordinator: int) -> dict[tuple[str, int], CommittedAt]:
        group = protocol.message(
            "OffsetFetchRequest.OffsetFetchRequestGroup", group_id=name, topics=None
        )
        body = protocol.message("OffsetFetchRequest", group_id=name, topics=None, groups=[group])
        answer = await connection.request(Api.OFFSET_FETCH, body)
        found = answer.groups[0] if answer.groups else answer
        _check(found.error_code, f"group {name!r}")
        offsets = {}
        for topic in found.topics:
            for row in topic.partitions:
                _check(row.error_code, f"group {name!r}, {topic.name}-{row.partition_index}")
                offsets[topic.name, row.partition_index] = CommittedAt(
                    row.committed_offset, row.committed_leader_epoch, row.metadata or ""
                )
        return offsets

    return await _at_coordinator(pool, name, ask)


async def commit_offsets(pool: Pool, name: str, offsets: Mapping[tuple[str, int], int]) -> None:
    """Set how far a group has read, which only works while nobody is in it. Raises ClientError."""

    async def ask(connection: Connection, _coordinator: int) -> None:
        topics: dict[str, list[Any]] = {}
        for (topic, number), offset in offsets.items():
            row = protocol.message(
                "OffsetCommitRequest.OffsetCommitRequestPartition",
                partition_index=number,
                committed_offset=offset,
                committed_metadata="",
            )
            topics.setdefault(topic, []).append(row)
        rows = [
            protocol.message(
                "OffsetCommitRequest.OffsetCommitRequestTopic", name=topic, partitions=partitions
            )
            for topic, partitions in topics.items()
        ]
        body = protocol.message("OffsetCommitRequest", group_id=name, topics=rows)
        answer = await connection.request(Api.OFFSET_COMMIT, body)
        for topic_row in answer.topics:
            for row in topic_row.partitions:
                _check(row.error_code, f"group {name!r}, {topic_row.name}-{row.partition_index}")

    await _at_coordinator(pool, name, ask)


async def delete_groups(pool: Pool, names: Collection[str]) -> dict[str, KafkaError | None]:
    """Delete groups that nobody is in; return for each None, or why it is still there."""

    async def delete(name: str) -> KafkaError | None:
        async def ask(connection: Connection, _coordinator: int) -> None:
            body = protocol.message("DeleteGroupsRequest", groups_names=[name])
            (row,) = (await connection.request(Api.DELETE_GROUPS, body)).results
            _check(row.error_code, f"group {name!r}")

        try:
            await _at_coordinator(pool, name, ask)
        except KafkaError as error:
            return error
        return None

    return {name: await delete(name) for name in names}


async def _at_coordinator(
    pool: Pool, name: str, ask: Callable[[Connection, int], Awaitable[T]]
) -> T:
    """Return what the group's coordinator answers; another one is looked for while it moves."""

    async def attempt() -> T:
        body = protocol.message(
            "FindCoordinatorRequest", key=name, key_type=_GROUP_KEY, coordinator_keys=[name]
        )
        answer = await (await pool.any_connection()).request(Api.FIND_COORDINATOR, body)
        found = answer.coordinators[0] if answer.coordinators else answer
        _check(found.error_code, f"group {name!r}", found.error_message)
        if found.node_id not in pool.brokers:
            await pool.refresh(())
        return await ask(await pool.connection(found.node_id), found.node_id)

    return await pool.retry(attempt)


def _check(code: int, what: str, said: str | None = None) -> None:
    if code:
        error = KafkaError(code, what, said)
        error.retriable = error.retriable or code in _COORDINATOR_ERRORS
        raise error


def assigned(assignment: bytes) -> dict[str, list[int]]:
    """Return the partitions of a classic consumer's assignment; what cannot be read is none."""
    found: dict[str, list[int]] = {}
    try:
        _version, topic_count = _HEAD.unpack_from(assignment)
        at = _HEAD.size
        for _ in range(topic_count):
            (size,) = _SIZE.unpack_from(assignment, at)
            at += _SIZE.size
            name = assignment[at : at + size].decode()
            at += size
            (count,) = _COUNT.unpack_from(assignment, at)
            numbers = struct.Struct(f">{max(0, min(count, len(assignment)))}i")
            found[name] = [*numbers.unpack_from(assignment, at + _COUNT.size)]
            at += _COUNT.size + numbers.size
    except (struct.error, UnicodeDecodeError):
        return {}
    return found
