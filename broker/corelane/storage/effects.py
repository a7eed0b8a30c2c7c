"""What storage asks of a disk while the core runs, and the one answer to each.

Paths are relative to the core's directory. Memory named by (chunk, position, size) is arena
memory that storage holds a reference on until the answer. Whoever performs these (the runtime's
C threads, the simulator's disk) keeps the order of effects that name the same file.
"""

from corelane.model.ids import ChunkId, JobId, Lsn, Position
from corelane.model.record import record

Range = tuple[ChunkId, Position, int]
"""(chunk, position, size) of arena memory."""


@record
class WalWrite:
    """Write *parts* one after another at *position*, durable when answered (O_DSYNC or a sync)."""

    job: JobId
    path: str
    position: Position
    parts: list[Range]
    lsn_upto: Lsn


@record
class WalPrepare:
    """Make a zero-filled file of that size, durable, and only then give it its name."""

    job: JobId
    path: str
    size_bytes: int


@record
class SegmentWrite:
    """Write whole 4 KiB blocks at *position*; makes the file and its directory where absent.

    *truncate_to* >= 0 then cuts the file to that exact size (a sealed segment). Not durable
    before a `Sync` that names the path is answered.
    """

    job: JobId
    path: str
    position: Position
    chunk: ChunkId
    chunk_position: Position
    size_bytes: int
    truncate_to: int


@record
class Read:
    """Read exactly *size_bytes* at *position* into the chunk's beginning."""

    job: JobId
    path: str
    position: Position
    size_bytes: int
    chunk: ChunkId


@record
class SearchRead:
    """Find a row of an `.entries` file, then read the `.log` from where that entry starts.

    *column* and *key* as `corelane_native.entries_search`, over the first *row_count* rows. Reads
    min(*bytes_max*, *log_bytes* - start) bytes into the chunk. The answer's value is (row, start
    position, bytes read); row == *row_count* means not found, and nothing is read.
    """

    job: JobId
    entries_path: str
    row_count: int
    column: int
    key: int
    log_path: str
    log_bytes: int
    bytes_max: int
    chunk: ChunkId


@record
class Sync:
    """Make everything written so far to *paths* (files and directories) durable."""

    job: JobId
    paths: list[str]


@record
class CheckpointWrite:
    """Replace the content of one checkpoint slot, durable when answered."""

    job: JobId
    path: str
    data: bytes


@record
class Unlink:
    """Remove files and then, where now empty, the directories among *paths*; absent is fine."""

    job: JobId
    paths: list[str]


@record
class LinkFiles:
    """Give the first file of each pair the second path as another name, durable when answered.

    Directories are made where absent. A name that this very file has is fine; one that another
    file has is left over from what nobody owns, and taken from it. After an error some are made.
    """

    job: JobId
    pairs: list[tuple[str, str]]


DiskEffect = (
    WalWrite
    | WalPrepare
    | SegmentWrite
    | Read
    | SearchRead
    | Sync
    | CheckpointWrite
    | Unlink
    | LinkFiles
)


@record
class DiskDone:
    """The answer to one effect: *error* is an errno, 0 when all went well."""

    job: JobId
    error: int
    value: tuple[int, int, int] | None = None
