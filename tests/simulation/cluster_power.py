"""Storms over three nodes whose disks take their time, and whose power may be cut.

`python -m tests.simulation.cluster_power --seed N --count M`. As `cluster_storm`, and besides: a
write is durable some milliseconds after it was asked for; a disk may stop for seconds; a node that
dies may lose what no sync covered, torn in the middle; at times all lose power at once.
"""

import argparse
import random
from collections.abc import Callable

from corelane.shard.effects import Effect
from corelane.shard.events import Event
from corelane.storage.effects import DiskEffect
from tests.simulation.cluster import NODES, Cluster, SimNode
from tests.simulation.cluster_storm import PARTITIONS, Storm
from tests.simulation.sim_disk import Queue, SimDisk

DISK_DELAYS_MS = (0, 1, 1, 2, 5, 20)
STALLS_MS = (50, 400, 2_500)
POWER_CUT = 0.6
"""How often a death takes what the disk had not synced, too."""


class SlowNode(SimNode):
    """A node whose disk answers later."""

    def __init__(self, net: "PowerCluster", number: int) -> None:
        self.due_ms: dict[Queue, int] = {}
        self.stalled_until_ms = 0
        super().__init__(net, number)

    def start(self) -> None:
        self.due_ms = {}
        self.stalled_until_ms = 0
        super().start()

    def turn(self) -> None:
        """Take what the disk has done since, and step."""
        now_ms = self.net.now_ms
        for queue in self.disk.busy():
            due_ms = max(self.due_ms.get(queue, 0), self.stalled_until_ms)
            if due_ms <= now_ms:
                self.mail.append(self.disk.complete(queue))
                self.due_ms[queue] = now_ms + self.net.chance.choice(DISK_DELAYS_MS)
        super().turn()

    def perform(self, effect: Effect) -> list[Event]:
        if not isinstance(effect, DiskEffect):
            return super().perform(effect)
        before = {*self.disk.busy()}
        self.disk.submit(effect, self.arena)
        for queue in self.disk.busy():
            if queue not in before:
                self.due_ms[queue] = self.net.now_ms + self.net.chance.choice(DISK_DELAYS_MS)
        return []


class PowerCluster(Cluster):
    """Three nodes with such disks."""

    def __init__(self, seed: int, check: Callable[[], None] | None = None) -> None:
        self.power_cuts = 0
        super().__init__(seed, check)
        self.slow = {number: SlowNode(self, number) for number in NODES}
        self.nodes = dict(self.slow)
        for number, node in self.slow.items():
            node.disk = SimDisk(seed * 10 + number)
            node.start()

    def kill(self, number: int) -> None:
        """End a node's processes, perhaps with its machine."""
        super().kill(number)
        has_power = self.chance.random() >= POWER_CUT
        self.power_cuts += not has_power
        self.slow[number].disk.crash(power=not has_power)


class PowerStorm(Storm):
    """One storm."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.weather = random.Random(seed)
        self.cluster: PowerCluster = PowerCluster(seed, self.check)
        self.chance = self.cluster.chance
        self.stalls = self.blackouts = 0

    def _strike(self, dice: float) -> None:
        now_ms = self.cluster.now_ms
        kind = self.weather.random()
        if kind < 0.02:
            self._black_out()
        elif kind < 0.05:
            self.stalls += 1
            node = self.cluster.slow[self.weather.choice(NODES)]
            node.stalled_until_ms = now_ms + self.weather.choice(STALLS_MS)
        else:
            super()._strike(dice)

    def _black_out(self) -> None:
        """Let all of them die in the middle of writes, and come back one after the other."""
        self.blackouts += 1
        for slow in self.weather.sample(list(self.cluster.slow.values()), 2):
            slow.stalled_until_ms = self.cluster.now_ms + self.weather.choice((0, 50, 400))
        for partition in range(PARTITIONS):
            self._produce(partition)
        self.cluster.go(self.weather.choice((2, 10, 40, 200)))
        self._collect()
        for node in self.cluster.up():
            self.cluster.kill(node.number)
        self._collect()
        for number in self.weather.sample(NODES, len(NODES)):
            self.cluster.go(self.weather.choice((0, 100, 2_000)))
            self.cluster.revive(number)

    def _heal(self) -> None:
        for node in self.cluster.slow.values():
            node.stalled_until_ms = 0
        super()._heal()

    def run(self) -> str:
        said = super().run()
        cuts = self.cluster.power_cuts
        return f"{said}, {cuts} power cuts, {self.blackouts} of all, {self.stalls} stopped disks"


def run_seed(seed: int) -> PowerStorm:
    """Run one storm."""
    storm = PowerStorm(seed)
    storm.run()
    return storm


def main() -> None:
    """Run storms from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.count):
        try:
            print(f"seed {seed}: {PowerStorm(seed).run()}", flush=True)
        except Exception:
            print(f"python -m tests.simulation.cluster_power --seed {seed} --count 1", flush=True)
            raise


if __name__ == "__main__":
    main()
