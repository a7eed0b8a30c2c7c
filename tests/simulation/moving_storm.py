"""Storms over four nodes whose replicas move: reassignments, balancing, drains and a lost disk.

`python -m tests.simulation.moving_storm --seed N --count M`. Beside what cluster_storm.py does to
nodes and networks and checks: replicas go to other nodes, become more and fewer, and are called
back; nodes are drained and brought to their share; in half of the storms one comes back with an
empty disk, and an operator says so. Blows are aimed, too: at the balancer (the controller's leader)
while it has something to do, and at who leads a partition or is to have it while it moves: they
die, or stop as by SIGSTOP, for longer than anybody waits, and go on as if nothing had been.
At the end everything is where it was asked for, and no acknowledged record is lost.
"""

from collections import Counter
from typing import Final

from corelane.model.ids import GroupId, NodeId
from corelane.shard.events import OperatorRequest
from tests.simulation import cluster_storm
from tests.simulation.cluster import SimNode
from tests.simulation.cluster_storm import PARTITIONS, Storm
from tests.simulation.reassigning import Partition, Request, Topic
from tests.simulation.sim_disk import SimDisk

NUMBERS = (1, 2, 3, 4)
HEAL_MS = 40_000
FLIGHT_CONNS = 900_000
AIMED: Final = 0.06
STOPS_MS: Final = (300, 1_500, 6_000, 15_000)
"""Of a process that is stopped and goes on; some are longer than any patience (PEER_SILENT_MS)."""


class MovingStorm(Storm):
    """One storm."""

    numbers = NUMBERS

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.moves = 0
        self.lost: int | None = None
        self.may_lose = bool(seed % 2)
        self.blows: Counter[str] = Counter()
        """What was aimed, and at whom."""

    def _strike(self, dice: float) -> None:
        """Do one of what is new here, or else one of what was there before."""
        chance, up = self.chance, self.cluster.up()
        which = chance.random()
        if which < 0.08 and up:
            self._reassign(chance.choice(up))
        elif which < 0.11 and up:
            action = chance.choice(("drain", "undrain", "undrain"))
            self._operate(chance.choice(up), action, chance.choice(NUMBERS))
        elif which < 0.12 and self.may_lose and self.lost is None:
            self._lose(chance.choice(NUMBERS))
        elif which < 0.20 and self.lost is not None and up:
            self._say_lost(chance.choice(up), self.lost)
        elif which < 0.24 and up:
            self._rebalance(chance.choice(up))
        elif which < 0.24 + AIMED:
            self._aim()
        else:
            super()._strike(dice)

    def _reassign(self, node: SimNode) -> None:
        """Ask for other replicas; with a disk that may go, always for three."""
        size = 3 if self.may_lose else self.chance.choice((1, 2, 3, 3, 4))
        nodes: list[int] | None = self.chance.sample(NUMBERS, size)
        if self.chance.random() < 0.25:
            nodes = None
        brokers = None if nodes is None else [each * 1_000 for each in nodes]
        partition = self.chance.randrange(PARTITIONS)
        row = Partition(partition_index=partition, replicas=brokers)
        self.moves += 1
        request = Request(topics=[Topic(name="t", partitions=[row])])
        node.ask(request, 1, FLIGHT_CONNS + self.moves)

    def _operate(self, node: SimNode, action: str, number: int) -> None:
        node.mail.append(OperatorRequest(1, "node", {"node": str(number), "action": action}))

    def _rebalance(self, node: SimNode) -> None:
        action = self.chance.choice(("start", "start", "plan", "cancel"))
        node.mail.append(OperatorRequest(1, "rebalance", {"action": action}))

    def _aim(self) -> None:
        """Strike who has just something to do with a move."""
        targets = [("balancer", node) for node in self.cluster.leaders(0) if self._fills(node)]
        for node in self.cluster.up():
            for group in node.shard.groups.cluster.changing:
                member = node.members.get(group)
                if member is not None:
                    is_voter = member.raft.configuration.is_voter(member.raft.self_id)
                    whom = "joining" if not is_voter else "leading" if member.serves else ""
                    targets += [(whom, node)] if whom else []
        if targets:
            whom = self.chance.choice(sorted({name for name, _node in targets}))
            self._blow(whom, self.chance.choice([node for name, node in targets if name == whom]))

    def _fills(self, node: SimNode) -> bool:
        return bool(node.shard.groups.cluster.states.filling)

    def _blow(self, whom: str, node: SimNode) -> None:
        if self.chance.random() < 0.3 and len(self.cluster.up()) == len(self.numbers):
            self.cluster.kill(node.number)
            self.blows[f"{whom} killed"] += 1
        else:
            node.paused_until_ms = self.cluster.now_ms + self.chance.choice(STOPS_MS)
            self.blows[f"{whom} stopped"] += 1

    def _say_lost(self, through: SimNode, lost: int) -> None:
        """Say so once: who comes back with another disk meanwhile has not lost that one."""
        if lost not in through.shard.groups.cluster.states.losses:
            self._operate(through, "replace-disk", lost)

    def _lose(self, number: int) -> None:
        node = self.cluster.nodes[number]
        if node.is_up:
            self.cluster.kill(number)
        self.lost = number
        node.disk = SimDisk(900 + number)
        node.directory = f"d{number}-again"

    def _heal(self) -> None:
        """End all of it, and give the operator what time it takes."""
        super()._heal()
        for _ in range(HEAL_MS // 1_000):
            for number in NUMBERS:
                self._operate(self.cluster.nodes[2], "undrain", number)
            if self.lost is not None:
                self._say_lost(self.cluster.nodes[1 if self.lost != 1 else 2], self.lost)
            self.cluster.go(1_000)
            if self._is_settled():
                break
        self.cluster.go(cluster_storm.HEAL_MS)

    def _is_settled(self) -> bool:
        known = self.cluster.nodes[1].shard.groups.cluster
        if not known.topics or known.changing or known.states.filling:
            return False
        if self.lost is None:
            return True
        row = known.nodes.get(NodeId(self.lost))
        return row is not None and bool(row.directory)

    def run(self) -> str:
        """Rage, heal, compare; return a line about it."""
        return f"{super().run()}, {self.blows.total()} blows aimed"

    def homes(self, group: int) -> list[SimNode]:
        """Return the nodes that should have a group, as all of them know."""
        nodes = [*self.cluster.nodes.values()]
        if group == 0:
            return nodes
        plan = nodes[1].shard.groups.cluster.plan_of(GroupId(group))
        assert plan is not None
        assert plan.change is None, f"group {group} is still being moved: {plan}"
        here = [node for node in nodes if group in node.members]
        assert {node.number for node in here} == {*plan.replicas}, f"group {group}: {plan}"
        return here


def main() -> None:
    """Run storms from the command line."""
    cluster_storm.main(MovingStorm, "moving_storm")


if __name__ == "__main__":
    main()
