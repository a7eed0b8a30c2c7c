"""Deliberate bugs in what cores say to other nodes, each of which the tests beside must catch.

A mutant replaces one method or function, as somebody might have written it wrong.
"""

from typing import Any

from corelane.model import limits
from corelane.model.ids import GroupId, Term
from corelane.model.record import record
from corelane.shard.peers import session as session_module
from corelane.shard.peers import watch
from corelane.shard.peers.beats import Answer, Health
from corelane.shard.peers.data_link import DataLink, Queue
from corelane.shard.peers.events import DialFailed, Heard, Outdated
from corelane.shard.peers.leads import Leads
from corelane.shard.peers.line import Line
from corelane.shard.peers.peer import Peer
from corelane.shard.peers.peers import Peers
from corelane.shard.peers.roll import Led, Roll, Terms
from corelane.shard.peers.session import Session
from corelane.shard.peers.watch import Watch


@record
class Mutant:
    """One bug: what is replaced, where, and by what."""

    name: str
    owner: Any
    attribute: str
    replacement: Any


_TAKE = Roll.take
_TURN = Watch.turn
_FAILED = Peers._dial_failed
_CLOSED = Peers._closed
_ANSWER = Session.take_answer
_BEAT = Session.beat
_JUDGE = Peers._judge
_PUT = Led.put
_OPENED = DataLink.opened
_TAKE_BEAT = Session.take_beat
_IS_DUE = Peer.is_due


def _keep_all(self: Roll, at_ms: int, marks: dict[GroupId, int]) -> None:
    """Refresh what the frame does not list."""
    _TAKE(self, at_ms, self.marks | marks)


def _number_unread(self: Line, number: int) -> None:
    """Take the same frame as often as it comes."""
    if number == self.next_in:
        self.next_in += 1


def _reset_is_death(self: Peers, conn: int) -> None:
    found = self._by_conn.get(conn)  # type: ignore[call-overload]
    _CLOSED(self, conn)  # type: ignore[arg-type]
    if found is not None and found[0].session.boot and found[0].session.gone is None:
        self._end_life(found[0], "Its connection broke.")


def _any_failure_is_death(self: Peers, event: DialFailed) -> None:
    _FAILED(self, DialFailed(event.dial, True, event.reason))


def _refused_while_up_is_death(self: Peers, event: DialFailed) -> None:
    found = self._by_dial.get(event.dial)
    _FAILED(self, event)
    if event.is_refused and found is not None and found[0].session.gone is None:
        self._end_life(found[0], "Nobody listens there.")


def _answered_now(self: Session, now_ms: int, body: memoryview) -> Outdated | None:
    """Count an answer from its arrival instead of from the sending of its round."""
    if self._rounds:
        self._rounds[0] = (self._rounds[0][0], now_ms)
    return _ANSWER(self, now_ms, body)


def _no_pause(self: Watch, now_ms: int) -> None:
    resumed_ms = self.resumed_ms
    _TURN(self, now_ms)
    self.resumed_ms = resumed_ms


def _always_fit(health: Health, own_wal_age_ms: int | None) -> bool:
    return True


def _any_term(term: Term, incarnation: int) -> int:
    return incarnation << 32 | 1


def _any_incarnation(term: Term, incarnation: int) -> int:
    return term


def _frames_are_life(
    self: Session, now_ms: int, body: memoryview, terms: Terms, election_timeout_ms: int
) -> tuple[Answer, Heard | None]:
    """Take being spoken to for being heard."""
    self.contact_ms = now_ms
    return _TAKE_BEAT(self, now_ms, body, terms, election_timeout_ms)


def _boundless(self: Session, now_ms: int, health: Health) -> bytes | None:
    rounds = len(self._rounds)
    limit = limits.PEER_ROUNDS_MAX
    try:
        limits.PEER_ROUNDS_MAX = rounds + 1  # type: ignore[misc]
        return _BEAT(self, now_ms, health)
    finally:
        limits.PEER_ROUNDS_MAX = limit  # type: ignore[misc]


def _no_probe(self: Peer, line: Line, now_ms: int) -> bool:
    return self.dials and _IS_DUE(self, line, now_ms)


def _life_unseen(self: Peers, peer: Peer, boot: int) -> None:
    """Go on with a new life as if it were the one before."""
    peer.session.gone = None
    peer.session.boot = boot


def _keep_references(self: DataLink, queue: Queue) -> None:
    self.dropped += 1
    queue.pop()


def _open_is_progress(self: DataLink) -> None:
    self._progress_ms = None
    _OPENED(self)


def _stale_packing(
    self: Led, group: GroupId, term: Term, committed: int, incarnations: tuple[int, int] = (0, 0)
) -> None:
    """Forget that the packed rows are old."""
    packed = self._packed
    _PUT(self, group, term, committed, incarnations)  # type: ignore[arg-type]
    if packed is not None and packed[0]:
        self._packed = packed


def _never_replaced(self: Peers, peer: Peer) -> None:
    """Keep a connection that has been silent for ever."""
    limit = limits.PEER_RECONNECT_MS
    try:
        limits.PEER_RECONNECT_MS = 1 << 60  # type: ignore[misc]
        _JUDGE(self, peer)
    finally:
        limits.PEER_RECONNECT_MS = limit  # type: ignore[misc]


def _last_word_wins(self: Leads, leads: Any, heard_from: Any = None) -> list[GroupId]:
    changed = []
    for lead in leads:
        self._by_group[lead.group] = lead
        changed.append(lead.group)
    return changed


def _everything_is_news(self: Terms, group: GroupId) -> None:
    """Never let a raft group rest."""


MUTANTS = [
    Mutant("a heartbeat refreshes a group that it does not list", Roll, "take", _keep_all),
    Mutant("a repeated frame is taken twice", Line, "take", _number_unread),
    Mutant("a connection that broke is a death", Peers, "_closed", _reset_is_death),
    Mutant("a dial that timed out is a death", Peers, "_dial_failed", _any_failure_is_death),
    Mutant("refused while it answers", Peers, "_dial_failed", _refused_while_up_is_death),
    Mutant("an answer counts from its arrival", Session, "take_answer", _answered_now),
    Mutant("a pause is held against the peers", Watch, "turn", _no_pause),
    Mutant("a hung disk keeps its leaderships", watch, "may_be_led_by", _always_fit),
    Mutant("a heartbeat of any term refreshes", session_module, "mark", _any_term),
    Mutant("a member of any incarnation counts", session_module, "mark", _any_incarnation),
    Mutant("who is only heard is up", Session, "take_beat", _frames_are_life),
    Mutant("heartbeats pile up unanswered", Session, "beat", _boundless),
    Mutant("the dialed side never looks for the dialing one", Peer, "is_due", _no_probe),
    Mutant("a new life goes on as the former one", Peers, "_greeted", _life_unseen),
    Mutant("a dropped append keeps its chunk", DataLink, "_drop", _keep_references),
    Mutant("a data link that opens is alive", DataLink, "opened", _open_is_progress),
    Mutant("rows are packed once", Led, "put", _stale_packing),
    Mutant("a dead connection is kept", Peers, "_judge", _never_replaced),
    Mutant("the last word about a leader wins", Leads, "take", _last_word_wins),
    Mutant("a group that follows is told everything", Terms, "follows", _everything_is_news),
]
