"""One raft group on this core: its raft state and its log, and the effects between the two."""

# performance-critical: see STYLE.md

from collections.abc import Callable, Sequence
from typing import Final, Protocol, assert_never

from corelane.model.ids import Index, MemberId, RecordKind, Term
from corelane.model.metrics import ShardCounts
from corelane.raft import membership
from corelane.raft.core import RaftGroup
from corelane.raft.effects import (
    AppendConfiguration,
    AppendEntries,
    BecameCandidate,
    BecameFollower,
    BecameLeader,
    ChangeRefused,
    Committed,
    Effect,
    InstallSnapshot,
    MadeGood,
    PersistVote,
    Send,
    SendSnapshot,
    TransferEnded,
    Truncate,
)
from corelane.raft.events import (
    Campaign,
    Event,
    Received,
    TransferLeadership,
    VotePersisted,
)
from corelane.raft.membership import Configuration
from corelane.raft.messages import (
    Message,
    PreVote,
    PreVoteAnswer,
    Snapshot,
    Vote,
    VoteAnswer,
)
from corelane.storage.group_log import GroupLog
from corelane.storage.installing import PrefixSnapshot
from corelane.storage.layout import LayoutError
from corelane.storage.receiving import MalformedEntriesError
from corelane.storage.wal import WalFullError

_NO_PAYLOAD: Final = memoryview(b"")
_VOTES: Final = (PreVote, PreVoteAnswer, Vote, VoteAnswer)


class Postman(Protocol):
    """Who carries what raft groups of this core say to other nodes, and hears how they fare."""

    def send(
        self, member: "Member", to: MemberId, message: Message, beside: bytes = b"", /
    ) -> None:
        """Bring a message to another member, or lose it; *beside* goes with a snapshot."""

    def lead(self, member: "Member") -> None:
        """*member* leads: its followers are to hear of it again and again."""

    def follow(self, member: "Member", leader: MemberId | None) -> None:
        """*member* follows *leader*, or looks for one."""

    def term_durable(self, member: "Member", term: Term) -> None:
        """*member* answers for *term* from now on."""

    def appended(self, member: "Member") -> None:
        """The log of a leader has grown: its followers get it at the end of the turn."""

    def committed(self, member: "Member") -> None:
        """More of a leader's log is committed."""

    def hurried(self, member: "Member") -> None:
        """A leader has begun to hand over: its next deadline is another one."""

    def complain(self, member: "Member", text: str) -> None:
        """Say what a person should know of what a peer sent."""


class Member:
    """This core's member of one raft group; subclasses say what its committed entries mean.

    Invariant M1: the effects of one raft call are performed, in order, before the next call.
    Invariant M2: nothing is answered from an entry above `raft.committed_index`.
    """

    __slots__ = (
        "_payload",
        "counts",
        "group",
        "is_damaged",
        "is_leaving",
        "log",
        "postman",
        "raft",
    )

    def __init__(self, raft: RaftGroup, log: GroupLog, counts: ShardCounts) -> None:
        self.counts = counts
        self.group = log.group
        self.raft = raft
        self.log = log
        self.is_damaged = False
        self.is_leaving = False  # another core is about to take it over
        self.postman: Postman | None = None
        """None: this node stands alone, and raft has nobody to send to."""
        self._payload = _NO_PAYLOAD

    @property
    def serves(self) -> bool:
        """Whether this member leads, has committed an entry of its own term, and is whole."""
        return self.raft.is_established and not self.is_damaged

    @property
    def stirs(self) -> bool:
        """Whether more than answers may come of the next commit."""
        return True

    @property
    def follows(self) -> bool:
        """Whether another node's member is known to lead."""
        return self.raft.leader is not None and not self.raft.is_leader

    def campaign(self, now_ms: int) -> None:
        """Start an election round; with one voter it ends when the own vote is durable."""
        assert not self.is_damaged, "a damaged log leads nothing"
        self.step(now_ms, Campaign())

    def step(self, now_ms: int, event: Event) -> None:
        """Let raft take an event, and do what it asks."""
        effects = self.raft.step(now_ms, event)
        if effects:
            self.perform(effects)
        if type(event) is TransferLeadership and self.postman is not None:
            self.postman.hurried(self)

    def receive(self, now_ms: int, event: Received, payload: memoryview) -> None:
        """Let raft take a message whose entries, if it has any, are *payload*."""
        self._payload = payload
        self.step(now_ms, event)
        self._payload = _NO_PAYLOAD

    def vote_durable(self, now_ms: int, term: Term, voted_for: MemberId) -> None:
        """Tell raft that its VOTE record is on disk."""
        if self.postman is not None:
            self.postman.term_durable(self, term)
        self.step(now_ms, VotePersisted(term, voted_for))

    def entries_durable(self, last_index: Index, truncations: int) -> None:
        """Tell raft that the log is on disk up to *last_index*."""
        effects = self.raft.persisted(last_index, truncations)
        if effects:
            self.perform(effects)

    def append_control(self, kind: RecordKind, payload: bytes) -> Index:
        """Append a control entry as the leader and return its index."""
        assert self.raft.is_leader
        assert kind != RecordKind.BATCH
        index, _lsn = self.log.append_control(self.raft.term, kind, payload)
        self.grown()
        return index

    def grown(self) -> None:
        """The log of this leader has grown; followers hear of it once per turn."""
        if self.postman is not None:
            self.postman.appended(self)

    def perform(self, effects: Sequence[Effect]) -> None:
        """Do what raft asks, in order."""
        for effect in effects:
            match effect:
                case Committed():
                    assert effect.index <= self.raft.committed_index, "M2"
                    self.log.commit(effect.index)
                    self.committed(effect.index)
                    if self.postman is not None and self.raft.is_leader:
                        self.postman.committed(self)
                case PersistVote():
                    self.log.vote(effect.term, effect.voted_for)
                case Send():
                    self.counts.votes_sent += isinstance(effect.message, _VOTES)
                    self._post.send(self, effect.to, effect.message)
                case AppendEntries():
                    self._append_received(effect)
                case BecameLeader():
                    self._lead(effect.term)
                case BecameFollower():
                    if self.postman is not None:
                        self.postman.follow(self, effect.leader)
                    self.became_follower()
                case Truncate():
                    self.log.truncate(effect.from_index)
                    self.truncated(effect.from_index)
                case BecameCandidate():
                    self.counts.elections += 1
                    if self.postman is not None:
                        self.postman.follow(self, None)
                case AppendConfiguration():
                    self._append_configuration(effect)
                case SendSnapshot():
                    self._send_snapshot(effect)
                case InstallSnapshot():
                    self._install(effect.message)
                case MadeGood():
                    self.log.loss = None
                    self.log.store.checkpointing.wanted = True  # or a start would not know it
                case ChangeRefused() | TransferEnded():
                    self.refused(effect)
                case _:
                    assert_never(effect)

    @property
    def _post(self) -> Postman:
        assert self.postman is not None, f"group {self.group} stands alone and raft speaks"
        return self.postman

    def _lead(self, term: Term) -> None:
        assert term == self.log.term, "the own vote is in the log"
        self.counts.leader_changes += 1
        if self.postman is not None:
            self.postman.lead(self)
        self.became_leader(term)
        self.append_control(RecordKind.NEW_LEADER, b"")

    def _append_received(self, effect: AppendEntries) -> None:
        """Append what the leader sent, or as much of it as there is room for.

        What is not appended was never acknowledged: the leader sends it again.
        """
        log, message = self.log, effect.message
        first = effect.first_index
        try:
            last, _lsn = log.append_received(message.runs, first, self._payload)
        except (WalFullError, MemoryError):
            last = Index(first - 1)
        except MalformedEntriesError as fault:
            last = Index(first - 1)
            self._post.complain(self, f"what its leader sent cannot follow here: {fault}")
        if last < message.last_index:
            self.raft.membership.truncated(Index(last + 1))  # C1: in force is what is in the log
        if last >= first:
            self.received(first, last)

    def _send_snapshot(self, effect: SendSnapshot) -> None:
        snapshot = self.snapshot()
        if snapshot is not None:
            behind = (snapshot.last_index, snapshot.last_term)
            message = Snapshot(effect.term, effect.round, *behind)
            self._post.send(self, effect.to, message, snapshot.encode())

    def _install(self, message: Snapshot) -> None:
        """Begin anew with what the leader sent; where that cannot be, it is sent again."""
        log = self.log
        try:
            snapshot = PrefixSnapshot.decode(bytes(self._payload))
            if (snapshot.last_index, snapshot.last_term) != (message.last_index, message.last_term):
                raise LayoutError("a snapshot of another entry than its message names")
            index, payload = snapshot.configuration
            begin_anew = self.prepared(snapshot)
            members = membership.decode(payload) if index else Configuration(log.descriptor.voters)
            log.store.install(log, snapshot)
        except (WalFullError, MemoryError):
            return
        except (LayoutError, membership.ConfigurationError) as fault:
            self._post.complain(self, f"its leader's snapshot cannot be taken: {fault}")
            return
        self.raft.installed(members)
        begin_anew()

    def _append_configuration(self, effect: AppendConfiguration) -> None:
        payload = membership.encode(effect.configuration)
        index, _lsn = self.log.append_control(self.raft.term, RecordKind.CONFIG, payload)
        self.perform(self.raft.configuration_appended(index, effect.configuration))
        self._post.lead(self)

    def committed(self, index: Index) -> None:
        """Act on everything up to *index* being committed and durable here."""

    def received(self, first: Index, last: Index) -> None:
        """Take note of entries that a leader sent; none of them is known to be committed."""

    def became_leader(self, term: Term) -> None:
        """Get ready to append as the leader of *term*."""

    def became_follower(self) -> None:
        """Give up what only a leader may promise."""

    def snapshot(self) -> PrefixSnapshot | None:
        """Return what the log begins behind, for who needs that; None: it cannot be told now."""
        return None  # a log that is never trimmed needs none

    def prepared(self, snapshot: PrefixSnapshot) -> Callable[[], None]:
        """Return what takes over the fold of *snapshot*; raises LayoutError where it is none."""
        raise LayoutError("this group has no snapshots")

    def renewed(self, fold: bytes) -> None:
        """The log went back, damaged; *fold* is of what was committed, and may be ahead of it."""

    def truncated(self, from_index: Index) -> None:
        """Forget the uncommitted entries from *from_index* on."""

    def refused(self, effect: ChangeRefused | TransferEnded) -> None:
        """Hear that members stay as they are, or that this leader goes on."""
