"""The bytes of WAL records, entry rows, tails and descriptors: see FORMAT.md."""

import struct
from typing import Final

from corelane.model.ids import GroupId, Index, Lsn, MemberId, Offset, RecordKind, Term, TopicId
from corelane.model.record import record

BLOCK_BYTES: Final = 4096
RECORD_HEADER: Final = struct.Struct("<IIIIQQQQqB7x")
RECORD_HEADER_BYTES: Final = 64
RECORD_ALIGN_BYTES: Final = 8
ROW: Final = struct.Struct("<qQqIB3x")
ROW_BYTES: Final = 32
ROWS_HEADER: Final = struct.Struct("<IIQqII")
ROWS_MAGIC: Final = 0x434C4553
ROWS_VERSION: Final = 1
CONTROL_HEADER: Final = struct.Struct("<QII")
NO_TIMESTAMP: Final = -1

assert RECORD_HEADER.size == RECORD_HEADER_BYTES
assert ROW.size == ROW_BYTES
assert ROWS_HEADER.size == ROW_BYTES


class LayoutError(ValueError):
    """Bytes that should be ours are not: what is wrong, in one sentence."""


@record
class Descriptor:
    """What a raft group is, as its OWN record and its checkpoint row say."""

    group: GroupId
    topic: str
    topic_id: TopicId
    partition: int
    voters: tuple[MemberId, ...]
    revision: int = 1
    """Rises with each move to another core: of two cores that own it, the higher one does."""
    incarnation: int = 0
    """Of this replica as a member: how many were made on this node before it."""

    @property
    def directory(self) -> str:
        """Where its segments lie, below the core's directory."""
        if self.group == 0:
            return "partitions/controller"
        return f"partitions/{self.topic}-{self.partition}.{self.topic_id.hex()[:8]}"


_DESCRIPTOR: Final = struct.Struct("<QiHH16s")
_REVISION: Final = struct.Struct("<I")


def encode_descriptor(descriptor: Descriptor) -> bytes:
    """Return the descriptor as bytes."""
    name = descriptor.topic.encode()
    head = _DESCRIPTOR.pack(
        descriptor.group,
        descriptor.partition,
        len(name),
        len(descriptor.voters),
        descriptor.topic_id,
    )
    voters = struct.pack(f"<{len(descriptor.voters)}i", *descriptor.voters)
    end = encode_revision(descriptor.revision)
    if descriptor.incarnation:
        end += _REVISION.pack(descriptor.incarnation)
    return head + name + voters + end


def decode_descriptor(data: bytes) -> Descriptor:
    """Return the descriptor that `encode_descriptor` made; LayoutError otherwise.

    Those from before groups could move end where the revision follows now. Behind it is the
    incarnation, of replicas that are not the first of their node.
    """
    try:
        group, partition, name_bytes, voter_count, topic_id = _DESCRIPTOR.unpack_from(data)
        end = _DESCRIPTOR.size + name_bytes
        name = data[_DESCRIPTOR.size : end].decode()
        voters = struct.unpack_from(f"<{voter_count}i", data, end)
        end += 4 * voter_count
        revision = decode_revision(data[end : end + _REVISION.size])
        (incarnation,) = _REVISION.unpack(data[end + _REVISION.size :] or bytes(4))
    except (struct.error, UnicodeDecodeError) as fault:
        raise LayoutError(f"a group's description is malformed: {fault}") from fault
    return Descriptor(
        GroupId(group),
        name,
        TopicId(topic_id),
        partition,
        tuple(MemberId(v) for v in voters),
        revision,
        incarnation,
    )


def encode_revision(revision: int) -> bytes:
    """Return the payload of a DROP or MOVED record."""
    assert revision >= 1
    return _REVISION.pack(revision)


def decode_revision(data: bytes) -> int:
    """Return what `encode_revision` made; 1 where nothing was written; LayoutError otherwise."""
    if not data:
        return 1
    if len(data) != _REVISION.size:
        raise LayoutError(f"a revision has {len(data)} bytes")
    (revision,) = _REVISION.unpack(data)
    if revision < 1:
        raise LayoutError("a revision is 0")
    return int(revision)


@record
class WalRecord:
    """One WAL record as found on disk; `payload_at` counts from the start of the file."""

    generation: int
    term: Term
    lsn: Lsn
    durable_upto: Lsn
    group: GroupId
    index: Index
    next_offset: Offset
    kind: int
    payload_at: int
    payload_bytes: int

    @property
    def end(self) -> int:
        """Where the next record of the same write would start."""
        end = self.payload_at + self.payload_bytes
        return -(-end // RECORD_ALIGN_BYTES) * RECORD_ALIGN_BYTES


@record
class Tail:
    """The remainders of a group's three streams: what is committed but fills no whole block."""

    log: bytes
    rows: bytes
    control: bytes


_TAIL: Final = struct.Struct("<III")


def encode_tail(tail: Tail) -> bytes:
    """Return the payload of a TAIL record."""
    head = _TAIL.pack(len(tail.log), len(tail.rows), len(tail.control))
    return head + tail.log + tail.rows + tail.control


def decode_tail(data: bytes) -> Tail:
    """Return what `encode_tail` made; LayoutError otherwise."""
    if len(data) < _TAIL.size:
        raise LayoutError(f"a TAIL record has {len(data)} bytes")
    log_bytes, rows_bytes, control_bytes = _TAIL.unpack_from(data)
    rows_at = _TAIL.size + log_bytes
    control_at = rows_at + rows_bytes
    if control_at + control_bytes != len(data):
        raise LayoutError("a TAIL record's sizes do not add up")
    return Tail(data[_TAIL.size : rows_at], data[rows_at:control_at], data[control_at:])


def is_entry(kind: int) -> bool:
    """Whether a WAL record of this kind is a raft entry."""
    return kind < RecordKind.OWN


def blocks_down(size_bytes: int) -> int:
    """Return the bytes of the whole blocks in *size_bytes*."""
    return size_bytes - size_bytes % BLOCK_BYTES


def blocks_up(size_bytes: int) -> int:
    """Return *size_bytes* rounded up to whole blocks."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
