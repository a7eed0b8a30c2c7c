"""The frame in which cores of different nodes speak, and nothing of what it says.

    u32 length of the rest | u16 kind | u16 flags | u32 number | u32 checksum | body

Big-endian up to the body, as between the cores of a node (`shard/links.py`), so that one frame
cutter serves both. Bodies are little-endian, like raft's messages.

Invariants:
F1. The checksum is the CRC-32C of kind, flags, number and body: a flipped bit is never acted on.
F2. Frames of a connection are numbered from 0 each way: none is taken twice, none is missed.
F3. Whatever is wrong with a frame is a `FrameError`; the connection is closed with its sentence,
    and nothing of the frame has had an effect.
"""

# performance-critical: see STYLE.md

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, Protocol

from corelane.model import limits
from corelane.model.ids import ChunkId, Position
from corelane.model.record import record
from corelane.shard.effects import Part
from corelane_native import crc32c

Readable = bytes | bytearray | memoryview

_HEAD: Final = struct.Struct(">IHHII")  # length, kind, flags, number, checksum
_CHECKED: Final = struct.Struct(">HHI")  # kind, flags, number
_CALL: Final = struct.Struct("<QI")  # number, size
LENGTH_BYTES: Final = 4
HEAD_BYTES: Final = 12
"""Of a frame without its length."""
NUMBER_LIMIT: Final = 1 << 32


class Kind(IntEnum):
    """What a frame says. All fit an i16, as the frame cutter reads them."""

    HELLO = 1
    """Who I am, and whom I want to speak to: the first frame of who dialed."""
    WELCOME = 2
    """Who I am: the first frame of who was dialed."""
    REFUSE = 3
    """Why I shall not speak with you: instead of WELCOME."""
    MESSAGES = 16
    """Raft messages, and how much of yours has arrived."""
    BEAT = 32
    """I live, and lead these groups."""
    BEAT_ANSWER = 33
    """I heard that, and follow in those."""
    ENDED = 34
    """Lives of other cores of my node that have ended."""
    LEADS = 48
    """Who leads which groups."""
    CALL = 64
    """Something small is asked: u64 number, u32 size | what."""
    RETURN = 65
    """The answer: u64 number, u32 size | what."""


class Channel(IntEnum):
    """Which connection between two cores this is."""

    DATA = 1
    SESSION = 2
    """Its own socket, so that no data is ever in the way of a heartbeat."""
    PROBE = 3
    """Nothing is said on it but the greeting: the core that is never dialed finds out so whether
    the one that dials is still there."""


KINDS: Final[dict[Channel, frozenset[Kind]]] = {
    Channel.DATA: frozenset({Kind.MESSAGES}),
    Channel.SESSION: frozenset(
        {Kind.BEAT, Kind.BEAT_ANSWER, Kind.ENDED, Kind.LEADS, Kind.CALL, Kind.RETURN}
    ),
    Channel.PROBE: frozenset(),
}
"""What may come over a connection once it is greeted."""

BYTES_MAX: Final[dict[Channel, int]] = {
    Channel.DATA: limits.PEER_FRAME_BYTES_MAX,
    Channel.SESSION: limits.PEER_SESSION_FRAME_BYTES_MAX,
    Channel.PROBE: limits.PEER_GREETING_BYTES_MAX,
}
"""How long a frame may be, without its length."""


class FrameError(ValueError):
    """A peer sent what no peer sends: close its connection with this sentence."""


@record
class Frame:
    """One frame whose checksum is right; the body is borrowed from what it was cut from."""

    kind: Kind
    number: int
    body: memoryview


class Chunks(Protocol):
    """Arena memory; `corelane_native.Arena` fits."""

    def view(self, chunk: ChunkId, position: Position, size: int, /) -> memoryview:
        """Return the bytes themselves."""

    def release(self, chunk: ChunkId, /) -> None:
        """Give a reference back."""


def check(holds: bool, fault: str) -> None:
    """Refuse the frame unless *holds*."""
    if not holds:
        raise FrameError(fault)


def check_length(length: int, bytes_max: int) -> None:
    """Refuse a length before anything of the frame is there."""
    check(HEAD_BYTES <= length <= bytes_max, f"A frame of {length} bytes is impossible here.")


def encode(kind: Kind, number: int, body: bytes) -> bytes:
    """Return a whole frame."""
    checksum = crc32c(body, crc32c(_CHECKED.pack(kind, 0, number)))
    return _HEAD.pack(HEAD_BYTES + len(body), kind, 0, number, checksum) + body


def encode_parts(
    kind: Kind, number: int, first: bytes, payload: Sequence[Part], chunks: Chunks
) -> list[Part]:
    """Return a frame whose body is *first* and then *payload*, none of which is copied."""
    checksum = crc32c(first, crc32c(_CHECKED.pack(kind, 0, number)))
    size_bytes = HEAD_BYTES + len(first)
    for part in payload:
        if isinstance(part, bytes):
            checksum = crc32c(part, checksum)
            size_bytes += len(part)
        else:
            checksum = crc32c(chunks.view(*part), checksum)
            size_bytes += part[2]
    assert size_bytes <= limits.PEER_FRAME_BYTES_MAX
    return [_HEAD.pack(size_bytes, kind, 0, number, checksum) + first, *payload]


def decode(data: Readable, bytes_max: int) -> Frame:
    """Return the frame that *data* is, which begins behind the length; FrameError otherwise."""
    check_length(len(data), bytes_max)
    view = memoryview(data)
    kind, flags, number = _CHECKED.unpack_from(view)
    checksum = int.from_bytes(view[_CHECKED.size : HEAD_BYTES], "big")
    found = crc32c(view[HEAD_BYTES:], crc32c(view[: _CHECKED.size]))
    check(found == checksum, f"A frame's checksum is wrong: {found:08x}, not {checksum:08x}.")
    check(flags == 0, f"A frame has unknown flags {flags:#x}.")
    try:
        return Frame(Kind(kind), number, view[HEAD_BYTES:])
    except ValueError:
        raise FrameError(f"A frame is of unknown kind {kind}.") from None


def unpack(form: struct.Struct, body: memoryview, what: str) -> tuple[int, ...]:
    """Return the fields at the beginning of *body*."""
    check(len(body) >= form.size, f"{what} is cut short.")
    return form.unpack_from(body)


def encode_call(number: int, what: bytes) -> bytes:
    """Return the body of CALL or RETURN."""
    return _CALL.pack(number, len(what)) + what


def decode_call(body: memoryview) -> tuple[int, bytes]:
    """Return number and content of a CALL or RETURN; FrameError for what cannot be."""
    number, size = unpack(_CALL, body, "A call")
    check(size <= limits.PEER_CALL_BYTES_MAX, f"A call of {size} bytes.")
    check(len(body) == _CALL.size + size, "A call has another length than it says.")
    return number, bytes(body[_CALL.size :])
