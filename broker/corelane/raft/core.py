"""One raft group: all control flow of elections and replication, and nothing else.

`RaftGroup` is a function of its inputs: events in, effects out, no clock, no randomness of its
own, no I/O. The rules it follows are calculations in `election`, `replication`, `leadership`,
`progress` and `quorum`; every decision is here. Figures and sections: the extended Raft paper.

Numbered invariants, cited by the tests and checked by the simulation after every event:
 R1  `term` never goes back; (term, voted_for) is handed to `PersistVote` before anything in its
     name is returned, and no answer in a term leaves before that term and vote are durable.
 R2  `committed_index <= durable_index`, both of this replica; `committed_index` never goes back.
 R3  `durable_index` falls only by a truncation, which is always above `committed_index`.
 R4  A leader commits by counting only from its `term_start_index` on: its own entries.
 R5  One round of voting at a time. None begins while an own vote is not durable.
 R6  A message of the current term's leader always restarts the election timer, whatever its
     fate; a pre-vote never does.
"""

# performance-critical: see STYLE.md

from collections.abc import Sequence
from typing import Final, assert_never

from corelane.model.ids import NO_NODE, Index, NodeId, Term
from corelane.raft import config as configuration
from corelane.raft import election, replication
from corelane.raft.config import HardState, Jitter, RaftConfig
from corelane.raft.effects import (
    AppendEntries,
    BecameCandidate,
    BecameFollower,
    BecameLeader,
    Committed,
    Effect,
    PersistVote,
    Send,
    Truncate,
)
from corelane.raft.election import Role, Round
from corelane.raft.events import Campaign, Event, Received, Tick, VotePersisted
from corelane.raft.leadership import Leadership
from corelane.raft.log_view import LogView
from corelane.raft.messages import (
    Append,
    Appended,
    AppendRejected,
    Heartbeat,
    HeartbeatAnswer,
    Message,
    PreVote,
    PreVoteAnswer,
    Vote,
    VoteAnswer,
)
from corelane.raft.progress import ROUND_LIMIT
from corelane.raft.quorum import RoundResult

NOTHING: Final[tuple[Effect, ...]] = ()
"""The answer of a call that changes nothing for the outside; shared, so it costs nothing."""

NEVER_MS: Final = 1 << 62
"""A deadline that does not come: a lone leader has nobody to hear from."""


class RaftGroup:
    """One replica of one group. Attributes without a leading underscore are for reading."""

    __slots__ = (
        "_config",
        "_delay_ms",
        "_effects",
        "_held",
        "_jitter",
        "_leader_committed",
        "_leader_heard_ms",
        "_leadership",
        "_log",
        "_now_ms",
        "_rank",
        "_round",
        "_round_number",
        "_rounds_failed",
        "_settings",
        "_told",
        "_verified_index",
        "_vote_asked",
        "committed_index",
        "deadline_ms",
        "durable_index",
        "is_vote_durable",
        "leader",
        "role",
        "term",
        "truncations",
        "voted_for",
    )

    def __init__(
        self, config: RaftConfig, hard: HardState, log: LogView, jitter: Jitter, now_ms: int
    ) -> None:
        configuration.check(config)
        assert hard.term >= log.last_term, "an entry is never durable before its term"
        assert hard.committed_index <= log.last_index
        self._config = config
        self._settings = config.settings
        self._rank = config.voters.index(config.self_id)
        self._log = log
        self._jitter = jitter
        self._now_ms = now_ms
        self.term = hard.term
        self.voted_for = hard.voted_for
        self.is_vote_durable = True
        self._vote_asked = (hard.term, hard.voted_for)
        self.role = Role.FOLLOWER
        self.leader: NodeId | None = None
        self._told: tuple[Role, Term, NodeId | None] = (Role.FOLLOWER, hard.term, None)
        # Only committed entries are ever trimmed from the front of a log.
        self.committed_index = Index(max(hard.committed_index, log.first_index - 1))
        self.durable_index = log.last_index
        self.truncations = 0
        self._verified_index = self.committed_index
        self._leader_committed = self.committed_index
        self._leader_heard_ms = 0
        self._leadership: Leadership | None = None
        self._round: Round | None = None
        # Answers to a round begun before a crash must not fit one begun after it.
        self._round_number = jitter.randrange(ROUND_LIMIT)
        self._rounds_failed = 0
        self._held: dict[tuple[NodeId, type[Message]], Message] = {}
        self._effects: list[Effect] = []
        self._delay_ms = 0
        self.deadline_ms = 0
        self._draw_delay()

    @property
    def is_leader(self) -> bool:
        """True from the election on, before the leader knows what is committed."""
        return self.role is Role.LEADER

    @property
    def is_established(self) -> bool:
        """True once an entry of the leader's own term is committed: it may serve (section 8)."""
        leadership = self._leadership
        return leadership is not None and self.committed_index >= leadership.term_start_index

    def match_indexes(self) -> dict[NodeId, Index]:
        """Return the durable end of every voter as this leader knows it, its own included."""
        assert self._leadership is not None
        followers = self._leadership.followers
        matches = {node: progress.match_index for node, progress in followers.items()}
        matches[self._config.self_id] = self.durable_index
        return matches

    def heartbeat(self, to: NodeId, round_number: int) -> Heartbeat:
        """Return the row for *to* in the frame numbered *round_number*; changes nothing.

        A follower can commit what it has acknowledged itself, without another check.
        """
        assert self._leadership is not None
        progress = self._leadership.followers[to]
        committed = min(progress.match_index, self.committed_index)
        return Heartbeat(self.term, round_number, committed)

    # -- The three ways in ----------------------------------------------------------------------

    def step(self, now_ms: int, event: Event) -> Sequence[Effect]:
        """Take in one event; return what must now happen, in order."""
        assert now_ms >= self._now_ms, "the clock is monotonic"
        self._now_ms = now_ms
        match event:
            case Received():
                if event.sender in self._config.voters and event.sender != self._config.self_id:
                    self._receive(event.sender, event.message)
            case Tick():
                if now_ms >= self.deadline_ms:
                    self._deadline_passed()
            case VotePersisted():
                self._vote_persisted(event)
            case Campaign():
                if self.role is not Role.LEADER:
                    self._begin_round_unless_busy()
            case _:
                assert_never(event)
        return self._take_effects()

    def appended(self, last_index: Index) -> Sequence[Effect]:
        """Take in that the leader's log now ends at *last_index*, durable or not.

        "The leader can write to its disk in parallel with replicating" (thesis section 10.2.1).
        """
        leadership = self._leadership
        assert leadership is not None, "only a leader appends of its own accord"
        if not leadership.followers:
            return NOTHING
        assert self._log.last_index == last_index
        assert self._log.last_term == self.term
        for node, progress in leadership.followers.items():
            self._send_appends(node, leadership.stream(progress, self.committed_index))
        return self._take_effects()

    def persisted(self, last_index: Index, truncations: int) -> Sequence[Effect]:
        """Take in that the entries up to *last_index* are durable.

        *truncations* is the count as it was when the write was made. An older one is ignored:
        the index may stand for another entry by now, and the same entry may even be back, with
        its truncation not yet durable. Entries follow every truncation, and their write covers
        everything before it.
        """
        assert truncations <= self.truncations
        if truncations != self.truncations or last_index <= self.durable_index:
            return NOTHING
        assert last_index <= self._log.last_index
        self.durable_index = last_index
        leadership = self._leadership
        if leadership is not None:
            return self._commit_as_leader(leadership)
        if self.leader is not None:
            self._acknowledge(self.leader)
            self._commit_as_follower()
            return self._take_effects()
        return NOTHING

    def _take_effects(self) -> Sequence[Effect]:
        """Close a call: vote and role go first, whichever way they were changed (R1)."""
        assert self.term >= self._told[1], "terms never go back"
        assert (self._leadership is not None) == (self.role is Role.LEADER)
        told = (self.role, self.term, self.leader)
        if told != self._told:
            self._announce(told)
        if (self.term, self.voted_for) != self._vote_asked:
            self._vote_asked = (self.term, self.voted_for)
            self._effects.insert(0, PersistVote(self.term, self.voted_for))
        effects = self._effects
        if not effects:
            return NOTHING
        self._effects = []
        return effects

    def _announce(self, told: tuple[Role, Term, NodeId | None]) -> None:
        was_follower = self._told[0] in (Role.FOLLOWER, Role.PRE_CANDIDATE)
        is_news = told[1:] != self._told[1:] or not was_follower
        self._told = told
        match self.role:
            case Role.FOLLOWER | Role.PRE_CANDIDATE:
                if is_news:
                    self._effects.insert(0, BecameFollower(self.term, self.leader))
            case Role.CANDIDATE:
                self._effects.insert(0, BecameCandidate(self.term))
            case Role.LEADER:
                self._effects.insert(0, BecameLeader(self.term))
            case _:
                assert_never(self.role)

    # -- Roles, term and timer ------------------------------------------------------------------

    def _enter(self, role: Role) -> None:
        assert role in election.TRANSITIONS[self.role], f"{self.role} to {role}"
        self.role = role
        if role is not Role.LEADER:
            self._leadership = None
        if role is Role.FOLLOWER:
            self._round = None

    def _vote_for(self, term: Term, voted_for: NodeId) -> None:
        """Change term or vote; nothing of the new term leaves until it is durable (R1)."""
        assert term > self.term or (term == self.term and self.voted_for == NO_NODE)
        if term > self.term:
            self._held.clear()
            self._verified_index = self.committed_index
            self._leader_committed = self.committed_index
            self.leader = None
        self.term = term
        self.voted_for = voted_for
        self.is_vote_durable = False

    def _adopt(self, term: Term) -> None:
        """Rules for all servers: a higher term makes a follower (section 5.1)."""
        was_leader = self.role is Role.LEADER
        self._enter(Role.FOLLOWER)
        self._vote_for(term, NO_NODE)
        if was_leader:
            self._draw_delay()

    def _follow(self, leader: NodeId) -> None:
        """Hear the leader of the current term: restart the timer before anything else (R6)."""
        assert self.role is not Role.LEADER, "two leaders in one term"
        if self.leader != leader:
            assert self.leader is None, "two leaders in one term"
            self._enter(Role.FOLLOWER)
            self.leader = leader
            self._rounds_failed = 0
            self._draw_delay()
        self._leader_heard_ms = self._now_ms
        self.deadline_ms = self._now_ms + self._delay_ms

    def _draw_delay(self) -> None:
        """Draw a fresh election delay and start the timer."""
        random_ms = self._jitter.randrange(self._settings.election_jitter_ms + 1)
        self._delay_ms = election.election_delay_ms(self._settings, self._rank, random_ms)
        self.deadline_ms = self._now_ms + self._delay_ms

    def _hears_leader(self) -> bool:
        """Say whether asking for another leader is out of order: one is there (section 6)."""
        if self.role is Role.LEADER:
            return True
        if self.leader is None:
            return False
        return self._now_ms - self._leader_heard_ms < self._settings.election_timeout_ms

    def _deadline_passed(self) -> None:
        if self._leadership is not None:
            self._check_quorum(self._leadership)
        else:
            self._begin_round_unless_busy()

    def _check_quorum(self, leadership: Leadership) -> None:
        """Step down when no quorum was heard for an election time-out: others may elect."""
        quorum_heard_ms = leadership.quorum_heard_ms(self._now_ms)
        if self._now_ms - quorum_heard_ms < self._settings.election_timeout_ms:
            self.deadline_ms = quorum_heard_ms + self._settings.election_timeout_ms
            return
        self._enter(Role.FOLLOWER)
        self.leader = None
        self._draw_delay()

    # -- Elections ------------------------------------------------------------------------------

    def _begin_round_unless_busy(self) -> None:
        """Start a pre-vote, but not while the last own vote is on its way to the disk (R5)."""
        random_ms = self._jitter.randrange(self._settings.election_jitter_ms + 1)
        self.deadline_ms = self._now_ms + election.retry_delay_ms(
            self._settings, self._rank, self._rounds_failed, random_ms
        )
        if self.role is Role.CANDIDATE and not self.is_vote_durable:
            return
        self._enter(Role.PRE_CANDIDATE)
        self.leader = None
        self._rounds_failed += 1
        if self._open_round() is RoundResult.WON:
            self._stand()
            return
        log = self._log
        last_index, last_term = log.last_index, log.last_term
        request = PreVote(Term(self.term + 1), self._round_number, last_index, last_term)
        self._send_to_others(request)

    def _open_round(self) -> RoundResult:
        """Begin a round with the own vote in it; what was open before is over."""
        self._round_number = (self._round_number + 1) % ROUND_LIMIT
        self._round = Round(self._round_number, self._config.voters)
        return self._round.count(self._config.self_id, granted=True)

    def _stand(self) -> None:
        """Become a candidate; the vote for oneself counts, and others are asked, when durable."""
        assert self.leader is None
        self._enter(Role.CANDIDATE)
        self._round = None
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
        log = self._log
        self._send_to_others(Vote(self.term, self._round_number, log.last_index, log.last_term))

    def _lead(self) -> None:
        assert self.is_vote_durable, "R1"
        assert self.voted_for == self._config.self_id
        self._enter(Role.LEADER)
        self._round = None
        self._rounds_failed = 0
        self.leader = self._config.self_id
        leadership = Leadership(self.term, self._log, self._settings)
        leadership.add_followers(self._others(), self._now_ms)
        self._leadership = leadership
        timeout_ms = self._settings.election_timeout_ms
        self.deadline_ms = self._now_ms + timeout_ms if leadership.followers else NEVER_MS

    def _on_pre_vote(self, sender: NodeId, request: PreVote) -> None:
        """Answer at once: a pre-vote binds nobody and restarts no timer (redpanda PR 11726)."""
        granted = (
            request.term > self.term
            and not self._hears_leader()
            and election.is_up_to_date(request.last_index, request.last_term, self._log)
        )
        answer = PreVoteAnswer(self.term, request.round, granted)
        self._effects.append(Send(sender, answer))

    def _on_vote(self, sender: NodeId, request: Vote) -> None:
        if request.term > self.term:
            if self._hears_leader():
                self._answer(sender, VoteAnswer(self.term, request.round, False))
                return
            self._adopt(request.term)
        granted = (
            request.term == self.term
            and self.voted_for in (NO_NODE, sender)
            and election.is_up_to_date(request.last_index, request.last_term, self._log)
        )
        if granted and self.voted_for == NO_NODE:
            self._enter(Role.FOLLOWER)
            self._vote_for(self.term, sender)
            self._draw_delay()
        self._answer(sender, VoteAnswer(self.term, request.round, granted))

    def _on_round_answer(self, sender: NodeId, answer: PreVoteAnswer | VoteAnswer) -> None:
        expected = Role.PRE_CANDIDATE if isinstance(answer, PreVoteAnswer) else Role.CANDIDATE
        voting = self._round
        if self.role is not expected or voting is None or answer.round != voting.number:
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

    # -- Messages -------------------------------------------------------------------------------

    def _receive(self, sender: NodeId, message: Message) -> None:
        # Neither kind of request for a vote moves the term by itself.
        if message.term > self.term and not isinstance(message, PreVote | Vote):
            self._adopt(message.term)
        match message:
            case Append():
                self._on_append(sender, message)
            case Appended():
                self._on_appended(sender, message)
            case Heartbeat():
                self._on_heartbeat(sender, message)
            case HeartbeatAnswer():
                self._on_heartbeat_answer(sender, message)
            case AppendRejected():
                self._on_rejected(sender, message)
            case PreVote():
                self._on_pre_vote(sender, message)
            case Vote():
                self._on_vote(sender, message)
            case PreVoteAnswer() | VoteAnswer():
                self._on_round_answer(sender, message)
            case _:
                assert_never(message)

    def _answer(self, to: NodeId, message: Message) -> None:
        """Send *message*, or hold it until the term and vote it speaks for are durable (R1).

        One of each kind per peer is held, the newest, so nothing grows while a disk hangs.
        """
        if self.is_vote_durable:
            self._effects.append(Send(to, message))
        else:
            self._held[to, type(message)] = message

    def _send_to_others(self, message: Message) -> None:
        for node in self._others():
            self._effects.append(Send(node, message))

    def _others(self) -> list[NodeId]:
        return [node for node in self._config.voters if node != self._config.self_id]

    # -- Follower -------------------------------------------------------------------------------

    def _on_heartbeat(self, sender: NodeId, beat: Heartbeat) -> None:
        if beat.term == self.term:
            self._follow(sender)
            # This replica acknowledged so much in this term, so it is the leader's log.
            self._verified_index = Index(max(self._verified_index, beat.committed_index))
            self._leader_committed = Index(max(self._leader_committed, beat.committed_index))
            self._commit_as_follower()
        self._answer(sender, HeartbeatAnswer(self.term, beat.round))

    def _on_append(self, sender: NodeId, message: Append) -> None:
        """AppendEntries, receiver implementation 1 to 5 (figure 2)."""
        prev_index = message.prev_index
        if message.term < self.term:
            stale = AppendRejected(self.term, message.round, prev_index, Index(0), Term(0))
            self._answer(sender, stale)
            return
        self._follow(sender)
        log = self._log
        committed = self.committed_index
        if prev_index > committed and (
            prev_index > log.last_index or log.term_at(prev_index) != message.prev_term
        ):
            self._answer(sender, replication.rejection(log, self.term, message, committed))
            return
        if prev_index <= committed:
            agrees = replication.agrees_on_committed(log, message, committed)
            assert agrees, f"{message} against what is committed here, up to {committed}"
        first = replication.first_missing(log, message, Index(max(prev_index, committed)))
        self._verified_index = Index(max(self._verified_index, message.last_index))
        self._leader_committed = Index(max(self._leader_committed, message.committed_index))
        if first <= message.last_index:
            if first <= log.last_index:
                self._truncate(first)
            self._effects.append(AppendEntries(message, first))
        else:
            self._acknowledge(sender)
        self._commit_as_follower()

    def _truncate(self, from_index: Index) -> None:
        assert from_index > self.committed_index, "a committed entry is never truncated"
        self.truncations += 1
        self.durable_index = Index(min(self.durable_index, from_index - 1))
        self._effects.append(Truncate(from_index))

    def _acknowledge(self, leader: NodeId) -> None:
        match_index = Index(min(self.durable_index, self._verified_index))
        self._answer(leader, Appended(self.term, match_index, self._verified_index))

    def _commit_as_follower(self) -> None:
        committed = min(self._leader_committed, self._verified_index, self.durable_index)
        if committed > self.committed_index:
            assert self.role is Role.FOLLOWER
            self.committed_index = Index(committed)
            self._effects.append(Committed(self.committed_index))

    # -- Leader ---------------------------------------------------------------------------------

    def _commit_as_leader(self, leadership: Leadership) -> Sequence[Effect]:
        committed = leadership.committed_by_quorum(self.durable_index)
        if committed <= self.committed_index:
            return NOTHING
        assert committed <= self.durable_index, "R2"
        self.committed_index = committed
        return [Committed(committed)]

    def _on_appended(self, sender: NodeId, answer: Appended) -> None:
        leadership = self._leadership
        if leadership is None or answer.term < self.term:
            return
        progress = leadership.acknowledged(sender, answer, self._now_ms)
        self._effects.extend(self._commit_as_leader(leadership))
        self._send_appends(sender, leadership.stream(progress, self.committed_index))

    def _on_rejected(self, sender: NodeId, answer: AppendRejected) -> None:
        leadership = self._leadership
        if leadership is None or answer.term < self.term:
            return
        progress = leadership.rejected(sender, answer, self._now_ms)
        self._send_appends(sender, leadership.stream(progress, self.committed_index))

    def _on_heartbeat_answer(self, sender: NodeId, answer: HeartbeatAnswer) -> None:
        leadership = self._leadership
        if leadership is None or answer.term < self.term:
            return
        appends = leadership.alive(sender, self._now_ms, self.committed_index)
        self._send_appends(sender, appends)

    def _send_appends(self, to: NodeId, appends: list[Append]) -> None:
        """Appends of an established leader leave before its own copy is durable."""
        for append in appends:
            self._effects.append(Send(to, append))
