"""A core's side of its control socket: obeys the supervisor and shows it that it lives."""

import os
import time
from typing import Final, assert_never

import trio

from corelane.model.ids import CoreId
from corelane.runtime import failures, messages
from corelane.runtime.control import ControlSocket, PeerGoneError
from corelane.runtime.core_loop import CoreLoop
from corelane.runtime.core_stats import CoreStats
from corelane.runtime.messages import (
    Connections,
    Empty,
    FromCore,
    Heartbeat,
    LifeOver,
    Link,
    Operate,
    Operated,
    Peer,
    Ready,
    StatsAnswer,
    StatsRequest,
    Stop,
)
from corelane.shard.effects import Emptied, OperatorAnswer
from corelane.shard.events import OperatorRequest, SiblingEnded

HEARTBEAT_S: Final = 1.0
STATS_PER_PACKET: Final = 250
"""A key holds a topic's name at most, so 100 KiB at most."""
UNSENT_MAX: Final = 1024
"""Answers that wait for the supervisor; it asks for far fewer at a time."""


class CoreControl:
    """Lives in the loop's nursery. A supervisor that is gone ends the process at once."""

    def __init__(
        self,
        control: ControlSocket,
        loop: CoreLoop,
        stats: CoreStats,
    ) -> None:
        self._control = control
        self._loop = loop
        self._stats = stats
        self._say, self._said = trio.open_memory_channel[FromCore](UNSENT_MAX)

    def ready(self, recovery_ms: int, cpu: int) -> None:
        """Say that this core serves, bound to a CPU (-1: to none)."""
        self._say.send_nowait(Ready(os.getpid(), recovery_ms, cpu))

    async def speak(self) -> None:
        """Send, in order, what must not be lost: a busy supervisor gets it later."""
        async for message in self._said:
            try:
                await self._control.send(message, [])
            except PeerGoneError:
                os._exit(failures.EXIT_SYSTEM)

    async def obey(self) -> None:
        """Do what the supervisor says."""
        while True:
            received = await self._control.receive()
            if received is None:
                os._exit(failures.EXIT_SYSTEM)
            packet, descriptors = received
            message = messages.to_core.decode(packet)
            match message:
                case Connections():
                    # Without descriptors the kernel dropped some, and the rest were closed.
                    if len(descriptors) == len(message.peers):
                        for descriptor, peer in zip(descriptors, message.peers, strict=True):
                            self._loop.add_connection(descriptor, peer, message.listener)
                case StatsRequest():
                    await self._answer_stats(message.request)
                case Link():
                    if len(descriptors) != 2:
                        os._exit(failures.EXIT_SYSTEM)  # without it this core is no use: again
                    core = CoreId(message.core)
                    pipes = (descriptors[0], descriptors[1])
                    self._loop.link(core, message.boot, pipes, is_retired=message.is_retired)
                case Peer():
                    if len(descriptors) == 1:  # otherwise the kernel dropped it: it is dialed again
                        self._loop.take_peer(descriptors[0], message.frame)
                case LifeOver():
                    self._loop.post(SiblingEnded(CoreId(message.core), message.epoch))
                case Operate():
                    number, verb = message.number, message.verb
                    self._loop.post(OperatorRequest(number, verb, message.arguments))
                case Stop():
                    self._loop.stop()
                case _:
                    assert_never(message)

    async def beat(self) -> None:
        """Send a heartbeat each second. It comes from the loop's own thread: that is its point."""
        while True:
            lag_ns, self._loop.lag_ns_max = self._loop.lag_ns_max, 0
            self._loop.shard.counts.loop_lag_us.observe(lag_ns // 1000)
            offline, opening = self._stats.groups_offline(), self._stats.groups_opening()
            lag_ms = lag_ns // 1_000_000
            damaged = self._stats.damaged_names()
            self._send(Heartbeat(self._loop.connections, lag_ms, offline, opening, damaged))
            began_s = time.monotonic()
            await trio.sleep(HEARTBEAT_S)
            late_ns = int((time.monotonic() - began_s - HEARTBEAT_S) * 1e9)
            self._loop.lag_ns_max = max(self._loop.lag_ns_max, late_ns)

    def told(self, effect: OperatorAnswer | Emptied) -> None:
        """Pass on what the shard says to the operator."""
        match effect:
            case OperatorAnswer():
                values = effect.values
                answer = Operated(effect.number, effect.error, effect.sentence, values)
                self._say.send_nowait(answer)
            case Emptied():
                self._say.send_nowait(Empty())
            case _:
                assert_never(effect)

    def _send(self, heartbeat: Heartbeat) -> None:
        """Send without waiting; a supervisor too busy to read gets the next one."""
        try:
            self._control.send_now(heartbeat, [])
        except PeerGoneError:
            os._exit(failures.EXIT_SYSTEM)

    async def _answer_stats(self, request: int) -> None:
        rows = list(self._stats.values().items())
        for at in range(0, max(1, len(rows)), STATS_PER_PACKET):
            end = at + STATS_PER_PACKET
            answer = StatsAnswer(request, dict(rows[at:end]), is_last=end >= len(rows))
            try:
                await self._control.send(answer, [])
            except PeerGoneError:
                os._exit(failures.EXIT_SYSTEM)
