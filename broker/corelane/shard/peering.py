"""The raft groups of this core and those of other nodes: what they say to each other, and when.

`peers/` knows cores, connections and heartbeats and no group; `raft/` knows one group and no
connection. Here messages find their members, members their peers, and time its groups.

Invariants:
J1. No group has a task or a timer of its own. An idle one costs nothing but its leader's row in the
    heartbeat frames of its followers' cores (`vigil.py`).
J2. Appends of a turn leave together at its end: raft is told once per group how far its log goes.
J3. Whatever is dropped on its way is sent again: a follower that answers heartbeats and does not
    get on is asked again every `PEER_BEAT_MS`.
"""

# performance-critical: see STYLE.md

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, assert_never

from corelane.model import limits
from corelane.model.ids import (
    CONTROLLER_GROUP,
    ChunkId,
    CoreId,
    GroupId,
    Index,
    MemberId,
    NodeId,
    Term,
    incarnation_of,
    member_id,
    node_of,
)
from corelane.raft.events import LeaderGone
from corelane.raft.events import Received as RaftReceived
from corelane.raft.messages import Append, Heartbeat, HeartbeatAnswer, Message
from corelane.raft.state import NEVER_MS
from corelane.shard.calls import Calls
from corelane.shard.config import PeerPlace
from corelane.shard.contacts import PeerContacts
from corelane.shard.courier import Couriers, Places
from corelane.shard.duties import Duties
from corelane.shard.effects import Part
from corelane.shard.homecoming import Homecoming
from corelane.shard.inquiries import is_answer, is_inquiry
from corelane.shard.lanes import Lanes, offer, rates
from corelane.shard.led_rows import LedRows
from corelane.shard.member import Member
from corelane.shard.peers.data_link import Address
from corelane.shard.peers.events import (
    Called,
    Gone,
    Heard,
    Introduced,
    Judged,
    LeadsChanged,
    LifeEnded,
    News,
    Outdated,
    PeerEvent,
    PeerMessage,
    Received,
    Returned,
    Up,
)
from corelane.shard.peers.fitness import Fitness
from corelane.shard.peers.hello import Identity, PeerId
from corelane.shard.peers.leads import Lead, Leads
from corelane.shard.peers.passed import decode_passed, encode_passed
from corelane.shard.peers.peers import Peers, PeersConfig
from corelane.shard.peers.watch import Watch
from corelane.shard.reassigning import Reassigning
from corelane.shard.vigil import ELECTION_TIMEOUT_MS, SWEEP_MS, Vigil, takes_part
from corelane.shard.whereabouts import ASKING_ROUND, Whereabouts
from corelane.storage.segments import Segment

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

REPORT_MS: Final = 1_000
_ENTRIES_SLACK_BYTES: Final = 64 * limits.KIB
_PART_BYTES: Final = 64 * limits.KIB
"""So much of a message's entries is worth taking."""
_WARNING: Final = 30


class Peering:
    """What this core's members hear from and say to other nodes; the `Postman` of all of them."""

    def __init__(self, shard: "Shard", groups: "Groups", place: PeerPlace) -> None:
        config = shard.config
        self._shard = shard
        self._groups = groups
        self._own = config.node
        identity = Identity(
            config.cluster_id,
            config.node,
            config.core,
            config.core_count,
            place.boot,
            place.host,
            place.port,
        )
        self.leads = Leads(self._was_deleted)
        manners = PeersConfig(identity, ELECTION_TIMEOUT_MS)
        self.peers = Peers(shard.now_ms, manners, config.random, shard.arena, self.leads)
        self.fitness = Fitness(self.peers)
        self.contacts = PeerContacts(self.peers, self.fitness)
        self._vigil = Vigil(self.peers)
        lanes = Lanes(rates(self.peers), lambda: shard.config.config.replication)
        self.whereabouts = Whereabouts(groups, self)
        places = Places(self.whereabouts.of, lanes)
        self._couriers = Couriers(shard.store, self._put, self._damaged, places)
        self.duties = Duties(shard, groups, self)
        self.homecoming = Homecoming(shard, groups, self)
        self._reassigning = Reassigning(shard, groups, self)
        self.calls = Calls(shard, groups, self)
        self._met: dict[PeerId, tuple[str, int]] = {
            (node, CoreId(0)): (host, port)
            for node, host, port in place.seeds
            if node != config.node and config.core == 0
        }
        """Cores that were heard of and are of no registered node yet."""
        self._grown: dict[GroupId, Member] = {}
        self._rows = LedRows(groups, self.peers, self.whereabouts)
        self._behind: dict[GroupId, dict[MemberId, Index]] = {}
        self._unsettled: dict[GroupId, Member] = {}
        self._announces = False
        self.is_alone = False  # no core of another node is known
        self._sweep_at_ms = 0
        self._beat_at_ms = 0
        self._report_at_ms = 0
        self._hurry_at_ms = NEVER_MS
        self._durable_lsn = -1
        self._durable_ms: int | None = None
        self.dropped = 0
        """Messages for members that are not here, or that there was no room for."""

    # --- the world beyond the node ---

    def start(self) -> None:
        """Begin; time was not known before."""
        self.peers.watch = Watch(self._shard.now_ms, ELECTION_TIMEOUT_MS)
        if self._shard.config.core == 0:
            for node in self._groups.controller.nodes_named():
                if node.node != self._own and node.peer_port:
                    self._met[node.node, CoreId(0)] = (node.peer_host, node.peer_port)
        self.nodes_changed()

    def nodes_changed(self) -> None:
        """Speak with the cores of all registered nodes, and with those met at the door."""
        addresses: dict[PeerId, tuple[str, int]] = {}
        known = self._groups.cluster.nodes
        for node in known.values():
            if node.node == self._own or not node.peer_port:
                continue
            for core in range(node.core_count):
                addresses[node.node, CoreId(core)] = (node.peer_host, node.peer_port)
        self._met = {peer: at for peer, at in self._met.items() if peer not in addresses}
        self.is_alone = not (self._met or addresses)
        self.peers.know(self._shard.now_ms, self._met | addresses)

    def is_node_up(self, node: NodeId) -> bool:
        """Whether a core of that node answers."""
        count = self.whereabouts.core_count(node)
        return any(
            isinstance(self.peers.verdict((node, CoreId(core))), Up) for core in range(count)
        )

    def lead_of(self, group: GroupId) -> Lead | None:
        """Return who leads a group elsewhere; None also where the process that led is dead."""
        lead = self.leads.of(group)
        if lead is not None and isinstance(self.peers.verdict(lead.at), Gone):
            return None
        return lead

    def _was_deleted(self, group: GroupId) -> bool:
        cluster = self._groups.cluster
        return (
            group != CONTROLLER_GROUP
            and group < cluster.next_group
            and cluster.partition_of(group) is None
        )

    # --- members come and go ---

    def came(self, member: Member) -> None:
        """A member is here: it answers for its durable term, and looks for its leader."""
        member.raft.may_lead = self.duties.may_lead
        self._vigil.awake(member)
        if not member.raft.is_asking:
            self.term_durable(member, member.raft.term)

    def left(self, group: GroupId) -> None:
        """A member is here no more."""
        self._forget_led(group)
        self._vigil.forget(group)
        self.peers.terms.drop(group)

    def deleted(self, groups: Iterable[GroupId]) -> None:
        """Groups are no more, anywhere."""
        self.leads.deleted(groups)

    # --- what members say (`Postman`) ---

    def send(self, member: Member, to: MemberId, message: Message, beside: bytes = b"", /) -> None:
        if isinstance(message, HeartbeatAnswer) and message.round != ASKING_ROUND:
            return  # sessions answer for all groups at once
        if isinstance(message, Append) and message.runs:
            self._couriers.send(member, to, message)
        else:
            self._put(member, to, message, [beside] if beside else [], [])

    def lead(self, member: Member) -> None:
        group = member.group
        self._rows.put(member)
        self._behind.setdefault(group, {})
        self._unsettled[group] = member
        self.peers.terms.follows(group)
        self._vigil.awake(member)
        self.homecoming.led()

    def follow(self, member: Member, leader: MemberId | None) -> None:
        self._forget_led(member.group)
        self._vigil.awake(member)
        if leader is None:
            self.peers.terms.asks(member.group)
        else:
            self.peers.terms.follows(member.group)

    def term_durable(self, member: Member, term: Term) -> None:
        self.peers.terms.put(member.group, term, incarnation_of(member.raft.self_id))

    def appended(self, member: Member) -> None:
        if not self.is_alone:  # else what is sent would be lost
            self._grown[member.group] = member

    def committed(self, member: Member) -> None:
        self._rows.committed(member)
        if member.group == CONTROLLER_GROUP:
            self._announces = True

    def hurried(self, member: Member) -> None:
        self._vigil.awake(member)

    def complain(self, member: Member, text: str) -> None:
        self._shard.log(_WARNING, f"raft group {member.group}: {text}")

    def _put(
        self,
        member: Member,
        to: MemberId,
        message: Message,
        payload: list[Part],
        chunks: list[ChunkId],
        /,
    ) -> None:
        link = self.peers.data(self.whereabouts.of(member.group, to))
        if link is None:
            for chunk in chunks:
                self._shard.arena.release(chunk)
            self.dropped += 1
            return
        address = Address(member.group, member.raft.self_id, to)
        link.put(self._shard.now_ms, address, message, payload, chunks)

    def _damaged(self, member: Member, segment: Segment, error: int) -> None:
        """A leader cannot read what it committed: it is to lead no more."""
        why = f"{segment.path(segment.log)} cannot be read (errno {error})"
        self._groups.repairs.found_in_segment(member, segment, why)

    # --- what members hear ---

    def take(self, event: PeerEvent) -> None:
        """Act on what happened to a connection."""
        self.peers.take(self._shard.now_ms, event)
        self._take_news()

    def sibling_ended(self, core: CoreId, boot: int) -> None:
        """A life of another core of this node is over: other nodes are to know."""
        self.peers.sibling_ended(self._shard.now_ms, core, boot)

    def _take_news(self) -> None:
        while self.peers.news:
            news, self.peers.news = self.peers.news, []
            for each in news:
                self._hear(each)

    def _hear(self, news: News) -> None:
        match news:
            case Received():
                for message in news.messages:
                    self._received(news.peer, message)
            case Heard():
                for group, term, committed in news.rows:
                    self._told(group, news, Heartbeat(term, news.round, committed))
            case Outdated():
                for group, term in news.rows:
                    self._told(group, news, HeartbeatAnswer(term, news.round))
            case LeadsChanged():
                for group in news.groups:
                    self._groups.lead_changed(group)
            case LifeEnded():
                self._life_ended(news)
            case Judged():
                self._judged(news)
            case Introduced():
                self._introduced(news)
            case Called():
                (self._groups.asking if is_inquiry(news) else self.calls).called(news)
            case Returned():
                (self._groups.asking if is_answer(news) else self.calls).returned(news)
            case _:
                assert_never(news)

    def _received(self, peer: PeerId, message: PeerMessage) -> None:
        group = message.group
        if node_of(MemberId(message.sender)) != peer[0]:
            self.dropped += 1  # what another node's member says comes from that node
            return
        member = self._groups.members.get(group)
        if member is None:
            if not self._groups.siblings.pass_on(group, encode_passed(peer[1], message)):
                self.dropped += 1
            return
        if isinstance(message.message, Heartbeat):
            return  # it was asked for, and is where its leader supposed it to be (whereabouts, K2)
        self.bring(member, message)

    def bring(self, member: Member, brought: PeerMessage) -> None:
        """Give a message to a member, unless there is no room for what it brings."""
        sender, payload = MemberId(brought.sender), brought.payload
        if brought.recipient != member.raft.self_id:
            self.dropped += 1  # for a member that is no more (C3)
            return
        if member.is_damaged or member.log.is_leaving:
            self.dropped += 1  # it does not know what it has promised, or another core does now
            return
        if payload and member.is_leaving:
            self.dropped += 1  # it is to come to an end first
            return
        # Of entries those that there is room for will do (E2 of storage/receiving.py). To wait for
        # room for all would be for ever where only what they commit lets go of the log's files.
        least = len(payload)
        if isinstance(brought.message, Append):
            least = min(least, _PART_BYTES)
        if payload and not self._shard.store.has_room(least + _ENTRIES_SLACK_BYTES):
            self.dropped += 1
            return
        member.receive(self._shard.now_ms, RaftReceived(sender, brought.message), payload)

    def passed(self, body: bytes) -> None:
        """Take a message that another node had sent to a sibling of this core."""
        core, message = decode_passed(body)
        member = self._groups.members.get(message.group)
        if member is None:
            self.dropped += 1
            return
        node = node_of(MemberId(message.sender))
        self.leads.found(member.group, node, core)
        self._meet((node, core))
        self.bring(member, message)

    def _told(self, group: GroupId, news: Heard | Outdated, message: Message) -> None:
        member = self._groups.members.get(group)
        if member is not None and takes_part(member):
            incarnation, _recipient = news.incarnations.get(group, (0, 0))
            sender = member_id(news.peer[0], incarnation)
            member.step(self._shard.now_ms, RaftReceived(sender, message))

    def _life_ended(self, news: LifeEnded) -> None:
        now_ms = self._shard.now_ms
        for group, term, incarnation in news.led:
            member = self._groups.members.get(group)
            if member is not None and takes_part(member):
                leader = member_id(news.peer[0], incarnation)
                member.step(now_ms, LeaderGone(leader, term))
                self._groups.lead_changed(group)
        self._sweep_at_ms = now_ms

    def _judged(self, news: Judged) -> None:
        """A peer is there, or away: the in-sync sets of what is led here may change."""
        node = news.peer[0]
        self.homecoming.judged(news.peer, news.verdict)
        if not isinstance(news.verdict, Up):
            self._groups.asking.lost(news.peer)
            self.calls.lost(news.peer)
        if isinstance(news.verdict, Gone) and self._is_retired(news.peer):
            self._met.pop(news.peer, None)
            self.nodes_changed()
        for group in self._rows.groups_at(node):
            member = self._groups.members.get(group)
            if member is not None:
                self._unsettled[group] = member
                self._behind.setdefault(group, {})
        self._groups.node_judged(node)

    def _is_retired(self, peer: PeerId) -> bool:
        """Whether a core is one more than its node has: it hands over what it still owns."""
        node, core = peer
        return node in self._groups.cluster.nodes and core >= self.whereabouts.core_count(node)

    def _meet(self, peer: PeerId) -> None:
        """Speak with a retired core that this one, retired too, heard of by what was passed on.

        Retired cores are in no registry: each meets those that are, but not another one.
        """
        config, known = self._shard.config, self._groups.cluster.nodes
        if config.core < config.core_count or peer in self._met or not self._is_retired(peer):
            return
        self._introduced(Introduced(peer, known[peer[0]].peer_host, known[peer[0]].peer_port))

    def _introduced(self, news: Introduced) -> None:
        is_wanted = self._shard.config.core == 0 or self._is_retired(news.peer)
        if is_wanted and len(self._met) < limits.NODES_MAX:
            self._met[news.peer] = (news.host, news.port)
            self.nodes_changed()

    # --- time ---

    @property
    def wal_age_ms(self) -> int | None:
        """Return how long a WAL write has been under way, or waiting; None: nothing is.

        A pause of the loop is not part of it: that the write ended may not have been read (W4).
        """
        if self._durable_ms is None:
            return None
        return self._shard.now_ms - self.peers.watch.heard_ms(self._durable_ms)

    def _watch_wal(self) -> None:
        wal = self._shard.store.wal
        if wal.is_idle:
            self._durable_ms = None
        elif self._durable_ms is None or wal.durable_lsn != self._durable_lsn:
            self._durable_ms = self._shard.now_ms
        self._durable_lsn = wal.durable_lsn

    def turn(self) -> None:
        """Do what time asks for and send what has gathered; at the end of each turn."""
        now_ms = self._shard.now_ms
        self._groups.reads.turn()
        self._watch_wal()
        if not self._groups.is_reconciled and self._groups.siblings.is_settled:
            self._groups.settled()
        if now_ms >= self._sweep_at_ms:
            self._sweep_at_ms = now_ms + SWEEP_MS
            self._vigil.sweep(now_ms)
        if now_ms >= self._beat_at_ms:
            self._beat_at_ms = now_ms + limits.PEER_BEAT_MS
            self._catch_up(now_ms)
            offer(self.peers, self._shard.config.config.replication, self.wal_age_ms)
        self._couriers.lanes.turn(now_ms)
        self.duties.turn()
        self.homecoming.turn()
        self._reassigning.turn()
        self._groups.repairs.turn()
        self.calls.turn()
        if now_ms >= self._hurry_at_ms:
            self._hurry_at_ms = NEVER_MS
        self._send_grown()
        self._rows.turn(now_ms)
        if now_ms >= self._report_at_ms:
            self._report_at_ms = now_ms + REPORT_MS
            self._report()
        self.peers.turn(now_ms, self.wal_age_ms)
        self._take_news()
        self._send_grown()
        effects, self.peers.effects = self.peers.effects, []
        self._shard.effects += effects
        soon_ms = min(self._sweep_at_ms, now_ms + SWEEP_MS)
        self._sweep_at_ms = soon_ms if self._vigil.is_needed else self.peers.round_at_ms
        self._hurry_at_ms = min(self._hurry_at_ms, self._couriers.lanes.next_ms(now_ms))
        self.peers.watch.rests_until(self.next_ms())

    def next_ms(self) -> int:
        """Return when the next turn is due."""
        return min(self._sweep_at_ms, self._hurry_at_ms, self.peers.round_at_ms)

    def hurry(self, member: Member) -> None:
        """Ask the followers of a group soon whether they still follow."""
        for peer in self._rows.peers_of(member.group):
            session = self.peers.session(peer)
            if session is not None:
                self._hurry_at_ms = min(self._hurry_at_ms, session.hurry(self._shard.now_ms))

    def _send_grown(self) -> None:
        while self._grown:
            grown, self._grown = self._grown, {}
            for group, member in grown.items():
                if member.raft.is_leader:
                    member.perform(member.raft.appended(member.log.last_index))
                    self._behind.setdefault(group, {})
        if self._announces:
            self._announces = False
            controller = self._groups.members.get(CONTROLLER_GROUP)
            if controller is not None and controller.raft.is_leader:
                controller.perform(controller.raft.announce())

    def _catch_up(self, now_ms: int) -> None:
        """Ask again the followers that answer and do not get on (J3)."""
        settled = []
        for group, before in self._behind.items():
            member = self._groups.members.get(group)
            if member is None or not member.raft.is_leader:
                settled.append(group)
                continue
            raft, last = member.raft, member.log.last_index
            now = {
                follower: index
                for follower, index in raft.match_indexes().items()
                if follower != raft.self_id and index < last
            }
            for follower, index in now.items():
                heard_ms = self.contacts.follower_heard_ms(group, raft.term, follower)
                is_stuck = before.get(follower, -1) == index
                is_stuck = is_stuck and not self._couriers.is_busy(group, follower)
                if is_stuck and now_ms - heard_ms < limits.PEER_SILENT_MS and raft.is_leader:
                    member.step(now_ms, RaftReceived(follower, HeartbeatAnswer(raft.term, 0)))
            if now:
                before.clear()
                before.update(now)
                self._unsettled[group] = member  # it may be out of sync soon, or on another core
            else:
                settled.append(group)
                self._rows.put(member)  # what they have now, their rows may say is committed
        for group in settled:
            del self._behind[group]

    def _forget_led(self, group: GroupId) -> None:
        self._rows.drop(group)
        self._grown.pop(group, None)
        self._unsettled.pop(group, None)

    def _report(self) -> None:
        """Tell everybody which replicas are in sync, where that has changed."""
        unsettled, self._unsettled = self._unsettled, {}
        for group, member in unsettled.items():
            if self._groups.members.get(group) is not member or not member.raft.is_leader:
                continue
            self._rows.put(member)  # its replicas may be elsewhere now, or their sessions new
            if member.serves:
                self.tell_lead(member)
            nodes = {node_of(each) for each in member.raft.configuration.members}
            if not member.serves or nodes != set(self._in_sync(group)):
                self._unsettled[group] = member
            self.whereabouts.ask(member, self._shard.now_ms)

    def _in_sync(self, group: GroupId) -> tuple[NodeId, ...]:
        lead = self.leads.of(group)
        return () if lead is None else lead.in_sync

    def tell_lead(self, member: Member) -> None:
        """Say that *member* leads, and who is in sync with it."""
        raft, group = member.raft, member.group
        in_sync = tuple(dict.fromkeys(map(node_of, raft.in_sync(self._shard.now_ms))))
        known = self.leads.of(group)
        revision = 1
        if known is not None and known.term == raft.term:
            if known.in_sync == in_sync:
                return
            revision = known.revision + 1
        config = self._shard.config
        lead = Lead(group, raft.term, revision, config.node, config.core, in_sync)
        if self.leads.take([lead]):
            self._groups.lead_changed(group)
