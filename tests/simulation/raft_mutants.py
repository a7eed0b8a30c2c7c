"""Deliberate bugs in a raft group, each of which the simulation must catch.

A mutant replaces one method or function, as somebody might have written it wrong. The number of
its planted bug in the cluster's list is named where there is one.
"""

from collections.abc import Sequence
from typing import Any

from corelane.model.ids import NO_MEMBER, Index, MemberId, Term
from corelane.model.record import record
from corelane.raft import election, membership, quorum, replication
from corelane.raft.config import RaftSettings
from corelane.raft.core import RaftGroup
from corelane.raft.effects import Committed, Effect, InstallSnapshot, Send, Truncate
from corelane.raft.election import Role
from corelane.raft.leadership import Leadership
from corelane.raft.log_view import LogView
from corelane.raft.membership import Configuration
from corelane.raft.messages import (
    Append,
    Appended,
    AppendRejected,
    Message,
    PreVote,
    PreVoteAnswer,
    Snapshot,
    Vote,
    VoteAnswer,
)
from corelane.raft.progress import Progress, ProgressState
from corelane.raft.quorum import RoundResult


@record
class Mutant:
    """One bug: what is replaced, where, and by what."""

    name: str
    owner: Any
    attribute: str
    replacement: Any


def _answer_at_once(self: RaftGroup, to: MemberId, message: Message) -> None:
    self._effects.append(Send(to, message))


def _stand_at_once(self: RaftGroup) -> None:
    _STAND(self)
    self.is_vote_durable = True
    self._ask_for_votes()


def _install_durably(self: RaftGroup, configuration: Configuration) -> None:
    _INSTALLED(self, configuration)
    self.durable_index = self._log.last_index


def _install_always(self: RaftGroup, sender: MemberId, message: Snapshot) -> None:
    if message.term >= self.term:
        self._follow(sender)
        self._effects.append(InstallSnapshot(message))


def _acknowledge_unwritten(self: RaftGroup, leader: MemberId) -> None:
    verified = self._verified_index
    self._answer(leader, Appended(self.term, verified, verified))


def _acknowledge_early(self: RaftGroup, sender: MemberId, message: Append) -> None:
    """Answer an append as soon as its entries are in memory."""
    _ON_APPEND(self, sender, message)
    if self.leader == sender and self._verified_index >= message.last_index:
        self._answer(sender, Appended(self.term, message.last_index, message.last_index))


def _count_own_copy(
    self: Leadership, durable_index: Index, configuration: Configuration, self_id: MemberId
) -> Index:
    """Count the leader as soon as it has appended, synced or not."""
    matches: dict[MemberId, int] = {n: one.match_index for n, one in self.followers.items()}
    committed = configuration.quorum_value(matches | {self_id: self._log.last_index})
    return Index(committed if committed >= self.term_start_index else 0)


def _commit_any(
    self: Leadership, durable_index: Index, configuration: Configuration, self_id: MemberId
) -> Index:
    matches: dict[MemberId, int] = {n: one.match_index for n, one in self.followers.items()}
    reached = configuration.quorum_value(matches | {self_id: durable_index})
    return Index(min(durable_index, reached))


def _half_is_enough(values: Sequence[int]) -> int:
    return sorted(values)[len(values) // 2]


def _half_elects(
    voter_count: int, granted: Sequence[object], rejected: Sequence[object]
) -> RoundResult:
    if len(granted) * 2 >= voter_count:
        return RoundResult.WON
    return _ROUND_RESULT(voter_count, granted, rejected)


def _vote_for_everybody(self: RaftGroup, sender: MemberId, request: Vote) -> None:
    """Forget that a vote was given in this term."""
    if self.role is Role.FOLLOWER and request.term == self.term:
        self.voted_for = NO_MEMBER
    _ON_VOTE(self, sender, request)


def _everything_conflicts(log: LogView, message: Append, known_index: Index) -> Index:
    """Truncate whatever lies behind the previous entry, in conflict or not."""
    return Index(known_index + 1)


def _append_of_any_term(self: RaftGroup, sender: MemberId, message: Append) -> None:
    """Accept entries of a leader that was replaced."""
    if message.term < self.term and self.leader is not None:
        message.term = self.term  # type: ignore[misc]
        sender = self.leader
    _ON_APPEND(self, sender, message)


def _nothing_conflicts(log: LogView, message: Append, known_index: Index) -> Index:
    """Take an entry of the same index for the same entry."""
    return Index(max(known_index, min(log.last_index, message.last_index)) + 1)


def _append_without_previous(self: RaftGroup, sender: MemberId, message: Append) -> None:
    """Skip the consistency check where the log is long enough."""
    if message.term >= self.term and 0 < message.prev_index <= self._log.last_index:
        message.prev_term = self._log.term_at(message.prev_index)  # type: ignore[misc]
    _ON_APPEND(self, sender, message)


def _show_early(self: RaftGroup) -> None:
    """Show the leader's commit index without looking at the own log and disk."""
    committed = min(self._leader_committed, self._log.last_index)
    if committed > self.committed_index:
        self.committed_index = Index(committed)
        self._effects.append(Committed(self.committed_index))


def _verify_whole_log(self: RaftGroup) -> None:
    """Take the own tail for the leader's: commit up to what is durable."""
    self._verified_index = self._log.last_index
    _COMMIT_AS_FOLLOWER(self)


def _believe_vote_durable(self: RaftGroup, term: Term, voted_for: MemberId) -> None:
    """Keep a vote for another in memory only."""
    _VOTE_FOR(self, term, voted_for)
    if voted_for not in (NO_MEMBER, self._config.self_id):
        self.is_vote_durable = True
        self._vote_asked = (term, voted_for)


def _count_any_write(self: RaftGroup, last_index: Index, truncations: int) -> Sequence[Effect]:
    """Count every completed write, also one from before a truncation."""
    return _PERSISTED(self, Index(min(last_index, self._log.last_index)), self.truncations)


def _truncate_keeps_durable(self: RaftGroup, from_index: Index) -> None:
    self.truncations += 1
    self._effects.append(Truncate(from_index))


def _follow_without_timer(self: RaftGroup, leader: MemberId) -> None:
    deadline_ms = self.deadline_ms
    _FOLLOW(self, leader)
    self.deadline_ms = deadline_ms


def _adopt_nothing(self: RaftGroup, term: Term) -> None:
    """Do not step down for a higher term."""


def _count_held(self: Progress, match_index: Index, held: Index) -> None:
    """Believe what the follower holds to be durable there."""
    _ACKNOWLEDGED(self, held, held)


def _count_any_round(self: RaftGroup, sender: MemberId, answer: PreVoteAnswer | VoteAnswer) -> None:
    """Count every answer, of whatever round."""
    if self._round is not None:
        answer.round = self._round.number  # type: ignore[misc]
    _ON_ROUND_ANSWER(self, sender, answer)


def _never_resume(self: Progress, now_ms: int) -> None:
    """Learn nothing from the answer to a heartbeat: a lost probe is never repeated."""
    self.heard_ms = now_ms


_STAND = RaftGroup._stand
_INSTALLED = RaftGroup.installed
_ON_APPEND = RaftGroup._on_append
_ON_VOTE = RaftGroup._on_vote
_ON_ROUND_ANSWER = RaftGroup._on_round_answer
_FOLLOW = RaftGroup._follow
_VOTE_FOR = RaftGroup._vote_for
_PERSISTED = RaftGroup.persisted
_COMMIT_AS_FOLLOWER = RaftGroup._commit_as_follower
_ON_PRE_VOTE = RaftGroup._on_pre_vote
_BEGIN = RaftGroup._begin_round_unless_busy
_ROUND_RESULT = quorum.round_result
_ACKNOWLEDGED = Progress.acknowledged


def _always(*_: object) -> bool:
    return True


def _never(*_: object) -> bool:
    return False


def _leads(self: RaftGroup) -> bool:
    return self.is_leader


def _refuse_without_timer(self: RaftGroup, sender: MemberId, message: Append) -> None:
    """Restart the timer only by appends that fit."""
    deadline_ms = self.deadline_ms
    _ON_APPEND(self, sender, message)
    last = self._effects[-1] if self._effects else None
    if isinstance(last, Send) and isinstance(last.message, AppendRejected):
        self.deadline_ms = deadline_ms


def _act_on_every_refusal(self: Progress, rejected_round: int, rejected_index: Index) -> bool:
    return rejected_index <= self.match_index or rejected_index >= self.next_index


def _room_for_ever(self: Progress, settings: RaftSettings) -> bool:
    return self.state is ProgressState.REPLICATE or not self.is_paused


def _stay_leader(self: RaftGroup, leading: Leadership) -> None:
    self.deadline_ms = self._now_ms + 1000


def _pre_vote_with_timer(self: RaftGroup, sender: MemberId, request: PreVote) -> None:
    _ON_PRE_VOTE(self, sender, request)
    self._draw_delay()


def _rush(self: RaftGroup) -> None:
    self.is_vote_durable = True
    _BEGIN(self)


def _reject_without_hint(
    log: LogView, term: Term, message: Append, committed_index: Index
) -> AppendRejected:
    prev_index = message.prev_index
    return AppendRejected(term, message.round, prev_index, prev_index, Term(0))


SIMULATED = (
    Mutant("vote sent before it is durable (1)", RaftGroup, "_answer", _answer_at_once),
    Mutant("votes asked for before the own is durable", RaftGroup, "_stand", _stand_at_once),
    Mutant("granted vote never persisted", RaftGroup, "_vote_for", _believe_vote_durable),
    Mutant("append acknowledged before durable (2)", RaftGroup, "_on_append", _acknowledge_early),
    Mutant("whole log acknowledged", RaftGroup, "_acknowledge", _acknowledge_unwritten),
    Mutant("own copy counted early (3)", Leadership, "committed_by_quorum", _count_own_copy),
    Mutant("older term committed by count (4)", Leadership, "committed_by_quorum", _commit_any),
    Mutant("term not raised on a higher one (6)", RaftGroup, "_adopt", _adopt_nothing),
    Mutant("longest-log check skipped (7)", election, "is_up_to_date", _always),
    Mutant("half of an even group commits (8)", membership, "quorum_value", _half_is_enough),
    Mutant("half of an even group elects (8)", membership, "round_result", _half_elects),
    Mutant("second vote in one term", RaftGroup, "_on_vote", _vote_for_everybody),
    Mutant("snapshot acknowledged before durable (14)", RaftGroup, "installed", _install_durably),
    Mutant("snapshot over what is there (14)", RaftGroup, "_on_snapshot", _install_always),
    Mutant("append of an older term accepted", RaftGroup, "_on_append", _append_of_any_term),
    Mutant("previous entry not compared", RaftGroup, "_on_append", _append_without_previous),
    Mutant("conflicting entry kept", replication, "first_missing", _nothing_conflicts),
    Mutant("truncation without conflict", replication, "first_missing", _everything_conflicts),
    Mutant("high watermark beyond own disk (19)", RaftGroup, "_commit_as_follower", _show_early),
    Mutant("unverified tail committed", RaftGroup, "_commit_as_follower", _verify_whole_log),
    Mutant("write from before a truncation counted", RaftGroup, "persisted", _count_any_write),
    Mutant("truncated entries still durable", RaftGroup, "_truncate", _truncate_keeps_durable),
    Mutant("held entries counted as durable", Progress, "acknowledged", _count_held),
    Mutant("timer not restarted by the leader", RaftGroup, "_follow", _follow_without_timer),
    Mutant("answers of any round counted (10)", RaftGroup, "_on_round_answer", _count_any_round),
    Mutant("lost append never repeated", Progress, "resume", _never_resume),
)
"""Caught by the checkers of the simulation, in the number of seeds that the test allows."""

SCRIPTED = (
    Mutant("no entry of the own term awaited (5)", RaftGroup, "is_established", property(_leads)),
    Mutant("timer not restarted by a refusal (9)", RaftGroup, "_on_append", _refuse_without_timer),
    Mutant("pre-vote granted while a leader is heard (11)", RaftGroup, "_hears_leader", _never),
    Mutant("leader without a quorum stays", RaftGroup, "_check_quorum", _stay_leader),
    Mutant("pre-vote restarts the voter's timer", RaftGroup, "_on_pre_vote", _pre_vote_with_timer),
    Mutant("campaign while the vote is not durable", RaftGroup, "_begin_round_unless_busy", _rush),
    Mutant("window without limit", Progress, "has_room", _room_for_ever),
    Mutant("every refusal acted on", Progress, "is_stale", _act_on_every_refusal),
    Mutant("back-up by one entry at a time", replication, "rejection", _reject_without_hint),
)
"""Caught by the scripts: no safety is lost, but a promise about behaviour is."""
