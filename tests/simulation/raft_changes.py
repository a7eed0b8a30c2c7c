"""The raft simulation with members that change: learners, joint consensus, hand-overs, deaths.

    python -m tests.simulation.raft_changes --seed 1 --count 1000     a hunt
    python -m tests.simulation.raft_changes --seed 17 --trace         one seed, told event by event

Beside the voters there are spare nodes that know nobody. Whoever leads is asked, again and again,
to take in learners, to make voters of them, to let others go, itself among them, and to hand over;
followers hear of dead leaders. At the end the weather is good, and the members there are by then
must agree.
"""

import sys
from collections.abc import Callable, Iterable

from corelane.model.ids import MemberId
from corelane.raft.config import RaftConfig
from corelane.raft.effects import Send
from corelane.raft.events import ChangeMembers, LeaderGone, TransferLeadership
from tests.simulation.raft_checkers import ViolationError
from tests.simulation.raft_cluster import HEARTBEAT_MS, Cluster, hunt
from tests.simulation.raft_replica import GROUP, Replica

CHANGE_MS_MEAN = 150.0
SPARES_MAX = 3


class ChangingCluster(Cluster):
    """The world of one seed."""

    def __init__(self, seed: int, say: Callable[[str], None] | None = None) -> None:
        super().__init__(seed, say)
        first = len(self.nodes) + 1
        spares = range(first, first + self.chance.randint(1, SPARES_MAX))
        for node in map(MemberId, spares):
            config = RaftConfig(GROUP, node, (), self.weather.settings)
            self.replicas[node] = Replica(config, self.chance, self.transmit, self)
            self.lives[node] = 0
        self.nodes = tuple(self.replicas)
        self.changes = self.transfers = 0

    def run(self) -> None:
        self._world_after_ms(self._exponential(CHANGE_MS_MEAN), self._change_something)
        super().run()

    def _beat(self, node: MemberId) -> None:
        group = self.replicas[node].group
        if group.is_leader:
            for peer in group.configuration.members:
                if peer != node:
                    beat = group.heartbeat(peer, self.now_ms)
                    self.checkers.performed(self.replicas[node], Send(peer, beat))
                    self.transmit(node, peer, beat, [])
        self._after_ms(node, HEARTBEAT_MS, lambda: self._beat(node))

    # -- What is asked for ----------------------------------------------------------------------

    def _leaders(self) -> list[Replica]:
        return [
            one
            for one in self.replicas.values()
            if one.is_up
            and one.group.is_leader
            and self.paused_until_us.get(one.node, 0) <= self.now_us
        ]

    def _change_something(self) -> None:
        if self.is_healed:
            return
        leaders = self._leaders()
        if leaders:
            leader = self.chance.choice(leaders)
            ask = self.chance.choice(
                (self._add_learner, self._promote, self._remove, self._replace, self._hand_over)
            )
            if self.chance.random() < 0.3:
                self._isolate(leader.node)  # what it appends now may well be truncated
            ask(leader)
            self.checkers.after_event(leader)
            self._follow_up(leader)
        self._tell_of_deaths()
        self._world_after_ms(self._exponential(CHANGE_MS_MEAN), self._change_something)

    def _isolate(self, node: MemberId) -> None:
        for other in self.nodes:
            if other != node:
                self.blocked |= {(node, other), (other, node)}

    def _ask(
        self, leader: Replica, voters: Iterable[MemberId], learners: Iterable[MemberId]
    ) -> None:
        before = leader.group.membership.index
        leader.event(self.now_ms, ChangeMembers(tuple(voters), tuple(learners)))
        self.changes += leader.group.membership.index != before

    def _add_learner(self, leader: Replica) -> None:
        now = leader.group.configuration
        outside = [node for node in self.nodes if node not in now.members]
        if outside:
            self._ask(leader, now.voters, (*now.learners, self.chance.choice(outside)))

    def _ready(self, leader: Replica) -> list[MemberId]:
        """Return the learners that know their group, as the product asks (shard/reassigning.py).

        A voter that knows no members votes for nobody, so that three of which one is gone, and one
        knows nothing, have no leader.
        """
        group, matches = leader.group, leader.group.match_indexes()
        learners = group.configuration.learners
        return [each for each in learners if matches[each] >= group.members_index]

    def _promote(self, leader: Replica) -> None:
        now = leader.group.configuration
        ready = self._ready(leader)
        if ready:
            chosen = self.chance.choice(ready)
            rest = [node for node in now.learners if node != chosen]
            self._ask(leader, (*now.voters, chosen), rest)

    def _remove(self, leader: Replica) -> None:
        now = leader.group.configuration
        if len(now.voters) > 2:
            gone = self.chance.choice(now.voters)
            self._ask(leader, [node for node in now.voters if node != gone], now.learners)

    def _replace(self, leader: Replica) -> None:
        """Several at once: all that are ready for as many voters."""
        now = leader.group.configuration
        ready = self._ready(leader)
        staying = now.voters[len(ready) :]
        if ready and staying:
            rest = [node for node in now.learners if node not in ready]
            self._ask(leader, (*ready, *staying), rest)

    def _hand_over(self, leader: Replica) -> None:
        self.transfers += 1
        to = self.chance.choice(self.nodes)
        leader.event(self.now_ms, TransferLeadership(to))

    def _tell_of_deaths(self) -> None:
        for replica in self.replicas.values():
            leader = replica.group.leader if replica.is_up else None
            if leader is None or self.replicas[leader].is_up or self.chance.random() < 0.5:
                continue
            replica.event(self.now_ms, LeaderGone(leader, replica.group.term))
            self.checkers.after_event(replica)
            self._follow_up(replica)

    # -- The end --------------------------------------------------------------------------------

    def _heal(self) -> None:
        super()._heal()
        self.blocked.clear()
        for node in self.nodes:
            self._restart(node)
        self.healed = set(self.nodes)

    def _restart(self, node: MemberId) -> None:
        if not self.replicas[node].is_up:
            self._start(node)
            self._beat(node)

    def _is_settled(self) -> bool:
        """All members have everything, and no change is half done."""
        leaders = [one for one in self.replicas.values() if one.group.is_established]
        if not leaders:
            return False
        group = leaders[-1].group
        if group.membership.is_changing(group.committed_index) or group.is_transferring:
            return False
        self.healed = set(group.configuration.members)
        return super()._is_settled()


def run_seed(seed: int, say: Callable[[str], None] | None = None) -> ChangingCluster:
    """Run one seed; a failure names the one command that replays it."""
    cluster = ChangingCluster(seed, say)
    try:
        cluster.run()
    except AssertionError as error:
        raise ViolationError(
            f"{error or type(error).__name__} (event {cluster.event_count}, {cluster.now_ms} ms)"
            f"\nreplay: python -m tests.simulation.raft_changes --seed {seed} --trace"
        ) from error
    return cluster


if __name__ == "__main__":
    sys.exit(hunt(sys.argv[1:], run_seed, __doc__ or ""))
