"""Cores of several nodes and the network between them, in one process, from one seed.

Method: every core is a real `Peers`; connections keep their order, as TCP does, and lose nothing
but with their end. What the network and the machines do to them is the caller's choice: delay,
one-way partitions, pauses, kills, power cuts, damaged and repeated frames. `checks.py` looks at
everything that is said.
"""

import random
from collections import deque
from dataclasses import dataclass, field

from corelane.model import limits
from corelane.model.ids import ChunkId, ConnId, CoreId, GroupId, Index, NodeId, Position, Term
from corelane.raft.messages import Append, VoteAnswer
from corelane.shard.effects import Close, Dial, LogLine, Part, Send
from corelane.shard.peers.data_link import Address
from corelane.shard.peers.events import (
    Dialed,
    DialFailed,
    Heard,
    News,
    Outdated,
    PeerAccepted,
    PeerClosed,
    PeerEvent,
    PeerFrame,
    Received,
)
from corelane.shard.peers.frames import LENGTH_BYTES, Kind
from corelane.shard.peers.hello import PeerId
from corelane.shard.peers.leads import Lead, Leads
from corelane.shard.peers.peers import Peers, PeersConfig
from corelane.storage.entries import ENTRY_HEAD
from corelane_native import Arena
from tests.unit.shard.peers.samples import identity

TICK_MS = 10
ELECTION_TIMEOUT_MS = 1000
DIAL_TIMEOUT_MS = 800
ARENA = Arena(64 << 20)
CHUNK = ChunkId(ARENA.chunk_new(4096))


@dataclass
class Stream:
    """One direction of a connection: frames in order, None for its end."""

    source: PeerId
    target: PeerId
    conn: ConnId
    frames: deque[tuple[int, bytes | None]] = field(default_factory=deque)
    last_ms: int = 0
    other: "Stream | None" = None
    is_dead: bool = False


class Core:
    """One core process; its tables of terms survive it, as a disk would."""

    def __init__(self, net: "Net", peer: PeerId, boot: int) -> None:
        self.net = net
        self.peer = peer
        self.boot = boot
        self.offset_ms = net.random.randrange(1 << 20)
        self.inbox: deque[PeerEvent] = deque()
        self.paused_until_ms = 0
        self.wal_age_ms: int | None = None
        self.turned_ms = net.now_ms
        self.resumed_ms = net.now_ms
        """Since when it has not missed many turns."""
        self.logs: list[str] = []
        self.news: list[tuple[int, News]] = []
        self.verdicts: dict[PeerId, object] = {}
        self.sent_count = 0
        self.leading: dict[GroupId, Term] = {}
        self.leads = Leads(lambda group: group in net.deleted)
        node, core = peer
        config = PeersConfig(identity(node, core, boot, net.core_count), ELECTION_TIMEOUT_MS)
        self.peers = Peers(self.now_ms, config, net.random, ARENA, self.leads)
        others = [each for each in net.ids if each[0] != node]
        self.peers.know(self.now_ms, {each: (f"{each[0]}/{each[1]}", 9192) for each in others})
        for group, term in net.terms[peer].items():
            self.peers.terms.put(group, term)

    @property
    def now_ms(self) -> int:
        return self.net.now_ms + self.offset_ms

    def lead(self, group: GroupId, term: Term) -> None:
        """Lead a group: tell every peer that has a member."""
        self.leading[group] = term
        self.net.terms[self.peer][group] = term
        self.peers.terms.put(group, term)
        for other in self.net.ids:
            session = self.peers.session(other)
            if session is not None:
                session.led.put(group, term, Index(1))
        self.leads.take([Lead(group, term, 0, *self.peer, (self.peer[0],))])

    def drop(self, group: GroupId) -> None:
        """Lead a group no more, silently: its process lives, it does not."""
        self.leading.pop(group, None)
        for other in self.net.ids:
            session = self.peers.session(other)
            if session is not None:
                session.led.drop(group)

    def step(self) -> None:
        """One turn: what came in, what time asks for, what goes out."""
        if self.net.now_ms - self.turned_ms > limits.PEER_PAUSE_MS:
            self.resumed_ms = self.net.now_ms
        self.turned_ms = self.net.now_ms
        while self.inbox:
            event = self.inbox.popleft()
            self.net.taking(self, event)
            self.peers.take(self.now_ms, event)
            self.perform()
        self.send_words()
        self.peers.turn(self.now_ms, self.wal_age_ms)
        self.perform()

    def send_words(self) -> None:
        """Give every peer a vote's answer with a number, and at times an append."""
        for other in self.net.ids:
            data = self.peers.data(other)
            if data is None or self.net.random.random() > self.net.word_rate:
                continue
            self.sent_count += 1
            to = Address(GroupId(1), self.peer[0], other[0])
            data.put(self.now_ms, to, VoteAnswer(Term(1), self.sent_count, True))
            if self.net.random.random() < 0.2:
                ARENA.retain(CHUNK)
                payload: list[Part] = [ENTRY_HEAD.pack(1, 100), (CHUNK, Position(0), 100)]
                count = self.sent_count
                runs = ((Index(count), Term(1)),)
                one = Append(
                    Term(1), 0, Index(count - 1), Term(count > 1), Index(count), runs, Index(0)
                )
                data.put(self.now_ms, to, one, payload, [CHUNK])

    def perform(self) -> None:
        """Perform effects and act on news, in their order."""
        effects, self.peers.effects = self.peers.effects, []
        for effect in effects:
            match effect:
                case Send():
                    parts = [
                        part if isinstance(part, bytes) else bytes(ARENA.view(*part))
                        for part in effect.parts
                    ]
                    for chunk in effect.chunks_held:
                        ARENA.release(chunk)
                    self.net.send(self, effect.conn, b"".join(parts)[LENGTH_BYTES:])
                case Dial():
                    node, core = effect.host.split("/")
                    self.net.dial(self, effect.dial, (NodeId(int(node)), CoreId(int(core))))
                case Close():
                    self.logs.append(effect.reason)
                    self.net.close(self, effect.conn)
                case LogLine():
                    self.logs.append(effect.text)
        news, self.peers.news = self.peers.news, []
        for each in news:
            self.news.append((self.net.now_ms, each))
            self.net.said(self, each)
            if isinstance(each, Heard):
                for group, term, _ in each.rows:
                    if group in self.leading and self.leading[group] < term:
                        self.drop(group)
                    self.net.terms[self.peer][group] = term
                    self.peers.terms.put(group, term)
                    self.peers.terms.follows(group)
            elif isinstance(each, Outdated):
                for group, _ in each.rows:
                    self.drop(group)
        del self.news[:-1000]
        del self.logs[:-1000]


class Net:
    """The machines, their clocks and what is between them."""

    def __init__(self, seed: int, nodes: int, core_count: int = 1) -> None:
        self.random = random.Random(seed)
        self.now_ms = 0
        self.core_count = core_count
        self.ids = [
            (NodeId(node), CoreId(core))
            for node in range(1, nodes + 1)
            for core in range(core_count)
        ]
        self.terms: dict[PeerId, dict[GroupId, Term]] = {each: {} for each in self.ids}
        self.deleted: set[GroupId] = set()
        self.blocked: set[tuple[NodeId, NodeId]] = set()
        self.withheld: set[tuple[PeerId, PeerId, Kind]] = set()
        """(source, target, kind): connections that stop where a frame of that kind is next."""
        self.off: set[NodeId] = set()
        """Machines without power: they answer nothing, not even a refusal."""
        self.delay_ms = 2
        self.skip_rate = 0.0
        """Of turns that a busy machine misses."""
        self.word_rate = 0.05
        self.cores: dict[PeerId, Core | None] = {}
        self.streams: dict[tuple[PeerId, ConnId], Stream] = {}
        """By who receives from it."""
        self.late: list[tuple[int, PeerId, int, PeerEvent]] = []
        self._next_conn = 0
        self.boots = dict.fromkeys(self.ids, 0)
        for each in self.ids:
            self.cores[each] = None
        for each in self.ids:
            self.start(each)

    # --- for checks to override ---

    def said(self, core: Core, news: News) -> None:
        """A core said something."""

    def left(self, core: Core, target: PeerId, data: bytes) -> None:
        """A frame leaves a core."""

    def arrives(self, core: Core, event: PeerFrame) -> list[PeerFrame]:
        """Return what a core gets of a frame that arrives."""
        return [event]

    def taking(self, core: Core, event: PeerEvent) -> None:
        """A core is about to be told something."""

    def looked_at(self) -> None:
        """Everything had its turn."""

    # --- machines ---

    def start(self, peer: PeerId) -> Core:
        """Start the next life of a core."""
        self.boots[peer] += 1
        core = self.cores[peer] = Core(self, peer, self.boots[peer])
        return core

    def core(self, peer: PeerId) -> Core:
        """Return a core that lives."""
        core = self.cores[peer]
        assert core is not None
        return core

    def alive(self) -> list[Core]:
        """Return the cores that live, paused or not."""
        return [each for each in self.cores.values() if each is not None]

    def kill(self, peer: PeerId, *, tells: bool = True) -> None:
        """End a process; its machine closes its connections, unless it lost its power too."""
        self.cores[peer] = None
        for (receiver, conn), stream in [*self.streams.items()]:
            if receiver == peer:
                self.end(stream, tells=tells)
                del self.streams[receiver, conn]

    def pause(self, peer: PeerId, for_ms: int) -> None:
        """Stop a process for a while; its machine goes on receiving for it."""
        self.core(peer).paused_until_ms = self.now_ms + for_ms

    def end(self, stream: Stream, *, tells: bool = True) -> None:
        """The receiver of *stream* is gone: the other end hears so."""
        stream.is_dead = True
        back = stream.other
        if back is not None and tells and not back.is_dead:
            self._post(back, None)

    # --- connections ---

    def dial(self, core: Core, number: int, target: PeerId) -> None:
        """Connect, be refused, or hear nothing."""
        there = target[0] not in self.off
        path = {(core.peer[0], target[0]), (target[0], core.peer[0])}
        if not there or path & self.blocked:
            failed = DialFailed(number, False, "timed out")
            self._later(DIAL_TIMEOUT_MS, core, failed)
            return
        if self.cores[target] is None:
            self._later(self._delay(), core, DialFailed(number, True, "refused"))
            return
        self._next_conn += 2
        near, far = ConnId(self._next_conn), ConnId(self._next_conn + 1)
        out = Stream(core.peer, target, far)
        back = Stream(target, core.peer, near, other=out)
        out.other = back
        self.streams[target, far] = out
        self.streams[core.peer, near] = back
        self.core(target).inbox.append(PeerAccepted(far))
        core.inbox.append(Dialed(number, near))

    def send(self, core: Core, conn: ConnId, data: bytes) -> None:
        """Send a frame over a connection, if it still is one."""
        stream = self.streams.get((core.peer, conn))
        if stream is not None and stream.other is not None and not stream.other.is_dead:
            self.left(core, stream.source, data)
            self._post(stream.other, data)

    def close(self, core: Core, conn: ConnId) -> None:
        """Close a connection from this end."""
        stream = self.streams.pop((core.peer, conn), None)
        if stream is not None:
            self.end(stream)

    def _post(self, stream: Stream, data: bytes | None) -> None:
        at_ms = max(stream.last_ms, self.now_ms + self._delay())
        stream.last_ms = at_ms
        stream.frames.append((at_ms, data))

    def _delay(self) -> int:
        return 1 + self.random.randrange(self.delay_ms)

    def _later(self, in_ms: int, core: Core, event: PeerEvent) -> None:
        self.late.append((self.now_ms + in_ms, core.peer, core.boot, event))

    # --- time ---

    def run(self, for_ms: int) -> None:
        """Let time pass."""
        end_ms = self.now_ms + for_ms
        while self.now_ms < end_ms:
            self.now_ms += TICK_MS
            self._deliver()
            for core in self.alive():
                if self.now_ms >= core.paused_until_ms and self.random.random() >= self.skip_rate:
                    core.step()
            self.looked_at()

    def _deliver(self) -> None:
        due = [each for each in self.late if each[0] <= self.now_ms]
        self.late = [each for each in self.late if each[0] > self.now_ms]
        for _, peer, boot, event in due:
            core = self.cores[peer]
            if core is not None and core.boot == boot:
                core.inbox.append(event)
        for (receiver, conn), stream in [*self.streams.items()]:
            core = self.cores[receiver]
            is_blocked = (stream.source[0], stream.target[0]) in self.blocked
            if core is None or is_blocked:
                continue
            while stream.frames and stream.frames[0][0] <= self.now_ms:
                data = stream.frames[0][1]
                if data is not None and self.withheld:
                    kind = Kind(int.from_bytes(data[:2], "big"))
                    if (stream.source, stream.target, kind) in self.withheld:
                        break
                stream.frames.popleft()
                if data is None:
                    core.inbox.append(PeerClosed(conn))
                    self.streams.pop((receiver, conn), None)
                    stream.is_dead = True
                    break
                core.inbox.extend(self.arrives(core, PeerFrame(conn, data)))

    def sent_messages(self, news: News) -> list[int]:
        """Return the numbers of the words in a frame's messages."""
        if not isinstance(news, Received):
            return []
        return [
            each.message.round for each in news.messages if isinstance(each.message, VoteAnswer)
        ]
