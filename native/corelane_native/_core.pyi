# Types of the cffi extension: the functions of core.cdef.h, as this package calls them.

from typing import Final, TypeAlias, overload

from corelane_native.memory import Readable

class ffi:  # noqa: N801 - the name cffi gives it
    NULL: Final[ffi.CData]

    class CData:
        def __len__(self) -> int: ...
        def __int__(self) -> int: ...
        @overload
        def __getitem__(self, index: slice, /) -> bytes: ...
        @overload
        def __getitem__(self, index: int, /) -> int: ...
        def __add__(self, count: int, /) -> ffi.CData: ...

    class buffer:  # noqa: N801 - the name cffi gives it
        def __init__(self, data: ffi.CData, size: int = ...) -> None: ...
        def __len__(self) -> int: ...
        def __getitem__(self, index: slice, /) -> bytes: ...
        def __setitem__(self, index: slice, data: bytes, /) -> None: ...
        def __buffer__(self, flags: int, /) -> memoryview: ...

    @staticmethod
    def new(declaration: str, value: object = ...) -> ffi.CData: ...
    @staticmethod
    def cast(declaration: str, value: ffi.CData | int) -> ffi.CData: ...
    @staticmethod
    def gc(data: ffi.CData, destructor: object) -> ffi.CData: ...
    @staticmethod
    def from_buffer(buffer: Readable) -> ffi.CData: ...
    @staticmethod
    def string(data: ffi.CData, size_max: int = ...) -> bytes: ...
    @staticmethod
    def sizeof(data: ffi.CData | str) -> int: ...

_Memory: TypeAlias = bytes | ffi.CData

class lib:  # noqa: N801 - the name cffi gives it
    CL_BATCH_ABSENT: Final[int]
    CL_BATCH_SHORT: Final[int]
    CL_BATCH_CUT: Final[int]
    CL_BATCH_TRAILING: Final[int]
    CL_BATCH_OLD_FORMAT: Final[int]
    CL_BATCH_UNKNOWN_FORMAT: Final[int]
    CL_BATCH_TOO_LARGE: Final[int]
    CL_BATCH_CRC_WRONG: Final[int]
    CL_BATCH_BASE_OFFSET_SET: Final[int]
    CL_BATCH_COUNT_WRONG: Final[int]
    CL_BATCH_CONTROL_SET: Final[int]
    CL_BATCH_TIMESTAMP_TYPE_SET: Final[int]
    CL_BATCH_DELETE_HORIZON_SET: Final[int]
    CL_BATCH_UNKNOWN_CODEC: Final[int]
    CL_BATCH_ZSTD_TOO_EARLY: Final[int]
    CL_BATCH_SEQUENCE_NEGATIVE: Final[int]
    CL_BATCH_EPOCH_NEGATIVE: Final[int]
    CL_BATCH_TRANSACTION_WITHOUT_PRODUCER: Final[int]
    CL_RECORD_LENGTH_WRONG: Final[int]
    CL_RECORD_TIMESTAMP_WRONG: Final[int]
    CL_RECORD_DELTA_WRONG: Final[int]
    CL_RECORD_KEY_WRONG: Final[int]
    CL_RECORD_VALUE_WRONG: Final[int]
    CL_RECORD_HEADERS_WRONG: Final[int]
    CL_RECORD_TRAILING: Final[int]
    CL_RECORDS_TRAILING: Final[int]
    CL_WRITE_DIRECT: Final[int]
    CL_WRITE_DSYNC: Final[int]
    CL_WRITE_CREATE: Final[int]
    CL_READ_PARTIAL: Final[int]
    CL_JOB_WRITE: Final[int]
    CL_JOB_READ: Final[int]
    CL_JOB_SEARCH_READ: Final[int]
    CL_JOB_SYNC: Final[int]
    CL_JOB_SYNC_FILESYSTEM: Final[int]
    CL_JOB_ZEROFILL: Final[int]
    CL_JOB_WRITE_FILE: Final[int]
    CL_JOB_UNLINK: Final[int]
    CL_JOB_RENAME: Final[int]
    CL_JOB_MAKE_DIRECTORY: Final[int]
    CL_JOB_TRUNCATE: Final[int]
    CL_JOB_FORGET: Final[int]
    CL_JOB_LINK: Final[int]
    CL_NET_FRAME: Final[int]
    CL_NET_ACCEPTED: Final[int]
    CL_NET_CLOSED: Final[int]
    CL_NET_WATCH: Final[int]
    CL_NET_DRAINED: Final[int]
    CL_CLOSED_EOF: Final[int]
    CL_CLOSED_RESET: Final[int]
    CL_CLOSED_FRAME_TOO_LARGE: Final[int]
    CL_CLOSED_FRAME_NEGATIVE: Final[int]
    CL_CLOSED_FRAME_SHORT: Final[int]
    CL_CLOSED_HTTP: Final[int]
    CL_CLOSED_TLS: Final[int]
    CL_CLOSED_STALLED: Final[int]
    CL_CLOSED_BACKLOG: Final[int]
    CL_CLOSED_MEMORY: Final[int]
    CL_CHECK_REFUSE_ZSTD: Final[int]
    CL_CHECK_STORED: Final[int]
    CL_CHECK_NO_WALK: Final[int]

    CL_RECEIVED_CUT: Final[int]
    CL_RECEIVED_KIND_WRONG: Final[int]
    CL_RECEIVED_OFFSET_WRONG: Final[int]
    CL_RECEIVED_TERM_WRONG: Final[int]

    @staticmethod
    def cl_source_digest() -> ffi.CData: ...
    @staticmethod
    def cl_crc32c(crc: int, data: _Memory, size: int, /) -> int: ...
    @staticmethod
    def cl_crc32c_select(portable: int, /) -> int: ...
    @staticmethod
    def cl_arena_new(bytes_max: int, chunk_bytes: int, /) -> ffi.CData: ...
    @staticmethod
    def cl_arena_free(arena: ffi.CData, /) -> None: ...
    @staticmethod
    def cl_arena_chunk_new(arena: ffi.CData, bytes_min: int, /) -> int: ...
    @staticmethod
    def cl_arena_address(arena: ffi.CData, chunk: int, /) -> int: ...
    @staticmethod
    def cl_arena_capacity(arena: ffi.CData, chunk: int, /) -> int: ...
    @staticmethod
    def cl_arena_references(arena: ffi.CData, chunk: int, /) -> int: ...
    @staticmethod
    def cl_arena_retain(arena: ffi.CData, chunk: int, /) -> int: ...
    @staticmethod
    def cl_arena_release(arena: ffi.CData, chunk: int, /) -> int: ...
    @staticmethod
    def cl_arena_bytes_in_use(arena: ffi.CData, /) -> int: ...
    @staticmethod
    def cl_arena_bytes_mapped(arena: ffi.CData, /) -> int: ...
    @staticmethod
    def cl_arena_trim(arena: ffi.CData, bytes_kept: int, /) -> None: ...
    @staticmethod
    def cl_arena_put_record(
        arena: ffi.CData,
        chunk: int,
        position: int,
        record: ffi.CData,
        payload_address: int,
        payload_bytes: int,
        /,
    ) -> int: ...
    @staticmethod
    def cl_arena_put_batch(
        arena: ffi.CData,
        chunk: int,
        position: int,
        record: ffi.CData,
        payload_address: int,
        payload_bytes: int,
        /,
    ) -> int: ...
    @staticmethod
    def cl_arena_pad(arena: ffi.CData, chunk: int, position: int, /) -> int: ...
    @staticmethod
    def cl_arena_write(
        arena: ffi.CData, chunk: int, position: int, data: _Memory, size: int, /
    ) -> int: ...
    @staticmethod
    def cl_arena_gather(
        arena: ffi.CData, chunk: int, position: int, ranges: _Memory, range_count: int, /
    ) -> int: ...
    @staticmethod
    def cl_received_check(
        address: int, size: int, term: int, run: ffi.CData, rows: ffi.CData, rows_max: int, /
    ) -> None: ...
    @staticmethod
    def cl_arena_put_received(
        arena: ffi.CData,
        chunk: int,
        position: int,
        limit: int,
        record: ffi.CData,
        address: int,
        rows: ffi.CData,
        row_count: int,
        taken: ffi.CData,
        /,
    ) -> int: ...
    @staticmethod
    def cl_entries_search(rows_address: int, row_count: int, column: int, key: int, /) -> int: ...
    @staticmethod
    def cl_check_batch(
        address: int, size: int, bytes_max: int, flags: int, row: ffi.CData, /
    ) -> None: ...
    @staticmethod
    def cl_walk_records(
        records: _Memory,
        size: int,
        record_count: int,
        base_timestamp: int,
        timestamp_wanted: int,
        walk: ffi.CData,
        /,
    ) -> None: ...
    @staticmethod
    def cl_batches_run(
        address: int,
        size: int,
        offset: int,
        offset_max: int,
        bytes_max: int,
        first_always: int,
        run: ffi.CData,
        /,
    ) -> None: ...
    @staticmethod
    def cl_decode_plain(
        frames: bytes,
        count: int,
        version: int,
        heads: ffi.CData,
        rows: ffi.CData,
        rows_max: int,
        runs: ffi.CData,
        run_count: ffi.CData,
        /,
    ) -> int: ...
    @staticmethod
    def cl_arena_put_plain(
        arena: ffi.CData,
        chunk: int,
        position: int,
        limit: int,
        record: ffi.CData,
        heads: ffi.CData,
        rows: ffi.CData,
        count: int,
        entries: ffi.CData,
        size_bytes: ffi.CData,
        /,
    ) -> int: ...
    @staticmethod
    def cl_tail_find(entries: ffi.CData, count: int, offset: int, /) -> int: ...
    @staticmethod
    def cl_tail_same_chunk(entries: ffi.CData, count: int, /) -> int: ...
    @staticmethod
    def cl_tail_sum(entries: ffi.CData, count: int, sums: ffi.CData, /) -> None: ...
    @staticmethod
    def cl_tail_collect(
        entries: ffi.CData, count: int, found: ffi.CData, rows: ffi.CData, /
    ) -> None: ...
    @staticmethod
    def cl_arena_gather_batches(
        arena: ffi.CData, chunk: int, position: int, entries: ffi.CData, count: int, /
    ) -> int: ...
    @staticmethod
    def cl_plain_answers(
        answer: bytes,
        answer_bytes: int,
        offset_at: int,
        heads: ffi.CData,
        rows: ffi.CData,
        count: int,
        base_offset: int,
        out: ffi.CData,
        /,
    ) -> int: ...
    @staticmethod
    def cl_arena_put_batches(
        arena: ffi.CData,
        chunk: int,
        position: int,
        record: ffi.CData,
        puts: ffi.CData,
        count: int,
        /,
    ) -> int: ...
    @staticmethod
    def cl_decode_produce(
        address: int,
        size: int,
        body_at: int,
        version: int,
        out: ffi.CData,
        rows: ffi.CData,
        rows_max: int,
        /,
    ) -> int: ...
    @staticmethod
    def cl_decode_fetch(
        address: int,
        size: int,
        body_at: int,
        version: int,
        out: ffi.CData,
        rows: ffi.CData,
        rows_max: int,
        /,
    ) -> int: ...
    @staticmethod
    def cl_worker_new(
        name: bytes, directory: bytes, unbound: int, niceness: int, error: ffi.CData, /
    ) -> ffi.CData: ...
    @staticmethod
    def cl_worker_free(worker: ffi.CData, /) -> None: ...
    @staticmethod
    def cl_worker_eventfd(worker: ffi.CData, /) -> int: ...
    @staticmethod
    def cl_worker_submit(
        worker: ffi.CData,
        job: ffi.CData,
        paths: _Memory,
        paths_bytes: int,
        path_count: int,
        parts: _Memory,
        part_count: int,
        /,
    ) -> int: ...
    @staticmethod
    def cl_worker_run(
        worker: ffi.CData,
        job: ffi.CData,
        paths: _Memory,
        paths_bytes: int,
        path_count: int,
        parts: _Memory,
        part_count: int,
        done: ffi.CData,
        /,
    ) -> int: ...
    @staticmethod
    def cl_worker_reap(worker: ffi.CData, done: ffi.CData, done_max: int, /) -> int: ...
    @staticmethod
    def cl_net_new(
        arena: ffi.CData,
        conns_max: int,
        frame_bytes_max: int,
        receive_bytes_max: int,
        stall_ms: int,
        error: ffi.CData,
        /,
    ) -> ffi.CData: ...
    @staticmethod
    def cl_net_free(net: ffi.CData, /) -> None: ...
    @staticmethod
    def cl_net_fd(net: ffi.CData, /) -> int: ...
    @staticmethod
    def cl_net_listen(net: ffi.CData, fd: int, listener: int, /) -> int: ...
    @staticmethod
    def cl_net_watch(net: ffi.CData, fd: int, token: int, /) -> int: ...
    @staticmethod
    def cl_net_unlisten(net: ffi.CData, fd: int, /) -> int: ...
    @staticmethod
    def cl_net_add(net: ffi.CData, fd: int, /) -> int: ...
    @staticmethod
    def cl_net_add_link(net: ffi.CData, read_fd: int, write_fd: int, /) -> int: ...
    @staticmethod
    def cl_net_poll(
        net: ffi.CData,
        timeout_us: int,
        events: ffi.CData,
        events_max: int,
        others: ffi.CData,
        /,
    ) -> int: ...
    @staticmethod
    def cl_net_send(
        net: ffi.CData,
        conn: int,
        heads: _Memory,
        heads_bytes: int,
        ranges: _Memory,
        range_count: int,
        /,
    ) -> int: ...
    @staticmethod
    def cl_net_close(net: ffi.CData, conn: int, /) -> None: ...
    @staticmethod
    def cl_net_pause(net: ffi.CData, conn: int, /) -> None: ...
    @staticmethod
    def cl_net_resume(net: ffi.CData, conn: int, /) -> None: ...
    @staticmethod
    def cl_net_hold_produce(net: ffi.CData, held: int, /) -> None: ...
    @staticmethod
    def cl_net_idle(
        net: ffi.CData,
        idle_ms: int,
        partial_ms: int,
        unsent_ms: int,
        conns: ffi.CData,
        conns_max: int,
        /,
    ) -> int: ...
    @staticmethod
    def cl_net_stats_read(net: ffi.CData, stats: ffi.CData, /) -> None: ...
