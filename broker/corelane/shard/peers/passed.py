"""What another node sent to the wrong core of this one, as it is passed on to the right one.

u16 core that sent it | u64 group | u64 sender | u64 recipient | u32 size of the message
| the message | its entries
"""

# performance-critical: see STYLE.md

import struct
from typing import Final

from corelane.model.ids import CoreId, GroupId
from corelane.raft import codec
from corelane.shard.peers.events import PeerMessage

_HEAD: Final = struct.Struct("<HQQQI")


def encode_passed(core: CoreId, message: PeerMessage) -> bytes:
    """Return a message that *core* of another node sent."""
    encoded = codec.encode(message.message)
    members = (message.sender, message.recipient)
    return _HEAD.pack(core, message.group, *members, len(encoded)) + encoded + message.payload


def decode_passed(body: bytes) -> tuple[CoreId, PeerMessage]:
    """Return what `encode_passed` was given; the entries are a view of *body*."""
    core, group, sender, recipient, size = _HEAD.unpack_from(body)
    at = _HEAD.size + size
    message = codec.decode(body[_HEAD.size : at])
    payload = memoryview(body)[at:]
    return CoreId(core), PeerMessage(GroupId(group), sender, recipient, message, payload)
