"""The life of classic members: each test is a rule of Kafka's group coordinator."""

import pytest

from corelane.groups.coordinator import GROUP_ID_BYTES_MAX
from corelane.groups.rebalancing import CROWD_MS_MAX, CROWD_QUIET_MS
from corelane.groups.requests import DeleteGroup, Identity, Simple, Sync
from corelane.model.errors import ErrorCode
from tests.unit.groups.classic_bench import (
    DELAY_MS,
    GROUP,
    REBALANCE_MS,
    SESSION_MS,
    Bench,
)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_first_member_waits_for_others_to_come(bench: Bench) -> None:
    """Quirk 16: group.initial.rebalance.delay.ms."""
    first = bench.join()
    bench.pass_ms(DELAY_MS - 1)
    assert first not in bench.answers
    bench.pass_ms(1)
    assert bench.joined(first).generation_id == 1


def test_each_one_that_comes_meanwhile_is_waited_for_once_more(bench: Bench) -> None:
    first = bench.join()
    bench.pass_ms(DELAY_MS - 1)
    second = bench.join()
    bench.pass_ms(DELAY_MS)
    assert first not in bench.answers
    bench.pass_ms(1)
    assert bench.joined(first).generation_id == bench.joined(second).generation_id == 1


def test_the_wait_ends_with_the_rebalance_timeout(bench: Bench) -> None:
    first = bench.join()
    for _ in range(REBALANCE_MS // 2_000):
        bench.pass_ms(2_000)
        if first in bench.answers:
            break
        bench.join()
    assert bench.now_ms <= 1_000 + REBALANCE_MS
    assert first in bench.answers


def test_without_a_delay_the_first_member_is_answered_at_once() -> None:
    bench = Bench(delay_ms=0)
    assert bench.joined(bench.join()).error is ErrorCode.NONE


def test_one_more_member_is_not_kept_waiting_for_yet_others() -> None:
    bench = Bench(delay_ms=0)
    first = bench.joined(bench.join())
    second = bench.join()
    bench.join(first.member_id)
    assert bench.joined(second).generation_id == 2


def test_where_several_come_at_once_the_others_are_waited_for() -> None:
    """Those sent back from a generation without them would lose a second, and up to two."""
    bench = Bench(delay_ms=0)
    first = bench.joined(bench.join())
    tokens = [bench.join(), bench.join()]
    tokens.append(bench.join(first.member_id))
    bench.pass_ms(CROWD_QUIET_MS - 1)
    tokens.append(bench.join())
    bench.pass_ms(CROWD_QUIET_MS - 1)
    assert not bench.answers.keys() & {*tokens}
    bench.pass_ms(1)
    assert {bench.joined(token).generation_id for token in tokens} == {2}


def test_a_crowd_that_never_ends_is_not_waited_for_longer() -> None:
    bench = Bench(delay_ms=0)
    first = bench.joined(bench.join())
    began_ms = bench.now_ms
    tokens = [bench.join(), bench.join(), bench.join(first.member_id)]
    while tokens[0] not in bench.answers:
        assert bench.now_ms < began_ms + CROWD_MS_MAX
        bench.pass_ms(CROWD_QUIET_MS - 1)
        tokens.append(bench.join())
    assert bench.now_ms >= began_ms + CROWD_MS_MAX - CROWD_QUIET_MS
    assert bench.joined(tokens[0]).generation_id == 2


def test_only_the_leader_is_told_of_the_others(bench: Bench) -> None:
    """Quirk 18."""
    leader, follower = bench.stable()
    assert [member for member, _instance, _data in leader.members] == ["m1", "m2"]
    assert follower.members == ()
    assert leader.leader == follower.leader == "m1"


def test_what_the_leader_says_is_what_each_one_reads(bench: Bench) -> None:
    first, second = bench.join(), bench.join()
    bench.pass_ms(2 * DELAY_MS)
    leader, follower = bench.joined(first), bench.joined(second)
    waiting = bench.sync(follower)
    assert waiting not in bench.answers
    own = bench.sync(leader, {"m1": b"zero", "m2": b"one"})
    assert bench.synced(own).assignment == b"zero"
    assert bench.synced(waiting).assignment == b"one"


def test_who_asks_again_is_told_the_same(bench: Bench) -> None:
    _leader, follower = bench.stable()
    assert bench.synced(bench.sync(follower)).assignment == b"m2"


def test_a_new_member_must_come_again_with_the_id_it_was_given(bench: Bench) -> None:
    """Quirk 15 (KIP-394)."""
    refused = bench.joined(bench.join(version=4))
    assert refused.error is ErrorCode.MEMBER_ID_REQUIRED
    token = bench.join(refused.member_id, version=4)
    bench.pass_ms(DELAY_MS)
    assert bench.joined(token).member_id == refused.member_id


def test_an_id_that_was_given_out_and_not_used_is_forgotten(bench: Bench) -> None:
    refused = bench.joined(bench.join(version=4))
    bench.pass_ms(SESSION_MS)
    again = bench.joined(bench.join(refused.member_id, version=4))
    assert again.error is ErrorCode.UNKNOWN_MEMBER_ID
    assert not bench.coordinator.groups, "a group nobody joined is none"


def test_an_id_that_nobody_gave_out_is_unknown(bench: Bench) -> None:
    assert bench.joined(bench.join("mine")).error is ErrorCode.UNKNOWN_MEMBER_ID
    bench.stable()
    assert bench.joined(bench.join("mine")).error is ErrorCode.UNKNOWN_MEMBER_ID


def test_another_member_begins_a_rebalance_that_heartbeats_tell_of(bench: Bench) -> None:
    leader, follower = bench.stable()
    bench.join()
    assert bench.beat(leader) is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.beat(follower) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_rebalance_ends_when_everybody_has_joined_again(bench: Bench) -> None:
    leader, follower = bench.stable()
    third = bench.join()
    bench.join(leader.member_id)
    assert third not in bench.answers
    bench.join(follower.member_id)
    assert bench.joined(third).generation_id == 2


def test_who_does_not_join_again_in_time_is_left_behind(bench: Bench) -> None:
    leader, follower = bench.stable()
    third = bench.join()
    bench.join(leader.member_id)
    for _ in range(REBALANCE_MS // 5_000):
        bench.pass_ms(5_000)
        bench.beat(follower)
    assert [member for member, *_ in bench.joined(third).members or ()] == []
    assert bench.coordinator.groups[GROUP].members.keys() == {"m1", "m3"}
    assert bench.beat(follower) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_silent_member_is_taken_for_dead_and_the_others_rebalance(bench: Bench) -> None:
    leader, follower = bench.stable()
    bench.pass_ms(SESSION_MS - 1)
    assert bench.beat(leader) is ErrorCode.NONE
    bench.pass_ms(1)
    assert bench.beat(leader) is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.beat(follower) is ErrorCode.UNKNOWN_MEMBER_ID


def test_heartbeats_keep_a_member_alive(bench: Bench) -> None:
    leader, follower = bench.stable()
    for _ in range(20):
        bench.pass_ms(SESSION_MS - 1)
        assert bench.beat(leader) is bench.beat(follower) is ErrorCode.NONE


def test_who_leaves_is_gone_at_once(bench: Bench) -> None:
    leader, follower = bench.stable()
    assert bench.leave((follower.member_id, None)) == [ErrorCode.NONE]
    assert bench.beat(leader) is ErrorCode.REBALANCE_IN_PROGRESS
    again = bench.joined(bench.join(leader.member_id))
    assert again.generation_id == 2
    assert len(again.members) == 1


def test_when_the_last_one_leaves_the_group_is_empty(bench: Bench) -> None:
    bench.stable()
    assert bench.leave(("m1", None), ("m2", None), ("nobody", None)) == [
        ErrorCode.NONE, ErrorCode.NONE, ErrorCode.UNKNOWN_MEMBER_ID,
    ]  # fmt: skip
    described = bench.coordinator.describe(GROUP)
    assert (described.state, described.members) == ("Empty", ())
    assert bench.coordinator.groups[GROUP].generation_id == 2


def test_an_old_generation_is_told_so(bench: Bench) -> None:
    leader, follower = bench.stable()
    bench.leave((follower.member_id, None))
    bench.join(leader.member_id)
    assert bench.beat(leader) is ErrorCode.ILLEGAL_GENERATION
    assert bench.synced(bench.sync(leader)).error is ErrorCode.ILLEGAL_GENERATION


def test_a_leader_that_joins_again_asks_for_a_rebalance(bench: Bench) -> None:
    leader, follower = bench.stable()
    waiting = bench.join(leader.member_id)
    assert waiting not in bench.answers
    assert bench.beat(follower) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_follower_that_joins_again_unchanged_is_told_what_is(bench: Bench) -> None:
    _leader, follower = bench.stable()
    again = bench.joined(bench.join(follower.member_id))
    assert (again.generation_id, again.members) == (1, ())


def test_a_follower_with_another_subscription_begins_a_rebalance(bench: Bench) -> None:
    leader, follower = bench.stable()
    bench.join(follower.member_id, protocols=(("range", b"other"),))
    assert bench.beat(leader) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_rebalance_breaks_off_the_assigning(bench: Bench) -> None:
    first, second = bench.join(), bench.join()
    bench.pass_ms(2 * DELAY_MS)
    waiting = bench.sync(bench.joined(second))
    bench.join()
    assert bench.synced(waiting).error is ErrorCode.REBALANCE_IN_PROGRESS
    late = bench.sync(bench.joined(first), {})
    assert bench.synced(late).error is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_leader_that_never_assigns_is_left_behind(bench: Bench) -> None:
    first, second = bench.join(), bench.join()
    bench.pass_ms(2 * DELAY_MS)
    waiting = bench.sync(bench.joined(second))
    for _ in range(REBALANCE_MS // 5_000):
        bench.pass_ms(5_000)
        bench.beat(bench.joined(first))
    assert bench.synced(waiting).error is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.joined(bench.join("m2")).leader == "m2"


# --- protocols ---


def test_the_protocol_is_one_that_all_support_and_most_like_best(bench: Bench) -> None:
    """Quirk 18."""
    wishes = [("a", "b"), ("b", "a"), ("b", "a", "c")]
    tokens = [bench.join(protocols=tuple((name, b"") for name in wish)) for wish in wishes]
    bench.pass_ms(2 * DELAY_MS)
    assert {bench.joined(token).protocol for token in tokens} == {"b"}


@pytest.mark.parametrize(
    ("kind", "names"), [("consumer", ("other",)), ("connect", ("range",)), ("consumer", ())]
)
def test_who_has_nothing_in_common_is_refused(
    bench: Bench, kind: str, names: tuple[str, ...]
) -> None:
    bench.stable()
    token = bench.join(kind=kind, protocols=tuple((name, b"") for name in names))
    assert bench.joined(token).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_a_group_without_a_protocol_is_none(bench: Bench) -> None:
    assert bench.joined(bench.join(protocols=())).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert not bench.coordinator.groups


def test_other_types_than_consumer_are_opaque(bench: Bench) -> None:
    leader, _follower = bench.stable(kind="connect", protocols=(("v2", b"\xff\x00"),))
    assert leader.protocol_type == "connect"
    assert leader.members[0][2] == b"\xff\x00"


def test_a_sync_that_means_another_protocol_is_refused(bench: Bench) -> None:
    leader, _follower = bench.stable()
    identity = Identity(GROUP, leader.generation_id, leader.member_id, None)
    for kind, name in (("connect", "range"), ("consumer", "sticky")):
        token = bench.ask(Sync(identity, kind, name, ()))
        assert bench.synced(token).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL


# --- static members (KIP-345), quirk 17 ---


def static_group(bench: Bench) -> list[str]:
    """Make a stable group of the instances a and b; return their ids, the leader's first."""
    tokens = [bench.join(instance=name) for name in ("a", "b")]
    bench.pass_ms(2 * DELAY_MS)
    members = [bench.joined(token) for token in tokens]
    bench.assign(members)
    return [each.member_id for each in members]


def test_an_instance_that_comes_back_takes_its_place_without_a_rebalance(bench: Bench) -> None:
    leader, follower = static_group(bench)
    back = bench.joined(bench.join(instance="b", version=9))
    assert (back.error, back.generation_id) == (ErrorCode.NONE, 1)
    assert back.member_id != follower
    assert back.leader == leader
    assert not back.skip_assignment
    assert bench.synced(bench.sync(back)).assignment == follower.encode()


def test_its_former_life_is_fenced(bench: Bench) -> None:
    static_group(bench)
    former = bench.joined(2)
    bench.join(instance="b")
    assert bench.beat(former, "b") is ErrorCode.FENCED_INSTANCE_ID
    assert bench.leave((former.member_id, "b")) == [ErrorCode.FENCED_INSTANCE_ID]


def test_a_leader_that_comes_back_need_not_assign_again(bench: Bench) -> None:
    static_group(bench)
    back = bench.joined(bench.join(instance="a", version=9))
    assert back.skip_assignment
    assert back.leader == back.member_id
    assert len(back.members) == 2


def test_an_old_client_that_leads_is_told_another_does(bench: Bench) -> None:
    leader, _follower = static_group(bench)
    back = bench.joined(bench.join(instance="a", version=5))
    assert back.leader == leader != back.member_id
    assert back.members == ()


def test_one_that_comes_back_with_another_subscription_begins_a_rebalance(bench: Bench) -> None:
    static_group(bench)
    waiting = bench.join(instance="b", protocols=(("range", b"other"),))
    assert waiting not in bench.answers
    assert bench.beat(bench.joined(1), "a") is ErrorCode.REBALANCE_IN_PROGRESS


def test_an_instance_leaves_by_its_name(bench: Bench) -> None:
    static_group(bench)
    assert bench.leave(("", "b"), ("", "nobody")) == [
        ErrorCode.NONE, ErrorCode.UNKNOWN_MEMBER_ID,
    ]  # fmt: skip
    assert bench.coordinator.groups[GROUP].instances.keys() == {"a"}


def test_an_instance_is_waited_for_until_its_session_ends(bench: Bench) -> None:
    """It is not left behind by a rebalance, as others are."""
    static_group(bench)
    former = bench.joined(1)
    third = bench.join()
    bench.join(former.member_id, instance="a")
    bench.pass_ms(SESSION_MS - 1)
    assert third not in bench.answers
    bench.pass_ms(REBALANCE_MS)
    assert third in bench.answers


def test_places_of_instances_survive_another_coordinator(bench: Bench) -> None:
    _leader, follower = static_group(bench)
    bench.restart()
    back = bench.joined(bench.join(instance="b"))
    assert back.generation_id == 1
    assert bench.synced(bench.sync(back)).assignment == follower.encode()


# --- limits and bad input ---


@pytest.mark.parametrize("session_ms", [0, -1, 5_999, 1_800_001])
def test_a_session_is_bounded(bench: Bench, session_ms: int) -> None:
    token = bench.join(session_ms=session_ms)
    assert bench.joined(token).error is ErrorCode.INVALID_SESSION_TIMEOUT


@pytest.mark.parametrize("group", ["", "g" * (GROUP_ID_BYTES_MAX + 1), "g" * 65_536])
def test_a_group_has_a_name_of_some_length(bench: Bench, group: str) -> None:
    assert bench.joined(bench.join(group=group)).error is ErrorCode.INVALID_GROUP_ID
    deleted = bench.answers[bench.ask(DeleteGroup(group))]
    unknown = ErrorCode.INVALID_GROUP_ID if group else ErrorCode.GROUP_ID_NOT_FOUND
    assert deleted == Simple(unknown), "offsets may be kept under the empty name"


def test_a_group_has_at_most_so_many_members() -> None:
    bench = Bench(members_max=2, delay_ms=0)
    first = bench.joined(bench.join())
    bench.join()
    assert bench.joined(bench.join()).error is ErrorCode.GROUP_MAX_SIZE_REACHED
    bench.join(first.member_id)
    assert bench.coordinator.groups[GROUP].generation_id == 2


def test_nobody_is_a_member_of_a_group_that_is_not_there(bench: Bench) -> None:
    bench.stable()
    identity = Identity("other", 1, "m1", None)
    token = bench.ask(Sync(identity, None, None, ()))
    assert bench.synced(token).error is ErrorCode.UNKNOWN_MEMBER_ID


# --- another coordinator ---


def test_members_go_on_where_they_were(bench: Bench) -> None:
    leader, follower = bench.stable()
    bench.restart()
    assert bench.beat(leader) is bench.beat(follower) is ErrorCode.NONE
    assert bench.synced(bench.sync(follower)).assignment == b"m2"


def test_everybody_has_a_whole_session_again(bench: Bench) -> None:
    leader, _follower = bench.stable()
    bench.pass_ms(SESSION_MS - 1)
    bench.restart()
    bench.pass_ms(SESSION_MS - 1)
    assert bench.beat(leader) is ErrorCode.NONE
    bench.pass_ms(1)
    assert bench.beat(leader) is ErrorCode.REBALANCE_IN_PROGRESS


def test_who_was_about_to_join_must_join_again(bench: Bench) -> None:
    leader, _follower = bench.stable()
    third = bench.join()
    bench.restart()
    assert third not in bench.answers
    assert bench.beat(leader) is ErrorCode.NONE, "the generation before is the last that counts"
