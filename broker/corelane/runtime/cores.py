"""One core as the supervisor sees it: its lives, one after the other."""

import contextlib
import logging
import math
import signal
import socket
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import Final, assert_never

import trio

from corelane.model.record import record
from corelane.runtime import data_directory, failures, messages
from corelane.runtime.boot_epochs import BootEpochs
from corelane.runtime.control import ControlSocket, PeerGoneError
from corelane.runtime.failures import StartError
from corelane.runtime.messages import (
    Connections,
    Empty,
    Exited,
    Failed,
    Forked,
    FromCore,
    Heartbeat,
    Kill,
    LifeOver,
    ListenerPorts,
    Operate,
    Operated,
    Peer,
    Ready,
    Spawn,
    StatsAnswer,
    StatsRequest,
    Stop,
    ToForkServer,
)
from corelane.runtime.outbox import Outbox
from corelane.runtime.questions import Questions
from corelane.runtime.restart import Again, RestartPolicy

SILENT_S_MAX: Final = 10.0
"""A serving core that sent no heartbeat for so long is killed: its loop hangs."""
SILENT_CHECK_S: Final = 0.5
STARTING_LOG_S: Final = 10.0
LOCK_WAIT_S_MAX: Final = 10.0
LOCK_POLL_S: Final = 0.005
LAST_WORDS_S_MAX: Final = 1.0
HOPELESS_RETRY_S: Final = 10.0
"""How long a core that cannot start is left alone while others serve."""

_log = logging.getLogger(__name__)


class CoreState(Enum):
    """Where a core is in its life."""

    DOWN = "down"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"


@record
class PeerPlan:
    """Where other nodes find this one, and how it came to its cluster."""

    host: str
    port: int
    founds: bool
    directory: str
    epochs: BootEpochs
    seeds: Callable[[], list[tuple[int, str, int]]]
    """Return the nodes heard of until now."""


@record
class CorePlan:
    """What stays the same through all lives of a core."""

    core: int
    cpu: int
    directory: Path
    sockets: list[socket.socket]
    """Its own on each listener; none for a retired one."""
    listeners: list[ListenerPorts]
    cluster_uuid: str
    peer: PeerPlan | None = None
    """None: this node stands alone."""

    @property
    def is_retired(self) -> bool:
        """Whether this core is of an earlier start, and only hands its groups over."""
        return self.core >= len(self.listeners[0].cores)

    @property
    def port(self) -> int:
        """Return where this core listens on the first listener; 0 for a retired one."""
        return 0 if self.is_retired else self.listeners[0].cores[self.core]


SendToForkServer = Callable[[ToForkServer, list[int]], Awaitable[None]]
"""How a core asks for its process or for its death."""


def _nothing(core: "Core", life: "Life") -> None:
    """Nobody else wants to know."""


@record
class Node:
    """What a core needs of the node it belongs to."""

    to_fork_server: SendToForkServer
    bell: "Bell"
    begun: Callable[["Core"], None]
    """Called with each new life, as soon as it can be spoken to."""
    retired: Callable[[], list[int]]
    """Return which cores of an earlier start are still there."""
    others_serve: Callable[["Core"], bool]
    """Return whether the node is of use without this core."""
    ended: Callable[["Core", "Life"], None] = _nothing
    """Called when a life is over and reaped."""


class Bell:
    """Wakes whoever waits for the state of some core to change."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake all who wait now."""
        self._rung.set()
        self._rung = trio.Event()

    async def wait(self) -> None:
        """Wait for the next ring."""
        await self._rung.wait()


class Life:
    """One process of a core, from the wish for it to its reaped end."""

    def __init__(self, boot: int, control: ControlSocket, epoch: int = 0) -> None:
        self.boot = boot
        self.epoch = epoch
        """What other nodes know this life by; 0: there are none."""
        self.control = control
        self.outbox = Outbox(control)
        self.pid: int | None = None
        self.cpu = -1
        self.ready_s: float | None = None
        self.heard_s = trio.current_time()
        self.failed: Failed | None = None
        self.heartbeat = Heartbeat(0, 0, 0)
        self.handed_connections = 0
        """Handed over since the last heartbeat, which did not count them yet."""
        self.status: int | None = None
        self.reaped = trio.Event()
        self.last_words = trio.Event()

    @property
    def connections(self) -> int:
        """Return how many connections the core has, as far as is known here."""
        return self.heartbeat.connections + self.handed_connections


class Core:
    """Keeps one core alive: starts it, listens to it, kills it when it hangs, starts it again."""

    def __init__(self, plan: CorePlan, node: Node) -> None:
        self.plan = plan
        self._node = node
        self.state = CoreState.DOWN
        self.life: Life | None = None
        self.restarts = 0
        self.emptied = trio.Event()
        """A retired core has handed everything over, durably."""
        self._stopping = trio.Event()
        self._policy = RestartPolicy()
        self._boot = 0
        self.ended_epoch = 0
        """Of the last life that is over."""
        self._died_s = 0.0
        self._stats: Questions[dict[str, float]] = Questions()
        self._operations: Questions[Operated] = Questions()

    @property
    def is_stopping(self) -> bool:
        """Whether no new life is to begin."""
        return self._stopping.is_set()

    async def keep(self) -> None:
        """Live again and again until stopped; raises `StartError` when that is hopeless."""
        while True:
            await self._wait_for_lock()
            if self.is_stopping:
                break
            life = await self._start_life()
            await self._live(life)
            self._set_state(CoreState.DOWN)
            self._died_s = trio.current_time()
            if self.is_stopping:
                break
            await self._after(life)
            self.restarts += 1

    async def _start_life(self) -> Life:
        self._boot += 1
        ours, theirs = messages.pair()
        plan = self.plan
        peer = plan.peer
        epoch = 0 if peer is None else peer.epochs.next(plan.core)
        life = Life(self._boot, ControlSocket(ours), epoch)
        self.life = life
        spawn = Spawn(
            core=plan.core,
            boot=life.boot,
            cpu=plan.cpu,
            listeners=plan.listeners,
            cluster_uuid=plan.cluster_uuid,
            retired=self._node.retired(),
            epoch=epoch,
            peer_host="" if peer is None else peer.host,
            peer_port=0 if peer is None else peer.port,
            seeds=[] if peer is None else peer.seeds(),
            directory="" if peer is None else peer.directory,
            founds=peer is None or peer.founds,
        )
        self._set_state(CoreState.STARTING)
        with theirs:
            descriptors = [theirs.fileno(), *(each.fileno() for each in plan.sockets)]
            await self._node.to_fork_server(spawn, descriptors)
        self._node.begun(self)
        return life

    async def _wait_for_lock(self) -> None:
        """Wait until nobody writes in the core's directory: the old process may be dying."""
        lock = self.plan.directory / "lock"
        with trio.move_on_after(LOCK_WAIT_S_MAX):
            # Only asking tells when a lock of another process is free.
            while not self.is_stopping and not data_directory.is_lock_free(lock):  # noqa: ASYNC110
                await trio.sleep(LOCK_POLL_S)
            return
        raise StartError(
            f"cannot start core {self.plan.core}",
            f"another process holds {lock}",
            "Find it (fuser shows it) and stop it; then start again.",
            failures.EXIT_IN_USE,
        )

    async def _live(self, life: Life) -> None:
        """Listen to a process until it is reaped and its last words are read."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, life)
            nursery.start_soon(self._watch, life)
            nursery.start_soon(life.outbox.serve)
            await life.reaped.wait()
            with trio.move_on_after(LAST_WORDS_S_MAX):
                await life.last_words.wait()
            nursery.cancel_scope.cancel()
        life.outbox.close()
        life.control.close()
        self.ended_epoch = life.epoch
        self._node.ended(self, life)
        self._stats.give_up()
        self._operations.give_up()

    async def _listen(self, life: Life) -> None:
        while True:
            received = await life.control.receive()
            if received is None:
                break
            packet, descriptors = received
            assert not descriptors
            self._hear(life, messages.from_core.decode(packet))
        self._set_state(CoreState.DOWN)
        life.last_words.set()
        # A core that closed its control socket can neither be stopped nor watched.
        with trio.move_on_after(LAST_WORDS_S_MAX):
            await life.reaped.wait()
        if not life.reaped.is_set():
            await self.kill()

    def _hear(self, life: Life, message: FromCore) -> None:
        life.heard_s = trio.current_time()
        match message:
            case Heartbeat():
                life.heartbeat = message
                life.handed_connections = 0
            case Ready():
                life.ready_s = life.heard_s
                life.cpu = message.cpu
                self._set_state(CoreState.STOPPING if self.is_stopping else CoreState.UP)
                if self.restarts:
                    away_s = life.ready_s - self._died_s
                    _log.info("core %d serves again after %.2f s", self.plan.core, away_s)
            case Failed():
                life.failed = message
            case StatsAnswer():
                self._stats.hear(message.request, message.values, is_last=message.is_last)
            case Operated():
                self._operations.hear(message.number, message, is_last=True)
            case Empty():
                self.emptied.set()
            case _:
                assert_never(message)

    async def _watch(self, life: Life) -> None:
        """Kill a core whose loop hangs. A long recovery is not a hang, but is told of."""
        told_s = life.heard_s
        while True:
            await trio.sleep(SILENT_CHECK_S)
            now_s = trio.current_time()
            if life.ready_s is not None and now_s - life.heard_s > SILENT_S_MAX:
                _log.error(
                    "core %d has been silent for %.0f s and is killed",
                    self.plan.core,
                    now_s - life.heard_s,
                )
                await self.kill()
                await trio.sleep(math.inf)
            if life.ready_s is None and now_s - told_s > STARTING_LOG_S:
                told_s = now_s
                _log.info("core %d is still recovering", self.plan.core)

    async def _after(self, life: Life) -> None:
        """Say that a process died and wait as long as the policy wants, or give up.

        A node whose other cores serve does not end: what they own is as good as before.
        """
        assert life.status is not None
        served_ms = None
        if life.ready_s is not None:
            served_ms = round((trio.current_time() - life.ready_s) * 1000)
        reason = describe(life)
        is_permanent = life.failed is not None and life.failed.is_permanent
        decision = self._policy.exited(served_ms, is_permanent=is_permanent)
        if isinstance(decision, Again):
            _log.error("core %d died (%s); starting it again", self.plan.core, reason)
            await self._rest(decision.delay_ms / 1000)
            return
        error = self._hopeless(life, reason)
        if not self._node.others_serve(self):
            raise error
        _log.error(
            "%s %s What other cores own is served; trying again in %.0f s.",
            error.sentence,
            error.next_step,
            HOPELESS_RETRY_S,
        )
        self._policy = RestartPolicy()
        await self._rest(HOPELESS_RETRY_S)

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until told to stop."""
        with trio.move_on_after(seconds):
            await self._stopping.wait()

    def _hopeless(self, life: Life, reason: str) -> StartError:
        failed = life.failed
        if failed is not None:
            return StartError(failed.what, failed.why, failed.next_step, failed.code)
        return StartError(
            f"cannot start core {self.plan.core}",
            f"it ended {self._policy.exits_before_ready} times before it served ({reason})",
            "The lines above say what happened.",
            failures.EXIT_BUG,
        )

    def forked(self, message: Forked) -> None:
        """Note the pid of the process."""
        if self.life is not None and self.life.boot == message.boot:
            self.life.pid = message.pid

    def exited(self, message: Exited) -> None:
        """Note that the process is reaped."""
        if self.life is not None and self.life.boot == message.boot:
            self.life.status = message.status
            self.life.reaped.set()

    async def kill(self) -> None:
        """Kill the process of the current life, if it still lives."""
        if self.life is not None and not self.life.reaped.is_set():
            await self._node.to_fork_server(Kill(self.plan.core), [])

    async def stop(self) -> None:
        """Ask for a clean end, and wait for it; no new life begins."""
        self.end()
        life = self.life
        if life is None or life.reaped.is_set():
            return
        if life.ready_s is None:
            await self.kill()  # A recovery may be killed at any step.
        else:
            with contextlib.suppress(PeerGoneError):  # It is dying already then.
                await life.control.send(Stop(), [])
        self._set_state(CoreState.STOPPING)
        await life.reaped.wait()

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing was heard of the core for so long."""
        return self.life is None or trio.current_time() - self.life.heard_s > seconds

    def end(self) -> None:
        """Begin no new life."""
        self._stopping.set()

    def bring_peer(self, frame: bytes, descriptor: int) -> bool:
        """Give a connection of another node's core to this one; False when it cannot take it."""
        life = self.life
        # Also before it serves: to recover what it leads it may need the other nodes.
        if life is None or life.reaped.is_set() or self.is_stopping:
            return False
        try:
            return life.control.send_now(Peer(frame), [descriptor])
        except PeerGoneError:
            return False

    def tell_life_over(self, core: int, epoch: int) -> None:
        """Tell this core that another one's life is over; one that cannot hear it finds out."""
        life = self.life
        if life is not None and not life.reaped.is_set():
            with contextlib.suppress(PeerGoneError):
                life.control.send_now(LifeOver(core, epoch), [])

    def hand_over(self, listener: int, peers: list[str], descriptors: list[int]) -> bool:
        """Give accepted connections of a listener to the core; False when it can't take them."""
        life = self.life
        if self.state is not CoreState.UP or life is None:
            return False
        try:
            is_sent = life.control.send_now(Connections(listener, peers), descriptors)
        except PeerGoneError:
            return False
        if is_sent:
            life.handed_connections += len(peers)
        return is_sent

    async def stats(self, wait_s_max: float) -> dict[str, float] | None:
        """Pull the counters of the running process; None when it does not answer in time."""
        life = self.life
        if self.state is not CoreState.UP or life is None:
            return None

        async def send(number: int) -> None:
            await life.control.send(StatsRequest(number), [])

        parts = await self._stats.ask(send, wait_s_max)
        if parts is None:
            return None
        return {name: value for part in parts for name, value in part.items()}

    async def operate(
        self, verb: str, arguments: dict[str, str], wait_s_max: float
    ) -> Operated | None:
        """Have the core do something; None when it does not answer in time, or died.

        One that is not up yet answers as soon as it can.
        """
        life = self.life
        if life is None or life.reaped.is_set():
            return None

        async def send(number: int) -> None:
            await life.control.send(Operate(number, verb, arguments), [])

        answers = await self._operations.ask(send, wait_s_max)
        return None if answers is None else answers[0]

    def _set_state(self, state: CoreState) -> None:
        self.state = state
        self._node.bell.ring()


def describe(life: Life) -> str:
    """Return how a process ended, in words."""
    assert life.status is not None
    if life.failed is not None:
        return f"{life.failed.what}: {life.failed.why}"
    if life.status >= 0:
        return f"it exited with code {life.status}"
    try:
        name = signal.Signals(-life.status).name
    except ValueError:
        name = f"signal {-life.status}"
    hint = "; dmesg says whether memory ran out" if life.status == -signal.SIGKILL else ""
    return f"killed by {name}{hint}"
