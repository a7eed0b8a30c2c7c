"""How members come to their targets one by one, no partition with two of them (KIP-848)."""

from hypothesis import given
from hypothesis import strategies as st

from corelane.groups.consumer_reconcile import Goal, next_assignment
from corelane.groups.consumer_records import (
    NOTHING,
    ConsumerGroupCurrentMember,
    ConsumerGroupTargetMember,
    CurrentAssignment,
    MemberState,
    Partitions,
)
from corelane.groups.consumer_state import ConsumerState
from corelane.groups.consumer_timers import Timer, Timers
from corelane.model.errors import ErrorCode
from tests.unit.groups.consumer_world import World, heartbeat, some


def test_a_partition_is_given_only_when_its_owner_has_given_it_back() -> None:
    world = World({"t": 2})
    world.join("a", "t")
    answer = world.join("b", "t")
    assert answer.assignment == NOTHING, "a has both, and does not know of b yet"
    assert answer.member_epoch == 2
    assert world.current("b").state is MemberState.UNRELEASED_PARTITIONS
    assert world.group.state_name == "Reconciling"

    answer = world.beat("a")
    assert answer.assignment == some("t", 0), "told to give partition 1 back"
    assert answer.member_epoch == 1, "and is held at its epoch until it has"
    assert world.current("a").state is MemberState.UNREVOKED_PARTITIONS
    assert world.beat("b").assignment is None

    assert world.beat("a").assignment is None, "it says nothing: it may still be committing"
    assert world.beat("a", owned=some("t", 0, 1)).member_epoch == 1, "it says it has both"
    assert world.beat("b").assignment is None

    answer = world.beat("a", owned=some("t", 0))
    assert answer.member_epoch == 2
    assert answer.assignment is None, "nothing new in it"
    assert world.beat("b").assignment == some("t", 1)
    assert world.group.state_name == "Stable"


def test_a_client_that_owns_nothing_of_what_it_loses_need_not_be_asked() -> None:
    world = World({"t": 2})
    world.join("a", "t")
    world.join("b", "t")
    answer = world.beat("a", owned=some("t", 0))
    assert answer.member_epoch == 2
    assert answer.assignment == some("t", 0)
    assert world.beat("b").assignment == some("t", 1)


def test_members_go_on_while_another_is_slow() -> None:
    """No barrier: this is what the new protocol is for."""
    world = World({"t": 6})
    world.join("a", "t")
    world.join("b", "t")
    world.beat("a")
    world.beat("a", owned=world.current("a").assigned)
    world.beat("b")
    world.join("c", "t")
    world.beat("a")  # is asked for a partition and never answers
    world.beat("b")
    world.beat("b", owned=world.current("b").assigned)
    assert world.epoch("b") == 3
    assert world.beat("c").assignment is not None
    assert len(world.current("c").assigned) == 1, "that of b, not yet that of a"
    assert world.epoch("a") == 2


def test_a_target_that_moves_on_is_followed_from_where_the_member_is() -> None:
    world = World({"t": 4})
    world.join("a", "t")
    world.join("b", "t")
    world.beat("a")
    assert world.current("a").revoking == some("t", 2, 3)
    world.say(heartbeat("b", -1))
    answer = world.beat("a", owned=some("t", 0, 1))
    assert answer.assignment == some("t", 0, 1, 2, 3), "what it has just given back comes again"
    assert world.epoch("a") == 3


def test_who_does_not_give_back_within_its_rebalance_timeout_is_out() -> None:
    world = World({"t": 2})
    world.join("a", "t", rebalance_timeout_ms=20_000)
    world.join("b", "t")
    world.beat("a")
    for _ in range(4):
        world.wait(4_999)
        world.beat("a")  # alive, but not giving back
        world.beat("b")
    world.wait(3)
    assert "a" in world.state.members
    world.wait(1)
    assert set(world.state.members) == {"b"}
    assert world.refused(heartbeat("a", 1)) is ErrorCode.UNKNOWN_MEMBER_ID
    assert world.beat("b").assignment == some("t", 0, 1)


def test_who_has_given_back_is_not_timed_any_more() -> None:
    world = World({"t": 2})
    world.join("a", "t", rebalance_timeout_ms=20_000)
    world.join("b", "t")
    world.beat("a")
    world.beat("a", owned=some("t", 0))
    for _ in range(3):
        world.wait(10_000)
        world.beat("a")
        world.beat("b")
    assert set(world.state.members) == {"a", "b"}


def test_who_leaves_takes_its_deadlines_along() -> None:
    world = World({"t": 2})
    world.join("a", "t", rebalance_timeout_ms=20_000)
    world.join("b", "t")
    world.beat("a")
    assert len(world.group.timers._deadlines) == 3
    world.say(heartbeat("a", -1))
    assert list(world.group.timers._deadlines) == [(Timer.SESSION, "b")]


def test_only_targets_that_are_others_are_written_again() -> None:
    world = World({"t": 3, "u": 1})
    world.join("a", "t")
    world.join("b", "u")
    written = [r.member_id for r in world.batch if isinstance(r, ConsumerGroupTargetMember)]
    assert written == ["b"]


def test_after_a_failover_the_time_to_give_back_starts_again() -> None:
    world = World({"t": 2})
    world.join("a", "t", rebalance_timeout_ms=20_000)
    world.join("b", "t")
    world.beat("a")
    world.wait(15_000)
    world.fail_over()
    world.wait(19_999)
    assert "a" in world.state.members
    world.wait(1)
    assert set(world.state.members) == {"b"}


def test_a_new_subscription_is_a_new_epoch_and_is_followed_at_once() -> None:
    world = World({"t": 1, "u": 1})
    world.join("a", "t")
    answer = world.beat("a", topic_names=("u",), owned=NOTHING)
    assert world.state.epoch == 2
    assert answer.assignment == some("u", 0)
    world.beat("a", topic_names=("u", "u"))
    assert world.state.epoch == 2, "the same topics, said again"


def test_saying_other_things_again_is_recorded_and_is_no_new_epoch() -> None:
    world = World({"t": 1})
    world.join("a", "t")
    world.beat("a", rack_id="r", rebalance_timeout_ms=5_000)
    assert len(world.batch) == 1
    assert world.state.members["a"].rack_id == "r"
    assert world.state.members["a"].rebalance_timeout_ms == 5_000
    assert world.state.epoch == 1


def test_the_assignor_most_members_ask_for_decides() -> None:
    world = World({"t": 4, "u": 4})
    world.join("a", "t", "u")
    assert world.group.assignor_name == "uniform"
    world.join("b", "t", "u", server_assignor="range")
    assert world.group.assignor_name == "range"
    world.beat("a", server_assignor="uniform")
    assert world.group.assignor_name == "uniform", "one vote each: the first of the settings"
    world.join("c", "t", "u", server_assignor="range")
    assert world.state.targets["a"] == some("t", 0, 1) | some("u", 0, 1)


def test_another_vote_for_an_assignor_is_a_new_epoch() -> None:
    world = World({"t": 2, "u": 2})
    world.join("a", "t", "u")
    world.beat("a", server_assignor="range")
    assert world.state.epoch == 2


def test_a_stable_member_behind_the_epoch_is_still_reconciling() -> None:
    world = World({"t": 1})
    world.join("a", "t")
    world.join("b", "t")
    assert {world.current(name).state for name in "ab"} == {MemberState.STABLE}
    assert world.group.state_name == "Reconciling"
    assert world.beat("a").member_epoch == 2
    assert world.group.state_name == "Stable"


def test_what_an_earlier_owner_says_takes_nothing_from_the_later_one() -> None:
    """C2: if a log ever says that two have a partition, the later record counts."""
    state = ConsumerState("g")
    has = CurrentAssignment(1, 0, MemberState.STABLE, some("t", 0), NOTHING)
    state.apply(ConsumerGroupCurrentMember("g", "a", has))
    state.apply(ConsumerGroupCurrentMember("g", "b", has))
    state.apply(ConsumerGroupCurrentMember("g", "a", None))
    assert set(state.owners.values()) == {"b"}


ALL: Partitions = some("t", 0, 1, 2) | some("u", 0, 1)
subsets = st.frozensets(st.sampled_from(sorted(ALL)))


@given(
    st.sampled_from([MemberState.STABLE, MemberState.UNREVOKED_PARTITIONS]),
    st.tuples(subsets, subsets, subsets, subsets),
    st.none() | subsets,
    st.booleans(),
)
def test_nothing_is_taken_or_given_that_is_not_free(
    state: MemberState,
    sets: tuple[Partitions, Partitions, Partitions, Partitions],
    owned: Partitions | None,
    behind: bool,
) -> None:
    mine, revoking, others, target = sets
    assigned = mine - revoking
    revoking = revoking if state is MemberState.UNREVOKED_PARTITIONS else NOTHING
    others -= assigned | revoking
    current = CurrentAssignment(4 if behind else 5, 3, state, assigned, revoking)
    after = next_assignment(current, Goal(5, target, owned), others.__contains__)

    held_before = assigned | revoking
    held_after = after.assigned | after.revoking
    assert not held_after & others
    assert not after.assigned & after.revoking
    for partition in held_before - held_after:
        assert owned is not None, "given away without a word of the client"
        assert partition not in owned, "given away while the client has it"
    assert after.member_epoch >= current.member_epoch
    if after.member_epoch > current.member_epoch:
        assert after.previous_epoch == current.member_epoch
        assert after.assigned <= target
    if after.state is MemberState.STABLE and after != current:
        assert (after.assigned, after.member_epoch) == (target, 5)
    if after.state is MemberState.UNRELEASED_PARTITIONS:
        assert target - after.assigned <= others
        assert target - after.assigned


def test_a_deadline_that_moves_costs_no_entry_of_its_own() -> None:
    timers = Timers()
    for now_ms in range(1000):
        timers.arm(Timer.SESSION, "a", now_ms + 100)
    assert len(timers._heap) == 1
    assert timers.next_deadline_ms == 100
    assert timers.due(500) == []
    assert timers.next_deadline_ms == 1099
    assert timers.due(1098) == []
    assert timers.due(1099) == [(Timer.SESSION, "a")]
    assert timers.next_deadline_ms is None


def test_a_deadline_that_moves_forward_is_not_late() -> None:
    timers = Timers()
    timers.arm(Timer.REBALANCE, "a", 100)
    timers.disarm(Timer.REBALANCE, "a")
    timers.arm(Timer.REBALANCE, "a", 50)
    assert timers.due(50) == [(Timer.REBALANCE, "a")]
    assert timers.due(200) == []
    assert timers.next_deadline_ms is None
