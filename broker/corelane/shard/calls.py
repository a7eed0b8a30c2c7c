"""Commands of this node that another node decides: to the controller's leader, and back.

Any node checks what its clients and it itself ask for against its own fold, and makes the command.
The node that leads the controller's group appends it; if the fold has moved on meanwhile the
command is refused there, as it would be here. The proposer hears of it when its own fold has it.

    CALL    u8 hops | command
    RETURN  u8 outcome | u64 index | u16 error | sentence

Invariants:
A1. Every proposal is answered once: applied, refused, or None (its outcome is not known).
A2. A call is passed on at most once: two nodes that take each other for the leader give up.
"""

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from corelane.cluster.changes import Change, Refused
from corelane.cluster.commands import Command, CommandError, decode, encode
from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.ids import CoreId
from corelane.model.record import record
from corelane.shard.controller import Applied
from corelane.shard.peers.events import Called, Returned
from corelane.shard.peers.hello import PeerId

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.peering import Peering
    from corelane.shard.shard import Shard

WAIT_MS_MAX: Final = 5_000
WAITING_MAX: Final = 1_024
_HOPS_MAX: Final = 1
_ANSWER: Final = struct.Struct("<BQH")
_LOST, _APPLIED, _REFUSED = 0, 1, 2


@record
class _Waiting:
    """A proposal under way."""

    peer: PeerId
    applied: Applied
    deadline_ms: int
    index: int
    """Of its entry, once it is known; 0 before."""


class Calls:
    """What core 0 of this node has asked of others."""

    def __init__(self, shard: "Shard", groups: "Groups", peering: "Peering") -> None:
        self._shard = shard
        self._groups = groups
        self._peering = peering
        self._waiting: dict[int, _Waiting] = {}
        self._next_number = 0
        self._turn = 0

    def propose(self, command: Command, applied: Applied) -> None:
        """Have a command decided where the controller's leader is; *applied* hears of it (A1)."""
        self._ask(encode(command), applied, hops=0)

    def _ask(self, payload: bytes, applied: Applied, hops: int) -> None:
        peer = self._whom()
        is_small = len(payload) < limits.PEER_CALL_BYTES_MAX
        if peer is None or not is_small or len(self._waiting) >= WAITING_MAX:
            applied(None)
            return
        self._next_number += 1
        number = self._next_number
        if not self._peering.peers.call(peer, number, bytes([hops]) + payload):
            applied(None)
            return
        deadline_ms = self._shard.now_ms + WAIT_MS_MAX
        self._waiting[number] = _Waiting(peer, applied, deadline_ms, 0)

    def _whom(self) -> PeerId | None:
        """Return core 0 of the node that leads, or of any one that may know who does."""
        leader = self._groups.controller_node()
        if leader is not None and leader != self._shard.config.node:
            return (leader, CoreId(0))
        others = [peer for peer in self._peering.peers.reachable() if peer[1] == 0]
        self._turn += 1
        return others[self._turn % len(others)] if others else None

    def called(self, call: Called) -> None:
        """Decide what another node proposes, or pass it on (A2)."""
        answer = _Answer(self, call)
        try:
            hops, command = call.body[0], decode(call.body[1:])
        except (IndexError, CommandError) as fault:
            answer.give(_REFUSED, ErrorCode.INVALID_REQUEST, f"A command cannot be read: {fault}.")
            return
        if self._shard.config.core != 0:
            answer.lost()
        elif self._groups.controller.serves:
            self._groups.controller.propose(command, answer.applied)
        elif hops < _HOPS_MAX:
            self._ask(call.body[1:], answer.applied, hops + 1)
        else:
            answer.lost()

    def returned(self, news: Returned) -> None:
        """Take the answer to a call; it may come after its time."""
        waiting = self._waiting.get(news.number)
        if waiting is None or waiting.peer != news.peer:
            return
        del self._waiting[news.number]
        outcome, index, error = _ANSWER.unpack_from(news.body)
        sentence = news.body[_ANSWER.size :].decode(errors="replace")
        if outcome == _REFUSED:
            waiting.applied([Refused(ErrorCode(error), sentence)])
        elif outcome == _APPLIED:
            self._waiting[news.number] = replace(waiting, index=index)
            self.turn()
        else:
            waiting.applied(None)

    def turn(self) -> None:
        """Tell those whose entry the fold has reached by now, and those whose time is up."""
        if not self._waiting:
            return
        now_ms, applied_index = self._shard.now_ms, self._groups.cluster.applied_index
        for number, waiting in [*self._waiting.items()]:
            if 0 < waiting.index <= applied_index:
                del self._waiting[number]
                waiting.applied([])
            elif now_ms >= waiting.deadline_ms:
                del self._waiting[number]
                waiting.applied(None)

    def lost(self, peer: PeerId) -> None:
        """A core is silent or dead: what it was asked for has an unknown outcome."""
        for number, waiting in [*self._waiting.items()]:
            if waiting.peer == peer and not waiting.index:
                del self._waiting[number]
                waiting.applied(None)

    def give(self, call: Called, body: bytes) -> None:
        """Answer a call."""
        self._peering.peers.give(call.peer, call.number, body)

    @property
    def applied_index(self) -> int:
        """Return how far the fold here is."""
        return self._groups.cluster.applied_index


class _Answer:
    """What a proposer elsewhere is told."""

    __slots__ = ("_call", "_calls")

    def __init__(self, calls: Calls, call: Called) -> None:
        self._calls = calls
        self._call = call

    def applied(self, changes: Sequence[Change] | None) -> None:
        """Answer as the controller, or the node that was asked next, did."""
        if changes is None:
            self.lost()
            return
        refused = next((each for each in changes if isinstance(each, Refused)), None)
        if refused is None:
            self.give(_APPLIED, ErrorCode.NONE, "")
        else:
            self.give(_REFUSED, refused.error, refused.sentence)

    def lost(self) -> None:
        """Answer that nobody knows, or that nobody here decides."""
        self.give(_LOST, ErrorCode.NONE, "")

    def give(self, outcome: int, error: int, sentence: str) -> None:
        """Send the answer."""
        index = self._calls.applied_index if outcome == _APPLIED else 0
        self._calls.give(self._call, _ANSWER.pack(outcome, index, error) + sentence.encode())
