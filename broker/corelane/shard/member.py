"""One raft group on this core: its raft state and its log, and the effects between the two."""

# performance-critical: see STYLE.md

from collections.abc import Sequence
from typing import assert_never

from corelane.model.ids import Index, NodeId, RecordKind, Term
from corelane.model.metrics import ShardCounts
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
    PersistVote,
    Send,
    TransferEnded,
    Truncate,
)
from corelane.raft.events import Campaign, VotePersisted
from corelane.storage.group_log import GroupLog


class Member:
    """This core's member of one raft group; subclasses say what its committed entries mean.

    Invariant M1: the effects of one raft call are performed, in order, before the next call.
    Invariant M2: nothing is answered from an entry above `raft.committed_index`.
    """

    __slots__ = ("counts", "group", "is_damaged", "log", "raft")

    def __init__(self, raft: RaftGroup, log: GroupLog, counts: ShardCounts) -> None:
        self.counts = counts
        self.group = log.group
        self.raft = raft
        self.log = log
        self.is_damaged = False

    @property
    def serves(self) -> bool:
        """Whether this member leads, has committed an entry of its own term, and is whole."""
        return self.raft.is_established and not self.is_damaged

    def campaign(self, now_ms: int) -> None:
        """Start an election round; with one voter it ends when the own vote is durable."""
        assert not self.is_damaged, "a damaged log leads nothing"
        self.perform(self.raft.step(now_ms, Campaign()))

    def vote_durable(self, now_ms: int, term: Term, voted_for: NodeId) -> None:
        """Tell raft that its VOTE record is on disk."""
        self.perform(self.raft.step(now_ms, VotePersisted(term, voted_for)))

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
        self.perform(self.raft.appended(index))
        return index

    def perform(self, effects: Sequence[Effect]) -> None:
        """Do what raft asks, in order."""
        for effect in effects:
            match effect:
                case Committed():
                    assert effect.index <= self.raft.committed_index, "M2"
                    self.log.commit(effect.index)
                    self.committed(effect.index)
                case PersistVote():
                    self.log.vote(effect.term, effect.voted_for)
                case BecameLeader():
                    assert effect.term == self.log.term, "the own vote is in the log"
                    self.counts.leader_changes += 1
                    self.became_leader(effect.term)
                    self.append_control(RecordKind.NEW_LEADER, b"")
                case BecameFollower():
                    self.became_follower()
                case Truncate():
                    self.log.truncate(effect.from_index)
                    self.truncated(effect.from_index)
                case BecameCandidate():
                    self.counts.elections += 1
                case (
                    Send()
                    | AppendEntries()
                    | AppendConfiguration()
                    | ChangeRefused()
                    | TransferEnded()
                ):
                    # Every group has one voter until replication lands: raft has nobody to send
                    # to and nobody to hear from.
                    msg = f"group {self.group} has one voter but raft asked for {effect}"
                    raise AssertionError(msg)
                case _:
                    assert_never(effect)

    def committed(self, index: Index) -> None:
        """Act on everything up to *index* being committed and durable here."""

    def became_leader(self, term: Term) -> None:
        """Get ready to append as the leader of *term*."""

    def became_follower(self) -> None:
        """Give up what only a leader may promise."""

    def truncated(self, from_index: Index) -> None:
        """Forget the uncommitted entries from *from_index* on."""
