"""Three nodes of one core in one process: real shards, and a network between them that can fail.

Time is virtual and moves by milliseconds; disks answer at once. What a node sends to another
arrives in its order, later or never. `check` is called after every step.
"""

import random
import struct
from collections.abc import Callable, Sequence

from corelane.model.ids import ConnId, CoreId, GroupId, NodeId, core_broker_id
from corelane.model.record import record
from corelane.shard.config import Advertised, ListenerBrokers, PeerPlace, ShardConfig
from corelane.shard.effects import Close, Dial, Effect, Send
from corelane.shard.events import Event, Opened, Request
from corelane.shard.member import Member
from corelane.shard.peers.events import (
    Dialed,
    DialFailed,
    PeerAccepted,
    PeerClosed,
    PeerEvent,
    PeerFrame,
)
from corelane.wire.compiler import Message, message_type
from corelane.wire.frame import encode_request
from corelane_native import address_of
from tests.simulation.sim_disk import SimDisk
from tests.unit.api.world import WALL_MS, World, key_of

PEER_CONNS = 1_000_000
NODES = (1, 2, 3)
DELAYS_MS = (0, 0, 1, 1, 2, 5, 30)
DIAL_MS_MAX = 900


class SimNode(World):
    """One node; `World`'s client speaks to it, its peers are the network's."""

    def __init__(self, net: "Cluster", number: int) -> None:
        self.net = net
        self.number = number
        self.mail: list[Event] = []
        self.boot = 0
        self.is_up = False
        self.paused_until_ms = 0
        self.wall_jump_ms = 0
        self.rests = False
        """Turns only when something happened or is due, as a real core does, not every ms."""
        self.turns = 0
        self.frames: list[bytes] = []
        self.directory = f"d{number}"
        super().__init__(net.settings, SimDisk(number))

    def shard_config(self) -> ShardConfig:
        self.boot += 1
        node = NodeId(self.number)
        broker = Advertised(core_broker_id(node, CoreId(0)), f"h{self.number}", 19092, None)
        # The founder knows nobody: those that join introduce themselves.
        founds = self.number == 1 and self.directory == "d1"
        other = 2 if self.number == 1 else 1
        known = () if founds else ((NodeId(other), f"n{other}", 9192),)
        return ShardConfig(
            node=node,
            core=CoreId(0),
            core_count=1,
            cluster_id=b"corelane-cluster",
            listeners=[ListenerBrokers("PLAINTEXT", [broker])],
            self_broker=0,
            config=self.config,
            random=random.Random(self.number * 1_000 + self.boot),
            peer=PeerPlace(
                f"n{self.number}", 9192, self.net.now_ms + self.boot, self.directory, known
            ),
            founds=founds,
        )

    def come_up(self) -> None:
        self.is_up = True

    def run(self, events: list[Event]) -> None:
        self.mail += events

    def turn(self) -> None:
        """Step once."""
        if self.rests and self.next_turn_ms() > self.net.now_ms:
            return
        self.turns += 1
        events, self.mail = self.mail, []
        self.now_ms = self.net.now_ms
        wall_ms = WALL_MS + self.now_ms + self.wall_jump_ms
        for effect in self.shard.step(self.now_ms, wall_ms, events):
            self.mail += self.perform(effect)
        self.frames.clear()

    def next_turn_ms(self) -> int:
        """Return when to turn next, as things are."""
        if self.mail:
            return self.paused_until_ms
        return max(self.paused_until_ms, self.shard.next_deadline_ms() or 0)

    def perform(self, effect: Effect) -> list[Event]:
        if isinstance(effect, Dial):
            self.net.dial(self, effect)
            return []
        if isinstance(effect, Close) and effect.conn >= PEER_CONNS:
            self.net.close(self, effect.conn)
            return []
        if isinstance(effect, Send) and effect.conn >= PEER_CONNS:
            data = bytearray()
            for part in effect.parts:
                data += part if isinstance(part, bytes) else self.arena.view(*part)
            for chunk in effect.chunks_held:
                self.arena.release(chunk)
            self.net.carry(self, effect.conn, bytes(data))
            return []
        return super().perform(effect)

    def ask(self, message: Message, version: int, conn: int) -> None:
        """Have a request arrive with the next step."""
        self.correlation += 1
        key = key_of(message)
        frame = encode_request(key, version, self.correlation, "test", message)[4:]
        self.frames.append(frame)  # kept, so that its address stays good
        if conn not in self.shard.connections:
            self.mail.append(Opened(ConnId(conn), 0, f"client-{conn}"))
        head = struct.unpack_from(">hhi", frame)
        self.mail.append(Request(ConnId(conn), address_of(frame), len(frame), *head))

    @property
    def members(self) -> dict[int, Member]:
        """Return what this node has of raft groups."""
        return {int(group): member for group, member in self.shard.groups.members.items()}


@record
class _Post:
    """Something on its way."""

    at_ms: int
    node: SimNode
    boot: int
    event: PeerEvent


class Cluster:
    """The nodes and what is between them."""

    def __init__(
        self,
        seed: int,
        check: Callable[[], None] | None = None,
        settings: str = "",
        numbers: Sequence[int] = NODES,
    ) -> None:
        self.settings = settings
        self.chance = random.Random(seed)
        self.now_ms = 1_000
        self.cut: set[tuple[int, int]] = set()
        """Directions in which nothing arrives; a connection that lost something stays dead."""
        self.check = check or _unchecked
        self.carried = 0
        """Frames between nodes."""
        self._next_conn = PEER_CONNS
        self._ends: dict[ConnId, tuple[SimNode, ConnId]] = {}
        self._dead: set[ConnId] = set()
        self._posts: list[_Post] = []
        self._last_ms: dict[tuple[int, ConnId], int] = {}
        self.nodes = {number: SimNode(self, number) for number in numbers}

    # --- what nodes ask for ---

    def dial(self, node: SimNode, effect: Dial) -> None:
        """Connect, if the other side listens and can be reached."""
        target = self.nodes[int(effect.host.removeprefix("n"))]
        ways = {(node.number, target.number), (target.number, node.number)}
        if ways & self.cut:
            self._post(node, DialFailed(effect.dial, False, "time-out"), ConnId(0), DIAL_MS_MAX)
            return
        if not target.is_up:
            self._post(node, DialFailed(effect.dial, True, "refused"), ConnId(0), 1)
            return
        near, far = ConnId(self._next_conn + 1), ConnId(self._next_conn + 2)
        self._next_conn += 2
        self._ends[near], self._ends[far] = (target, far), (node, near)
        self._post(node, Dialed(effect.dial, near), near, 2)
        self._post(target, PeerAccepted(far), far, 1)

    def carry(self, node: SimNode, conn: ConnId, data: bytes) -> None:
        """Bring frames to the other end of a connection."""
        if conn not in self._ends:
            return
        target, far = self._ends[conn]
        at = 0
        while at < len(data):
            (size,) = struct.unpack_from(">I", data, at)
            frame = data[at + 4 : at + 4 + size]
            at += 4 + size
            self.carried += 1
            if (node.number, target.number) in self.cut:
                self._dead |= {conn, far}
            if conn not in self._dead:
                delay_ms = self.chance.choice(DELAYS_MS)
                self._post(target, PeerFrame(far, memoryview(frame)), far, delay_ms)

    def close(self, node: SimNode, conn: ConnId) -> None:
        """End a connection; the other end hears of it."""
        found = self._ends.pop(conn, None)
        if found is not None:
            target, far = found
            self._ends.pop(far, None)
            self._post(target, PeerClosed(far), far, 1)
        node.mail.append(PeerClosed(conn))

    def _post(self, node: SimNode, event: PeerEvent, conn: ConnId, delay_ms: int) -> None:
        key = (node.number, conn)
        at_ms = max(self.now_ms + delay_ms, self._last_ms.get(key, 0))
        self._last_ms[key] = at_ms
        self._posts.append(_Post(at_ms, node, node.boot, event))

    # --- what tests do ---

    def go(self, ms: int) -> None:
        """Let time pass."""
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            self.now_ms = min(end_ms, self._next_ms())
            due = [post for post in self._posts if post.at_ms <= self.now_ms]
            self._posts = [post for post in self._posts if post.at_ms > self.now_ms]
            for post in sorted(due, key=lambda each: each.at_ms):  # stable: in their order
                if post.node.is_up and post.node.boot == post.boot:
                    post.node.mail.append(post.event)
            for node in self.nodes.values():
                if node.is_up and node.paused_until_ms <= self.now_ms:
                    node.turn()
            self.check()

    def _next_ms(self) -> int:
        """Return the next time that something is to be done at: where all rest, time leaps."""
        next_ms = self.now_ms + 1
        up = self.up()
        if not all(node.rests for node in up):
            return next_ms
        times = [node.next_turn_ms() for node in up] + [post.at_ms for post in self._posts]
        return max(next_ms, min(times, default=1 << 62))

    def kill(self, number: int) -> None:
        """End a node's processes; its disk stays."""
        node = self.nodes[number]
        node.is_up = False
        for conn, (target, far) in [*self._ends.items()]:
            if target is node and conn in self._ends:
                owner, _ = self._ends[far]
                del self._ends[conn], self._ends[far]
                self._post(owner, PeerClosed(conn), conn, 1)

    def revive(self, number: int) -> None:
        """Begin a node's next life."""
        node = self.nodes[number]
        node.mail = []
        node.paused_until_ms = 0
        node.start()

    def up(self) -> list[SimNode]:
        """Return the nodes that live."""
        return [node for node in self.nodes.values() if node.is_up]

    def leaders(self, group: int) -> list[SimNode]:
        """Return the nodes that serve a group."""
        found = []
        for node in self.up():
            member = node.shard.groups.members.get(GroupId(group))
            if member is not None and member.serves:
                found.append(node)
        return found

    def leader(self, group: int, ms_max: int = 20_000) -> SimNode:
        """Wait until a group is led, and return by whom."""
        end_ms = self.now_ms + ms_max
        while not self.leaders(group):
            assert self.now_ms < end_ms, f"group {group} has no leader"
            self.go(1)
        return self.leaders(group)[0]

    def call(
        self, node: SimNode, message: Message, version: int, *, conn: int = 1, ms_max: int = 8_000
    ) -> Message:
        """Send a request to a node and wait for its answer."""
        node.ask(message, version, conn)
        for _ in range(ms_max):
            self.go(1)
            answer = node.receive(key_of(message), version, conn)
            if answer is not None:
                return answer[1]
        raise AssertionError(f"no answer after {ms_max} ms")

    def create_topic(
        self, node: SimNode, name: str, partitions: int, replicas: int = 3, segment_bytes: int = 0
    ) -> None:
        """Create a topic through any node, and wait until it can be used."""
        topic = message_type("CreateTopicsRequest.CreatableTopic")
        config = message_type("CreateTopicsRequest.CreatableTopicConfig")
        size = config(name="internal.segment.bytes", value=str(segment_bytes))
        configs = [size] if segment_bytes else []
        wish = topic(
            name=name, num_partitions=partitions, replication_factor=replicas, configs=configs
        )
        request = message_type("CreateTopicsRequest")(topics=[wish], timeout_ms=5_000)
        row = self.call(node, request, 7, conn=2).topics[0]
        assert row.error_code == 0, row.error_message

    def form(self) -> None:
        """Wait until all nodes are registered, and three vote in the controller's group."""
        for _ in range(100):
            self.go(100)
            configurations = {
                node.shard.groups.controller.raft.configuration.voters
                for node in self.up()
                if len(node.shard.groups.cluster.nodes) == len(self.nodes)
            }
            if {len(voters) for voters in configurations} == {len(NODES)}:
                return
        raise AssertionError("no cluster of three after ten seconds")


def _unchecked() -> None:
    """Look at nothing."""
