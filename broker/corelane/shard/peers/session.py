"""One peer core's life as this core sees it: its heartbeats, its answers, the verdict on it.

Invariants (DESIGN section 7):
V1. *Gone* is said of a life only when its process is known to be dead: nobody listens where it
    was dialed and it answers nobody, a later life greeted, or its own node says so. Silence and a
    connection that broke are never enough.
V2. *Up* means that it answers: a peer that is only heard, or only hears, is silent.
V3. A heartbeat refreshes only the groups that it lists at the durable term of the member here,
    and none while its sender is not fit to lead (W2). An answer counts for a group only if it
    lists that group, from the time at which its round was sent.
"""

# performance-critical: see STYLE.md

from collections import deque
from typing import Final

from corelane.model import limits
from corelane.model.ids import GroupId, Index, Term
from corelane.raft import codec
from corelane.raft.codec import AnswerRow, HeartbeatRow
from corelane.shard.peers import beats, watch
from corelane.shard.peers.beats import Answer, Beat, Health, Incarnations, mark
from corelane.shard.peers.events import Connecting, Gone, Heard, Outdated, Silent, Up, Verdict
from corelane.shard.peers.frames import check
from corelane.shard.peers.hello import PeerId
from corelane.shard.peers.roll import NEVER_MS, Led, Roll, Terms

ROUND_LIMIT: Final = 1 << 32
_NO_EXTRA_MS: Final = 1 << 62
_FIT: Final = Health(0, None, None)


class Session:
    """What is known of one peer core; nothing here dials or sends."""

    __slots__ = (
        "_answer",
        "_followed",
        "_followed_generation",
        "_former_answer",
        "_former_beat",
        "_former_rows",
        "_round",
        "_rounds",
        "answers",
        "beaten",
        "boot",
        "contact_ms",
        "ended_boot",
        "extra_at_ms",
        "gone",
        "health",
        "heard",
        "is_open",
        "led",
        "own_boot",
        "peer",
        "unfit_ms",
    )

    def __init__(self, peer: PeerId, own_boot: int) -> None:
        self.peer = peer
        self.own_boot = own_boot
        self.boot = 0
        """Of the life that greeted last; 0: none ever did."""
        self.ended_boot = 0
        """Lives up to this one are over: their own node said so."""
        self.gone: str | None = None
        self.is_open = False
        self.contact_ms = NEVER_MS
        self.beaten = -1
        """In which round of this core it was sent a heartbeat last; -1: in none."""
        self.health = _FIT
        self.unfit_ms = NEVER_MS
        """When it last said that it is late, or that its disk hangs."""
        self.led = Led()
        self.heard = Roll()
        """What its heartbeats listed: groups that it leads and that are followed here."""
        self.answers = Roll()
        """What its answers listed: groups that this core leads and that it follows."""
        self._round = 0
        self.extra_at_ms = _NO_EXTRA_MS
        """When it is to be sent one heartbeat more than its round brings (`hurry`)."""
        self._rounds: deque[tuple[int, int]] = deque()
        self._forget_frames()

    def __len__(self) -> int:
        """How many rows are kept, of anything; for the tests of bounds."""
        return len(self.led) + len(self.heard) + len(self.answers) + len(self._rounds)

    # --- its life ---

    def opened(self, now_ms: int) -> None:
        """Its session connection is greeted."""
        self.is_open = True
        self.contact_ms = now_ms
        self.beaten = -1
        self.extra_at_ms = _NO_EXTRA_MS
        self._rounds.clear()
        self._forget_frames()

    def closed(self) -> None:
        """Its session connection is gone, which says nothing about its process."""
        self.is_open = False
        self._rounds.clear()

    def begin_life(self, boot: int) -> None:
        """A life has greeted; the one before, if another, was ended first."""
        assert boot > self.ended_boot
        assert self.boot in (0, boot) or self.gone is not None
        assert boot >= self.boot, "lives of a core have rising boot epochs"
        if boot != self.boot:
            self.contact_ms = NEVER_MS
        self.boot = boot
        self.gone = None

    def end_life(self, reason: str) -> list[tuple[GroupId, Term, int]]:
        """Its process is dead (V1); return what it led last, and in which incarnation."""
        led = [
            (group, Term(each & limits.INT32_MAX), each >> 32)
            for group, each in self.heard.marks.items()
        ]
        self.gone = reason
        self.closed()
        self.health = _FIT
        self.heard.clear()
        self.answers.clear()
        self._forget_frames()
        return led

    def _forget_frames(self) -> None:
        self._former_beat: tuple[bytes, bytes] | None = None
        self._former_answer: tuple[bytes, bytes] | None = None
        self._former_rows: dict[GroupId, Index] = {}
        self._followed: bytes | None = None
        self._followed_generation = -1
        self._answer = (b"", b"", b"")

    def verdict(self, now_ms: int, resumed_ms: int) -> Verdict:
        """Judge it; silence counts from *resumed_ms* at the earliest (W4)."""
        if self.gone is not None:
            return Gone(self.gone)
        if self.contact_ms == NEVER_MS:
            return Connecting()
        since_ms = max(self.contact_ms, resumed_ms)
        if now_ms - since_ms >= limits.PEER_SILENT_MS:
            return Silent(since_ms)
        return Up() if self.is_open else Connecting()

    # --- heartbeats of this core ---

    def beat(self, now_ms: int, health: Health) -> bytes | None:
        """Return the body of a heartbeat, unless the last ones were all in vain."""
        if now_ms >= self.extra_at_ms:
            self.extra_at_ms = _NO_EXTRA_MS
        if len(self._rounds) >= limits.PEER_ROUNDS_MAX:
            return None
        self._round = (self._round + 1) % ROUND_LIMIT
        self._rounds.append((self._round, now_ms))
        return beats.encode_beat(Beat(self.own_boot, self._round, health, *self.led.packed()))

    def hurry(self, now_ms: int) -> int:
        """Have a heartbeat sent soon, in a later millisecond; return when it is due.

        Not more often than every `PEER_BEAT_SOON_MS`: each lists all groups.
        """
        former_ms = self._rounds[-1][1] if self._rounds else now_ms - limits.PEER_BEAT_SOON_MS
        soon_ms = max(now_ms + 1, former_ms + limits.PEER_BEAT_SOON_MS)
        self.extra_at_ms = min(self.extra_at_ms, soon_ms)
        return self.extra_at_ms

    def take_answer(self, now_ms: int, body: memoryview) -> Outdated | None:
        """Take in what it answers; return what raft must be told. FrameError changes nothing."""
        answer = beats.decode_answer(body)
        check(answer.boot == self.boot, "An answer of another life.")
        check(bool(self._rounds), "An answer to no heartbeat.")
        number, sent_ms = self._rounds[0]
        check(answer.round == number, f"Round {answer.round} is answered instead of {number}.")
        said = (answer.followed, answer.incarnations)
        marks = None if said == self._former_answer else _answer_marks(answer)
        higher = beats.answer_rows(answer.higher)
        incarnations = beats.decode_incarnations(answer.incarnations)
        self._rounds.popleft()
        self.contact_ms = now_ms
        if marks is None:
            self.answers.again(sent_ms)
        else:
            self.answers.take(sent_ms, marks)
            self._former_answer = said
        return Outdated(self.peer, number, higher, incarnations) if higher else None

    # --- heartbeats of the peer ---

    def take_beat(
        self, now_ms: int, body: memoryview, terms: Terms, own_wal_age_ms: int | None
    ) -> tuple[Answer, Heard | None]:
        """Take in a heartbeat; return the answer, and what raft must be told.

        FrameError changes nothing.
        """
        beat = beats.decode_beat(body)
        check(beat.boot == self.boot, "A heartbeat of another life.")
        if not watch.is_well(beat.health):
            self.unfit_ms = now_ms
        if not watch.may_be_led_by(beat.health, own_wal_age_ms):
            self.health = beat.health
            return Answer(self.own_boot, beat.round, b"", b"", b""), None
        said = (beat.rows, beat.incarnations)
        fresh: list[HeartbeatRow] = []
        incarnations: Incarnations = {}
        if said == self._former_beat and terms.generation == self._followed_generation:
            self.heard.again(now_ms)
        else:
            rows = beats.beat_rows(beat.rows)
            incarnations = beats.decode_incarnations(beat.incarnations)
            check(len({row[0] for row in rows}) == len(rows), "A group is listed twice.")
            fresh = self._take_rows(now_ms, rows, incarnations, terms)
            # What raft has not followed yet is told to it again with the next frame.
            is_settled = all(
                terms.by_group[row[0]] == row[1] and row[0] not in terms.asking for row in fresh
            )
            self._former_beat = said if is_settled else None
            self._followed_generation = terms.generation
        self.health = beat.health
        heard = Heard(self.peer, beat.round, fresh, incarnations) if fresh else None
        return Answer(self.own_boot, beat.round, *self._answer), heard

    def _take_rows(
        self, now_ms: int, rows: list[HeartbeatRow], incarnations: Incarnations, terms: Terms
    ) -> list[HeartbeatRow]:
        """Sort the rows of a frame; return those that raft must be stepped with."""
        answered: Incarnations = {}
        if incarnations or terms.incarnations:
            rows, answered = _addressed(rows, incarnations, terms)
        term_of, asking = terms.by_group.get, terms.asking
        former, former_marks = self._former_rows, self.heard.marks
        marks: dict[GroupId, int] = {}
        higher: list[AnswerRow] = []
        fresh: list[HeartbeatRow] = []
        for row in rows:
            group, term, committed = row
            own_term = term_of(group)
            if own_term == term:
                marks[group] = term
                if former.get(group) != committed or group in asking:
                    fresh.append(row)
            elif own_term is not None:
                if own_term < term:
                    fresh.append(row)
                else:
                    higher.append((group, own_term))
        for group, (_, sender) in answered.items():
            if group in marks:
                marks[group] = mark(Term(marks[group]), sender)
        changed = marks.items() - former_marks.items()
        if changed:
            # Another term or member than before is news, whatever it has committed.
            told = {row[0] for row in fresh}
            groups = {group for group, _ in changed} - told
            fresh += [row for row in rows if row[0] in groups]
        followed = self._followed
        if followed is None or changed or len(marks) != len(former_marks):
            followed = codec.pack_heartbeat_answers(
                [(group, terms.by_group[group]) for group in marks]
            )
            self._followed = followed
        self.heard.take(now_ms, marks)
        self._former_rows = {row[0]: row[2] for row in rows}
        listed = marks.keys() | {group for group, _ in higher}
        self._answer = (
            followed,
            codec.pack_heartbeat_answers(higher),
            beats.encode_incarnations(
                {each: answered[each] for each in answered if each in listed}
            ),
        )
        return fresh


def _addressed(
    rows: list[HeartbeatRow], incarnations: Incarnations, terms: Terms
) -> tuple[list[HeartbeatRow], Incarnations]:
    """Return the rows that speak to members that are here, and what their answers must say."""
    addressed: list[HeartbeatRow] = []
    answered: Incarnations = {}
    for row in rows:
        group = row[0]
        sender, recipient = incarnations.get(group, (0, 0))
        if recipient == terms.incarnations.get(group, 0):
            addressed.append(row)
            if sender or recipient:
                answered[group] = (recipient, sender)
    return addressed, answered


def _answer_marks(answer: Answer) -> dict[GroupId, int]:
    """Return the followed rows of an answer as marks of the member that follows."""
    rows = beats.answer_rows(answer.followed)
    if answer.incarnations:
        incarnations = beats.decode_incarnations(answer.incarnations)
        marks = {group: mark(term, incarnations.get(group, (0, 0))[0]) for group, term in rows}
    else:
        marks = dict(rows)  # a term is its own mark
    check(len(marks) == len(rows), "A group is answered for twice.")
    return marks
