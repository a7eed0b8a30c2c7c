"""Reading WAL files back: which records count, and why the reading stopped.

Invariants (FORMAT.md, W and R):
R1. A record counts if its CRC is right, its generation is its file's, and its lsn is the next.
R2. Where the next record is missing, the log goes on in the file whose first record has that lsn
    and a higher generation (an earlier recovery cut there); otherwise it ends.
R3. An end is corruption, never a torn tail, if any valid record says that more was durable.
"""

import struct
from typing import Final

from corelane.model.ids import GroupId, Index, Lsn, Offset, Term
from corelane.model.record import record
from corelane.storage.disk import Disk
from corelane.storage.layout import (
    BLOCK_BYTES,
    RECORD_HEADER,
    RECORD_HEADER_BYTES,
    WalRecord,
    blocks_down,
)
from corelane_native import crc32c

FLIP_SEARCH_BYTES_MAX: Final = 1 << 20
"""Above this the search for a flipped header bit would take longer than a start may."""


LSNS_AHEAD_MAX: Final = 1 << 32
"""More records than any log holds, yet next to none of the lsns there are."""


class CorruptWalError(Exception):
    """The log is damaged below what was durable; it is never cut there by itself."""


@record
class FileHead:
    """A WAL file and the first record in it; lsn 0 where it holds none."""

    path: str
    size_bytes: int
    generation: int
    first_lsn: int


def parse(data: bytes, at: int) -> WalRecord | None:
    """Return the record at *at* if its header and CRC are right."""
    if at + RECORD_HEADER_BYTES > len(data):
        return None
    words = RECORD_HEADER.unpack_from(data, at)
    crc, length, generation, term, lsn, durable_upto, group, index, next_offset, kind = words
    end = at + RECORD_HEADER_BYTES + length
    if lsn == 0 or kind == 0 or end > len(data):
        return None
    if crc32c(memoryview(data)[at + 4 : end]) != crc:
        return None
    return WalRecord(
        generation, Term(term), Lsn(lsn), Lsn(durable_upto), GroupId(group), Index(index),
        Offset(next_offset), kind, at + RECORD_HEADER_BYTES, length,
    )  # fmt: skip


def file_heads(disk: Disk, directory: str) -> list[FileHead]:
    """Return all WAL files with their first records, in no order that matters."""
    heads = []
    for name in disk.names(directory):
        stem, dot, suffix = name.partition(".")
        if (dot + suffix) != ".wal" or not stem.isdecimal():
            continue  # unfinished, or somebody's copy
        path = f"{directory}/{name}"
        size = disk.size_bytes(path)
        head = first_record(disk, path, size)
        generation, lsn = (head.generation, head.lsn) if head is not None else (0, 0)
        heads.append(FileHead(path, size, generation, lsn))
    return heads


def first_record(disk: Disk, path: str, size_bytes: int) -> WalRecord | None:
    """Return the first record of a file, if there is a valid one."""
    data = disk.read(path, 0, BLOCK_BYTES)
    if len(data) >= RECORD_HEADER_BYTES:
        (length,) = struct.unpack_from("<I", data, 4)
        need = RECORD_HEADER_BYTES + length
        if BLOCK_BYTES < need <= size_bytes:
            data = disk.read(path, 0, need)
    return parse(data, 0)


def read_file(disk: Disk, head: FileHead) -> bytes:
    """Return a whole WAL file."""
    return disk.read(head.path, 0, head.size_bytes)


def record_at(data: bytes, at: int, generation: int, lsn: Lsn) -> WalRecord | None:
    """Return the record *lsn* that starts at *at*, or at the next block where a write ended."""
    found = parse(data, at)
    if found is None and at % BLOCK_BYTES:
        # The rest of a write's last block is zeros: the next write starts the next block.
        found = parse(data, blocks_down(at) + BLOCK_BYTES)
    if found is None or found.generation != generation or found.lsn != lsn:
        return None
    return found


def damaged_record(data: bytes, at: int, generation: int, lsn: Lsn) -> WalRecord | None:
    """Return record *lsn* if only its payload can be bad.

    The next record must be valid at the very place the header points to, and no single bit of the
    header may explain the wrong CRC: then nothing the header says is believed.
    """
    for start in (at, blocks_down(at) + BLOCK_BYTES):
        if start + RECORD_HEADER_BYTES > len(data):
            return None
        words = RECORD_HEADER.unpack_from(data, start)
        _crc, length, found_generation, term, found_lsn, durable_upto, group, index = words[:8]
        if found_generation != generation or found_lsn != lsn or not length:
            continue
        if _is_header_flipped(data[start : start + RECORD_HEADER_BYTES + length]):
            return None
        found = WalRecord(
            generation, Term(term), lsn, Lsn(durable_upto), GroupId(group), Index(index),
            Offset(words[8]), words[9], start + RECORD_HEADER_BYTES, length,
        )  # fmt: skip
        if record_at(data, found.end, generation, Lsn(lsn + 1)) is not None:
            return found
    return None


def _is_header_flipped(record: bytes) -> bool:
    """Whether one flipped bit in the header, the CRC's own aside, is all that is wrong."""
    if len(record) > FLIP_SEARCH_BYTES_MAX:
        return False
    wanted = int.from_bytes(record[:4], "little")
    trial = bytearray(record[4:])
    for at in range(RECORD_HEADER_BYTES - 4):
        for bit in range(8):
            trial[at] ^= 1 << bit
            if crc32c(trial) == wanted:
                return True
            trial[at] ^= 1 << bit
    return False


def durable_claims(data: bytes, begin: int, generation: int, next_lsn: int) -> int:
    """Return the highest lsn that any valid record from *begin* on says was durable.

    Records of an older generation count for nothing. What is wanted here may stand behind a record
    that is not whole, so every block may begin one: bytes of a client's batch, too. Those never hit
    the lsns that are possible (R7). Where the log was read well no search is needed: what a record
    there says is durable has a lower lsn than itself.
    """
    claim = 0
    for block in range(blocks_down(begin), len(data), BLOCK_BYTES):
        at = block
        while _may_count(data, at, generation, next_lsn):
            found = parse(data, at)
            if found is None:
                break
            if found.durable_upto < found.lsn:
                claim = max(claim, found.durable_upto)
            at = found.end
    return claim


def _may_count(data: bytes, at: int, generation: int, next_lsn: int) -> bool:
    """Say whether generation and lsn are possible ones, before a CRC over megabytes is paid for."""
    if at + RECORD_HEADER_BYTES > len(data):
        return False
    words: tuple[int, ...] = RECORD_HEADER.unpack_from(data, at)
    return words[2] >= generation and words[4] <= next_lsn + LSNS_AHEAD_MAX
