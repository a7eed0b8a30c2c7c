"""The arena: aligned chunks of memory with reference counts, where WAL records are made."""

# performance-critical: see STYLE.md

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Final, NoReturn

from corelane_native._core import ffi, lib
from corelane_native.memory import Readable

CHUNK_BYTES: Final = 1024 * 1024
PUTS_MAX: Final = 256
"""Batches that `Arena.put_batches` takes at once, at most."""

_EINVAL: Final = -22
_RECORD: Final = struct.Struct("@IIIIQQQQqq")
_PUT: Final = struct.Struct("@QQqqQIII4x")
_PARTS_CACHED_MAX: Final = 256


@lru_cache(_PARTS_CACHED_MAX)
def _ranges(count: int) -> struct.Struct:
    return struct.Struct("@" + "qQQ" * count)


class Puts:
    """Batches that are to be put at once; used again and again."""

    __slots__ = ("_pack", "buffer", "handle")

    def __init__(self) -> None:
        self.handle = ffi.new("cl_put[]", PUTS_MAX)
        self.buffer = ffi.buffer(self.handle)
        self._pack = _PUT.pack_into

    def set(
        self,
        number: int,
        group: int,
        index: int,
        base_offset: int,
        append_time_ms: int,
        address: int,
        size_bytes: int,
        term: int,
        record_count: int,
    ) -> None:
        """Say what the batch of that number is; its memory is read by `put_batches`."""
        self._pack(
            self.buffer, number * _PUT.size, group, index, base_offset, append_time_ms,
            address, size_bytes, term, record_count,
        )  # fmt: skip


class Arena:
    """Chunks in one thread's care; every chunk is alive while somebody holds a reference.

    Memory only: no clock, file or thread, so the simulator uses it too. A chunk that nobody
    holds, and anything that does not fit its chunk, is the caller's bug: AssertionError.
    """

    __slots__ = ("_arena", "_pack", "_record", "_record_buffer")

    def __init__(self, bytes_max: int, chunk_bytes: int = CHUNK_BYTES) -> None:
        """Map at most *bytes_max* (held and kept for reuse together); both multiples of 4096."""
        assert chunk_bytes > 0
        assert chunk_bytes % 4096 == 0
        assert bytes_max >= chunk_bytes
        arena = lib.cl_arena_new(bytes_max, chunk_bytes)
        if arena == ffi.NULL:
            raise MemoryError("no memory for the arena's table")
        self._arena = ffi.gc(arena, lib.cl_arena_free)
        self._record = ffi.new("cl_record *")
        self._record_buffer = ffi.buffer(self._record)
        self._pack = _RECORD.pack_into

    @property
    def handle(self) -> ffi.CData:
        """The C object, for `Net` only."""
        return self._arena

    @property
    def bytes_in_use(self) -> int:
        """Bytes of chunks that somebody holds."""
        return lib.cl_arena_bytes_in_use(self._arena)

    @property
    def bytes_mapped(self) -> int:
        """Bytes taken from the system: chunks held, and chunks kept for reuse."""
        return lib.cl_arena_bytes_mapped(self._arena)

    def chunk_new(self, bytes_min: int) -> int:
        """Return a new chunk's id with one reference; MemoryError above the arena's limit.

        The chunk has at least *bytes_min* and at least the arena's chunk size; its content is
        arbitrary. Ids are never used twice.
        """
        chunk = lib.cl_arena_chunk_new(self._arena, bytes_min)
        if chunk < 0:
            raise MemoryError(f"the arena is full: {self.bytes_in_use} bytes in use")
        return chunk

    def address(self, chunk: int) -> int:
        """Return where the chunk's first byte lies."""
        address = lib.cl_arena_address(self._arena, chunk)
        assert address, f"chunk {chunk} is not held"
        return address

    def capacity(self, chunk: int) -> int:
        """Return the chunk's size in bytes."""
        capacity = lib.cl_arena_capacity(self._arena, chunk)
        assert capacity > 0, f"chunk {chunk} is not held"
        return capacity

    def references(self, chunk: int) -> int:
        """Return how many references hold the chunk; 0 for a chunk that is gone."""
        return max(0, lib.cl_arena_references(self._arena, chunk))

    def retain(self, chunk: int) -> None:
        """Take one more reference."""
        status = lib.cl_arena_retain(self._arena, chunk)
        assert status == 0, f"chunk {chunk} is not held"

    def release(self, chunk: int) -> None:
        """Give one reference back; with the last one the chunk and its id are gone."""
        status = lib.cl_arena_release(self._arena, chunk)
        assert status == 0, f"chunk {chunk} is not held"

    def trim(self, bytes_kept: int = 0) -> None:
        """Give memory of chunks kept for reuse back to the system, all but *bytes_kept*."""
        lib.cl_arena_trim(self._arena, bytes_kept)

    def put_record(
        self,
        chunk: int,
        position: int,
        kind: int,
        generation: int,
        term: int,
        lsn: int,
        durable_upto: int,
        group: int,
        index: int,
        next_offset: int,
        payload_address: int,
        payload_bytes: int,
    ) -> int:
        """Write one WAL record (header, copy of the payload, CRC) and return the bytes it took.

        *position* is a multiple of 8, and so is the answer.
        """
        self._pack(
            self._record_buffer, 0,
            kind, generation, term, 0, lsn, durable_upto, group, index, next_offset, -1,
        )  # fmt: skip
        size = lib.cl_arena_put_record(
            self._arena, chunk, position, self._record, payload_address, payload_bytes
        )
        return size if size > 0 else self._refused(size, chunk, position, payload_bytes)

    def put_batch(
        self,
        chunk: int,
        position: int,
        generation: int,
        term: int,
        lsn: int,
        durable_upto: int,
        group: int,
        index: int,
        base_offset: int,
        payload_address: int,
        payload_bytes: int,
        record_count: int,
        append_time_ms: int,
    ) -> int:
        """Write a Kafka batch as a WAL record of kind BATCH and return the bytes it took.

        Base offset and leader epoch (= *term*) are stamped into the copy; *append_time_ms* >= 0
        makes it a LogAppendTime batch, -1 leaves its timestamps. The record's next offset is
        *base_offset* + *record_count*.
        """
        self._pack(
            self._record_buffer, 0,
            1, generation, term, record_count, lsn, durable_upto, group, index, base_offset,
            append_time_ms,
        )  # fmt: skip
        size = lib.cl_arena_put_batch(
            self._arena, chunk, position, self._record, payload_address, payload_bytes
        )
        return size if size > 0 else self._refused(size, chunk, position, payload_bytes)

    def put_batches(
        self,
        chunk: int,
        position: int,
        generation: int,
        lsn: int,
        durable_upto: int,
        puts: Puts,
        count: int,
    ) -> int:
        """Write the first *count* of *puts*, as `put_batch` does, one behind another.

        *lsn* is the first one's. Returns the bytes they took together.
        """
        assert 0 < count <= PUTS_MAX
        self._pack(self._record_buffer, 0, 1, generation, 0, 0, lsn, durable_upto, 0, 0, 0, -1)
        size = lib.cl_arena_put_batches(
            self._arena, chunk, position, self._record, puts.handle, count
        )
        return size if size > 0 else self._refused(size, chunk, position, count)

    def pad(self, chunk: int, position: int) -> int:
        """Zero-fill from *position* to the next multiple of 4096, and return that."""
        end = lib.cl_arena_pad(self._arena, chunk, position)
        return end if end >= 0 else self._refused(end, chunk, position, 0)

    def write(self, chunk: int, position: int, data: Readable) -> None:
        """Copy *data* into the chunk."""
        source = data if isinstance(data, bytes) else ffi.from_buffer(data)
        status = lib.cl_arena_write(self._arena, chunk, position, source, len(source))
        if status < 0:
            self._refused(status, chunk, position, len(source))

    def copy(self, chunk: int, address: int, size: int) -> None:
        """Copy *size* bytes at *address* to the chunk's beginning."""
        source = ffi.cast("char *", address)
        status = lib.cl_arena_write(self._arena, chunk, 0, source, size)
        if status < 0:
            self._refused(status, chunk, 0, size)

    def view(self, chunk: int, position: int, size: int) -> memoryview:
        """Return the bytes themselves, writable; they are valid while a reference is held."""
        assert position >= 0
        assert size >= 0
        assert position + size <= self.capacity(chunk)
        start = ffi.cast("char *", self.address(chunk) + position)
        return memoryview(ffi.buffer(start, size))

    def gather(self, chunk: int, position: int, parts: Sequence[tuple[int, int, int]]) -> int:
        """Copy *parts* (chunk, position, size) one after another; return the bytes copied."""
        ranges = _ranges(len(parts)).pack(*chain.from_iterable(parts))
        copied = lib.cl_arena_gather(self._arena, chunk, position, ranges, len(parts))
        return copied if copied >= 0 else self._refused(copied, chunk, position, 0)

    def _refused(self, status: int, chunk: int, position: int, size: int) -> NoReturn:
        if status == _EINVAL:
            raise AssertionError(f"chunk {chunk} is not held, or {position} is not aligned")
        raise AssertionError(
            f"{size} bytes at {position} do not fit chunk {chunk} of {self.capacity(chunk)} bytes"
        )
