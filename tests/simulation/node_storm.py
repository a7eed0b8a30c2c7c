"""Several cores of a node in a storm, from one seed: deaths, pauses, slow pipes, stopped disks.

`python -m tests.simulation.node_storm --seed 1 --count 100` runs many. Real shards, whose disk
answers at once unless it is stopped; a core that dies loses what its disk was not given yet.
Frames between two cores keep their order; how long they take is up to the seed.

With `--weather power` there are power cuts too, which tear what was being written and take what no
sync covered, and starts with another number of cores, whose former ones hand over what they have.

Rules, checked all the time or at the end:
C1. No two cores serve one partition.
C2. An acknowledged batch is at the offset that was named, once, in its producer's order.
C3. When the storm is over, every partition is served by one core, its home, and no other has it.
C4. Every core's fold of the controller's log is core 0's.
C5. No producer id is handed out twice.
"""

import argparse
import random
import struct
from collections import deque
from collections.abc import Callable

from corelane.model.ids import ConnId
from corelane.shard.effects import Send
from corelane.shard.events import Event, LinkDown, LinkFrame, OperatorRequest
from corelane.wire.compiler import message_type
from corelane.wire.compression import Compression
from corelane.wire.records import (
    BatchBuilder,
    Producer,
    batch_records,
    encode_batch,
    split_batches,
)
from corelane_native import address_of
from tests.unit.api.world import WALL_MS, produce_request
from tests.unit.shard.node import Core, Node

PARTITIONS = 4
STEPS = 120
DELIVERED_MAX = 4
TURNS_MAX = 20_000
END_MS = 50
END_ROUNDS = 60


class StormyNode(Node):
    """A node whose pipes take their time, and whose cores may be paused."""

    def __init__(self, cores: int, chance: random.Random) -> None:
        self.chance = chance
        self.pipes: dict[tuple[int, ConnId], deque[Event]] = {}
        self.peers: dict[tuple[int, ConnId], int] = {}
        self.paused: set[int] = set()
        self.is_slow = False
        super().__init__(cores)
        self.is_slow = True

    def carry(self, sender: Core, effect: Send) -> None:
        if not self.is_slow:
            super().carry(sender, effect)
            return
        data = bytearray()
        for part in effect.parts:
            data += part if isinstance(part, bytes) else sender.arena.view(*part)
        for chunk in effect.chunks_held:
            sender.arena.release(chunk)
        target = self.wires.get((sender.core, effect.conn))
        while data and target is not None:
            (size,) = struct.unpack_from(">i", data)
            frame = bytes(data[4 : 4 + size])
            del data[: 4 + size]
            self.frames.append(frame)  # kept, so that its address stays good
            kind, flags, tag = struct.unpack_from(">hhi", frame)
            event = LinkFrame(target[1], address_of(frame), size, kind, flags, tag)
            self.pipes.setdefault(target, deque()).append(event)

    def kill(self, number: int) -> None:
        """End a process; what it had sent arrives before its end is seen."""
        core = self.cores.pop(number)
        self.dead[number] = core
        self.paused.discard(number)
        for (end, conn), (peer, peer_conn) in [*self.wires.items()]:
            if end == number:
                del self.wires[end, conn], self.wires[peer, peer_conn]
                self.pipes.pop((end, conn), None)
                self.pipes.setdefault((peer, peer_conn), deque()).append(LinkDown(peer_conn))

    def tear(self, core: Core) -> None:
        """Let the oldest of what a stopped disk was asked for be half done, perhaps."""
        for effect in core.held:
            core.disk.submit(effect, core.arena)
        core.held.clear()
        core.disk.crash(power=False)

    def cut_power(self) -> None:
        """End every process; what no sync covered is kept, lost or torn."""
        for number in [*self.cores]:
            self.tear(self.cores[number])
            self.kill(number)
        self.pipes.clear()
        self.tree.lose()

    def restart(self, core_count: int) -> None:
        """Start the whole node, all of whose cores are dead, with that many cores."""
        assert not self.cores
        former, self.dead = self.dead, {}
        self.core_count = core_count
        self.retired = tuple(sorted(number for number in former if number >= core_count))
        for number in (*range(core_count), *self.retired):
            core = former.get(number)
            if core is not None:
                core.held.clear()
                core.holds_disk = False
            self._birth(number, core)

    def _link(self, one: Core, two: Core) -> None:
        """A new link comes after the end of the old one was seen."""
        for core, peer in ((one, two), (two, one)):
            for (number, conn), pipe in [*self.pipes.items()]:
                is_its = number == core.core and self.peers.get((number, conn)) == peer.core
                if is_its and pipe and (number, conn) not in self.wires:
                    core.mail += pipe
                    del self.pipes[number, conn]
        super()._link(one, two)
        for (number, conn), (peer_number, _peer_conn) in self.wires.items():
            self.peers[number, conn] = peer_number

    def run(self) -> None:
        if not self.is_slow:
            super().run()
            return
        for _ in range(self.chance.randrange(1, 12)):
            self.now_ms += 1
            self._deliver()
            for core in [*self.cores.values()]:
                if core.core not in self.paused:
                    core.turn()

    def settle(self) -> None:
        """Run until nothing is on its way."""
        for _ in range(TURNS_MAX):
            self.now_ms += 1
            self._deliver()
            turns = [core.turn() for core in [*self.cores.values()]]
            if not any(turns) and not any(self.pipes.values()):
                return
        raise AssertionError("the node never comes to rest")

    def _deliver(self) -> None:
        for (number, conn), pipe in [*self.pipes.items()]:
            core = self.cores.get(number)
            if core is None:
                del self.pipes[number, conn]
            elif number not in self.paused:
                for _ in range(min(len(pipe), self.chance.randrange(DELIVERED_MAX))):
                    core.mail.append(pipe.popleft())


class Client:
    """The idempotent producer of one partition: one batch under way, the same again until it is
    acknowledged.
    """

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.acknowledged = 0
        self.count = 0
        self.waiting: tuple[int, int] | None = None


class Storm:
    """One run. *has_power_cuts*: the worse weather, whose seeds tell other stories."""

    def __init__(self, seed: int, cores: int, *, has_power_cuts: bool = False) -> None:
        self.chance = random.Random(seed)
        self.has_power_cuts = has_power_cuts
        self.node = StormyNode(cores, self.chance)
        self.node.is_slow = False
        self.node[0].create_topic("t", PARTITIONS)
        self.node.is_slow = True
        self.clients = [Client(partition) for partition in range(PARTITIONS)]
        self.conn = 100
        self.ids: set[int] = set()
        self.asked: list[tuple[int, int]] = []
        self.deaths = self.moves = self.power_cuts = 0

    def run(self) -> None:
        """Storm, and see that all is well afterwards."""
        actions: tuple[Callable[[], None], ...] = (
            *(self.produce,) * 6,
            *(self.wait,) * 6,
            self.kill,
            *(self.revive,) * 2,
            *(self.move,) * 2,
            self.stop_disk,
            *(self.free_disk,) * 2,
            self.pause,
            *(self.go_on,) * 2,
            self.ask_id,
        )
        if self.has_power_cuts:
            actions += (self.cut_power, self.resize)
        for _ in range(STEPS):
            self.chance.choice(actions)()
            self.collect()
            self.check_servers()
        self.end()

    # --- what happens ---

    def any_core(self) -> Core | None:
        living = [core for core in self.node.cores.values() if core.core < self.node.core_count]
        return self.chance.choice(living) if living else None

    def produce(self) -> None:
        """Send somebody's batch."""
        self.send(self.chance.choice(self.clients))

    def send(self, client: Client) -> None:
        """Send a batch, new or again, to who leads as far as some core knows."""
        core = self.any_core()
        if client.waiting is not None or core is None:
            return
        topic = core.shard.groups.cluster.topics.get("t")
        lead = None
        if topic is not None:
            lead = core.shard.groups.lead_of(topic.partitions[client.partition].group)
        if lead is not None and lead.core in self.node.cores:
            core = self.node[lead.core]
        client.count = client.count or self.chance.randrange(1, 4)
        builder = BatchBuilder()
        for number in range(client.acknowledged, client.acknowledged + client.count):
            builder.append(WALL_MS, None, b"%d" % number, ())
        producer = Producer(1_000_000 + client.partition, 0, client.acknowledged)
        batch = encode_batch(builder.payload(Compression.NONE), producer)
        self.conn += 1
        client.waiting = (core.core, self.conn)
        request = produce_request("t", batch, partition=client.partition)
        core.send(request, 9, conn=self.conn)

    def wait(self) -> None:
        self.node.run()

    def kill(self) -> None:
        core = self.any_core()
        if core is not None:
            self.deaths += 1
            if self.has_power_cuts:
                self.node.tear(core)
            self.node.kill(core.core)
            for client in self.clients:
                if client.waiting is not None and client.waiting[0] == core.core:
                    client.waiting = None

    def cut_power(self) -> None:
        self.power_cuts += 1
        self.node.cut_power()
        for client in self.clients:
            client.waiting = None

    def resize(self) -> None:
        """Stop the node, perhaps by the plug, and start it with another number of cores."""
        if self.chance.randrange(3):
            for number in [*self.node.cores]:
                self.node.tear(self.node[number])
                self.node.kill(number)
            self.node.pipes.clear()
            for client in self.clients:
                client.waiting = None
        else:
            self.cut_power()
        self.node.restart(self.chance.randrange(1, 5))

    def revive(self) -> None:
        if self.node.dead:
            number = self.chance.choice([*self.node.dead])
            self.node.dead[number].holds_disk = False
            self.node.revive(number)

    def move(self) -> None:
        if 0 in self.node.cores:
            self.moves += 1
            target = self.chance.randrange(self.node.core_count)
            partition = self.chance.randrange(PARTITIONS)
            arguments = {"topic": "t", "partition": str(partition), "core": str(target)}
            self.node[0].run([OperatorRequest(self.moves, "move", arguments)])

    def stop_disk(self) -> None:
        core = self.any_core()
        if core is not None:
            core.holds_disk = True

    def free_disk(self) -> None:
        for core in [*self.node.cores.values()]:
            if core.holds_disk:
                core.release_disk()

    def pause(self) -> None:
        core = self.any_core()
        if core is not None:
            self.node.paused.add(core.core)

    def go_on(self) -> None:
        self.node.paused.clear()

    def ask_id(self) -> None:
        core = self.any_core()
        if core is not None:
            self.conn += 1
            self.asked.append((core.core, self.conn))
            request = message_type("InitProducerIdRequest")(transactional_id=None)
            core.send(request, 4, conn=self.conn)

    # --- what must hold ---

    def collect(self) -> None:
        """Take the answers that came."""
        for client in self.clients:
            if client.waiting is None:
                continue
            core, conn = client.waiting
            world = self.node.cores.get(core)
            if world is None or conn in world.closed:
                client.waiting = None
                continue
            answer = world.receive(0, 9, conn=conn)
            if answer is None:
                continue
            client.waiting = None
            (row,) = answer[1].responses[0].partition_responses
            if row.error_code == 0:
                assert row.base_offset == client.acknowledged, "C2"
                client.acknowledged += client.count
                client.count = 0
        for core, conn in [*self.asked]:
            world = self.node.cores.get(core)
            answer = None if world is None else world.receive(22, 4, conn=conn)
            if answer is not None and answer[1].error_code == 0:
                assert answer[1].producer_id not in self.ids, "C5"
                self.ids.add(answer[1].producer_id)
                self.asked.remove((core, conn))

    def servers(self, partition: int) -> list[int]:
        found = []
        for number, core in self.node.cores.items():
            topic = core.shard.groups.topics.get(b"t")
            own = None if topic is None else topic.partition(partition)
            if own is not None and own.serves:
                found.append(number)
        return found

    def check_servers(self) -> None:
        for partition in range(PARTITIONS):
            assert len(self.servers(partition)) <= 1, "C1"

    def end(self) -> None:
        """Let the sun shine, and compare."""
        node = self.node
        node.paused.clear()
        while node.dead:
            self.revive()
        for _ in range(END_ROUNDS):
            self.free_disk()
            node.settle()
            self.collect()
            self.check_servers()
            is_served = all(self.servers(partition) for partition in range(PARTITIONS))
            if is_served and node.is_ready and not node[0].shard.groups.moves.is_busy:
                break
            node.now_ms += END_MS
        assert node.is_ready
        assert not node[0].shard.groups.moves.is_busy, "a move never ends"
        groups = [part.group for part in node[0].shard.groups.cluster.topics["t"].partitions]
        for client in self.clients:
            while client.waiting is not None or client.count:
                self.send(client)
                node.settle()
                self.collect()
            (server,) = self.servers(client.partition)
            group = groups[client.partition]
            assert node[0].shard.groups.siblings.home_of(group) == server, "C3"
            owners = [n for n, c in node.cores.items() if group in c.shard.groups.owned()]
            assert owners == [server], "C3"
            assert self.read(server, client) == list(range(client.acknowledged)), "C2"
        folds = {core.shard.groups.cluster.encode() for core in node.cores.values()}
        assert len(folds) == 1, "C4"

    def read(self, server: int, client: Client) -> list[int]:
        """Return every record of a partition."""
        found: list[int] = []
        core = self.node[server]
        while True:
            self.conn += 1
            request = core.fetch_request("t", len(found), partition=client.partition)
            core.send(request, 12, self.conn)
            self.node.settle()
            answer = core.receive(1, 12, conn=self.conn)
            assert answer is not None
            (row,) = answer[1].responses[0].partitions
            assert row.error_code == 0
            if not row.records:
                return found
            for batch in split_batches(row.records):
                records = batch_records(batch, "t", client.partition)
                found += [int(record.value or b"") for record in records]


def main() -> None:
    """Run many storms; a failure names its seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--cores", type=int, default=3)
    parser.add_argument("--weather", choices=("cores", "power"), default="cores")
    options = parser.parse_args()
    deaths = moves = records = failures = power_cuts = 0
    for seed in range(options.seed, options.seed + options.count):
        storm = Storm(seed, options.cores, has_power_cuts=options.weather == "power")
        try:
            storm.run()
        except Exception as failure:  # noqa: BLE001 - whatever it is, the seed is what matters
            failures += 1
            print(f"seed {seed}: {type(failure).__name__} {failure}")
        deaths += storm.deaths
        moves += storm.moves
        power_cuts += storm.power_cuts
        records += sum(client.acknowledged for client in storm.clients)
    print(
        f"{options.count} storms, {failures} failed: {deaths} deaths, {power_cuts} power cuts,"
        f" {moves} moves, {records} records"
    )


if __name__ == "__main__":
    main()
