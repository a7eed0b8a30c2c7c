"""The kernel of the simulation: an event heap on virtual time, nodes with real shards, a network.

One seed decides everything. A node is one core: the production shard over a simulated disk; its
clients reach it over connections with delays. A node can be killed, lose its power, run into a
failing or full disk, and comes back by real recovery. Nothing here sleeps, forks or opens a file.
"""

import errno
import heapq
import random
from collections.abc import Callable
from typing import Protocol

from corelane.api.table import API_TABLE
from corelane.model.config import Config, parse
from corelane.model.ids import BrokerId, ConnId, CoreId, NodeId
from corelane.shard.config import Advertised, ListenerBrokers, ShardConfig
from corelane.shard.effects import (
    Close,
    Dial,
    Effect,
    Emptied,
    Exit,
    HoldProduce,
    LogLine,
    OperatorAnswer,
    Pause,
    Resume,
    Send,
    Stopped,
    Work,
)
from corelane.shard.events import Closed, Event, Opened, Request, WorkDone
from corelane.shard.shard import Shard
from corelane.storage.effects import DiskDone, DiskEffect, SegmentWrite, WalPrepare, WalWrite
from corelane.storage.news import StorageFailureError
from corelane.storage.recovery import RecoverySettings, recover
from corelane.storage.store import StoreSettings
from corelane_native import Arena, address_of
from tests.simulation.sim_disk import Queue, SimDisk

MIB = 1024 * 1024
KIB = 1024
ARENA_BYTES = 24 * MIB
SETTINGS = RecoverySettings(
    StoreSettings(
        wal_file_bytes=2 * MIB,
        wal_files_max=6,
        wal_flight_bytes_max=4 * MIB,
        checkpoint_bytes=1 * MIB,
    ),
    ARENA_BYTES,
    256 * KIB,
)
WALL_START_MS = 1_700_000_000_000
REST_MS_MAX = 200
AT_ONCE = (0.0, 0.5)
"""The share of the log's writes that their own turn makes: one of these in each life."""


class Simulator:
    """Virtual time in microseconds, and what happens when."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_us = 0
        self.trace: list[str] = []
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay_us: int, act: Callable[[], None]) -> None:
        """Do *act* once, *delay_us* from now."""
        self._count += 1
        heapq.heappush(self._heap, (self.now_us + max(0, delay_us), self._count, act))

    def run(self, until_us: int, done: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until *until_us*, or until *done*."""
        while self._heap and self._heap[0][0] <= until_us and not done():
            self.now_us, _number, act = heapq.heappop(self._heap)
            act()
        if not done():
            self.now_us = max(self.now_us, until_us)

    def say(self, text: str) -> None:
        """Add a line to the trace that a failure prints."""
        self.trace.append(f"{self.now_us / 1000:10.3f} ms  {text}")


class Endpoint(Protocol):
    """A client's end of a connection."""

    def received(self, data: bytes) -> None:
        """Take bytes of answers, in order."""

    def lost(self) -> None:
        """The connection is gone."""


class Link:
    """One connection: bytes arrive late but in order, in both directions."""

    def __init__(self, node: "Node", conn: ConnId, client: Endpoint) -> None:
        self.node = node
        self.conn = conn
        self.client = client
        self.is_open = True
        self._to_node_us = 0
        self._to_client_us = 0

    def send(self, frame: bytes) -> None:
        """Carry one request frame, without its length prefix, to the node."""
        if not self.is_open:
            return
        simulator = self.node.simulator
        self._to_node_us = max(self._to_node_us, simulator.now_us + self.node.latency_us())

        def arrive() -> None:
            if self.is_open:
                self.node.request(self.conn, frame)

        simulator.after(self._to_node_us - simulator.now_us, arrive)

    def answer(self, data: bytes) -> None:
        """Carry answers to the client."""
        simulator = self.node.simulator
        self._to_client_us = max(self._to_client_us, simulator.now_us + self.node.latency_us())

        def arrive() -> None:
            if self.is_open:
                self.client.received(data)

        simulator.after(self._to_client_us - simulator.now_us, arrive)

    def cut(self) -> None:
        """End the connection on both sides."""
        if self.is_open:
            self.is_open = False
            self.node.disconnected(self.conn)
            self.node.simulator.after(self.node.latency_us(), self.client.lost)


class Node:
    """One core with its disk; `life` counts its starts, and what belongs to an old life is void."""

    def __init__(self, simulator: Simulator, seed: int, settings: str = "") -> None:
        self.simulator = simulator
        self.disk = SimDisk(seed)
        self.config: Config = parse(settings)
        self.life = 0
        self.is_up = False
        self.links: dict[ConnId, Link] = {}
        self.logs: list[str] = []
        self.crashes = 0
        self.checkpoints = 0
        self._inbox: list[Event] = []
        self._frames: list[bytes] = []
        self._turn_at_us = -1
        self._conn = 0
        self._queue_us = dict.fromkeys(Queue, 0)
        self._at_once = 0.0

    # --- life and death ---

    def start(self) -> None:
        """Recover from the disk and serve."""
        assert not self.is_up
        self.life += 1
        self.is_up = True
        self._inbox = []
        self._queue_us = dict.fromkeys(Queue, 0)
        self.arena = Arena(ARENA_BYTES)
        self._at_once = self.simulator.random.choice(AT_ONCE)
        advertised = Advertised(BrokerId(1000), "127.0.0.1", 19092, None)
        config = ShardConfig(
            NodeId(1),
            CoreId(0),
            1,
            b"simulated-broker",
            [ListenerBrokers("PLAINTEXT", [advertised])],
            0,
            self.config,
            self.simulator.random,
        )
        recovered = recover(self.disk, self.arena, SETTINGS)
        assert not recovered.damaged, recovered.damaged
        self.shard = Shard(config, recovered, self.arena, API_TABLE)
        self.simulator.say(
            f"node starts, life {self.life}: {recovered.records_replayed} records, {recovered.cut}"
        )
        self._wake(0)

    def crash(self, *, power: bool) -> None:
        """Die at once: kill -9, or a power cut that takes what no sync covered."""
        if not self.is_up:
            return
        self.simulator.say("power cut" if power else "kill -9")
        self.crashes += 1
        self.is_up = False
        self.life += 1
        self.checkpoints += self.shard.store.checkpointing.count
        self.disk.crash(power=power)
        for link in list(self.links.values()):
            link.is_open = False
            self.simulator.after(self.latency_us(), link.client.lost)
        self.links.clear()
        self._turn_at_us = -1
        self.simulator.after(self.simulator.random.randrange(5_000, 300_000), self.start)

    def latency_us(self) -> int:
        """Return how long the network takes this time."""
        return self.simulator.random.choice((30, 50, 100, 200, 2_000))

    # --- connections ---

    def connect(self, client: Endpoint) -> Link | None:
        """Return a connection, or None while nobody listens."""
        if not self.is_up:
            return None
        self._conn += 1
        link = Link(self, ConnId(self._conn), client)
        self.links[link.conn] = link
        self._event(Opened(link.conn, 0, f"client-{self._conn}"))
        return link

    def disconnected(self, conn: ConnId) -> None:
        """Take the news that a client went away."""
        if self.is_up and self.links.pop(conn, None) is not None:
            self._event(Closed(conn, "gone"))

    def request(self, conn: ConnId, frame: bytes) -> None:
        """Take a request frame; its memory lives until the turn is over."""
        if not self.is_up or conn not in self.links:
            return
        self._frames.append(frame)
        key = int.from_bytes(frame[0:2], "big")
        version = int.from_bytes(frame[2:4], "big")
        correlation = int.from_bytes(frame[4:8], "big")
        self._event(Request(conn, address_of(frame), len(frame), key, version, correlation))

    # --- the turn ---

    def _event(self, event: Event) -> None:
        self._inbox.append(event)
        self._wake(self.simulator.random.choice((5, 20, 100)))

    def _wake(self, delay_us: int) -> None:
        at_us = self.simulator.now_us + delay_us
        if 0 <= self._turn_at_us <= at_us:
            return
        self._turn_at_us = at_us
        life = self.life

        def turn() -> None:
            if self.life == life and self._turn_at_us == at_us:
                self._turn_at_us = -1
                self._turn()

        self.simulator.after(delay_us, turn)

    def _turn(self) -> None:
        events, self._inbox = self._inbox, []
        frames, self._frames = self._frames, []
        now_ms = self.simulator.now_us // 1000
        try:
            self._step(now_ms, events)
        except StorageFailureError as failure:
            self.simulator.say(f"the core exits: {failure}")
            self.crash(power=False)
            return
        del frames
        assert self.arena.bytes_in_use <= ARENA_BYTES
        deadline_ms = self.shard.next_deadline_ms()
        if deadline_ms is not None:
            self._wake(max(50, min(deadline_ms - now_ms, REST_MS_MAX) * 1000))

    def _step(self, now_ms: int, events: list[Event]) -> None:
        """Have the shard turn, as the loop has it: some writes to the log are made at once."""
        shard, life = self.shard, self.life
        done: DiskDone | None = None
        for effect in shard.begin(now_ms, WALL_START_MS + now_ms, events):
            is_lone = isinstance(effect, WalWrite) and not self.disk.queues[Queue.WAL]
            if is_lone and self.simulator.random.random() < self._at_once:
                self.disk.submit(effect, self.arena)  # type: ignore[arg-type]
                done = self.disk.complete(Queue.WAL)
            elif self.life == life:
                self._perform(effect)
        for effect in shard.finish(done) if self.life == life else ():
            self._perform(effect)
        for effect in shard.tend() if self.life == life else ():
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send():
                data = b"".join(
                    part if isinstance(part, bytes) else bytes(self.arena.view(*part))
                    for part in effect.parts
                )
                for chunk in effect.chunks_held:
                    self.arena.release(chunk)
                link = self.links.get(effect.conn)
                if link is not None:
                    link.answer(data)
            case Close():
                link = self.links.get(effect.conn)
                if link is not None:
                    link.cut()
            case Work():
                self._work(effect)
            case LogLine():
                self.logs.append(effect.text)
            case Exit():
                self.crash(power=False)
            case HoldProduce() | Pause() | Resume() | Stopped() | OperatorAnswer() | Emptied():
                pass
            case Dial():
                raise AssertionError("this node stands alone")
            case _:
                self._submit(effect)

    def _work(self, effect: Work) -> None:
        life = self.life
        try:
            done = WorkDone(effect.job, effect.function(*effect.arguments), None)
        except ValueError as fault:
            done = WorkDone(effect.job, None, str(fault))

        def finished() -> None:
            if self.life == life:
                self._event(done)

        self.simulator.after(self.simulator.random.randrange(50, 2_000), finished)

    def _submit(self, effect: DiskEffect) -> None:
        """Give the disk something to do; it answers later, in order within one queue."""
        before = {queue: len(self.disk.queues[queue]) for queue in Queue}
        self.disk.submit(effect, self.arena)
        queue = next(q for q in Queue if len(self.disk.queues[q]) > before[q])
        delay_us = self.simulator.random.choice((60, 90, 150, 400, 5_000))
        at_us = max(self._queue_us[queue], self.simulator.now_us) + delay_us
        self._queue_us[queue] = at_us
        life = self.life

        def complete() -> None:
            if self.life == life:
                self._event(self.disk.complete(queue))

        self.simulator.after(at_us - self.simulator.now_us, complete)

    # --- faults ---

    def fill_disk(self, for_us: int) -> None:
        """Let the disk have no space for a while."""
        self.simulator.say("disk full")
        for kind in (WalPrepare, SegmentWrite):
            self.disk.fail(kind, errno.ENOSPC, times=self.simulator.random.randrange(1, 5))
        del for_us

    def fail_disk(self, kind: type) -> None:
        """Let one effect of that kind fail with EIO."""
        self.simulator.say(f"EIO on {kind.__name__}")
        self.disk.fail(kind, errno.EIO, partly=self.simulator.random.random() < 0.5)
