"""A whole core in this process: real loop, net and shard, and a disk that is done at once.

What is left out is what the kernel does and what a disk takes. So the work of a request is the
same at every run, and can be counted instruction by instruction.
"""

import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from bench.macro import raw
from corelane.runtime.core_loop import CoreLoop
from corelane.shard.config import PeerPlace, ShardConfig
from corelane.storage.effects import (
    CheckpointWrite,
    DiskDone,
    DiskEffect,
    LinkFiles,
    Read,
    SearchRead,
    SegmentWrite,
    Sync,
    Unlink,
    WalPrepare,
    WalWrite,
)
from corelane_native import Net
from tests.unit.api.world import World

RECEIVE_BYTES: Final = 1 << 22
TURN_US: Final = 500
"""How long a turn takes, as the shard sees it: about what a request alone takes with its write."""
_PREFIX: Final = struct.Struct(">i")


class NoDisk:
    """Has done everything as soon as the turn is over; keeps nothing."""

    def __init__(self) -> None:
        self._write: WalWrite | None = None
        self.done: list[DiskDone] = []
        self.performers: dict[type, Callable[[Any], None]] = {
            SegmentWrite: self._at_once,
            Sync: self._at_once,
            CheckpointWrite: self._at_once,
            Unlink: self._at_once,
            LinkFiles: self._at_once,
            WalPrepare: self._at_once,
            Read: self._refuse,
            SearchRead: self._refuse,
        }
        self.performers[WalWrite] = self._wal_write

    def end_turn(self, event_count: int) -> DiskDone | None:
        """Answer the turn's write, as a write made inline does."""
        write, self._write = self._write, None
        return None if write is None else DiskDone(write.job, 0)

    def _wal_write(self, effect: WalWrite) -> None:
        self._write = effect

    def _at_once(self, effect: DiskEffect) -> None:
        self.done.append(DiskDone(effect.job, 0))

    def _refuse(self, effect: DiskEffect) -> None:
        self.done.append(DiskDone(effect.job, errno.EIO))


class LoneNode(World):
    """A node as `corelane start` makes it: it could speak to others, and there are none."""

    def shard_config(self) -> ShardConfig:
        return replace(super().shard_config(), peer=PeerPlace("127.0.0.1", 9192, 1, "bench"))


class Core:
    """The core and one client's end of a connection."""

    def __init__(self) -> None:
        self.world = LoneNode()
        shard = self.world.shard
        self.disk = NoDisk()
        self.net = Net(100, 32 << 20, 64 << 20, self.world.arena)
        disk: Any = self.disk  # all that the loop needs of one
        self.loop = CoreLoop(shard, self.net, self.world.arena, disk, _die)
        self.now_us = self.world.now_ms * 1000
        self.client, ours = socket.socketpair()
        self.client.setblocking(False)
        self.loop.add_connection(ours.detach(), "bench", 0)
        self.turn()

    def close(self) -> None:
        """End the client; the core ends with this object."""
        self.client.close()

    def turn(self) -> None:
        """Take what is ready, step, perform."""
        loop = self.loop
        loop._mail += self.disk.done
        self.disk.done.clear()
        self.now_us += TURN_US
        loop._turn(self.net.poll(0), self.now_us * 1000)

    def exchange(self, request: bytes, answer_bytes: int) -> None:
        """Send requests that lie in one piece, and turn until all their answers are there."""
        rest = memoryview(request)
        received = 0
        while received < answer_bytes:
            if rest:
                rest = rest[self._send(rest) :]
            self.turn()
            received += len(self._receive())
        assert received == answer_bytes, f"{received} bytes, not {answer_bytes}"

    def answer_to(self, request: bytes) -> bytes:
        """Return the answer to one request, with its prefix."""
        self._send(memoryview(request))
        data = b""
        while len(data) < _PREFIX.size or len(data) < _PREFIX.size + _PREFIX.unpack_from(data)[0]:
            self.turn()
            data += self._receive()
        return data

    def _send(self, data: memoryview) -> int:
        try:
            return self.client.send(data)
        except BlockingIOError:
            return 0

    def _receive(self) -> bytes:
        try:
            return self.client.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return b""

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic and wait until its partitions serve."""
        self.answer_to(raw.create_topic_frame(name, partitions))
        topic = self.world.shard.groups.topics[name.encode()]
        while not all(each is not None and each.serves for each in topic.partitions):
            self.turn()


def _die(reason: str) -> None:
    raise AssertionError(reason)
