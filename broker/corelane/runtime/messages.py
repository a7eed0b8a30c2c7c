"""What the processes of one node say to each other: small JSON packets over unix sockets.

SOCK_SEQPACKET keeps packets whole and carries descriptors with them (SCM_RIGHTS), and its end
tells that the other side is gone. Between supervisor and fork server: `Spawn`, `Kill`, `Forked`,
`Exited`. Between supervisor and a core, on that core's control socket: the rest.
"""

import array
import os
import socket
from typing import Final

import msgspec

PACKET_BYTES_MAX: Final = 128 * 1024
DESCRIPTORS_MAX: Final = 64
"""Descriptors in one packet; the kernel allows 253 (SCM_MAX_FD)."""


class ListenerPorts(msgspec.Struct, frozen=True):
    """Where one listener of this node really listens."""

    bootstrap: int
    cores: list[int]
    """Of each core; its own is the one at its number."""


class Spawn(msgspec.Struct, frozen=True, tag="spawn"):
    """Fork core *core*; its control socket comes with the packet, and its listening sockets.

    A retired core has none: nobody connects to it.
    """

    core: int
    boot: int
    """Counts the lives of this core since the supervisor started; never used twice."""
    cpu: int
    """-1: not bound to one."""
    listeners: list[ListenerPorts]
    """In the order of the configuration; the core has a listening socket of each."""
    cluster_uuid: str
    retired: list[int] = []
    """Cores of an earlier start that hand their groups over to those that serve."""
    epoch: int = 0
    """The boot epoch that other nodes know this life by; 0: this node stands alone."""
    peer_host: str = ""
    peer_port: int = 0
    seeds: list[tuple[int, str, int]] = []
    """Node, host and peer port of nodes that were heard of."""
    directory: str = ""
    """Names the data directory."""
    founds: bool = True
    """Whether an empty directory begins a cluster, or joins one."""

    @property
    def core_count(self) -> int:
        """Return how many cores of this node serve clients."""
        return len(self.listeners[0].cores)


class Kill(msgspec.Struct, frozen=True, tag="kill"):
    """Kill a core. Only its parent can: it alone knows that the pid is still that core's."""

    core: int


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """A core's process exists."""

    core: int
    boot: int
    pid: int


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """A core's process is reaped. *status* as `os.waitstatus_to_exitcode` gives it."""

    core: int
    boot: int
    status: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """A core has recovered and serves."""

    pid: int
    recovery_ms: int
    cpu: int = -1
    """What it is bound to; -1: nothing."""


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """A core's loop is alive: once a second."""

    connections: int
    loop_lag_ms: int
    """The longest time since the last heartbeat between two looks at the clock."""
    groups_offline: int
    groups_opening: int = 0
    """Without a leader for some heartbeats."""
    damaged: tuple[str, ...] = ()
    """Replicas that are being repaired, or cannot be: some of them, by name."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A core is about to exit, and this is why."""

    what: str
    why: str
    next_step: str
    code: int
    is_permanent: bool
    """True when another try cannot help."""


class StatsAnswer(msgspec.Struct, frozen=True, tag="stats"):
    """A part of a core's counters and gauges; the last part says so."""

    request: int
    values: dict[str, float]
    is_last: bool


class Connections(msgspec.Struct, frozen=True, tag="connections"):
    """Accepted client connections; one descriptor for each peer comes with the packet."""

    listener: int
    """Which of the listeners they came through, all by its bootstrap port."""
    peers: list[str]


class StatsRequest(msgspec.Struct, frozen=True, tag="stats_request"):
    """Send the counters."""

    request: int


class Link(msgspec.Struct, frozen=True, tag="link"):
    """A sibling's new life: the pipe from it and the pipe to it come with the packet."""

    core: int
    boot: int
    is_retired: bool


class Peer(msgspec.Struct, frozen=True, tag="peer"):
    """A core of another node has connected; its first frame, its descriptor with the packet."""

    frame: bytes


class LifeOver(msgspec.Struct, frozen=True, tag="life_over"):
    """A life of another core of this node has ended."""

    core: int
    epoch: int


class Operate(msgspec.Struct, frozen=True, tag="operate"):
    """The operator wants something done, or known."""

    number: int
    verb: str
    arguments: dict[str, str]


class Operated(msgspec.Struct, frozen=True, tag="operated"):
    """The answer to an `Operate`; *error* is the name of a Kafka error, or empty."""

    number: int
    error: str
    sentence: str
    values: dict[str, str]


class Empty(msgspec.Struct, frozen=True, tag="empty"):
    """A retired core owns nothing any more: stop it, and remove its directory."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Accept nothing more, finish with a clean checkpoint, exit 0."""


ToForkServer = Spawn | Kill
FromForkServer = Forked | Exited
ToCore = Connections | StatsRequest | Link | Peer | LifeOver | Operate | Stop
FromCore = Ready | Heartbeat | Failed | StatsAnswer | Operated | Empty

_encoder: Final = msgspec.json.Encoder()
to_fork_server: Final = msgspec.json.Decoder(ToForkServer)
from_fork_server: Final = msgspec.json.Decoder(FromForkServer)
to_core: Final = msgspec.json.Decoder(ToCore)
from_core: Final = msgspec.json.Decoder(FromCore)


def encode(message: ToForkServer | FromForkServer | ToCore | FromCore) -> bytes:
    """Return a message as a packet."""
    packet = _encoder.encode(message)
    assert len(packet) <= PACKET_BYTES_MAX
    return packet


def pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a control socket."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def rights(descriptors: list[int]) -> list[tuple[int, int, "array.array[int]"]]:
    """Return the ancillary data that carries *descriptors*."""
    assert len(descriptors) <= DESCRIPTORS_MAX
    if not descriptors:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]


RIGHTS_SPACE_BYTES: Final = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)


def received_descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors a packet brought; they belong to the caller and are close-on-exec."""
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return list(descriptors)
