"""What groups are told that cannot be: the exact error, and everybody else goes on.

The group of these tests has one living member, which must be able to go on after each of them.
"""

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest

from corelane.model.errors import ErrorCode
from corelane.wire.compiler import Message, message_type
from tests.unit.api.txn import SETTINGS, Producer, coordinated, find, offset_of

HUGE = "g" * 32_767
"""The longest that a message can hold; the limit of a group's name is below it."""
E = ErrorCode


def new(name: str, /, **fields: Any) -> Message:
    made: Message = message_type(name)(**fields)
    return made


class Group:
    """One member of group g, and what is asked in its name or in others'."""

    def __init__(self) -> None:
        self.world = coordinated(f"{SETTINGS}\ngroup.initial.rebalance.delay.ms = 0")
        find(self.world, "g", kind=0)
        first = self.join("g")
        assert first.error_code == E.MEMBER_ID_REQUIRED
        self.member = first.member_id
        joined = self.join("g", self.member)
        assert joined.error_code == E.NONE
        self.generation = joined.generation_id
        assert self.sync(assignments={self.member: b"\x00\x01"}).error_code == E.NONE

    def join(self, group: str, member: str = "", **fields: Any) -> Message:
        row = new("JoinGroupRequest.JoinGroupRequestProtocol", name="range", metadata=b"\x00\x01")
        request = new(
            "JoinGroupRequest",
            group_id=group,
            member_id=member,
            protocol_type="consumer",
            protocols=[row],
            **{"session_timeout_ms": 10_000, "rebalance_timeout_ms": 10_000, **fields},
        )
        return self._ask(request, 9)

    def sync(self, assignments: dict[str, bytes] | None = None, **identity: Any) -> Message:
        kind = "SyncGroupRequest.SyncGroupRequestAssignment"
        rows = [new(kind, member_id=n, assignment=data) for n, data in (assignments or {}).items()]
        request = new(
            "SyncGroupRequest", **self._identity(identity), protocol_type="consumer",
            protocol_name="range", assignments=rows,
        )  # fmt: skip
        return self._ask(request, 5)

    def beat(self, **identity: Any) -> int:
        code: int = self._ask(new("HeartbeatRequest", **self._identity(identity)), 4).error_code
        return code

    def commit(self, *places: tuple[str, int], **identity: Any) -> list[int]:
        kind = "OffsetCommitRequest.OffsetCommitRequest"
        topics = [
            new(
                f"{kind}Topic",
                name=name,
                partitions=[
                    new(f"{kind}Partition", partition_index=number, committed_offset=7,
                        committed_metadata="")
                ],
            )
            for name, number in places or (("t", 0),)
        ]  # fmt: skip
        said = self._identity(identity)
        said["generation_id_or_member_epoch"] = said.pop("generation_id")
        answer = self._ask(new("OffsetCommitRequest", **said, topics=topics), 8)
        return [row.error_code for topic in answer.topics for row in topic.partitions]

    def leave(self, group: str, member: str) -> Message:
        row = new("LeaveGroupRequest.MemberIdentity", member_id=member, reason=None)
        return self._ask(new("LeaveGroupRequest", group_id=group, members=[row]), 5)

    def consumer(self, group: str, epoch: int = 0) -> int:
        request = new(
            "ConsumerGroupHeartbeatRequest",
            group_id=group,
            member_id="m",
            member_epoch=epoch,
            rebalance_timeout_ms=10_000,
            subscribed_topic_names=["t"],
            topic_partitions=[],
        )
        code: int = self._ask(request, 1).error_code
        return code

    def delete(self, group: str) -> int:
        row = self._ask(new("DeleteGroupsRequest", groups_names=[group]), 2).results[0]
        code: int = row.error_code
        return code

    def describe(self, group: str) -> tuple[int, str]:
        row = self._ask(new("DescribeGroupsRequest", groups=[group]), 5).groups[0]
        return row.error_code, row.group_state

    def delete_offsets(self, group: str) -> int:
        code: int = self._ask(new("OffsetDeleteRequest", group_id=group, topics=[]), 0).error_code
        return code

    def commit_in_transaction(self, group: str) -> int:
        producer = Producer(self.world, "one")
        producer.producer_id, producer.epoch = 1, 0
        return producer.commit(group, 7)

    def goes_on(self) -> None:
        """See that the living member, and its offsets, are as they were."""
        assert self.beat() == E.NONE
        assert self.commit() == [E.NONE]
        assert offset_of(self.world, "g") == (7, 0)

    def _identity(self, said: dict[str, Any]) -> dict[str, Any]:
        return {
            "group_id": "g",
            "member_id": self.member,
            "generation_id": self.generation,
            **said,
        }

    def _ask(self, message: Message, version: int) -> Message:
        return self.world.call(message, version)


@pytest.fixture
def group() -> Group:
    return Group()


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
        ({"member_id": ""}, E.UNKNOWN_MEMBER_ID),
        ({"generation_id": 0}, E.ILLEGAL_GENERATION),
        ({"generation_id": 2}, E.ILLEGAL_GENERATION),
        ({"generation_id": -5}, E.ILLEGAL_GENERATION),
        ({"generation_id": 2**31 - 1}, E.ILLEGAL_GENERATION),
        ({"group_id": "other"}, E.UNKNOWN_MEMBER_ID),
        ({"group_instance_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
    ],
)
def test_who_is_not_a_member_of_this_generation_hears_so(
    group: Group, identity: dict[str, Any], expected: ErrorCode
) -> None:
    assert group.beat(**identity) == expected
    assert group.sync(**identity).error_code == expected
    if identity == {"group_id": "other"}:
        assert group.commit(**identity) == [E.ILLEGAL_GENERATION]  # KAFKA: no such group at all
    else:
        assert group.commit(**identity) == [expected]
    group.goes_on()


@pytest.mark.parametrize("name", [HUGE, ""])
def test_a_group_name_that_cannot_be_is_refused_by_everything(group: Group, name: str) -> None:
    assert group.join(name).error_code == E.INVALID_GROUP_ID
    assert group.sync(group_id=name).error_code == E.INVALID_GROUP_ID
    assert group.beat(group_id=name) == E.INVALID_GROUP_ID
    assert group.leave(name, "nobody").error_code == E.INVALID_GROUP_ID
    assert group.delete_offsets(name) == E.INVALID_GROUP_ID
    assert group.consumer(name) == E.INVALID_REQUEST
    if name:
        assert group.commit(group_id=name) == [E.INVALID_GROUP_ID]
        alone = {"member_id": "", "generation_id": -1}
        assert group.commit(group_id=name, **alone) == [E.INVALID_GROUP_ID]
        assert group.delete(name) == E.INVALID_GROUP_ID
    group.goes_on()


def test_offsets_are_kept_under_the_empty_name_and_nothing_else_is(group: Group) -> None:
    """Kafka 4.3.1, asked by hand: all else about that name is INVALID_GROUP_ID."""
    assert find(group.world, "", kind=0).error_code == E.NONE
    alone = {"member_id": "", "generation_id": -1}
    assert group.commit_in_transaction("") == E.INVALID_GROUP_ID
    assert group.commit(group_id="") == [E.ILLEGAL_GENERATION]
    assert group.commit(group_id="", **alone) == [E.NONE]
    assert offset_of(group.world, "") == (7, 0)
    assert group.describe("") == (E.NONE, "Empty")
    group.world.crash()
    group.world.pass_time(500)
    assert offset_of(group.world, "") == (7, 0)
    assert group.delete("") == E.NONE
    assert offset_of(group.world, "") == (-1, 0)
    group.goes_on()


def test_a_name_of_64_kib_fits_no_message_and_costs_its_connection_alone(group: Group) -> None:
    name = b"g" * (64 << 10)
    header = struct.pack(">hhihx", 12, 4, 1, -1)  # Heartbeat 4, no client id
    compact = b"\x81\x80\x04"  # 64 KiB and 1, as a varint
    body = compact + name + struct.pack(">i", 1) + b"\x02m\x00\x00"
    group.world.send_frame(header + body, conn=7)
    assert 7 in group.world.closed
    group.goes_on()


def test_partitions_of_others_are_refused_one_by_one(group: Group) -> None:
    places = (("t", 0), ("t", 3), ("t", -1), ("nothing", 0), ("", 0), ("t" * 300, 0), ("t", 1))
    unknown = E.UNKNOWN_TOPIC_OR_PARTITION
    assert group.commit(*places) == [0, unknown, unknown, unknown, unknown, unknown, 0]
    group.goes_on()


@pytest.mark.parametrize("seed", range(5))
def test_assignments_that_are_garbage_are_the_members_affair(group: Group, seed: int) -> None:
    chance = random.Random(seed)
    joined = group.join("g", group.member)
    assert joined.error_code == E.NONE
    group.generation = joined.generation_id
    garbage = chance.randbytes(chance.choice((1, 7, 500, 100_000)))
    given = {group.member: garbage, "nobody": b"\xff" * 9, "": b""}
    synced = group.sync(assignments=given)
    assert (synced.error_code, synced.assignment) == (E.NONE, garbage)
    described = group.world.call(new("DescribeGroupsRequest", groups=["g"]), 5).groups[0]
    assert described.members[0].member_assignment == garbage
    # A subscription or an assignment that cannot be read keeps members of the new protocol out.
    assert group.consumer("g") == E.GROUP_ID_NOT_FOUND
    group.goes_on()


@pytest.mark.parametrize("timeout_ms", [0, -1, 5_999, 1_800_001, 2**31 - 1])
def test_a_session_that_is_too_short_or_too_long_is_refused(group: Group, timeout_ms: int) -> None:
    refused = group.join("g", session_timeout_ms=timeout_ms)
    assert refused.error_code == E.INVALID_SESSION_TIMEOUT
    group.goes_on()


def test_who_was_never_there_cannot_leave(group: Group) -> None:
    left = group.leave("g", "nobody")
    assert left.members[0].error_code == E.UNKNOWN_MEMBER_ID
    assert group.leave("other", "nobody").members[0].error_code == E.UNKNOWN_MEMBER_ID
    group.goes_on()


def test_an_epoch_of_the_new_protocol_means_nothing_to_a_classic_group(group: Group) -> None:
    for epoch in (1, -1, -2, 2**31 - 1):
        assert group.consumer("g", epoch) == E.GROUP_ID_NOT_FOUND
    group.goes_on()


@pytest.mark.parametrize("seed", range(10))
def test_requests_of_any_content_are_answered_and_harm_nobody(group: Group, seed: int) -> None:
    chance = random.Random(seed)
    names = ["g", "other", "", HUGE, "\x00", "ä" * 2_000]
    numbers = [-(2**31), -2, -1, 0, 1, 2, 2**31 - 1]
    members = [group.member, "", "nobody", HUGE[:5_000]]

    def identity() -> dict[str, Any]:
        made = {
            "group_id": chance.choice(names),
            "member_id": chance.choice(members[1:]),
            "generation_id": chance.choice(numbers),
        }
        if chance.random() < 0.3:
            made["group_instance_id"] = chance.choice(["", "one", "i" * 5_000])
        return made

    calls: list[Callable[[], object]] = [
        lambda: group.beat(**identity()),
        lambda: group.sync({"x": chance.randbytes(30)}, **identity()),
        lambda: group.commit((chance.choice(["t", "u", ""]), chance.choice(numbers)), **identity()),
        lambda: group.leave(chance.choice(names), chance.choice(members[1:])),
        lambda: group.consumer(chance.choice(names), chance.choice(numbers)),
        lambda: group.join(
            chance.choice(names[2:]),
            session_timeout_ms=chance.choice(numbers),
            rebalance_timeout_ms=chance.choice(numbers),
        ),
    ]
    for _ in range(60):
        chance.choice(calls)()
    group.world.pass_time(100)
    group.goes_on()
