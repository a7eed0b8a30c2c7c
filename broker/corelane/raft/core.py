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
from dataclasses import replace
from typing import Final, assert_never

from corelane.model.ids import Index, MemberId, Term
from corelane.raft import membership, replication
from corelane.raft.effects import (
    AppendConfiguration,
    AppendEntries,
    ChangeRefused,
    Committed,
    Effect,
    InstallSnapshot,
    MadeGood,
    Send,
    SendSnapshot,
    Truncate,
)
from corelane.raft.election import Role
from corelane.raft.events import (
    Campaign,
    ChangeMembers,
    Event,
    LeaderGone,
    Received,
    Tick,
    TransferLeadership,
    VotePersisted,
)
from corelane.raft.leadership import Leadership, Made
from corelane.raft.membership import Configuration, Membership
from corelane.raft.messages import (
    Append,
    Appended,
    AppendRejected,
    Heartbeat,
    HeartbeatAnswer,
    Message,
    PreVote,
    PreVoteAnswer,
    Snapshot,
    TimeoutNow,
    Vote,
    VoteAnswer,
)
from corelane.raft.progress import ProgressState
from corelane.raft.state import NEVER_MS, NOT_HEARD_MS, NOTHING
from corelane.raft.voting import Voting

IN_SYNC_MS: Final = 10_000
"""How long ago a follower in sync was last at the log's end (DESIGN section 8)."""

__all__ = ["NEVER_MS", "NOTHING", "RaftGroup"]


class RaftGroup(Voting):
    """One replica of one group. Attributes without a leading underscore are for reading."""

    __slots__ = ()

    @property
    def is_established(self) -> bool:
        """True once an entry of the leader's own term is committed: it may serve (section 8)."""
        leadership = self._leadership
        return leadership is not None and self.committed_index >= leadership.term_start_index

    # -- Reads ----------------------------------------------------------------------------------

    def may_read(self, asked_ms: int) -> bool:
        """Whether a read that was asked for at *asked_ms* may be answered from what is committed.

        That is all that anybody was told to be committed before it was asked (ReadIndex, thesis
        section 6.4): a quorum followed in a round that was sent later, so there was no other
        leader then; and what earlier leaders committed is known here (`is_established`).
        """
        return self.is_established and self._confirmed_ms() > asked_ms

    def holds_lease(self, now_ms: int) -> bool:
        """Whether no other leader can be there yet, so that a read needs to ask nobody.

        *now_ms* was taken after the read came. A quorum will not vote before an election time-out
        is over since a round reached it, and that was sent earlier (thesis section 6.4.1).
        """
        lease_ms = self._settings.lease_ms
        if not lease_ms or not self.is_established or self.is_transferring:
            return False
        return now_ms < self._confirmed_ms() + lease_ms

    def _confirmed_ms(self) -> int:
        """Return the latest time at which rounds were sent that a quorum answered."""
        leadership, contacts = self._leadership, self._contacts
        assert leadership is not None
        if contacts is None:
            sent_ms = {node: each.confirmed_ms for node, each in leadership.followers.items()}
        else:
            group, term = self._config.group, self.term
            sent_ms = {
                node: contacts.confirmed_ms(group, term, node) for node in leadership.followers
            }
        sent_ms[self._config.self_id] = NEVER_MS  # it follows itself
        return self.configuration.quorum_value(sent_ms)

    def match_indexes(self) -> dict[MemberId, Index]:
        """Return the durable end of every voter as this leader knows it, its own included."""
        assert self._leadership is not None
        followers = self._leadership.followers
        matches = {node: progress.match_index for node, progress in followers.items()}
        matches[self._config.self_id] = self.durable_index
        return matches

    @property
    def leader_committed_here(self) -> bool:
        """True once an entry of the current term is committed here, and its leader is known.

        What earlier leaders committed is then here, too (section 5.4.3, Leader Completeness).
        """
        if self.leader is None or self.committed_index < self._known_index:
            return False
        return self._log.term_at(self.committed_index) == self.term

    def is_caught_up(self, node: MemberId) -> bool:
        """Whether a follower has, durably, everything that this leader's log has now."""
        assert self._leadership is not None
        progress = self._leadership.followers.get(node)
        return progress is not None and progress.match_index >= self._log.last_index

    @property
    def members_index(self) -> Index:
        """Return an index with which a follower has the configuration in force, too.

        Who is to vote must have that much durably: one that knows no members votes for nobody.
        """
        return Index(max(self.membership.index, self._log.first_index - 1))

    def in_sync(self, now_ms: int) -> tuple[MemberId, ...]:
        """Return the members that are heard and at the log's end, or were within 10 s."""
        leadership = self._leadership
        assert leadership is not None
        last_index, own = self._log.last_index, self._config.self_id
        found = []
        for node in self.configuration.members:
            progress = leadership.followers.get(node)
            if progress is not None:
                heard_ms = progress.heard_ms
                if self._contacts is not None:
                    asked = (self._config.group, self.term, node)
                    heard_ms = max(heard_ms, self._contacts.follower_heard_ms(*asked))
                if progress.match_index >= last_index:
                    progress.caught_up_ms = now_ms
                since_ms = min(heard_ms, progress.caught_up_ms)
            if node == own or (progress is not None and now_ms - since_ms < IN_SYNC_MS):
                found.append(node)
        return tuple(found)

    def announce(self) -> Sequence[Effect]:
        """Tell followers that have everything what is committed, before the next heartbeat."""
        leadership = self._leadership
        assert leadership is not None
        for node, progress in leadership.followers.items():
            self._send_appends(node, leadership.announce(progress, self.committed_index))
        return self._take_effects()

    def step_down(self) -> Sequence[Effect]:
        """Lead no more, of one's own accord: this process lags, or cannot read what it has."""
        self._step_down()
        return self._take_effects()

    @property
    def is_transferring(self) -> bool:
        """True while this leader hands over: nothing may be appended."""
        return self._leadership is not None and self._leadership.transfer_to is not None

    def heartbeat(self, to: MemberId, round_number: int) -> Heartbeat:
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
                # From whomever: this replica's configuration may be old (thesis section 4.1).
                if event.sender != self._config.self_id:
                    self._receive(event.sender, event.message)
            case Tick():
                if now_ms >= self.deadline_ms:
                    self._deadline_passed()
            case VotePersisted():
                self._vote_persisted(event)
            case Campaign():
                if self.role is not Role.LEADER:
                    self._begin_round_unless_busy()
            case LeaderGone():
                self._on_leader_gone(event)
            case TransferLeadership():
                self._begin_transfer(event.to)
            case ChangeMembers():
                self._change_members(event)
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
        made: Made = {}
        for node, progress in leadership.followers.items():
            self._send_appends(node, leadership.stream(progress, self.committed_index, made))
        return self._take_effects()

    def configuration_appended(
        self, index: Index, configuration: Configuration
    ) -> Sequence[Effect]:
        """Take in that the leader's log has a configuration at *index*: it is in force (C1)."""
        leadership = self._leadership
        assert leadership is not None, "only a leader appends of its own accord"
        self.membership.appended(index, configuration)
        leadership.is_leaving = False
        leadership.set_followers(self._others(), index, self._now_ms, NOT_HEARD_MS)
        self._watch_quorum(leadership)
        return self.appended(index)

    def installed(self, configuration: Configuration) -> None:
        """Take in that the log has begun anew behind a snapshot, which is not durable yet.

        *configuration* is the one in force there. `committed_index` follows with the sync (R2).
        """
        log = self._log
        assert log.last_index == log.first_index - 1 > self.committed_index
        self.truncations += 1
        self.durable_index = self.committed_index
        self.membership = Membership(configuration, ())
        self._verified_index = log.last_index
        self._leader_committed = Index(max(self._leader_committed, log.last_index))

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
            self._look_for_losses()
            return self._take_effects()
        return NOTHING

    def _deadline_passed(self) -> None:
        if self._leadership is not None:
            self._check_quorum(self._leadership)
            return
        if self.recollection is None and self.leader is not None and self._contacts is not None:
            deadline_ms = self._leader_seen_ms() + self._delay_ms
            if deadline_ms > self._now_ms:
                self.deadline_ms = deadline_ms
                return
            left_ms = deadline_ms + self._contacts.patience_ms() - self._now_ms
            if left_ms > 0:  # looked at again soon: it may be on time then
                self.deadline_ms = self._now_ms + min(left_ms, self._settings.round_timeout_ms)
                return
        self._begin_round_unless_busy()

    # -- Messages -------------------------------------------------------------------------------

    def _receive(self, sender: MemberId, message: Message) -> None:
        if self.recollection is not None and self.recollection.is_asking:
            if isinstance(message, PreVoteAnswer):
                self._on_term_told(sender, message)
            return
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
            case TimeoutNow():
                self._on_timeout_now(sender, message)
            case Snapshot():
                self._on_snapshot(sender, message)
            case _:
                assert_never(message)

    # -- Follower -------------------------------------------------------------------------------

    def _on_heartbeat(self, sender: MemberId, beat: Heartbeat) -> None:
        if beat.term == self.term:
            self._follow(sender)
            # This replica acknowledged so much in this term, so it is the leader's log.
            known = min(beat.committed_index, self._log.last_index)  # some of it may be lost
            self._verified_index = Index(max(self._verified_index, known))
            self._leader_committed = Index(max(self._leader_committed, beat.committed_index))
            self._commit_as_follower()
            if self.recollection is not None:
                self._recollect()
        self._answer(sender, HeartbeatAnswer(self.term, beat.round))

    def _on_append(self, sender: MemberId, message: Append) -> None:
        """AppendEntries, receiver implementation 1 to 5 (figure 2)."""
        prev_index = message.prev_index
        if message.term < self.term:
            stale = AppendRejected(self.term, message.round, prev_index, Index(0), Term(0))
            self._answer(sender, stale)
            return
        self._follow(sender)
        log = self._log
        committed = self._known_index
        if prev_index > committed and (
            prev_index > log.last_index or log.term_at(prev_index) != message.prev_term
        ):
            rejected = replication.rejection(log, self.term, message, committed)
            has_lost = self.recollection is not None and rejected.conflict_term == 0
            self._answer(sender, replace(rejected, has_lost=has_lost))
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
            for index, configuration in message.configurations:
                if index >= first:
                    self.membership.appended(index, configuration)
        else:
            self._acknowledge(sender)
        self._commit_as_follower()

    @property
    def _known_index(self) -> Index:
        """Up to here all is known to be committed, if not durably here: a log may begin anew."""
        return Index(max(self.committed_index, self._log.first_index - 1))

    def _on_snapshot(self, sender: MemberId, message: Snapshot) -> None:
        """InstallSnapshot, receiver implementation (figure 13)."""
        if message.term < self.term:
            return
        self._follow(sender)
        log, last_index = self._log, message.last_index
        is_here = last_index <= self._known_index or (
            last_index <= log.last_index and log.term_at(last_index) == message.last_term
        )
        if not is_here:
            self._effects.append(InstallSnapshot(message))
            return
        # "If existing log entry has same index and term as snapshot's last included entry,
        # retain log entries following it and reply" (step 6).
        self._verified_index = Index(max(self._verified_index, last_index))
        self._leader_committed = Index(max(self._leader_committed, last_index))
        self._acknowledge(sender)
        self._commit_as_follower()

    def _truncate(self, from_index: Index) -> None:
        assert from_index > self._known_index, "a committed entry is never truncated"
        self.truncations += 1
        self.durable_index = Index(min(self.durable_index, from_index - 1))
        self.membership.truncated(from_index)
        self._effects.append(Truncate(from_index))

    def _acknowledge(self, leader: MemberId) -> None:
        match_index = Index(min(self.durable_index, self._verified_index))
        self._answer(leader, Appended(self.term, match_index, self._verified_index))

    def _commit_as_follower(self) -> None:
        committed = min(self._leader_committed, self._verified_index, self.durable_index)
        if committed > self.committed_index:
            assert self.role is Role.FOLLOWER
            self.committed_index = Index(committed)
            self.membership.committed(self.committed_index)
            self._effects.append(Committed(self.committed_index))
            self._look_for_losses()

    def _look_for_losses(self) -> None:
        """End a loss that is made good (L2, L4)."""
        lost = self.recollection
        if lost is None or lost.is_asking:
            return
        if lost.are_votes_lost:
            is_good = self.leader_committed_here
        else:
            is_good = lost.covers(self.durable_index, self._log.term_at(self.durable_index))
        if is_good:
            self.recollection = None
            self._effects.append(MadeGood())

    # -- Leader ---------------------------------------------------------------------------------

    def _commit_as_leader(self, leadership: Leadership) -> Sequence[Effect]:
        members = self.membership
        committed = self.durable_index
        if leadership.followers:
            committed = leadership.committed_by_quorum(
                committed, members.current, self._config.self_id
            )
        elif committed < leadership.term_start_index:
            return NOTHING
        if committed <= self.committed_index:
            return NOTHING
        assert committed <= self.durable_index, "R2"
        self.committed_index = committed
        if members.index == 0 and not members.current.outgoing:
            return [Committed(committed)]  # nearly always: the members are those of the beginning
        self._effects.append(Committed(committed))
        self._configuration_committed(leadership)
        return self._take_effects()

    def _on_appended(self, sender: MemberId, answer: Appended) -> None:
        leadership = self._leadership
        if leadership is None or answer.term < self.term:
            return
        if sender not in leadership.followers:
            return  # it left meanwhile
        progress = leadership.acknowledged(sender, answer, self._now_ms)
        committed = self._commit_as_leader(leadership)
        self._effects.extend(committed)
        if self._leadership is None:
            return  # what was committed is that it has left
        self._send_appends(sender, leadership.stream(progress, self.committed_index))
        self._hand_over_if_ready(leadership)

    def _on_rejected(self, sender: MemberId, answer: AppendRejected) -> None:
        leadership = self._leadership
        if leadership is None or answer.term < self.term:
            return
        if sender not in leadership.followers:
            return
        progress = leadership.rejected(sender, answer, self._now_ms)
        if not leadership.has_next_of(progress) and progress.state is ProgressState.PROBE:
            progress.begin_anew(self._now_ms)
            self._effects.append(SendSnapshot(sender, self.term, progress.round))
            return
        self._send_appends(sender, leadership.stream(progress, self.committed_index))

    def _on_heartbeat_answer(self, sender: MemberId, answer: HeartbeatAnswer) -> None:
        leadership = self._leadership
        if leadership is None or answer.term < self.term:
            return
        if sender not in leadership.followers:
            return
        progress = leadership.followers[sender]
        progress.confirmed_ms = max(progress.confirmed_ms, answer.round)
        appends = leadership.alive(sender, self._now_ms, self.committed_index)
        self._send_appends(sender, appends)

    # -- Members --------------------------------------------------------------------------------

    def _change_members(self, wanted: ChangeMembers) -> None:
        """Propose other members, if nothing speaks against it (C2)."""
        current = self.configuration
        fault = membership.change_fault(current, wanted.voters, wanted.learners)
        if not self.is_established:
            fault = "this replica does not lead, or has committed nothing of its term yet"
        elif self.is_transferring:
            fault = "leadership is being handed over"
        elif self.membership.is_changing(self.committed_index):
            fault = "another change is under way"
        if fault is not None:
            self._effects.append(ChangeRefused(fault))
            return
        after = membership.changed(current, wanted.voters, wanted.learners)
        self._effects.append(AppendConfiguration(after))

    def _configuration_committed(self, leadership: Leadership) -> None:
        """Go on with a change whose entry is committed, or end: the leader may have left."""
        self.membership.committed(self.committed_index)
        if self.membership.index > self.committed_index:
            return
        current = self.configuration
        if current.is_joint and not leadership.is_leaving:
            leadership.is_leaving = True
            self._effects.append(AppendConfiguration(membership.left(current)))
        elif not current.is_voter(self._config.self_id):
            # "the leader steps down once it has committed the Cnew log entry" (section 6). Who has
            # that too need not wait until the leader is missed.
            last_index, followers = self._log.last_index, leadership.followers
            heirs = [one for one in current.voters if followers[one].match_index >= last_index]
            self._step_down()
            if heirs:
                self._effects.append(Send(heirs[0], TimeoutNow(self.term)))

    def _send_appends(self, to: MemberId, appends: list[Append]) -> None:
        """Appends of an established leader leave before its own copy is durable."""
        for append in appends:
            self._effects.append(Send(to, append))
