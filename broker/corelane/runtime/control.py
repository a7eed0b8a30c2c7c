"""One end of a control socket under trio."""

import errno
import os
import socket
from typing import Final

import trio

from corelane.runtime import messages
from corelane.runtime.messages import FromCore, FromForkServer, ToCore, ToForkServer

RETRY_S: Final = 0.001
_BUSY: Final = (errno.ETOOMANYREFS, errno.ENOBUFS)
"""What else a full socket answers: too many descriptors on their way, no memory for the packet."""


class PeerGoneError(Exception):
    """The process at the other end is gone."""


class ControlSocket:
    """Packets with descriptors, both ways. Owns its socket."""

    __slots__ = ("_socket",)

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end

    def close(self) -> None:
        """Close this end; the other sees its end, and tasks that wait here `PeerGoneError`."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def send_now(
        self, message: ToForkServer | FromForkServer | ToCore | FromCore, descriptors: list[int]
    ) -> bool:
        """Send a packet unless the socket is full; raises `PeerGoneError`.

        The caller's *descriptors* stay the caller's: the other end gets copies.
        """
        packet = messages.encode(message)
        if self._socket.fileno() < 0:
            raise PeerGoneError
        try:
            self._socket.sendmsg([packet], messages.rights(descriptors))
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerGoneError from error
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True

    async def send(
        self, message: ToForkServer | FromForkServer | ToCore | FromCore, descriptors: list[int]
    ) -> None:
        """Send a packet, waiting for room; raises `PeerGoneError`."""
        while not self.send_now(message, descriptors):
            try:
                await trio.lowlevel.wait_writable(self._socket)
            except trio.ClosedResourceError as error:
                raise PeerGoneError from error
            await trio.sleep(RETRY_S)  # A socket short of descriptors says it is writable.

    async def receive(self) -> tuple[bytes, list[int]] | None:
        """Wait for a packet with its descriptors; None when the other end is gone."""
        while True:
            try:
                received = self._socket.recvmsg(
                    messages.PACKET_BYTES_MAX, messages.RIGHTS_SPACE_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                continue
            except ConnectionResetError:
                return None
            packet, ancillary, flags, _ = received
            descriptors = messages.received_descriptors(ancillary)
            if not packet:
                return None
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                # Out of descriptors: the kernel dropped some, so nobody knows whose these are.
                for descriptor in descriptors:
                    os.close(descriptor)
                descriptors = []
            return packet, descriptors
