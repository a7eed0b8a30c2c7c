"""Reads of entries that memory has no longer, for followers that lag: from segments, in whole ones.

    rows -> the payloads of control entries, if there are any -> batches -> done

What they hold has a limit of its own, an eighth of the arena: clients that take their answers
slowly must not keep a returning node from catching up, nor catching up slow down clients.
"""

# performance-critical: see STYLE.md

import errno
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from corelane.model.ids import ENTRY_KIND_MAX, ChunkId, Index, Position, RecordKind
from corelane.model.limits import COMMAND_BYTES_MAX, READ_BYTES_MAX, READS_WAITING_MAX
from corelane.model.record import record
from corelane.storage.effects import DiskDone, Read
from corelane.storage.entries import ENTRY_HEAD, ENTRY_HEAD_BYTES, ColdEntries, EntryPart
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import CONTROL_HEADER, ROW, ROW_BYTES
from corelane.storage.news import NOTHING, News
from corelane.storage.segments import Stream
from corelane_native import crc32c

if TYPE_CHECKING:
    from corelane.storage.store import CoreStore

CONTROL_READ_BYTES: Final = 256 * 1024
CONTROL_MARK_BYTES: Final = 64 * 1024
"""Between places of a `.control` file that are remembered, so that it is not read from its start
for each message."""
_CRC_BYTES: Final = 4
_BATCH: Final = struct.Struct(">qiixI")
"""How a record batch begins: base offset, size of what follows it, epoch, CRC of the rest."""
_SIZE_END: Final = 12


@record
class EntriesRead:
    """Entries from the one asked for to *last_index*; the receiver owns one reference on *chunk*.

    *error* is an errno: the segment is damaged. `is_gone`: what was asked for was trimmed or
    replaced meanwhile. Of both there are no parts.
    """

    last_index: Index
    size_bytes: int
    parts: list[EntryPart]
    chunk: ChunkId
    error: int = 0
    is_gone: bool = False


EntriesDone = Callable[[EntriesRead], None]


class Shipping:
    """The reads for followers of one core: those under way, and those that wait for memory."""

    def __init__(self, store: "CoreStore") -> None:
        self._store = store
        self._waiting: deque[tuple[GroupLog, ColdEntries, EntriesDone]] = deque()
        self._held: dict[ChunkId, int] = {}
        self.held_bytes = 0

    @property
    def bytes_max(self) -> int:
        """What reads for followers may hold together, until it is sent."""
        return self._store.arena_bytes // 8

    @property
    def is_waiting(self) -> bool:
        """Whether a read waits for memory."""
        return bool(self._waiting)

    def read(self, log: GroupLog, cold: ColdEntries, done: EntriesDone) -> None:
        """Have entries read; *done* is called now or in a later turn, once.

        Raises MemoryError when too many wait already: ask again later.
        """
        if len(self._waiting) >= READS_WAITING_MAX:
            raise MemoryError("too many reads for followers wait for memory")
        self._waiting.append((log, cold, done))
        self.advance()

    def advance(self) -> None:
        """Begin the reads that there is memory for."""
        while self._waiting:
            log, cold, done = self._waiting[0]
            bytes_max = min(cold.bytes_max, READ_BYTES_MAX, self.bytes_max // 2)
            chunk = self._memory(_room(cold, bytes_max))
            if chunk is None:
                return
            self._waiting.popleft()
            limited = ColdEntries(cold.segment, cold.first_index, cold.last_index, bytes_max)
            _Shipment(self._store, log, limited, chunk, done).begin()

    def take_back(self) -> None:
        """Forget the chunks that were sent; `Chunks.take_back` has done so, too."""
        references = self._store.arena.references
        for chunk in [chunk for chunk in self._held if not references(chunk)]:
            self.held_bytes -= self._held.pop(chunk)
        assert self.held_bytes >= 0

    def _memory(self, room: int) -> ChunkId | None:
        """Return a chunk; one read is always allowed, however large."""
        if self._held and self.held_bytes + room > self.bytes_max:
            return None
        try:
            chunk = self._store.chunks.take(room)
        except MemoryError:
            return None
        self._store.chunks.lend(chunk)
        self._held[chunk] = self._store.arena.capacity(chunk)
        self.held_bytes += self._held[chunk]
        return chunk


def _room(cold: ColdEntries, bytes_max: int) -> int:
    rows_bytes = (cold.last_index - cold.first_index + 2) * ROW_BYTES
    batches = min(bytes_max, cold.segment.log.size_bytes)
    return max(rows_bytes, batches, cold.segment.batch_bytes_max)


class _DamagedError(Exception):
    """What a segment says of its entries cannot be."""


class _Shipment:
    """One read: the state between its steps, each of which is a read of one file at most."""

    def __init__(
        self,
        store: "CoreStore",
        log: GroupLog,
        cold: ColdEntries,
        chunk: ChunkId,
        done: EntriesDone,
    ) -> None:
        self.store = store
        self.log = log
        self.segment = cold.segment
        self.first_index = cold.first_index
        self.last_index = cold.last_index
        self.bytes_max = cold.bytes_max
        self.chunk = chunk
        self.capacity = store.arena.capacity(chunk)
        self.done = done
        self.start = 0  # of the first entry in `.log`
        self.rows: list[tuple[int, int]] = []  # (kind, end position) of each entry
        self.expected: list[tuple[int, int]] = []  # (base offset, term) of each entry
        self.payloads: dict[int, bytes] = {}  # of control entries, by index
        self.wanted: deque[int] = deque()  # control entries that are not found yet
        self.control_at = 0  # where the next byte of `.control` comes from
        self.control = bytearray()  # what was read of it and not used

    # --- steps ---

    def begin(self) -> None:
        """Read the rows, and that of the entry before the first."""
        start = (self.first_index - self.segment.base_index) * ROW_BYTES
        end = (self.last_index - self.segment.base_index + 2) * ROW_BYTES
        self._read(self.segment.rows, start, end, self._rows_read)

    def _rows_read(self, data: bytes) -> None:
        position, offset = 0, int(self.segment.base_offset)
        if self.first_index > self.segment.base_index:  # else row 0 is the header
            offset, position = ROW.unpack_from(data, 0)[:2]
        self.start = position
        total = 0
        for next_offset, end, _newest, term, kind in ROW.iter_unpack(data[ROW_BYTES:]):
            size = end - position
            is_batch = kind == RecordKind.BATCH
            if not 0 < kind <= ENTRY_KIND_MAX or size < 0 or is_batch != (size > 0):
                raise _DamagedError
            total += ENTRY_HEAD_BYTES + size
            if self.rows and total > self.bytes_max:
                break
            if not is_batch:
                self.wanted.append(self.first_index + len(self.rows))
            self.rows.append((kind, end))
            self.expected.append((offset, term))
            position, offset = end, next_offset
        if position - self.start > self.capacity:
            raise _DamagedError  # no batch of this segment is so large
        if self.wanted:
            self.control_at = _control_near(self.segment.control_marks, self.wanted[0])
        self._go_on()

    def _go_on(self) -> None:
        """Read more of `.control` while it is needed, then the batches."""
        stream = self.segment.control
        if self.wanted:
            end = min(self.control_at + min(CONTROL_READ_BYTES, self.capacity), stream.size_bytes)
            if end <= self.control_at:
                raise _DamagedError
            start, self.control_at = self.control_at, end
            self._read(stream, start, end, self._control_read)
            return
        self._fit()
        self._read(self.segment.log, self.start, self.rows[-1][1], None)

    def _control_read(self, data: bytes) -> None:
        """Take the wanted entries out of a piece of `.control`."""
        buffer = self.control
        buffer += data
        held = len(buffer)
        origin = self.control_at - held
        at = 0
        while self.wanted and at + CONTROL_HEADER.size <= len(buffer):
            index, kind, size = CONTROL_HEADER.unpack_from(buffer, at)
            payload_at = at + CONTROL_HEADER.size
            end = payload_at + size + _CRC_BYTES
            if index > self.wanted[0] or size > COMMAND_BYTES_MAX:
                raise _DamagedError
            if index == self.wanted[0]:
                if end > len(buffer):
                    break
                crc = int.from_bytes(buffer[payload_at + size : end], "little")
                is_right = kind == self.rows[index - self.first_index][0]
                if crc32c(buffer[at : payload_at + size]) != crc or not is_right:
                    raise _DamagedError
                self.payloads[self.wanted.popleft()] = bytes(buffer[payload_at : payload_at + size])
            _mark(self.segment.control_marks, index, origin + at)
            at = end
        del buffer[:at]
        if at > held:  # passed over more than was read
            self.control_at = origin + at
        if sum(map(len, self.payloads.values())) > self.bytes_max:
            self.wanted.clear()
        self._go_on()

    def _fit(self) -> None:
        """Keep the entries that are within the limit with their control payloads."""
        total, position = 0, self.start
        for number, (kind, end) in enumerate(self.rows):
            payload = self.payloads.get(self.first_index + number)
            is_known = kind == RecordKind.BATCH or payload is not None
            total += ENTRY_HEAD_BYTES + end - position + len(payload or b"")
            if number and (total > self.bytes_max or not is_known):
                del self.rows[number:]
                return
            position = end

    def _batches_read(self, in_chunk: int, rest: bytes) -> None:
        """Hand out the entries; *rest* is what `.log` has in memory behind the chunk's bytes."""
        parts: list[EntryPart] = []
        total, at = 0, 0
        for number, (kind, end_position) in enumerate(self.rows):
            end = end_position - self.start
            if kind != RecordKind.BATCH:
                payload = self.payloads[self.first_index + number]
                parts.append(ENTRY_HEAD.pack(kind, len(payload)) + payload)
                total += ENTRY_HEAD_BYTES + len(payload)
                continue
            batch: bytes | memoryview = rest[max(0, at - in_chunk) : max(0, end - in_chunk)]
            if at < in_chunk:
                view = self.store.arena.view(self.chunk, at, min(end, in_chunk) - at)
                batch = bytes(view) + batch if batch else view
            if not is_batch(batch, *self.expected[number]):
                raise _DamagedError
            parts.append(ENTRY_HEAD.pack(kind, end - at))
            if at < in_chunk:
                parts.append((self.chunk, Position(at), min(end, in_chunk) - at))
            if end > in_chunk:
                parts.append(rest[max(0, at - in_chunk) : end - in_chunk])
            total += ENTRY_HEAD_BYTES + end - at
            at = end
        last = Index(self.first_index + len(self.rows) - 1)
        self.done(EntriesRead(last, total, parts, self.chunk))

    # --- reading ---

    def _read(
        self, stream: Stream, start: int, end: int, then: Callable[[bytes], None] | None
    ) -> None:
        """Read a range of a stream, from its file and from what is in memory of it.

        *then* gets the bytes; without it the file's part stays in the chunk.
        """
        frontier, remainder = stream.frontier, stream.remainder
        size = max(0, min(end, frontier) - start)
        rest = remainder[max(0, start - frontier) : max(0, end - frontier)]

        def answered(done: DiskDone) -> News:
            if done.error:
                self._failed(done.error)
            elif not self._is_there():
                self._failed(0)
            else:
                self._step(size, rest, then)
            return NOTHING

        if size == 0:
            self._step(0, rest, then)
            return
        store = self.store
        path = self.segment.path(stream)
        store.emit(Read(store.job(answered), path, Position(start), size, self.chunk))

    def _step(self, size: int, rest: bytes, then: Callable[[bytes], None] | None) -> None:
        try:
            if then is None:
                self._batches_read(size, rest)
            else:
                then(bytes(self.store.arena.view(self.chunk, 0, size)) + rest)
        except _DamagedError:
            self._failed(errno.EIO)

    def _is_there(self) -> bool:
        return not self.log.is_dropped and self.segment in self.log.segments.items

    def _failed(self, error: int) -> None:
        is_gone = not self._is_there()
        last = Index(self.first_index - 1)
        self.done(EntriesRead(last, 0, [], self.chunk, 0 if is_gone else error, is_gone))


def is_batch(data: bytes | memoryview, base_offset: int, term: int) -> bool:
    """Whether *data* is the batch that the leader of *term* put at *base_offset*, bit by bit."""
    if len(data) <= _BATCH.size:
        return False
    offset, size, epoch, crc = _BATCH.unpack_from(data)
    if (offset, size, epoch) != (base_offset, len(data) - _SIZE_END, term):
        return False
    return bool(crc32c(data[_BATCH.size :]) == crc)


def _control_near(marks: list[tuple[int, int]], index: int) -> int:
    """Return a place at or before that of control entry *index*."""
    at = bisect_right(marks, index, key=lambda mark: mark[0]) - 1
    return marks[at][1] if at >= 0 else 0


def _mark(marks: list[tuple[int, int]], index: int, position: int) -> None:
    """Remember where an entry lies, if it is far from those that are remembered."""
    if position >= (marks[-1][1] if marks else 0) + CONTROL_MARK_BYTES:
        marks.append((index, position))
