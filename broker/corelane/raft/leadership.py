"""What exists only while a replica leads: its followers' progress, and what to send them next.

It computes; `core` decides when to ask, and turns the answers into effects.
"""

# performance-critical: see STYLE.md

from collections.abc import Iterable
from typing import Final

from corelane.model.ids import Index, MemberId, Term
from corelane.raft import replication
from corelane.raft.config import RaftSettings
from corelane.raft.log_view import LogView
from corelane.raft.membership import Configuration
from corelane.raft.messages import Append, Appended, AppendRejected
from corelane.raft.progress import Progress, ProgressState

SNAPSHOT_RETRY_MS: Final = 3_000
"""When a snapshot that was not acknowledged is taken for lost: twice a hung disk's time-out."""

Made = dict[tuple[Index, int], tuple[Append, int]]
"""Appends, each with the bytes of its entries, by their first index and round."""


class Leadership:
    """One term of one leader. Its own entries begin at `term_start_index`."""

    __slots__ = (
        "_log",
        "_settings",
        "followers",
        "is_leaving",
        "term",
        "term_start_index",
        "transfer_deadline_ms",
        "transfer_to",
    )

    def __init__(self, term: Term, log: LogView, settings: RaftSettings) -> None:
        self.term = term
        self._log = log
        self._settings = settings
        self.term_start_index = Index(log.last_index + 1)
        self.followers: dict[MemberId, Progress] = {}
        self.transfer_to: MemberId | None = None
        self.transfer_deadline_ms = 0
        self.is_leaving = False  # the entry that ends a joint configuration was asked for

    def set_followers(
        self, nodes: Iterable[MemberId], next_index: Index, now_ms: int, caught_up_ms: int
    ) -> None:
        """Keep what is known; for new ones *next_index* is the first guess (figure 2).

        *caught_up_ms* is when those are supposed to have had everything.
        """
        known = self.followers
        self.followers = {
            node: known.get(node) or Progress(next_index, now_ms, caught_up_ms) for node in nodes
        }

    def committed_by_quorum(
        self, durable_index: Index, configuration: Configuration, self_id: MemberId
    ) -> Index:
        """Return what a quorum has durably, but not more than this replica itself (R2).

        0 while that is an entry of an earlier term: a later leader may still overwrite it,
        however many replicas have it (section 5.4.2, figure 8).
        """
        matches = {node: progress.match_index for node, progress in self.followers.items()}
        matches[self_id] = durable_index
        committed = Index(min(durable_index, configuration.quorum_value(matches)))
        return committed if committed >= self.term_start_index else Index(0)

    def quorum_heard_ms(self, now_ms: int, configuration: Configuration, self_id: MemberId) -> int:
        """Return the last time by which a quorum had been heard; this replica hears itself."""
        contacts_ms = {node: progress.heard_ms for node, progress in self.followers.items()}
        contacts_ms[self_id] = now_ms
        return configuration.quorum_value(contacts_ms)

    def acknowledged(self, sender: MemberId, answer: Appended, now_ms: int) -> Progress:
        """Take in that a follower has more, or still has what it had."""
        assert answer.held_index <= self._log.last_index, "a follower is ahead of its leader"
        progress = self.followers[sender]
        progress.heard_ms = now_ms
        progress.acknowledged(answer.match_index, answer.held_index)
        return progress

    def rejected(self, sender: MemberId, answer: AppendRejected, now_ms: int) -> Progress:
        """Take in that a follower's log differs from ours, unless that is long settled."""
        progress = self.followers[sender]
        progress.heard_ms = now_ms
        if answer.has_lost and progress.match_index >= answer.conflict_index:
            progress.forget()  # L5: whatever was counted stays so, and is there as L2 and L3 say
            progress.back_up(answer.conflict_index)
        elif answer.prev_index < progress.next_index and not progress.is_stale(
            answer.round, answer.prev_index
        ):  # what it has beyond that it does not say by itself
            progress.back_up(replication.next_after_rejection(self._log, answer))
        return progress

    def alive(self, sender: MemberId, now_ms: int, committed_index: Index) -> list[Append]:
        """Take in a heartbeat's answer; return what finds out whether an append was lost."""
        progress = self.followers[sender]
        progress.resume(now_ms)
        if progress.match_index >= self._log.last_index:
            return []
        if progress.state is ProgressState.SNAPSHOT:
            if now_ms - progress.snapshot_ms < SNAPSHOT_RETRY_MS:
                return []
            progress.back_up(self._log.first_index)
        if not self.has_next_of(progress):
            # It may have more than it was heard to acknowledge; if not, it needs a snapshot.
            progress.back_up(self._log.first_index)
            progress.is_paused = True
            return [self._append(progress, Index(progress.next_index - 1), committed_index)]
        appends: list[Append] = []
        if progress.state is ProgressState.REPLICATE:
            end_index = Index(progress.next_index - 1)
            appends.append(self._append(progress, end_index, committed_index))
        appends += self.stream(progress, committed_index)
        return appends

    def announce(self, progress: Progress, committed_index: Index) -> list[Append]:
        """Return an append without entries for a follower with nothing on its way to it."""
        has_all = progress.next_index == self._log.last_index + 1
        if progress.state is not ProgressState.REPLICATE or not has_all:
            return []
        return [self._append(progress, Index(progress.next_index - 1), committed_index)]

    def stream(
        self, progress: Progress, committed_index: Index, made: Made | None = None
    ) -> list[Append]:
        """Return the appends with entries that the follower's window has room for.

        *made* are those of other followers, of the same log and commit: who is as far gets the
        very same ones.
        """
        log = self._log
        settings = self._settings
        appends: list[Append] = []
        if made is None:
            made = {}
        while (
            progress.next_index <= log.last_index
            and progress.has_room(settings)
            and self.has_next_of(progress)
        ):
            key = (progress.next_index, progress.round)
            found = made.get(key)
            if found is None:
                last_index, size_bytes = log.span(progress.next_index, settings.append_bytes_max)
                found = made[key] = self._append(progress, last_index, committed_index), size_bytes
            appends.append(found[0])
            progress.sent(found[0].last_index, found[1])
        return appends

    def has_next_of(self, progress: Progress) -> bool:
        """False when what the follower needs was trimmed: only a snapshot can bring it."""
        return progress.next_index >= self._log.first_index

    def _append(self, progress: Progress, last_index: Index, committed_index: Index) -> Append:
        """Make the append from `next_index` to *last_index*; without entries when that is less."""
        log = self._log
        prev_index = Index(progress.next_index - 1)
        prev_term = log.term_at(prev_index)
        runs = replication.term_runs(log, progress.next_index, last_index)
        configurations = tuple(log.configurations(progress.next_index, last_index))
        return Append(
            self.term,
            progress.round,
            prev_index,
            prev_term,
            last_index,
            runs,
            committed_index,
            configurations,
        )
