"""OffsetCommit (8), OffsetFetch (9), OffsetDelete (47): how far groups have read.

Commit: v5 without a retention time, v6 leader epochs, v7 static members, v8 flexible, v9 members of
the new protocol. Fetch: v2 null topics mean all, v5 leader epochs, v6 flexible, v7 require_stable
(KIP-447), v8 several groups (KIP-709), v9 members of the new protocol.
"""

from corelane.api.group_calls import ask, host_of, routed, split_by_key
from corelane.api.group_members import group_of
from corelane.groups.records import NO_EPOCH, CommittedOffset, Place
from corelane.groups.requests import (
    Answer,
    Commit,
    Committed,
    DeletedOffsets,
    DeleteOffsets,
    FetchedOffsets,
    FetchOffsets,
    Identity,
)
from corelane.model.errors import ErrorCode
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

_SEVERAL_FROM = 8
_EPOCHS_FROM = 9
_GROUP_ERROR_FROM = 2
NO_OFFSET = -1

CommitResponse = message_type("OffsetCommitResponse")
CommitTopic = message_type("OffsetCommitResponse.OffsetCommitResponseTopic")
CommitPartition = message_type("OffsetCommitResponse.OffsetCommitResponsePartition")
FetchResponse = message_type("OffsetFetchResponse")
FetchTopic = message_type("OffsetFetchResponse.OffsetFetchResponseTopic")
FetchPartition = message_type("OffsetFetchResponse.OffsetFetchResponsePartition")
FetchGroup = message_type("OffsetFetchResponse.OffsetFetchResponseGroup")
FetchTopics = message_type("OffsetFetchResponse.OffsetFetchResponseTopics")
FetchPartitions = message_type("OffsetFetchResponse.OffsetFetchResponsePartitions")
DeleteResponse = message_type("OffsetDeleteResponse")
DeleteTopic = message_type("OffsetDeleteResponse.OffsetDeleteResponseTopic")
DeletePartition = message_type("OffsetDeleteResponse.OffsetDeleteResponsePartition")


def known_offsets(shard: Shard, request: Message) -> list[tuple[Place, CommittedOffset]]:
    """Return what is to be committed of partitions that exist, in a transaction or not."""
    known: list[tuple[Place, CommittedOffset]] = []
    for topic in request.topics:
        found = shard.groups.topics.get(topic.name.encode())
        for row in topic.partitions:
            if found is not None and 0 <= row.partition_index < len(found.partitions):
                offset = CommittedOffset(
                    row.committed_offset,
                    row.committed_leader_epoch,
                    row.committed_metadata or "",
                    shard.wall_ms,
                )
                known.append(((topic.name, row.partition_index), offset))
    return known


def commit(shard: Shard, call: Call) -> None:
    """Keep offsets; those of partitions that do not exist are refused by themselves."""
    request = call.decode()
    known = known_offsets(shard, request)
    identity = Identity(
        request.group_id,
        request.generation_id_or_member_epoch,
        request.member_id,
        request.group_instance_id,
    )
    places = [place for place, _offset in known]

    def told(answer: Answer | ErrorCode) -> Message:
        if isinstance(answer, ErrorCode):
            return _committed(request, dict.fromkeys(places, answer))
        assert isinstance(answer, Committed)
        return _committed(request, dict(zip(places, answer.errors, strict=True)))

    wish = Commit(identity, tuple(known), knows_epochs=call.version >= _EPOCHS_FROM)
    ask(shard, call, request.group_id, wish, told)


def _committed(request: Message, errors: dict[Place, ErrorCode]) -> Message:
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return CommitResponse(
        topics=[
            CommitTopic(
                name=topic.name,
                partitions=[
                    CommitPartition(
                        partition_index=row.partition_index,
                        error_code=errors.get((topic.name, row.partition_index), unknown),
                    )
                    for row in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def fetch(shard: Shard, call: Call) -> None:
    """Say how far groups have read; all is answered from memory."""
    request = call.decode()
    if call.version >= _SEVERAL_FROM:
        FetchWait(shard, call, request)
        return
    places = None
    if request.topics is not None:
        places = tuple((row.name, number) for row in request.topics for number in _numbers(row))

    def told(answer: Answer | ErrorCode) -> Message:
        if isinstance(answer, ErrorCode):
            answer = FetchedOffsets(answer)
        assert isinstance(answer, FetchedOffsets)
        return _fetched(answer, places or (), call.version)

    wish = FetchOffsets(request.group_id, places, request.require_stable)
    ask(shard, call, request.group_id, wish, told)


def _numbers(row: Message) -> list[int]:
    numbers: list[int] = row.partition_indexes
    return numbers


def _by_topic(answer: FetchedOffsets, row_type: type[Message]) -> dict[str, list[Message]]:
    topics: dict[str, list[Message]] = {}
    for (topic, number), offset, error in answer.offsets:
        row = row_type(
            partition_index=number,
            committed_offset=NO_OFFSET if offset is None else offset.offset,
            committed_leader_epoch=NO_EPOCH if offset is None else offset.leader_epoch,
            metadata="" if offset is None else offset.metadata,
            error_code=error,
        )
        topics.setdefault(topic, []).append(row)
    return topics


def _fetched(answer: FetchedOffsets, places: tuple[Place, ...], version: int) -> Message:
    if answer.error and version < _GROUP_ERROR_FROM:
        # There is no other place for it than each partition.
        rows = tuple((place, None, answer.error) for place in places)
        answer = FetchedOffsets(answer.error, rows)
    topics = [
        FetchTopic(name=name, partitions=rows)
        for name, rows in _by_topic(answer, FetchPartition).items()
    ]
    return FetchResponse(topics=topics, error_code=answer.error)


class FetchWait:
    """A request for several groups, each of which is answered by its coordinator."""

    def __init__(self, shard: Shard, call: Call, request: Message) -> None:
        self._call = call
        self._rows: list[Message | None] = [None] * len(request.groups)
        self._open = 1
        for at, row in enumerate(request.groups):
            self._open += 1
            self._begin(shard, at, row, is_stable=request.require_stable)
        self._close()

    def _begin(self, shard: Shard, at: int, row: Message, *, is_stable: bool) -> None:
        places = None
        if row.topics is not None:
            places = tuple((each.name, number) for each in row.topics for number in _numbers(each))

        def done(answer: Answer | ErrorCode | None) -> None:
            if answer is None:
                answer = ErrorCode.NOT_COORDINATOR
            if isinstance(answer, ErrorCode):
                answer = FetchedOffsets(answer)
            assert isinstance(answer, FetchedOffsets)
            topics = [
                FetchTopics(name=name, partitions=rows)
                for name, rows in _by_topic(answer, FetchPartitions).items()
            ]
            self._rows[at] = FetchGroup(
                group_id=row.group_id, topics=topics, error_code=answer.error
            )
            self._close()

        host = host_of(shard, row.group_id)
        if isinstance(host, ErrorCode):
            done(host)
        else:
            who = (row.member_id, row.member_epoch)
            host.ask(FetchOffsets(row.group_id, places, is_stable, *who), done)

    def _close(self) -> None:
        self._open -= 1
        if self._open == 0 and not self._call.slot.connection.is_closed:
            self._call.answer(FetchResponse(groups=self._rows))


def delete(shard: Shard, call: Call) -> None:
    """Forget offsets of topics that the group does not read."""
    request = call.decode()
    places = tuple(
        (topic.name, row.partition_index) for topic in request.topics for row in topic.partitions
    )

    def told(answer: Answer | ErrorCode) -> Message:
        if isinstance(answer, ErrorCode):
            return DeleteResponse(error_code=answer)
        assert isinstance(answer, DeletedOffsets)
        if answer.error:
            return DeleteResponse(error_code=answer.error)
        errors = dict(zip(places, answer.errors, strict=True))
        return DeleteResponse(
            topics=[
                DeleteTopic(
                    name=topic.name,
                    partitions=[
                        DeletePartition(
                            partition_index=row.partition_index,
                            error_code=errors[topic.name, row.partition_index],
                        )
                        for row in topic.partitions
                    ],
                )
                for topic in request.topics
            ]
        )

    ask(shard, call, request.group_id, DeleteOffsets(request.group_id, places), told)


gather_commit = routed(commit, group_of)
gather_delete = routed(delete, group_of)
_gather_one = routed(fetch, group_of)
_gather_several = split_by_key(
    fetch, "groups", "groups", lambda row: str(getattr(row, "group_id", ""))
)


def gather_fetch(shard: Shard, call: Call) -> None:
    """Answer through a door of the whole node."""
    (_gather_several if call.version >= _SEVERAL_FROM else _gather_one)(shard, call)
