"""The supervisor: keeps the cores alive, accepts, answers the admin port, drains on a signal."""

import json
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import field
from typing import Final, assert_never

import msgspec
import trio

from corelane.model.config import Config
from corelane.model.ids import NodeId
from corelane.model.record import record
from corelane.runtime import (
    data_directory,
    failures,
    leaving,
    listener,
    messages,
    reachability,
    retired,
)
from corelane.runtime.acceptor import Acceptor
from corelane.runtime.admin import AdminServer
from corelane.runtime.admin_pages import AdminPages, NodeFacts
from corelane.runtime.advertise import cluster_id_text, listener_brokers
from corelane.runtime.control import ControlSocket, PeerGoneError
from corelane.runtime.cores import Bell, Core, CorePlan, CoreState, Life, Node
from corelane.runtime.data_directory import DataDirectory
from corelane.runtime.failures import StartError
from corelane.runtime.forkserver import ForkServer
from corelane.runtime.mesh import Mesh
from corelane.runtime.messages import Exited, Forked, ListenerPorts, Operated, ToForkServer
from corelane.runtime.peer_port import PeerPort
from corelane.shard.config import ListenerBrokers
from corelane.shard.peers.hello import Greeting, Refusal, Refused

DRAIN_S_MAX: Final = 1.5
"""After a stop signal; a core that is not done then is killed, and the log repairs it."""
KILL_S_MAX: Final = 5.0
RETIRE_S_MAX: Final = 10.0
"""For the clean stop of a retired core."""
OPERATE_S_MAX: Final = 5.0
OPERATE_RETRY_S: Final = 0.1

_log = logging.getLogger(__name__)


@record
class ListenerSockets:
    """One way in: the bootstrap port and a port for each core."""

    name: str
    host: str
    bootstrap: socket.socket
    cores: list[socket.socket]

    def ports(self) -> ListenerPorts:
        """Return where it really listens."""
        cores = [listener.port_of(core) for core in self.cores]
        return ListenerPorts(listener.port_of(self.bootstrap), cores)


@record
class Sockets:
    """Everything the broker listens on. The supervisor keeps all of them for its whole life.

    A core's clients wait in the kernel's queue while that core restarts, on the same port.
    """

    listeners: list[ListenerSockets]
    admin: socket.socket

    @property
    def host(self) -> str:
        """Return where the first listener listens."""
        return self.listeners[0].host

    def rows(self) -> list[dict[str, object]]:
        """Return where each listener listens, for people and programs."""
        return [
            {"name": each.name, "host": each.host, **msgspec.to_builtins(each.ports())}
            for each in self.listeners
        ]

    def ports(self) -> dict[str, object]:
        """Return the content of ports.json; the first listener is told of at the top too."""
        rows = self.rows()
        top = {key: value for key, value in rows[0].items() if key != "name"}
        return {**top, "admin": listener.port_of(self.admin), "listeners": rows}

    def stop_listening(self) -> None:
        """Refuse new connections, also on the copies that cores hold."""
        for each in self.listeners:
            for one in (each.bootstrap, *each.cores):
                listener.stop_listening(one)

    def close(self) -> None:
        """Close what is still open."""
        for each in self.listeners:
            for one in (each.bootstrap, *each.cores):
                one.close()
        self.admin.close()


@record
class SupervisorPlan:
    """What a supervisor is made of."""

    config: Config
    directory: DataDirectory
    sockets: Sockets
    fork_server: ForkServer
    cpus: Sequence[int]
    """The CPU of each core."""
    retired: Sequence[int]
    """Cores of an earlier start, which had more of them."""
    announce: Callable[["Supervisor"], None]
    """Called once, when every core serves for the first time."""
    peer: PeerPort = field(default_factory=PeerPort)


class Supervisor:
    """One node's processes. `run` returns the exit code or raises `StartError`."""

    def __init__(self, plan: SupervisorPlan) -> None:
        self.plan = plan
        self.bell = Bell()
        self._channel = ControlSocket(plan.fork_server.channel)
        node = Node(
            self._to_fork_server,
            self.bell,
            self._begun,
            self._retired_numbers,
            self._others_serve,
            self._life_over,
        )
        self._peer_plan = plan.peer.plan(plan.directory)
        self.cores = [
            Core(self._core_plan(number, cpu), node) for number, cpu in enumerate(plan.cpus)
        ]
        self.retired = [Core(self._core_plan(number, -1), node) for number in plan.retired]
        """Those of an earlier start that are still there."""
        self._mesh = Mesh(len(self.cores) + len(self.retired))
        self.acceptor = Acceptor(
            [each.bootstrap for each in plan.sockets.listeners], self.cores, self.bell
        )
        self.is_draining = False
        self._was_up = False
        self._accepting = trio.CancelScope()

    async def run(self) -> int:
        """Run the node until it is stopped."""
        with trio.open_signal_receiver(*_stop_signals()) as signals:
            async with trio.open_nursery() as background:
                background.start_soon(self._listen_to_fork_server)
                background.start_soon(self._obey, signals, background)
                background.start_soon(self._serve_clients)
                background.start_soon(self._announce)
                background.start_soon(self._serve_admin)
                background.start_soon(self.plan.peer.serve, self)
                async with trio.open_nursery() as lives:
                    for core in self.cores:
                        lives.start_soon(core.keep)
                    for core in self.retired:
                        lives.start_soon(self._retire, core, background)
                background.cancel_scope.cancel()
        return failures.EXIT_OK

    def all_cores(self) -> list[Core]:
        """Return every core, those that serve first."""
        return [*self.cores, *self.retired]

    def _core_plan(self, core: int, cpu: int) -> CorePlan:
        plan, listeners = self.plan, self.plan.sockets.listeners
        return CorePlan(
            core=core,
            cpu=cpu,
            directory=data_directory.core_directory(plan.directory.path, core),
            sockets=[each.cores[core] for each in listeners if core < len(each.cores)],
            listeners=[each.ports() for each in listeners],
            cluster_uuid=plan.directory.identity.cluster_uuid,
            peer=self._peer_plan,
        )

    def _begun(self, core: Core) -> None:
        self._mesh.join(core, self.all_cores())

    def _life_over(self, core: Core, life: Life) -> None:
        """Let the other cores tell other nodes that a life is over."""
        if life.epoch:
            for other in self.all_cores():
                if other is not core:
                    other.tell_life_over(core.plan.core, life.epoch)

    def bring(self, greeting: Greeting, frame: bytes, descriptor: int) -> Refusal | None:
        """Give a connection of another node's core to the core it asks for; or say why not."""
        identity = self.plan.directory.identity
        own = NodeId(identity.node_id)
        if greeting.to_node != own:
            sentence = f"This is node {own}, not node {greeting.to_node}."
            return Refusal(Refused.WRONG_NODE, sentence)
        core = self._core(greeting.to_core)
        if core is None:
            sentence = f"Node {own} has no core {greeting.to_core}."
            return Refusal(Refused.NO_SUCH_CORE, sentence)
        if core.bring_peer(frame, descriptor):
            return None
        sentence = f"Core {greeting.to_core} of node {own} is away."
        return Refusal(Refused.CORE_AWAY, sentence, core.ended_epoch)

    def _retired_numbers(self) -> list[int]:
        return [core.plan.core for core in self.retired]

    def _others_serve(self, core: Core) -> bool:
        others = [each for each in self.cores if each is not core]
        return self._was_up and any(each.state is CoreState.UP for each in others)

    def _core(self, number: int) -> Core | None:
        return next((core for core in self.all_cores() if core.plan.core == number), None)

    async def _retire(self, core: Core, background: trio.Nursery) -> None:
        """Keep a core of an earlier start alive until it owns nothing, then remove it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_empty, core)
            await core.keep()
            nursery.cancel_scope.cancel()
        if core.emptied.is_set():
            # Not among the lives: a stop of the node does not wait for it.
            background.start_soon(self._remove, core)

    async def _stop_when_empty(self, core: Core) -> None:
        await core.emptied.wait()
        with trio.move_on_after(RETIRE_S_MAX):
            await core.stop()
        await core.kill()  # It has nothing to lose.

    async def _remove(self, core: Core) -> None:
        """Remove a retired core's directory, and tell the controller to expect nothing of it."""
        number = core.plan.core
        try:
            await trio.to_thread.run_sync(
                retired.remove_core,
                self.plan.directory.path,
                number,
                abandon_on_cancel=True,  # The next start goes on with it.
            )
        except OSError as error:
            _log.warning("the next start removes what core %d left: %s", number, error.strerror)
        self.retired.remove(core)
        _log.info("core %d of an earlier start has handed everything over", number)
        answer = None
        while answer is None:  # A life that began just now may have been told to expect it.
            arguments = {"core": str(number)}
            answer = await self.cores[0].operate("retired_gone", arguments, OPERATE_S_MAX)
            if answer is None:
                await trio.sleep(OPERATE_RETRY_S)

    async def operate(
        self, number: int, verb: str, arguments: dict[str, str], wait_s_max: float
    ) -> Operated | None:
        """Have a core do something for the operator; None when it does not answer in time."""
        return await self.cores[number].operate(verb, arguments, wait_s_max)

    async def _to_fork_server(self, message: ToForkServer, descriptors: list[int]) -> None:
        try:
            await self._channel.send(message, descriptors)
        except PeerGoneError:
            # Whoever listens to the fork server ends the broker; nothing else can be done here.
            await trio.sleep_forever()

    async def _listen_to_fork_server(self) -> None:
        while True:
            received = await self._channel.receive()
            if received is None:
                break
            packet, descriptors = received
            assert not descriptors
            message = messages.from_fork_server.decode(packet)
            match message:
                case Forked():
                    if (core := self._core(message.core)) is not None:
                        core.forked(message)
                case Exited():
                    if (core := self._core(message.core)) is not None:
                        core.exited(message)
                case _:
                    assert_never(message)
        raise StartError(
            "the broker stopped",
            "its fork server died, and the cores with it",
            "Start it again; the log repairs what was not finished.",
            failures.EXIT_SYSTEM,
        )

    async def _serve_clients(self) -> None:
        with self._accepting:
            await self.acceptor.serve()

    async def _announce(self) -> None:
        """Write the ports and say so when every core serves."""
        while not self._is_up():
            await self.bell.wait()
        self._was_up = True
        told = self.plan.sockets.ports() | self.plan.peer.told()
        ports = json.dumps(told, indent=2) + "\n"
        path = self.plan.directory.ports_path
        data_directory.write_file_atomically(path, ports.encode())
        self.plan.announce(self)
        await self._look_at_advertised()

    async def _look_at_advertised(self) -> None:
        """Say what clients may not be able to connect to."""
        plan = self.plan
        if (sentence := reachability.wildcard_warning(plan.config)) is not None:
            _log.warning("%s", sentence)
        bound = [each.ports() for each in plan.sockets.listeners]
        rows = reachability.addresses_to_try(plan.config, bound, self._told())
        await reachability.warn(rows, cluster_id_text(plan.directory.identity.cluster_uuid))

    async def _obey(self, signals: AsyncIterator[int], background: trio.Nursery) -> None:
        """First signal: drain. Second: stop at once."""
        async for number in signals:
            name = signal.Signals(number).name
            if self.is_draining:
                _log.warning("%s again: stopping at once", name)
                await self._kill_all()
                return
            _log.info("%s: stopping", name)
            self.is_draining = True
            background.start_soon(self._drain)

    async def _drain(self) -> None:
        """Let others lead, then let the cores finish; kill those that do not."""
        hand_over_ms = self.plan.config.node.hand_over_ms
        if self._peer_plan is not None and hand_over_ms:
            await leaving.hand_over(self.all_cores(), hand_over_ms / 1000)
        self._accepting.cancel()
        self.plan.directory.ports_path.unlink(missing_ok=True)
        self.plan.sockets.stop_listening()
        with trio.move_on_after(DRAIN_S_MAX):
            async with trio.open_nursery() as stops:
                for core in self.all_cores():
                    stops.start_soon(core.stop)
            return
        _log.warning("stopping took longer than %.1f s: killing what is left", DRAIN_S_MAX)
        await self._kill_all()

    async def _kill_all(self) -> None:
        """Kill every core. One that the kernel cannot end (a hung disk) is left to it."""
        for core in self.all_cores():
            core.end()
            await core.kill()
        await trio.sleep(KILL_S_MAX)
        raise StartError(
            "the broker stopped",
            "a core does not die, since its disk does not answer",
            "Look at the kernel's log (dmesg) before starting again.",
            failures.EXIT_DISK,
        )

    def _is_up(self) -> bool:
        return all(core.state is CoreState.UP for core in self.cores)

    async def _serve_admin(self) -> None:
        pages = AdminPages(self, self._facts())
        await AdminServer(self.plan.sockets.admin, pages.routes()).serve()

    def _facts(self) -> NodeFacts:
        plan = self.plan
        identity = plan.directory.identity
        listeners = [
            {**bound, "advertised": [f"{each.host}:{each.port}" for each in told.brokers]}
            for bound, told in zip(plan.sockets.rows(), self._told(), strict=True)
        ]
        advertise = plan.config.network.advertise
        path = plan.directory.path
        return NodeFacts(identity.node_id, identity.cluster_uuid, advertise, path, listeners)

    def _told(self) -> list[ListenerBrokers]:
        bound = [each.ports() for each in self.plan.sockets.listeners]
        return listener_brokers(self.plan.config, bound)

    def refused(self) -> dict[str, int]:
        """Return how many connections no core could take, by the name of the listener."""
        names = [each.name for each in self.plan.sockets.listeners]
        return dict(zip(names, self.acceptor.refused, strict=True))


def _stop_signals() -> list[signal.Signals]:
    """Return what stops a node; a hang-up does unless `nohup` said otherwise."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers
