"""The controller's raft group on this core: commands in, changes of the cluster out."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from corelane.cluster.changes import Change
from corelane.cluster.commands import (
    AddPartitions,
    ClusterCreated,
    Command,
    CreateTopic,
    DeleteTopic,
    NodeRegistered,
    decode,
    encode,
)
from corelane.cluster.metadata import Cluster
from corelane.model.ids import Index, RecordKind, Term
from corelane.model.metrics import ShardCounts
from corelane.raft.core import RaftGroup
from corelane.shard.member import Member
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import BLOCK_BYTES
from corelane.storage.wal import RESERVE_BYTES

_MAY_USE_RESERVE = (ClusterCreated, NodeRegistered, DeleteTopic)

PARTITION_BYTES: Final = 512
"""What making a partition takes of the WAL: its OWN, VOTE and NEW_LEADER records, padded."""

Applied = Callable[[Sequence[Change] | None], None]
"""Told what a proposed command changed, or None when this core stopped leading before it could."""


class Follower(Protocol):
    """Who acts on what the cluster has become."""

    def changed(self, change: Change) -> None:
        """Act on one change."""

    def applied(self, index: Index, payload: bytes) -> None:
        """Pass a command on to who mirrors the fold; its changes follow, each by `changed`."""

    def established(self) -> None:
        """The fold is the cluster's, and not still being read: look at all of it at once."""

    def took_lead(self) -> None:
        """This core leads the controller's group now, and takes commands."""


class Controller(Member):
    """The fold of the controller's log, and the proposals that wait for it.

    Invariant K1: the fold is applied once per committed entry, in index order, here and at
    recovery alike (one apply function for live and replay).
    Invariant K2: nobody acts on the fold before it has everything that this core may have acted on
    in an earlier life: all that its log had at the start, and an entry of its leader's own term.
    """

    __slots__ = ("_led_term", "_start_index", "cluster", "follower", "is_known", "proposals")

    def __init__(
        self,
        raft: RaftGroup,
        log: GroupLog,
        counts: ShardCounts,
        cluster: Cluster,
        follower: Follower,
    ) -> None:
        super().__init__(raft, log, counts)
        self.cluster = cluster
        self.follower = follower
        self.is_known = False
        """Whether the fold may be acted on (K2); it stays so."""
        self._start_index = log.last_index
        self._led_term = Term(0)
        self.proposals: deque[tuple[Index, Applied]] = deque()

    def propose(self, command: Command, applied: Applied) -> None:
        """Append *command*; *applied* is called with its changes once it is committed.

        While the log has no room only what may use its reserve is taken: deletions make room.
        """
        payload = encode(command)
        if not self.serves or not self._has_room(command, len(payload)):
            applied(None)
            return
        index = self.append_control(RecordKind.COMMAND, payload)
        assert not self.proposals or self.proposals[-1][0] < index
        self.proposals.append((index, applied))

    def _has_room(self, command: Command, size_bytes: int) -> bool:
        room_bytes = self.log.store.wal.room_bytes - size_bytes
        if isinstance(command, _MAY_USE_RESERVE):
            return room_bytes > -RESERVE_BYTES // 2
        if isinstance(command, CreateTopic | AddPartitions):
            room_bytes -= len(command.partitions) * PARTITION_BYTES
        return room_bytes > BLOCK_BYTES

    def committed(self, index: Index) -> None:
        cluster = self.cluster
        while cluster.applied_index < index:
            self._apply(Index(cluster.applied_index + 1))
        assert cluster.applied_index >= index, "K1"
        self.look()

    def nodes_named(self) -> list[NodeRegistered]:
        """Return the nodes that entries name of which nobody knows yet if they are committed.

        After a start they say where to look for those who know.
        """
        named = []
        log = self.log
        for index in range(max(self.cluster.applied_index + 1, log.tail_first), log.last_index + 1):
            if log.entry(Index(index)).kind == RecordKind.COMMAND:
                command = decode(log.control_payload(Index(index)))
                if isinstance(command, NodeRegistered):
                    named.append(command)
        return named

    def look(self) -> None:
        """Act on the whole fold when it is first known, and on having become the leader."""
        raft = self.raft
        if not self.is_known:
            if raft.committed_index < self._start_index or not raft.leader_committed_here:
                return
            self.is_known = True
            self.follower.established()
        if self._led_term != raft.term and self.serves:
            self._led_term = raft.term
            self.follower.took_lead()

    def renewed(self, fold: bytes) -> None:
        del fold  # it is this one
        self._start_index = min(self._start_index, self.log.last_index)

    def truncated(self, from_index: Index) -> None:
        self._start_index = min(self._start_index, Index(from_index - 1))

    def became_follower(self) -> None:
        lost = [applied for _index, applied in self.proposals]
        self.proposals.clear()
        for applied in lost:
            applied(None)

    def _apply(self, index: Index) -> None:
        assert index == self.cluster.applied_index + 1, "K1: once each, in order"
        entry = self.log.entry(index)
        changes: Sequence[Change] = ()
        if entry.kind == RecordKind.COMMAND:
            payload = self.log.control_payload(index)
            changes = self.cluster.apply(index, decode(payload))
            if self.is_known:
                self.follower.applied(index, payload)
        else:
            self.cluster.skip(index)
        if self.is_known:  # before that, `established` looks at the whole fold at once
            for change in changes:
                self.follower.changed(change)
        assert self.cluster.applied_index == index
        if self.proposals and self.proposals[0][0] == index:
            self.proposals.popleft()[1](changes)
