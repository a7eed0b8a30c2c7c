"""The controller's raft group on this core: commands in, changes of the cluster out."""

from collections import deque
from collections.abc import Callable, Sequence

from corelane.cluster.commands import Command, decode, encode
from corelane.cluster.metadata import Change, Cluster
from corelane.model.ids import CONTROLLER_GROUP, Index, RecordKind
from corelane.raft.core import RaftGroup
from corelane.shard.member import Member
from corelane.storage.group_log import GroupLog

Applied = Callable[[Sequence[Change] | None], None]
"""Told what a proposed command changed, or None when this core stopped leading before it could."""


class Controller(Member):
    """The fold of the controller's log, and the proposals that wait for it.

    Invariant K1: the fold is applied once per committed entry, in index order, here and at
    recovery alike (one apply function for live and replay).
    """

    __slots__ = ("changed", "cluster", "established", "proposals", "was_established")

    def __init__(
        self,
        raft: RaftGroup,
        log: GroupLog,
        cluster: Cluster,
        changed: Callable[[Change], None],
        established: Callable[[], None],
    ) -> None:
        super().__init__(CONTROLLER_GROUP, raft, log)
        self.cluster = cluster
        self.changed = changed
        self.established = established
        self.was_established = False
        self.proposals: deque[tuple[Index, Applied]] = deque()

    def propose(self, command: Command, applied: Applied) -> None:
        """Append *command*; *applied* is called with its changes once it is committed."""
        if not self.serves:
            applied(None)
            return
        index = self.append_control(RecordKind.COMMAND, encode(command))
        self.proposals.append((index, applied))

    def committed(self, index: Index) -> None:
        cluster = self.cluster
        while cluster.applied_index < index:
            self._apply(Index(cluster.applied_index + 1))
        if not self.was_established and self.raft.is_established:
            self.was_established = True
            self.established()

    def became_follower(self) -> None:
        self.was_established = False
        lost = [applied for _index, applied in self.proposals]
        self.proposals.clear()
        for applied in lost:
            applied(None)

    def _apply(self, index: Index) -> None:
        entry = self.log.entry(index)
        changes: Sequence[Change] = ()
        if entry.kind == RecordKind.COMMAND:
            changes = self.cluster.apply(index, decode(self.log.control_payload(index)))
        else:
            self.cluster.skip(index)
        if self.was_established:  # before that, `established` looks at the whole fold at once
            for change in changes:
                self.changed(change)
        if self.proposals and self.proposals[0][0] == index:
            self.proposals.popleft()[1](changes)
