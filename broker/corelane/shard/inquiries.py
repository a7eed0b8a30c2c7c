"""Small questions from one core to another, of this node or of any, and their answers.

    ASK   kind | body       between siblings, and as a CALL between nodes behind a byte INQUIRY
    TOLD  what is answered  the same way back

Invariants:
I1. Every question is told once: its answer, or None when there will be none that can be trusted to
    have arrived in time. A late one, or one that comes twice, is dropped.
I2. What is asked may be done although None was told, and done twice where it is asked again: who
    answers must be able to take both.
I3. What is under way is bounded: in number by `OPEN_MAX`, each in bytes by `BODY_BYTES_MAX`, and in
    time by `WAIT_MS`.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from corelane.cluster.binary import BinaryError
from corelane.model import limits
from corelane.model.ids import CoreId
from corelane.shard.links import Kind, Link
from corelane.shard.peers.events import Called, Returned
from corelane.shard.peers.hello import PeerId

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

WAIT_MS: Final = 2_000
"""Twice the time in which a new leader is found: then it is better to ask that one."""
OPEN_MAX: Final = 65_536
INQUIRY: Final = 2
"""The first byte of a call that is one; other calls begin with how often they were passed on."""
CALL_BASE: Final = 1 << 32
"""Numbers of calls from here on are inquiries; between siblings the same numbers begin at 0."""
_NUMBER_MAX: Final = 2**31
BODY_BYTES_MAX: Final = limits.PEER_CALL_BYTES_MAX - limits.KIB
_WARNING: Final = 30

Told = Callable[[bytes | None], None]
Reply = Callable[[bytes], None]
Answerer = Callable[[bytes, Reply], None]
"""Answers one kind of question, now or later, or never (who asks hears None then)."""


class Question(IntEnum):
    """What cores ask each other."""

    VERIFY = 1
    """Is this partition part of that transaction? (transaction_desk.py)"""
    PUSH = 2
    """What became of that transaction?"""
    MARKERS = 3
    """Write these markers (marker_delivery.py)."""
    BARRIER = 4
    """Tell when the controller's fold has all that was decided until now (fold_barrier.py)."""


class _Open:
    """A question under way."""

    __slots__ = ("at", "inquiries", "is_done", "number", "told")

    def __init__(self, inquiries: "Inquiries", number: int, at: PeerId, told: Told) -> None:
        self.inquiries = inquiries
        self.number = number
        self.at = at
        self.told = told
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Wait no longer."""
        del now_ms
        self.inquiries.settle(self.number, None)


class Inquiries:
    """What one core asks, and how it answers; `answerers` are by kind."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self._open: dict[int, _Open] = {}
        self._next_number = 0
        self.answerers: dict[Question, Answerer] = {}

    def __len__(self) -> int:
        """Return how many questions are under way."""
        return len(self._open)

    def ask(self, at: PeerId, question: Question, body: bytes, told: Told) -> None:
        """Ask a core; *told* is called in this turn only if nobody can be asked (I1)."""
        assert len(body) <= BODY_BYTES_MAX, "I3"
        if len(self._open) >= OPEN_MAX:
            told(None)
            return
        number = self._next_number
        self._next_number = (number + 1) % _NUMBER_MAX
        assert number not in self._open, "a question is over before its number comes again"
        if self._send(at, number, bytes((question,)) + body):
            opened = self._open[number] = _Open(self, number, at, told)
            self._shard.deadlines.add(self._shard.now_ms + WAIT_MS, opened)
        else:
            told(None)

    def _send(self, at: PeerId, number: int, asked: bytes) -> bool:
        config = self._shard.config
        if at == (config.node, config.core):
            self._shard.todo.append(lambda: self._own(number, asked))
            return True
        if at[0] == config.node:
            link = self._groups.siblings.links.to(at[1])
            if link is None:
                return False
            link.send(Kind.ASK, number, asked)
            return True
        peering = self._groups.peering
        call = bytes((INQUIRY,)) + asked
        return peering is not None and peering.peers.call(at, CALL_BASE + number, call)

    def _own(self, number: int, asked: bytes) -> None:
        self._answer(asked, lambda answer: self.settle(number, answer))

    def settle(self, number: int, answer: bytes | None) -> None:
        """Tell who asked; what comes late, or again, is dropped."""
        opened = self._open.pop(number, None)
        if opened is None:
            return
        if not opened.is_done:
            opened.is_done = True
            self._shard.deadlines.note_done()
        opened.told(answer)

    # --- to and from siblings ---

    def asked(self, link: Link, number: int, body: bytes) -> None:
        """Answer a sibling."""
        self._answer(body, lambda answer: link.send(Kind.TOLD, number, answer))

    def told(self, core: CoreId, number: int, answer: bytes) -> None:
        """Take a sibling's answer."""
        opened = self._open.get(number)
        if opened is not None and opened.at == (self._shard.config.node, core):
            self.settle(number, answer)

    # --- to and from other nodes ---

    def called(self, call: Called) -> None:
        """Answer another node's core."""
        peering = self._groups.peering
        assert peering is not None, "who is called has peers"
        peers = peering.peers
        self._answer(call.body[1:], lambda answer: peers.give(call.peer, call.number, answer))

    def returned(self, news: Returned) -> None:
        """Take the answer of another node's core."""
        number = news.number - CALL_BASE
        opened = self._open.get(number)
        if opened is not None and opened.at == news.peer:
            self.settle(number, news.body)

    def lost(self, at: PeerId) -> None:
        """A core has ended, or cannot be reached: what it was asked is not answered any more."""
        for number in [each.number for each in self._open.values() if each.at == at]:
            self.settle(number, None)

    def _answer(self, asked: bytes, reply: Reply) -> None:
        kind = asked[0] if asked else 0
        answerer = self.answerers.get(Question(kind)) if kind in _KINDS else None
        if answerer is None:
            self._shard.log(_WARNING, f"a core asks a question of kind {kind}, not known here")
            return
        try:
            answerer(asked[1:], reply)
        except BinaryError as fault:
            self._shard.log(_WARNING, f"a core asks something that cannot be read: it {fault}")


_KINDS: Final = frozenset(Question)


def is_inquiry(call: Called) -> bool:
    """Whether a call between nodes is a question of these."""
    return call.body[:1] == bytes((INQUIRY,))


def is_answer(news: Returned) -> bool:
    """Whether an answer between nodes is to a question of these."""
    return news.number >= CALL_BASE
