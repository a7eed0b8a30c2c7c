"""Storms over four nodes whose replicas move: reassignments, drains, elections and a lost disk.

`python -m tests.simulation.moving_storm --seed N --count M`. Beside what cluster_storm.py does to
nodes and networks and checks: replicas go to other nodes, become more and fewer, and are called
back; nodes are drained; in half of the storms one comes back with an empty disk, and an operator
says so. At the end everything is where it was asked for, and no acknowledged record is lost.
"""

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


class MovingStorm(Storm):
    """One storm."""

    numbers = NUMBERS

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.moves = 0
        self.lost: int | None = None
        self.may_lose = bool(seed % 2)

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
        if not known.topics or known.changing:
            return False
        if self.lost is None:
            return True
        row = known.nodes.get(NodeId(self.lost))
        return row is not None and bool(row.directory)

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
