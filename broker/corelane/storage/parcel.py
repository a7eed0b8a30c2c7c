"""What one core hands to another so that a group goes on there: all but the segments' files.

On the way, and as the payload of an IMPORT record, it is u32 bytes of a checkpoint's row, the row,
and what a TAIL record holds.
"""

import struct
from dataclasses import replace
from typing import Final

from corelane.model.ids import GroupId, Index, Lsn
from corelane.model.record import record
from corelane.storage.checkpoint import (
    GroupImage,
    SegmentImage,
    decode_configurations,
    decode_image,
    decode_loss,
    encode_image,
    image_of,
)
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import (
    NO_TIMESTAMP,
    Descriptor,
    LayoutError,
    Tail,
    decode_tail,
    encode_tail,
)

_ROW_BYTES: Final = struct.Struct("<I")
_NO_LSN: Final = Lsn(0)


@record
class Parcel:
    """A group between two cores: its row, and the remainders of a segment that is not closed."""

    image: GroupImage
    tail: Tail

    @property
    def descriptor(self) -> Descriptor:
        """What the group is, with the revision it had where it was packed."""
        return self.image.descriptor

    @property
    def group(self) -> GroupId:
        """The raft group."""
        return self.image.descriptor.group

    def encode(self) -> bytes:
        """Return the parcel as bytes."""
        row = encode_image(self.image)
        return _ROW_BYTES.pack(len(row)) + row + encode_tail(self.tail)

    @staticmethod
    def decode(data: bytes) -> "Parcel":
        """Return what `encode` made; LayoutError otherwise."""
        try:
            (row_bytes,) = _ROW_BYTES.unpack_from(data)
            image, end = decode_image(data, _ROW_BYTES.size)
            if end < _ROW_BYTES.size + row_bytes:  # else from before there were any
                end = decode_configurations(data, end, image)
            if end < _ROW_BYTES.size + row_bytes:
                image, end = decode_loss(data, end, image)
        except (struct.error, UnicodeDecodeError) as fault:
            raise LayoutError(f"a parcel is malformed: {fault}") from fault
        if end != _ROW_BYTES.size + row_bytes:
            raise LayoutError("a parcel's row is cut")
        return Parcel(image, decode_tail(data[end:]))


def pack(log: GroupLog, rows: bytes, control: bytes) -> Parcel:
    """Return the parcel of a log all of which is committed, in its segments, and synced.

    A last segment that is not closed holds no records. Its files are not handed over: *rows* and
    *control* are what is in them.
    """
    assert log.flushed_index == log.last_index, "M1: everything is in the segments"
    image = image_of(log, log.flushed_index, b"")
    tail = Tail(b"", b"", b"")
    items = log.segments.items
    if items and not items[-1].is_sealed:
        last = items[-1]
        assert last.log.size_bytes == 0, "M1: what holds records is closed"
        assert len(rows) == last.rows.frontier
        assert len(control) == last.control.frontier
        image.segments[-1] = _without_files(image.segments[-1])
        tail = Tail(b"", rows + last.rows.remainder, control + last.control.remainder)
    assert not any(row.log_frontier and not row.is_sealed for row in image.segments)
    return Parcel(replace(image, tail_lsn=_NO_LSN), tail)


def _without_files(row: SegmentImage) -> SegmentImage:
    disk_row = (int(row.base_offset), 0, NO_TIMESTAMP)
    return replace(row, log_frontier=0, rows_frontier=0, control_frontier=0, disk_row=disk_row)


def readdressed(parcel: Parcel, revision: int, applied_index: Index, blob: bytes) -> Parcel:
    """Return the parcel as its receiver puts it into its log, with the group's fold."""
    assert revision > parcel.descriptor.revision, "a revision rises with each move"
    assert applied_index == parcel.image.state.flushed_index, "the fold is of everything"
    descriptor = replace(parcel.descriptor, revision=revision)
    image = replace(parcel.image, descriptor=descriptor, applied_index=applied_index, blob=blob)
    return Parcel(image, parcel.tail)
