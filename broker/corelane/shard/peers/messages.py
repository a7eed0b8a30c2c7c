"""The frame of the data link as bytes: raft messages of many groups, with their entries.

    u64 acknowledged bytes | u32 rows | u32 asked
    rows      u64 group | u64 sender | u64 recipient | u32 message bytes | u32 payload bytes
    messages  as raft/codec.py writes them, in the order of the rows
    payloads  of the appends, in the same order

Acknowledged are the bytes behind these 16, of all frames of the connection, and 1 for each that
*asked* to be acknowledged although it may have no rows. Sender and recipient are member ids
(incarnation << 32 | node). A payload is the entries of its append in the order of their indexes,
as `storage/entries.py` has them; those of batches are the stamped batches byte for byte. That of
a snapshot is `PrefixSnapshot`.
"""

# performance-critical: see STYLE.md

import struct
from typing import Final

from corelane.model import limits
from corelane.model.ids import ChunkId, GroupId
from corelane.model.record import record
from corelane.raft import codec
from corelane.raft.codec import MalformedMessageError
from corelane.raft.messages import Append, Snapshot
from corelane.shard.effects import Part
from corelane.shard.peers.events import PeerMessage
from corelane.shard.peers.frames import FrameError, check, unpack

_HEAD: Final = struct.Struct("<QII")
_ROW: Final = struct.Struct("<QQQII")
HEAD_BYTES: Final = _HEAD.size
ROW_BYTES: Final = _ROW.size
_MESSAGE_BYTES_MAX: Final = limits.MIB


@record
class Outgoing:
    """A raft message on its way; `chunks_held` are references that go with it."""

    group: GroupId
    sender: int
    recipient: int
    message: bytes
    payload: list[Part]
    payload_bytes: int
    chunks_held: list[ChunkId]
    size_bytes: int
    """What it adds to a frame."""


def part_bytes(part: Part) -> int:
    """Return the size of a part."""
    return len(part) if isinstance(part, bytes) else part[2]


def encode_first(acknowledged: int, messages: list[Outgoing], asked: int = 0) -> bytes:
    """Return the body of MESSAGES up to the payloads, which follow as parts."""
    pack = _ROW.pack
    rows = [
        pack(each.group, each.sender, each.recipient, len(each.message), each.payload_bytes)
        for each in messages
    ]
    bodies = [each.message for each in messages]
    return b"".join([_HEAD.pack(acknowledged, len(messages), asked), *rows, *bodies])


def decode(body: memoryview) -> tuple[int, int, bool, list[PeerMessage]]:
    """Return what is acknowledged, how much is to be, whether at once, and the messages.

    FrameError for what cannot be.
    """
    acknowledged, count, asked = unpack(_HEAD, body, "A frame of messages")
    check(asked <= 1, "A frame that asks for more than an acknowledgement.")
    check(count <= limits.PEER_TURN_MESSAGES_MAX, f"A frame of {count} messages.")
    rows_end = _HEAD.size + count * _ROW.size
    check(len(body) >= rows_end, "A frame of messages is cut short.")
    rows = list(_ROW.iter_unpack(body[_HEAD.size : rows_end]))
    payload_at = rows_end + sum([row[3] for row in rows])
    check(len(body) == payload_at + sum([row[4] for row in rows]), "Messages of another length.")
    message_at = rows_end
    messages: list[PeerMessage] = []
    for group, sender, recipient, message_bytes, payload_bytes in rows:
        check(message_bytes <= _MESSAGE_BYTES_MAX, f"A message of {message_bytes} bytes.")
        try:
            message = codec.decode(bytes(body[message_at : message_at + message_bytes]))
        except MalformedMessageError as fault:
            raise FrameError(f"A message of group {group} cannot be read: {fault}.") from fault
        has_entries = isinstance(message, Snapshot) or (
            isinstance(message, Append) and bool(message.runs)
        )
        check(has_entries == (payload_bytes > 0), f"Entries of group {group} without their append.")
        payload = body[payload_at : payload_at + payload_bytes]
        messages.append(PeerMessage(GroupId(group), sender, recipient, message, payload))
        message_at += message_bytes
        payload_at += payload_bytes
    return acknowledged, len(body) - _HEAD.size + asked, asked == 1, messages
