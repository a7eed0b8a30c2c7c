"""What the supervisors of nodes say to each other before any core does: who is there?

    "CLWH" | u32 size | u32 CRC-32C of the rest | JSON

Asked and answered on the peer port. The four letters are no length that a frame between cores can
have, so the same port serves both.
"""

import struct
from typing import Final

import msgspec
import trio

from corelane.model.ids import NodeId
from corelane_native import crc32c

MAGIC: Final = b"CLWH"
_HEAD: Final = struct.Struct(">4sII")
_BYTES_MAX: Final = 4096
ASK_S_MAX: Final = 1.0
VERSION: Final = 1


class Introduction(msgspec.Struct, frozen=True):
    """Who a supervisor is."""

    version: int
    node: int
    nonce: str
    """Of this run: by it a node finds itself among the seeds."""
    cluster_uuid: str
    """Empty: this node belongs to no cluster yet."""
    host: str
    port: int


class IntroductionError(Exception):
    """What came is no introduction; why, in one sentence."""


def encode(introduction: Introduction) -> bytes:
    """Return an introduction as it travels."""
    body = msgspec.json.encode(introduction)
    return _HEAD.pack(MAGIC, len(body), crc32c(body)) + body


async def receive(stream: trio.abc.ReceiveStream, first: bytes = b"") -> Introduction:
    """Read one; *first* is what was read of it already. Raises IntroductionError or OSError."""
    head = first + await exactly(stream, _HEAD.size - len(first))
    magic, size, checksum = _HEAD.unpack(head)
    if magic != MAGIC or size > _BYTES_MAX:
        raise IntroductionError("No Corelane node answers there.")
    body = await exactly(stream, size)
    if crc32c(body) != checksum:
        raise IntroductionError("What it says is damaged.")
    try:
        found = msgspec.json.decode(body, type=Introduction)
    except msgspec.MsgspecError as fault:
        raise IntroductionError(f"It speaks another version: {fault}.") from fault
    if found.version != VERSION:
        raise IntroductionError(f"It speaks version {found.version}, this node {VERSION}.")
    return found


async def ask(host: str, port: int, own: Introduction) -> Introduction:
    """Introduce this node to another one and return who that is.

    Raises IntroductionError, OSError or trio.TooSlowError.
    """
    with trio.fail_after(ASK_S_MAX):
        stream = await trio.open_tcp_stream(host, port)
        async with stream:
            await stream.send_all(encode(own))
            return await receive(stream)


async def exactly(stream: trio.abc.ReceiveStream, size_bytes: int) -> bytes:
    """Return so many bytes; raises IntroductionError when there are fewer."""
    data = bytearray()
    while len(data) < size_bytes:
        try:
            piece = await stream.receive_some(size_bytes - len(data))
        except trio.BrokenResourceError:
            piece = b""
        if not piece:
            raise IntroductionError("The connection ended in the middle of a message.")
        data += piece
    return bytes(data)


def seed_of(introduction: Introduction) -> tuple[NodeId, str, int]:
    """Return a node as a core is told of it."""
    return NodeId(introduction.node), introduction.host, introduction.port
