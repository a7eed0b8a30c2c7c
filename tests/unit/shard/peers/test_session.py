"""One session's tables: who is refreshed by a heartbeat, who is counted by an answer.

Method: two sessions that are handed each other's frames; the calculations against tables.
"""

import pytest

from corelane.model import limits
from corelane.model.ids import CoreId, GroupId, Index, NodeId, Term
from corelane.shard.peers import beats, watch
from corelane.shard.peers.beats import Health, mark
from corelane.shard.peers.events import Heard, Outdated
from corelane.shard.peers.frames import FrameError
from corelane.shard.peers.roll import NEVER_MS, Roll, Terms
from corelane.shard.peers.session import Session
from corelane.shard.peers.watch import LATE_MS_MIN, Duty, Watch

GROUP, OTHER = GroupId(7), GroupId(8)
FIT = Health(0, None, None)


class Pair:
    """A leader's session with a follower, and the follower's with it."""

    def __init__(self) -> None:
        self.now_ms = 1_000
        self.leader = Session((NodeId(2), CoreId(0)), 11)
        self.follower = Session((NodeId(1), CoreId(0)), 12)
        self.leader.begin_life(12)
        self.follower.begin_life(11)
        self.leader.opened(self.now_ms)
        self.follower.opened(self.now_ms)
        self.terms = Terms()

    def round(self, health: Health = FIT) -> tuple[Heard | None, Outdated | None]:
        """Send one heartbeat and its answer; 10 ms each way."""
        self.now_ms += 100
        body = self.leader.beat(self.now_ms, health)
        assert body is not None
        answer, heard = self.follower.take_beat(
            self.now_ms + 10, memoryview(body), self.terms, 1_000
        )
        said = memoryview(beats.encode_answer(answer))
        return heard, self.leader.take_answer(self.now_ms + 20, said)

    def heard_ms(self, term: int, incarnation: int = 0, group: GroupId = GROUP) -> int:
        return self.follower.heard.seen_ms(group, mark(Term(term), incarnation))

    def answered_ms(self, term: int, incarnation: int = 0, group: GroupId = GROUP) -> int:
        return self.leader.answers.seen_ms(group, mark(Term(term), incarnation))


def test_a_heartbeat_refreshes_what_it_lists_and_its_answer_counts_from_when_it_was_sent() -> None:
    pair = Pair()
    pair.terms.put(GROUP, Term(3))
    pair.terms.put(OTHER, Term(3))
    pair.leader.led.put(GROUP, Term(3), Index(5))
    heard, _ = pair.round()
    assert heard is not None
    assert heard.rows == [(GROUP, 3, 5)]
    assert pair.heard_ms(3) == pair.now_ms + 10
    assert pair.answered_ms(3) == pair.now_ms
    assert pair.heard_ms(3, group=OTHER) == NEVER_MS
    assert pair.heard_ms(2) == pair.heard_ms(4) == NEVER_MS


def test_only_news_reaches_raft_and_time_moves_all_the_same() -> None:
    pair = Pair()
    pair.terms.put(GROUP, Term(3))
    pair.leader.led.put(GROUP, Term(3), Index(5))
    assert pair.round()[0] is not None
    assert pair.round()[0] is not None, "it asks until its raft follows"
    pair.terms.follows(GROUP)
    pair.round()
    for _ in range(3):
        assert pair.round() == (None, None)
        assert pair.heard_ms(3) == pair.now_ms + 10
        assert pair.answered_ms(3) == pair.now_ms
    pair.leader.led.put(GROUP, Term(3), Index(6))
    heard, _ = pair.round()
    assert heard is not None
    assert heard.rows == [(GROUP, 3, 6)]
    pair.terms.asks(GROUP)
    for _ in range(2):
        assert pair.round()[0] is not None


def test_a_group_that_left_keeps_the_time_of_the_last_frame_that_listed_it() -> None:
    pair = Pair()
    pair.terms.put(GROUP, Term(3))
    pair.leader.led.put(GROUP, Term(3), Index(5))
    pair.round()
    at_ms = pair.now_ms
    pair.leader.led.drop(GROUP)
    pair.round()
    pair.round()
    assert pair.heard_ms(3) == at_ms + 10
    assert pair.answered_ms(3) == at_ms
    pair.now_ms += 2 * limits.ELECTION_TIMEOUT_MS_MAX
    pair.round()
    assert pair.heard_ms(3) == NEVER_MS, "and not for ever"
    assert len(pair.follower.heard) == 0


def test_a_later_term_is_told_again_until_it_is_durable_and_not_answered_before() -> None:
    pair = Pair()
    pair.terms.put(GROUP, Term(3))
    pair.leader.led.put(GROUP, Term(4), Index(5))
    for _ in range(3):
        heard, outdated = pair.round()
        assert heard is not None
        assert outdated is None
        assert pair.heard_ms(4) == pair.answered_ms(4) == NEVER_MS
    pair.terms.put(GROUP, Term(4))
    pair.terms.follows(GROUP)
    pair.round()
    assert pair.answered_ms(4) == pair.now_ms


def test_a_leader_of_an_earlier_term_is_told_of_the_later_one() -> None:
    pair = Pair()
    pair.terms.put(GROUP, Term(9))
    pair.leader.led.put(GROUP, Term(4), Index(5))
    for _ in range(2):
        heard, outdated = pair.round()
        assert heard is None
        assert outdated is not None
        assert outdated.rows == [(GROUP, 9)]
    assert pair.answered_ms(4) == pair.answered_ms(9) == NEVER_MS


def test_a_member_that_came_back_is_another_one() -> None:
    pair = Pair()
    pair.terms.put(GROUP, Term(3), 2)
    pair.leader.led.put(GROUP, Term(3), Index(5))
    assert pair.round() == (None, None), "that was said to the member before"
    assert pair.answered_ms(3) == NEVER_MS
    pair.leader.led.put(GROUP, Term(3), Index(5), (5, 2))
    heard, _ = pair.round()
    assert heard is not None
    assert heard.incarnations == {GROUP: (5, 2)}
    assert pair.heard_ms(3, 5) == pair.now_ms + 10
    assert pair.heard_ms(3) == NEVER_MS
    assert pair.answered_ms(3, 2) == pair.now_ms
    assert pair.answered_ms(3) == NEVER_MS


UNFIT = [
    Health(0, limits.PEER_WAL_AGE_MS_MAX + 1, None),
    Health(0, None, limits.PEER_DATA_AGE_MS_MAX + 1),
]


@pytest.mark.parametrize("health", UNFIT)
def test_who_is_not_fit_to_lead_refreshes_nothing_and_is_not_followed(health: Health) -> None:
    pair = Pair()
    pair.terms.put(GROUP, Term(3))
    pair.leader.led.put(GROUP, Term(3), Index(5))
    pair.round()
    at_ms = pair.now_ms
    assert pair.round(health) == (None, None)
    assert pair.heard_ms(3) == at_ms + 10
    assert pair.answered_ms(3) == at_ms
    assert pair.follower.health == health
    assert not watch.may_take_over(health)
    pair.round()
    assert pair.heard_ms(3) == pair.now_ms + 10


def test_frames_of_another_life_and_answers_to_nothing_are_refused() -> None:
    pair = Pair()
    body = pair.leader.beat(pair.now_ms, FIT)
    assert body is not None
    answer, _ = pair.follower.take_beat(pair.now_ms, memoryview(body), pair.terms, None)
    said = memoryview(beats.encode_answer(answer))
    pair.leader.take_answer(pair.now_ms, said)
    with pytest.raises(FrameError, match="no heartbeat"):
        pair.leader.take_answer(pair.now_ms, said)
    pair.follower.boot = 99
    with pytest.raises(FrameError, match="another life"):
        pair.follower.take_beat(pair.now_ms, memoryview(body), pair.terms, None)


def test_a_group_listed_twice_is_refused_and_nothing_has_happened() -> None:
    pair = Pair()
    pair.terms.put(GROUP, Term(3))
    pair.leader.led.put(GROUP, Term(3), Index(5))
    rows, _ = pair.leader.led.packed()
    beat = beats.Beat(11, 1, FIT, rows * 2, b"")
    with pytest.raises(FrameError, match="listed twice"):
        pair.follower.take_beat(1, memoryview(beats.encode_beat(beat)), pair.terms, None)
    assert pair.heard_ms(3) == NEVER_MS


def test_rounds_under_way_are_bounded() -> None:
    pair = Pair()
    sent = 0
    for _ in range(100):
        pair.now_ms += 100
        sent += pair.leader.beat(pair.now_ms, FIT) is not None
    assert sent == limits.PEER_ROUNDS_MAX


def test_a_roll_forgets_what_no_core_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PEER_BEAT_ROWS_MAX", 100)
    roll = Roll()
    for turn in range(100):
        roll.take(turn, {GroupId(turn * 50 + each): 1 for each in range(50)})
    assert len(roll) <= 150


@pytest.mark.parametrize(
    ("lag_ms", "duty", "patience_ms"),
    [
        (0, Duty.LEAD, 1_000),
        (333, Duty.LEAD, 1_000),
        (334, Duty.HAND_OVER, 2_000),
        (1_000, Duty.HAND_OVER, 4_000),
        (60_000, Duty.HAND_OVER, 8_000),
    ],
)
def test_lag_doubles_patience_and_costs_leaderships_when_it_lasts(
    lag_ms: int, duty: Duty, patience_ms: int
) -> None:
    own = Watch(0, 1_000)
    own.turn(10)
    now_ms = 20 + lag_ms
    own.turn(now_ms)
    assert own.lag_ms == lag_ms
    assert own.duty(None) is Duty.LEAD, "one pause is over before anybody else could lead"
    assert own.election_timeout_ms() == patience_ms
    end_ms = now_ms + LATE_MS_MIN
    while now_ms < end_ms:
        now_ms += lag_ms + 10
        own.turn(now_ms)
    own.turn(now_ms + 10 + lag_ms)
    assert own.duty(None) is duty
    now_ms += 10 + lag_ms
    for _ in range(300):
        now_ms += 10
        own.turn(now_ms)
    assert own.lag_ms == 0, "it is forgotten after two seconds"
    assert own.duty(None) is Duty.LEAD
    assert own.late_ms == 0


def test_a_pause_is_seen_and_a_late_turn_is_none() -> None:
    own = Watch(0, 1_000)
    own.turn(limits.PEER_PAUSE_MS)
    assert own.resumed_ms == 0
    own.turn(2 * limits.PEER_PAUSE_MS + 1)
    assert own.resumed_ms == 2 * limits.PEER_PAUSE_MS + 1
    assert own.duty(limits.PEER_WAL_AGE_MS_MAX + 1) is Duty.GIVE_UP


def test_a_pause_moves_on_what_was_heard_before_it() -> None:
    own = Watch(0, 1_000)
    own.turn(100)
    own.turn(1_100)  # a pause of one second
    assert own.heard_ms(1_100) == 1_100
    assert own.heard_ms(40) == 1_040, "60 ms of silence before it count"
    own.turn(1_400)
    assert own.heard_ms(40) == 1_040, "and what comes after it"
    assert own.heard_ms(1_200) == 1_200
    own.turn(1_900)
    assert own.heard_ms(40) == 540, "of several pauses the last one: who is late has patience"
    assert own.heard_ms(1_600) == 1_900, "never what is to come"


def test_a_core_is_better_only_if_it_is_punctual_and_much_less_late() -> None:
    assert watch.may_take_over(Health(333, None, None))
    assert not watch.may_take_over(Health(334, None, None))
    assert watch.may_take_over(Health(600, None, None), 700)
    assert not watch.may_take_over(Health(100, limits.PEER_WAL_AGE_MS_MAX + 1, None), 700)


def test_a_hung_disk_is_held_against_nobody_while_the_own_one_hangs_too() -> None:
    hangs = Health(0, limits.PEER_WAL_AGE_MS_MAX + 1, None)
    assert not watch.may_be_led_by(hangs, None)
    assert not watch.may_be_led_by(hangs, limits.PEER_WAL_AGE_MS_MAX // 2)
    assert watch.may_be_led_by(hangs, limits.PEER_WAL_AGE_MS_MAX)
