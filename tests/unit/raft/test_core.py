"""What a driver may rely on beyond the paper: stale completions, strangers, limits, restarts.

Method: one replica on a bench; each test has three parts: init, test, check.
"""

import random

import pytest

from corelane.model.ids import GroupId, Index, MemberId, Term
from corelane.raft.config import HardState, RaftConfig, RaftSettings
from corelane.raft.core import NEVER_MS, NOTHING, RaftGroup
from corelane.raft.effects import (
    AppendEntries,
    BecameFollower,
    Committed,
    PersistVote,
    Send,
    Truncate,
)
from corelane.raft.election import Role
from corelane.raft.events import Campaign, LeaderGone, Received, Tick, VotePersisted
from corelane.raft.messages import (
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
from tests.unit.raft.bench import ME, SECOND, THIRD, Bench, append_of, terms
from tests.unit.raft.script import NoJitter

STRANGER = MemberId(99)


def make(config: RaftConfig, hard: HardState | None = None) -> RaftGroup:
    return RaftGroup(config, hard or HardState(), MemoryLog(), NoJitter(), 0)


# -- Completions --------------------------------------------------------------------------------


def test_a_write_from_before_a_truncation_proves_nothing_even_if_the_entry_is_back() -> None:
    """Index and term cannot tell the two writes of entry 2 apart; the count of truncations can.

    After a crash the WAL might end behind the first truncation: entry 2 would be gone.
    """
    bench = Bench(terms=[1], term=1)
    bench.receive(SECOND, append_of(2, (1, 1), 2))
    before = bench.group.truncations
    bench.receive(THIRD, append_of(3, (1, 1), 3))
    bench.receive(SECOND, append_of(4, (1, 1), 2, 4))
    assert terms(bench.log) == [1, 2, 4]
    assert bench.group.truncations == before + 2
    assert bench.group.persisted(Index(2), before) is NOTHING
    assert bench.group.durable_index == 1
    bench.do(bench.group.persisted(Index(3), bench.group.truncations))
    assert bench.group.durable_index == 3


def test_a_completion_that_is_repeated_or_late_changes_nothing() -> None:
    bench = Bench(voters=1)
    bench.lead()
    bench.sync_log()
    bench.append(2)
    bench.sync_log()
    assert bench.group.persisted(Index(3), 0) is NOTHING
    assert bench.group.persisted(Index(1), 0) is NOTHING
    assert bench.group.step(0, VotePersisted(Term(1), ME)) is NOTHING
    assert bench.group.committed_index == 3


def test_a_follower_without_a_leader_acknowledges_to_nobody() -> None:
    bench = Bench()
    bench.receive(SECOND, append_of(1, (0, 0), 1))
    bench.receive(THIRD, AppendRejected(Term(2), 0, Index(0), Index(0), Term(0)))
    bench.sync_log()
    assert bench.sent(Appended) == []
    assert bench.group.durable_index == 1


def test_the_completion_of_an_older_vote_releases_nothing() -> None:
    bench = Bench()
    bench.receive(SECOND, Vote(Term(1), 1, Index(0), Term(0)))
    bench.receive(THIRD, Vote(Term(2), 2, Index(0), Term(0)))
    bench.do(bench.group.step(0, VotePersisted(Term(1), SECOND)))
    assert bench.sent(VoteAnswer) == []
    bench.sync_vote()
    assert bench.sent(VoteAnswer) == [VoteAnswer(Term(2), 2, True)]


def test_answers_held_for_a_hanging_disk_do_not_pile_up() -> None:
    bench = Bench()
    bench.receive(SECOND, append_of(1, (5, 1)))
    for number in range(1000):
        bench.receive(SECOND, Heartbeat(Term(1), number, Index(0)))
    assert bench.sent(HeartbeatAnswer) == []
    bench.sync_vote()
    assert bench.sent(HeartbeatAnswer) == [HeartbeatAnswer(Term(1), 999)]
    assert len(bench.sent(AppendRejected)) == 1


def test_nobody_stands_again_while_the_own_vote_hangs() -> None:
    """A hung disk must not turn into terms that race ahead (invariant R5)."""
    bench = Bench(voters=1)
    for _ in range(10):
        bench.wait(bench.group.deadline_ms - bench.now_ms)
    assert bench.asked(PersistVote) == [PersistVote(Term(1), ME)]
    assert bench.group.term == 1


# -- Order and announcements --------------------------------------------------------------------


def test_the_vote_comes_first_then_the_role_then_the_log() -> None:
    """One total order in the WAL: term, truncation, entries."""
    bench = Bench(terms=[1, 1], term=1)
    bench.receive(SECOND, append_of(2, (1, 1), 2, committed=1))
    assert [type(effect) for effect in bench.seen] == [
        PersistVote,
        BecameFollower,
        Truncate,
        AppendEntries,
        Committed,
    ]


def test_a_leader_that_is_replaced_says_so_once() -> None:
    bench = Bench()
    bench.lead()
    bench.seen.clear()
    bench.receive(THIRD, Heartbeat(Term(2), 1, Index(0)))
    bench.receive(THIRD, Heartbeat(Term(2), 2, Index(0)))
    assert bench.asked(BecameFollower) == [BecameFollower(Term(2), THIRD)]


def test_a_campaign_of_a_leader_changes_nothing() -> None:
    bench = Bench(voters=1)
    bench.lead()
    assert bench.group.step(5, Campaign()) is NOTHING
    assert bench.group.is_leader


def test_calls_that_change_nothing_cost_nothing() -> None:
    """The shared empty tuple, on every path that a busy core takes."""
    bench = Bench(voters=1)
    bench.lead()
    assert bench.group.appended(bench.log.last_index) is NOTHING
    assert bench.group.step(1, Tick()) is NOTHING
    assert bench.group.deadline_ms == NEVER_MS


# -- Strangers, restarts, configuration ---------------------------------------------------------


def test_messages_of_oneself_and_answers_of_strangers_are_ignored() -> None:
    bench = Bench()
    bench.receive(ME, Vote(Term(9), 1, Index(9), Term(8)))
    bench.receive(ME, append_of(9, (0, 0), 9))
    assert bench.seen == []
    assert bench.group.term == 0
    bench.lead()
    before = len(bench.seen)
    term = bench.group.term
    bench.receive(STRANGER, Appended(term, Index(0), Index(0)))
    bench.receive(STRANGER, AppendRejected(term, 0, Index(1), Index(1), Term(0)))
    bench.receive(STRANGER, HeartbeatAnswer(term, 1))
    assert len(bench.seen) == before


def test_a_leader_that_the_own_configuration_does_not_know_is_followed() -> None:
    """It may be old: "servers process incoming RPC requests without consulting it" (4.1)."""
    bench = Bench()
    bench.receive(STRANGER, append_of(9, (0, 0), 9))
    assert bench.group.leader == STRANGER


def test_answers_to_somebody_who_no_longer_leads_are_ignored() -> None:
    bench = Bench(term=3)
    bench.receive(SECOND, Appended(Term(3), Index(4), Index(4)))
    bench.receive(SECOND, AppendRejected(Term(3), 0, Index(4), Index(2), Term(1)))
    bench.receive(SECOND, HeartbeatAnswer(Term(3), 1))
    bench.receive(SECOND, PreVoteAnswer(Term(3), 1, True))
    bench.receive(SECOND, VoteAnswer(Term(3), 1, True))
    assert bench.seen == []


def test_rounds_of_two_lives_differ() -> None:
    """An answer to a pre-vote from before a crash must not count after it."""
    config = RaftConfig(GroupId(1), ME, (ME, SECOND, THIRD))
    chance = random.Random(4)
    lives = [RaftGroup(config, HardState(), MemoryLog(), chance, 0) for _ in range(2)]
    requests = [life.step(0, Campaign()) for life in lives]
    rounds = [effects[0].message.round for effects in requests]  # type: ignore[union-attr]
    assert rounds[0] != rounds[1]
    answer = Received(SECOND, PreVoteAnswer(Term(0), rounds[0], True))
    assert lives[1].step(0, answer) is NOTHING


def test_a_restarted_follower_commits_by_heartbeat_alone() -> None:
    """The leader's row never exceeds what this replica acknowledged in the term."""
    bench = Bench(terms=[1, 1, 1], term=1, voted_for=SECOND)
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(2)))
    assert bench.asked(Committed) == [Committed(Index(2))]


def test_an_append_behind_the_commit_is_taken_from_the_commit_on() -> None:
    """What was trimmed or committed needs no comparison: it is the leader's."""
    bench = Bench(terms=[1, 1, 1], term=1, committed=3)
    bench.log.trim(Index(3))
    bench.receive(SECOND, append_of(1, (0, 0), 1, 1, 1, 1))
    assert [one.first_index for one in bench.asked(AppendEntries)] == [4]
    bench.receive(SECOND, append_of(1, (0, 0), 1))
    assert bench.sent(Appended)[-1].match_index == 3


def test_what_was_trimmed_was_committed() -> None:
    """A log that begins late says so itself, whatever lower bound the checkpoint had."""
    log = MemoryLog([Entry(Term(1), "a"), Entry(Term(1), "b"), Entry(Term(2), "c")])
    log.trim(Index(3))
    config = RaftConfig(GroupId(1), ME, (ME, SECOND, THIRD))
    group = RaftGroup(config, HardState(Term(2)), log, NoJitter(), 0)
    assert group.committed_index == 2
    effects = group.step(0, Received(SECOND, append_of(2, (1, 1), 1, 2)))
    assert effects[-1] == Send(SECOND, Appended(Term(2), Index(3), Index(3)))


def test_a_leader_knows_what_each_voter_has() -> None:
    bench = Bench()
    bench.lead()
    bench.sync_log()
    bench.append()
    bench.receive(THIRD, Appended(Term(1), Index(2), Index(2)))
    assert bench.group.match_indexes() == {ME: 1, SECOND: 0, THIRD: 2}


def test_a_failed_round_is_followed_later_and_later() -> None:
    """A voter that nobody else misses must not ask ever faster."""
    bench = Bench()
    bench.wait(bench.group.deadline_ms)
    delays = []
    for _ in range(5):
        number = bench.sent(PreVote)[-1].round
        bench.receive(SECOND, PreVoteAnswer(Term(0), number, False))
        bench.receive(THIRD, PreVoteAnswer(Term(0), number, False))
        delays.append(bench.group.deadline_ms - bench.now_ms)
        bench.wait(delays[-1])
    assert delays == [300, 600, 1000, 1000, 1000]
    assert len(bench.sent(PreVote)) == 2, "each of them was a round of its own"
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    bench.wait(bench.group.deadline_ms - bench.now_ms)
    assert bench.group.deadline_ms - bench.now_ms == 300


def test_after_a_death_the_living_stand_one_after_the_other() -> None:
    """Or the votes of hundreds of groups split: seen with 100 groups that lost their leader."""
    voters = (SECOND, ME, THIRD)
    waits = []
    for node in (ME, THIRD):
        group = make(RaftConfig(GroupId(1), node, voters))
        group.step(0, Received(SECOND, Heartbeat(Term(1), 1, Index(0))))
        group.step(0, LeaderGone(SECOND, Term(1)))
        waits.append(group.deadline_ms)
    assert waits == [0, 200]


@pytest.mark.parametrize("kind", [PreVote, Vote])
def test_a_round_whose_voters_are_slow_goes_on(kind: type[PreVote | Vote]) -> None:
    """Where every voter is late, rounds that end without an answer would never end at all."""
    bench = Bench()
    if kind is Vote:
        bench.stand()
    else:
        bench.wait(bench.group.deadline_ms)
    [number] = {one.round for one in bench.sent(kind)}
    began_ms = bench.now_ms
    term = bench.group.term
    while bench.now_ms + 600 < began_ms + 1_000:
        bench.wait(bench.group.deadline_ms - bench.now_ms)
        again = bench.sent(kind)
        assert {one.round for one in again} == {number}, "what is on its way still counts"
        assert len(again) == 2, "both are asked again: the first question may be lost"
    assert bench.group.term == term
    answer = VoteAnswer if kind is Vote else PreVoteAnswer
    bench.receive(THIRD, answer(term, number, True))
    assert bench.group.role is (Role.LEADER if kind is Vote else Role.CANDIDATE)


def test_a_round_without_an_end_is_followed_by_another() -> None:
    bench = Bench()
    bench.stand()
    [number] = {one.round for one in bench.sent(Vote)}
    began_ms = bench.now_ms
    while bench.group.role is Role.CANDIDATE:
        bench.wait(bench.group.deadline_ms - bench.now_ms)
    assert bench.now_ms - began_ms >= 1_000, "a whole election time-out was waited"
    assert {one.round for one in bench.sent(PreVote)} != {number}


def test_a_leader_that_asks_for_votes_is_not_held_to_lead() -> None:
    """It stepped down, as it was not heard in time; its last heartbeats would hold it up."""
    bench = Bench()
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    bench.sync_vote()
    bench.receive(THIRD, PreVote(Term(2), 1, Index(0), Term(0)))
    bench.receive(SECOND, PreVote(Term(2), 1, Index(0), Term(0)))
    assert [one.granted for one in bench.sent(PreVoteAnswer)] == [False, True]


def test_the_preferred_replica_stands_first() -> None:
    """Rank in the list of voters is 100 ms each."""
    voters = (THIRD, ME, SECOND)
    deadlines = [make(RaftConfig(GroupId(1), node, voters)).deadline_ms for node in voters]
    assert deadlines == [1000, 1100, 1200]


@pytest.mark.parametrize(
    ("voters", "self_id", "settings"),
    [
        ((ME, ME), ME, RaftSettings()),
        (tuple(MemberId(node) for node in range(1, 9)), ME, RaftSettings()),
        ((ME,), ME, RaftSettings(round_timeout_ms=2000)),
        ((ME,), ME, RaftSettings(election_jitter_ms=0)),
        ((ME,), ME, RaftSettings(inflight_bytes_max=1)),
        ((ME,), ME, RaftSettings(append_bytes_max=0)),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(
    voters: tuple[MemberId, ...], self_id: MemberId, settings: RaftSettings
) -> None:
    with pytest.raises(AssertionError):
        make(RaftConfig(GroupId(1), self_id, voters, settings))


def test_a_state_that_no_crash_can_leave_is_refused() -> None:
    with pytest.raises(AssertionError, match="before its term"):
        Bench(terms=[5], term=4)
    with pytest.raises(AssertionError):
        Bench(terms=[5], term=5, committed=2)
    with pytest.raises(AssertionError, match="monotonic"):
        Bench().group.step(-1, Tick())


def test_two_leaders_of_one_term_are_a_bug_and_not_a_guess() -> None:
    bench = Bench()
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    with pytest.raises(AssertionError, match="two leaders in one term"):
        bench.receive(THIRD, Heartbeat(Term(1), 1, Index(0)))


def test_a_leader_that_disagrees_about_a_committed_entry_is_a_bug_and_not_a_truncation() -> None:
    bench = Bench(terms=[1, 1, 1], term=2, committed=2)
    for conflicting in (append_of(2, (0, 0), 2, 2), append_of(2, (2, 2), 2), append_of(2, (2, 2))):
        with pytest.raises(AssertionError, match="is committed here"):
            bench.receive(SECOND, conflicting)
    bench.log.trim(Index(3))
    bench.receive(SECOND, append_of(2, (0, 0), 1, 1, 1))
    assert terms(bench.log) == [1]
