"""One simulated run: a node, topics, clients and faults from one seed, then healing and judgement.

python -m tests.simulation.world --seed 7             one run, with its trace if it fails
python -m tests.simulation.world --count 1000         a hunt from --seed (default 1) on
"""

import argparse
import random
import sys
import traceback
from functools import partial

from corelane.storage.effects import CheckpointWrite, SegmentWrite, Sync, WalPrepare, WalWrite
from corelane.storage.layout import LayoutError
from corelane.storage.wal_scan import CorruptWalError
from tests.simulation.alterer import ADDED_MAX, BROKER, Alterer
from tests.simulation.clients import Client, ConsumerClient, Creator, ProducerClient
from tests.simulation.history import History, Keeps, Partition
from tests.simulation.simulator import Node, Simulator
from tests.simulation.trimmer import Trimmer

FAULT_US = 1_500_000
HEAL_US = 60_000_000
TRACE_LINES_MAX = 60
TRIMS_OFTEN = '"log.retention.check.interval.ms" = 40'


class World:
    """A run of one seed."""

    def __init__(self, seed: int, *, trims: bool = True, alters: bool = True) -> None:
        self.seed = seed
        self.simulator = Simulator(seed)
        self.node = Node(self.simulator, seed, TRIMS_OFTEN if trims else "")
        self.history = History()
        self.trims = random.Random(seed) if trims else None
        self.alters = alters
        self.trimmers: list[Trimmer] = []
        self.alterers: list[Alterer] = []
        self.producers: list[ProducerClient] = []
        self.consumers: list[ConsumerClient] = []
        self.creators: list[Creator] = []

    def run(self) -> None:
        """Run it all; raises an AssertionError when a rule is broken."""
        rng = self.simulator.random
        self.node.start()
        partitions: list[Partition] = []
        for number in range(rng.randrange(1, 4)):
            count = rng.randrange(1, 4)
            configs = {"internal.segment.bytes": str(rng.choice((100_000, 1_000_000)))}
            topic = f"topic-{number}"
            configs |= self._keep(topic, count)
            self.creators.append(Creator(self.node, self.history, topic, count, configs))
            self._alter(topic, count)
            partitions += [(topic, partition) for partition in range(count)]
        self._begin(self.creators)
        self.simulator.run(HEAL_US, lambda: all(creator.is_over for creator in self.creators))
        assert all(creator.is_over for creator in self.creators), "topics could not be created"
        for number in range(rng.randrange(2, 7)):
            kind = rng.choice(("idempotent", "plain"))
            partition = rng.choice(partitions)
            self.producers.append(
                ProducerClient(
                    self.node, self.history, f"{kind}-{number}", partition, rng.randrange(50, 300)
                )
            )
        for number, partition in enumerate(partitions):
            name = f"consumer-{number}"
            self.consumers.append(ConsumerClient(self.node, self.history, name, partition))
        self._begin([*self.producers, *self.consumers, *self.trimmers, *self.alterers])
        end_us = self.simulator.now_us + FAULT_US
        self._plan_faults(end_us)
        self.simulator.run(end_us)
        self._heal()

    def _begin(self, clients: "list[Creator] | list[Client]") -> None:
        for client in clients:
            self.simulator.after(self.simulator.random.randrange(20_000), client.connect)

    def _alter(self, topic: str, partitions: int) -> None:
        """Let somebody alter a topic while it is used; the first of them the broker, too."""
        if not self.alters:
            return
        requests = self.simulator.random.randrange(0, 40)
        alterer = Alterer(self.node, self.history, topic, partitions, requests)
        alterer.grown = self._use
        if not self.alterers:
            alterer.resources.append((BROKER, "1000"))
        self.alterers.append(alterer)

    def _use(self, topic: str, number: int) -> None:
        """Write to a partition that was added, and read it."""
        name, partition = f"idempotent-{topic}-{number}", (topic, number)
        producer = ProducerClient(self.node, self.history, name, partition, 20)
        producer.begin_slowly()  # in the middle of faults
        self.producers.append(producer)
        name = f"consumer-{topic}-{number}"
        self.consumers.append(ConsumerClient(self.node, self.history, name, partition))
        self._begin([producer, self.consumers[-1]])

    def _keep(self, topic: str, partitions: int) -> dict[str, str]:
        """Decide what becomes of a topic's records, and return the configurations that say so."""
        rng = self.trims
        fate = rng.choice(("kept", "deleted", "sized", "aged")) if rng is not None else "kept"
        if rng is None or fate == "kept":
            return {}
        if fate == "deleted":
            for number in range(partitions):
                requests = rng.randrange(1, 30)
                self.trimmers.append(Trimmer(self.node, self.history, (topic, number), requests))
            return {}
        if fate == "sized":
            keeps = Keeps(size_bytes=rng.choice((0, 50_000, 300_000)))
            self.history.keeps[topic] = keeps
            return {"retention.bytes": str(keeps.size_bytes)}
        keeps = Keeps(age_ms=rng.choice((20, 200, 1_000)))
        self.history.keeps[topic] = keeps
        return {"retention.ms": str(keeps.age_ms), "segment.ms": str(rng.choice((10, 300)))}

    def _plan_faults(self, end_us: int) -> None:
        rng = self.simulator.random
        kinds = (WalWrite, SegmentWrite, Sync, CheckpointWrite, WalPrepare)
        for _ in range(rng.randrange(0, 10)):
            fault = rng.choice(("kill", "power", "power", "cut", "full", "error"))
            delay_us = rng.randrange(end_us - self.simulator.now_us)
            if fault == "kill":
                self.simulator.after(delay_us, lambda: self.node.crash(power=False))
            elif fault == "power":
                self.simulator.after(delay_us, lambda: self.node.crash(power=True))
            elif fault == "cut":
                self.simulator.after(delay_us, self._cut_all)
            elif fault == "full":
                self.simulator.after(delay_us, lambda: self.node.fill_disk(1_000_000))
            else:
                self.simulator.after(delay_us, partial(self.node.fail_disk, rng.choice(kinds)))

    def _cut_all(self) -> None:
        for link in list(self.node.links.values()):
            link.cut()

    def _heal(self) -> None:
        """No more faults: everything must be answered, and then be there."""
        until_us = self.simulator.now_us + HEAL_US
        for trimmer in self.trimmers:
            trimmer.left = 0
        for alterer in self.alterers:
            alterer.left = 0
        self._verify(until_us)
        self.simulator.run(until_us, lambda: all(p.is_done for p in self.producers))
        waiting = [p.name for p in self.producers if not p.is_done]
        assert not waiting, f"never answered: {waiting}"
        if self.simulator.random.random() < 0.5:
            self.node.crash(power=True)
            self.simulator.run(self.simulator.now_us + 1_000_000)
        self._verify(self.simulator.now_us + HEAL_US)
        for consumer in self.consumers:
            consumer.rewind()

        def drained() -> bool:
            return all(0 <= c.high_watermark <= c.offset for c in self.consumers)

        self.simulator.run(self.simulator.now_us + HEAL_US, drained)
        assert drained(), "consumers never reached the end"
        ends = {consumer.partition: consumer.high_watermark for consumer in self.consumers}
        self.history.check_end(ends)

    def _verify(self, until_us: int) -> None:
        """See that what was altered is so."""
        for alterer in self.alterers:
            alterer.verify()
        self.simulator.run(until_us, lambda: all(a.is_verified for a in self.alterers))
        waiting = [a.name for a in self.alterers if not a.is_verified]
        assert not waiting, f"never answered: {waiting}"


def run_seed(seed: int, *, trims: bool = True, alters: bool = True) -> World:
    """Run one seed; a failure's message has the trace and the command that replays it."""
    world = World(seed, trims=trims, alters=alters)
    try:
        world.run()
    except (AssertionError, MemoryError, CorruptWalError, LayoutError) as failure:
        lines = "\n".join(world.simulator.trace[-TRACE_LINES_MAX:])
        raise AssertionError(
            f"{failure}\n{lines}\nreplay: python -m tests.simulation.world --seed {seed}"
        ) from failure
    return world


def main() -> int:
    """Hunt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1)
    arguments = parser.parse_args()
    failed = []
    crashes = checkpoints = acknowledged = trimmed = altered = added = 0
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        try:
            world = run_seed(seed)
        except Exception:  # noqa: BLE001 a hunt reports whatever it finds and goes on
            failed.append(seed)
            traceback.print_exc(limit=-6)
            continue
        crashes += world.node.crashes
        checkpoints += world.node.checkpoints + world.node.shard.store.checkpointing.count
        acknowledged += len(world.history.acknowledged)
        trimmed += sum(world.history.starts.values())
        altered += sum(alterer.altered for alterer in world.alterers)
        added += sum(alterer.counts[0] - alterer.most + ADDED_MAX for alterer in world.alterers)
    print(
        f"{arguments.count} seeds, {len(failed)} failed {failed[:20]}; {crashes} crashes, "
        f"{checkpoints} checkpoints, {acknowledged} acknowledged records, {trimmed} trimmed, "
        f"{altered} alterations, {added} partitions added"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
