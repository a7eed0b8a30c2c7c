"""A core from its fork to its exit: threads, CPU, lock, recovery, loop."""

import logging
import os
import random
import socket
import time
import uuid
from pathlib import Path
from typing import Final, NoReturn

import trio

from corelane.api.table import API_TABLE
from corelane.model.config import Config, fit_memory
from corelane.model.ids import CONTROLLER_GROUP, CoreId, NodeId
from corelane.model.record import record
from corelane.runtime import (
    data_directory,
    failures,
    garbage,
    log,
    memory,
    messages,
    processes,
)
from corelane.runtime.advertise import listener_brokers
from corelane.runtime.control import ControlSocket
from corelane.runtime.core_control import CoreControl
from corelane.runtime.core_loop import CoreLoop
from corelane.runtime.core_stats import CoreStats
from corelane.runtime.dialer import Dialer
from corelane.runtime.disk import NativeDisk
from corelane.runtime.failures import StartError
from corelane.runtime.forkserver import CoreMain
from corelane.runtime.messages import Failed, Spawn
from corelane.runtime.wal_place import place_wal
from corelane.runtime.work import WorkBench
from corelane.shard.config import PeerPlace, ShardConfig
from corelane.shard.events import DiskSpace
from corelane.shard.shard import Shard
from corelane.storage.disk import OsDisk
from corelane.storage.layout import LayoutError
from corelane.storage.recovery import RecoverySettings, recover
from corelane.storage.store import StoreSettings
from corelane.storage.wal_scan import CorruptWalError
from corelane_native import Arena, Net

READY_CHECK_S: Final = 0.002
IDLE_CHECK_S_MAX: Final = 5.0

_log = logging.getLogger(__name__)


@record
class _Parts:
    """What a serving core consists of."""

    arena: Arena
    net: Net
    disk: NativeDisk
    shard: Shard
    began_s: float
    cpu: int


def core_main(config: Config) -> CoreMain:
    """Return the life of a core; called in the fork server, run in its children."""

    def main(spawn: Spawn, control: socket.socket, listeners: list[socket.socket]) -> int:
        log.set_up(f"core {spawn.core}: ")
        return _Core(config, spawn, control, listeners).live()

    return main


class _Core:
    """One process's life. Everything that can fail with a sentence happens before it is ready."""

    def __init__(
        self, config: Config, spawn: Spawn, control: socket.socket, listeners: list[socket.socket]
    ) -> None:
        self.config = config
        self.spawn = spawn
        self.control = control
        self.listeners = listeners
        self.directory = data_directory.core_directory(
            Path(config.node.data_dir).absolute(), spawn.core
        )
        self.allowed_cpus = os.sched_getaffinity(0)

    def live(self) -> int:
        """Recover, serve until stopped, and return the exit code."""
        try:
            parts = self._recover()
        except StartError as error:
            self._report(error, is_permanent=error.code != failures.EXIT_IN_USE)
            return error.code
        except OSError as error:
            sentence = data_directory.refusal(self.directory, error)
            self._report(sentence, is_permanent=True)
            return sentence.code
        garbage.freeze()
        trio.run(self._serve, parts)
        return failures.EXIT_OK

    def die(self, reason: str) -> NoReturn:
        """End this process at once, without a further write; the log repairs it at the start."""
        error = StartError(
            f"core {self.spawn.core} stopped",
            reason,
            "Look at the kernel's log (dmesg) and the disk's health.",
            failures.EXIT_DISK,
        )
        _log.error("%s", reason)
        self._report(error, is_permanent=False)
        os._exit(failures.EXIT_DISK)

    def _recover(self) -> _Parts:
        began_s = time.monotonic()
        self.directory.mkdir(exist_ok=True)
        if data_directory.lock_file(self.directory / "lock") is None:
            raise StartError(
                f"cannot start core {self.spawn.core}",
                f"another process holds {self.directory / 'lock'}",
                "Find it (fuser shows it) and stop it; then start again.",
                failures.EXIT_IN_USE,
            )
        place_wal(self.directory, self.config.storage.wal_dir, self.spawn.cluster_uuid)
        process_count = self.spawn.core_count + len(self.spawn.retired)
        plan = fit_memory(self.config, memory.limit_bytes(), process_count)
        arena = Arena(plan.arena_bytes)
        disk = NativeDisk(self.directory, arena, self.die)
        # After the threads were made: they are to run wherever there is room.
        cpu = self._bind_to_cpu()
        network = self.config.network
        net = Net(network.connections_max, plan.request_bytes_max, plan.receive_bytes, arena)
        disk.watch(net)
        shard = self._shard(arena, plan.arena_bytes)
        return _Parts(arena, net, disk, shard, began_s, cpu)

    def _bind_to_cpu(self) -> int:
        """Return the CPU this process is bound to now; -1 where its own is not allowed any more."""
        cpu = self.spawn.cpu
        if cpu >= 0 and not processes.bind_to_cpu(cpu, self.allowed_cpus):
            _log.warning("CPU %d is not to be used any more: running on any that is left", cpu)
            return -1
        return cpu

    def _shard(self, arena: Arena, arena_bytes: int) -> Shard:
        """Recover what this core owns and make its world."""
        spawn = self.spawn
        is_node = self.config.network.advertise == "node"
        config = ShardConfig(
            node=NodeId(self.config.node.id),
            core=CoreId(spawn.core),
            core_count=spawn.core_count,
            cluster_id=uuid.UUID(spawn.cluster_uuid).bytes,
            listeners=listener_brokers(self.config, spawn.listeners),
            self_broker=0 if is_node else min(spawn.core, spawn.core_count - 1),
            config=self.config,
            random=random.Random(os.urandom(32)),  # noqa: S311 - ids, not secrets
            retired=tuple(map(CoreId, spawn.retired)),
            peer=_peer_place(spawn),
            founds=spawn.founds,
        )
        try:
            recovered = recover(OsDisk(self.directory), arena, self._recovery(arena_bytes))
        except (CorruptWalError, LayoutError) as damage:
            raise StartError(
                f"cannot start core {spawn.core}",
                str(damage),
                "Nothing was changed. Restore the directory, or see `corelane dump-log --help`.",
                failures.EXIT_DATA_DIRECTORY,
            ) from damage
        except MemoryError as shortage:
            raise StartError(
                f"cannot start core {spawn.core}",
                f"its log does not fit into memory: {shortage}",
                "Raise corelane.arena.bytes, or give it a machine with more memory.",
                failures.EXIT_CONFIG,
            ) from shortage
        if CONTROLLER_GROUP in recovered.damaged and config.peer is None:
            raise StartError(
                f"cannot start core {spawn.core}",
                f"the controller's log is damaged: {recovered.damaged[CONTROLLER_GROUP]}",
                "Restore the directory, or see `corelane dump-log --help`.",
                failures.EXIT_DATA_DIRECTORY,
            )
        if recovered.cut:
            _log.info("recovery cut %s: it was never acknowledged", recovered.cut)
        return Shard(config, recovered, arena, API_TABLE)

    def _recovery(self, arena_bytes: int) -> RecoverySettings:
        storage = self.config.storage
        store = StoreSettings(
            storage.wal_file_bytes,
            storage.wal_files_max,
            storage.wal_flight_bytes_max,
            min(storage.checkpoint_bytes, arena_bytes // 4),
            storage.recent_bytes,
        )
        return RecoverySettings(store, arena_bytes, storage.wal_file_first_bytes)

    async def _announce(self, parts: _Parts, control: CoreControl) -> None:
        """Say that this core serves, once every partition that belongs here leads."""
        while not parts.shard.is_ready:  # noqa: ASYNC110 - the shard knows no events of trio's
            await trio.sleep(READY_CHECK_S)
        control.ready(round((time.monotonic() - parts.began_s) * 1000), parts.cpu)

    async def _look_after(self, loop: CoreLoop) -> None:
        idle_s = self.config.network.connection_idle_ms / 1000
        self._tell_space(loop)
        while True:
            await trio.sleep(min(idle_s / 4, IDLE_CHECK_S_MAX))
            loop.look_after(idle_s)
            self._tell_space(loop)

    def _tell_space(self, loop: CoreLoop) -> None:
        """Let the shard know how full the disk is, for those who ask."""
        space = os.statvfs(self.directory)
        block_bytes = space.f_frsize
        loop.post(DiskSpace(space.f_blocks * block_bytes, space.f_bavail * block_bytes))

    def _report(self, error: StartError, *, is_permanent: bool) -> None:
        """Tell the supervisor why this process ends; it may be gone itself."""
        failed = Failed(error.what, error.why, error.next_step, error.code, is_permanent)
        try:
            self.control.send(messages.encode(failed), socket.MSG_DONTWAIT)
        except OSError as fault:
            _log.warning("the supervisor was not told: %s", fault.strerror)

    async def _serve(self, parts: _Parts) -> None:
        loop = CoreLoop(parts.shard, parts.net, parts.arena, parts.disk, self.die)
        for number, listener in enumerate(self.listeners):
            loop.listen(listener.fileno(), number)
        loop.work = WorkBench(loop.post, self.allowed_cpus)
        stats = CoreStats(parts.shard, parts.net, parts.disk, parts.arena)
        control = CoreControl(ControlSocket(self.control), loop, stats)
        loop.told = control.told
        async with trio.open_nursery() as nursery:
            loop.dialer = Dialer(loop, nursery)
            nursery.start_soon(loop.work.serve)
            nursery.start_soon(control.obey)
            nursery.start_soon(control.speak)
            nursery.start_soon(control.beat)
            nursery.start_soon(self._announce, parts, control)
            nursery.start_soon(self._look_after, loop)
            await loop.serve()
            nursery.cancel_scope.cancel()


def _peer_place(spawn: Spawn) -> PeerPlace | None:
    if not spawn.peer_port:
        return None
    seeds = tuple((NodeId(node), host, port) for node, host, port in spawn.seeds)
    return PeerPlace(spawn.peer_host, spawn.peer_port, spawn.epoch, spawn.directory, seeds)
