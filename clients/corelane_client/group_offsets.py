"""Asks a group's coordinator how far the group has read, and tells it."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from corelane.model.record import record
from corelane_client import protocol
from corelane_client.coordinators import Coordinator
from corelane_client.protocol import Api

Place = tuple[str, int]
"""A partition: its topic and its number."""

NO_EPOCH: Final = -1
LANE: Final = "group"
"""Of everything a coordinator answers at once: neither fetches nor joins hold it up."""


@record
class CommittedAt:
    """How far a group has read a partition."""

    offset: int
    leader_epoch: int = NO_EPOCH
    metadata: str = ""


@record
class Membership:
    """Who commits: a member as its group knows it in this generation."""

    generation: int
    member_id: str
    instance_id: str | None


NOBODY: Final = Membership(-1, "", None)
"""Who commits from outside, which works while nobody is in the group."""


async def fetch(
    coordinator: Coordinator,
    name: str,
    places: Iterable[Place] | None = None,
    *,
    is_stable: bool = False,
) -> dict[Place, CommittedAt]:
    """Return how far a group has read each of *places* (None: all it has committed).

    What was never committed is left out. *is_stable* refuses, with an error that passes, while a
    transaction is open that commits one of them. Raises ClientError.
    """
    topics = None
    if places is not None:
        by_topic: dict[str, list[int]] = {}
        for topic, number in places:
            by_topic.setdefault(topic, []).append(number)
        topics = [
            protocol.message(
                "OffsetFetchRequest.OffsetFetchRequestTopic", name=topic, partition_indexes=numbers
            )
            for topic, numbers in by_topic.items()
        ]
    grouped = [
        protocol.message(
            "OffsetFetchRequest.OffsetFetchRequestTopics",
            name=row.name,
            partition_indexes=row.partition_indexes,
        )
        for row in topics or ()
    ]
    group = protocol.message(
        "OffsetFetchRequest.OffsetFetchRequestGroup",
        group_id=name,
        topics=None if topics is None else grouped,
    )
    body = protocol.message(
        "OffsetFetchRequest",
        group_id=name,
        topics=topics,
        groups=[group],
        require_stable=is_stable,
    )
    answer = await coordinator.request(Api.OFFSET_FETCH, body, lane=LANE)
    found = answer.groups[0] if answer.groups else answer
    coordinator.check(found.error_code)
    offsets = {}
    for topic in found.topics:
        for row in topic.partitions:
            what = f"{coordinator.what}, {topic.name}-{row.partition_index}"
            coordinator.check(row.error_code, what)
            if row.committed_offset >= 0:
                offsets[topic.name, row.partition_index] = CommittedAt(
                    row.committed_offset, row.committed_leader_epoch, row.metadata or ""
                )
    return offsets


async def commit(
    coordinator: Coordinator,
    name: str,
    offsets: Mapping[Place, CommittedAt],
    member: Membership = NOBODY,
) -> None:
    """Set how far a group has read. Raises ClientError, for the first partition that is refused."""
    body = protocol.message(
        "OffsetCommitRequest",
        group_id=name,
        generation_id_or_member_epoch=member.generation,
        member_id=member.member_id,
        group_instance_id=member.instance_id,
        topics=rows("OffsetCommitRequest.OffsetCommitRequest", offsets),
    )
    check_rows(coordinator, await coordinator.request(Api.OFFSET_COMMIT, body, lane=LANE))


def rows(prefix: str, offsets: Mapping[Place, CommittedAt]) -> list[Any]:
    """Return offsets as a request has them, whose parts are called *prefix* and a word."""
    topics: dict[str, list[Any]] = {}
    for (topic, number), at in offsets.items():
        row = protocol.message(
            f"{prefix}Partition",
            partition_index=number,
            committed_offset=at.offset,
            committed_leader_epoch=at.leader_epoch,
            committed_metadata=at.metadata,
        )
        topics.setdefault(topic, []).append(row)
    return [
        protocol.message(f"{prefix}Topic", name=topic, partitions=partitions)
        for topic, partitions in topics.items()
    ]


def check_rows(coordinator: Coordinator, answer: Any) -> None:
    """Raise KafkaError for the first partition of an answer that was refused."""
    for topic in answer.topics:
        for row in topic.partitions:
            what = f"{coordinator.what}, {topic.name}-{row.partition_index}"
            coordinator.check(row.error_code, what)
