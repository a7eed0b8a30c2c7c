"""Whole nodes of several cores in one process: real shards on virtual time, driven by events.

A machine is a supervisor's work (it starts cores, links them, tells of deaths, keeps the door of
the peer port) around cores that run the production shard on simulated disks, all of one machine's
in one tree. Nothing is polled: a core turns when something came for it, or when it asked to. Time
is in microseconds; one seed decides all of it.
"""

import heapq
import random
from collections.abc import Callable

from corelane.model.config import Config, parse
from corelane.model.ids import ConnId, CoreId
from corelane.shard.events import LinkDown, LinkFrame, LinkUp, OperatorRequest, SiblingEnded
from corelane.shard.member import Member
from corelane_native import address_of
from tests.simulation.fleet_core import FleetCore
from tests.simulation.fleet_net import Network
from tests.simulation.sim_disk import SimDisk
from tests.simulation.sim_tree import Tree

PIPE_US = (20, 50, 100, 400, 3_000)
START_US = (2_000, 20_000, 200_000)
AGAIN_US = 200_000
LINK_CONNS = 2_000_000


class Machine:
    """One node: its disk, its cores, and what its supervisor does."""

    def __init__(self, fleet: "Fleet", number: int, core_count: int) -> None:
        self.fleet = fleet
        self.number = number
        self.core_count = core_count
        self.tree = Tree(random.Random(fleet.chance.randrange(1 << 32)))
        self.tree.corrupts = True
        self.disks: dict[int, SimDisk] = {}
        self.cores: dict[int, FleetCore] = {}
        self.is_up = False
        self.life = 0
        self.wall_ms = 0
        """How far this machine's time of day is off."""
        self.retired: tuple[int, ...] = ()
        self.ended: dict[int, int] = {}
        self._pipes: dict[ConnId, Pipe] = {}

    # --- the supervisor ---

    def start(self, core_count: int) -> None:
        """Start with that many cores; what former ones own they hand over."""
        assert not self.is_up
        self.is_up = True
        self.fleet.network.lights_on(self)
        self.life += 1
        self.core_count = core_count
        self.retired = tuple(sorted(number for number in self.disks if number >= core_count))
        for number in (*range(core_count), *self.retired):
            self.start_core(number)

    def start_core(self, number: int) -> None:
        """Begin the next life of a core: recover, and link it to its siblings."""
        if number not in self.disks:
            seed = self.fleet.chance.randrange(1 << 32)
            self.disks[number] = SimDisk(seed, self.tree, f"core-{number:02d}")
        try:
            core = FleetCore(self, number, self.disks[number])
        except OSError:  # no room to begin a log: it ends, and is started again
            self.fleet.after(AGAIN_US, self._starter(number))
            return
        self.cores[number] = core
        for other in [*self.cores.values()]:
            if other is not core:
                self._link(core, other)
        core.wake(0)

    def end_core(self, number: int) -> None:
        """A process has ended: the others hear of it, in time."""
        core = self.cores.pop(number)
        core.is_dead = True
        core.sessions_lost()
        self.ended[number] = core.boot
        core.disk.crash(power=False)
        self.fleet.network.core_ended(core)
        self.fleet.watcher.core_ended(core)
        for conn, pipe in [*self._pipes.items()]:
            if core in (pipe.one, pipe.two):
                del self._pipes[conn]
                other = pipe.two if pipe.one is core else pipe.one
                other.unlinked_us[number] = pipe.deliver(other, LinkDown(conn), None)
        for other in self.cores.values():
            self.fleet.after(100, other.poster(SiblingEnded(CoreId(number), core.boot)))

    def kill_core(self, number: int, back_us: int) -> None:
        """End a core's process; the supervisor starts the next one."""
        self.end_core(number)
        self.fleet.after(back_us, self._starter(number))

    def _starter(self, number: int) -> Callable[[], None]:
        life = self.life

        def start() -> None:
            if self.is_up and self.life == life and number not in self.cores:
                self.start_core(number)

        return start

    def kill(self, *, power: bool) -> None:
        """End everything at once; with the power goes what no sync covered."""
        assert self.is_up
        self.is_up = False
        if power:
            self.fleet.network.went_dark(self)
        for number in [*self.cores]:
            self.end_core(number)
        self._pipes.clear()
        if power:
            self.tree.lose()

    def emptied(self, core: FleetCore) -> None:
        """A retired core owns nothing any more: it and its directory go."""
        number = core.number
        if self.cores.get(number) is not core:
            return
        self.end_core(number)
        self.retired = tuple(each for each in self.retired if each != number)
        del self.disks[number]
        if 0 in self.cores:
            gone = OperatorRequest(-1, "retired_gone", {"core": str(number)})
            self.cores[0].post(gone)
        for names in (self.tree.files, self.tree.names, self.tree.changed):
            for path in [each for each in names if each.startswith(f"core-{number:02d}")]:
                del names[path]

    # --- pipes ---

    def _link(self, one: FleetCore, two: FleetCore) -> None:
        self.fleet.conns += 1
        conn = ConnId(LINK_CONNS + self.fleet.conns)
        pipe = self._pipes[conn] = Pipe(self.fleet, one, two)
        for core, peer in ((one, two), (two, one)):
            is_retired = peer.number >= self.core_count
            pipe.last_us[core] = core.unlinked_us.get(peer.number, 0)
            event = LinkUp(conn, CoreId(peer.number), peer.life, is_retired)
            pipe.deliver(core, event, None)

    def carry(self, sender: FleetCore, conn: ConnId, frame: bytes) -> None:
        """Bring a frame of one core to another, after those before it."""
        pipe = self._pipes.get(conn)
        if pipe is not None:
            pipe.carry(sender, conn, frame)


class Pipe:
    """The two pipes between two cores; each keeps its order."""

    def __init__(self, fleet: "Fleet", one: FleetCore, two: FleetCore) -> None:
        self.fleet = fleet
        self.one = one
        self.two = two
        self.last_us = {one: 0, two: 0}

    def carry(self, sender: FleetCore, conn: ConnId, frame: bytes) -> None:
        """Bring a frame to the other end."""
        target = self.two if sender is self.one else self.one
        kind, flags = (int.from_bytes(frame[at : at + 2], "big", signed=True) for at in (0, 2))
        tag = int.from_bytes(frame[4:8], "big", signed=True)
        event = LinkFrame(conn, address_of(frame), len(frame), kind, flags, tag)
        self.deliver(target, event, frame)

    def deliver(
        self, target: FleetCore, event: LinkFrame | LinkUp | LinkDown, frame: bytes | None
    ) -> int:
        """Have an event come after all before it; return when."""
        fleet = self.fleet
        at_us = max(self.last_us[target], fleet.now_us + fleet.chance.choice(PIPE_US))
        self.last_us[target] = at_us
        fleet.after(at_us - fleet.now_us, target.poster(event, frame))
        return at_us


class Watcher:
    """Who looks on; does nothing."""

    def after_step(self, core: FleetCore, touched: list[Member]) -> None:
        """See a core that has turned, and which of its members did something."""

    def core_ended(self, core: FleetCore) -> None:
        """See a core's end."""


class Fleet:
    """The machines, the network between them, and time."""

    def __init__(
        self, seed: int, core_counts: tuple[int, ...], watcher: Watcher, settings: str = ""
    ) -> None:
        self.chance = random.Random(seed)
        self.watcher = watcher
        self.config: Config = parse(settings)
        self.now_us = 1_000_000
        self.conns = 0
        self.boots = 0
        self.event_count = 0
        self.step_count = 0
        self.is_calm = False
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.network = Network(self)
        self.machines = {
            number: Machine(self, number, count) for number, count in enumerate(core_counts, 1)
        }
        for machine in self.machines.values():
            machine.start(machine.core_count)

    @property
    def now_ms(self) -> int:
        return self.now_us // 1000

    def after(self, delay_us: int, act: Callable[[], None]) -> None:
        """Do *act* once, *delay_us* from now."""
        self._count += 1
        heapq.heappush(self._heap, (self.now_us + max(0, delay_us), self._count, act))

    def run(self, ms: int, is_done: Callable[[], bool] | None = None) -> None:
        """Let time pass, or until *is_done*."""
        end_us = self.now_us + ms * 1000
        heap = self._heap
        while heap and heap[0][0] <= end_us:
            if is_done is not None and is_done():
                return
            self.now_us, _number, act = heapq.heappop(heap)
            act()
        self.now_us = end_us

    def cores(self) -> list[FleetCore]:
        """Return the cores that live."""
        return [core for each in self.machines.values() for core in each.cores.values()]

    def servers(self, group: int) -> list[FleetCore]:
        """Return the cores that believe to serve a group, the newest term first."""
        found = []
        for core in self.cores():
            member = core.shard.groups.members.get(group)  # type: ignore[call-overload]
            if member is not None and member.serves:
                found.append((member.raft.term, core))
        found.sort(key=lambda each: -each[0])
        return [core for _term, core in found]
