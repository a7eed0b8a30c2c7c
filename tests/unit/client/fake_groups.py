"""The coordinator of groups of the cluster in memory: the broker's own, behind the wire.

It moves when a test says so: what was committed is replayed elsewhere, who waits hears nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import trio

from corelane.groups.coordinator import GroupCoordinator, GroupRecord
from corelane.groups.records import CommittedOffset, OffsetRecord
from corelane.groups.requests import (
    Answer,
    Beat,
    Commit,
    Committed,
    FetchedOffsets,
    FetchOffsets,
    GroupSettings,
    Identity,
    Join,
    Joined,
    Leave,
    Left,
    Request,
    Simple,
    Sync,
    Synced,
)
from corelane.model.errors import ErrorCode
from corelane.wire.compiler import message_type
from corelane_client.protocol import Api
from tests.unit.client.fake_consumer_groups import LiveTopics, beat, beaten

GROUP_RANGES = {
    Api.OFFSET_COMMIT: (2, 9),
    Api.OFFSET_FETCH: (1, 9),
    Api.FIND_COORDINATOR: (0, 6),
    Api.JOIN_GROUP: (0, 9),
    Api.HEARTBEAT: (0, 4),
    Api.LEAVE_GROUP: (0, 5),
    Api.SYNC_GROUP: (0, 5),
    Api.CONSUMER_GROUP_HEARTBEAT: (0, 1),
}


def new(name: str, /, **fields: Any) -> Any:
    return message_type(name)(**fields)


class Groups:
    """Broker `at` coordinates every group; None: no broker does."""

    def __init__(self, topics: Mapping[str, Sequence[object]]) -> None:
        self.at: int | None = 0
        self.settings = GroupSettings(initial_delay_ms=0)
        self._topics = LiveTopics(topics)
        self._log: list[GroupRecord] = []
        self._coordinator = GroupCoordinator(self.settings, self._topics)
        self._waiting: dict[int, list[Answer]] = {}
        self._news = trio.Event()
        self._tokens = 0

    def move(self, at: int | None) -> None:
        """Have another broker coordinate, by what was committed."""
        self.at = at
        self._coordinator = GroupCoordinator(self.settings, self._topics)
        for record in self._log:
            self._coordinator.replay(record)
        self._coordinator.loaded(_now_ms(), 0)
        self._waiting.clear()
        self._told()

    def state(self, group: str) -> str:
        """Return how a group is described."""
        states = {name: state for name, _type, state, _kind in self._coordinator.listed()}
        return states.get(group, "Dead")

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Return what a group has committed."""
        token = self._ask(FetchOffsets(group, None))
        (answer,) = self._waiting.pop(token)
        assert isinstance(answer, FetchedOffsets)
        return {place: at.offset for place, at, _error in answer.offsets if at is not None}

    async def answer(self, broker_id: int, api: Api, version: int, request: Any) -> Any:
        """Do a request of any group API."""
        match api:
            case Api.FIND_COORDINATOR:
                return self.find(request, version, self.at)
            case Api.JOIN_GROUP:
                return _joined(await self._wait(broker_id, self._join(request, version)), version)
            case Api.SYNC_GROUP:
                return _synced(await self._wait(broker_id, _sync(request)))
            case Api.HEARTBEAT:
                error = _error(await self._wait(broker_id, Beat(_identity(request))))
                return new("HeartbeatResponse", error_code=error)
            case Api.CONSUMER_GROUP_HEARTBEAT:
                return beaten(await self._wait(broker_id, beat(request)))
            case Api.LEAVE_GROUP:
                return _left(await self._wait(broker_id, _leave(request)))
            case Api.OFFSET_COMMIT:
                answer = await self._wait(broker_id, commit(request))
                return commit_answer("OffsetCommitResponse.OffsetCommitResponse", request, answer)
            case Api.OFFSET_FETCH:
                return await self._fetched(broker_id, version, request)
            case _:
                raise AssertionError(api)

    def put(self, request: Any) -> None:
        """Take offsets that a transaction has committed."""
        for topic in request.topics:
            for row in topic.partitions:
                at = CommittedOffset(row.committed_offset, row.committed_leader_epoch, "", 0)
                found = OffsetRecord(request.group_id, topic.name, row.partition_index, at)
                self._log.append(found)
                self._coordinator.replay(found)

    def find(self, request: Any, version: int, at: int | None) -> Any:
        """Answer FindCoordinator: broker *at*, or none."""
        error = ErrorCode.NONE if at is not None else ErrorCode.COORDINATOR_NOT_AVAILABLE
        where = {"error_code": error, "node_id": -1 if at is None else at}
        rows = [
            new("FindCoordinatorResponse.Coordinator", key=key, error_message=None, **where)
            for key in request.coordinator_keys
        ]
        if version >= 4:
            return new("FindCoordinatorResponse", coordinators=rows)
        return new("FindCoordinatorResponse", error_message=None, **where)

    async def _wait(self, broker_id: int, request: Request) -> Answer | ErrorCode:
        """Return the answer once there is one; none comes when the coordinator moves."""
        if self.at != broker_id:
            return ErrorCode.NOT_COORDINATOR
        token = self._ask(request)
        coordinator = self._coordinator
        while token not in self._waiting:
            if coordinator is not self._coordinator:
                return ErrorCode.NOT_COORDINATOR
            at_s = coordinator.next_deadline_ms / 1000
            with trio.move_on_at(at_s):
                await self._news.wait()
                continue
            coordinator.tick(max(_now_ms(), coordinator.next_deadline_ms), 0)
            self._take()
        (answer,) = self._waiting.pop(token)
        return answer

    def _ask(self, request: Request) -> int:
        self._tokens += 1
        # Members that are silent go now, if nobody was here to look at the clock meanwhile.
        self._coordinator.tick(_now_ms(), 0)
        self._coordinator.handle(_now_ms(), 0, self._tokens, request)
        self._take()
        return self._tokens

    def _take(self) -> None:
        outcome = self._coordinator.take()
        self._log += outcome.records
        for answered in outcome.answers:
            self._waiting.setdefault(answered.token, []).append(answered.answer)
        self._told()

    def _told(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _join(self, request: Any, version: int) -> Join:
        return Join(
            request.group_id,
            request.member_id,
            f"member-{self._tokens}",
            request.group_instance_id,
            "client",
            "/host",
            request.session_timeout_ms,
            request.rebalance_timeout_ms,
            request.protocol_type,
            tuple((row.name, bytes(row.metadata)) for row in request.protocols),
            needs_known_member=version >= 4,
            may_skip_assignment=version >= 9,
        )

    async def _fetched(self, broker_id: int, version: int, request: Any) -> Any:
        asked = request.groups[0] if version >= 8 else request
        places = None
        if asked.topics is not None:
            places = tuple((row.name, n) for row in asked.topics for n in row.partition_indexes)
        wish = FetchOffsets(asked.group_id, places, request.require_stable)
        answer = await self._wait(broker_id, wish)
        if isinstance(answer, ErrorCode):
            answer = FetchedOffsets(answer)
        assert isinstance(answer, FetchedOffsets)
        tail = "s" if version >= 8 else ""
        topics: dict[str, list[Any]] = {}
        for (topic, number), at, error in answer.offsets:
            row = new(
                f"OffsetFetchResponse.OffsetFetchResponsePartition{tail}",
                partition_index=number,
                committed_offset=-1 if at is None else at.offset,
                committed_leader_epoch=-1 if at is None else at.leader_epoch,
                metadata="" if at is None else at.metadata,
                error_code=error,
            )
            topics.setdefault(topic, []).append(row)
        rows = [
            new(f"OffsetFetchResponse.OffsetFetchResponseTopic{tail}", name=name, partitions=parts)
            for name, parts in topics.items()
        ]
        if version < 8:
            return new("OffsetFetchResponse", topics=rows, error_code=answer.error)
        group = new(
            "OffsetFetchResponse.OffsetFetchResponseGroup",
            group_id=asked.group_id,
            topics=rows,
            error_code=answer.error,
        )
        return new("OffsetFetchResponse", groups=[group])


def _now_ms() -> int:
    return int(trio.current_time() * 1000)


def _identity(request: Any) -> Identity:
    return Identity(
        request.group_id, request.generation_id, request.member_id, request.group_instance_id
    )


def _error(answer: Answer | ErrorCode) -> ErrorCode:
    if isinstance(answer, ErrorCode):
        return answer
    assert isinstance(answer, Simple)
    return answer.error


def _joined(answer: Answer | ErrorCode, version: int) -> Any:
    if isinstance(answer, ErrorCode):
        answer = Joined(answer)
    assert isinstance(answer, Joined)
    return new(
        "JoinGroupResponse",
        error_code=answer.error,
        generation_id=answer.generation_id,
        protocol_type=answer.protocol_type,
        protocol_name=answer.protocol if answer.protocol or version >= 7 else "",
        leader=answer.leader,
        skip_assignment=answer.skip_assignment,
        member_id=answer.member_id,
        members=[
            new(
                "JoinGroupResponse.JoinGroupResponseMember",
                member_id=member_id,
                group_instance_id=instance_id,
                metadata=metadata,
            )
            for member_id, instance_id, metadata in answer.members
        ],
    )


def _sync(request: Any) -> Sync:
    rows = tuple((row.member_id, bytes(row.assignment)) for row in request.assignments)
    return Sync(_identity(request), request.protocol_type, request.protocol_name, rows)


def _synced(answer: Answer | ErrorCode) -> Any:
    if isinstance(answer, ErrorCode):
        answer = Synced(answer)
    assert isinstance(answer, Synced)
    return new(
        "SyncGroupResponse",
        error_code=answer.error,
        protocol_type=answer.protocol_type,
        protocol_name=answer.protocol,
        assignment=answer.assignment,
    )


def _leave(request: Any) -> Leave:
    members = tuple((row.member_id, row.group_instance_id) for row in request.members)
    return Leave(request.group_id, members or ((request.member_id, None),))


def _left(answer: Answer | ErrorCode) -> Any:
    if isinstance(answer, ErrorCode):
        answer = Left(answer)
    assert isinstance(answer, Left)
    rows = [
        new(
            "LeaveGroupResponse.MemberResponse",
            member_id=member_id,
            group_instance_id=instance_id,
            error_code=error,
        )
        for member_id, instance_id, error in answer.members
    ]
    return new("LeaveGroupResponse", error_code=answer.error, members=rows)


def commit(request: Any, producer: tuple[int, int] | None = None) -> Commit:
    """Return what OffsetCommit and TxnOffsetCommit ask for."""
    generation = getattr(request, "generation_id_or_member_epoch", None)
    if generation is None:
        generation = request.generation_id
    identity = Identity(request.group_id, generation, request.member_id, request.group_instance_id)
    offsets = tuple(
        (
            (topic.name, row.partition_index),
            CommittedOffset(
                row.committed_offset, row.committed_leader_epoch, row.committed_metadata, 0
            ),
        )
        for topic in request.topics
        for row in topic.partitions
    )
    return Commit(identity, offsets, producer)


def commit_answer(prefix: str, request: Any, answer: Answer | ErrorCode) -> Any:
    """Return the answer to either commit, whose parts are called *prefix* and a word."""
    errors = None if isinstance(answer, ErrorCode) else answer
    assert errors is None or isinstance(errors, Committed)
    left = iter(errors.errors if errors else ())
    topics = [
        new(
            f"{prefix}Topic",
            name=topic.name,
            partitions=[
                new(
                    f"{prefix}Partition",
                    partition_index=row.partition_index,
                    error_code=answer if errors is None else next(left),
                )
                for row in topic.partitions
            ],
        )
        for topic in request.topics
    ]
    return new(prefix.partition(".")[0], topics=topics)
