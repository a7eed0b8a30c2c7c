"""Nodes that are drained, leave the cluster, or come back with an empty disk: simulated stories."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.shard.events import OperatorRequest
from corelane.storage.news import Lack
from corelane.wire.compiler import Message, message_type
from tests.simulation.cluster import Cluster, SimNode
from tests.simulation.reassigning import plan
from tests.simulation.sim_disk import SimDisk
from tests.simulation.test_cluster_storm import GROUP, produce
from tests.unit.api.world import batch_of, key_of, produce_request

ElectRequest = message_type("ElectLeadersRequest")
ElectTopic = message_type("ElectLeadersRequest.TopicPartitions")
PARTITIONS = 4


def formed(*numbers: int, replicas: int = 3) -> Cluster:
    """Return nodes with a topic on them."""
    made = Cluster(33, numbers=numbers)
    made.form()
    made.create_topic(made.nodes[2], "t", PARTITIONS, replicas)
    for group in range(1, PARTITIONS + 1):
        made.leader(group)
    made.go(1_000)
    return made


def act(cluster: Cluster, action: str, node: int, *, through: int = 1) -> tuple[str, str]:
    """Have an operator do something with a node, and return the error and the sentence."""
    asked = cluster.nodes[through]
    wanted = {"node": str(node), "action": action}
    asked.operated.clear()
    asked.mail.append(OperatorRequest(7, "node", wanted))
    for _ in range(8_000):
        cluster.go(1)
        if asked.operated:
            return asked.operated[0].error, asked.operated[0].sentence
    raise AssertionError("nobody answers the operator")


def led_by(cluster: Cluster, node: int) -> list[int]:
    """Return the partitions' groups that a node leads."""
    return [
        group for group in range(1, PARTITIONS + 1) if cluster.nodes[node] in cluster.leaders(group)
    ]


def elect(cluster: Cluster, kind: int = 0, *, through: int = 1) -> list[Message]:
    """Ask for an election of every partition of the topic."""
    topic = ElectTopic(topic="t", partitions=[*range(PARTITIONS)])
    request = ElectRequest(election_type=kind, topic_partitions=[topic], timeout_ms=5_000)
    answer = cluster.call(cluster.nodes[through], request, 2, conn=90)
    assert answer.error_code == 0
    rows: list[Message] = answer.replica_election_results[0].partition_result
    return rows


def test_a_drained_node_leads_nothing_until_that_is_taken_back() -> None:
    cluster = formed(1, 2, 3)
    assert led_by(cluster, 2)
    assert act(cluster, "drain", 2, through=3) == ("", "")
    cluster.go(2_000)
    assert led_by(cluster, 2) == []
    assert cluster.nodes[2].shard.groups.controller.raft.is_leader is False
    cluster.go(15_000)
    assert led_by(cluster, 2) == [], "leaderships do not go home to a drained node"
    assert act(cluster, "undrain", 2, through=3) == ("", "")
    cluster.go(15_000)
    assert led_by(cluster, 2)


def test_a_drain_ends_with_a_restart_of_the_node() -> None:
    cluster = formed(1, 2, 3)
    assert act(cluster, "drain", 2) == ("", "")
    cluster.go(1_000)
    cluster.kill(2)
    cluster.go(500)
    cluster.revive(2)
    cluster.go(16_000)
    assert not cluster.nodes[1].shard.groups.cluster.states.drained
    assert led_by(cluster, 2)


def rest(cluster: Cluster) -> None:
    """Let nodes turn only when something happens, as real ones do: long waits are cheaper."""
    for node in cluster.nodes.values():
        node.rests = True


def leave(cluster: Cluster, node: int) -> int:
    """Tell a node that it is about to stop; return how much it leads that another could."""
    asked = cluster.nodes[node]
    asked.operated.clear()
    asked.mail.append(OperatorRequest(7, "leave", {}))
    cluster.go(1)
    return int(asked.operated[0].values["left"])


def test_a_node_that_is_to_stop_hands_over_all_it_leads_and_gets_nothing_back() -> None:
    cluster = formed(1, 2, 3)
    rest(cluster)
    cluster.go(12_000)
    led = len(led_by(cluster, 1)) + (cluster.leader(0) is cluster.nodes[1])
    assert led_by(cluster, 1), "it is up for so long that leaderships would come home"
    assert leave(cluster, 1) == led
    cluster.go(500)
    assert leave(cluster, 1) == 0
    assert led_by(cluster, 1) == []
    assert cluster.nodes[1].shard.groups.controller.raft.is_leader is False
    cluster.go(10_000)
    assert led_by(cluster, 1) == [], "others see in its heartbeats that it is about to stop"
    for group in range(PARTITIONS + 1):
        assert cluster.leaders(group), "somebody else leads"


def test_a_node_that_is_to_stop_under_load_hands_over_to_whoever_is_in_sync() -> None:
    cluster = formed(1, 2, 3)
    leader = cluster.leader(GROUP)
    number, others = leader.number, len(led_by(cluster, leader.number)) - 1
    others += cluster.leader(0) is leader
    leader.ask(produce_request("t", batch_of(3)), 9, conn=5)
    assert leave(cluster, number) == others + 1, "also what nobody else has all of yet"
    raft = leader.members[GROUP].raft
    assert not any(raft.is_caught_up(each) for each in raft.configuration.voters)
    cluster.go(500)
    assert led_by(cluster, number) == []
    assert leave(cluster, number) == 0


def test_a_leader_with_a_full_disk_lets_one_lead_that_can_write() -> None:
    cluster = formed(1, 2, 3)
    leader = cluster.leader(GROUP)
    store = leader.shard.store
    store.out_of_space(Lack.SEGMENT)
    cluster.go(500)
    assert led_by(cluster, leader.number) == []
    assert produce(cluster, cluster.leader(GROUP)) == 0
    store.has_space(Lack.SEGMENT)
    rest(cluster)
    cluster.go(32_000)
    assert cluster.leader(GROUP) is leader, "it comes back once the disk has had room for a while"


def test_where_all_disks_are_full_their_leaders_stay_and_refuse() -> None:
    cluster = formed(1, 2, 3)
    for node in cluster.nodes.values():
        node.shard.store.out_of_space(Lack.SEGMENT)
    cluster.go(500)  # some are handed over before the others have said that they are full, too
    leaders = {group: cluster.leader(group) for group in range(1, PARTITIONS + 1)}
    cluster.go(1_000)
    assert {group: cluster.leader(group) for group in leaders} == leaders
    assert produce(cluster, leaders[GROUP]) == ErrorCode.KAFKA_STORAGE_ERROR


def test_nobody_waits_for_a_node_that_nobody_can_stand_in_for() -> None:
    cluster = formed(1, 2, 3)
    for number in (2, 3):
        leave(cluster, number)
    cluster.go(300)
    assert leave(cluster, 1) == 0, "the others are about to stop, too"
    alone = Cluster(33, numbers=(1,))
    alone.go(3_000)
    assert leave(alone, 1) == 0


def test_new_partitions_go_to_nodes_that_are_there() -> None:
    cluster = formed(1, 2, 3, 4)
    cluster.kill(4)
    cluster.go(1_000)
    cluster.create_topic(cluster.nodes[2], "u", 4, 3)
    known = cluster.nodes[2].shard.groups.cluster.topics["u"]
    assert {node for each in known.partitions for node in each.replicas} == {1, 2, 3}


def test_the_last_node_that_could_lead_is_not_drained() -> None:
    cluster = formed(1, 2, 3)
    for node in (2, 3):
        assert act(cluster, "drain", node) == ("", "")
    error, said = act(cluster, "drain", 1)
    assert error == "INVALID_REQUEST"
    assert "No other node could lead" in said
    assert act(cluster, "drain", 9)[0] == "BROKER_ID_NOT_REGISTERED"
    assert act(cluster, "dance", 1)[0] == "INVALID_REQUEST"


def test_preferred_leaders_are_elected_across_nodes() -> None:
    cluster = formed(1, 2, 3)
    assert {row.error_code for row in elect(cluster)} == {ErrorCode.ELECTION_NOT_NEEDED}
    cluster.kill(2)
    cluster.go(1_000)
    codes = {row.partition_id: row.error_code for row in elect(cluster)}
    homeless = [number for number in range(PARTITIONS) if plan(cluster, number).replicas[0] == 2]
    assert homeless
    for number, code in codes.items():
        expected = ErrorCode.ELECTION_NOT_NEEDED
        if number in homeless:
            expected = ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE
        assert code == expected
    cluster.revive(2)
    cluster.go(3_000)
    assert led_by(cluster, 2) == [], "nobody goes home so soon by itself"
    codes = {row.partition_id: row.error_code for row in elect(cluster, through=3)}
    assert {codes[number] for number in homeless} == {0}
    assert led_by(cluster, 2) == [number + 1 for number in homeless]


def test_an_election_under_load_has_whoever_is_in_sync_lead() -> None:
    """A follower is seldom seen to have everything of a partition that is always written to.

    Seen with 300 busy partitions: the last of them did not go home, and was waited for.
    """
    cluster = formed(1, 2, 3)
    cluster.kill(2)
    cluster.go(1_000)
    cluster.revive(2)
    cluster.go(12_000 - 3_000)
    [away] = [number for number in range(PARTITIONS) if plan(cluster, number).replicas[0] == 2][:1]
    leader = cluster.leader(away + 1)
    home = cluster.nodes[2]
    assert leader is not home
    writing, asked = _Writing(cluster, leader, away), cluster.nodes[3]
    topic = ElectTopic(topic="t", partitions=[away])
    asked.ask(ElectRequest(election_type=0, topic_partitions=[topic], timeout_ms=30_000), 2, 90)
    answer = writing.until_answered(asked)
    assert [row.error_code for row in answer.replica_election_results[0].partition_result] == [0]
    assert home in cluster.leaders(away + 1)


class _Writing:
    """A partition's leader that has always appended something that its followers do not have."""

    def __init__(self, cluster: Cluster, leader: SimNode, number: int) -> None:
        self._cluster = cluster
        self._leader = leader
        self._number = number
        self._conn = 200

    def until_answered(self, asked: SimNode) -> Message:
        """Write until the elections that were asked for are answered."""
        for _ in range(30_000):
            self._conn += 1
            if self._leader in self._cluster.leaders(self._number + 1):
                request = produce_request("t", batch_of(1), partition=self._number)
                self._leader.ask(request, 9, self._conn)
            self._cluster.go(1)
            answer = asked.receive(key_of(ElectRequest()), 2, 90)
            if answer is not None:
                return answer[1]
        raise AssertionError("no answer")


def test_elections_are_answered_in_time_where_nobody_decides() -> None:
    cluster = formed(1, 2, 3)
    cluster.kill(2)
    cluster.go(1_000)
    cluster.revive(2)
    cluster.go(3_000)
    leader = cluster.leader(0)
    [away] = [number for number in range(PARTITIONS) if plan(cluster, number).replicas[0] == 2][:1]
    for node in cluster.nodes.values():
        if node is not leader:
            node.paused_until_ms = cluster.now_ms + 60_000
    topic = ElectTopic(topic="t", partitions=[away])
    request = ElectRequest(election_type=0, topic_partitions=[topic], timeout_ms=300)
    began_ms = cluster.now_ms
    answer = cluster.call(leader, request, 2, conn=91)
    assert 300 <= cluster.now_ms - began_ms < 400
    (row,) = answer.replica_election_results[0].partition_result
    assert row.error_code == ErrorCode.REQUEST_TIMED_OUT
    assert "has not decided" in row.error_message


def test_an_unclean_election_is_refused_with_the_reason() -> None:
    cluster = formed(1, 2, 3)
    rows = elect(cluster, 1)
    assert {row.error_code for row in rows} == {ErrorCode.ELECTION_NOT_NEEDED}
    cluster.kill(1)
    cluster.kill(2)
    cluster.go(6_000)
    answer = cluster.nodes[3].shard.groups.lead_of(cluster.nodes[3].members[1].group)
    assert answer is None or answer.node != 3


def test_a_decommissioned_node_is_emptied_and_leaves() -> None:
    cluster = formed(1, 2, 3, 4)
    assert produce(cluster, cluster.leader(GROUP)) == 0
    assert act(cluster, "decommission", 3) == ("", "")
    cluster.go(15_000)
    known = cluster.nodes[1].shard.groups.cluster
    assert 3 not in known.nodes
    for number in range(PARTITIONS):
        assert sorted(plan(cluster, number).replicas) == [1, 2, 4]
    voters = cluster.nodes[1].shard.groups.controller.raft.configuration.members
    assert sorted(voter & 0xFFFF_FFFF for voter in voters) == [1, 2, 4]
    assert produce(cluster, cluster.leader(GROUP), 8) == 0
    assert set(cluster.nodes[3].members) == {0}


@pytest.mark.parametrize("victim", [1, 4])
def test_a_decommission_goes_on_whoever_dies(victim: int) -> None:
    cluster = formed(1, 2, 3, 4)
    through = 1 if victim != 1 else 2
    assert act(cluster, "decommission", 3, through=through) == ("", "")
    cluster.go(400)
    cluster.kill(victim)
    cluster.go(3_000)
    cluster.revive(victim)
    cluster.go(25_000)
    assert 3 not in cluster.nodes[through].shard.groups.cluster.nodes
    assert produce(cluster, cluster.leader(GROUP), 8) == 0


def test_a_dead_node_is_decommissioned_and_its_id_can_be_used_again() -> None:
    cluster = formed(1, 2, 3, 4)
    cluster.kill(3)
    cluster.go(1_000)
    assert act(cluster, "decommission", 3) == ("", "")
    cluster.go(15_000)
    assert 3 not in cluster.nodes[1].shard.groups.cluster.nodes
    cluster.nodes[3].disk = SimDisk(98)
    cluster.nodes[3].directory = "another"
    cluster.revive(3)
    cluster.go(4_000)
    assert 3 in cluster.nodes[1].shard.groups.cluster.nodes


def unregister(cluster: Cluster, node: int) -> tuple[int, str | None]:
    """Have a node unregistered with Kafka's request; return what is answered."""
    request = message_type("UnregisterBrokerRequest")(broker_id=node)
    answer = cluster.call(cluster.nodes[2], request, 0, conn=92)
    return answer.error_code, answer.error_message


@pytest.mark.parametrize("is_there", [True, False])
def test_a_node_without_replicas_is_unregistered(*, is_there: bool) -> None:
    """What it leaves is what a decommission leaves."""
    cluster = formed(1, 2, 3, 4)
    code, said = unregister(cluster, 9)
    assert (code, said) == (ErrorCode.BROKER_ID_NOT_REGISTERED, "Node 9 is not registered.")
    code, said = unregister(cluster, 3)
    assert code == ErrorCode.INVALID_REQUEST
    assert said is not None
    assert "a replica of t-" in said
    assert 3 in cluster.nodes[1].shard.groups.cluster.nodes
    delete = message_type("DeleteTopicsRequest")(topic_names=["t"], timeout_ms=5_000)
    cluster.call(cluster.nodes[2], delete, 5, conn=93)
    cluster.go(1_000)
    if not is_there:
        cluster.kill(3)
        cluster.go(2_000)
    assert unregister(cluster, 3) == (0, None)
    cluster.go(15_000)
    known = cluster.nodes[1].shard.groups
    assert 3 not in known.cluster.nodes
    assert 3 not in known.cluster.states.leaving
    voters = known.controller.raft.configuration.members
    assert sorted(voter & 0xFFFF_FFFF for voter in voters) == [1, 2, 4]
    assert unregister(cluster, 3)[0] == ErrorCode.BROKER_ID_NOT_REGISTERED


def test_a_decommission_that_leaves_too_few_is_refused() -> None:
    cluster = formed(1, 2, 3)
    error, said = act(cluster, "decommission", 3)
    assert error == "INVALID_REQUEST"
    assert "Topic t has 3 replicas" in said
    assert "2 node(s) would be left" in said


def test_a_decommission_can_be_called_off() -> None:
    cluster = formed(1, 2, 3, 4)
    cluster.kill(4)  # nobody else can take what node 3 has
    cluster.go(1_000)
    error, said = act(cluster, "decommission", 3)
    assert error == "INVALID_REQUEST"
    assert "can be reached" in said
    cluster.revive(4)
    cluster.go(2_000)
    assert act(cluster, "decommission", 3) == ("", "")
    cluster.kill(4)
    cluster.go(2_000)
    assert act(cluster, "recommission", 3) == ("", "")
    cluster.go(3_000)
    cluster.revive(4)
    cluster.go(10_000)
    known = cluster.nodes[1].shard.groups.cluster
    assert 3 in known.nodes
    assert not known.states.leaving
    assert not known.changing


def lose(cluster: Cluster, number: int) -> None:
    """Have a node come back with an empty directory."""
    cluster.kill(number)
    cluster.nodes[number].disk = SimDisk(99)
    cluster.nodes[number].directory = "another"
    cluster.revive(number)


@pytest.mark.parametrize("lost", [1, 3])
def test_a_node_whose_disk_is_gone_comes_back_as_new_members(lost: int) -> None:
    cluster = formed(1, 2, 3)
    through = 1 if lost != 1 else 2
    assert produce(cluster, cluster.leader(GROUP)) == 0
    lose(cluster, lost)
    cluster.go(4_000)
    node = cluster.nodes[lost]
    assert any(f"corelane cluster replace-disk {lost}" in line for line in node.logs)
    assert set(node.members) <= {0}
    assert act(cluster, "replace-disk", lost, through=through) == ("", "")
    error, said = act(cluster, "replace-disk", lost, through=through)
    assert error == "INVALID_REQUEST"
    assert "already" in said
    cluster.go(20_000)
    known = cluster.nodes[through].shard.groups.cluster
    assert not known.changing
    for number in range(PARTITIONS):
        assert lost in plan(cluster, number, node=through).replicas
    leader = cluster.leader(GROUP)
    assert produce(cluster, leader, 8) == 0
    cluster.go(1_000)
    assert node.members[GROUP].log.committed_offset == 6
    voters = cluster.nodes[through].shard.groups.controller.raft.configuration.voters
    assert sorted(voter & 0xFFFF_FFFF for voter in voters) == [1, 2, 3]
    other = next(each.number for each in cluster.up() if each.number not in {lost, leader.number})
    cluster.kill(other)
    cluster.go(4_000)
    assert produce(cluster, cluster.leader(GROUP), 9) == 0, "it counts for the quorum again"


def test_a_disk_that_serves_is_not_declared_lost() -> None:
    cluster = formed(1, 2, 3)
    error, said = act(cluster, "replace-disk", 3)
    assert error == "INVALID_REQUEST"
    assert "it is not lost" in said


def test_the_former_disk_of_a_replaced_one_is_not_let_in_again() -> None:
    cluster = formed(1, 2, 3)
    former = cluster.nodes[3].disk
    lose(cluster, 3)
    cluster.go(1_000)
    assert act(cluster, "replace-disk", 3) == ("", "")
    cluster.go(15_000)
    cluster.kill(3)
    cluster.nodes[3].disk, cluster.nodes[3].directory = former, "d3"
    cluster.revive(3)
    cluster.go(6_000)
    assert set(cluster.nodes[3].members) <= {0}
    assert any("was declared lost" in line for line in cluster.nodes[3].logs)


def test_a_voter_that_stays_away_gives_its_place_to_another() -> None:
    """Item 5: nobody need be told; who is there and listens takes part."""
    cluster = formed(1, 2, 3, 4)
    raft = cluster.leader(0).shard.groups.controller.raft
    away = next(voter for voter in raft.configuration.voters if voter != raft.self_id)
    cluster.kill(away & 0xFFFF_FFFF)
    cluster.go(20_000)
    assert away in cluster.leader(0).shard.groups.controller.raft.configuration.voters
    for node in cluster.up():
        node.shard.groups.registration.patience_ms = 10_000
    cluster.go(15_000)
    assert away not in cluster.leader(0).shard.groups.controller.raft.configuration.voters
