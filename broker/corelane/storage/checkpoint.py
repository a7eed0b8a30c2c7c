"""The checkpoint file of one core: every group's durable frontier and folded state.

Invariants (FORMAT.md, C):
C1. A row's frontiers were made durable by a sync before the file that holds it was written.
C2. The WAL keeps every record from `replay_lsn` on until a newer checkpoint is durable.
C3. The WAL reaches `durable_lsn`, or a file of it is missing or damaged (as R3).
C4. Of two slots the valid one with the higher sequence counts; the other one is written next.
"""

import struct
from dataclasses import replace
from typing import Final

from corelane.model.ids import Index, Lsn, MemberId, Offset, Term
from corelane.model.record import record
from corelane.raft.loss import Loss
from corelane.storage.group_log import GroupLog, LogState
from corelane.storage.layout import (
    Descriptor,
    LayoutError,
    Tail,
    decode_descriptor,
    encode_descriptor,
)
from corelane.storage.segments import Segment, Segments, Stream
from corelane_native import crc32c

MAGIC: Final = b"CLCKPT03"
MAGIC_WITHOUT_LOSS: Final = b"CLCKPT02"
MAGIC_WITHOUT_CONFIGURATIONS: Final = b"CLCKPT01"
_HEAD: Final = struct.Struct("<8sQQII")
_BODY: Final = struct.Struct("<QQII")
_ROW: Final = struct.Struct("<IqqQqqQqqqQQIIII")
_START: Final = struct.Struct("<qQq")
_CONFIGURATIONS: Final = struct.Struct("<I")
_CONFIGURATION: Final = struct.Struct("<QI")
_LOSS: Final = struct.Struct("<QQqB7x")
_NO_LOSS, _ENTRIES_LOST, _VOTES_LOST = 0, 1, 2
_SEGMENT: Final = struct.Struct("<QqQQQqqQqQqB7x")
SLOTS: Final = ("checkpoint.0", "checkpoint.1")


@record
class SegmentImage:
    """A segment as a checkpoint row has it."""

    base_index: Index
    base_offset: Offset
    log_frontier: int
    rows_frontier: int
    control_frontier: int
    max_timestamp: int
    first_timestamp: int
    batch_bytes_max: int
    disk_row: tuple[int, int, int]
    is_sealed: bool


@record
class GroupImage:
    """One group's row: what is durable in segments, and the fold up to `applied_index`."""

    descriptor: Descriptor
    state: LogState
    tail_lsn: Lsn
    applied_index: Index
    blob: bytes
    segments: list[SegmentImage]
    damage: str
    """Why the group is offline; empty for a healthy one."""
    loss: Loss | None = None
    renewed_lsn: Lsn = Lsn(0)
    """Of the last RENEW record that is in this row (D3)."""


@record
class Checkpoint:
    """A whole checkpoint."""

    sequence: int
    replay_lsn: Lsn
    durable_lsn: Lsn
    """The last lsn known durable when this was written: the WAL must reach it."""
    generation: int
    groups: list[GroupImage]


def encode_group(log: GroupLog, applied_index: Index, blob: bytes) -> bytes:
    """Return *log*'s row as of now: only writes that were answered are in its frontiers."""
    assert applied_index >= log.flushed_index, "the fold is behind the segments"
    # Of committed entries; after a start those of the life before are not known as such at once.
    assert applied_index <= max(log.last_index, log.fold_index)
    assert log.flushed_index <= log.committed_index
    assert log.first_index <= log.flushed_index + 1
    return encode_image(image_of(log, applied_index, blob))


def image_of(log: GroupLog, applied_index: Index, blob: bytes) -> GroupImage:
    """Return what is in *log*'s row."""
    starts = [start for start in log.term_starts if start[1] <= log.flushed_index]
    state = LogState(
        log.term, log.voted_for, log.flushed_index, log.flushed_offset, log.flushed_term,
        log.first_index, log.first_term, log.start_offset, log.max_timestamp, starts,
        log.configured.upto(log.flushed_index),
    )  # fmt: skip
    segments = [segment_image(segment) for segment in log.segments.items]
    return GroupImage(
        log.descriptor, state, log.tail_lsn, applied_index, blob, segments, log.damage, log.loss,
        log.renewed_lsn,
    )  # fmt: skip


def segments_of(image: GroupImage, tail: Tail) -> Segments:
    """Return the segments of a row; *tail* is what the last one holds beside its files."""
    segments = Segments(image.descriptor.directory)
    for row in image.segments:
        segment = Segment(segments.directory, row.base_index, row.base_offset)
        last = row is image.segments[-1] and not row.is_sealed
        rest = tail if last else Tail(b"", b"", b"")
        segment.log = Stream("log", row.log_frontier, rest.log)
        segment.rows = Stream("entries", row.rows_frontier, rest.rows)
        segment.control = Stream("control", row.control_frontier, rest.control)
        segment.max_timestamp = row.max_timestamp
        segment.first_timestamp = row.first_timestamp
        segment.batch_bytes_max = row.batch_bytes_max
        segment.disk_row = row.disk_row
        segment.is_sealed = row.is_sealed
        segments.append(segment)
    return segments


def segment_image(segment: Segment) -> SegmentImage:
    """Return what a row says of a segment."""
    return SegmentImage(
        segment.base_index, segment.base_offset, segment.log.frontier, segment.rows.frontier,
        segment.control.frontier, segment.max_timestamp, segment.first_timestamp,
        segment.batch_bytes_max, segment.disk_row, segment.is_sealed,
    )  # fmt: skip


def encode_image(image: GroupImage) -> bytes:
    """Return a group's row."""
    state = image.state
    descriptor = encode_descriptor(image.descriptor)
    damage = image.damage.encode()
    head = _ROW.pack(
        len(descriptor), state.term, state.voted_for, state.flushed_index, state.flushed_offset,
        state.flushed_term, state.first_index, state.first_term, state.start_offset,
        state.max_timestamp, image.tail_lsn, image.applied_index, len(image.blob),
        len(state.term_starts), len(image.segments), len(damage),
    )  # fmt: skip
    starts = [_START.pack(*start) for start in state.term_starts]
    rows = [_encode_segment(segment) for segment in image.segments]
    configured = [_CONFIGURATIONS.pack(len(state.configurations))]
    for index, payload in state.configurations:
        configured += (_CONFIGURATION.pack(index, len(payload)), payload)
    lost = _encode_loss(image)
    return b"".join((head, descriptor, image.blob, *starts, *rows, damage, *configured, lost))


def _encode_loss(image: GroupImage) -> bytes:
    loss = image.loss
    if loss is None:
        return _LOSS.pack(image.renewed_lsn, 0, 0, _NO_LOSS)
    kind = _VOTES_LOST if loss.are_votes_lost else _ENTRIES_LOST
    return _LOSS.pack(image.renewed_lsn, loss.last_index, loss.last_term, kind)


def _encode_segment(segment: SegmentImage) -> bytes:
    return _SEGMENT.pack(
        segment.base_index, segment.base_offset, segment.log_frontier, segment.rows_frontier,
        segment.control_frontier, segment.max_timestamp, segment.first_timestamp,
        segment.batch_bytes_max, *segment.disk_row, segment.is_sealed,
    )  # fmt: skip


def encode(
    sequence: int, replay_lsn: Lsn, durable_lsn: Lsn, generation: int, rows: list[bytes]
) -> bytes:
    """Return the bytes of a checkpoint file made of `encode_group` rows."""
    assert sequence >= 1
    assert 1 <= replay_lsn <= durable_lsn + 1, "C6: never beyond the durable end"
    body = _BODY.pack(replay_lsn, durable_lsn, generation, len(rows)) + b"".join(rows)
    head = _HEAD.pack(MAGIC, sequence, len(body), crc32c(body), 0)
    return _HEAD.pack(MAGIC, sequence, len(body), crc32c(body), crc32c(head[:28])) + body


def decode(data: bytes) -> Checkpoint:
    """Return the checkpoint in *data*; LayoutError when it is torn, damaged or another format."""
    if len(data) < _HEAD.size:
        raise LayoutError("shorter than its header")
    magic, sequence, body_bytes, body_crc, head_crc = _HEAD.unpack_from(data)
    if magic not in {MAGIC, MAGIC_WITHOUT_LOSS, MAGIC_WITHOUT_CONFIGURATIONS}:
        raise LayoutError(f"starts with {magic!r}, not {MAGIC!r}")
    if crc32c(data[:28]) != head_crc:
        raise LayoutError("the header's checksum is wrong")
    body = data[_HEAD.size : _HEAD.size + body_bytes]
    if len(body) != body_bytes or crc32c(body) != body_crc:
        raise LayoutError("the body is cut or its checksum is wrong")
    replay_lsn, durable_lsn, generation, count = _BODY.unpack_from(body)
    at = _BODY.size
    groups = []
    for _ in range(count):
        image, at = decode_image(body, at)
        if magic != MAGIC_WITHOUT_CONFIGURATIONS:
            at = decode_configurations(body, at, image)
        if magic == MAGIC:
            image, at = decode_loss(body, at, image)
        groups.append(image)
    return Checkpoint(sequence, Lsn(replay_lsn), Lsn(durable_lsn), generation, groups)


def decode_image(body: bytes, at: int) -> tuple[GroupImage, int]:
    """Return the row that begins at *at*, and where its configurations follow, if it has them."""
    (
        descriptor_bytes, term, voted_for, flushed_index, flushed_offset, flushed_term,
        first_index, first_term, start_offset, max_timestamp, tail_lsn, applied_index,
        blob_bytes, start_count, segment_count, damage_bytes,
    ) = _ROW.unpack_from(body, at)  # fmt: skip
    at += _ROW.size
    descriptor = decode_descriptor(body[at : at + descriptor_bytes])
    at += descriptor_bytes
    blob = body[at : at + blob_bytes]
    at += blob_bytes
    starts = []
    for _ in range(start_count):
        start_term, index, offset = _START.unpack_from(body, at)
        starts.append((Term(start_term), Index(index), Offset(offset)))
        at += _START.size
    segments = []
    for _ in range(segment_count):
        words = _SEGMENT.unpack_from(body, at)
        segments.append(
            SegmentImage(
                words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7],
                (words[8], words[9], words[10]), bool(words[11]),
            )
        )  # fmt: skip
        at += _SEGMENT.size
    state = LogState(
        Term(term), MemberId(voted_for), Index(flushed_index), Offset(flushed_offset),
        Term(flushed_term), Index(first_index), Term(first_term), Offset(start_offset),
        max_timestamp, starts,
    )  # fmt: skip
    damage = body[at : at + damage_bytes].decode()
    image = GroupImage(
        descriptor, state, Lsn(tail_lsn), Index(applied_index), blob, segments, damage
    )
    return image, at + damage_bytes


def decode_configurations(body: bytes, at: int, image: GroupImage) -> int:
    """Add the configurations at *at* to those of *image*; return where they end."""
    (count,) = _CONFIGURATIONS.unpack_from(body, at)
    at += _CONFIGURATIONS.size
    for _ in range(count):
        index, size = _CONFIGURATION.unpack_from(body, at)
        at += _CONFIGURATION.size
        image.state.configurations.append((Index(index), body[at : at + size]))
        at += size
    return at


def decode_loss(body: bytes, at: int, image: GroupImage) -> tuple[GroupImage, int]:
    """Return *image* with the loss that is told of at *at*, and where that ends."""
    renewed_lsn, last_index, last_term, kind = _LOSS.unpack_from(body, at)
    loss = None
    if kind != _NO_LOSS:
        loss = Loss(Index(last_index), Term(last_term), kind == _VOTES_LOST)
    return replace(image, loss=loss, renewed_lsn=Lsn(renewed_lsn)), at + _LOSS.size
