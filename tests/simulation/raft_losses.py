"""The raft simulation with disks that rot: replicas come back without what they had promised.

    python -m tests.simulation.raft_losses --seed 1 --count 1000     a hunt
    python -m tests.simulation.raft_losses --seed 17 --trace         one seed, told event by event

At most one replica at a time has a loss that is not made good: the end of its log, and perhaps
its newest term and vote. Nothing that was committed may be lost, whoever dies meanwhile, nobody
may vote twice; and at the end, when all are there, the loss must be made good.
"""

import sys
from collections.abc import Callable

from corelane.model.ids import NO_MEMBER, Index, MemberId, Term
from corelane.raft.loss import Loss
from tests.simulation.raft_checkers import ViolationError
from tests.simulation.raft_cluster import Cluster, hunt
from tests.simulation.raft_replica import Replica, VoteNote

ROT = 0.8
"""How often a replica that comes back has lost something."""
VOTERS_MIN = 3
"""With two voters nobody is elected without the one that has lost something."""


class RottingCluster(Cluster):
    """The world of one seed."""

    def __init__(self, seed: int, say: Callable[[str], None] | None = None) -> None:
        super().__init__(seed, say)
        self.losses = self.entries_lost = 0

    def _restart(self, node: MemberId) -> None:
        replica = self.replicas[node]
        may_rot = len(self.nodes) >= VOTERS_MIN and not self._has_loss()
        if not replica.is_up and may_rot and self.chance.random() < ROT:
            self._rot(replica)
            self._world_after_ms(self._exponential(60), self._strike_leaders)
        super()._restart(node)

    def _strike_leaders(self) -> None:
        """Take away who knows what was lost, before all of it is had again."""
        if self.is_healed:
            return
        self.blocked.clear()
        for one in list(self.replicas.values()):
            if one.is_up and one.group.is_leader:
                self.chance.choice((self._crash, self._cut_off, self._pause))(one.node)

    def _has_loss(self) -> bool:
        """Whether some replica has a loss, or would have one again after a crash."""
        return any(one.loss is not None for one in self.replicas.values())

    def _rot(self, replica: Replica) -> None:
        disk, chance = replica.disk, self.chance
        log = disk.log
        end = (log.last_index, log.last_term)
        are_votes_lost = chance.random() < 0.5
        first, last = log.first_index - 1, log.last_index
        kept = chance.choice((first, last, chance.randint(first, last)))
        for index in range(kept + 1, last + 1):
            replica.lost.append((Index(index), log.entry_at(Index(index))))
        if kept < last:
            log.truncate(Index(kept + 1))
        replica.committed_kept = Index(min(replica.committed_kept, kept))
        if are_votes_lost:
            disk.vote = VoteNote(
                Term(chance.randint(log.last_term, max(disk.vote.term, 1))), NO_MEMBER
            )
        replica.loss = Loss(*end, are_votes_lost)
        self.losses += 1
        self.entries_lost += last - kept
        if self.say is not None:
            self.say(f"## {replica.node} has lost all behind {kept}: {replica.loss}")

    def _heal(self) -> None:
        super()._heal()
        self.blocked.clear()
        self.healed = set(self.nodes)
        for node in self.nodes:
            self._restart(node)

    def _is_settled(self) -> bool:
        """Everybody has everything, and is as good as any."""
        ups = [one.group for one in self.replicas.values() if one.is_up]
        return all(group.recollection is None for group in ups) and super()._is_settled()


def run_seed(seed: int, say: Callable[[str], None] | None = None) -> RottingCluster:
    """Run one seed; a failure names the one command that replays it."""
    cluster = RottingCluster(seed, say)
    try:
        cluster.run()
    except AssertionError as error:
        raise ViolationError(
            f"{error or type(error).__name__} (event {cluster.event_count}, {cluster.now_ms} ms)"
            f"\nreplay: python -m tests.simulation.raft_losses --seed {seed} --trace"
        ) from error
    return cluster


if __name__ == "__main__":
    sys.exit(hunt(sys.argv[1:], run_seed, __doc__ or ""))
