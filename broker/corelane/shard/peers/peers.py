"""A core's world beyond its node: whom it speaks with, over which connections, who is alive.

Events in, effects and news out, time as an argument. Whatever names a group is news for the shard
to act on; nothing here knows a raft group.

Invariants:
P1. What a frame says is acted on only if the whole of it is right (F3), came over a greeted
    connection, and over the channel for its kind.
P2. A connection that replaces another one of the same life says nothing about that life. One of a
    later life ends the former one; one of a former life is refused.
P3. Everything kept is bounded by the peers known and by `model/limits.py`; a peer that nobody
    knows any more is forgotten with its connections.
"""

from collections.abc import Mapping, Sequence
from typing import Final, assert_never

from corelane.model import limits
from corelane.model.ids import ConnId, CoreId, GroupId, NodeId, Term
from corelane.model.record import record
from corelane.raft.config import Jitter
from corelane.shard.effects import Close, Dial, LogLine, Send
from corelane.shard.peers import beats, frames, hello, watch
from corelane.shard.peers.beats import Health, mark
from corelane.shard.peers.data_link import DataLink
from corelane.shard.peers.events import (
    Called,
    Dialed,
    DialFailed,
    Gone,
    Introduced,
    Judged,
    LeadsChanged,
    LifeEnded,
    News,
    PeerAccepted,
    PeerClosed,
    PeerEffect,
    PeerEvent,
    PeerFrame,
    Received,
    Returned,
    Silent,
    Up,
    Verdict,
)
from corelane.shard.peers.frames import (
    Channel,
    Chunks,
    Frame,
    FrameError,
    Kind,
    check,
    decode,
    encode,
)
from corelane.shard.peers.hello import Greeting, Identity, PeerId, Refusal, Refused
from corelane.shard.peers.leads import Leads
from corelane.shard.peers.leads import decode as decode_leads
from corelane.shard.peers.line import Line
from corelane.shard.peers.peer import Peer
from corelane.shard.peers.roll import NEVER_MS, Terms
from corelane.shard.peers.rounds import Rounds
from corelane.shard.peers.session import Session
from corelane.shard.peers.watch import Duty, Watch

_WARNING: Final = 30
_DIAL_LIMIT: Final = 1 << 62


@record
class PeersConfig:
    """Who this core is, and how patient its groups are."""

    identity: Identity
    election_timeout_ms: int


class Peers:
    """All peer cores of one core."""

    def __init__(
        self, now_ms: int, config: PeersConfig, jitter: Jitter, chunks: Chunks, leads: Leads
    ) -> None:
        self.watch = Watch(now_ms, config.election_timeout_ms)
        self.terms = Terms()
        self.leads = leads
        self.catchup_kib = 0  # wanted of each peer of what replicas here missed, a second
        self.is_unfit = False  # to be handed leaderships, as its peers are to know
        self.effects: list[PeerEffect] = []
        self.news: list[News] = []
        self._own = config.identity
        self._wal_age_ms: int | None = None
        self._jitter = jitter
        self._chunks = chunks
        self._peers: dict[PeerId, Peer] = {}
        self._by_node: dict[NodeId, list[Session]] = {}
        self._by_conn: dict[ConnId, tuple[Peer, Line]] = {}
        self._by_dial: dict[int, tuple[Peer, Line]] = {}
        self._ungreeted: dict[ConnId, int] = {}
        self._refused: set[tuple[PeerId, Refused]] = set()
        self._ended: dict[CoreId, int] = {}
        self._next_dial = 0
        self._now_ms = now_ms
        self._rounds = Rounds(now_ms)
        self._look_at_ms = now_ms  # at peers and lines; at once when something happened to one

    # --- for the rest of the core ---

    def know(self, now_ms: int, addresses: Mapping[PeerId, tuple[str, int]]) -> None:
        """Speak with these cores, and only with these; the registry of nodes has changed."""
        self._advance(now_ms)
        self._look_at_ms = now_ms
        own = self._own.node
        for peer_id, address in addresses.items():
            assert peer_id[0] != own, "cores of one node have links"
            peer = self._peers.get(peer_id) or self._add(peer_id)
            peer.address = address
            peer.is_known = True
        for peer in [each for each in self._peers.values() if each.peer not in addresses]:
            peer.is_known = False
            self._cut(peer, f"Core {peer.peer[1]} of node {peer.peer[0]} is no peer any more.")
            self._remove(peer)

    def session(self, peer: PeerId) -> Session | None:
        """Return the session with a peer core: its `led` is the table of rows to beat to it."""
        known = self._peers.get(peer)
        return None if known is None else known.session

    def is_beat_due(self, now_ms: int) -> bool:
        """Whether the next `turn` sends heartbeats, so that their rows must be right."""
        number = self._rounds.number + (now_ms >= self._rounds.at_ms)
        return any(peer.beats(number, now_ms) for peer in self._peers.values())

    @property
    def round_at_ms(self) -> int:
        """Return when this core beats next."""
        return self._rounds.at_ms

    def sessions(self, node: NodeId) -> Sequence[Session]:
        """Return the sessions with the cores of a node."""
        return self._by_node.get(node, ())

    def data(self, peer: PeerId) -> DataLink | None:
        """Return the data link to a peer core: its `put` takes raft's messages."""
        known = self._peers.get(peer)
        return None if known is None else known.data

    def verdict(self, peer: PeerId) -> Verdict | None:
        """Return the verdict that was last said of a peer core; None: it is no peer."""
        known = self._peers.get(peer)
        return None if known is None else known.verdict

    def may_take_over(self, peer: PeerId, lag_ms_max: int = limits.PEER_LATE_MS_MAX) -> bool:
        """Say whether leaderships may be handed over to a peer core now, if it is no later."""
        known = self._peers.get(peer)
        if known is None or not isinstance(known.verdict, Up):
            return False
        return watch.may_take_over(known.session.health, lag_ms_max)

    def leader_heard_ms(self, group: GroupId, term: Term, node: NodeId, incarnation: int) -> int:
        """Return when that member last said that it leads in *term*, or NEVER_MS; with W4."""
        wanted = mark(term, incarnation)
        seen_ms = max(
            [each.heard.seen_ms(group, wanted) for each in self.sessions(node)],
            default=NEVER_MS,
        )
        return seen_ms if seen_ms == NEVER_MS else self.watch.heard_ms(seen_ms)

    def follower_heard_ms(self, group: GroupId, term: Term, node: NodeId, incarnation: int) -> int:
        """Return when the round was sent that this member last followed in *term*: check-quorum.

        A pause of this process is added (W4).
        """
        sent_ms = self._answered_ms(group, term, node, incarnation)
        return sent_ms if sent_ms == NEVER_MS else self.watch.heard_ms(sent_ms)

    def lease_from_ms(self, group: GroupId, term: Term, node: NodeId, incarnation: int) -> int:
        """Return the same for a lease: what was sent before a pause does not count (W4)."""
        sent_ms = self._answered_ms(group, term, node, incarnation)
        return sent_ms if sent_ms >= self.watch.resumed_ms else NEVER_MS

    def _answered_ms(self, group: GroupId, term: Term, node: NodeId, incarnation: int) -> int:
        wanted = mark(term, incarnation)
        heard_ms = [each.answers.seen_ms(group, wanted) for each in self.sessions(node)]
        return max(heard_ms, default=NEVER_MS)

    def call(self, peer: PeerId, number: int, body: bytes) -> bool:
        """Ask something small of a peer core, which answers by `Returned`; False: it is away."""
        return self._speak(peer, Kind.CALL, number, body)

    def give(self, peer: PeerId, number: int, body: bytes) -> None:
        """Answer what a peer core asked by `Called`; who has no session hears nothing."""
        self._speak(peer, Kind.RETURN, number, body)

    def reachable(self) -> list[PeerId]:
        """Return the peer cores with which a session is open."""
        return [each.peer for each in self._peers.values() if each.session.is_open]

    def _speak(self, peer: PeerId, kind: Kind, number: int, body: bytes) -> bool:
        assert len(body) <= limits.PEER_CALL_BYTES_MAX
        known = self._peers.get(peer)
        if known is None or not known.session.is_open:
            return False
        self._send(known, kind, frames.encode_call(number, body))
        return True

    def duty(self, wal_age_ms: int | None) -> Duty:
        """Return what this core should do with its leaderships."""
        return self.watch.duty(wal_age_ms)

    def sibling_ended(self, now_ms: int, core: CoreId, boot: int) -> None:
        """A life of another core of this node is over: tell every peer, now and later."""
        self._advance(now_ms)
        if boot <= self._ended.get(core, 0):
            return
        self._ended[core] = boot
        for peer in self._peers.values():
            if peer.session.is_open:
                self._send(peer, Kind.ENDED, beats.encode_ended([(core, boot)]))

    # --- events ---

    def take(self, now_ms: int, event: PeerEvent) -> None:
        """Act on one event."""
        self._advance(now_ms)
        match event:
            case PeerFrame():
                self._frame(event)
            case PeerAccepted():
                self._accepted(event.conn)
            case PeerClosed():
                self._closed(event.conn)
            case Dialed():
                self._dialed(event)
            case DialFailed():
                self._dial_failed(event)
            case _:
                assert_never(event)

    def turn(self, now_ms: int, wal_age_ms: int | None) -> None:
        """Do what time asks for, and send what has gathered; once per turn, after its events.

        *wal_age_ms*: since the last completed WAL write, while one is pending.
        """
        self._advance(now_ms)
        self._wal_age_ms = wal_age_ms
        self._rounds.turn(now_ms)
        for conn, deadline_ms in [*self._ungreeted.items()]:
            if now_ms >= deadline_ms:
                del self._ungreeted[conn]
                self._close(conn, "A peer connected and did not say who it is.")
        is_look_due = now_ms >= self._look_at_ms
        if is_look_due:
            self._look_at_ms = now_ms + limits.TICK_MS
        for peer in [*self._peers.values()]:
            if is_look_due and self._is_done_with(peer):
                self._remove(peer)
                continue
            if peer.is_beat_due(self._rounds.number, now_ms):
                peer.data.settle()
                if peer.session.is_open:
                    self._beat(peer, wal_age_ms)
            if peer.data.is_stirred and (sent := peer.data.flush()) is not None:
                self.effects.append(sent)

    def _is_done_with(self, peer: Peer) -> bool:
        """Dial, judge, cut, which wait for many ticks; say whether it is to be forgotten."""
        for line in peer.lines.values():
            self._watch_line(peer, line)
        self._judge(peer)
        return not peer.is_known and all(line.is_idle for line in peer.lines.values())

    def _advance(self, now_ms: int) -> None:
        self.watch.turn(now_ms)
        self._now_ms = now_ms

    def _beat(self, peer: Peer, wal_age_ms: int | None) -> None:
        session = peer.session
        session.beaten = self._rounds.number
        age_ms, rate = peer.data.age_ms(self._now_ms), self.catchup_kib
        if age_ms is not None:  # pauses of our own are not the link's (W4)
            age_ms = self._now_ms - self.watch.heard_ms(self._now_ms - age_ms)
        health = Health(self.watch.lag_ms, wal_age_ms, age_ms, rate, self.is_unfit)
        if (body := session.beat(self._now_ms, health)) is not None:
            self._send(peer, Kind.BEAT, body)
            if (leads := self.leads.next_frame(peer.peer)) is not None:
                self._send(peer, Kind.LEADS, leads)

    def _send(self, peer: Peer, kind: Kind, body: bytes) -> None:
        self.effects.append(peer.lines[Channel.SESSION].frame(kind, body))

    def _judge(self, peer: Peer) -> None:
        """Say a verdict that has changed; replace connections that have been silent for long."""
        session = peer.session
        verdict = session.verdict(self._now_ms, self.watch.resumed_ms)
        if verdict != peer.verdict:
            peer.verdict = verdict
            self.news.append(Judged(peer.peer, verdict))
        if (
            isinstance(verdict, Silent)
            and session.is_open
            and self._now_ms - verdict.since_ms >= limits.PEER_RECONNECT_MS
        ):
            node, core = peer.peer
            self._cut(peer, f"Core {core} of node {node} has not answered for two seconds.")
        if peer.data.is_stuck(self._now_ms, self.watch.resumed_ms):
            why = f"Data for core {peer.peer[1]} of node {peer.peer[0]} does not arrive."
            self._end_line(peer, peer.data.line, why)

    # --- connections ---

    def _watch_line(self, peer: Peer, line: Line) -> None:
        now_ms = self._now_ms
        if peer.is_due(line, now_ms):
            self._next_dial = (self._next_dial + 1) % _DIAL_LIMIT
            line.dialing(now_ms, self._next_dial)
            self._by_dial[self._next_dial] = (peer, line)
            assert peer.address is not None
            self.effects.append(Dial(self._next_dial, *peer.address))
        elif not line.is_idle and not line.is_open and now_ms >= line.deadline_ms:
            self._end_line(peer, line, "A peer did not greet in time.")

    def _dialed(self, event: Dialed) -> None:
        found = self._by_dial.pop(event.dial, None)
        if found is None:
            self._close(event.conn, "")
            return
        peer, line = found
        line.connected(event.conn)
        self._by_conn[event.conn] = found
        greeting = self._own.greet(peer.peer, line.channel)
        self.effects.append(line.frame(Kind.HELLO, hello.encode_greeting(greeting)))

    def _dial_failed(self, event: DialFailed) -> None:
        found = self._by_dial.pop(event.dial, None)
        if found is None:
            return
        peer, line = found
        line.failed(self._now_ms, self._jitter)
        session = peer.session
        if event.is_refused and session.boot and session.gone is None:
            verdict = session.verdict(self._now_ms, self.watch.resumed_ms)
            if not (session.is_open and isinstance(verdict, Up)):  # V1
                self._end_life(peer, "Nobody listens where it did.")

    def _accepted(self, conn: ConnId) -> None:
        if len(self._ungreeted) >= limits.PEER_UNGREETED_MAX:
            self._close(conn, "Too many peers connect at once.")
            return
        self._ungreeted[conn] = self._now_ms + limits.PEER_GREETING_MS_MAX

    def _closed(self, conn: ConnId) -> None:
        self._ungreeted.pop(conn, None)
        found = self._by_conn.get(conn)
        if found is not None:
            self._end_line(*found, None)

    def _end_line(self, peer: Peer, line: Line, reason: str | None) -> None:
        """End a line; *reason* None: its connection is closed already."""
        if line.dial is not None:
            self._by_dial.pop(line.dial, None)
        if line.conn is not None:
            del self._by_conn[line.conn]
            if reason is not None:
                self._close(line.conn, reason)
        was_open = line.is_open
        line.failed(self._now_ms, self._jitter)
        self._look_at_ms = self._now_ms
        if was_open and line.channel is Channel.DATA:
            peer.data.closed(self._now_ms)
        if was_open and line.channel is Channel.SESSION:
            peer.session.closed()
            self.leads.leave(peer.peer)
            if not peer.dials:
                # Ask at once whether it lives.
                peer.lines[Channel.PROBE].attempt = 0
                peer.lines[Channel.PROBE].dial_at_ms = self._now_ms

    def _cut(self, peer: Peer, reason: str) -> None:
        """End all lines to a peer that are not idle."""
        for line in peer.lines.values():
            if not line.is_idle:
                self._end_line(peer, line, reason)

    def _close(self, conn: ConnId, reason: str) -> None:
        self.effects.append(Close(conn, reason))

    # --- lives ---

    def _add(self, peer_id: PeerId) -> Peer:
        peer = Peer(peer_id, self._now_ms, self._own, self._chunks)
        self._peers[peer_id] = peer
        self._by_node.setdefault(peer_id[0], []).append(peer.session)
        return peer

    def _remove(self, peer: Peer) -> None:
        del self._peers[peer.peer]
        sessions = self._by_node[peer.peer[0]]
        sessions.remove(peer.session)
        if not sessions:
            del self._by_node[peer.peer[0]]

    def _end_life(self, peer: Peer, reason: str) -> None:
        session = peer.session
        assert session.gone is None
        self._cut(peer, "")
        led = session.end_life(reason)
        peer.data.forget()
        peer.verdict = Gone(reason)
        self.news.append(LifeEnded(peer.peer, session.boot, reason, led))
        self.news.append(Judged(peer.peer, peer.verdict))

    def _life_ended(self, peer_id: PeerId, boot: int, reason: str) -> None:
        """Its own node says that a life is over, and so are all before it."""
        peer = self._peers.get(peer_id)
        if peer is None or boot < peer.session.boot:
            return
        peer.session.ended_boot = max(peer.session.ended_boot, boot)
        if peer.session.boot and peer.session.gone is None:
            self._end_life(peer, reason)

    def _greeted(self, peer: Peer, boot: int) -> None:
        """A life that is not over has greeted (P2)."""
        if peer.session.boot not in (0, boot) and peer.session.gone is None:
            self._end_life(peer, "It is back in another life.")
        peer.session.begin_life(boot)

    # --- frames ---

    def _frame(self, event: PeerFrame) -> None:
        found = self._by_conn.get(event.conn)
        if found is None and event.conn not in self._ungreeted:
            return  # it was closed a moment ago
        try:
            if found is None:
                frame = decode(event.data, limits.PEER_GREETING_BYTES_MAX)
                self._hello(event.conn, frame)
                return
            peer, line = found
            if line.is_open:
                frame = decode(event.data, frames.BYTES_MAX[line.channel])
                line.take(frame.number)
                kind, channel = frame.kind, line.channel
                check(kind in frames.KINDS[channel], f"{kind.name} on a {channel.name} line.")
                self._act(peer, frame)
            else:
                frame = decode(event.data, limits.PEER_GREETING_BYTES_MAX)
                line.take(frame.number)
                self._welcome(peer, line, frame)
        except FrameError as fault:
            self._malformed(event.conn, str(fault))

    def _malformed(self, conn: ConnId, sentence: str) -> None:
        """Close a connection on which something came that no peer sends (F3)."""
        found = self._by_conn.get(conn)
        if found is None:
            self._ungreeted.pop(conn, None)
            self._close(conn, sentence)
        else:
            node, core = found[0].peer
            self._end_line(*found, f"Core {core} of node {node}: {sentence}")

    def _act(self, peer: Peer, frame: Frame) -> None:
        now_ms, session = self._now_ms, peer.session
        match frame.kind:
            case Kind.MESSAGES:
                messages = peer.data.take(now_ms, frame.body)
                for each in messages:
                    self.leads.found(each.group, *peer.peer)
                if messages:
                    self.news.append(Received(peer.peer, messages))
            case Kind.BEAT:
                own_age_ms = self._wal_age_ms
                answer, heard = session.take_beat(now_ms, frame.body, self.terms, own_age_ms)
                if peer.peer[0] < self._own.node:
                    self._rounds.heard_lower(now_ms)
                self._send(peer, Kind.BEAT_ANSWER, beats.encode_answer(answer))
                if heard is not None:
                    self.news.append(heard)
            case Kind.BEAT_ANSWER:
                outdated = session.take_answer(now_ms, frame.body)
                if not isinstance(peer.verdict, Up):
                    self._look_at_ms = now_ms
                if outdated is not None:
                    self.news.append(outdated)
            case Kind.ENDED:
                for core, boot in beats.decode_ended(frame.body):
                    reason = f"Core {peer.peer[1]} of its node says that it ended."
                    if core != peer.peer[1]:
                        self._life_ended((peer.peer[0], core), boot, reason)
            case Kind.LEADS:
                changed = self.leads.take(decode_leads(frame.body), peer.peer)
                if changed:
                    self.news.append(LeadsChanged(changed))
            case Kind.CALL | Kind.RETURN:
                number, what = frames.decode_call(frame.body)
                news = Called if frame.kind is Kind.CALL else Returned
                self.news.append(news(peer.peer, number, what))
            case Kind.HELLO | Kind.WELCOME | Kind.REFUSE:
                raise AssertionError("P1")
            case _:
                assert_never(frame.kind)

    # --- greetings ---

    def _hello(self, conn: ConnId, frame: Frame) -> None:
        """Welcome who dialed, or refuse it."""
        check(frame.kind is Kind.HELLO, "The first frame is no HELLO.")
        check(frame.number == 0, "The first frame is not the first one.")
        greeting = hello.decode_greeting(frame.body)
        refusal = hello.judge_hello(self._own, greeting) or self._judge_life(greeting)
        del self._ungreeted[conn]
        if refusal is not None:
            self._refuse(conn, greeting, refusal)
            return
        peer = self._peers.get(greeting.peer) or self._add(greeting.peer)
        if peer.address is None:
            peer.address = (greeting.host, greeting.port)
        self._greeted(peer, greeting.boot)
        answer = hello.encode_greeting(self._own.greet(peer.peer, greeting.channel))
        if greeting.channel is Channel.PROBE:
            if not peer.is_known:
                self.news.append(Introduced(peer.peer, greeting.host, greeting.port))
            self.effects.append(Send(conn, [encode(Kind.WELCOME, 0, answer)], []))
            self._close(conn, "")
            return
        line = peer.lines[greeting.channel]
        if not line.is_idle:
            self._end_line(peer, line, "")
        line.connected(conn)
        self._by_conn[conn] = (peer, line)
        line.take(frame.number)
        self.effects.append(line.frame(Kind.WELCOME, answer))
        self._open(peer, line, greeting)

    def _judge_life(self, greeting: Greeting) -> Refusal | None:
        peer = self._peers.get(greeting.peer)
        if peer is None:
            if len(self._peers) < limits.PEERS_MAX:
                return None
            return Refusal(Refused.TOO_MANY, f"There are {limits.PEERS_MAX} peers already.")
        return peer.judge_life(greeting.boot)

    def _refuse(self, conn: ConnId, greeting: Greeting, refusal: Refusal) -> None:
        self.effects.append(Send(conn, [encode(Kind.REFUSE, 0, hello.encode_refusal(refusal))], []))
        node, core = greeting.peer
        key = (greeting.peer, refusal.code)
        is_news = key not in self._refused
        if is_news and len(self._refused) < limits.PEER_REFUSALS_LOGGED_MAX:
            self._refused.add(key)
            text = f"Core {core} of node {node} was refused: {refusal.sentence}"
            self.effects.append(LogLine(_WARNING, text))
        self._close(conn, "")

    def _welcome(self, peer: Peer, line: Line, frame: Frame) -> None:
        """Take what the core that was dialed says first."""
        if frame.kind is Kind.REFUSE:
            refusal = hello.decode_refusal(frame.body)
            if refusal.code is Refused.CORE_AWAY and refusal.boot:
                self._life_ended(peer.peer, refusal.boot, "Its node says that it ended.")
            self._unwelcome(peer, line, refusal)
            return
        check(frame.kind is Kind.WELCOME, "The first frame is neither WELCOME nor REFUSE.")
        greeting = hello.decode_greeting(frame.body)
        check(greeting.channel is line.channel, "WELCOME to another channel.")
        fault = hello.judge_welcome(self._own, peer.peer, greeting) or self._judge_life(greeting)
        if fault is not None:
            self._unwelcome(peer, line, fault)
            return
        conn = line.conn
        self._greeted(peer, greeting.boot)
        if line.conn != conn:
            return  # a life ended, and all its lines with it: this one is dialed again
        if line.channel is Channel.PROBE:
            self._end_line(peer, line, "")
            return
        self._open(peer, line, greeting)

    def _unwelcome(self, peer: Peer, line: Line, refusal: Refusal) -> None:
        """A core that was dialed is not to be spoken with: said once, and tried again later."""
        if peer.logged is not refusal.code and refusal.code is not Refused.CORE_AWAY:
            peer.logged = refusal.code
            text = f"Core {peer.peer[1]} of node {peer.peer[0]}: {refusal.sentence}"
            self.effects.append(LogLine(_WARNING, text))
        if line.conn is not None:
            self._end_line(peer, line, "")

    def _open(self, peer: Peer, line: Line, greeting: Greeting) -> None:
        line.opened(self._now_ms, hello.version_between(self._own, greeting))
        peer.logged = None
        self._look_at_ms = self._now_ms
        if line.channel is Channel.DATA:
            peer.data.opened()
            return
        peer.session.opened(self._now_ms)
        self.leads.listen(peer.peer, self._own.node)
        if self._ended:
            self._send(peer, Kind.ENDED, beats.encode_ended([*self._ended.items()]))
