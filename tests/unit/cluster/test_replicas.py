"""A change of replicas, step by step, and what a client is refused: pure."""

import pytest

from corelane.cluster.changes import Refused, ReplicasChanged
from corelane.cluster.commands import (
    CreateTopic,
    DecommissionNode,
    DirectoryLost,
    DrainNode,
    Endpoint,
    FillNode,
    NodeForgotten,
    NodeRegistered,
    Reassign,
    ReassignmentStep,
)
from corelane.cluster.creation import Refusal
from corelane.cluster.metadata import Cluster
from corelane.cluster.node_states import ASKED, JOINED
from corelane.cluster.reassigning import plan_reassignment
from corelane.cluster.replicas import (
    ANY_CORE,
    PartitionPlan,
    Place,
    asked,
    cancelled,
    done,
    switches,
)
from corelane.model.errors import ErrorCode
from corelane.model.ids import BrokerId, GroupId, Index, MemberId, NodeId, TopicId, member_id

GROUP = GroupId(7)
TOPIC = TopicId(b"t" * 16)


def nodes(*numbers: int) -> tuple[NodeId, ...]:
    return tuple(map(NodeId, numbers))


def places(*numbers: int) -> tuple[Place, ...]:
    return tuple(Place(NodeId(number)) for number in numbers)


def never(group: GroupId, member: MemberId) -> bool:
    return False


PLAN = PartitionPlan(GROUP, nodes(1, 2, 3))


def test_a_new_member_has_the_index_of_the_command_as_its_incarnation() -> None:
    plan = asked(PLAN, Index(40), places(4, 2, 3), never)
    assert plan.change is not None
    assert plan.change.members == (member_id(NodeId(4), 40), *PLAN.members[1:])
    assert (plan.adding, plan.removing) == (nodes(4), nodes(1))
    assert plan.nodes == nodes(4, 2, 3, 1), "those that stay or come first, as Kafka shows them"
    assert plan.replicas == nodes(1, 2, 3), "nothing has changed yet"


def test_a_change_that_is_done_keeps_who_founded_the_group() -> None:
    plan = asked(PLAN, Index(40), places(4, 2), never)
    switched = switches(plan, Index(40))
    assert switched is not None
    after = done(switched, Index(40), Index(42), never)
    assert after == PartitionPlan(GROUP, nodes(4, 2), (40, 0), nodes(1, 2, 3))
    again = asked(after, Index(50), places(1, 2), never)
    assert again.change is not None
    assert again.change.members == (member_id(NodeId(1), 50), member_id(NodeId(2), 0))


def test_a_step_of_an_earlier_change_does_nothing() -> None:
    plan = asked(PLAN, Index(40), places(4, 2, 3), never)
    later = asked(plan, Index(41), places(5, 2, 3), never)
    assert switches(later, Index(40)) is None
    assert done(later, Index(40), Index(42), never) is None
    assert done(PLAN, Index(40), Index(42), never) is None


def test_a_learner_that_is_wanted_still_stays_the_same_member() -> None:
    plan = asked(PLAN, Index(40), places(4, 2, 3), never)
    later = asked(plan, Index(41), places(2, 4), never)
    assert later.change is not None
    assert later.change.members == (PLAN.members[1], member_id(NodeId(4), 40))


def test_called_off_before_it_switches_it_goes_back() -> None:
    plan = cancelled(asked(PLAN, Index(40), places(4, 2, 3), never), Index(41))
    assert plan.change is not None
    assert plan.change.members == PLAN.members
    assert not plan.adding
    assert not plan.removing
    after = done(plan, Index(41), Index(43), never)
    assert after is not None
    assert after.members == PLAN.members


def test_called_off_while_it_switches_the_former_replicas_come_as_new_ones() -> None:
    """Who has left never comes back under its id (E1, E2)."""
    plan = switches(asked(PLAN, Index(40), places(4, 2, 3), never), Index(40))
    assert plan is not None
    plan = cancelled(plan, Index(41))
    after = done(plan, Index(40), Index(44), never)
    assert after is not None
    assert after.replicas == nodes(4, 2, 3)
    assert after.change is not None
    assert after.change.members == (member_id(NodeId(1), 44), *PLAN.members[1:])


def cluster() -> Cluster:
    """Three nodes of two cores, and a topic on the first two of them."""
    made = Cluster()
    for number in (1, 2, 3):
        ends = tuple(Endpoint("PLAINTEXT", "h", 9092 + core, core) for core in (0, 1))
        node = NodeRegistered(NodeId(number), "", 2, ends, "h", 9192, f"d{number}")
        made.apply(Index(number), node)
    made.apply(Index(4), CreateTopic("t", TOPIC, (PartitionPlan(GROUP, nodes(1, 2)),), {}))
    return made


def test_a_fold_remembers_what_is_being_changed() -> None:
    made = cluster()
    (change,) = made.apply(Index(5), Reassign(TOPIC, ((0, places(3, 2)),)))
    assert isinstance(change, ReplicasChanged)
    assert [*made.changing] == [GROUP]
    again = Cluster.decode(made.encode())
    assert again == made
    assert [*again.changing] == [GROUP]
    for step, is_done in ((6, False), (7, True)):
        made.apply(Index(step), ReassignmentStep(GROUP, Index(5), is_done))
    assert not made.changing
    assert made.topics["t"].partitions[0].replicas == nodes(3, 2)


def test_what_a_lost_directory_had_is_lost_and_made_anew() -> None:
    """Of groups made later, and members made later, nothing is."""
    made = cluster()
    made.apply(Index(5), DirectoryLost(NodeId(2), "d2"))
    later = GroupId(8)
    plans = (PartitionPlan(later, nodes(2, 3)),)
    made.apply(Index(6), CreateTopic("later", TopicId(b"l" * 16), plans, {}))
    plan = made.topics["t"].partitions[0]
    assert made.member_on(plan, NodeId(2)) is None
    assert made.member_on(plan, NodeId(1)) == member_id(NodeId(1), 0)
    assert made.member_on(plans[0], NodeId(2)) == member_id(NodeId(2), 0)
    made.apply(Index(7), Reassign(TOPIC, ((0, places(1, 2)),)))
    assert made.member_on(made.topics["t"].partitions[0], NodeId(2)) == member_id(NodeId(2), 7)
    (refused,) = made.apply(Index(8), NodeRegistered(NodeId(2), "", 2, (), "h", 9192, "d2"))
    assert isinstance(refused, Refused)
    assert "declared lost" in refused.sentence
    (late,) = made.apply(Index(10), DirectoryLost(NodeId(2), "d2"))
    assert isinstance(late, Refused)
    (taken,) = made.apply(Index(11), NodeRegistered(NodeId(2), "", 2, (), "h", 9192, "new"))
    assert not isinstance(taken, Refused)


def test_what_is_wanted_of_nodes_is_kept_in_the_fold_and_its_bytes() -> None:
    """Found with real nodes: a life, read in the place of a node, kept a node from starting."""
    made = cluster()
    made.apply(Index(5), DrainNode(NodeId(2), 1_796_061_570_801))
    made.apply(Index(6), DecommissionNode(NodeId(3), is_wanted=True))
    made.apply(Index(7), DirectoryLost(NodeId(1), "d1"))
    again = Cluster.decode(made.encode())
    assert again.states.drained == {2: 1_796_061_570_801}
    assert again.states.leaving == {3: 6}
    assert again.states.losses == made.states.losses
    assert made.states.difference(again.states) == []
    made.apply(Index(8), DrainNode(NodeId(2), 0))
    made.apply(Index(9), DecommissionNode(NodeId(3), is_wanted=False))
    assert again.states.difference(made.states) == [2, 3]


def test_a_node_that_joins_a_cluster_with_topics_is_to_be_filled() -> None:
    made = cluster()
    assert made.states.filling == {}, "the first ones came before there was anything"
    made.apply(Index(5), NodeRegistered(NodeId(4), "", 2, (), "h", 9192, "d4"))
    made.apply(Index(6), FillNode(NodeId(2), is_wanted=True))
    assert made.states.filling == {4: JOINED, 2: ASKED}
    again = Cluster.decode(made.encode())
    assert again.states.filling == made.states.filling
    made.apply(Index(7), NodeRegistered(NodeId(4), "", 3, (), "h", 9192, "d4"))
    made.apply(Index(8), FillNode(NodeId(4), is_wanted=False))
    assert made.states.filling == {2: ASKED}
    assert again.states.difference(made.states) == [4]


def test_a_node_with_replicas_is_not_forgotten() -> None:
    made = cluster()
    (refused,) = made.apply(Index(5), NodeForgotten(NodeId(2)))
    assert isinstance(refused, Refused)
    assert "t-0" in refused.sentence
    (gone,) = made.apply(Index(6), NodeForgotten(NodeId(3)))
    assert not isinstance(gone, Refused)
    assert NodeId(3) not in made.nodes
    (refused,) = made.apply(Index(7), NodeRegistered(NodeId(3), "", 2, (), "h", 9192, "d3"))
    assert isinstance(refused, Refused), "its members have left, and never come back"


@pytest.mark.parametrize(
    ("brokers", "error", "words"),
    [
        ([3000, 9000], 39, "no node 9"),
        ([3000, -1], 39, "no broker -1"),
        ([3000, 1002], 39, "node 1 has no such core"),
        ([3000, 3001], 39, "Two replicas would be on node 3"),
        ([], 39, "at least one replica"),
        ([1000, 3000], 39, "decommissioned"),
        ([2000], 39, "no quorum"),
        ([3000], 38, "would change from 2 to 1"),
        (None, 85, "No reassignment"),
    ],
)
def test_what_cannot_be_reassigned_is_refused(
    brokers: list[int] | None, error: int, words: str
) -> None:
    made = cluster()
    made.apply(Index(5), DecommissionNode(NodeId(1), is_wanted=True))
    wanted = None if brokers is None else [BrokerId(each) for each in brokers]
    found = plan_reassignment(
        made,
        made.topics["t"].partitions[0],
        wanted,
        lambda node: node != 2,
        may_resize=False,
    )
    assert isinstance(found, Refusal)
    assert found.error == ErrorCode(error)
    assert words in found.sentence


def test_a_core_may_be_asked_for() -> None:
    found = plan_reassignment(
        cluster(),
        PLAN,
        [BrokerId(3001), BrokerId(2000)],
        lambda node: True,
    )
    assert found == (Place(NodeId(3), 1), Place(NodeId(2), 0))
    plan = asked(PLAN, Index(9), found, never)
    assert [plan.core_on(NodeId(node)) for node in (1, 2, 3)] == [ANY_CORE, 0, 1]
