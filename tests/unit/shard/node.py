"""A node of several cores in one process: real shards, links that carry frames at once.

`Core` is the api tests' `World` for one of them: a client's calls through it run the whole node
until everything rests. `kill(core)` and `revive(core)` are a process's death and its next life.
"""

import random
import struct

from corelane.model.ids import ConnId, CoreId, NodeId, core_broker_id, node_broker_id
from corelane.shard.config import Advertised, ListenerBrokers, ShardConfig
from corelane.shard.effects import Close, Effect, Send
from corelane.shard.events import Event, LinkDown, LinkFrame, LinkUp, Opened, Request
from corelane_native import address_of
from tests.simulation.sim_disk import SimDisk
from tests.simulation.sim_tree import Tree
from tests.unit.api.world import WALL_MS, World

LINK_CONNS = 1_000_000
BOOTSTRAP = 1
OUTSIDE_HOST = "broker.example"
"""What the second listener tells its clients, whose tokens are 2 and 3."""
TURNS_MAX = 3000
REST_MS = 10


class Core(World):
    """One core of a node."""

    def __init__(self, node: "Node", core: int, settings: str = "") -> None:
        self.node = node
        self.core = core
        self.mail: list[Event] = []
        self.is_up = False
        self.listener = 0
        super().__init__(settings, SimDisk(core, node.tree, f"core-{core:02d}"))

    def shard_config(self) -> ShardConfig:
        node = NodeId(1)
        count = self.node.core_count
        is_node = self.config.network.advertise == "node"
        listeners = []
        for name, host in (("INSIDE", "127.0.0.1"), ("OUTSIDE", OUTSIDE_HOST)):
            if is_node:
                brokers = [Advertised(node_broker_id(node), host, 9092, None)]
            else:
                brokers = [
                    Advertised(core_broker_id(node, CoreId(core)), host, 19092 + core, None)
                    for core in range(count)
                ]
            listeners.append(ListenerBrokers(name, brokers))
        return ShardConfig(
            node=node,
            core=CoreId(self.core),
            core_count=count,
            cluster_id=b"corelane-cluster",
            listeners=listeners,
            self_broker=0 if is_node else min(self.core, count - 1),
            config=self.config,
            random=random.Random(self.core),
            retired=tuple(CoreId(core) for core in self.node.retired),
        )

    def come_up(self) -> None:
        """Its links come first; the node's next run does it."""

    def run(self, events: list[Event]) -> None:
        self.mail += events
        self.node.run()

    def turn(self) -> bool:
        """Step once if there is something to do; return whether there was."""
        deadline_ms = self.shard.next_deadline_ms()
        is_due = deadline_ms is not None and deadline_ms < self.node.now_ms + REST_MS
        if not (self.mail or is_due or not self.is_up):
            return False
        self.is_up = True
        events, self.mail = self.mail, []
        self.now_ms = self.node.now_ms
        for effect in self.shard.step(self.now_ms, self.wall_ms, events):
            self.mail += self.perform(effect)
        return True

    def perform(self, effect: Effect) -> list[Event]:
        if isinstance(effect, Send) and effect.conn >= LINK_CONNS:
            self.node.carry(self, effect)
            return []
        if isinstance(effect, Close) and effect.conn >= LINK_CONNS:
            raise AssertionError("nobody closes a link that is whole")
        return super().perform(effect)

    def send_frame(self, frame: bytes, conn: int = 1) -> None:
        if conn not in self.shard.connections:
            self.closed.pop(conn, None)
            self.run([Opened(ConnId(conn), self.listener, f"client-{conn}")])
        self.node.frames.append(frame)  # kept, so that its address stays good
        key, version, correlation = struct.unpack_from(">hhi", frame)
        request = Request(ConnId(conn), address_of(frame), len(frame), key, version, correlation)
        self.run([request])

    def pass_time(self, ms: int) -> None:
        self.node.pass_time(ms)


class Node:
    """Cores and the links between them."""

    def __init__(
        self,
        core_count: int,
        settings: str = "",
        *,
        retired: tuple[int, ...] = (),
        tree: Tree | None = None,
    ) -> None:
        self.core_count = core_count
        self.retired = retired
        self.settings = settings
        self.now_ms = 1000
        self.tree = tree or Tree(random.Random(7))
        self.cores: dict[int, Core] = {}
        self.wires: dict[tuple[int, ConnId], tuple[int, ConnId]] = {}
        self.boots: dict[int, int] = {}
        self.frames: list[bytes] = []
        self.dead: dict[int, Core] = {}
        self._next_conn = LINK_CONNS
        for core in (*range(core_count), *retired):
            self._birth(core)
        self.run()

    def __getitem__(self, core: int) -> Core:
        return self.cores[core]

    def _birth(self, number: int, former: Core | None = None) -> None:
        self.boots[number] = self.boots.get(number, 0) + 1
        if former is None:
            core = Core(self, number, self.settings)
        else:
            core = former
            core.mail = []
            core.is_up = False
            core.inbox = {}
            core.start()
        self.cores[number] = core
        for other in [*self.cores.values()]:
            if other is not core:
                self._link(core, other)

    def _link(self, one: Core, two: Core) -> None:
        conns = []
        for core, peer in ((one, two), (two, one)):
            self._next_conn += 1
            conn = ConnId(self._next_conn)
            conns.append(conn)
            is_retired = peer.core >= self.core_count
            core.mail.append(LinkUp(conn, CoreId(peer.core), self.boots[peer.core], is_retired))
        self.wires[one.core, conns[0]] = (two.core, conns[1])
        self.wires[two.core, conns[1]] = (one.core, conns[0])

    def carry(self, sender: Core, effect: Send) -> None:
        """Bring what a core sends over a link to the core at its other end."""
        data = bytearray()
        for part in effect.parts:
            data += part if isinstance(part, bytes) else sender.arena.view(*part)
        for chunk in effect.chunks_held:
            sender.arena.release(chunk)
        target = self.wires.get((sender.core, effect.conn))
        if target is None:
            return
        number, conn = target
        while data:
            (size,) = struct.unpack_from(">i", data)
            frame = bytes(data[4 : 4 + size])
            assert len(frame) == size
            del data[: 4 + size]
            self.frames.append(frame)  # kept, so that its address stays good
            kind, flags, tag = struct.unpack_from(">hhi", frame)
            event = LinkFrame(conn, address_of(frame), size, kind, flags, tag)
            self.cores[number].mail.append(event)

    def kill(self, number: int) -> None:
        """End a core's process; its disk stays."""
        core = self.cores.pop(number)
        self.dead[number] = core
        for (end, conn), (peer, peer_conn) in [*self.wires.items()]:
            if end == number:
                del self.wires[end, conn], self.wires[peer, peer_conn]
                self.cores[peer].mail.append(LinkDown(peer_conn))
        self.run()

    def revive(self, number: int) -> Core:
        """Begin a core's next life."""
        core = self.dead.pop(number)
        core.held.clear()
        self._birth(number, core)
        self.run()
        return core

    def run(self) -> None:
        """Step every core until all rest."""
        for _ in range(TURNS_MAX):
            self.now_ms += 1
            turns = [core.turn() for core in [*self.cores.values()]]
            if not any(turns):
                self.frames.clear()
                return
        raise AssertionError("the node never comes to rest")

    def pass_time(self, ms: int) -> None:
        """Let time go by."""
        self.now_ms += ms
        for core in self.cores.values():
            core.wall_ms = WALL_MS + self.now_ms
        self.run()

    @property
    def is_ready(self) -> bool:
        """Whether every core serves what belongs to it."""
        return all(core.shard.is_ready for core in self.cores.values())
