"""What groups cost that nothing happens to: a row in a frame. And nobody oversleeps."""

import pytest

from corelane.model import limits
from corelane.raft.core import RaftGroup
from corelane.raft.events import Event
from tests.simulation.cluster import Cluster
from tests.unit.api.world import batch_of, produce_request

REST_MS = 3_000
ELECTED_MS_MAX = 3_000


class Steps:
    """Counts what raft groups are bothered with."""

    def __init__(self) -> None:
        self.count = 0


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    counted = Steps()
    step = RaftGroup.step

    def counting(group: RaftGroup, now_ms: int, event: Event) -> object:
        counted.count += 1
        return step(group, now_ms, event)

    monkeypatch.setattr(RaftGroup, "step", counting)
    return counted


def at_rest(partitions: int) -> Cluster:
    """Return three nodes whose groups have had time to come to rest."""
    cluster = Cluster(3)
    cluster.form()
    cluster.create_topic(cluster.nodes[1], "t", partitions)
    for node in cluster.nodes.values():
        node.rests = True
    cluster.go(4_000)
    return cluster


def test_idle_groups_are_never_stepped_and_frames_do_not_depend_on_their_number(
    steps: Steps,
) -> None:
    carried: list[int] = []
    for partitions in (3, 30, 300):
        cluster = at_rest(partitions)
        steps.count = cluster.carried = 0
        for node in cluster.nodes.values():
            node.turns = 0
        cluster.go(REST_MS)
        assert steps.count == 0
        carried.append(cluster.carried)
        rounds = REST_MS // limits.PEER_BEAT_MS + 1
        for node in cluster.nodes.values():
            # Its own round, and two heartbeats and two answers, where they do not come together.
            assert rounds - 1 <= node.turns <= 5 * rounds
    pairs = 3
    for count in carried:
        # Per pair and round: a heartbeat and its answer, each way.
        assert abs(count - REST_MS // limits.PEER_BEAT_MS * 4 * pairs) <= 4 * pairs


def leaders_elsewhere(cluster: Cluster, lost: int, led: list[int]) -> bool:
    return all(any(node.number != lost for node in cluster.leaders(group)) for group in led)


@pytest.mark.parametrize("loss", ["dies", "hangs", "is cut off", "is not heard", "hears nothing"])
def test_groups_at_rest_wake_up_when_their_leader_is_lost(loss: str) -> None:
    """Within the bar for silence, all of them, whoever was at rest."""
    cluster = at_rest(30)
    lost = 2
    led = [group for group, member in cluster.nodes[lost].members.items() if member.serves]
    assert len(led) >= 10
    others = [number for number in cluster.nodes if number != lost]
    if loss == "dies":
        cluster.kill(lost)
    elif loss == "hangs":
        cluster.nodes[lost].paused_until_ms = cluster.now_ms + 60_000
    if loss in {"is cut off", "is not heard"}:
        cluster.cut |= {(lost, other) for other in others}
    if loss in {"is cut off", "hears nothing"}:
        cluster.cut |= {(other, lost) for other in others}
    began_ms = cluster.now_ms
    while not leaders_elsewhere(cluster, lost, led):
        cluster.go(10)
        assert cluster.now_ms - began_ms <= ELECTED_MS_MAX
    if loss != "hangs":
        cluster.go(ELECTED_MS_MAX)
        assert not any(member.serves for member in cluster.nodes[lost].members.values()) or (
            loss == "dies"
        )


def test_groups_at_rest_keep_their_leader_when_a_follower_is_lost() -> None:
    """The quorum that is left stands for them."""
    cluster = at_rest(30)
    leaders = {group: cluster.leader(group).number for group in cluster.nodes[1].members}
    cluster.kill(3)
    kept = {group: number for group, number in leaders.items() if number != 3}
    cluster.go(12_000)
    assert {group: cluster.leader(group).number for group in kept} == kept
    assert kept


def test_a_group_at_rest_wakes_up_when_its_leader_lists_it_no_more() -> None:
    """A damaged member gives up what it led: its process and its other groups are well."""
    cluster = at_rest(3)
    leader = cluster.leader(1)
    member = leader.members[1]
    member.is_damaged = True
    member.perform(member.raft.step_down())
    began_ms = cluster.now_ms
    while not cluster.leaders(1):
        cluster.go(10)
        assert cluster.now_ms - began_ms <= ELECTED_MS_MAX
    assert cluster.leader(1) is not leader


def test_a_follower_hears_of_a_commit_with_the_next_heartbeat_also_while_another_is_away() -> None:
    """No further append brings it, and a group that is not in sync is no reason to wait."""
    cluster = at_rest(1)
    leader = cluster.leader(1)
    follower, lost = [node for node in cluster.nodes.values() if node is not leader]
    cluster.kill(lost.number)
    cluster.go(ELECTED_MS_MAX)
    for conn in range(60, 68):
        request = produce_request("t", batch_of())
        answer = cluster.call(leader, request, 9, conn=conn)
        assert answer.responses[0].partition_responses[0].error_code == 0
        cluster.go(limits.PEER_BEAT_MS + 3 * limits.PEER_BEAT_PULL_MS)
        committed = leader.members[1].log.last_index
        assert leader.members[1].log.committed_index == committed
        assert follower.members[1].log.committed_index == committed
