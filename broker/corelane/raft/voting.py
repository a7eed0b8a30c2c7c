"""Who leads: rounds of voting, votes, hand-overs, and the end of a leadership nobody follows.

Sections and figures: the extended Raft paper; the numbered invariants are at the head of core.py.
"""

# performance-critical: see STYLE.md

from typing import Final

from corelane.model.ids import NO_MEMBER, Index, MemberId, Term
from corelane.raft import election
from corelane.raft.effects import Send, TransferEnded
from corelane.raft.election import Role, Round
from corelane.raft.events import LeaderGone, VotePersisted
from corelane.raft.leadership import Leadership
from corelane.raft.messages import (
    AppendRejected,
    PreVote,
    PreVoteAnswer,
    TimeoutNow,
    Vote,
    VoteAnswer,
)
from corelane.raft.progress import ROUND_LIMIT
from corelane.raft.quorum import RoundResult
from corelane.raft.state import NEVER_MS, NOT_HEARD_MS, GroupState

GONE_JITTER_PART: Final = 4
GONE_RANK_FACTOR: Final = 2
"""After a death nobody waits for a time-out. The most preferred of those that live stands at once,
the next when a round, with the votes of all groups in it, could be over: a quarter of the usual
distance was less than what a core takes to look at its deadlines, and most votes split."""


class Voting(GroupState):
    """The elections of one group; one round at a time."""

    __slots__ = ()

    def _begin_round_unless_busy(self) -> None:
        """Start a pre-vote, but not while the last own vote is on its way to the disk (R5)."""
        random_ms = self._jitter.randrange(self._settings.election_jitter_ms + 1)
        self.deadline_ms = self._now_ms + election.retry_delay_ms(
            self._settings, self._rank, self._rounds_failed, random_ms
        )
        if self.role is Role.CANDIDATE and not self.is_vote_durable:
            return
        if self._is_round_under_way():
            self._send_to_silent()
            return
        if self.recollection is not None:
            self._recollect()  # L1
            return
        if self._is_promised:
            return
        if not self.membership.may_stand(self._config.self_id):
            return  # a learner, or one that left: whoever leads knows where to find it
        self._enter(Role.PRE_CANDIDATE)
        self._forget_leader()
        self._rounds_failed += 1
        if self._open_round() is RoundResult.WON:
            self._stand()
            return
        self._send_to_silent()

    def _is_round_under_way(self) -> bool:
        """Say whether answers to this round may still come: voters are slow, and none said no.

        Another round would make all that is on its way worthless, and where every voter is late
        no round would ever end. After a whole election time-out the next one begins all the same.
        """
        voting = self._round
        if voting is None or not voting.is_under_way:
            return False
        return self._now_ms - voting.began_ms < self._settings.election_timeout_ms

    def _send_to_silent(self) -> None:
        """Ask those who have not answered in this round: for the first time, or again."""
        voting, log = self._round, self._log
        assert voting is not None
        request: PreVote | Vote
        if self.role is Role.CANDIDATE:
            request = Vote(
                self.term, voting.number, log.last_index, log.last_term, self._is_transfer
            )
        else:
            term = Term(self.term + 1)
            request = PreVote(term, voting.number, log.last_index, log.last_term)
        for node in voting.silent():
            if node != self._config.self_id:
                self._effects.append(Send(node, request))

    def _open_round(self) -> RoundResult:
        """Begin a round with the own vote in it; what was open before is over."""
        self._round_number = (self._round_number + 1) % ROUND_LIMIT
        self._round = Round(self._round_number, self.configuration, self._now_ms)
        if not self.configuration.is_voter(self._config.self_id):
            return RoundResult.OPEN  # on its way out, and nobody else has its log
        return self._round.count(self._config.self_id, granted=True)

    def _stand(self) -> None:
        """Become a candidate; the vote for oneself counts, and others are asked, when durable."""
        assert self.leader is None
        self._enter(Role.CANDIDATE)
        self._round = None
        self._is_transfer = False
        self._vote_for(Term(self.term + 1), self._config.self_id)

    def _vote_persisted(self, event: VotePersisted) -> None:
        if (event.term, event.voted_for) != (self.term, self.voted_for):
            return  # an earlier one; the write of the current one is on its way
        if self.is_vote_durable:
            return
        self.is_vote_durable = True
        for (node, _), message in self._held.items():
            self._effects.append(Send(node, message))
        self._held.clear()
        if self.role is Role.CANDIDATE:
            self._ask_for_votes()

    def _ask_for_votes(self) -> None:
        assert self.voted_for == self._config.self_id
        assert self.is_vote_durable
        if self._open_round() is RoundResult.WON:
            self._lead()
            return
        self._send_to_silent()

    def _lead(self) -> None:
        assert self.is_vote_durable, "R1"
        assert self.voted_for == self._config.self_id
        self._enter(Role.LEADER)
        self._round = None
        self._rounds_failed = 0
        self.leader = self._config.self_id
        leadership = Leadership(self.term, self._log, self._settings)
        first_index, now_ms = leadership.term_start_index, self._now_ms
        leadership.set_followers(self._others(), first_index, now_ms, now_ms)
        self._leadership = leadership
        self._watch_quorum(leadership)

    def _on_pre_vote(self, sender: MemberId, request: PreVote) -> None:
        """Answer at once: a pre-vote binds nobody and restarts no timer (redpanda PR 11726)."""
        granted = (
            request.term > self.term
            and not self._hears_leader(sender)
            and self._may_vote_for(request)
        )
        answer = PreVoteAnswer(self.term, request.round, granted)
        self._effects.append(Send(sender, answer))

    def _on_vote(self, sender: MemberId, request: Vote) -> None:
        if request.term > self.term:
            if self._hears_leader(sender) and not request.is_transfer:
                self._answer(sender, VoteAnswer(self.term, request.round, False))
                return
            self._adopt(request.term)
        granted = (
            request.term == self.term
            and (request.is_transfer or not self._is_promised)
            and self.voted_for in (NO_MEMBER, sender)
            and self._may_vote_for(request)
        )
        if granted and self.voted_for == NO_MEMBER:
            self._enter(Role.FOLLOWER)
            self._vote_for(self.term, sender)
            self._draw_delay()
        self._answer(sender, VoteAnswer(self.term, request.round, granted))

    def _may_vote_for(self, request: PreVote | Vote) -> bool:
        """Whether a candidate's log is good enough; who knows no members is new, and cannot say."""
        if not self.configuration.voters:
            return False
        if not election.is_up_to_date(request.last_index, request.last_term, self._log):
            return False
        lost = self.recollection
        return lost is None or lost.admits(request.last_index, request.last_term)

    # -- A loss and what makes it good (loss.py) ------------------------------------------------

    def _recollect(self) -> None:
        """Ask the others for their terms (L3), or tell the leader what is missing (L5)."""
        lost = self.recollection
        assert lost is not None
        if lost.is_asking:
            question = PreVote(Term(self.term + 1), lost.round, Index(0), Term(0))
            for node in lost.silent(self.configuration.members, self.self_id):
                self._effects.append(Send(node, question))
        elif self.leader is not None:
            end = Index(self._log.last_index + 1)
            missing = AppendRejected(self.term, 0, end, end, Term(0), has_lost=True)
            self._answer(self.leader, missing)

    def _on_term_told(self, sender: MemberId, answer: PreVoteAnswer) -> None:
        """A pre-vote binds nobody, so the same question serves to hear of a term (L3)."""
        lost = self.recollection
        assert lost is not None
        if answer.round != lost.round:
            return
        lost.told(sender, answer.term)
        if not lost.silent(self.configuration.members, self.self_id):
            self._adopt(lost.all_told(self.term))

    def _on_round_answer(self, sender: MemberId, answer: PreVoteAnswer | VoteAnswer) -> None:
        expected = Role.PRE_CANDIDATE if isinstance(answer, PreVoteAnswer) else Role.CANDIDATE
        voting = self._round
        if self.role is not expected or voting is None or answer.round != voting.number:
            return
        if not voting.configuration.is_voter(sender):
            return
        match voting.count(sender, answer.granted):
            case RoundResult.WON if expected is Role.PRE_CANDIDATE:
                self._stand()
            case RoundResult.WON:
                self._lead()
            case RoundResult.LOST:
                self._enter(Role.FOLLOWER)  # the deadline for the next round stands
            case RoundResult.OPEN:
                pass

    # -- The end of a leadership ----------------------------------------------------------------

    def _watch_quorum(self, leadership: Leadership) -> None:
        """Start the leader's own timer (check-quorum); a lone voter has nobody to hear from."""
        own = self._config.self_id
        is_alone = self.configuration.members == (own,)
        timeout_ms = self._settings.election_timeout_ms
        self.deadline_ms = NEVER_MS if is_alone else self._now_ms + timeout_ms
        if leadership.transfer_to is not None:
            self.deadline_ms = min(self.deadline_ms, leadership.transfer_deadline_ms)

    def _check_quorum(self, leadership: Leadership) -> None:
        """Step down when no quorum was heard for an election time-out: others may elect."""
        timeout_ms = self._settings.election_timeout_ms
        own = self._config.self_id
        if self._contacts is not None:
            timeout_ms += self._contacts.quorum_patience_ms()
            group, followers = self._config.group, leadership.followers
            for node, progress in followers.items():
                heard_ms = self._contacts.follower_heard_ms(group, self.term, node)
                progress.heard_ms = max(progress.heard_ms, heard_ms)
        heard_ms = leadership.quorum_heard_ms(self._now_ms, self.configuration, own)
        if self._now_ms - heard_ms >= timeout_ms:
            self._step_down()
            return
        self.deadline_ms = max(
            heard_ms + self._settings.election_timeout_ms,
            self._now_ms
            + min(self._settings.round_timeout_ms, heard_ms + timeout_ms - self._now_ms),
        )
        if leadership.transfer_to is not None:
            if self._now_ms >= leadership.transfer_deadline_ms:
                self._end_transfer(leadership, "it did not catch up in time")
            else:
                self.deadline_ms = min(self.deadline_ms, leadership.transfer_deadline_ms)

    def _step_down(self) -> None:
        """Lead no more, of one's own accord; the term stays."""
        assert self.role is Role.LEADER
        self._enter(Role.FOLLOWER)
        self.leader = None
        self._leader_heard_ms = NOT_HEARD_MS
        self._draw_delay()

    def _on_leader_gone(self, gone: LeaderGone) -> None:
        """Forget that the leader was heard, and stand soon: the preferred first."""
        if self.leader != gone.leader or self.term != gone.term or self.role is Role.LEADER:
            return
        self._release()
        random_ms = self._jitter.randrange(self._settings.election_jitter_ms + 1)
        rank = self._rank - (self.membership.current.rank(gone.leader) < self._rank)
        stagger_ms = GONE_RANK_FACTOR * rank * self._settings.election_rank_ms
        self.deadline_ms = self._now_ms + stagger_ms + random_ms // GONE_JITTER_PART

    # -- Hand-overs (thesis section 3.10) -------------------------------------------------------

    def _begin_transfer(self, to: MemberId) -> None:
        """Let nothing more be appended until *to* has everything, or time is up."""
        leadership = self._leadership
        fault = None
        if leadership is None:
            fault = "this replica does not lead"
        elif leadership.transfer_to is not None:
            fault = "another transfer is under way"
        elif self.configuration.is_joint:
            fault = "the members are being changed"
        elif to not in self.configuration.voters or to == self._config.self_id:
            fault = "it is no other voter"
        if fault is not None or leadership is None:
            self._effects.append(TransferEnded(to, fault or ""))
            return
        leadership.transfer_to = to
        leadership.transfer_deadline_ms = self._now_ms + self._settings.election_timeout_ms
        self.deadline_ms = min(self.deadline_ms, leadership.transfer_deadline_ms)
        self._hand_over_if_ready(leadership)

    def _hand_over_if_ready(self, leadership: Leadership) -> None:
        """Ask the target to stand when it has the whole log, and lead no more.

        To step down comes first: a leader that accepted again could outgrow its successor, who
        would lose the election and leave a gap (multiraft.md A2).
        """
        to = leadership.transfer_to
        if to is None or leadership.followers[to].match_index < self._log.last_index:
            return
        self._step_down()
        self._effects.append(Send(to, TimeoutNow(self.term)))

    def _end_transfer(self, leadership: Leadership, reason: str) -> None:
        assert leadership.transfer_to is not None
        self._effects.append(TransferEnded(leadership.transfer_to, reason))
        leadership.transfer_to = None

    def _on_timeout_now(self, sender: MemberId, message: TimeoutNow) -> None:
        """Stand without asking first: the leader itself wants it."""
        is_current = message.term == self.term and self.leader == sender
        if not is_current or self.role is not Role.FOLLOWER or not self.is_vote_durable:
            return
        if not self.configuration.is_voter(self._config.self_id) or self.recollection is not None:
            return
        self._release()
        random_ms = self._jitter.randrange(self._settings.election_jitter_ms + 1)
        self.deadline_ms = self._now_ms + election.retry_delay_ms(
            self._settings, self._rank, 0, random_ms
        )
        self._enter(Role.PRE_CANDIDATE)
        self._stand()
        self._is_transfer = True
