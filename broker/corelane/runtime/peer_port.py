"""A node's side towards other nodes: its peer port, how it came to its cluster, whom it has met."""

import secrets
import socket
from pathlib import Path
from typing import Self

import trio

from corelane.model.config import Config
from corelane.runtime import failures, formation, introductions, listener
from corelane.runtime.boot_epochs import BootEpochs
from corelane.runtime.cores import PeerPlan
from corelane.runtime.data_directory import DataDirectory, has_peers
from corelane.runtime.failures import StartError
from corelane.runtime.formation import Seed
from corelane.runtime.introductions import Introduction
from corelane.runtime.listener import Address
from corelane.runtime.peer_door import PeerDoor, Rooms

LOOK_S_MAX = 0.5
"""For seeds to say who they are to a node that knows its cluster."""


class PeerPort:
    """Without a socket the node stands alone, and all of this does nothing."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._seeds: list[Seed] = []
        self._met: dict[int, tuple[int, str, int]] = {}
        self._own = Introduction(introductions.VERSION, 0, secrets.token_hex(8), "", "", 0)

    @classmethod
    def bound(cls, config: Config) -> Self:
        """Listen where the configuration says; raises `StartError`."""
        port = cls()
        network = config.network
        port._seeds = parse_seeds(network.seeds)
        is_wished = bool(port._seeds) or "corelane.peer.port" in config.given
        if not is_wished and not has_peers(Path(config.node.data_dir)):
            return port
        where = Address(network.bind_host, network.peer_port, "other nodes", "--peer-port")
        port._socket = listener.bind(where, network.listen_backlog)
        own = port._own
        port._own = Introduction(
            own.version,
            config.node.id,
            own.nonce,
            "",
            network.advertised_host,
            listener.port_of(port._socket),
        )
        return port

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            self._socket.close()

    def decide(self) -> tuple[str, bool]:
        """Return the cluster of an empty directory, and whether this node founds it."""
        try:
            decision = trio.run(self._decide)
        except (KeyboardInterrupt, BaseExceptionGroup) as error:
            if not _is_interrupt(error):
                raise
            raise StartError(
                f"node {self._own.node} did not start",
                "it was stopped while it looked for its cluster",
                "Nothing was written.",
                failures.EXIT_SYSTEM,
            ) from None
        if isinstance(decision, StartError):
            raise decision
        return decision.cluster_uuid, decision.founds

    async def _decide(self) -> formation.Decision | StartError:
        """Return the decision, or why there is none: raised in here it would come in a group."""
        decision: formation.Decision | StartError
        async with trio.open_nursery() as nursery:
            if self._socket is not None:
                nursery.start_soon(PeerDoor(self._socket, lambda: self._own, None).serve)
            try:
                decision, others = await formation.form(self._own, self._seeds)
                self._meet(others)
            except StartError as refusal:
                decision = refusal
            nursery.cancel_scope.cancel()
        return decision

    def look(self, directory: DataDirectory) -> None:
        """Know the own cluster, and ask the seeds once who they are."""
        own = self._own
        cluster = directory.identity.cluster_uuid
        self._own = Introduction(own.version, own.node, own.nonce, cluster, own.host, own.port)
        if self._seeds and not self._met:
            trio.run(self._look)

    async def _look(self) -> None:
        with trio.move_on_after(LOOK_S_MAX):
            answers = await formation.ask_all(self._own, self._seeds)
            self._meet(formation.others_of(self._own, answers))
        for other in self._met.values():
            if other[0] == self._own.node:
                raise StartError(
                    f"cannot start node {self._own.node}",
                    f"another node {self._own.node} answers on {other[1]}:{other[2]}",
                    "Give every node an id of its own (--node-id).",
                    failures.EXIT_CONFIG,
                )

    def _meet(self, others: list[Introduction]) -> None:
        cluster = self._own.cluster_uuid
        for other in others:
            if cluster and other.cluster_uuid not in {cluster, ""}:
                raise StartError(
                    f"cannot start node {self._own.node}",
                    f"its directory belongs to cluster {cluster}, and node {other.node} on"
                    f" {other.host}:{other.port} to cluster {other.cluster_uuid}",
                    "Correct --seeds, or choose another directory with --data-dir.",
                    failures.EXIT_CONFIG,
                )
            self._met[other.node] = introductions.seed_of(other)

    def plan(self, directory: DataDirectory) -> PeerPlan | None:
        """Return what cores are told; None: this node stands alone."""
        if self._socket is None:
            return None
        return PeerPlan(
            self._own.host,
            self._own.port,
            directory.founds,
            directory.name,
            BootEpochs(directory.path),
            lambda: list(self._met.values()),
        )

    def told(self) -> dict[str, object]:
        """Return what ports.json says of it."""
        return {} if self._socket is None else {"peer": self._own.port}

    async def serve(self, rooms: Rooms) -> None:
        """Bring the cores of other nodes to the cores of this one, for ever."""
        if self._socket is not None:
            await PeerDoor(self._socket, lambda: self._own, rooms).serve()


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


def parse_seeds(text: str) -> list[Seed]:
    """Return the seeds that a setting names; raises `StartError`."""
    seeds: list[Seed] = []
    for each in filter(None, (part.strip() for part in text.split(","))):
        host, colon, port = each.rpartition(":")
        if not (colon and host and port.isdigit() and 0 < int(port) < 65_536):
            raise StartError(
                "cannot start",
                f"corelane.seeds names '{each}', which is not host:port",
                "Correct --seeds: the peer ports of some nodes, as host:port,host:port.",
                failures.EXIT_CONFIG,
            )
        seeds.append((host.strip("[]"), int(port)))
    return seeds
