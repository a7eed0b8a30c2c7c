"""The turn: take what is ready, have the shard take it, perform what it asks for, in order."""

# performance-critical: see STYLE.md

import logging
import os
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import trio

from corelane.model import limits
from corelane.model.ids import ConnId, CoreId
from corelane.model.metrics import ShardCounts
from corelane.runtime.dialer import Dialer
from corelane.runtime.disk import NativeDisk
from corelane.runtime.garbage import Garbage
from corelane.runtime.throttle import Throttle
from corelane.runtime.work import WorkBench
from corelane.shard.effects import (
    Close,
    Dial,
    Effect,
    Emptied,
    Exit,
    HoldProduce,
    LogLine,
    OperatorAnswer,
    Pause,
    Resume,
    Send,
    Stopped,
    Work,
)
from corelane.shard.events import (
    Closed,
    Drained,
    Event,
    LinkDown,
    LinkFrame,
    LinkUp,
    Opened,
    Request,
)
from corelane.shard.peers.events import PeerAccepted, PeerClosed, PeerFrame
from corelane.storage.effects import DiskDone
from corelane.storage.news import StorageFailureError
from corelane_native import (
    ACCEPTED,
    CLOSED,
    DRAINED,
    FRAME,
    NET_REASONS,
    NET_REASONS_QUIET,
    WATCH,
    Arena,
    Net,
    view_at,
)

POLL_US_MAX: Final = limits.TURN_MS_MAX * 1000
"""How long the loop blocks in C for the next event before it looks at the clock again."""
BURST_NS_MAX: Final = 5_000_000
"""How long the loop stays out of trio: timers, control messages and work wait so long."""

STUCK_S: Final = 10.0
"""A client that has taken nothing of its answer for so long gives way where memory is short."""

CORE_DOOR: Final = 0
BOOTSTRAP_DOOR: Final = 1
"""How a connection came in; its listener token is 2 * (number of the listener) + this."""

_NS_PER_MS: Final = 1_000_000
FAR_NS: Final = 1 << 62
"""No time of the monotonic clock."""

_log = logging.getLogger(__name__)


class ShardLike(Protocol):
    """What the loop needs of a shard."""

    counts: ShardCounts

    @property
    def is_short_of_memory(self) -> bool:
        """Whether answers that nobody takes are in others' way."""

    def begin(self, now_ms: int, wall_ms: int, events: list[Event]) -> list[Effect]:
        """Take what happened."""

    def finish(self, done: DiskDone | None) -> list[Effect]:
        """Take what became of the write, where that is known at once."""

    def tend(self) -> list[Effect]:
        """Do the rest of the turn."""

    def next_deadline_ms(self) -> int | None:
        """Return when `step` must run even if nothing happens."""

    def stop(self) -> None:
        """Begin a clean stop."""


def _unheard(effect: OperatorAnswer | Emptied) -> None:
    raise AssertionError(f"nobody hears {effect}")


class CoreLoop:
    """Carries events to the shard and its effects to the world; decides nothing.

    Blocks in C while there is traffic or a write of the log is under way (a wake-up through trio
    costs more than a small request), and in trio otherwise, so that an idle core uses no CPU.
    """

    def __init__(
        self, shard: ShardLike, net: Net, arena: Arena, disk: NativeDisk, die: Callable[[str], None]
    ) -> None:
        self.shard = shard
        self.net = net
        self.disk = disk
        self.connections = 0
        self.lag_ns_max = 0
        self.is_over = False
        self._arena = arena
        self._die = die
        self._mail: list[Event] = []
        self._rest: trio.CancelScope | None = None
        self._garbage = Garbage(time.monotonic(), shard.counts)
        self._throttle = Throttle()
        self._peers: dict[ConnId, str] = {}
        self._links: dict[ConnId, CoreId] = {}
        self._others: set[ConnId] = set()  # connections with cores of other nodes
        self.dialer: Dialer | None = None
        self.told: Callable[[OperatorAnswer | Emptied], None] = _unheard
        self._listening: list[int] = []
        self._refused = 0
        self._is_called = True  # the first step has no events
        self.work: WorkBench | None = None
        self._performers: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            Close: self._close,
            Pause: lambda effect: net.pause(effect.conn),
            Resume: lambda effect: net.resume(effect.conn),
            HoldProduce: lambda effect: net.hold_produce(effect.held),
            Work: self._work,
            LogLine: lambda effect: _log.log(effect.level, "%s", effect.text),
            Exit: lambda effect: die(effect.reason),
            Stopped: self._stopped,
            OperatorAnswer: self._tell,
            Emptied: self._tell,
            Dial: self._dial,
            **disk.performers,
        }

    async def serve(self) -> None:
        """Turn until the shard has stopped."""
        try:
            while not self.is_over:
                is_quiet = self._burst()
                self._garbage.between_turns()
                if is_quiet:
                    await self._wait()
                else:
                    await trio.lowlevel.checkpoint()
        except StorageFailureError as failure:
            self._die(str(failure))

    def post(self, event: Event) -> None:
        """Put an event that did not come through the net into the next turn."""
        self._mail.append(event)
        self.wake()

    def wake(self) -> None:
        """Have a turn soon, also when nothing else happens."""
        if self._rest is not None:
            self._rest.cancel()

    def listen(self, descriptor: int, listener: int) -> None:
        """Accept on this core's own socket of a listener from now on, until `stop`."""
        self._listening.append(descriptor)
        self.net.listen(descriptor, 2 * listener + CORE_DOOR)

    def add_connection(self, descriptor: int, peer: str, listener: int) -> None:
        """Take over a connection accepted elsewhere; its descriptor is ours from now on."""
        token = 2 * listener + BOOTSTRAP_DOOR
        conn = ConnId(self.net.add(descriptor, token))
        if conn >= 0:  # There was no room otherwise; `look_after` tells of it.
            self._opened(conn, token, peer, self._mail)
            self.wake()

    def link(self, core: CoreId, boot: int, pipes: tuple[int, int], *, is_retired: bool) -> None:
        """Take over the pipes from and to a sibling's new life; the old ones have no use."""
        for conn, sibling in [*self._links.items()]:
            if sibling == core:
                self.net.close(conn)
                del self._links[conn]
                self._mail.append(LinkDown(conn))
        conn = ConnId(self.net.add_link(*pipes))
        self._links[conn] = core
        self._mail.append(LinkUp(conn, core, boot, is_retired))
        self.wake()

    def add_peer(self, descriptor: int) -> ConnId | None:
        """Take over a connection with a core of another node; None: there is no room."""
        conn = self.net.add_link(descriptor, os.dup(descriptor))
        if conn < 0:
            return None
        self._others.add(ConnId(conn))
        return ConnId(conn)

    def take_peer(self, descriptor: int, frame: bytes) -> None:
        """Take over a connection that another node's core made; *frame* was read of it."""
        conn = self.add_peer(descriptor)
        if conn is not None:
            self._mail += [PeerAccepted(conn), PeerFrame(conn, frame)]
            self.wake()

    def stop(self) -> None:
        """Begin a clean stop; `serve` ends when it is done."""
        while self._listening:
            self.net.unlisten(self._listening.pop())
        self.shard.stop()
        self._is_called = True
        self.wake()

    def look_after(self, older_than_s: float) -> None:
        """Close connections that moved no byte, or did not finish a request, for so long.

        To be called every few seconds; also tells of connections there was no room for.
        """
        refused, self._refused = self._refused, self.net.stats().refused
        if self._refused > refused:
            count = self._refused - refused
            self._complain(f"refused {count} connections", "there is no room for more")
        for conn in {*self.net.idle(older_than_s), *self.net.slow(older_than_s)}:
            self._close(Close(ConnId(conn), ""))
        if self.shard.is_short_of_memory:
            for conn in self.net.stuck(STUCK_S):
                self._close(Close(ConnId(conn), "its answer takes memory that others wait for"))
        self.wake()

    def _burst(self) -> bool:
        """Turn until nothing comes any more (True) or trio must have its share (False)."""
        poll = self.net.poll
        clock = time.monotonic_ns
        now_ns = clock()
        end_ns = now_ns + BURST_NS_MAX
        due_ns = self._due_ns()
        timeout_us = 0
        while now_ns < end_ns and not self.is_over:
            rows = poll(timeout_us)
            began_ns = now_ns = clock()
            if rows or self._mail or now_ns >= due_ns or self._is_called:
                self._is_called = False
                self._turn(rows, began_ns)
                now_ns = clock()
                self._count(now_ns - began_ns)
                due_ns = self._due_ns()  # only a step moves it
            elif timeout_us > 0 and not self.disk.is_writing:
                return True
            # What the turn posted itself (a write made at once) is due now.
            wait_ns = 0 if self._mail else due_ns - now_ns
            timeout_us = min(POLL_US_MAX, max(0, wait_ns // 1000))
        return False

    def _due_ns(self) -> int:
        """Return when the shard wants a step whether or not anything happens."""
        due_ms = self.shard.next_deadline_ms()
        return FAR_NS if due_ms is None else due_ms * _NS_PER_MS

    def _count(self, turn_ns: int) -> None:
        """Count one turn. The time in C, where frames are cut and received, is not in it."""
        self.lag_ns_max = max(self.lag_ns_max, turn_ns)
        counts = self.shard.counts
        turn_us = turn_ns // 1000
        counts.turns += 1
        counts.busy_us += turn_us
        counts.turn_us.observe(turn_us)
        if counts.answered:
            counts.count_answers(counts.now_us + turn_us)

    async def _wait(self) -> None:
        """Wait in trio for the net, the shard's next deadline, or a `wake`."""
        now_ns = time.monotonic_ns()
        self._garbage.at_rest(now_ns / 1e9)
        scope = trio.CancelScope()
        due_ns = self._due_ns()
        if due_ns != FAR_NS:
            scope.deadline = trio.current_time() + max(0, due_ns - now_ns) / 1e9
        self._rest = scope
        with scope:
            await trio.lowlevel.wait_readable(self.net.fd)
        self._rest = None

    def _turn(self, rows: list[tuple[Any, ...]], now_ns: int) -> None:
        """One turn of the shard, with everything that is ready."""
        events = self._mail
        self._mail = []
        links, others = self._links, self._others
        for row in rows:
            kind = row[0]
            if kind == FRAME and row[1] in others:
                events.append(PeerFrame(row[1], view_at(row[2], row[3])))
            elif kind == FRAME and row[1] not in links:
                events.append(tuple.__new__(Request, row[1:]))  # no call: one for each
            elif kind == FRAME:
                events.append(LinkFrame(row[1], row[2], row[3], row[4], row[5], row[6]))
            elif kind == WATCH:
                events += self.disk.reap(row[1])
            else:
                self._rare(row, events)
        counts = self.shard.counts
        counts.turn_events += len(events)
        counts.now_us = now_ns // 1000
        shard, performers, disk = self.shard, self._performers, self.disk
        event_count = len(events)
        wall_ms = time.time_ns() // _NS_PER_MS
        for effect in shard.begin(now_ns // _NS_PER_MS, wall_ms, events):
            performers[type(effect)](effect)
        # A write made at once is news for the same turn: its answers need no poll before them.
        done = disk.end_turn(event_count)
        for effect in shard.finish(done):
            performers[type(effect)](effect)
        rest = shard.tend()
        for effect in rest:
            performers[type(effect)](effect)
        if rest:
            done = disk.end_turn(event_count)
            if done is not None:
                self._mail.append(done)

    def _rare(self, row: tuple[Any, ...], events: list[Event]) -> None:
        kind = row[0]
        if kind == ACCEPTED:
            self._opened(ConnId(row[1]), row[2], row[3], events)
        elif kind == CLOSED and row[1] in self._others:
            self._others.discard(ConnId(row[1]))
            events.append(PeerClosed(ConnId(row[1])))
        elif kind == CLOSED and row[1] in self._links:
            self._link_closed(ConnId(row[1]), row[2], events)
        elif kind == CLOSED:
            self._closed(ConnId(row[1]), row[2], events)
        else:
            assert kind == DRAINED
            events.append(Drained(ConnId(row[1])))

    def _opened(self, conn: ConnId, listener: int, peer: str, events: list[Event]) -> None:
        self._peers[conn] = peer
        self.connections += 1
        accepted = self.shard.counts.connections_accepted
        accepted[listener // 2] = accepted.get(listener // 2, 0) + 1
        events.append(Opened(conn, listener, peer))

    def _closed(self, conn: ConnId, reason: int, events: list[Event]) -> None:
        """Note the end of a connection; say so when the client is to blame."""
        peer = self._peers.pop(conn, None)
        if peer is None:
            return  # Closed by us, and told already.
        self.connections -= 1
        text = NET_REASONS[reason]
        events.append(Closed(conn, text))
        if reason not in NET_REASONS_QUIET:
            self._complain(f"closed the connection of {peer}", text)

    def _link_closed(self, conn: ConnId, reason: int, events: list[Event]) -> None:
        """Note a sibling's end. A link that broke otherwise has no successor: this core ends too.

        With its next life everything is made anew.
        """
        core = self._links.pop(conn)
        if reason not in NET_REASONS_QUIET:
            self._die(f"the link to core {core} broke: {NET_REASONS[reason]}")
        events.append(LinkDown(conn))

    def _complain(self, what: str, why: str) -> None:
        suppressed = self._throttle.ask(why, time.monotonic())
        if suppressed is not None:
            more = f" ({suppressed} more like it since the last line)" if suppressed else ""
            _log.warning("%s: %s%s", what, why, more)

    def _send(self, effect: Send) -> None:
        self.net.send(effect.conn, effect.parts)
        for chunk in effect.chunks_held:
            self._arena.release(chunk)

    def _close(self, effect: Close) -> None:
        if effect.conn in self._others:
            self._others.discard(effect.conn)
            self.net.close(effect.conn)
            if effect.reason:
                self._complain("closed a connection with another node", effect.reason)
            self._mail.append(PeerClosed(effect.conn))
            return
        if self._links.pop(effect.conn, None) is not None:
            self.net.close(effect.conn)
            self._mail.append(LinkDown(effect.conn))
            return
        if self._peers.pop(effect.conn, None) is None:
            return  # Gone already: the client was quicker.
        self.connections -= 1
        self.net.close(effect.conn)
        if effect.reason:
            self._complain("closed a connection", effect.reason)
        self._mail.append(Closed(effect.conn, effect.reason))

    def _dial(self, effect: Dial) -> None:
        assert self.dialer is not None, "the dialer belongs to the loop's nursery"
        self.dialer.dial(effect)

    def _work(self, effect: Work) -> None:
        assert self.work is not None, "the work bench belongs to the loop's nursery"
        self.work.submit(effect)

    def _tell(self, effect: OperatorAnswer | Emptied) -> None:
        self.told(effect)

    def _stopped(self, effect: Stopped) -> None:
        assert type(effect) is Stopped
        self.is_over = True
