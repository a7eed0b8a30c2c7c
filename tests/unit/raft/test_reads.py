"""Reads that miss nothing: ReadIndex and leases, one test per sentence that they rest on.

Sentences are quoted from the thesis "Consensus: Bridging Theory and Practice", section 6.4.
"""

import pytest

from corelane.model.ids import GroupId, Index, MemberId, Term
from corelane.raft.config import DEFAULT_SETTINGS, RaftConfig, RaftSettings, check
from corelane.raft.events import Campaign, LeaderGone, TransferLeadership
from corelane.raft.messages import (
    Appended,
    Heartbeat,
    HeartbeatAnswer,
    PreVote,
    PreVoteAnswer,
    TimeoutNow,
    Vote,
    VoteAnswer,
)
from tests.unit.raft.bench import FOURTH, ME, SECOND, THIRD, Bench

TIMEOUT_MS = DEFAULT_SETTINGS.election_timeout_ms
LEASE_MS = 800


def leader(voters: int = 3, *, lease_ms: int = 0) -> Bench:
    """Return an established leader, whom nobody has answered a heartbeat yet."""
    bench = Bench(voters, lease_ms=lease_ms)
    if lease_ms:
        bench.now_ms = TIMEOUT_MS  # until then it keeps the word of a former life
    bench.lead()
    bench.sync_log()
    for peer in (SECOND, THIRD, FOURTH)[: voters // 2]:
        bench.receive(peer, Appended(bench.group.term, Index(1), Index(1)))
    assert bench.group.is_established
    return bench


def answered(bench: Bench, sent_ms: int, *peers: MemberId) -> None:
    """Have followers answer the round that was sent at *sent_ms*."""
    for peer in peers or (SECOND,):
        bench.receive(peer, HeartbeatAnswer(bench.group.term, sent_ms))


# -- ReadIndex ----------------------------------------------------------------------------------


def test_a_read_waits_for_a_round_that_is_sent_after_it() -> None:
    """Thesis: "It issues a new round of heartbeats and waits for their acknowledgments from a
    majority of the cluster." (6.4, step 3)
    """
    bench = leader()
    bench.wait(100)
    asked_ms = bench.now_ms
    answered(bench, asked_ms - 1)
    answered(bench, asked_ms)  # perhaps on its way before the read came, in the same millisecond
    assert not bench.group.may_read(asked_ms)
    bench.wait(2)
    answered(bench, asked_ms + 1)
    assert bench.group.may_read(asked_ms)


def test_a_majority_must_have_answered_such_a_round() -> None:
    """Of five, the leader and one other are none (6.4, step 3)."""
    bench = leader(5)
    bench.wait(100)
    answered(bench, 50, SECOND)
    assert not bench.group.may_read(40)
    answered(bench, 45, THIRD)
    assert bench.group.may_read(40)
    assert not bench.group.may_read(45)


def test_a_new_leader_reads_nothing_before_an_entry_of_its_own_is_committed() -> None:
    """Thesis: "If the leader has not yet marked an entry from its current term committed, it waits
    until it has done so." (6.4, step 1)
    """
    bench = Bench(terms=[1], term=1, committed=0)
    bench.lead()
    bench.wait(100)
    answered(bench, 50)
    assert not bench.group.may_read(10)
    bench.sync_log()
    bench.receive(SECOND, Appended(bench.group.term, Index(2), Index(2)))
    assert bench.group.may_read(10)


def test_acknowledged_entries_confirm_no_read() -> None:
    """An `Appended` says nothing about when what it answers was sent."""
    bench = leader()
    bench.wait(100)
    bench.receive(SECOND, Appended(bench.group.term, Index(1), Index(1)))
    assert not bench.group.may_read(50)


def test_answers_to_a_former_leadership_confirm_nothing() -> None:
    """What belongs to another term must not be taken for this one's: that, after a pause, made
    reads stale in etcd (issue 20418).
    """
    bench = leader()
    former = bench.group.term
    bench.do(bench.group.step_down())
    bench.seen.clear()
    bench.lead()
    bench.sync_log()
    bench.receive(SECOND, Appended(bench.group.term, Index(2), Index(2)))
    assert bench.group.is_established
    bench.wait(100)
    bench.receive(SECOND, HeartbeatAnswer(former, bench.now_ms))
    assert not bench.group.may_read(bench.now_ms - 1)


def test_a_lone_voter_reads_at_once() -> None:
    """It is the majority, and needs to ask nobody."""
    bench = Bench(1)
    bench.stand()
    bench.append()
    bench.sync_log()
    assert bench.group.may_read(bench.now_ms)


# -- Leases -------------------------------------------------------------------------------------


def test_a_lease_counts_from_when_the_round_was_sent() -> None:
    """The lease begins with the round, not with its answers, and is shorter than a follower's
    patience by what clocks may drift (6.4.1).
    """
    bench = leader(lease_ms=LEASE_MS)
    sent_ms = bench.now_ms
    bench.wait(300)
    answered(bench, sent_ms)
    assert bench.group.holds_lease(sent_ms + LEASE_MS - 1)
    assert not bench.group.holds_lease(sent_ms + LEASE_MS)


def test_no_lease_is_held_unless_asked_for() -> None:
    bench = leader()
    answered(bench, bench.now_ms)
    assert not bench.group.holds_lease(bench.now_ms)


def test_a_pause_ends_a_lease_whatever_arrives_at_its_end() -> None:
    """Answers that waited in a buffer were given before; another may lead by now."""
    bench = leader(lease_ms=LEASE_MS)
    sent_ms = bench.now_ms
    bench.now_ms += 5_000
    answered(bench, sent_ms)
    assert not bench.group.holds_lease(bench.now_ms)


def test_a_leader_that_hands_over_holds_no_lease() -> None:
    """A transfer lets others vote early, so it ends the lease (6.4.1)."""
    bench = leader(lease_ms=LEASE_MS)
    answered(bench, bench.now_ms)
    bench.append()  # which the other does not have yet
    bench.do(bench.group.step(bench.now_ms, TransferLeadership(SECOND)))
    assert bench.group.is_transferring
    assert not bench.group.holds_lease(bench.now_ms)


def test_a_voter_keeps_its_word_over_a_higher_term() -> None:
    """No vote within an election time-out of a heartbeat (6.4.1): also when the term has moved on
    since, and the leader is not known any more.
    """
    bench = Bench(term=1, lease_ms=LEASE_MS)
    bench.now_ms = TIMEOUT_MS
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    bench.receive(THIRD, PreVoteAnswer(Term(2), 0, False))  # somebody stood, and failed
    assert bench.group.leader is None
    bench.sync_vote()
    bench.receive(THIRD, Vote(Term(2), 1, Index(0), Term(0)))
    bench.receive(THIRD, Vote(Term(3), 2, Index(0), Term(0)))
    bench.receive(THIRD, PreVote(Term(4), 3, Index(0), Term(0)))
    assert not any(each.granted for each in bench.sent(VoteAnswer))
    assert not any(each.granted for each in bench.sent(PreVoteAnswer))
    bench.wait(TIMEOUT_MS)
    bench.receive(THIRD, PreVote(Term(5), 4, Index(0), Term(0)))
    assert bench.sent(PreVoteAnswer)[-1].granted


def test_a_voter_keeps_the_word_of_its_former_life() -> None:
    """What it said before a crash is not on its disk: it votes for nobody until that is over."""
    bench = Bench(term=1, lease_ms=LEASE_MS)
    bench.receive(THIRD, PreVote(Term(2), 1, Index(0), Term(0)))
    assert not bench.sent(PreVoteAnswer)[-1].granted
    bench.do(bench.group.step(bench.now_ms, Campaign()))
    assert not bench.sent(PreVote), "nor does it stand itself"
    bench.wait(TIMEOUT_MS)
    bench.receive(THIRD, PreVote(Term(2), 2, Index(0), Term(0)))
    assert bench.sent(PreVoteAnswer)[-1].granted


def test_a_dead_leader_holds_nobody_to_a_word() -> None:
    """Its lease died with its process (DESIGN section 7: *gone*)."""
    bench = Bench(term=1, lease_ms=LEASE_MS)
    bench.now_ms = TIMEOUT_MS
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    bench.do(bench.group.step(bench.now_ms, LeaderGone(SECOND, Term(1))))
    bench.receive(THIRD, PreVote(Term(2), 1, Index(0), Term(0)))
    assert bench.sent(PreVoteAnswer)[-1].granted


def test_who_is_asked_to_lead_stands_at_once() -> None:
    """The leader led no more when it asked (section 3.10)."""
    bench = Bench(term=1, lease_ms=LEASE_MS)
    bench.now_ms = TIMEOUT_MS
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    bench.receive(SECOND, TimeoutNow(Term(1)))
    assert bench.group.term == 2
    bench.sync_vote()
    assert bench.sent(Vote)[-1].is_transfer


def test_a_lease_longer_than_patience_is_no_lease() -> None:
    with pytest.raises(AssertionError):
        check(RaftConfig(GroupId(1), ME, (ME,), RaftSettings(lease_ms=950)))
