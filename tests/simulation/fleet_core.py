"""One core of a simulated machine: the production shard, its disk's answers, and its clients."""

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from corelane.api.table import API_TABLE
from corelane.model.ids import ConnId, CoreId, NodeId, core_broker_id
from corelane.shard.config import Advertised, ListenerBrokers, PeerPlace, ShardConfig
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
from corelane.shard.member import Member
from corelane.shard.shard import Shard
from corelane.storage.effects import DiskEffect
from corelane.storage.news import StorageFailureError
from corelane.storage.recovery import RecoverySettings, recover
from corelane.storage.store import StoreSettings
from corelane.wire.compiler import Message, api_keys
from corelane.wire.frame import decode_response, encode_request
from corelane_native import Arena, address_of
from tests.simulation.sim_disk import Queue, SimDisk

if TYPE_CHECKING:
    from tests.simulation.fleet import Machine

MIB = 1 << 20
ARENA_BYTES = 24 * MIB
SETTINGS: Final = RecoverySettings(
    StoreSettings(
        wal_file_bytes=MIB,
        wal_files_max=6,
        wal_flight_bytes_max=2 * MIB,
        checkpoint_bytes=256 * 1024,
    ),
    ARENA_BYTES,
    256 * 1024,
)
WALL_START_MS = 1_700_000_000_000
DISK_US = (60, 90, 150, 400, 1_000, 6_000)
TURN_US = (20, 200, 800, 2_000)
CLIENT_US = (30, 60, 200, 1_500)
PEER_CONNS = 1_000_000
LINK_CONNS = 2_000_000
LOGS_MAX = 400
KEYS: Final = {name: key for key, name in api_keys().items()}
TOUCHED: Final[list[Member]] = []
"""The members that did something in the step under way."""

Answered = Callable[[Message | None], None]
"""Hears the answer; None: the connection is gone."""


class FleetCore:
    """A life of a core; the next one is another object on the same disk."""

    def __init__(self, machine: "Machine", number: int, disk: SimDisk) -> None:
        self.machine = machine
        self.number = number
        self.disk = disk
        self.fleet = fleet = machine.fleet
        fleet.boots += 1
        self.life = self.boot = fleet.boots
        self.is_dead = False
        self.unlinked_us: dict[int, int] = {}
        """When it hears of the end of its last link to a sibling."""
        self.paused_until_us = 0
        self.stalled_until_us = 0
        self.seen: dict[Member, tuple[int, int, int]] = {}
        self.logs: deque[str] = deque(maxlen=LOGS_MAX)
        self.sessions: dict[ConnId, Session] = {}
        self.arena = Arena(ARENA_BYTES)
        recovered = recover(disk, self.arena, SETTINGS)
        assert not recovered.damaged, recovered.damaged
        self.shard = Shard(self._config(), recovered, self.arena, API_TABLE)
        self._mail: list[Event] = []
        self._frames: list[bytes] = []
        self._turn_at_us = -1
        self._queue_us = dict.fromkeys(Queue, 0)

    def _config(self) -> ShardConfig:
        machine, fleet = self.machine, self.fleet
        node, count = NodeId(machine.number), machine.core_count
        host = f"h{machine.number}"
        brokers = [
            Advertised(core_broker_id(node, CoreId(core)), host, 19_092 + core, None)
            for core in range(count)
        ]
        # The founder knows nobody: those that join introduce themselves.
        known = () if machine.number == 1 else ((NodeId(1), "n1", 9192),)
        return ShardConfig(
            node=node,
            core=CoreId(self.number),
            core_count=count,
            cluster_id=b"corelane-cluster",
            listeners=[ListenerBrokers("PLAINTEXT", brokers)],
            self_broker=min(self.number, count - 1),
            config=fleet.config,
            random=random.Random(fleet.chance.randrange(1 << 32)),
            retired=tuple(CoreId(core) for core in machine.retired),
            peer=PeerPlace(f"n{machine.number}", 9192, self.boot, f"d{machine.number}", known),
            founds=machine.number == 1,
        )

    # --- what comes ---

    def post(self, event: Event, frame: bytes | None = None) -> None:
        """Let something come; *frame* is memory that the event points into."""
        if self.is_dead:
            return
        self._mail.append(event)
        if frame is not None:
            self._frames.append(frame)
        self.wake(self.fleet.chance.choice(TURN_US))

    def poster(self, event: Event, frame: bytes | None = None) -> Callable[[], None]:
        """Return what posts an event."""
        return lambda: self.post(event, frame)

    def wake(self, delay_us: int) -> None:
        """Turn then, if not earlier."""
        at_us = self.fleet.now_us + delay_us
        if 0 <= self._turn_at_us <= at_us:
            return
        self._turn_at_us = at_us
        self.fleet.after(delay_us, lambda: self._due(at_us))

    def _due(self, at_us: int) -> None:
        if self.is_dead or self._turn_at_us != at_us:
            return
        self._turn_at_us = -1
        left_us = self.paused_until_us - self.fleet.now_us
        if left_us > 0:
            self.wake(left_us)
        else:
            self._turn()

    def _turn(self) -> None:
        fleet = self.fleet
        events, self._mail = self._mail, []
        frames, self._frames = self._frames, []
        fleet.event_count += len(events)
        fleet.step_count += 1
        now_ms = fleet.now_us // 1000
        TOUCHED.clear()
        try:
            effects = self.shard.step(now_ms, WALL_START_MS + now_ms + self.machine.wall_ms, events)
        except StorageFailureError as failure:
            self.logs.append(f"the core exits: {failure}")
            self._exit()
            return
        del frames
        assert not self.shard.counts.assertions_failed, self.logs
        fleet.watcher.after_step(self, TOUCHED)
        for effect in effects:
            self._perform(effect)
            if self.is_dead:
                return
        deadline_ms = self.shard.next_deadline_ms()
        if deadline_ms is not None:
            self.wake(max(50, deadline_ms * 1000 - fleet.now_us))

    def _exit(self) -> None:
        back_us = self.fleet.chance.randrange(5_000, 200_000)
        self.machine.kill_core(self.number, back_us)

    # --- what it asks for ---

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(effect)
            case Dial():
                self.fleet.network.dial(self, effect)
            case Close() if effect.conn >= PEER_CONNS:
                self.fleet.network.close(self, effect.conn)
            case Close():
                session = self.sessions.pop(effect.conn, None)
                self.logs.append(f"closes a client: {effect.reason}")
                if session is not None:
                    session.lost()
                self.post(Closed(effect.conn, effect.reason))
            case LogLine():
                self.logs.append(f"{self.fleet.now_us / 1000:.1f} {effect.text}")
            case Work():
                self._work(effect)
            case Exit():
                self._exit()
            case Emptied():
                self.fleet.after(1_000, lambda: self.machine.emptied(self))
            case HoldProduce() | Pause() | Resume() | Stopped() | OperatorAnswer():
                pass
            case _:
                self._submit(effect)

    def _send(self, effect: Send) -> None:
        data = b"".join(
            part if isinstance(part, bytes) else bytes(self.arena.view(*part))
            for part in effect.parts
        )
        for chunk in effect.chunks_held:
            self.arena.release(chunk)
        conn = effect.conn
        if conn < PEER_CONNS:
            session = self.sessions.get(conn)
            if session is not None:
                session.take(data)
            return
        at, size_max = 0, len(data)
        while at < size_max:
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            frame = data[at + 4 : end]
            at = end
            if conn >= LINK_CONNS:
                self.machine.carry(self, conn, frame)
            else:
                self.fleet.network.carry(self, conn, frame)

    def _work(self, effect: Work) -> None:
        try:
            done = WorkDone(effect.job, effect.function(*effect.arguments), None)
        except ValueError as fault:
            done = WorkDone(effect.job, None, str(fault))
        self.fleet.after(self.fleet.chance.randrange(50, 2_000), self.poster(done))

    def _submit(self, effect: DiskEffect) -> None:
        """Give the disk something to do; it answers later, in order within one queue."""
        queue = self.disk.submit(effect, self.arena)
        fleet = self.fleet
        delay_us = 60 if fleet.is_calm else fleet.chance.choice(DISK_US)
        at_us = max(self._queue_us[queue], self.stalled_until_us, fleet.now_us) + delay_us
        self._queue_us[queue] = at_us
        fleet.after(at_us - fleet.now_us, lambda: self._complete(queue))

    def _complete(self, queue: Queue) -> None:
        if self.is_dead:
            return
        left_us = self.stalled_until_us - self.fleet.now_us
        if left_us > 0:
            self.fleet.after(left_us, lambda: self._complete(queue))
        else:
            self.post(self.disk.complete(queue))

    # --- clients ---

    def connect(self) -> "Session":
        """Return a client's connection to this life of the core."""
        self.fleet.conns += 1
        session = Session(self, ConnId(self.fleet.conns))
        self.sessions[session.conn] = session
        self.post(Opened(session.conn, 0, f"client-{session.conn}"))
        return session

    def sessions_lost(self) -> None:
        """End all clients' connections."""
        sessions, self.sessions = self.sessions, {}
        for session in sessions.values():
            session.lost()


class Session:
    """A client's connection: requests and answers in order, each after its delay."""

    def __init__(self, core: FleetCore, conn: ConnId) -> None:
        self.core = core
        self.conn = conn
        self.is_open = True
        self._asked: deque[tuple[int, int, Answered]] = deque()
        self._data = bytearray()
        self._correlation = 0
        self._to_core_us = 0
        self._to_client_us = 0

    def ask(self, message: Message, version: int, answered: Answered) -> None:
        """Send a request; *answered* is called once."""
        assert self.is_open
        key = KEYS[type(message).__name__.removesuffix("Request")]
        self._correlation += 1
        frame = encode_request(key, version, self._correlation, "test", message)[4:]
        self._asked.append((key, version, answered))
        event = Request(self.conn, address_of(frame), len(frame), key, version, self._correlation)
        fleet = self.core.fleet
        self._to_core_us = max(self._to_core_us, fleet.now_us + fleet.chance.choice(CLIENT_US))
        fleet.after(self._to_core_us - fleet.now_us, self.core.poster(event, frame))

    def take(self, data: bytes) -> None:
        """Take bytes of answers."""
        self._data += data
        fleet = self.core.fleet
        while len(self._data) >= 4:
            end = 4 + int.from_bytes(self._data[:4], "big")
            if len(self._data) < end:
                return
            frame = bytes(self._data[4:end])
            del self._data[:end]
            key, version, answered = self._asked.popleft()
            at_us = max(self._to_client_us, fleet.now_us + fleet.chance.choice(CLIENT_US))
            self._to_client_us = at_us
            _correlation, message = decode_response(key, version, frame)
            fleet.after(at_us - fleet.now_us, partial(answered, message))

    def lost(self) -> None:
        """The connection is gone: nobody knows what became of what was asked."""
        self.is_open = False
        asked, self._asked = self._asked, deque()
        fleet = self.core.fleet
        for _key, _version, answered in asked:
            fleet.after(1_000, partial(answered, None))

    def close(self) -> None:
        """Leave."""
        if self.core.sessions.pop(self.conn, None) is not None:
            self.core.post(Closed(self.conn, "left"))
            self.lost()
