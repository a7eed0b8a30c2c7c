"""Members that change and leaders that hand over, claim by claim, with the paper's words."""

import pytest

from corelane.model.ids import Index, MemberId, Term
from corelane.raft import membership
from corelane.raft.effects import (
    AppendConfiguration,
    BecameFollower,
    ChangeRefused,
    Committed,
    Send,
    TransferEnded,
)
from corelane.raft.events import ChangeMembers, LeaderGone, TransferLeadership
from corelane.raft.membership import Configuration, ConfigurationError, Membership
from corelane.raft.messages import (
    Append,
    Appended,
    Heartbeat,
    HeartbeatAnswer,
    PreVote,
    PreVoteAnswer,
    TimeoutNow,
    Vote,
    VoteAnswer,
)
from tests.simulation.raft_replica import Entry
from tests.unit.raft.bench import FIFTH, FOURTH, ME, SECOND, THIRD, Bench, append_of

VOTERS = (ME, SECOND, THIRD)


def leading(voters: int = 3) -> Bench:
    """Return a leader whose own-term entry is committed, with nothing left to look at."""
    bench = Bench(voters=voters)
    bench.lead()
    bench.sync_log()
    for node in (SECOND, THIRD)[: voters - 1]:
        bench.receive(node, Appended(bench.group.term, Index(1), Index(1)))
    assert bench.group.is_established
    bench.seen.clear()
    return bench


def change(bench: Bench, voters: tuple[MemberId, ...], learners: tuple[MemberId, ...] = ()) -> None:
    """Ask for members, and append the entry if the group wants one."""
    bench.do(bench.group.step(bench.now_ms, ChangeMembers(voters, learners)))
    append_wanted(bench)


def append_wanted(bench: Bench) -> None:
    for effect in [one for one in bench.seen if isinstance(one, AppendConfiguration)]:
        bench.seen.remove(effect)
        entry = Entry(bench.group.term, "members", 1, effect.configuration)
        index = bench.log.append(entry)
        bench.do(bench.group.configuration_appended(index, effect.configuration))


def acknowledge(bench: Bench, *nodes: MemberId) -> None:
    end = bench.log.last_index
    for node in nodes:
        bench.receive(node, Appended(bench.group.term, end, end))
    append_wanted(bench)


# --- Configurations (section 6) ---


def test_a_new_member_is_a_learner_first_and_has_no_vote() -> None:
    """Thesis 4.2.1: a new server "catches up" before it is "counted towards majorities"."""
    bench = leading()
    change(bench, VOTERS, (FOURTH,))
    assert bench.group.configuration == Configuration(VOTERS, (), (FOURTH,))
    assert bench.sent(Append, FOURTH), "it gets the log"
    bench.sync_log()
    acknowledge(bench, FOURTH)
    assert bench.group.committed_index == 1, "its copy does not count"
    acknowledge(bench, SECOND)
    assert bench.group.committed_index == 2


def test_voters_change_through_a_joint_configuration_with_two_majorities() -> None:
    """Agreement "requires separate majorities from both the old and new configurations"."""
    bench = leading()
    change(bench, VOTERS, (FOURTH, FIFTH))
    bench.sync_log()
    acknowledge(bench, SECOND)
    change(bench, (ME, FOURTH, FIFTH))
    assert bench.group.configuration == Configuration((ME, FOURTH, FIFTH), VOTERS, ())
    bench.sync_log()
    acknowledge(bench, SECOND, THIRD)
    assert bench.group.committed_index == 2, "the old majority alone"
    acknowledge(bench, FOURTH)
    assert bench.group.configuration == Configuration((ME, FOURTH, FIFTH)), "and left it at once"
    assert bench.log.last_index == 4
    bench.sync_log()
    acknowledge(bench, FOURTH)
    assert bench.group.committed_index == 4
    assert set(bench.group.match_indexes()) == {ME, FOURTH, FIFTH}


def test_a_leader_that_is_no_member_any_more_steps_down_when_that_is_committed() -> None:
    """It "steps down (returns to follower state) once it has committed the Cnew log entry"."""
    bench = leading()
    change(bench, (SECOND, THIRD))
    bench.sync_log()
    acknowledge(bench, SECOND, THIRD)
    assert bench.group.is_leader, "it manages a cluster that does not include itself"
    bench.sync_log()
    acknowledge(bench, SECOND)
    assert bench.group.is_leader, "not its own copy, and one of two is no majority"
    bench.seen.clear()
    acknowledge(bench, THIRD)
    assert not bench.group.is_leader
    assert any(isinstance(effect, Committed) for effect in bench.seen)
    assert any(isinstance(effect, BecameFollower) for effect in bench.seen)
    bench.seen.clear()
    bench.wait(100_000)
    assert bench.sent(PreVote) == [], "and never stands again"


@pytest.mark.parametrize(
    ("voters", "learners", "why"),
    [
        ((), (), "needs a voter"),
        ((ME, FOURTH), (), "must be a learner first"),
        ((ME, ME), (), "named twice"),
        ((ME, SECOND), (SECOND,), "named twice"),
        (tuple(map(MemberId, range(1, 9))), (), "at most 7"),
    ],
)
def test_members_that_cannot_be_are_refused(
    voters: tuple[MemberId, ...], learners: tuple[MemberId, ...], why: str
) -> None:
    bench = leading()
    change(bench, voters, learners)
    (refused,) = bench.asked(ChangeRefused)
    assert why in refused.reason
    assert bench.group.configuration == Configuration(VOTERS)


def test_one_change_at_a_time_and_none_before_an_entry_of_the_own_term() -> None:
    bench = Bench()
    change(bench, VOTERS, (FOURTH,))
    bench.lead()
    change(bench, VOTERS, (FOURTH,))
    assert len(bench.asked(ChangeRefused)) == 2
    bench = leading()
    change(bench, VOTERS, (FOURTH,))
    change(bench, VOTERS, (FIFTH,))
    (refused,) = bench.asked(ChangeRefused)
    assert "under way" in refused.reason


def test_a_configuration_is_in_force_when_appended_and_gone_when_truncated() -> None:
    """A server "always uses the latest configuration in its log"."""
    bench = Bench(terms=[1], term=1)
    other = Configuration((SECOND, THIRD, FOURTH), VOTERS, ())
    append = append_of(2, (1, 1), 2)
    append.configurations = ((Index(2), other),)  # type: ignore[misc]
    bench.receive(SECOND, append)
    assert bench.group.configuration == other
    bench.receive(THIRD, append_of(3, (1, 1), 3))
    assert bench.group.configuration == Configuration(VOTERS)


def test_a_leader_in_a_joint_configuration_that_it_found_ends_it() -> None:
    joint = Configuration((ME, SECOND), VOTERS, ())
    bench = Bench(terms=[1], term=1)
    bench.log.append(Entry(Term(1), "members", 1, joint))
    append = append_of(1, (1, 1), 1)
    append.configurations = ((Index(2), joint),)  # type: ignore[misc]
    bench.log.truncate(Index(2))
    bench.receive(SECOND, append)
    bench.sync_log()
    bench.seen.clear()
    bench.lead()
    bench.sync_log()
    acknowledge(bench, SECOND, THIRD)
    assert bench.group.configuration == Configuration((ME, SECOND))


def test_a_configuration_as_bytes() -> None:
    joint = Configuration((ME, SECOND), VOTERS, (FOURTH,))
    data = membership.encode(joint)
    assert data.hex() == "01020301" + "".join(f"{n:02x}" + 14 * "0" for n in (1, 2, 1, 2, 3, 4))
    assert membership.decode(data) == joint
    for broken in (
        b"",
        data[:-1],
        data + b"\0",
        b"\x02" + data[1:],
        b"\x01\x00\x03\x01" + data[4:],
    ):
        with pytest.raises(ConfigurationError):
            membership.decode(broken)


def test_configurations_that_are_committed_are_not_kept() -> None:
    found = Membership(Configuration(VOTERS), [])
    for number in range(1, 100):
        found.appended(Index(number), Configuration(VOTERS, (), (MemberId(number + 10),)))
        found.committed(Index(number - 1))
    assert len(found._entries) <= 2


# --- Hand-overs (thesis 3.10) ---


def test_a_leader_hands_over_when_the_other_has_everything_and_leads_no_more() -> None:
    bench = leading()
    bench.append(2)
    bench.do(bench.group.step(bench.now_ms, TransferLeadership(SECOND)))
    assert bench.group.is_transferring
    assert bench.sent(TimeoutNow) == []
    bench.sync_log()
    acknowledge(bench, SECOND)
    assert bench.sent(TimeoutNow, SECOND) == [TimeoutNow(bench.group.term)]
    assert not bench.group.is_leader, "before anything else may be appended"


def test_a_hand_over_that_takes_too_long_is_given_up() -> None:
    bench = leading()
    bench.append()
    bench.do(bench.group.step(bench.now_ms, TransferLeadership(SECOND)))
    for _ in range(12):
        bench.receive(THIRD, HeartbeatAnswer(bench.group.term, 1))
        bench.wait(100)
    (ended,) = bench.asked(TransferEnded)
    assert ended.to == SECOND
    assert bench.group.is_leader
    assert not bench.group.is_transferring


@pytest.mark.parametrize("to", [ME, FIFTH, FOURTH])
def test_a_hand_over_to_no_other_voter_is_refused(to: MemberId) -> None:
    bench = leading()
    change(bench, VOTERS, (FOURTH,))
    bench.do(bench.group.step(bench.now_ms, TransferLeadership(to)))
    assert [ended.to for ended in bench.asked(TransferEnded)] == [to]


def test_who_is_told_to_stand_asks_for_votes_at_once_and_gets_them() -> None:
    """The flag says that the leader wanted it: that it is heard is no reason to refuse."""
    bench = Bench()
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    bench.sync_vote()
    bench.receive(SECOND, TimeoutNow(Term(1)))
    assert bench.sent(PreVote) == []
    bench.sync_vote()
    requests = bench.sent(Vote)
    assert [(request.term, request.is_transfer) for request in requests] == [(2, True)] * 2
    voter = Bench()
    voter.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    voter.sync_vote()
    voter.receive(THIRD, Vote(Term(2), 5, Index(0), Term(0)))
    assert [answer.granted for answer in voter.sent(VoteAnswer)] == [False]
    voter.receive(THIRD, Vote(Term(2), 5, Index(0), Term(0), is_transfer=True))
    voter.sync_vote()
    assert [answer.granted for answer in voter.sent(VoteAnswer)] == [True]


def test_an_old_word_to_stand_is_ignored() -> None:
    bench = Bench()
    bench.receive(SECOND, Heartbeat(Term(2), 1, Index(0)))
    bench.sync_vote()
    bench.seen.clear()
    bench.receive(SECOND, TimeoutNow(Term(1)))
    bench.receive(THIRD, TimeoutNow(Term(2)))
    assert bench.seen == []


# --- Deaths, and who should not lead (DESIGN section 7) ---


def test_after_a_death_the_preferred_stands_at_once_and_others_believe_it() -> None:
    bench = Bench()
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    bench.sync_vote()
    bench.seen.clear()
    bench.do(bench.group.step(bench.now_ms, LeaderGone(THIRD, Term(1))))
    bench.do(bench.group.step(bench.now_ms, LeaderGone(SECOND, Term(0))))
    bench.receive(THIRD, PreVote(Term(2), 7, Index(0), Term(0)))
    assert [answer.granted for answer in bench.sent(PreVoteAnswer)] == [False], "it is heard"
    bench.do(bench.group.step(bench.now_ms, LeaderGone(SECOND, Term(1))))
    bench.receive(THIRD, PreVote(Term(2), 7, Index(0), Term(0)))
    assert [answer.granted for answer in bench.sent(PreVoteAnswer)] == [True]
    assert bench.group.deadline_ms - bench.now_ms <= 50
    bench.wait(50)
    assert bench.sent(PreVote)


def test_who_should_not_lead_lets_others_go_first_but_not_for_ever() -> None:
    bench = Bench()
    bench.group.may_lead = False
    bench.receive(SECOND, Heartbeat(Term(1), 1, Index(0)))
    bench.sync_vote()
    bench.seen.clear()
    bench.wait(2_900)
    assert bench.sent(PreVote) == []
    bench.wait(200)
    assert bench.sent(PreVote)


def test_the_answer_of_somebody_who_left_is_ignored() -> None:
    bench = leading()
    change(bench, (ME, SECOND))
    bench.sync_log()
    acknowledge(bench, SECOND)
    bench.sync_log()
    acknowledge(bench, SECOND)
    assert bench.group.configuration == Configuration((ME, SECOND))
    bench.seen.clear()
    bench.receive(THIRD, Appended(bench.group.term, Index(1), Index(1)))
    assert not [effect for effect in bench.seen if isinstance(effect, Send)]


def test_who_alone_has_the_entry_that_leaves_it_out_still_stands() -> None:
    """Thesis 4.2.2; seed 11275 of the simulation: nobody else could win without its vote."""
    joint = Configuration((SECOND, THIRD), (ME, THIRD), ())
    last = Configuration((SECOND, THIRD))
    bench = Bench(voters=1)
    bench.group.membership = Membership(
        Configuration((ME, THIRD)), [(Index(1), joint), (Index(2), last)]
    )
    bench.wait(100_000)
    assert bench.sent(PreVote, SECOND)
    bench.group.membership.committed(Index(2))
    bench.seen.clear()
    bench.wait(100_000)
    assert bench.sent(PreVote) == []
