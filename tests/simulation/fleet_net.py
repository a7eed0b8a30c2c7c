"""The network between simulated machines: connections that keep their order and may not keep up.

A connection is what TCP makes of a bad network: what is lost comes again later, unless it is cut
for good; a machine without power answers nothing, a process that ended resets what it had open.
Some weathers also repeat or swap frames, which no TCP does: whoever hears that must hang up.
"""

from collections import deque
from typing import TYPE_CHECKING

from corelane.model import limits
from corelane.model.ids import ConnId
from corelane.shard.effects import Dial
from corelane.shard.peers import hello
from corelane.shard.peers.events import Dialed, DialFailed, PeerAccepted, PeerClosed, PeerFrame
from corelane.shard.peers.frames import FrameError, Kind, decode, encode
from corelane.shard.peers.hello import Refusal, Refused

if TYPE_CHECKING:
    from tests.simulation.fleet import Fleet, Machine
    from tests.simulation.fleet_core import FleetCore

NET_US = (50, 100, 200, 500, 2_000)
AGAIN_US = 200_000
"""After how long TCP sends again what was lost."""
DIAL_TIMEOUT_US = 900_000
PEER_CONNS = 1_000_000
BREAKS = 0.3
"""How often a cut is the end of a connection: something between dropped its state."""


class End:
    """One end of a connection: a core, or the door of a machine until it knows for which core."""

    def __init__(self, machine: "Machine", core: "FleetCore | None", conn: ConnId) -> None:
        self.machine = machine
        self.core = core
        self.conn = conn
        self.other: End = self
        self.queue: deque[bytes | None] = deque()
        """What is on its way to this end; None: the end of it."""
        self.last_us = 0
        self.is_pumping = False
        self.is_dead = False
        self.is_over = False


class Network:
    """All connections between cores of different machines."""

    def __init__(self, fleet: "Fleet") -> None:
        self.fleet = fleet
        self.cut: set[tuple[int, int]] = set()
        """Directions between machines in which nothing arrives."""
        self.slow_us: dict[tuple[int, int], int] = {}
        self.loss = 0.0
        self.mangling = 0.0
        self.mangled = 0
        self.dark: set[int] = set()
        """Machines without power: they do not even say that nobody listens."""
        self._ends: dict[ConnId, End] = {}

    # --- what cores ask for ---

    def dial(self, core: "FleetCore", effect: Dial) -> None:
        """Connect to a machine's peer port, if it can be reached."""
        fleet = self.fleet
        target = fleet.machines[int(effect.host.removeprefix("n"))]
        ways = {(core.machine.number, target.number), (target.number, core.machine.number)}
        if ways & self.cut or (not target.is_up and target.number in self.dark):
            failed = DialFailed(effect.dial, False, "time-out")
            fleet.after(DIAL_TIMEOUT_US, core.poster(failed))
            return
        delay_us = self._delay_us(core.machine.number, target.number)
        if not target.is_up:
            fleet.after(delay_us, core.poster(DialFailed(effect.dial, True, "refused")))
            return
        fleet.conns += 2
        near = End(core.machine, core, ConnId(PEER_CONNS + fleet.conns))
        far = End(target, None, ConnId(PEER_CONNS + fleet.conns + 1))
        near.other, far.other = far, near
        self._ends[near.conn], self._ends[far.conn] = near, far
        near.last_us = fleet.now_us + 2 * delay_us
        fleet.after(2 * delay_us, core.poster(Dialed(effect.dial, near.conn)))

    def carry(self, core: "FleetCore", conn: ConnId, frame: bytes) -> None:
        """Bring a frame to the other end of a connection."""
        end = self._ends.get(conn)
        if end is None or end.core is not core:
            return
        far, chance = end.other, self.fleet.chance
        far.queue.append(frame)
        if self.mangling and chance.random() < self.mangling:
            self.mangled += 1
            if len(far.queue) > 1 and chance.random() < 0.5:
                far.queue[-1], far.queue[-2] = far.queue[-2], far.queue[-1]
            else:
                far.queue.append(frame)
        self._pump(far)

    def close(self, core: "FleetCore", conn: ConnId) -> None:
        """End a connection; the other end hears of it after what was sent."""
        core.post(PeerClosed(conn))
        end = self._ends.pop(conn, None)
        if end is not None:
            end.is_over = True
            end.other.queue.append(None)
            self._pump(end.other)

    # --- what happens to them ---

    def core_ended(self, core: "FleetCore") -> None:
        """A process ended: its connections are reset, unless its machine is dark."""
        for conn, end in [*self._ends.items()]:
            if end.core is core:
                del self._ends[conn]
                end.is_over = True
                if core.machine.number not in self.dark:
                    end.other.queue.append(None)
                    self._pump(end.other)

    def went_dark(self, machine: "Machine") -> None:
        """A machine has no power: it does not even say that nobody is there."""
        self.dark.add(machine.number)

    def lights_on(self, machine: "Machine") -> None:
        """It has power again."""
        self.dark.discard(machine.number)

    def _delay_us(self, sender: int, to: int) -> int:
        if self.fleet.is_calm:
            return 100
        return self.fleet.chance.choice(NET_US) + self.slow_us.get((sender, to), 0)

    def _pump(self, end: End) -> None:
        """Have what is on its way arrive, in its order."""
        if end.is_pumping or end.is_dead or not end.queue:
            return
        end.is_pumping = True
        way = (end.other.machine.number, end.machine.number)
        delay_us = self._delay_us(*way)
        if self.loss and self.fleet.chance.random() < self.loss:
            delay_us += AGAIN_US
        at_us = max(end.last_us, self.fleet.now_us + delay_us)
        self.fleet.after(at_us - self.fleet.now_us, lambda: self._arrive(end))

    def _arrive(self, end: End) -> None:
        end.is_pumping = False
        end.last_us = self.fleet.now_us
        way = (end.other.machine.number, end.machine.number)
        if way in self.cut:
            if self.fleet.chance.random() < BREAKS:
                end.is_dead = end.other.is_dead = True
                return
            end.is_pumping = True
            self.fleet.after(AGAIN_US, lambda: self._arrive(end))
            return
        if end.is_over:
            end.queue.clear()
            return
        # What was sent meanwhile comes with it, as a window's worth does.
        while end.queue and not end.is_over:
            frame = end.queue.popleft()
            if frame is None:
                self._hang_up(end)
            elif end.core is None:
                self._door(end, frame)
            else:
                end.core.post(PeerFrame(end.conn, memoryview(frame)))

    def _hang_up(self, end: End) -> None:
        end.is_over = True
        self._ends.pop(end.conn, None)
        if end.core is not None:
            end.core.post(PeerClosed(end.conn))

    def _door(self, end: End, frame: bytes) -> None:
        """Bring a connection to the core that its first frame asks for."""
        machine = end.machine
        try:
            greeting = hello.decode_greeting(decode(frame, limits.PEER_GREETING_BYTES_MAX).body)
        except FrameError:
            assert self.mangled, "a greeting that cannot be"
            end.is_over = True
            end.other.queue.append(None)
            self._pump(end.other)
            return
        core = machine.cores.get(greeting.to_core) if machine.is_up else None
        if core is not None:
            end.core = core
            core.post(PeerAccepted(end.conn))
            core.post(PeerFrame(end.conn, memoryview(frame)))
            return
        boot = machine.ended.get(greeting.to_core, 0)
        refusal = Refusal(Refused.CORE_AWAY, f"Core {greeting.to_core} is away.", boot)
        if greeting.to_core not in machine.disks:
            refusal = Refusal(Refused.NO_SUCH_CORE, f"There is no core {greeting.to_core}.")
        if machine.is_up:
            said = encode(Kind.REFUSE, 0, hello.encode_refusal(refusal))[4:]
            end.other.queue.append(said)
        end.is_over = True
        end.other.queue.append(None)
        self._pump(end.other)
