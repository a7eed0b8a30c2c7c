"""Who may be in a group of the new protocol: joins, fences, leaves, static members (KIP-848)."""

from typing import Any

import pytest

from corelane.groups.consumer_group import ConsumerGroup
from corelane.groups.consumer_records import (
    ConsumerGroupCurrentMember,
    ConsumerGroupMember,
    ConsumerGroupMetadata,
    ConsumerGroupRegularExpression,
    ConsumerGroupTargetMember,
    ConsumerGroupTargetMetadata,
    CurrentAssignment,
    GroupEpoch,
    MemberState,
    ResolvedRegex,
)
from corelane.groups.consumer_requests import ConsumerGroupSettings
from corelane.groups.requests import Identity
from corelane.model.errors import ErrorCode
from tests.unit.groups.consumer_world import GROUP, World, heartbeat, joining, some


def two_members() -> World:
    """Return a group in which a and b have two partitions each, at epoch 2."""
    world = World({"t": 4})
    world.join("a", "t")
    world.join("b", "t")
    world.beat("a")
    world.beat("a", owned=world.current("a").assigned)
    world.beat("b")
    assert world.epoch("a") == world.epoch("b") == 2
    assert len(world.current("b").assigned) == 2
    assert world.group.state_name == "Stable"
    return world


def test_the_first_member_makes_the_group_and_gets_everything_at_once() -> None:
    world = World({"t": 3})
    answer = world.join("a", "t")
    assert answer.member_id == "a"
    assert answer.member_epoch == 1
    assert answer.heartbeat_interval_ms == 5_000
    assert answer.assignment == some("t", 0, 1, 2)
    kinds = [type(record) for record in world.batch]
    assert kinds == [
        ConsumerGroupMember,
        ConsumerGroupMetadata,
        ConsumerGroupTargetMember,
        ConsumerGroupTargetMetadata,
        ConsumerGroupCurrentMember,
    ]


def test_a_heartbeat_with_nothing_new_leaves_no_record_and_tells_no_assignment() -> None:
    world = World({"t": 3})
    world.join("a", "t")
    answer = world.beat("a")
    assert answer.assignment is None
    assert answer.member_epoch == 1
    assert not world.batch


def test_a_full_heartbeat_is_told_the_whole_assignment_again() -> None:
    """A client that lost an answer says everything, and is told everything (KIP-848)."""
    world = World({"t": 3})
    world.join("a", "t")
    full = {"rebalance_timeout_ms": 60_000, "topic_names": ("t",), "owned": some("t", 0)}
    assert world.beat("a", **full).assignment == some("t", 0, 1, 2)
    for missing in full:
        assert world.beat("a", **(full | {missing: joining_default(missing)})).assignment is None


def joining_default(name: str) -> Any:
    return -1 if name == "rebalance_timeout_ms" else None


def test_version_0_may_come_without_an_id_and_gets_the_proposed_one() -> None:
    world = World({"t": 1})
    answer = world.join("", "t", proposed_member_id="made-by-the-broker")
    assert answer.member_id == "made-by-the-broker"
    assert "made-by-the-broker" in world.state.members


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"member_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"member_id": "  "}, ErrorCode.INVALID_REQUEST),
        ({"member_id": "x" * 1025}, ErrorCode.INVALID_REQUEST),
        ({"member_epoch": -3}, ErrorCode.INVALID_REQUEST),
        ({"instance_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"instance_id": "x" * 1025}, ErrorCode.INVALID_REQUEST),
        ({"rack_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"rebalance_timeout_ms": -1}, ErrorCode.INVALID_REQUEST),
        ({"rebalance_timeout_ms": -2}, ErrorCode.INVALID_REQUEST),
        ({"owned": None}, ErrorCode.INVALID_REQUEST),
        ({"owned": some("t", 0)}, ErrorCode.INVALID_REQUEST),
        ({"topic_names": None}, ErrorCode.INVALID_REQUEST),
        ({"topic_names": tuple(f"t{n}" for n in range(10_001))}, ErrorCode.INVALID_REQUEST),
        ({"topic_names": ("t", "no/topic")}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"topic_names": ("x" * 250,)}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"topic_names": ("t\n",)}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"server_assignor": "sticky"}, ErrorCode.UNSUPPORTED_ASSIGNOR),
        ({"member_epoch": -2, "instance_id": None}, ErrorCode.INVALID_REQUEST),
        (
            {"member_epoch": 7, "member_id": "", "proposed_member_id": "p"},
            ErrorCode.INVALID_REQUEST,
        ),
        ({"topic_regex": "a(b"}, ErrorCode.INVALID_REGULAR_EXPRESSION),
    ],
)
def test_a_malformed_request_is_refused_and_makes_no_group(
    said: dict[str, Any], error: ErrorCode
) -> None:
    world = World({"t": 1})
    request = joining("a", "t")
    for name, value in said.items():
        setattr(request, name, value)
    assert world.refused(request) is error
    assert not world.state.exists
    assert world.group.next_deadline_ms is None


def test_only_a_join_makes_a_group() -> None:
    world = World({"t": 1})
    assert world.refused(heartbeat("a", 1)) is ErrorCode.GROUP_ID_NOT_FOUND
    assert world.refused(heartbeat("a", -1)) is ErrorCode.GROUP_ID_NOT_FOUND


def test_who_is_not_a_member_must_join() -> None:
    world = two_members()
    assert world.refused(heartbeat("x", 1)) is ErrorCode.UNKNOWN_MEMBER_ID
    assert world.refused(heartbeat("a", -1, instance_id="i")) is ErrorCode.UNKNOWN_MEMBER_ID
    assert world.refused(heartbeat("x", -1)) is ErrorCode.UNKNOWN_MEMBER_ID
    unknown = heartbeat("x", 1, instance_id="i")
    assert world.refused(unknown) is ErrorCode.UNKNOWN_MEMBER_ID


def test_an_epoch_ahead_is_fenced() -> None:
    assert two_members().refused(heartbeat("a", 3)) is ErrorCode.FENCED_MEMBER_EPOCH


def test_the_previous_epoch_is_good_once_more_if_nothing_else_is_owned() -> None:
    """The answer with the new epoch may have been lost (KIP-848, "Member epoch")."""
    world = two_members()
    mine = world.current("a").assigned
    stale = heartbeat("a", 1, owned=mine)
    assert world.say(stale).member_epoch == 2
    other = world.current("b").assigned
    assert world.refused(heartbeat("a", 1, owned=mine | other)) is ErrorCode.FENCED_MEMBER_EPOCH
    assert world.refused(heartbeat("a", 1)) is ErrorCode.FENCED_MEMBER_EPOCH


def test_a_member_in_a_state_of_a_later_version_must_give_up_all() -> None:
    world = two_members()
    had = world.current("a").assigned
    strange = CurrentAssignment(2, 1, MemberState.UNKNOWN, had, frozenset())
    world.group.replay(ConsumerGroupCurrentMember(GROUP, "a", strange))
    assert world.refused(heartbeat("a", 2, owned=had)) is ErrorCode.FENCED_MEMBER_EPOCH
    assert world.refused(heartbeat("a", 2)) is ErrorCode.FENCED_MEMBER_EPOCH
    assert world.join("a", "t").assignment == had
    assert world.current("a").state is MemberState.STABLE


def test_a_fenced_member_may_come_back_with_epoch_0_under_its_id() -> None:
    """KAFKA-19233: it would otherwise be fenced until its session is over."""
    world = two_members()
    world.join("c", "t")
    for _ in range(3):
        for member in "abc":
            world.beat(member, owned=world.current(member).assigned)
    assert world.epoch("a") == 3
    answer = world.join("a", "t")
    assert answer.member_epoch == 3
    assert answer.assignment == world.current("a").assigned
    assert not world.batch


def test_the_group_takes_no_more_than_its_size() -> None:
    world = World({"t": 1}, ConsumerGroupSettings(size_max=2))
    world.join("a", "t")
    world.join("b", "t", instance_id="i")
    assert world.refused(joining("c", "t")) is ErrorCode.GROUP_MAX_SIZE_REACHED
    world.join("a", "t")
    world.say(heartbeat("b", -2, instance_id="i"))
    world.join("d", "t", instance_id="i")
    assert set(world.state.members) == {"a", "d"}


def test_leaving_frees_the_partitions_for_the_others() -> None:
    world = two_members()
    answer = world.say(heartbeat("b", -1))
    assert (answer.error, answer.member_id, answer.member_epoch) == (ErrorCode.NONE, "b", -1)
    assert world.state.epoch == 3
    assert world.group.state_name == "Assigning"
    assert world.beat("a").assignment == some("t", 0, 1, 2, 3)
    assert world.epoch("a") == 3


def test_a_group_whose_last_member_left_is_empty_and_goes_on_counting() -> None:
    world = World({"t": 1})
    world.join("a", "t")
    world.say(heartbeat("a", -1))
    assert world.group.state_name == "Empty"
    assert world.group.next_deadline_ms is not None  # an entry that has nothing to say
    world.wait(100_000)
    assert world.group.next_deadline_ms is None
    assert world.join("b", "t").member_epoch == 3


def test_who_is_not_heard_of_for_a_session_is_out() -> None:
    world = two_members()
    world.wait(30_000)
    world.beat("a")
    world.wait(14_999)
    assert set(world.state.members) == {"a", "b"}
    world.wait(1)
    assert set(world.state.members) == {"a"}
    assert world.state.epoch == 3
    assert world.refused(heartbeat("b", 2)) is ErrorCode.UNKNOWN_MEMBER_ID


def test_members_that_run_out_together_are_one_new_epoch() -> None:
    world = two_members()
    world.wait(50_000)
    assert not world.state.members
    assert world.state.epoch == 3


def test_after_a_failover_everybody_has_a_whole_session_again() -> None:
    world = two_members()
    world.wait(44_000)
    world.fail_over()
    world.wait(44_999)
    assert set(world.state.members) == {"a", "b"}
    world.wait(1)
    assert not world.state.members


def test_a_refused_heartbeat_is_no_sign_of_life() -> None:
    world = two_members()
    world.wait(40_000)
    world.refused(heartbeat("b", 9))
    world.beat("a")
    world.wait(5_000)
    assert set(world.state.members) == {"a"}


# Static members (KIP-345 in KIP-848).


def static_pair() -> World:
    """Return a group of the static member a (instance i) and the plain member b."""
    world = World({"t": 4})
    world.join("a", "t", instance_id="i")
    world.join("b", "t")
    world.beat("a", instance_id="i")
    world.beat("a", instance_id="i", owned=world.current("a").assigned)
    world.beat("b")
    assert world.group.state_name == "Stable"
    return world


def test_a_static_member_leaves_for_a_while_and_its_place_is_kept() -> None:
    world = static_pair()
    had = world.current("a").assigned
    answer = world.say(heartbeat("a", -2, instance_id="i"))
    assert answer.member_epoch == -2
    assert world.state.epoch == 2
    assert world.current("a").assigned == had
    assert world.beat("b").assignment is None

    answer = world.join("a2", "t", instance_id="i")
    assert answer.assignment == had
    assert answer.member_epoch == 2
    assert world.state.epoch == 2, "nobody else noticed"
    assert set(world.state.members) == {"a2", "b"}
    assert world.state.statics == {"i": "a2"}
    assert world.refused(heartbeat("a", 2, instance_id="i")) is ErrorCode.FENCED_INSTANCE_ID
    assert world.refused(heartbeat("a", -1, instance_id="i")) is ErrorCode.FENCED_INSTANCE_ID


def test_a_static_member_that_is_there_is_not_replaced() -> None:
    world = static_pair()
    request = joining("a2", "t", instance_id="i")
    assert world.refused(request) is ErrorCode.UNRELEASED_INSTANCE_ID


def test_a_static_member_may_try_its_own_join_again() -> None:
    world = static_pair()
    answer = world.join("a", "t", instance_id="i")
    assert answer.assignment == world.current("a").assigned


def test_a_static_member_that_stays_away_for_a_session_is_out() -> None:
    world = static_pair()
    world.wait(20_000)
    world.beat("b")
    world.say(heartbeat("a", -2, instance_id="i"))
    world.wait(24_999)
    assert "a" in world.state.members
    world.wait(1)
    assert set(world.state.members) == {"b"}
    assert world.state.statics == {}
    assert world.state.epoch == 3


def test_a_static_member_leaves_for_good_with_minus_1() -> None:
    world = static_pair()
    world.say(heartbeat("a", -1, instance_id="i"))
    assert set(world.state.members) == {"b"}
    assert world.state.epoch == 3


def test_a_static_member_that_comes_back_with_other_topics_is_a_new_epoch() -> None:
    world = static_pair()
    world.topics.set("u", 1)
    world.say(heartbeat("a", -2, instance_id="i"))
    answer = world.join("a2", "t", "u", instance_id="i")
    assert world.state.epoch == 3
    assert answer.assignment is not None
    assert some("u", 0) <= answer.assignment


def test_who_takes_a_static_place_gives_up_its_own() -> None:
    """Kafka leaves the partitions of the place it had without an owner until the next epoch."""
    world = static_pair()
    world.say(heartbeat("a", -2, instance_id="i"))
    world.join("b", "t", instance_id="i")
    assert set(world.state.members) == {"b"}
    assert world.current("b").assigned == some("t", 0, 1, 2, 3)


def test_the_revoked_partitions_of_a_static_member_that_left_are_free() -> None:
    world = World({"t": 4})
    world.join("a", "t", instance_id="i", rebalance_timeout_ms=10_000)
    world.join("b", "t")
    world.beat("a")
    assert world.current("a").state is MemberState.UNREVOKED_PARTITIONS
    world.say(heartbeat("a", -2, instance_id="i"))
    assert world.beat("b").assignment is not None
    assert len(world.current("b").assigned) == 2
    world.wait(44_999)
    assert set(world.state.members) == {"a", "b"}, "the rebalance timeout does not run on"


# Who may commit.


def test_commits_need_the_members_epoch() -> None:
    """OffsetCommit 9 (KIP-848): STALE_MEMBER_EPOCH makes a client try again with its next one."""
    group = static_pair().group
    assert group.commit_fault(Identity("g", 2, "a", None)) is ErrorCode.NONE
    assert group.commit_fault(Identity("g", 2, "a", "i")) is ErrorCode.NONE
    assert group.commit_fault(Identity("g", 1, "a", None)) is ErrorCode.STALE_MEMBER_EPOCH
    assert group.commit_fault(Identity("g", 3, "a", None)) is ErrorCode.STALE_MEMBER_EPOCH
    assert group.commit_fault(Identity("g", 2, "x", None)) is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.commit_fault(Identity("g", 2, "x", "i")) is ErrorCode.FENCED_INSTANCE_ID
    assert group.commit_fault(Identity("g", -1, "", None)) is ErrorCode.UNKNOWN_MEMBER_ID


def test_tools_commit_to_an_empty_group_only() -> None:
    world = World({"t": 1})
    world.join("a", "t")
    assert world.group.commit_fault(Identity("g", -1, "", None)) is ErrorCode.UNKNOWN_MEMBER_ID
    world.say(heartbeat("a", -1))
    assert world.group.commit_fault(Identity("g", -1, "", None)) is ErrorCode.NONE


def test_anybody_may_ask_for_offsets_but_a_member_with_its_epoch_only() -> None:
    group = two_members().group
    assert group.fetch_fault(None, -1) is ErrorCode.NONE
    assert group.fetch_fault("a", 2) is ErrorCode.NONE
    assert group.fetch_fault("a", 1) is ErrorCode.STALE_MEMBER_EPOCH
    assert group.fetch_fault("x", 2) is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.fetch_fault(None, 2) is ErrorCode.UNKNOWN_MEMBER_ID


# The end.


def test_only_an_empty_group_is_deleted_or_becomes_a_classic_one() -> None:
    world = World({"t": 1})
    assert world.group.delete_fault() is ErrorCode.GROUP_ID_NOT_FOUND
    world.join("a", topic_regex="t.*")
    assert world.group.delete_fault() is ErrorCode.NON_EMPTY_GROUP
    world.say(heartbeat("a", -1))
    assert world.group.delete_fault() is ErrorCode.NONE


def test_a_deleted_group_leaves_nothing_in_the_log() -> None:
    world = World({"t": 1})
    world.join("a", topic_regex="t.*")
    world.say(heartbeat("a", -1))
    world.group.delete()
    world.took()
    assert list(world.group.live_records()) == []
    assert world.group.state_name == "Dead"
    last = {(type(r), getattr(r, "member_id", getattr(r, "regex", ""))): r for r in world.log}
    assert all(record.value is None for record in last.values())
    world.fail_over()
    assert not world.state.exists
    assert world.join("b", "t").member_epoch == 1


def test_a_pattern_without_a_member_goes_with_the_group() -> None:
    group = ConsumerGroup(GROUP, ConsumerGroupSettings())
    group.replay(ConsumerGroupMetadata(GROUP, GroupEpoch(1, 0)))
    left_over = ResolvedRegex(frozenset({"t"}), 1, 1)
    group.replay(ConsumerGroupRegularExpression(GROUP, "t", left_over))
    group.delete()
    assert list(group.live_records()) == []


def test_a_group_that_never_was_has_nothing_to_delete() -> None:
    group = ConsumerGroup(GROUP, ConsumerGroupSettings())
    group.delete()
    assert group.take_records() == []
