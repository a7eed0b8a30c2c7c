"""One test per sentence of the Raft paper about the log, which is sections 5.3 to 8.

Method and sources: see `test_paper.py`.
"""

import pytest

from corelane.model.ids import NO_MEMBER, Index, MemberId, Term
from corelane.raft.config import DEFAULT_SETTINGS
from corelane.raft.effects import (
    AppendEntries,
    Committed,
    PersistVote,
    Truncate,
)
from corelane.raft.election import Role, is_up_to_date
from corelane.raft.messages import (
    Append,
    Appended,
    AppendRejected,
    Heartbeat,
    HeartbeatAnswer,
    PreVote,
    PreVoteAnswer,
    Vote,
    VoteAnswer,
)
from tests.simulation.raft_replica import Entry, MemoryLog
from tests.unit.raft.bench import FOURTH, ME, SECOND, THIRD, Bench, append_of, terms

TIMEOUT_MS = DEFAULT_SETTINGS.election_timeout_ms


# -- 5.3 Log replication ------------------------------------------------------------------------


def test_a_leader_appends_and_sends_in_parallel() -> None:
    """Paper: "The leader appends the command to its log as a new entry, then issues AppendEntries
    RPCs in parallel to each of the other servers to replicate the entry." (5.3)
    """
    bench = Bench()
    bench.lead()
    bench.sent(Append)
    for node in (SECOND, THIRD):
        bench.receive(node, Appended(Term(1), Index(1), Index(1)))
    bench.append()
    for node in (SECOND, THIRD):
        assert bench.sent(Append, node) == [append_of(1, (1, 1), 1)]


@pytest.mark.parametrize(("voters", "needed"), [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_an_entry_on_a_majority_is_committed(voters: int, needed: int) -> None:
    """Paper: "A log entry is committed once the leader that created the entry has replicated it on
    a majority of the servers." (5.3)
    """
    bench = Bench(voters=voters)
    bench.lead()
    bench.sync_log()
    for node in range(2, needed + 2):
        assert bench.asked(Committed) == []
        bench.receive(MemberId(node), Appended(Term(1), Index(1), Index(1)))
    assert bench.asked(Committed) == [Committed(Index(1))]


def test_a_commit_takes_the_preceding_entries_with_it() -> None:
    """Paper: "This also commits all preceding entries in the leader's log, including entries
    created by previous leaders." (5.3)
    """
    bench = Bench(terms=[1, 2, 2], term=3)
    bench.lead()
    bench.sync_log()
    bench.receive(SECOND, Appended(Term(4), Index(4), Index(4)))
    assert bench.asked(Committed) == [Committed(Index(4))]


def test_the_commit_index_travels_with_what_follows() -> None:
    """Paper: "The leader keeps track of the highest index it knows to be committed, and it includes
    that index in future AppendEntries RPCs (including heartbeats) so that the other servers
    eventually find out." (5.3) A heartbeat says no more than the follower has acknowledged.
    """
    bench = Bench()
    bench.lead()
    bench.sync_log()
    bench.receive(SECOND, Appended(Term(1), Index(1), Index(1)))
    bench.sent(Append)
    bench.append()
    assert [one.committed_index for one in bench.sent(Append, SECOND)] == [1]
    assert bench.group.heartbeat(SECOND, 1).committed_index == 1
    assert bench.group.heartbeat(THIRD, 1).committed_index == 0


def test_a_follower_learns_what_is_committed() -> None:
    """Paper: "Once a follower learns that a log entry is committed, it applies the entry to its
    local state machine (in log order)." (5.3) Ours first has it on its own disk.
    """
    bench = Bench()
    bench.receive(SECOND, append_of(1, (0, 0), 1, 1, 1, committed=2))
    assert bench.asked(Committed) == []
    bench.sync_log()
    assert bench.asked(Committed) == [Committed(Index(2))]
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(3)))
    assert bench.asked(Committed)[-1] == Committed(Index(3))


@pytest.mark.parametrize("prev", [(3, 2), (2, 1), (9, 2)])
def test_a_follower_refuses_what_does_not_fit(prev: tuple[int, int]) -> None:
    """Paper: "If the follower does not find an entry in its log with the same index and term, then
    it refuses the new entries." (5.3)
    """
    bench = Bench(terms=[1, 2], term=2)
    bench.receive(SECOND, append_of(2, prev, 2))
    assert [one.prev_index for one in bench.sent(AppendRejected)] == [prev[0]]
    assert bench.asked(AppendEntries) == []
    assert terms(bench.log) == [1, 2]


@pytest.mark.parametrize(
    ("follower", "prev", "new", "expected"),
    [
        ([1, 2, 2], (1, 1), [3], [1, 3]),
        ([1, 2, 2], (1, 1), [2, 3], [1, 2, 3]),
        ([1, 1, 2, 2, 2], (0, 0), [1, 1, 3, 3], [1, 1, 3, 3]),
        ([1, 1], (2, 1), [3], [1, 1, 3]),
    ],
)
def test_conflicting_entries_are_overwritten(
    follower: list[int], prev: tuple[int, int], new: list[int], expected: list[int]
) -> None:
    """Paper: "conflicting entries in follower logs will be overwritten with entries from the
    leader's log." (5.3) "delete the existing entry and all that follow it" (figure 2)
    """
    bench = Bench(terms=follower, term=3)
    bench.receive(SECOND, append_of(3, prev, *new))
    assert terms(bench.log) == expected


def test_a_new_leader_guesses_that_all_have_everything() -> None:
    """Paper: "When a leader first comes to power, it initializes all nextIndex values to the index
    just after the last one in its log." (5.3)
    """
    bench = Bench(terms=[1, 2, 2], term=2)
    bench.lead()
    assert [one.prev_index for one in bench.sent(Append)] == [3, 3]


def test_after_a_rejection_the_leader_backs_up() -> None:
    """Paper: "the leader can decrement nextIndex to bypass all of the conflicting entries in that
    term; one AppendEntries RPC will be required for each term with conflicting entries, rather than
    one RPC per entry." (5.3)
    """
    bench = Bench(terms=[1, 4, 4, 4, 5], term=5)
    bench.lead()
    bench.sent(Append)
    bench.receive(SECOND, AppendRejected(Term(6), 0, Index(5), Index(3), Term(4)))
    assert [one.prev_index for one in bench.sent(Append)] == [4]  # our last entry of term 4
    bench.receive(THIRD, AppendRejected(Term(6), 0, Index(5), Index(2), Term(3)))
    assert [one.prev_index for one in bench.sent(Append)] == [1]  # we have no term 3


def test_a_rejection_names_the_conflicting_term_and_its_first_entry() -> None:
    """Paper: "the follower can include the term of the conflicting entry and the first index it
    stores for that term." (5.3)
    """
    bench = Bench(terms=[1, 1, 2, 2, 2, 3], term=4)
    bench.receive(SECOND, append_of(4, (5, 3)))
    bench.receive(SECOND, append_of(4, (9, 3)))
    assert bench.sent(AppendRejected) == [
        AppendRejected(Term(4), 0, Index(5), Index(3), Term(2)),
        AppendRejected(Term(4), 0, Index(9), Index(7), Term(0)),
    ]


def test_a_leader_never_cuts_its_own_log() -> None:
    """Paper: "A leader never overwrites or deletes entries in its own log." (5.3, Leader Append-
    Only)
    """
    bench = Bench(terms=[1, 2, 2], term=2)
    bench.lead()
    before = terms(bench.log)
    bench.receive(SECOND, AppendRejected(Term(3), 0, Index(3), Index(1), Term(0)))
    bench.receive(THIRD, append_of(2, (0, 0), 2, 2, 2))
    assert terms(bench.log) == before
    assert bench.asked(Truncate) == []


# -- 5.4 Safety ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "granted"),
    [((2, 3), True), ((2, 4), True), ((3, 3), True), ((1, 3), False), ((9, 2), False)],
)
def test_a_voter_denies_a_log_that_is_less_up_to_date(
    candidate: tuple[int, int], granted: bool
) -> None:
    """Paper: "the voter denies its vote if its own log is more up-to-date than that of the
    candidate." "If the logs have last entries with different terms, then the log with the later
    term is more up-to-date. If the logs end with the same term, then whichever log is longer is
    more up-to-date." (5.4.1) A pre-vote obeys the same rule.
    """
    last = (Index(candidate[0]), Term(candidate[1]))
    log = MemoryLog([Entry(Term(1), "a"), Entry(Term(3), "b")])
    assert is_up_to_date(*last, log) is granted
    bench = Bench(terms=[1, 3], term=4)
    bench.receive(SECOND, PreVote(Term(5), 1, *last))
    bench.receive(SECOND, Vote(Term(5), 2, *last))
    bench.sync_vote()
    assert [one.granted for one in bench.sent(PreVoteAnswer)] == [granted]
    assert [one.granted for one in bench.sent(VoteAnswer)] == [granted]


def test_entries_of_previous_terms_are_not_committed_by_counting() -> None:
    """Paper: "Raft never commits log entries from previous terms by counting replicas. Only log
    entries from the leader's current term are committed by counting replicas." (5.4.2)
    """
    bench = Bench(terms=[1, 2], term=3)
    bench.lead()
    bench.sync_log()
    for node in (SECOND, THIRD):
        bench.receive(node, Appended(Term(4), Index(2), Index(2)))
    assert bench.asked(Committed) == []
    assert not bench.group.is_established
    bench.receive(THIRD, Appended(Term(4), Index(3), Index(3)))
    assert bench.asked(Committed) == [Committed(Index(3))]
    assert bench.group.is_established


# -- 5.5 Follower and candidate crashes; figure 2; 6; 8; thesis -----------------------------------


def test_appends_are_idempotent() -> None:
    """Paper: "if a follower receives an AppendEntries request that includes log entries already
    present in its log, it ignores those entries in the new request." (5.5)
    """
    bench = Bench(terms=[1, 1, 1], term=1)
    bench.receive(SECOND, append_of(1, (0, 0), 1, 1))
    assert bench.asked(AppendEntries) == []
    assert terms(bench.log) == [1, 1, 1]
    bench.sent(Appended)
    bench.receive(SECOND, append_of(1, (1, 1), 1, 1, 1))
    assert [one.first_index for one in bench.asked(AppendEntries)] == [4]


def test_an_old_append_shortens_nothing() -> None:
    """The same sentence against reordering: only a conflict removes entries, never a shorter
    message (figure 2, step 3).
    """
    bench = Bench(term=1)
    bench.receive(SECOND, append_of(1, (0, 0), 1, 1, 1, 1))
    bench.receive(SECOND, append_of(1, (0, 0), 1))
    assert len(bench.log.entries()) == 4
    bench.sync_log()
    assert bench.sent(Appended)[-1].match_index == 4


def test_term_and_vote_are_on_disk_before_the_answer() -> None:
    """Paper: "currentTerm, votedFor, log[]: updated on stable storage before responding to RPCs"
    (fig. 2)
    """
    bench = Bench()
    bench.receive(SECOND, Vote(Term(1), 4, Index(0), Term(0)))
    assert bench.seen[0] == PersistVote(Term(1), SECOND)
    assert bench.sent(VoteAnswer) == []
    bench.sync_vote()
    assert bench.sent(VoteAnswer) == [VoteAnswer(Term(1), 4, True)]


def test_entries_are_on_disk_before_the_answer() -> None:
    """The same sentence for the log."""
    bench = Bench(term=1)
    bench.receive(SECOND, append_of(1, (0, 0), 1, 1))
    assert bench.sent(Appended) == []
    bench.do(bench.group.persisted(Index(1), 0))
    assert bench.sent(Appended) == [Appended(Term(1), Index(1), Index(2))]
    bench.sync_log()
    assert bench.sent(Appended) == [Appended(Term(1), Index(2), Index(2))]


def test_a_candidate_asks_only_with_its_own_vote_on_disk() -> None:
    """The same sentence for the candidate: a crash must not let it vote for another."""
    bench = Bench(voters=2)
    bench.wait(bench.group.deadline_ms)
    bench.receive(SECOND, PreVoteAnswer(Term(0), bench.sent(PreVote)[0].round, True))
    assert bench.asked(PersistVote) == [PersistVote(Term(1), ME)]
    assert bench.sent(Vote) == []
    bench.sync_vote()
    assert len(bench.sent(Vote)) == 1


def test_a_follower_commits_no_more_than_the_message_vouches_for() -> None:
    """Paper: "set commitIndex = min(leaderCommit, index of last new entry)" (figure 2): what lies
    behind the last new entry may not be the leader's.
    """
    bench = Bench(terms=[1, 1, 1, 1], term=2)
    bench.receive(SECOND, append_of(2, (1, 1), 1, committed=4))
    assert bench.asked(Committed) == [Committed(Index(2))]


def test_the_leaders_own_copy_counts_when_it_is_durable() -> None:
    """Not the paper but our rule R2: the thesis (10.2.1) lets a leader commit what only its
    followers have on disk; a high watermark beyond the own disk would make reads go stale.
    """
    bench = Bench()
    bench.lead()
    for node in (SECOND, THIRD):
        bench.receive(node, Appended(Term(1), Index(1), Index(1)))
    assert bench.asked(Committed) == []
    bench.sync_log()
    assert bench.asked(Committed) == [Committed(Index(1))]


def test_a_vote_is_withheld_while_the_leader_is_heard() -> None:
    """Paper: "if a server receives a RequestVote RPC within the minimum election timeout of hearing
    from a current leader, it does not update its term or grant its vote." (6)
    """
    bench = Bench()
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    bench.sync_vote()
    bench.now_ms = TIMEOUT_MS - 1
    bench.receive(THIRD, PreVote(Term(2), 1, Index(9), Term(1)))
    bench.receive(THIRD, Vote(Term(2), 2, Index(9), Term(1)))
    assert (bench.group.term, bench.group.voted_for) == (1, NO_MEMBER)
    assert bench.sent(PreVoteAnswer) == [PreVoteAnswer(Term(1), 1, False)]
    assert bench.sent(VoteAnswer) == [VoteAnswer(Term(1), 2, False)]
    bench.now_ms = TIMEOUT_MS
    bench.receive(THIRD, Vote(Term(2), 3, Index(9), Term(1)))
    bench.sync_vote()
    assert bench.sent(VoteAnswer) == [VoteAnswer(Term(2), 3, True)]


def test_a_leader_serves_when_an_entry_of_its_term_is_committed() -> None:
    """Paper: "Raft handles this by having each leader commit a blank no-op entry into the log at
    the start of its term." (8)
    """
    bench = Bench(terms=[1], term=1, committed=1)
    bench.lead()
    assert bench.group.is_leader
    assert not bench.group.is_established
    bench.sync_log()
    bench.receive(SECOND, Appended(Term(2), Index(2), Index(2)))
    assert bench.group.is_established


def test_a_pre_vote_changes_nobodys_term() -> None:
    """Thesis: "a candidate only increments its term if it first learns from a majority of the
    cluster that they would be willing to grant the candidate their votes" (thesis 9.6)
    """
    bench = Bench(voters=5)
    bench.wait(bench.group.deadline_ms)
    number = bench.sent(PreVote)[0].round
    bench.receive(SECOND, PreVoteAnswer(Term(0), number, True))
    assert (bench.group.term, bench.group.role) == (0, Role.PRE_CANDIDATE)
    bench.receive(THIRD, PreVoteAnswer(Term(0), number, True))
    assert (bench.group.term, bench.group.role) == (1, Role.CANDIDATE)


def test_a_leader_without_a_quorum_steps_down() -> None:
    """Thesis: "a leader in Raft steps down if an election timeout elapses without a successful
    round of heartbeats to a majority of its cluster" (thesis 6.2)
    """
    bench = Bench(voters=5)
    bench.lead()
    bench.wait(500)
    bench.receive(SECOND, HeartbeatAnswer(Term(1), 1))
    bench.receive(THIRD, HeartbeatAnswer(Term(1), 1))
    bench.receive(FOURTH, HeartbeatAnswer(Term(0), 1))
    bench.wait(TIMEOUT_MS - 1)
    assert bench.group.is_leader
    bench.wait(1)
    assert bench.group.role is Role.FOLLOWER
    assert bench.group.leader is None
