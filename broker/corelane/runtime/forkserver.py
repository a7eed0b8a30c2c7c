"""The fork server: a process with all imports done that forks cores on demand and reaps them.

It has no threads and no trio, so its children start in milliseconds, on pages shared with it, in
a known state. It is the parent of the cores: it alone may signal them (a pid that is not reaped
is not used again), and they die with it, as it dies with the supervisor.
"""

import gc
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn, assert_never

from corelane.model.record import record
from corelane.runtime import failures, messages, processes
from corelane.runtime.messages import Exited, Forked, Kill, Spawn

CoreMain = Callable[[Spawn, socket.socket, list[socket.socket]], int]
"""The life of a core: what to be, its control socket, its listening sockets -> exit code."""
LoadCoreMain = Callable[[], CoreMain]
"""Does the imports of a core; called once, in the fork server."""

_log = logging.getLogger(__name__)


@record
class ForkServer:
    """What the supervisor knows of its fork server."""

    pid: int
    channel: socket.socket


def start(load: LoadCoreMain) -> ForkServer:
    """Fork the fork server. Must be called before this process has threads or runs trio."""
    parent_pid = os.getpid()
    ours, theirs = messages.pair()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _run(parent_pid, theirs, load)
    theirs.close()
    return ForkServer(pid, ours)


def _run(parent_pid: int, channel: socket.socket, load: LoadCoreMain) -> NoReturn:
    code = failures.EXIT_BUG
    try:
        processes.die_with_parent(parent_pid)
        processes.ignore_stop_signals()
        processes.name_process("corelane-fork")
        _leave_terminal()
        core_main = load()
        gc.collect()
        gc.freeze()
        _Server(channel, core_main).serve()
        code = failures.EXIT_OK
    except BaseException:  # noqa: BLE001 - the border of a process: nothing above could say it.
        _log.exception("the fork server failed")
    finally:
        os._exit(code)


def _leave_terminal() -> None:
    """Read nothing from the user's terminal."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


@record
class _Child:
    core: int
    boot: int
    pid: int
    pidfd: int


class _Server:
    """The children and the loop that serves the supervisor. Ends when the supervisor does."""

    def __init__(self, channel: socket.socket, core_main: CoreMain) -> None:
        self.channel = channel
        self.core_main = core_main
        self.children: dict[int, _Child] = {}
        self.poll = select.poll()
        self.poll.register(channel, select.POLLIN)

    def serve(self) -> None:
        """Fork, kill and reap until the other end is closed."""
        while True:
            for descriptor, _ in self.poll.poll():
                if descriptor in self.children:
                    self.reap(self.children.pop(descriptor))
                elif not self.take_message():
                    return

    def take_message(self) -> bool:
        """Do what one packet says; False when the supervisor is gone."""
        packet, ancillary, _, _ = self.channel.recvmsg(
            messages.PACKET_BYTES_MAX, messages.RIGHTS_SPACE_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        if not packet:
            return False
        descriptors = messages.received_descriptors(ancillary)
        message = messages.to_fork_server.decode(packet)
        match message:
            case Spawn():
                assert len(descriptors) in {1, 1 + len(message.listeners)}
                self.spawn(message, descriptors)
            case Kill():
                assert not descriptors
                self.kill(message.core)
            case _:
                assert_never(message)
        return True

    def spawn(self, spawn: Spawn, descriptors: list[int]) -> None:
        """Fork one core and hand it its sockets."""
        assert all(child.core != spawn.core for child in self.children.values())
        own_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            _log.error("cannot fork core %d: %s", spawn.core, error.strerror)
            self.tell(Exited(spawn.core, spawn.boot, failures.EXIT_SYSTEM))
            pid = -1
        if pid == 0:
            self.be_core(own_pid, spawn, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            child = _Child(spawn.core, spawn.boot, pid, os.pidfd_open(pid))
            self.children[child.pidfd] = child
            self.poll.register(child.pidfd, select.POLLIN)
            self.tell(Forked(spawn.core, spawn.boot, pid))

    def be_core(self, parent_pid: int, spawn: Spawn, descriptors: list[int]) -> NoReturn:
        """Become the core: leave everything of the fork server behind, live, and exit."""
        code = failures.EXIT_BUG
        try:
            processes.die_with_parent(parent_pid)
            processes.name_process(f"corelane-{spawn.core:02d}")
            self.channel.close()
            for pidfd in self.children:
                os.close(pidfd)
            control, *listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors]
            code = self.core_main(spawn, control, listeners)
        except BaseException:  # noqa: BLE001 - the border of a process: nothing above could say it.
            _log.exception("core %d failed", spawn.core)
        finally:
            # _exit: no clean-up of the fork server's making runs twice.
            logging.shutdown()
            sys.stderr.flush()
            os._exit(code)

    def kill(self, core: int) -> None:
        """Kill a core that is not reaped yet; none is no error, it may just have died."""
        for child in self.children.values():
            if child.core == core:
                os.kill(child.pid, signal.SIGKILL)

    def reap(self, child: _Child) -> None:
        """Take the exit status of a core that died and pass it on."""
        self.poll.unregister(child.pidfd)
        os.close(child.pidfd)
        _, raw_status = os.waitpid(child.pid, 0)
        self.tell(Exited(child.core, child.boot, os.waitstatus_to_exitcode(raw_status)))

    def tell(self, message: Forked | Exited) -> None:
        """Send a packet; a supervisor that is gone is noticed by the next receive."""
        try:
            self.channel.send(messages.encode(message))
        except (BrokenPipeError, ConnectionResetError):
            _log.debug("the supervisor is gone")
