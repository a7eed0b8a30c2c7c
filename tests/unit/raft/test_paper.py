"""One test per sentence of the Raft paper that we rely on (extended version, sections 5 to 8).

Method: a replica alone, with its peers played by hand; each test has three parts: init, test,
check. Sentences are quoted from "In Search of an Understandable Consensus Algorithm", and from
the thesis "Consensus: Bridging Theory and Practice" where the paper has none.
"""

import random

import pytest

from corelane.model.ids import Index, MemberId, Term
from corelane.raft.config import DEFAULT_SETTINGS
from corelane.raft.effects import (
    BecameLeader,
    PersistVote,
)
from corelane.raft.election import Role, election_delay_ms
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
from tests.unit.raft.bench import FIFTH, FOURTH, ME, SECOND, THIRD, Bench, append_of

TIMEOUT_MS = DEFAULT_SETTINGS.election_timeout_ms


# -- 5.1 Raft basics ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        append_of(3, (0, 0), 3),
        Heartbeat(Term(3), 1, Index(0)),
        Vote(Term(3), 1, Index(0), Term(0)),
        VoteAnswer(Term(3), 1, False),
        Appended(Term(3), Index(0), Index(0)),
        AppendRejected(Term(3), 0, Index(0), Index(0), Term(0)),
        HeartbeatAnswer(Term(3), 1),
        PreVoteAnswer(Term(3), 1, False),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_larger_term_is_taken_over(message: Message) -> None:
    """Paper: "if one server's current term is smaller than the other's, then it updates its current
    term to the larger value." (5.1)
    """
    bench = Bench(term=1)
    bench.receive(SECOND, message)
    assert bench.group.term == 3
    assert bench.asked(PersistVote)[-1].term == 3


@pytest.mark.parametrize("role", [Role.CANDIDATE, Role.LEADER])
def test_who_is_out_of_date_becomes_a_follower(role: Role) -> None:
    """Paper: "If a candidate or leader discovers that its term is out of date, it immediately
    reverts to follower state." (5.1)
    """
    bench = Bench()
    if role is Role.LEADER:
        bench.lead()
    else:
        bench.stand()
    assert bench.group.role is role
    bench.receive(THIRD, AppendRejected(Term(9), 0, Index(0), Index(0), Term(0)))
    assert bench.group.role is Role.FOLLOWER
    assert bench.group.leader is None


def test_a_request_of_a_stale_term_is_rejected() -> None:
    """Paper: "If a server receives a request with a stale term number, it rejects the request."
    (5.1)
    """
    bench = Bench(terms=[2], term=5)
    bench.receive(SECOND, append_of(4, (1, 2), 4))
    bench.receive(SECOND, Vote(Term(4), 8, Index(9), Term(3)))
    bench.receive(SECOND, Heartbeat(Term(4), 1, Index(1)))
    assert [one.term for one in bench.sent(AppendRejected)] == [5]
    assert bench.sent(VoteAnswer) == [VoteAnswer(Term(5), 8, False)]
    assert [one.term for one in bench.sent(HeartbeatAnswer)] == [5]
    assert bench.seen == []
    assert bench.group.leader is None


# -- 5.2 Leader election ------------------------------------------------------------------------


def test_a_server_starts_as_a_follower() -> None:
    """Paper: "When servers start up, they begin as followers." (5.2)"""
    bench = Bench(terms=[1, 2], term=4, voted_for=ME)
    assert bench.group.role is Role.FOLLOWER
    assert bench.group.leader is None
    assert bench.group.term == 4


def test_a_follower_stays_one_while_it_hears_the_leader() -> None:
    """Paper: "A server remains in follower state as long as it receives valid RPCs from a leader or
    candidate." (5.2)
    """
    bench = Bench()
    for beat in range(50):
        bench.receive(SECOND, Heartbeat(Term(1), beat, Index(0)))
        bench.wait(TIMEOUT_MS - 1)
    assert bench.group.role is Role.FOLLOWER
    assert bench.sent(PreVote) == []


def test_a_leader_has_a_heartbeat_for_every_follower() -> None:
    """Paper: "Leaders send periodic heartbeats ... to all followers in order to maintain their
    authority." (5.2) When is the business of the session between two cores.
    """
    bench = Bench(voters=5)
    bench.lead()
    beats = [bench.group.heartbeat(node, 3) for node in (SECOND, THIRD, FOURTH, FIFTH)]
    assert beats == [Heartbeat(Term(1), 3, Index(0))] * 4


def test_silence_begins_an_election() -> None:
    """Paper: "If a follower receives no communication over a period of time called the election
    timeout, then it assumes there is no viable leader and begins an election to choose a new
    leader."
    """
    bench = Bench()
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    bench.wait(TIMEOUT_MS - 1)
    assert bench.sent(PreVote) == []
    bench.wait(1)
    assert len(bench.sent(PreVote)) == 2


def test_an_election_is_a_new_term_an_own_vote_and_requests_to_all() -> None:
    """Paper: "To begin an election, a follower increments its current term and transitions to
    candidate state. It then votes for itself and issues RequestVote RPCs in parallel to each of the
    other servers in the cluster." (5.2)
    """
    bench = Bench(voters=5, terms=[1, 2], term=2)
    bench.stand()
    assert (bench.group.term, bench.group.voted_for) == (3, ME)
    assert bench.group.role is Role.CANDIDATE
    requests = [bench.sent(Vote, node) for node in (SECOND, THIRD, FOURTH, FIFTH)]
    number = bench.group._round_number
    assert requests == [[Vote(Term(3), number, Index(2), Term(2))]] * 4


@pytest.mark.parametrize(("voters", "needed"), [(2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3)])
def test_a_majority_of_the_full_cluster_elects(voters: int, needed: int) -> None:
    """Paper: "A candidate wins an election if it receives votes from a majority of the servers in
    the full cluster for the same term." (5.2) The own vote is one of them.
    """
    bench = Bench(voters=voters)
    bench.stand()
    number = bench.sent(Vote)[0].round
    for granted in range(1, needed + 1):
        assert bench.group.role is Role.CANDIDATE
        bench.receive(MemberId(granted + 1), VoteAnswer(Term(1), number, True))
    assert bench.group.role is Role.LEADER
    assert bench.asked(BecameLeader) == [BecameLeader(Term(1))]


def test_one_voter_counts_once() -> None:
    """A repeated grant is no majority, nor is one that follows a refusal of the same voter."""
    bench = Bench(voters=5)
    bench.stand()
    number = bench.sent(Vote)[0].round
    for _ in range(3):
        bench.receive(SECOND, VoteAnswer(Term(1), number, True))
    bench.receive(THIRD, VoteAnswer(Term(1), number, False))
    bench.receive(THIRD, VoteAnswer(Term(1), number, True))
    assert bench.group.role is Role.CANDIDATE


def test_one_vote_per_term_first_come_first_served() -> None:
    """Paper: "Each server will vote for at most one candidate in a given term, on a first-come-
    first- served basis." (5.2)
    """
    bench = Bench()
    bench.receive(SECOND, Vote(Term(1), 7, Index(0), Term(0)))
    bench.sync_vote()
    bench.receive(THIRD, Vote(Term(1), 8, Index(5), Term(0)))
    bench.receive(SECOND, Vote(Term(1), 9, Index(0), Term(0)))
    assert bench.sent(VoteAnswer, SECOND) == [
        VoteAnswer(Term(1), 7, True),
        VoteAnswer(Term(1), 9, True),
    ]
    assert bench.sent(VoteAnswer, THIRD) == [VoteAnswer(Term(1), 8, False)]


def test_a_vote_outlives_a_restart() -> None:
    """The same sentence, with a crash between the two requests: votedFor is persistent state."""
    bench = Bench(term=1, voted_for=SECOND)
    bench.receive(THIRD, Vote(Term(1), 8, Index(0), Term(0)))
    assert bench.sent(VoteAnswer) == [VoteAnswer(Term(1), 8, False)]


def test_a_new_leader_makes_itself_known_to_all() -> None:
    """Paper: "Once a candidate wins an election, it becomes leader. It then sends heartbeat
    messages to all of the other servers to establish its authority and prevent new elections."
    (5.2)
    """
    bench = Bench(voters=5)
    bench.lead()
    for node in (SECOND, THIRD, FOURTH, FIFTH):
        assert bench.sent(Append, node) == [append_of(1, (0, 0), 1)]


def test_a_candidate_recognizes_the_leader_of_its_term() -> None:
    """Paper: "If the leader's term (included in its RPC) is at least as large as the candidate's
    current term, then the candidate recognizes the leader as legitimate and returns to follower
    state."
    """
    bench = Bench()
    bench.stand()
    bench.receive(THIRD, append_of(1, (0, 0), 1))
    assert bench.group.role is Role.FOLLOWER
    assert bench.group.leader == THIRD
    bench.receive(SECOND, VoteAnswer(Term(1), bench.group._round_number, True))
    assert bench.group.role is Role.FOLLOWER


def test_a_candidate_rejects_the_leader_of_an_older_term() -> None:
    """Paper: "If the term in the RPC is smaller than the candidate's current term, then the
    candidate rejects the RPC and continues in candidate state." (5.2)
    """
    bench = Bench(term=4)
    bench.stand()
    bench.receive(THIRD, append_of(4, (0, 0), 4))
    assert bench.group.role is Role.CANDIDATE
    assert [one.term for one in bench.sent(AppendRejected)] == [5]


def test_a_split_vote_is_followed_by_another_term() -> None:
    """Paper: "each candidate will time out and start a new election by incrementing its term and
    initiating another round of RequestVote RPCs." (5.2)
    """
    bench = Bench()
    bench.stand()
    bench.receive(SECOND, VoteAnswer(Term(1), bench.sent(Vote)[-1].round, False))
    bench.wait(bench.group.deadline_ms - bench.now_ms)
    number = bench.sent(PreVote)[-1].round
    bench.receive(SECOND, PreVoteAnswer(Term(1), number, True))
    bench.sync_vote()
    assert bench.group.term == 2
    assert {one.term for one in bench.sent(Vote)} == {2}


def test_election_timeouts_are_spread() -> None:
    """Paper: "election timeouts are chosen randomly from a fixed interval" (5.2); ours is shifted
    by the rank, so the preferred replica stands first.
    """
    chance = random.Random(1)
    jitter_ms = DEFAULT_SETTINGS.election_jitter_ms
    for rank in range(3):
        low = TIMEOUT_MS + rank * DEFAULT_SETTINGS.election_rank_ms
        drawn = {
            election_delay_ms(DEFAULT_SETTINGS, rank, chance.randrange(jitter_ms + 1))
            for _ in range(2000)
        }
        assert min(drawn) == low
        assert max(drawn) == low + jitter_ms
