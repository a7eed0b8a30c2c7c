"""The progress of a follower under any order of sending, answers, losses and restarts.

Method: a model follower (what it holds, what is durable there) and a bag of answers that arrive
in any order or never; the invariants of `progress.py` are looked at after every step.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from corelane.model.ids import Index
from corelane.raft.config import RaftSettings
from corelane.raft.progress import Progress, ProgressState

SETTINGS = RaftSettings(append_bytes_max=10, inflight_messages_max=3, inflight_bytes_max=25)
ENTRY_BYTES = 4
APPENDED = -1


class OneFollower(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.last = 3
        self.held = 2
        self.durable = 1
        self.progress = Progress(Index(4), 0)
        self.appends: list[tuple[int, int, int]] = []
        self.answers: list[tuple[int, int, int]] = []
        self.matched = 0

    @rule(count=st.integers(min_value=1, max_value=5))
    def append(self, count: int) -> None:
        self.last += count

    @precondition(lambda self: self.progress.next_index <= self.last)
    @rule(count=st.integers(min_value=1, max_value=3))
    def send(self, count: int) -> None:
        if not self.progress.has_room(SETTINGS):
            return
        prev = self.progress.next_index - 1
        last = min(self.last, prev + count)
        self.progress.sent(Index(last), (last - prev) * ENTRY_BYTES)
        self.appends.append((self.progress.round, prev, last))

    @precondition(lambda self: self.appends)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        round_number, prev, last = self.appends.pop(
            data.draw(st.integers(0, len(self.appends) - 1))
        )
        if prev > self.held:
            self.answers.append((round_number, prev, self.held + 1))
        else:
            self.held = max(self.held, last)

    @rule()
    def sync(self) -> None:
        self.durable = self.held
        self.answers.append((APPENDED, self.durable, self.held))

    @rule()
    def crash(self) -> None:
        self.held = self.durable

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), again=st.booleans())
    def answer(self, data: st.DataObject, again: bool) -> None:
        at = data.draw(st.integers(0, len(self.answers) - 1))
        round_number, first, second = self.answers[at]
        if not again:
            del self.answers[at]
        if round_number == APPENDED:
            self.progress.acknowledged(Index(first), Index(second))
            self.matched = max(self.matched, first)
        elif not self.progress.is_stale(round_number, Index(first)):
            self.progress.back_up(Index(second))
            assert self.progress.is_stale(round_number, Index(first)), "once per round"

    @rule()
    def heartbeat_answered(self) -> None:
        self.progress.resume(now_ms=1)
        assert self.progress.state is ProgressState.REPLICATE or self.progress.has_room(SETTINGS)

    @invariant()
    def p1_match_is_below_next_and_true(self) -> None:
        assert self.progress.match_index == self.matched
        assert self.progress.match_index <= self.durable
        assert self.progress.match_index < self.progress.next_index <= self.last + 1

    @invariant()
    def p2_and_p3_what_is_in_flight_ascends_and_adds_up(self) -> None:
        inflight = list(self.progress._inflight)
        ends = [self.progress.match_index, *(last for last, _ in inflight)]
        assert ends == sorted(set(ends))
        assert self.progress.inflight_bytes == sum(size for _, size in inflight)

    @invariant()
    def p4_a_probe_is_alone(self) -> None:
        if self.progress.state is ProgressState.PROBE:
            assert self.progress.inflight_count == 0

    @invariant()
    def the_window_holds(self) -> None:
        assert self.progress.inflight_count <= SETTINGS.inflight_messages_max
        most = SETTINGS.inflight_bytes_max + 3 * ENTRY_BYTES - 1
        assert self.progress.inflight_bytes <= most


TestOneFollower = OneFollower.TestCase
