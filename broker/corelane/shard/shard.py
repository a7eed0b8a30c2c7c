"""One core's whole world: events in, effects out, nothing else.

No clock, socket, file, thread or randomness of its own: the same code runs under trio in
production, in the simulator on virtual time, and inside somebody's test suite (DESIGN §4).
"""

# performance-critical: see STYLE.md

import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from corelane.model import limits
from corelane.model.ids import ConnId, JobId
from corelane.model.metrics import ShardCounts
from corelane.raft.state import NEVER_MS
from corelane.shard.call import ApiRow, Call
from corelane.shard.checkpoint_timer import CheckpointTimer
from corelane.shard.config import ShardConfig
from corelane.shard.connection import Connection, Slot
from corelane.shard.deadlines import Deadlines
from corelane.shard.effects import Close, Effect, HoldProduce, LogLine, Stopped, Work
from corelane.shard.events import (
    Closed,
    DiskSpace,
    Drained,
    Event,
    LinkDown,
    LinkFrame,
    LinkUp,
    Opened,
    OperatorRequest,
    Request,
    SiblingEnded,
    WorkDone,
)
from corelane.shard.fetch_sessions import FetchSessions
from corelane.shard.forwarding import Forwarding
from corelane.shard.groups import Groups
from corelane.shard.links import Link, LocalVisitor, Visitor
from corelane.shard.operations import operate
from corelane.shard.partition import Partition
from corelane.shard.peers.events import (
    Dialed,
    DialFailed,
    PeerAccepted,
    PeerClosed,
    PeerEvent,
    PeerFrame,
)
from corelane.shard.pushing import Pushing
from corelane.shard.retention import Retention
from corelane.shard.scrub import Scrub
from corelane.storage.effects import DiskDone
from corelane.storage.news import NOTHING
from corelane.storage.recovery import Recovered
from corelane.storage.segments import Segment
from corelane.wire.errors import DecodeError
from corelane_native import Arena

CHORES_PER_TURN_MAX: Final = 64
SLICES_PER_TURN_MAX: Final = 4
FLUSH_ROUNDS_MAX: Final = 2
UNTENDED_BYTES_MAX: Final = 256 * limits.KIB
"""So much may be put into the log until room is made for more."""
TEND_MS: Final = limits.TICK_MS // 2
"""How often a core is tended to which nothing happens but plain produce."""
INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40


class Shard:
    """All that one core owns.

    Invariant S1: `step` runs to completion; nothing in it waits.
    Invariant S2: an answer that promises durability is filled only from a `DiskDone` event.
    Invariant S3: effects are returned in the order in which they must be performed.
    Invariant T1: a write made at once is one that `begin` gave, and its answer comes to `finish`.
    Invariant T2: a turn that is not tended is followed by one that is, within a tick at most.
    """

    def __init__(
        self,
        config: ShardConfig,
        recovered: Recovered,
        arena: Arena,
        apis: Mapping[int, ApiRow],
    ) -> None:
        self.config = config
        self.static_config = config.config  # as it was at the start, without what changed since
        self.store = recovered.store
        self.arena = arena
        self.apis = apis
        self.now_ms = 0
        self.wall_ms = 0
        self.disk_bytes = (-1, -1)  # total and usable, as the runtime last told; -1: not known
        self.counts = ShardCounts()
        self.deadlines = Deadlines()
        self.effects: list[Effect] = []
        self.connections: dict[ConnId, Connection] = {}
        self._opened_count = 0
        self.dirty: list[Connection] = []
        self.woken: list[Callable[[], None]] = []
        self.todo: deque[Callable[[], None]] = deque()
        self.slices: deque[Callable[[], None]] = deque()  # the rest of very wide requests
        self.works: dict[JobId, Callable[[WorkDone], None]] = {}
        self.worked_bytes = 0  # of batches that wait to be decompressed or compressed
        self.parked_bytes = 0  # of batches that wait for a transaction's coordinator
        self._works_waiting: deque[Work] = deque()
        self.is_stopping = False
        self.is_stopped = False
        self._produce_held = False
        self.is_stirred = False
        """More happened in this turn than plain produce: what tends the core has to see it."""
        self._is_tended = True
        self._tended_ms = -limits.TICK_MS
        self._tend_at_bytes = 0
        self._due_ms = 0  # as it was asked for after the last turn that was tended
        self._next_work = 0
        self._deferred: deque[tuple[Call, int]] = deque()  # with the time they came
        self._retries_deferred = False
        self.fetch_sessions = FetchSessions(
            config.random, lambda: self.config.config.fetch.sessions_max
        )
        self.run_max = 1  # requests that a run of them may have: it grows as that goes well
        self._is_started = False
        self._is_recovered = False
        self.groups = Groups(self, recovered)
        self.forwarding = Forwarding(self)
        self.retention = Retention(self)
        self.pushing = Pushing(self)
        self.checkpoint_timer = CheckpointTimer(self)
        self.scrub = Scrub(self)

    # --- the border of the deterministic world ---

    def step(self, now_ms: int, wall_ms: int, events: list[Event]) -> list[Effect]:
        """Take what happened, in order, and return what must be done, in order.

        *now_ms* is monotonic, *wall_ms* is the time of day for LogAppendTime and bounds. It is a
        whole turn; who makes the log's write at once has it in parts: `begin`, with the write's
        answer `finish`, and `tend`. The effects of each must be performed before the next.
        """
        effects = self.begin(now_ms, wall_ms, events)
        effects += self.finish(None)
        effects += self.tend()
        return effects

    def begin(self, now_ms: int, wall_ms: int, events: list[Event]) -> list[Effect]:
        """Take what happened: the turn's write to the log and answers come of it."""
        assert now_ms >= self.now_ms, "monotonic time went back"
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        effects: list[Effect] = []
        self.effects = effects
        self.counts.answered.clear()
        self._is_tended = False
        if not events:
            self.is_stirred = True
        if not self._is_started:
            self._is_started = True
            self.groups.start()
        if self._deferred:
            self._retry_deferred()
        at, count = 0, len(events)
        while at < count:
            event = events[at]
            if isinstance(event, Request):  # the most frequent first
                at += self._requests(events, at)
                continue
            at += 1
            if isinstance(event, DiskDone):
                self._disk_done(event)
                continue
            self.is_stirred = True
            if isinstance(event, LinkFrame):
                self.groups.siblings.link_frame(event)
            else:
                self._rare(event)
        if self.todo or self.slices:
            self._run_todo()
        if self.deadlines.expire(now_ms):
            self.is_stirred = True
        if self.woken or self.dirty:
            self._answer()
        peering = self.groups.peering
        write = self.store.take_write() if peering is None or peering.is_alone else None
        if write is not None:
            effects.append(write)
        elif self.is_stirred or (peering is not None and not peering.is_alone):
            self._tend()  # others are told while it is written here
        return effects

    def finish(self, done: DiskDone | None) -> list[Effect]:
        """Take the answer to the write that `begin` gave, if it was made at once: T1."""
        effects: list[Effect] = []
        self.effects = effects
        if done is not None:
            self._is_tended = False  # more may be put into the log, which no event tells of
            self._disk_done(done)
            peering = self.groups.peering
            if peering is not None and not peering.is_alone:
                self.is_stirred = True
        if self.woken or self.dirty:
            self._answer()
        return effects

    def tend(self) -> list[Effect]:
        """Do what time, others and the store ask for, at the end of the turn.

        That is for a turn each `TEND_MS`, or when one is due, and for those in which more happened
        than plain produce requests (T2): so one of many small turns costs what its requests do.
        """
        effects: list[Effect] = []
        self.effects = effects
        if self.is_stirred or (not self._is_tended and self._needs_tending):
            self._tend()
        return effects

    @property
    def _needs_tending(self) -> bool:
        """Whether something waits that no event told of."""
        wal = self.store.wal
        return (
            self.now_ms >= min(self._due_ms, self._tended_ms + TEND_MS)
            or self._produce_held
            or self.is_stopping
            or bool(self._deferred)
            or wal.bytes_put >= self._tend_at_bytes
            or self.store.has_effects
            or (wal.durable_lsn + 1 != wal.next_lsn and wal.can_write)
        )

    def _tend(self) -> None:
        self.is_stirred = False
        self._is_tended = True
        self._tended_ms = self.now_ms
        self._tend_at_bytes = self.store.wal.bytes_put + UNTENDED_BYTES_MAX
        self.groups.tick()
        if not self._is_recovered and self.is_ready:
            self._is_recovered = True
            self.store.recovered()
        if self.groups.peering is not None:
            self.groups.peering.turn()
        self.groups.siblings.flush()
        self.groups.moves.look_for_end()
        self.effects += self.store.turn_effects()
        self._hold_or_release_produce()
        if self.dirty:
            self._flush()
        if self.is_stopping and not self.is_stopped and self.store.is_stopped:
            self.is_stopped = True
            self.effects.append(Stopped())

    def next_deadline_ms(self) -> int | None:
        """Return when `step` must run even if nothing happens; None: whenever something does."""
        if self.todo or self.slices or self.woken:
            return self.now_ms
        if not self._is_tended:  # T2
            return min(self._due_ms, self._tended_ms + limits.TICK_MS)
        due_ms = self._next_due_ms()
        self._due_ms = NEVER_MS if due_ms is None else due_ms
        return due_ms

    def _next_due_ms(self) -> int | None:
        if self.store.wants_turn:
            return self.now_ms
        deadline_ms = self.deadlines.next_ms()
        if self.is_stopped:
            return None
        if self.groups.peering is not None:
            peers_ms = self.groups.peering.next_ms()
            return peers_ms if deadline_ms is None else min(peers_ms, deadline_ms)
        if self.is_stopping or self._waits_for_room or self.store.is_waiting:
            soon_ms = self.now_ms + limits.TICK_MS
            return soon_ms if deadline_ms is None else min(soon_ms, deadline_ms)
        return deadline_ms

    @property
    def _waits_for_room(self) -> bool:
        """Whether to look again in a while: no event tells that memory came back."""
        return self._produce_held or bool(self._deferred)

    @property
    def is_ready(self) -> bool:
        """Whether everything that belongs on this core is served."""
        return self.groups.is_ready

    @property
    def is_short_of_memory(self) -> bool:
        """Whether answers that their clients do not take are in others' way."""
        return self.store.reading.is_short

    def stop(self) -> None:
        """Begin a clean stop: the next step starts the last checkpoint, `Stopped` ends it."""
        self.is_stopping = True
        self.store.stop()

    # --- for handlers ---

    def log(self, level: int, text: str) -> None:
        """Say something that a person acts on."""
        self.effects.append(LogLine(level, text))

    def note_answer(self, slot: Slot) -> None:
        """Count a client's request as answered in this turn."""
        if slot.connection.conn < 0:
            return  # a visitor's request is counted where its client is
        failed = slot.failed if slot.error else 0
        key, began_us, answered = slot.api_key, slot.began_us, self.counts.answered
        if failed:
            answered.append((key, slot.error, began_us, failed))
        if failed < slot.count:
            answered.append((key, 0, began_us, slot.count - failed))

    def close(self, connection: Connection, reason: str) -> None:
        """Close a client, wherever it is connected; *reason* goes to the log unless empty."""
        if isinstance(connection, Visitor):
            connection.link.refuse(connection)
        elif isinstance(connection, LocalVisitor):
            connection.refuse()
        else:
            self.effects.append(Close(connection.conn, reason))

    def damage(self, partition: Partition, segment: Segment, why: str) -> None:
        """Have a partition repaired whose file cannot be read; offline where nobody can."""
        if self.groups.repairs.found_in_segment(partition, segment, why):
            return
        if not partition.is_damaged and not partition.is_dropped:
            partition.is_damaged = True
            partition.topic.changed()
            name = f"{partition.topic.name}-{partition.number}"
            self.log(ERROR, f"partition {name} is offline: {why}. Check the disk, then restart.")
            partition.fail_waits()

    def go_on(self, work: Iterator[None], *, is_wide: bool = False) -> None:
        """Run *work* to its end, or to its next pause and on in a later turn.

        So requests for very much are handled: what they are made of pauses now and then, and a
        turn has a few of such pieces, whoever's they are. *is_wide*: it is known to have several.
        """
        if is_wide or next(work, self) is None:
            self.slices.append(partial(self.go_on, work))

    def work(
        self,
        function: Callable[..., object],
        arguments: tuple[object, ...],
        done: Callable[[WorkDone], None],
    ) -> None:
        """Run a pure function off the loop; *done* gets its value in a later step."""
        self._next_work += 1
        job = JobId(self._next_work)
        assert job not in self.works
        self.works[job] = done
        self._works_waiting.append(Work(job, function, arguments))
        self._submit_works()

    def _submit_works(self) -> None:
        waiting = self._works_waiting
        while waiting and len(self.works) - len(waiting) < limits.WORKS_MAX:
            self.effects.append(waiting.popleft())

    def defer(self, call: Call) -> None:
        """Handle a produce request again when the log has room; its bytes are copied."""
        self._deferred.append((call.keep(), self.now_ms))

    def must_defer(self, size_bytes: int) -> bool:
        """Whether a produce request of that size has to wait for room in the log.

        Also while others wait: a request that overtook one of the same producer would break its
        order. With a full disk nothing waits, everything is refused.
        """
        if self._retries_deferred:
            return False
        store = self.store
        if store.has_room(size_bytes) or store.is_full or self._is_huge(size_bytes):
            return bool(self._deferred)
        return True

    def _is_huge(self, size_bytes: int) -> bool:
        """Whether waiting is in vain: eviction leaves half of the arena, each byte may need two."""
        return size_bytes > self.store.arena_bytes // 5

    def _retry_deferred(self) -> None:
        """Handle what waits, in order, as far as there is room.

        What has waited too long is handled all the same: batches that do not fit are refused. A
        request that can never fit would otherwise hold up everybody. Also when its client has
        left: with acks=0 clients do so as soon as they have sent, and count on it.
        """
        assert not self._retries_deferred
        waiting, store = self._deferred, self.store
        self._retries_deferred = True
        while waiting:
            call, since_ms = waiting[0]
            has_room = store.has_room(call.request.size_bytes) and not store.must_hold
            is_over = store.is_full or self.now_ms - since_ms >= limits.ROOM_WAIT_MS_MAX
            is_over = is_over or self._is_huge(call.request.size_bytes)
            if not (has_room or is_over):
                break
            waiting.popleft()
            self.apis[call.request.api_key].handle(self, call)
        self._retries_deferred = False

    # --- events ---

    def _requests(self, events: list[Event], at: int) -> int:
        """Handle the request at events[at], or a run of them; return how many."""
        request = events[at]
        assert isinstance(request, Request)
        api = self.apis.get(request.api_key)
        if api is not None and api.run is not None:
            taken = api.run(self, events, at)
            if taken:
                return taken
        self.is_stirred = True
        self._request(request)
        return 1

    def _request(self, request: Request) -> None:
        connection = self.connections.get(request.conn)
        if connection is not None and not connection.is_closed:
            self.serve(connection, request)

    def visit(self, link: Link, frame: LinkFrame) -> None:
        """Serve a request that a sibling forwarded."""
        visitor, request = link.visit(frame, self.groups.siblings.links.visitor_id())
        self.connections[visitor.conn] = visitor
        self.serve(visitor, request)

    def refuse_forwarded(self, conn: int) -> None:
        """Close a client whose forwarded request a sibling refused."""
        connection = self.connections.get(ConnId(conn))
        if connection is not None and not connection.is_closed:
            connection.is_closed = True
            self.close(connection, f"client {connection.peer}: a core refused its request")

    def serve(self, connection: Connection, request: Request) -> None:
        """Handle a request of a client, a sibling's client, or a part of one."""
        api = self.apis.get(request.api_key)
        if api is None or not api.version_min <= request.api_version <= api.version_max:
            self._unknown_api(connection, request, api)
            return
        slot = connection.open_slot(request.api_key, request.api_version, request.correlation_id)
        slot.began_us = self.counts.now_us
        lsn = self.store.wal.next_lsn
        try:
            call = Call(request, slot)
            if not self.forwarding.takes(api, call):
                api.handle(self, call)
        except DecodeError as fault:
            self._refuse(connection, f"malformed {api.name} v{request.api_version}: {fault}")
        except AssertionError:
            # Before anything is proposed a bug costs one connection, afterwards the core: its
            # memory may no longer be what its log says (DESIGN §10).
            if self.store.wal.next_lsn != lsn:
                raise
            self.counts.assertions_failed += 1
            self.log(ERROR, f"a bug in {api.name}; please report it:\n{traceback.format_exc()}")
            self._refuse(connection, f"a bug in {api.name} v{request.api_version}")
        else:
            connection.pause_if_full(self.effects)

    def _unknown_api(self, connection: Connection, request: Request, api: ApiRow | None) -> None:
        """Answer what can be answered in a known layout, close the rest (quirks 1 and 3)."""
        if api is not None and api.unsupported is not None:
            slot = connection.open_slot(
                request.api_key, request.api_version, request.correlation_id
            )
            api.unsupported(self, Call(request, slot))
            return
        name = "unknown API" if api is None else api.name
        self._refuse(
            connection, f"{name} key {request.api_key} version {request.api_version} is not served"
        )

    def _refuse(self, connection: Connection, why: str) -> None:
        """Close a connection whose bytes make no sense; nobody else notices (DESIGN §10)."""
        self.counts.requests_malformed += 1
        connection.is_closed = True
        self.close(connection, f"client {connection.peer}: {why}")

    def _disk_done(self, done: DiskDone) -> None:
        news = self.store.on_done(done)
        if news is NOTHING:
            self.is_stirred = True
        else:
            self.groups.disk_done(news)

    def _rare(
        self,
        event: Opened
        | Closed
        | Drained
        | WorkDone
        | LinkUp
        | LinkDown
        | OperatorRequest
        | DiskSpace
        | SiblingEnded
        | PeerEvent,
    ) -> None:
        match event:
            case Opened():
                assert event.conn not in self.connections, "an id is never used again"
                opened = Connection(event.conn, event.listener, event.peer, self.dirty)
                self._opened_count += 1
                opened.serial = self._opened_count
                self.connections[event.conn] = opened
            case Closed():
                connection = self.connections.pop(event.conn, None)
                if connection is not None:
                    connection.close()
            case LinkUp():
                self.groups.siblings.link_up(event)
                self.forwarding.link_up()
            case LinkDown():
                self.groups.siblings.link_down(event)
            case OperatorRequest():
                operate(self, event)
            case DiskSpace():
                self.disk_bytes = (event.total_bytes, event.usable_bytes)
            case WorkDone():
                done = self.works.pop(event.job)
                self._submit_works()
                done(event)
            case SiblingEnded():
                if self.groups.peering is not None:
                    self.groups.peering.sibling_ended(event.core, event.boot)
            case PeerFrame() | PeerAccepted() | PeerClosed() | Dialed() | DialFailed():
                assert self.groups.peering is not None, "nobody is dialed, and nobody dials"
                self.groups.peering.take(event)
            case Drained():
                pass  # the C core reads such a connection again by itself

    # --- the end of a turn ---

    def _answer(self) -> None:
        """Wake who waited for what happened, and send what may leave."""
        if self.woken:
            woken, self.woken = self.woken, []
            for wake in woken:
                wake()
        if self.dirty:
            self._flush()

    def _run_todo(self) -> None:
        """Run a bounded share of the queued work: opening 10,000 partitions takes many turns."""
        self.is_stirred = True
        for _ in range(min(CHORES_PER_TURN_MAX, len(self.todo))):
            self.todo.popleft()()
        for _ in range(min(SLICES_PER_TURN_MAX, len(self.slices))):
            self.slices.popleft()()

    def _hold_or_release_produce(self) -> None:
        must_hold = self.store.must_hold or bool(self._deferred) or self.forwarding.is_congested
        must_hold = must_hold or self.worked_bytes > limits.WORKED_BYTES_MAX
        if must_hold != self._produce_held:
            self._produce_held = must_hold
            self.counts.produce_held += must_hold
            self.effects.append(HoldProduce(must_hold))

    def _flush(self) -> None:
        """Send what may leave. The answer to a local share may complete its client's answer."""
        for _ in range(FLUSH_ROUNDS_MAX):
            if self.dirty:
                self._flush_round()
        assert not self.dirty, "only a local share fills another answer"

    def _flush_round(self) -> None:
        dirty, self.dirty[:] = list(self.dirty), []
        for connection in dirty:
            for slot in connection.slots if not connection.is_closed else ():
                if slot.parts is None:
                    break
                self.note_answer(slot)
            for chunk in connection.flush(self.effects):
                self.arena.release(chunk)
