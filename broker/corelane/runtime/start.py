"""`corelane start`: everything from a configuration to a running, and then a stopped, node."""

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from corelane.model import limits
from corelane.model.config import Config, ConfigError, check_ports, fit_memory
from corelane.model.config_listeners import CORE_PORT_BASES, Listener
from corelane.runtime import (
    cpus,
    data_directory,
    failures,
    forkserver,
    listener,
    log,
    memory,
    processes,
    retired,
)
from corelane.runtime.failures import StartError
from corelane.runtime.forkserver import LoadCoreMain
from corelane.runtime.listener import Address
from corelane.runtime.peer_port import PeerPort
from corelane.runtime.supervisor import ListenerSockets, Sockets, Supervisor, SupervisorPlan

Announce = Callable[[Supervisor], None]
"""Called when the node serves."""

_log = logging.getLogger(__name__)


def run(config: Config, announce: Announce | None = None) -> int:
    """Run a node until it is stopped and return the exit code; says on stderr why it cannot."""
    try:
        return serve(config, announce)
    except StartError as error:
        say(error)
        return error.code


def say(error: StartError) -> None:
    """Write the sentence: what, why, next step."""
    sys.stderr.write(f"corelane: {error.sentence}\n{error.next_step}\n")
    sys.stderr.flush()


def serve(
    config: Config, announce: Announce | None = None, load: LoadCoreMain | None = None
) -> int:
    """Run a node until it is stopped; raises `StartError`. *load* is for tests of this layer."""
    started_s = time.monotonic()
    if not __debug__:
        raise StartError(
            "cannot start",
            "python -O removes the checks that protect the data",
            "Start without -O, and without PYTHONOPTIMIZE.",
            failures.EXIT_CONFIG,
        )
    log.set_up()
    core_count = _core_count(config)
    _check(config, core_count)
    processes.raise_open_files()  # For all processes to come.
    # First of all, while this process has no threads, locks or sockets to inherit.
    fork_server = forkserver.start(load or _load_core_main(config))
    with fork_server.channel:
        path = Path(config.node.data_dir)
        peering = PeerPort.bound(config)
        directory = data_directory.open_data_directory(
            path, config.node.id, _bytes_needed(config, core_count), peering.decide
        )
        try:
            peering.look(directory)
            retired.finish_removals(directory.path)
            leaving = retired.retired_cores(directory.path, core_count)
            _check_memory(config, core_count, len(leaving))
            plan = SupervisorPlan(
                config=config,
                directory=directory,
                sockets=_bind(config, core_count),
                fork_server=fork_server,
                cpus=_cpus(config, core_count, directory.device),
                retired=leaving,
                announce=announce or _Announcement(started_s, config),
                peer=peering,
            )
            return _run_supervisor(plan)
        finally:
            os.close(directory.lock_fd)
            peering.close()


def _load_core_main(config: Config) -> LoadCoreMain:
    def load() -> forkserver.CoreMain:
        # Imported in the fork server only: the supervisor needs none of it.
        from corelane.runtime.core_process import core_main

        return core_main(config)

    return load


def _run_supervisor(plan: SupervisorPlan) -> int:
    try:
        return trio.run(Supervisor(plan).run)
    except BaseExceptionGroup as group:
        refusals, rest = group.split(StartError)
        if rest is not None or refusals is None:
            raise
        raise _first(refusals) from None
    finally:
        plan.sockets.close()


def _first(group: BaseExceptionGroup[StartError]) -> StartError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _core_count(config: Config) -> int:
    """Return how many cores to start; 0 in the configuration means as many as we can."""
    affinity_count = len(os.sched_getaffinity(0))
    allowed_count = cpus.allowed_count(affinity_count)
    count = config.node.core_count or allowed_count
    if count > allowed_count and config.node.pin_cores:
        quota = " by its cgroup's limit" if allowed_count < affinity_count else ""
        raise StartError(
            f"cannot start {count} cores",
            f"this process may use {_counted(allowed_count, 'CPU')}{quota}, one for each core",
            f"Start with --cores {allowed_count} or fewer, or with --no-pin-cores.",
            failures.EXIT_CONFIG,
        )
    if count > limits.JOINED_CORES_MAX:
        raise StartError(
            f"cannot start {count} cores",
            "each is joined with every other one by pipes, and"
            f" {limits.JOINED_CORES_MAX} are the most that a core has room for",
            f"Start with --cores {limits.JOINED_CORES_MAX} or fewer.",
            failures.EXIT_CONFIG,
        )
    if count > limits.ADVERTISED_BROKERS_MAX and config.network.advertise == "core":
        raise StartError(
            f"cannot start {count} cores with corelane.advertise = core",
            f"each is a Kafka broker then, and clients, which connect to every broker and are told"
            f" of all of them, are to meet at most {limits.ADVERTISED_BROKERS_MAX} per node",
            f"Start with --advertise node, or with --cores {limits.ADVERTISED_BROKERS_MAX}.",
            failures.EXIT_CONFIG,
        )
    return count


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _bytes_needed(config: Config, core_count: int) -> int:
    """Return what a new data directory takes until each core can be written to."""
    storage = config.storage
    wal_bytes = 0 if storage.wal_dir else storage.wal_file_first_bytes + storage.wal_file_bytes
    return core_count * (wal_bytes + data_directory.FREE_BYTES_MIN)


def _check(config: Config, core_count: int) -> None:
    """Refuse what only the number of cores shows: nothing was made yet."""
    try:
        check_ports(config, core_count)
        fit_memory(config, memory.limit_bytes(), core_count)
    except ConfigError as error:
        fault = error.faults[0]
        raise StartError(
            "cannot start", fault.sentence, f"Correct {fault.key}.", failures.EXIT_CONFIG
        ) from error


def _check_memory(config: Config, core_count: int, retired_count: int) -> None:
    """Retired cores need their share, too, until they have handed everything over."""
    memory_bytes = memory.limit_bytes()
    try:
        fit_memory(config, memory_bytes, core_count + retired_count)
    except ConfigError as error:
        raise StartError(
            f"cannot start {_counted(core_count, 'core')}",
            f"{_counted(retired_count, 'core')} of an earlier start must hand over what they own,"
            f" and so many processes do not fit into {(memory_bytes or 0) // limits.MIB} MiB"
            " of memory",
            "Start once with more memory, or with as many cores as before.",
            failures.EXIT_CONFIG,
        ) from error


def _cpus(config: Config, core_count: int, device: int) -> Sequence[int]:
    """Return the CPU of each core."""
    if not config.node.pin_cores:
        return [-1] * core_count
    order = cpus.cpu_order(os.sched_getaffinity(0), device, cpus.read_interrupts())
    assert core_count <= len(order)
    return order[:core_count]


def _bind(config: Config, core_count: int) -> Sockets:
    """Bind every port, or none: a node that is half there would be a riddle."""
    network = config.network
    admin_port = network.admin_port
    is_free = all(each.port == 0 for each in config.listeners)
    if is_free and "corelane.admin.port" not in config.given:
        admin_port = 0
    bound: list[socket.socket] = []

    def bind(address: Address) -> socket.socket:
        bound.append(listener.bind(address, network.listen_backlog))
        return bound[-1]

    try:
        listeners = [_bind_listener(config, each, core_count, bind) for each in config.listeners]
        admin = Address(network.bind_host, admin_port, "the admin pages", "--admin-port")
        return Sockets(listeners, bind(admin))
    except StartError:
        for each in bound:
            each.close()
        raise


def _bind_listener(
    config: Config, wish: Listener, core_count: int, bind: Callable[[Address], socket.socket]
) -> ListenerSockets:
    is_short = not config.network.listeners
    of = "" if is_short else f" ({wish.name})"
    host_option = "--bind-host" if is_short else "listeners"
    options = ("--port", "--core-port-base") if is_short else ("listeners", CORE_PORT_BASES)
    host, base = wish.bind_host, wish.core_port_base
    bootstrap = bind(Address(host, wish.port, f"clients{of}", options[0], host_option))
    cores = [
        bind(Address(host, base + core if base else 0, f"core {core}{of}", options[1], host_option))
        for core in range(core_count)
    ]
    return ListenerSockets(wish.name, host, bootstrap, cores)


class _Announcement:
    """The lines a person waits for."""

    def __init__(self, started_s: float, config: Config) -> None:
        self._started_s = started_s
        self._config = config

    def __call__(self, supervisor: Supervisor) -> None:
        seconds = time.monotonic() - self._started_s
        plan = supervisor.plan
        host = plan.sockets.host
        identity = plan.directory.identity
        version = _version()
        cores = ", ".join(
            f"core {core.plan.core} {host}:{core.plan.port}" for core in supervisor.cores
        )
        _log.info(
            "data in %s (node %d, cluster %s)",
            plan.directory.path,
            identity.node_id,
            identity.cluster_uuid,
        )
        _log.info(
            "corelane %s serves clients on %s:%d after %.2f s; %s; http://%s:%d/health",
            version,
            host,
            plan.sockets.listeners[0].ports().bootstrap,
            seconds,
            cores,
            host,
            listener.port_of(plan.sockets.admin),
        )


def _version() -> str:
    import importlib.metadata  # slow to import, and only needed for this one line

    return importlib.metadata.version("corelane")
