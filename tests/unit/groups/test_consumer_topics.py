"""What a group does when topics change, what its patterns find, how it describes itself."""

import pytest

from corelane.groups.consumer_records import NOTHING, ConsumerGroupRegularExpression
from corelane.groups.consumer_requests import ConsumerGroupSettings, DescribedTopic
from corelane.groups.subscriptions import metadata_hash
from corelane.model.errors import ErrorCode
from tests.unit.groups.consumer_world import Topics, World, heartbeat, joining, some, topic_id


def test_partitions_that_a_topic_gets_are_assigned_at_the_next_heartbeat() -> None:
    world = World({"t": 1})
    world.join("a", "t")
    world.topics.set("t", 3)
    answer = world.beat("a")
    assert answer.member_epoch == 2
    assert answer.assignment == some("t", 0, 1, 2)


def test_topics_of_others_are_no_new_epoch() -> None:
    world = World({"t": 1})
    world.join("a", "t")
    world.topics.set("u", 3)
    assert world.beat("a").member_epoch == 1
    assert not world.batch


def test_a_topic_may_be_subscribed_to_before_it_is_there() -> None:
    world = World({})
    assert world.join("a", "t").assignment == NOTHING
    world.topics.set("t", 1)
    assert world.beat("a").assignment == some("t", 0)


def test_a_topic_made_again_is_another_topic() -> None:
    world = World({"t": 1})
    world.join("a", "t")
    world.topics.delete("t")
    answer = world.beat("a", owned=some("t", 0))
    assert answer.assignment == NOTHING
    world.topics.set("t", 1)
    answer = world.beat("a", owned=NOTHING)
    assert answer.assignment == frozenset({(topic_id("t", 1), 0)})
    assert world.state.epoch == 3


def test_somebody_else_may_tell_the_group_of_topics() -> None:
    world = World({"t": 1})
    assert not world.group.topics_changed(world.now_ms, world.topics)
    world.join("a", "t")
    assert not world.group.topics_changed(world.now_ms, world.topics)
    world.topics.set("t", 2)
    assert world.group.topics_changed(world.now_ms, world.topics)
    assert world.group.state_name == "Assigning"
    assert not world.group.topics_changed(world.now_ms, world.topics)


def test_topics_that_changed_while_nobody_led_are_seen_by_their_hash() -> None:
    world = World({"t": 1})
    world.join("a", "t")
    world.topics = Topics({"t": 2})  # of another node, which counts revisions by itself
    world.fail_over()
    assert world.beat("a").assignment == some("t", 0, 1)


def test_after_a_failover_the_same_topics_are_no_new_epoch() -> None:
    world = World({"t": 1, "u": 2})
    world.join("a", "t", topic_regex="u+")
    world.topics = Topics({"u": 2, "t": 1})
    world.fail_over()
    assert world.beat("a").member_epoch == 1
    assert not world.batch


def test_a_quiet_heartbeat_does_not_look_at_the_topics() -> None:
    """Or every heartbeat would cost as much as there are topics."""
    world = World({"t": 1})
    world.join("a", "t", topic_regex="t.*")
    world.beat("a")
    asked = world.topics.asked
    world.beat("a")
    assert world.topics.asked == asked


def test_the_hash_differs_with_name_id_and_partitions_and_not_with_the_order() -> None:
    hashes = {
        metadata_hash(["t"], Topics({"t": 1})),
        metadata_hash(["t"], Topics({"t": 2})),
        metadata_hash(["u"], Topics({"u": 1})),
        metadata_hash(["t", "u"], Topics({"t": 1, "u": 1})),
        metadata_hash([], Topics({"t": 1})),
    }
    assert len(hashes) == 5
    assert metadata_hash(["u", "t"], Topics({"t": 1, "u": 1})) in hashes
    assert metadata_hash(["gone"], Topics({})) == 0
    assert all(-(1 << 63) <= number < 1 << 63 for number in hashes)


# Patterns (KIP-848, SubscribedTopicRegex; version 1).


def test_a_pattern_takes_the_topics_whose_whole_name_matches() -> None:
    world = World({"orders": 1, "orders-eu": 1, "my-orders": 1})
    answer = world.join("a", topic_names=None, topic_regex="orders.*")
    assert answer.assignment == some("orders", 0) | some("orders-eu", 0)
    assert world.state.regexes["orders.*"].topic_names == {"orders", "orders-eu"}


def test_names_and_a_pattern_add_up() -> None:
    world = World({"t": 1, "u": 1, "v": 1})
    assert world.join("a", "t", topic_regex="u").assignment == some("t", 0) | some("u", 0)


def test_a_topic_that_comes_is_found_when_the_interval_is_over() -> None:
    world = World({"t1": 1})
    world.join("a", topic_regex="t.*")
    world.topics.set("t2", 1)
    world.wait(9_999)
    assert world.beat("a").assignment is None
    world.wait(1)
    assert world.beat("a").assignment == some("t1", 0) | some("t2", 0)
    assert world.state.epoch == 2
    world.topics.delete("t1")
    world.wait(10_000)
    assert world.beat("a", owned=NOTHING).assignment == some("t2", 0)
    assert world.state.regexes["t.*"].topic_names == {"t2"}


def test_a_deleted_topic_is_noticed_before_the_pattern_is_looked_up_again() -> None:
    world = World({"t1": 1, "t2": 1})
    world.join("a", topic_regex="t.*")
    world.topics.delete("t1")
    assert world.beat("a", owned=NOTHING).assignment == some("t2", 0)


def test_a_pattern_that_nobody_has_any_more_is_forgotten() -> None:
    world = World({"t": 1, "u": 1})
    world.join("a", topic_regex="t")
    assert world.beat("a", topic_regex="u", owned=NOTHING).assignment == some("u", 0)
    assert set(world.state.regexes) == {"u"}
    assert ConsumerGroupRegularExpression("orders", "t", None) in world.batch
    answer = world.beat("a", topic_regex="", owned=NOTHING)
    assert answer.assignment == NOTHING
    assert not world.state.regexes
    assert world.state.members["a"].topic_regex is None


def test_a_pattern_that_another_member_still_has_is_kept() -> None:
    world = World({"t": 1})
    world.join("a", topic_regex="t")
    world.join("b", topic_regex="t")
    world.say(heartbeat("a", -1))
    assert set(world.state.regexes) == {"t"}
    world.say(heartbeat("b", -1))
    assert not world.state.regexes


@pytest.mark.parametrize("regex", ["(", "a**", "(?=x)", r"(a)\1", "(a|b)*a(a|b){20}"])
def test_a_pattern_that_is_no_re2_or_too_much_work_is_refused(regex: str) -> None:
    world = World({"t": 1})
    world.join("a", "t")
    error = world.refused(heartbeat("a", 1, topic_regex=regex))
    assert error is ErrorCode.INVALID_REGULAR_EXPRESSION
    assert not world.group._patterns._compiled


def test_a_group_has_a_bounded_number_of_patterns() -> None:
    world = World({"t": 1})
    for number in range(32):
        world.join(f"m{number}", topic_regex=f"t{number}")
    request = joining("x", topic_regex="another")
    assert world.refused(request) is ErrorCode.INVALID_REGULAR_EXPRESSION
    world.join("x", topic_regex="t0")


def test_offsets_of_subscribed_topics_are_protected() -> None:
    world = World({"t": 1, "u": 1, "v": 1})
    world.join("a", "t", topic_regex="u")
    assert world.group.is_subscribed_to("t")
    assert world.group.is_subscribed_to("u")
    assert not world.group.is_subscribed_to("v")


# Describing.


def test_a_group_describes_its_members_by_topic() -> None:
    world = World({"t": 2, "u": 1})
    world.join("a", "u", "t", rack_id="r", instance_id="i")
    world.join("b", "t")
    world.topics.set("u", 2)
    said = world.group.describe(world.topics)
    assert (said.group_id, said.state, said.assignor_name) == ("orders", "Reconciling", "uniform")
    assert (said.group_epoch, said.assignment_epoch) == (2, 2)
    assert [member.member_id for member in said.members] == ["a", "b"]
    first = said.members[0]
    assert (first.instance_id, first.rack_id, first.member_epoch) == ("i", "r", 1)
    assert first.topic_names == ("t", "u")
    assert first.assignment == [
        DescribedTopic(topic_id("t"), "t", (0, 1)),
        DescribedTopic(topic_id("u"), "u", (0,)),
    ]
    targets = [part.target_assignment for part in said.members]
    assert sum(len(topic.partitions) for target in targets for topic in target) == 3


def test_topics_that_are_gone_are_not_described() -> None:
    world = World({"t": 2, "u": 1})
    world.join("a", "t", "u")
    world.topics.delete("u")
    said = world.group.describe(world.topics)
    assert [topic.topic_name for topic in said.members[0].assignment] == ["t"]


def test_the_settings_name_the_assignors_there_are() -> None:
    world = World({"t": 1}, ConsumerGroupSettings(assignors=("range",)))
    asks = joining("a", "t", server_assignor="uniform")
    assert world.refused(asks) is ErrorCode.UNSUPPORTED_ASSIGNOR
    world.join("a", "t")
    assert world.group.assignor_name == "range"
