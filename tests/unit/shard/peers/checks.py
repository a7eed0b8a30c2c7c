"""What must hold of sessions whatever happens, looked at all the time; and the storm that tries it.

Method: a second, dumb account of what was listed when, made from the frames that were delivered
and the truth about processes that only the network has.
"""

from collections import defaultdict

from corelane.model import limits
from corelane.model.ids import GroupId, Term
from corelane.raft import codec
from corelane.shard.peers import beats
from corelane.shard.peers.beats import Health
from corelane.shard.peers.events import (
    Judged,
    LifeEnded,
    News,
    PeerEvent,
    PeerFrame,
    Received,
    Silent,
    Up,
)
from corelane.shard.peers.frames import FrameError, Kind, decode
from corelane.shard.peers.hello import PeerId
from corelane.shard.peers.messages import Outgoing
from corelane.shard.peers.roll import NEVER_MS
from tests.unit.shard.peers.net import ARENA, CHUNK, Core, Net

FRAME_MAX = limits.PEER_SESSION_FRAME_BYTES_MAX
LOOK_EVERY_MS = 50
ROWS_MAX = 200
"""What a session of these tests may keep: few groups, few rounds."""


class Checked(Net):
    """A network that checks what its cores say."""

    def __init__(self, seed: int, nodes: int, core_count: int = 1) -> None:
        self.listed: dict[tuple[PeerId, int, PeerId, GroupId, Term], int] = {}
        """(hearer, its boot, leader, group, term): when a delivered heartbeat last listed it."""
        self.followed: dict[tuple[PeerId, int, PeerId, GroupId, Term], int] = {}
        self.rounds: dict[tuple[PeerId, int, PeerId, int], int] = {}
        self.words: dict[tuple[PeerId, int, PeerId, int], int] = defaultdict(int)
        """(hearer, boot, sender, boot): the highest number heard."""
        self.damage_rate = 0.0
        self.repeat_rate = 0.0
        self.references = ARENA.references(CHUNK)
        super().__init__(seed, nodes, core_count)

    def add_group(self, group: GroupId) -> None:
        """Give every core a member of a group, in no term yet."""
        for each in self.ids:
            self.terms[each].setdefault(group, Term(0))
            core = self.cores[each]
            if core is not None:
                core.peers.terms.put(group, self.terms[each][group])

    # --- what is said ---

    def said(self, core: Core, news: News) -> None:
        match news:
            case LifeEnded():
                current = self.cores[news.peer]
                is_over = current is None or current.boot > news.boot
                assert is_over, f"{core.peer} says that {news.peer} is gone, and it lives"
            case Judged(peer=peer, verdict=Silent()):
                awake_ms = self.now_ms - core.resumed_ms
                assert awake_ms >= limits.PEER_SILENT_MS, f"{core.peer} was away, not {peer}"
                core.verdicts[peer] = news.verdict
            case Judged(peer=peer, verdict=verdict):
                core.verdicts[peer] = verdict
            case Received(peer=peer):
                for number in self.sent_messages(news):
                    key = (core.peer, core.boot, peer, self.session_boot(core, peer))
                    assert number > self.words[key], f"{core.peer} takes word {number} twice"
                    self.words[key] = number
            case _:
                pass

    def session_boot(self, core: Core, peer: PeerId) -> int:
        """Return which life of *peer* a core speaks with."""
        session = core.peers.session(peer)
        assert session is not None
        return session.boot

    # --- what is sent and delivered ---

    def left(self, core: Core, target: PeerId, data: bytes) -> None:
        frame = decode(data, limits.PEER_FRAME_BYTES_MAX)
        if frame.kind is Kind.BEAT:
            number = beats.decode_beat(frame.body).round
            self.rounds[core.peer, core.boot, target, number] = core.now_ms

    def arrives(self, core: Core, event: PeerFrame) -> list[PeerFrame]:
        data = bytes(event.data)
        if self.random.random() < self.damage_rate:
            bit = self.random.randrange(8 * len(data))
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            return [PeerFrame(event.conn, bytes(damaged))]
        return [event] * (2 if self.random.random() < self.repeat_rate else 1)

    def taking(self, core: Core, event: PeerEvent) -> None:
        """Note what a frame lists, if it is whole, the next one, and from who is listened to."""
        if not isinstance(event, PeerFrame):
            return
        found = core.peers._by_conn.get(event.conn)
        if found is None or not found[1].is_open:
            return
        try:
            frame = decode(event.data, limits.PEER_FRAME_BYTES_MAX)
        except FrameError:
            return
        peer, line = found
        if frame.number != line.next_in:
            return
        key = (core.peer, core.boot, peer.peer)
        if frame.kind is Kind.BEAT:
            beat = beats.decode_beat(frame.body)
            if _is_fit(beat.health):
                for group, term, _ in codec.unpack_heartbeats(beat.rows):
                    if self.terms[core.peer].get(group) == term:
                        self.listed[*key, group, term] = core.now_ms
        elif frame.kind is Kind.BEAT_ANSWER:
            answer = beats.decode_answer(frame.body)
            sent_ms = self.rounds[*key, answer.round]
            for group, term in codec.unpack_heartbeat_answers(answer.followed):
                self.followed[*key, group, term] = sent_ms

    # --- what is so ---

    def looked_at(self) -> None:
        if self.now_ms % LOOK_EVERY_MS:
            return
        for core in self.alive():
            if core.paused_until_ms > self.now_ms:
                continue
            self.check_refreshes(core)
            self.check_bounds(core)
        self.rounds = {
            key: sent for key, sent in self.rounds.items() if key[1] == self.boots[key[0]]
        }

    def check_refreshes(self, core: Core) -> None:
        """A group was heard of when a frame listed it, and at no other time."""
        peers = core.peers
        heard = peers.watch.heard_ms
        for other in self.ids:
            if other[0] == core.peer[0] or self.core_count > 1:
                continue
            for group, term in self.terms[core.peer].items():
                for each in {Term(max(1, term - 1)), Term(max(1, term)), Term(term + 1)}:
                    key = (core.peer, core.boot, other, group, each)
                    heard_ms = peers.leader_heard_ms(group, each, other[0], 0)
                    listed_ms = self.listed.get(key, NEVER_MS)
                    assert heard_ms in {NEVER_MS, heard(listed_ms)}, (
                        f"{core.peer} heard of group {group} in term {each} from {other}"
                        f" at {heard_ms}, which was listed at {listed_ms}"
                    )
                    sent_ms = peers.lease_from_ms(group, each, other[0], 0)
                    followed_ms = self.followed.get(key, NEVER_MS)
                    assert sent_ms in {NEVER_MS, followed_ms}, "a lease from nothing"
                    awake_ms = core.resumed_ms + core.offset_ms
                    assert sent_ms == NEVER_MS or sent_ms >= awake_ms, "an old lease"

    def check_bounds(self, core: Core) -> None:
        """Nothing grows."""
        peers = core.peers
        for other in self.ids:
            session = peers.session(other)
            data = peers.data(other)
            if session is not None and data is not None:
                assert len(session) < ROWS_MAX, f"a session of {len(session)} rows"
                assert len(session._rounds) <= limits.PEER_ROUNDS_MAX
                assert data.queued_bytes <= limits.PEER_QUEUE_BYTES_MAX
                assert data.flight_bytes <= limits.PEER_FLIGHT_BYTES_MAX
        pairs = len(self.ids)
        assert len(peers._by_conn) <= 3 * pairs
        assert len(peers._by_dial) <= 3 * pairs
        assert len(peers._ungreeted) <= 8 * pairs
        assert len(peers._refused) <= limits.PEER_REFUSALS_LOGGED_MAX
        own = sum(1 for receiver, _ in self.streams if receiver == core.peer)
        assert own <= 16 * pairs, f"{own} connections of {core.peer}"

    def revive(self, peer: PeerId) -> None:
        """Make the groups known to a core's new life."""
        for group, term in self.terms[peer].items():
            self.core(peer).peers.terms.put(group, term)

    def elect(self, group: GroupId, leader: PeerId) -> None:
        """Have a core lead a group in a term that nobody has led it in."""
        term = Term(1 + max(terms.get(group, 0) for terms in self.terms.values()))
        self.core(leader).lead(group, term)

    def check_led(self, core: Core, group: GroupId, term: Term) -> None:
        """Everybody hears a leader, is heard by it, and knows who it is."""
        node = core.peer[0]
        for other in self.alive():
            if other is core:
                lead = other.leads.of(group)
                assert lead is not None
                assert (lead.at, lead.term) == (core.peer, term)
            elif other.peer[0] != node:
                heard_ms = other.peers.leader_heard_ms(group, term, node, 0)
                assert other.now_ms - heard_ms <= 2 * limits.PEER_BEAT_MS
                sent_ms = core.peers.lease_from_ms(group, term, other.peer[0], 0)
                assert core.now_ms - sent_ms <= 3 * limits.PEER_BEAT_MS
                lead = other.leads.of(group)
                assert lead is not None
                assert (lead.at, lead.term) == (core.peer, term)
                assert other.leads.home(group, node) == core.peer[1]

    def check_references(self) -> None:
        """Every reference was given back but those of messages that wait."""
        waiting = sum(
            len(each.chunks_held)
            for core in self.alive()
            for other in self.ids
            for each in _appends_waiting(core, other)
        )
        held = ARENA.references(CHUNK) - self.references
        assert held == waiting, f"{held} references for {waiting} appends"

    def check_all_up(self) -> None:
        """Everybody answers everybody."""
        for core in self.alive():
            for other in self.alive():
                if other.peer[0] != core.peer[0]:
                    verdict = core.peers.verdict(other.peer)
                    assert isinstance(verdict, Up), f"{core.peer} says {verdict} of {other.peer}"
                    data = core.peers.data(other.peer)
                    assert data is not None
                    assert data.line.is_open, f"{core.peer} has no data link to {other.peer}"


def _is_fit(health: Health) -> bool:
    return (health.wal_age_ms or 0) <= limits.PEER_WAL_AGE_MS_MAX and (
        health.data_age_ms or 0
    ) <= limits.PEER_DATA_AGE_MS_MAX


def _appends_waiting(core: Core, other: PeerId) -> list[Outgoing]:
    data = core.peers.data(other)
    return [] if data is None else [*data._appends._waiting]


def storm(net: Checked, for_ms: int) -> None:
    """Let everything happen that happens to machines and networks, in any order."""
    chance = net.random
    groups = [GroupId(number) for number in range(7, 12)]
    for group in groups:
        net.add_group(group)
    end_ms = net.now_ms + for_ms
    while net.now_ms < end_ms:
        one, other = chance.sample(net.ids, 2)
        alive = net.cores[one] is not None
        match chance.randrange(13):
            case 0 | 1:
                net.blocked.add((one[0], other[0]))
            case 2:
                net.blocked |= {(one[0], other[0]), (other[0], one[0])}
            case 3 | 4:
                net.blocked.clear()
            case 5 if alive:
                net.pause(one, chance.choice([100, 400, 1500, 4000]))
            case 6 if alive:
                net.kill(one)
            case 7 if alive:
                net.kill(one)
                net.start(one)
                net.revive(one)
            case 8 if alive:
                net.off.add(one[0])
                for each in [each for each in net.ids if each[0] == one[0]]:
                    if net.cores[each] is not None:
                        net.kill(each, tells=False)
            case 9 if not alive:
                net.off.discard(one[0])
                net.start(one)
                net.revive(one)
            case 10 | 11 if alive:
                net.elect(chance.choice(groups), one)
            case 12 if alive:
                net.core(one).drop(chance.choice(groups))
            case _:
                net.delay_ms = chance.choice([2, 20, 150])
                net.skip_rate = chance.choice([0, 0.1, 0.7])
        net.run(chance.choice([20, 100, 500, 1500]))


def calm(net: Checked) -> None:
    """Give everything back its power and its network, and let it come to rest."""
    net.blocked.clear()
    net.off.clear()
    net.delay_ms = 2
    net.skip_rate = net.damage_rate = net.repeat_rate = 0.0
    for each in net.ids:
        if net.cores[each] is None:
            net.start(each)
            net.revive(each)
        net.core(each).paused_until_ms = min(net.core(each).paused_until_ms, net.now_ms + 1000)
    net.run(10_000)
    net.check_all_up()
    net.check_references()
    for group in net.terms[net.ids[0]]:
        net.elect(group, net.random.choice(net.ids))
    net.run(1_000)
    for core in net.alive():
        for group, term in core.leading.items():
            net.check_led(core, group, term)
