"""Reads a core's directory for a person: records, checkpoints, segments, and what is wrong.

Nothing here changes anything; `repair.py` does. Values are made of str, int, bool and lists.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from corelane.model.ids import Lsn, RecordKind
from corelane.model.record import record
from corelane.storage import checkpoint
from corelane.storage.checkpoint import Checkpoint, GroupImage, SegmentImage
from corelane.storage.chunks import Chunk, Chunks
from corelane.storage.disk import Disk, OsDisk
from corelane.storage.layout import (
    CONTROL_HEADER,
    ROW,
    ROW_BYTES,
    ROWS_HEADER,
    ROWS_MAGIC,
    ROWS_VERSION,
    LayoutError,
    Tail,
    WalRecord,
    decode_descriptor,
    decode_revision,
    encode_descriptor,
)
from corelane.storage.parcel import Parcel
from corelane.storage.recovery import WAL_DIRECTORY, Replay, newest_checkpoint, remainder_damage
from corelane.storage.segments import OFFSET_DIGITS
from corelane.storage.tail import Entry
from corelane.storage.wal_scan import CorruptWalError, FileHead, file_heads, read_file, record_at
from corelane_native import Arena, crc32c

BATCH_PREFIX: Final = struct.Struct(">qiiBI")  # offset, length, leader epoch, magic, crc
BATCH_CRC_FROM: Final = 21
LENGTH_FROM: Final = 12
_KINDS: Final = {int(kind): kind.name for kind in RecordKind}
_NOTE_BYTES: Final = 8
_ARENA_BYTES: Final = 1 << 20


@record
class WalEntry:
    """One WAL record, in words."""

    position: int
    kind: str
    lsn: int
    generation: int
    durable_upto: int
    group: int
    term: int
    index: int
    next_offset: int
    payload_bytes: int
    note: str
    record: WalRecord


@record
class WalFileDump:
    """One WAL file: the records of its present generation."""

    path: str
    size_bytes: int
    generation: int
    first_lsn: int
    end_position: int
    records: list[WalEntry]


@record
class SegmentDump:
    """One segment as the newest checkpoint has it, and what its files hold."""

    path: str
    """Without the suffix: `.log`, `.entries` and `.control` are its files."""
    base_index: int
    base_offset: int
    is_sealed: bool
    log_bytes: int
    rows_on_disk: int
    next_offset: int
    max_timestamp: int
    problems: list[str]


@record
class GroupDump:
    """One group's checkpoint row, or what came with it from another core since."""

    group: int
    directory: str
    topic: str
    partition: int
    revision: int
    term: int
    voted_for: int
    start_offset: int
    flushed_index: int
    flushed_offset: int
    applied_index: int
    state_bytes: int
    tail_lsn: int
    damage: str
    segments: list[SegmentDump]


@record
class CheckpointDump:
    """One checkpoint slot; *error* says why it does not count."""

    path: str
    size_bytes: int
    error: str
    sequence: int
    replay_lsn: int
    durable_lsn: int
    generation: int
    group_count: int


@record
class Report:
    """What a start would find. *problems* is empty if all is well."""

    checkpoints: list[CheckpointDump]
    groups: list[GroupDump]
    wal_files: list[str]
    records_replayed: int
    next_lsn: int
    unfinished_write: str
    problems: list[str]


@record
class Row:
    """One row of an `.entries` file."""

    index: int
    next_offset: int
    end_position: int
    max_timestamp: int
    term: int
    kind: str


@record
class BatchDump:
    """One batch of a `.log` file."""

    position: int
    base_offset: int
    next_offset: int
    leader_epoch: int
    size_bytes: int
    is_good: bool


def open_core(core_directory: Path) -> Disk:
    """Return the disk that everything here reads from."""
    return OsDisk(core_directory)


# --- the write-ahead log ---


def kind_name(kind: int) -> str:
    """Return a record kind's name, or its number if it is a newer version's."""
    return _KINDS.get(kind, str(kind))


def wal_files(disk: Disk) -> list[WalFileDump]:
    """Return all WAL files with their records, in the order of their lsns."""
    heads = file_heads(disk, WAL_DIRECTORY)
    heads.sort(key=lambda head: (head.first_lsn, head.generation, head.path))
    return [_wal_file(disk, head) for head in heads]


def _wal_file(disk: Disk, head: FileHead) -> WalFileDump:
    entries = []
    end = 0
    if head.first_lsn:
        data = read_file(disk, head)
        for found in wal_records(data, head):
            entries.append(_entry(data, found))
            end = found.end
    return WalFileDump(
        head.path, head.size_bytes, head.generation, head.first_lsn, end, entries
    )  # fmt: skip


def wal_records(data: bytes, head: FileHead) -> Iterator[WalRecord]:
    """Yield the records of a file's present generation, up to the first that is not whole."""
    lsn, at = Lsn(head.first_lsn), 0
    while (found := record_at(data, at, head.generation, lsn)) is not None:
        yield found
        lsn, at = Lsn(lsn + 1), found.end


def _owned(payload: bytes) -> str:
    descriptor = decode_descriptor(payload)
    name = f"{descriptor.topic}-{descriptor.partition}"
    return f"{name if descriptor.topic else descriptor.directory}, revision {descriptor.revision}"


def _imported(payload: bytes) -> str:
    image = Parcel.decode(payload).image
    name = _owned(encode_descriptor(image.descriptor))
    count = len(image.segments)
    return f"{name}, entries up to {image.state.flushed_index}, {count} segments"


def _installed(payload: bytes) -> str:
    image = Parcel.decode(payload).image
    return f"{_owned(encode_descriptor(image.descriptor))}, anew behind {image.state.flushed_index}"


def _renewed(payload: bytes) -> str:
    image = Parcel.decode(payload).image
    owned = _owned(encode_descriptor(image.descriptor))
    return f"{owned}, back to {image.state.flushed_index}: {image.loss}"


_NOTES: Final[dict[int, Callable[[bytes], str]]] = {
    RecordKind.OWN: _owned,
    RecordKind.IMPORT: _imported,
    RecordKind.INSTALL: _installed,
    RecordKind.RENEW: _renewed,
    RecordKind.DROP: lambda payload: f"revision {decode_revision(payload)}",
    RecordKind.MOVED: lambda payload: f"revision {decode_revision(payload)}",
}


def _entry(data: bytes, found: WalRecord) -> WalEntry:
    payload = data[found.payload_at : found.payload_at + found.payload_bytes]
    note = ""
    if found.kind == RecordKind.VOTE and len(payload) == _NOTE_BYTES:
        note = f"voted for {int.from_bytes(payload, 'little', signed=True)}"
    elif found.kind == RecordKind.TRIM and len(payload) == _NOTE_BYTES:
        note = f"start offset {int.from_bytes(payload, 'little', signed=True)}"
    elif found.kind in _NOTES:
        try:
            note = _NOTES[found.kind](payload)
        except LayoutError as fault:
            note = str(fault)
    return WalEntry(
        found.payload_at - 64, kind_name(found.kind), found.lsn, found.generation,
        found.durable_upto, found.group, found.term, found.index, found.next_offset,
        found.payload_bytes, note, found,
    )  # fmt: skip


# --- checkpoints ---


def checkpoints(disk: Disk) -> list[CheckpointDump]:
    """Return what is in the two slots."""
    out = []
    for slot in checkpoint.SLOTS:
        try:
            size = disk.size_bytes(slot)
        except FileNotFoundError:
            continue
        try:
            found = checkpoint.decode(disk.read(slot, 0, size))
        except LayoutError as fault:
            out.append(CheckpointDump(slot, size, str(fault), 0, 0, 0, 0, 0))
            continue
        out.append(
            CheckpointDump(
                slot, size, "", found.sequence, found.replay_lsn, found.durable_lsn,
                found.generation, len(found.groups),
            )
        )  # fmt: skip
    return out


# --- segments ---


def rows(disk: Disk, path: str, frontier: int) -> list[Row]:
    """Return the rows in the first *frontier* bytes of an `.entries` file.

    Raises LayoutError when the header is not one.
    """
    data = disk.read(path, 0, frontier)
    if len(data) < ROW_BYTES:
        return []
    magic, version, base_index, _base_offset, crc, _zero = ROWS_HEADER.unpack_from(data)
    if magic != ROWS_MAGIC or crc32c(data[:24]) != crc:
        raise LayoutError(f"{path} has no valid header")
    if version != ROWS_VERSION:
        raise LayoutError(f"{path} is of version {version}, this program reads {ROWS_VERSION}")
    out = []
    for number, at in enumerate(range(ROW_BYTES, len(data) - ROW_BYTES + 1, ROW_BYTES)):
        next_offset, end, newest, term, kind = ROW.unpack_from(data, at)
        out.append(Row(base_index + number, next_offset, end, newest, term, kind_name(kind)))
    return out


def batches(disk: Disk, path: str, size_bytes: int, suffix: bytes = b"") -> Iterator[BatchDump]:
    """Yield the whole batches in the first *size_bytes* of a `.log` file, checking their CRCs.

    *suffix* is what the log's remainder adds to the file. Stops where a batch does not begin like
    one, or is cut.
    """

    def read(position: int, count: int) -> bytes:
        data = disk.read(path, position, max(0, min(count, size_bytes - position)))
        at = max(0, position - size_bytes)
        return data + suffix[at : at + count - len(data)]

    at = 0
    while at + BATCH_CRC_FROM <= size_bytes + len(suffix):
        base_offset, length, epoch, magic, crc = BATCH_PREFIX.unpack(read(at, BATCH_PREFIX.size))
        size = LENGTH_FROM + length
        if magic != 2 or length < 49 or at + size > size_bytes + len(suffix):
            return
        data = read(at, size)
        is_good = crc32c(data[BATCH_CRC_FROM:]) == crc
        last_delta = int.from_bytes(data[23:27], "big", signed=True)
        yield BatchDump(at, base_offset, base_offset + last_delta + 1, epoch, size, is_good)
        at += size


def controls(
    disk: Disk, path: str, size_bytes: int, suffix: bytes | None = None
) -> Iterator[tuple[int, str, bytes]]:
    """Yield (index, kind, payload) of a `.control` file; raises LayoutError where it is damaged.

    It goes on in *suffix*; None: in what is not known, so an entry that is cut is passed over.
    """
    data = disk.read(path, 0, size_bytes) + (suffix or b"")
    at = 0
    while at < len(data):
        end, kind = len(data), 0
        if at + CONTROL_HEADER.size <= len(data):
            index, kind, length = CONTROL_HEADER.unpack_from(data, at)
            end = at + CONTROL_HEADER.size + length
        if end + 4 > len(data) and suffix is None:
            return
        # A length that is another one may lead beyond the end.
        if crc32c(data[at:end]) != int.from_bytes(data[end : end + 4], "little") or not kind:
            raise LayoutError(f"{path} is damaged at byte {at}")
        yield index, kind_name(kind), data[at + CONTROL_HEADER.size : end]
        at = end + 4


def segment(disk: Disk, image: GroupImage, row: SegmentImage, tail: Tail) -> SegmentDump:
    """Return one segment, verified: sizes, rows against batches, every CRC.

    *tail* is its remainders, from the TAIL record that the group's row names.
    """
    path = f"{image.descriptor.directory}/{row.base_offset:0{OFFSET_DIGITS}d}"
    problems: list[str] = []
    found: list[Row] = []
    for suffix, frontier in (
        ("log", row.log_frontier),
        ("entries", row.rows_frontier),
        ("control", row.control_frontier),
    ):
        name = f"{path}.{suffix}"
        size = len(disk.read(name, 0, frontier))
        if size < frontier:
            problems.append(f"{name} has {size} bytes, the checkpoint says {frontier}")
    try:
        found = rows(disk, f"{path}.entries", row.rows_frontier)
        list(controls(disk, f"{path}.control", row.control_frontier, tail.control))
    except LayoutError as fault:
        problems.append(str(fault))
    problems += _row_problems(f"{path}.entries", found, row)
    if not any(name.startswith(f"{path}.log has") for name in problems):
        problems += _batch_problems(disk, f"{path}.log", found, row, tail.log)
    next_offset = found[-1].next_offset if found else row.base_offset
    return SegmentDump(
        path, row.base_index, row.base_offset, row.is_sealed, row.log_frontier, len(found),
        next_offset, row.max_timestamp, problems,
    )  # fmt: skip


def _row_problems(path: str, found: list[Row], row: SegmentImage) -> list[str]:
    before = (int(row.base_offset), 0, -1)
    for line in found:
        words = (line.next_offset, line.end_position, line.max_timestamp)
        if any(new < old for new, old in zip(words, before, strict=True)):
            return [f"{path} is damaged: the row of entry {line.index} goes back"]
        before = words
    return []


def _batch_problems(
    disk: Disk, path: str, found: list[Row], row: SegmentImage, suffix: bytes
) -> list[str]:
    ends = {line.end_position: line for line in found if line.kind == RecordKind.BATCH.name}
    at, offset = 0, int(row.base_offset)
    for batch in batches(disk, path, row.log_frontier, suffix):
        at = batch.position + batch.size_bytes
        line = ends.get(at)
        if not batch.is_good:
            return [f"{path} is damaged at byte {batch.position}: the batch's checksum is wrong"]
        if batch.base_offset != offset:
            return [f"{path}: offset {batch.base_offset} follows {offset} at {batch.position}"]
        if line is not None and line.next_offset != batch.next_offset:
            return [f"{path}: the row of entry {line.index} does not fit the batch before {at}"]
        offset = batch.next_offset
    if at != row.log_frontier + len(suffix):
        return [f"{path} is damaged at byte {at}: no batch begins there"]
    return []


# --- everything ---


class Inspector(Replay):
    """A replay that keeps no payloads and changes nothing."""

    def __init__(self, disk: Disk, start: Checkpoint) -> None:
        super().__init__(disk, Chunks(Arena(_ARENA_BYTES)), start)

    def _load(self, payload: memoryview) -> tuple[Chunk, int]:
        del payload
        return NO_CHUNK, 0

    def _entry(self, found: WalRecord, payload: memoryview, builder: object) -> Entry:
        del payload, builder
        return Entry(
            found.term, found.kind, found.next_offset, NO_CHUNK, 0, found.payload_bytes, -1,
            found.lsn,
        )  # fmt: skip


NO_TAIL: Final = Tail(b"", b"", b"")
NO_CHUNK: Final = Chunk.__new__(Chunk)


def verify(disk: Disk) -> Report:
    """Return what a start would find, and whether every byte below is as it should be."""
    slots = checkpoints(disk)
    problems = [f"{slot.path}: {slot.error}" for slot in slots if slot.error]
    report = Report(slots, [], [], 0, 0, "", problems)
    try:
        start = newest_checkpoint(disk)
    except LayoutError as fault:
        problems.append(str(fault))
        return report
    inspector = Inspector(disk, start)
    try:
        inspector.run(file_heads(disk, WAL_DIRECTORY))
    except (CorruptWalError, LayoutError) as fault:
        problems.append(str(fault))
    images = {image.descriptor.group: image for image in start.groups}
    for group, builder in inspector.builders.items():
        is_newer = builder.image.segments or builder.image.state.flushed_index
        if group in images or is_newer:  # it came, or began anew, after the checkpoint
            images[group] = builder.image
    groups = [_group(disk, image, inspector) for image in images.values()]
    for dump in groups:
        problems += [problem for part in dump.segments for problem in part.problems]
    for builder in inspector.builders.values():
        damage = builder.damage or builder.gap or remainder_damage(builder)
        if damage:
            problems.append(f"{builder.image.descriptor.directory}: {damage}")
    files = [head.path for head in inspector.live]
    return Report(
        slots, groups, files, inspector.count, inspector.next_lsn, inspector.cut, problems
    )  # fmt: skip


def _group(disk: Disk, image: GroupImage, inspector: Inspector) -> GroupDump:
    state = image.state
    builder = inspector.builders.get(image.descriptor.group)
    tail = builder.tail if builder is not None else NO_TAIL
    last = len(image.segments) - 1
    segments = [
        segment(disk, image, row, tail if number == last else NO_TAIL)
        for number, row in enumerate(image.segments)
        if builder is not None  # else it was dropped after the checkpoint
    ]
    return GroupDump(
        image.descriptor.group, image.descriptor.directory, image.descriptor.topic,
        image.descriptor.partition, image.descriptor.revision, state.term, state.voted_for,
        state.start_offset, state.flushed_index, state.flushed_offset, image.applied_index,
        len(image.blob), image.tail_lsn, image.damage, segments,
    )  # fmt: skip
