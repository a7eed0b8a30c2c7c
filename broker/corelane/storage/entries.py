"""What a leader reads of its log for a follower: entries as they travel, in whole ones.

An entry travels as {u8 kind, 3 zeros, u32 size, payload}; its term and index travel beside it.
"""

# performance-critical: see STYLE.md

import struct
from typing import Final

from corelane.model.ids import Index
from corelane.model.record import record
from corelane.storage.effects import Range
from corelane.storage.segments import Segment

ENTRY_HEAD: Final = struct.Struct("<BxxxI")
ENTRY_HEAD_BYTES: Final = 8
ENTRIES_MAX: Final = 1024
"""Entries of one message; a follower refuses more."""

EntryPart = bytes | Range
"""Bytes, or arena memory that whoever sends it holds a reference on."""


@record
class MemoryEntries:
    """Entries of the tail; they stay valid while references on their chunks are held."""

    last_index: Index
    size_bytes: int
    parts: list[EntryPart]


@record
class ColdEntries:
    """Entries of one segment: hand this to `Shipping.read` to have them read."""

    segment: Segment
    first_index: Index
    last_index: Index
    bytes_max: int


def cold_span(segment: Segment, first_index: Index, last_index: Index, bytes_max: int) -> Index:
    """Guess how far *bytes_max* reach from *first_index* on, by the segment's mean entry.

    Where entries lie in a file only the file knows. A read that finds them larger ends earlier.
    """
    assert segment.base_index <= first_index <= last_index
    stored = segment.log.size_bytes + segment.control.size_bytes
    mean_bytes = ENTRY_HEAD_BYTES + stored // max(1, segment.row_count)
    count = max(1, min(bytes_max // mean_bytes, ENTRIES_MAX))
    return Index(min(last_index, first_index + count - 1))
