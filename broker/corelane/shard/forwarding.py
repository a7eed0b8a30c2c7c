"""Which requests a core handles itself, and which it has a sibling handle.

A request that needs the controller's log goes to core 0 as it is. One that came through a door of
the whole node (the bootstrap port, or any with advertise=node) may name partitions of several
cores: the API's `gather` splits it. On a core's own port nothing else is forwarded: what this core
does not lead is answered so, with the leader's address, as Kafka does.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from corelane.model.ids import CoreId
from corelane.shard.answer import Answer
from corelane.shard.call import ApiRow, Call
from corelane.shard.connection import Connection
from corelane.shard.events import Request
from corelane.shard.links import LENGTH_BYTES, Done, Forwarded, LocalVisitor, Visitor
from corelane_native import address_of

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

CONTROLLER_CORE: Final = CoreId(0)
CONTROLLER_WAIT_MS_MAX: Final = 10_000
"""How long a request waits for core 0 to come back, which takes less than a second."""

Part = Forwarded | LocalVisitor
"""A part of a request under way; `cancel` has it answered with what there is."""


def _nothing() -> None:
    """Nobody waits for this."""


class _Waiting:
    """A request for core 0 while that is away."""

    __slots__ = ("call", "forwarding", "is_done")

    def __init__(self, forwarding: "Forwarding", call: Call) -> None:
        self.forwarding = forwarding
        self.call = call
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Give up: the client finds another way, or asks again."""
        del now_ms
        self.is_done = True
        self.forwarding.close(self.call)


class Forwarding:
    """The requests of this core's clients that siblings handle."""

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self._links = shard.groups.siblings.links
        self._waiting: deque[_Waiting] = deque()
        config = shard.config
        self._is_alone = config.core_count == 1 and not config.retired
        self._is_node = config.config.network.advertise == "node"

    @property
    def is_congested(self) -> bool:
        """Whether no more produce requests should be read for now."""
        return not self._is_alone and self._links.is_congested

    def is_direct(self, connection: Connection) -> bool:
        """Whether what comes on *connection* about partitions is for this core alone."""
        if self._is_alone or isinstance(connection, Visitor | LocalVisitor):
            return True
        return not (self._is_node or connection.listener & 1)

    def takes(self, api: ApiRow, call: Call) -> bool:
        """Have *call* handled elsewhere, or by parts elsewhere; return False if it is ours."""
        if self._is_alone:
            return False
        connection = call.slot.connection
        if api.at_controller and self._shard.config.core != CONTROLLER_CORE:
            assert not isinstance(connection, Visitor), "it was sent to core 0"
            self.to_controller(call)
            return True
        if api.gather is None or self.is_direct(connection):
            return False
        api.gather(self._shard, call)
        return True

    def to_controller(self, call: Call) -> None:
        """Have core 0 handle a request, when it is there."""
        if self._links.to(CONTROLLER_CORE) is not None:
            self.whole(call, CONTROLLER_CORE)
            return
        waiting = _Waiting(self, call.keep())
        self._waiting.append(waiting)
        self._shard.deadlines.add(self._shard.now_ms + CONTROLLER_WAIT_MS_MAX, waiting)

    def whole(
        self,
        call: Call,
        core: CoreId,
        lost: Callable[[], None] | None = None,
        after: Callable[[], None] = _nothing,
    ) -> None:
        """Have a sibling handle a request, and pass its answer on as it is.

        *lost* is called, perhaps at once, when the sibling is away; None closes the client.
        *after* is called when the client was answered, if it is still there.
        """
        lost = lost or partial(self.close, call)
        link = self._links.to(core)
        if link is None:
            lost()
            after()
            return

        def answered(answer: Answer | None) -> None:
            if call.slot.connection.is_closed:
                if answer is not None:
                    answer.release(self._shard.arena)
                return
            if answer is None:
                lost()
            elif answer.parts:
                length = answer.size_bytes.to_bytes(LENGTH_BYTES, "big")
                call.answer_parts([length, *answer.parts], answer.chunks, forwarded.error)
            after()

        forwarded = link.forward(call.frame(), call.slot.connection, answered)
        call.slot.abandoned = forwarded.cancel

    def part(self, call: Call, frame: bytes, core: CoreId, done: Done) -> Part | None:
        """Have *frame*, a part of *call*'s request, handled by a core of this node.

        *done* gets the answer as from `Link.forward`, perhaps before this returns. None: the core
        is away, and *done* is not called.
        """
        client = call.slot.connection
        if core != self._shard.config.core:
            link = self._links.to(core)
            return None if link is None else link.forward(frame, client, done)
        visitor = LocalVisitor(self._shard, self._links.visitor_id(), client, done)
        self._shard.connections[visitor.conn] = visitor
        whole = call.request
        request = Request(
            visitor.conn,
            address_of(frame),
            len(frame),
            whole.api_key,
            whole.api_version,
            whole.correlation_id,
        )
        self._shard.serve(visitor, request)
        return visitor

    def close(self, call: Call) -> None:
        """Close a client of whose request nobody knows what became: that says just so."""
        connection = call.slot.connection
        if not connection.is_closed:
            connection.is_closed = True
            self._shard.close(connection, f"client {connection.peer}: a core was away")

    def link_up(self) -> None:
        """Send on what waited for core 0."""
        if self._links.to(CONTROLLER_CORE) is None:
            return
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.is_done:
                waiting.is_done = True
                if not waiting.call.slot.connection.is_closed:
                    self.whole(waiting.call, CONTROLLER_CORE)
