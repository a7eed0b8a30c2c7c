"""A replica that has lost what it had promised (raft/loss.py, L1 to L5), rule by rule.

Method: one replica on a bench, made with a loss; the whole of it in bad weather is
`tests/simulation/raft_losses.py`.
"""

import pytest

from corelane.model.ids import NO_MEMBER, GroupId, Index, MemberId, Term
from corelane.raft.config import HardState, RaftConfig
from corelane.raft.core import RaftGroup
from corelane.raft.effects import AppendEntries, Effect, MadeGood, PersistVote, Send
from corelane.raft.events import Campaign, Event, Received, Tick, VotePersisted
from corelane.raft.loss import Loss
from corelane.raft.messages import (
    Append,
    Appended,
    AppendRejected,
    Heartbeat,
    Message,
    PreVote,
    PreVoteAnswer,
    TimeoutNow,
    Vote,
    VoteAnswer,
)
from tests.simulation.raft_replica import Entry, MemoryLog
from tests.unit.raft.script import NoJitter

ME, SECOND, THIRD = MemberId(1), MemberId(2), MemberId(3)
ENTRIES_LOST = Loss(Index(9), Term(3), are_votes_lost=False)
VOTES_LOST = Loss(Index(0), Term(0), are_votes_lost=True)


class Damaged:
    """A replica with two entries of term 1 left, and a loss."""

    def __init__(self, loss: Loss, term: int) -> None:
        self.log = MemoryLog([Entry(Term(1), "a"), Entry(Term(1), "b")])
        config = RaftConfig(GroupId(7), ME, (ME, SECOND, THIRD))
        hard = HardState(Term(term), NO_MEMBER, Index(2), loss)
        self.group = RaftGroup(config, hard, self.log, NoJitter(), 0)
        self.now_ms = 0

    def step(self, event: Event) -> list[Effect]:
        """Take an event; votes are durable at once, entries appended."""
        effects = list(self.group.step(self.now_ms, event))
        for effect in list(effects):
            if isinstance(effect, PersistVote):
                effects += self.step(VotePersisted(effect.term, effect.voted_for))
            if isinstance(effect, AppendEntries):
                for index in range(effect.first_index, effect.message.last_index + 1):
                    self.log.append(Entry(effect.message.runs[-1][1], f"{index}"))
                done = self.group.persisted(self.log.last_index, self.group.truncations)
                effects += list(done)
        return effects

    def hear(self, sender: MemberId, message: Message) -> list[Effect]:
        return self.step(Received(sender, message))

    def wait(self) -> list[Effect]:
        self.now_ms += 3_000
        return self.step(Tick())


def sent(effects: list[Effect]) -> list[tuple[MemberId, Message]]:
    return [(effect.to, effect.message) for effect in effects if isinstance(effect, Send)]


def entries(term: int, prev: int, last: int, committed: int, of_term: int = 0) -> Append:
    runs = ((Index(prev + 1), Term(of_term or term)),) if last > prev else ()
    return Append(Term(term), 0, Index(prev), Term(1), Index(last), runs, Index(committed))


def granted(effects: list[Effect]) -> list[bool]:
    answers = [message for _to, message in sent(effects)]
    return [each.granted for each in answers if isinstance(each, VoteAnswer | PreVoteAnswer)]


@pytest.mark.parametrize("loss", [ENTRIES_LOST, VOTES_LOST])
def test_l1_it_does_not_stand_whoever_asks_it_to(loss: Loss) -> None:
    replica = Damaged(loss, term=3)
    said = [*replica.step(Campaign()), *replica.wait(), *replica.wait()]
    replica.hear(SECOND, Heartbeat(Term(3), 1, Index(0)))
    said += replica.hear(SECOND, TimeoutNow(Term(3)))
    assert not any(isinstance(message, Vote) for _to, message in sent(said))
    assert not replica.group.is_leader


def test_l2_it_votes_for_logs_that_are_as_good_as_its_own_was() -> None:
    for last_term, last_index, is_good in ((2, 99, False), (3, 8, False), (3, 9, True)):
        replica = Damaged(ENTRIES_LOST, term=3)
        replica.now_ms = 9_000
        last = (Index(last_index), Term(last_term))
        assert granted(replica.hear(SECOND, PreVote(Term(4), 5, *last))) == [is_good]
        assert granted(replica.hear(SECOND, Vote(Term(4), 5, *last))) == [is_good]


def test_l2_it_is_made_good_when_its_log_is_as_good_again_and_durable() -> None:
    replica = Damaged(ENTRIES_LOST, term=3)
    said = replica.hear(SECOND, entries(3, 2, 8, committed=8))
    assert MadeGood() not in said
    more = Append(Term(3), 0, Index(8), Term(3), Index(9), ((Index(9), Term(3)),), Index(8))
    assert MadeGood() in replica.hear(SECOND, more)
    assert replica.group.recollection is None


def test_l3_it_says_and_takes_nothing_before_all_have_told_their_terms() -> None:
    replica = Damaged(VOTES_LOST, term=3)
    asked = sent(replica.step(Campaign()))
    assert {to for to, _message in asked} == {SECOND, THIRD}
    (number,) = {message.round for _to, message in asked if isinstance(message, PreVote)}
    assert sent(replica.hear(SECOND, entries(5, 2, 3, committed=2))) == []
    assert sent(replica.hear(SECOND, Vote(Term(9), 1, Index(99), Term(8)))) == []
    assert sent(replica.hear(SECOND, PreVote(Term(9), 1, Index(99), Term(8)))) == []
    assert sent(replica.hear(SECOND, PreVoteAnswer(Term(6), number, False))) == []
    assert replica.group.is_asking
    replica.hear(THIRD, PreVoteAnswer(Term(9), number + 1, False))
    assert replica.group.is_asking, "an answer to another life's question"
    assert [to for to, _message in sent(replica.wait())] == [THIRD], "who has not told is asked"
    replica.hear(THIRD, PreVoteAnswer(Term(4), number, False))
    assert not replica.group.is_asking
    assert (replica.group.term, replica.group.voted_for) == (7, NO_MEMBER)


def test_l3_members_beyond_the_own_configuration_are_asked_too() -> None:
    fourth = MemberId(4)
    replica = Damaged(Loss(Index(0), Term(0), True, (SECOND, fourth)), term=3)
    assert {to for to, _message in sent(replica.step(Campaign()))} == {SECOND, THIRD, fourth}


def told(term: int) -> Damaged:
    """Return a replica with lost votes whose peers are in *term*."""
    replica = Damaged(VOTES_LOST, term=3)
    asked = sent(replica.step(Campaign()))
    for to, message in asked:
        assert isinstance(message, PreVote)
        replica.hear(to, PreVoteAnswer(Term(term), message.round, False))
    assert replica.group.term == term + 1
    return replica


def test_l3_it_votes_for_nobody_however_good() -> None:
    replica = told(6)
    replica.now_ms = 9_000
    assert granted(replica.hear(SECOND, PreVote(Term(9), 5, Index(99), Term(8)))) == [False]
    assert granted(replica.hear(SECOND, Vote(Term(9), 5, Index(99), Term(8)))) == [False]


def test_l4_it_is_made_good_by_an_entry_of_a_leader_elected_without_it() -> None:
    replica = told(6)
    said = replica.hear(SECOND, entries(8, 2, 5, committed=5, of_term=6))
    assert any(isinstance(message, Appended) for _to, message in sent(said))
    assert MadeGood() not in said, "what is committed is of an earlier term"
    own = Append(Term(8), 0, Index(5), Term(6), Index(6), ((Index(6), Term(8)),), Index(5))
    assert MadeGood() not in replica.hear(SECOND, own), "not committed yet"
    beat = Heartbeat(Term(8), 4, Index(6))
    assert MadeGood() in replica.hear(SECOND, beat)
    replica.now_ms = 9_000
    assert granted(replica.hear(THIRD, Vote(Term(9), 5, Index(9), Term(8)))) == [True]


def test_l5_the_leader_hears_of_it_and_begins_anew_with_it() -> None:
    replica = Damaged(ENTRIES_LOST, term=3)
    expected = AppendRejected(Term(3), 0, Index(3), Index(3), Term(0), has_lost=True)
    said = sent(replica.hear(SECOND, Heartbeat(Term(3), 1, Index(9))))
    assert (SECOND, expected) in said
    assert (SECOND, expected) in sent(replica.wait()), "until it has"
    refused = sent(replica.hear(SECOND, Append(
        Term(3), 4, Index(9), Term(3), Index(9), (), Index(9)
    )))  # fmt: skip
    assert refused == [
        (SECOND, AppendRejected(Term(3), 4, Index(9), Index(3), Term(0), has_lost=True))
    ]


def leader_that_counts_on_nine() -> RaftGroup:
    log = MemoryLog([Entry(Term(3), f"{index}") for index in range(9)])
    config = RaftConfig(GroupId(7), ME, (ME, SECOND, THIRD))
    group = RaftGroup(config, HardState(Term(3)), log, NoJitter(), 0)
    group.step(0, Campaign())
    for answer in (PreVoteAnswer, VoteAnswer):
        (number,) = {group._round.number} if group._round else {0}
        group.step(0, Received(SECOND, answer(group.term, number, True)))
        if answer is PreVoteAnswer:
            group.step(0, VotePersisted(Term(4), ME))
    assert group.is_leader
    log.append(Entry(Term(4), "lead"))
    group.appended(Index(10))
    group.step(0, Received(SECOND, Appended(Term(4), Index(10), Index(10))))
    assert group.match_indexes()[SECOND] == 10
    return group


def test_l5_a_leader_forgets_what_a_follower_has_lost_and_sends_it_again() -> None:
    group = leader_that_counts_on_nine()
    lost = AppendRejected(Term(4), 0, Index(6), Index(6), Term(0), has_lost=True)
    effects = list(group.step(0, Received(SECOND, lost)))
    assert group.match_indexes()[SECOND] == 0
    (append,) = [message for to, message in sent(effects) if to == SECOND]
    assert isinstance(append, Append)
    assert append.prev_index == 5


def test_l5_an_ordinary_rejection_that_is_late_changes_nothing() -> None:
    group = leader_that_counts_on_nine()
    late = AppendRejected(Term(4), 0, Index(6), Index(6), Term(0))
    assert sent(list(group.step(0, Received(SECOND, late)))) == []
    assert group.match_indexes()[SECOND] == 10
