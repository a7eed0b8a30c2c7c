/* The interface of the C core: everything Python may call, and nothing else. The only comments
 * here are contracts. core.h includes this file after <stdint.h>; build_core.py feeds the same
 * text to cffi, so there is no second copy of any prototype.
 *
 * Addresses travel as uint64_t. Memory is borrowed for the call unless a comment says otherwise.
 * Functions that can fail return a negative errno. Every call releases the interpreter lock;
 * nothing here touches a Python object. An arena and a net belong to one thread. */

/* ---- CRC-32C ------------------------------------------------------------------------------ */

/* Return the CRC-32C of data, continuing from crc (0 to start). */
uint32_t cl_crc32c(uint32_t crc, const void *data, size_t size);

/* Choose the portable code (1) or the best this CPU has (0), for tests. Returns 1 if the portable
 * code is in use now. */
int cl_crc32c_select(int portable);

/* ---- Arena: aligned chunks with reference counts ------------------------------------------- */

typedef struct cl_arena cl_arena;

/* The words of a WAL record that its caller decides; see storage/FORMAT.md for the 64 bytes. */
typedef struct {
    uint32_t kind;
    uint32_t generation;
    uint32_t term;
    uint32_t record_count; /* batches only */
    uint64_t lsn;
    uint64_t durable_upto;
    uint64_t group;
    uint64_t index;
    int64_t offset;         /* next offset; of a batch: its base offset */
    int64_t append_time_ms; /* batches only; -1 leaves the producer's timestamps */
} cl_record;

/* A run of bytes inside a chunk. */
typedef struct {
    int64_t chunk;
    uint64_t position;
    uint64_t size;
} cl_range;

/* Make an arena that maps at most bytes_max; NULL when memory is short. Both sizes are multiples
 * of 4096. Nothing is mapped before the first chunk. */
cl_arena *cl_arena_new(uint64_t bytes_max, uint64_t chunk_bytes);

/* Unmap everything, whatever references are left. */
void cl_arena_free(cl_arena *arena);

/* Return a chunk with one reference and at least bytes_min (and chunk_bytes) of 4096-aligned
 * memory, whose content is arbitrary; -ENOMEM above bytes_max. Ids are never used twice. */
int64_t cl_arena_chunk_new(cl_arena *arena, uint64_t bytes_min);

/* Each returns -EINVAL for a chunk nobody holds. The address is 0 then. */
uint64_t cl_arena_address(const cl_arena *arena, int64_t chunk);
int64_t cl_arena_capacity(const cl_arena *arena, int64_t chunk);
int64_t cl_arena_references(const cl_arena *arena, int64_t chunk);
int cl_arena_retain(cl_arena *arena, int64_t chunk);
int cl_arena_release(cl_arena *arena, int64_t chunk);

/* Bytes of chunks that are held, and bytes mapped (held and kept for the next chunk_new). */
uint64_t cl_arena_bytes_in_use(const cl_arena *arena);
uint64_t cl_arena_bytes_mapped(const cl_arena *arena);

/* Give kept chunks back to the system until at most bytes_kept of them stay mapped. */
void cl_arena_trim(cl_arena *arena, uint64_t bytes_kept);

/* Write a WAL record (64-byte header, copy of the payload, zeros up to a multiple of 8) at
 * position, which is a multiple of 8. Returns the bytes it took; -EINVAL for a bad chunk or
 * position, -ENOSPC if the chunk is too small. The payload must not lie where it is copied to. */
int64_t cl_arena_put_record(cl_arena *arena, int64_t chunk, uint64_t position,
                            const cl_record *record, uint64_t payload_address,
                            uint64_t payload_bytes);

/* As cl_arena_put_record for a Kafka batch: stamps base offset and leader epoch (= term) into the
 * copy and, with append_time_ms >= 0, the timestamp type, the maximum timestamp and the new CRC of
 * the batch. The header's next offset is offset + record_count. */
int64_t cl_arena_put_batch(cl_arena *arena, int64_t chunk, uint64_t position,
                           const cl_record *record, uint64_t payload_address,
                           uint64_t payload_bytes);

/* Zero-fill up to the next multiple of 4096; returns that position, or -EINVAL. */
int64_t cl_arena_pad(cl_arena *arena, int64_t chunk, uint64_t position);

/* Copy data to position; -EINVAL, -ENOSPC as above. */
int cl_arena_write(cl_arena *arena, int64_t chunk, uint64_t position, const void *data,
                   uint64_t size);

/* Copy ranges (an array of cl_range) one after another to position; returns the bytes copied,
 * -EINVAL or -ENOSPC; after a failure the destination holds some of them. */
int64_t cl_arena_gather(cl_arena *arena, int64_t chunk, uint64_t position, const void *ranges,
                        uint32_t range_count);

/* ---- Entry rows ---------------------------------------------------------------------------- */

/* Binary search in 32-byte entry rows (without the header row). Column 0: the first row whose next
 * offset is > key; column 2: the first whose running maximum timestamp is >= key. Returns
 * row_count if there is none; -EINVAL for another column. */
int64_t cl_entries_search(uint64_t rows_address, uint64_t row_count, int column, int64_t key);

/* ---- Record batches ------------------------------------------------------------------------ */

/* Why a batch was refused; 0 is a good batch. */
enum {
    CL_BATCH_ABSENT = 1,
    CL_BATCH_SHORT,
    CL_BATCH_CUT,
    CL_BATCH_TRAILING,
    CL_BATCH_OLD_FORMAT,
    CL_BATCH_UNKNOWN_FORMAT,
    CL_BATCH_TOO_LARGE,
    CL_BATCH_CRC_WRONG,
    CL_BATCH_BASE_OFFSET_SET,
    CL_BATCH_COUNT_WRONG,
    CL_BATCH_CONTROL_SET,
    CL_BATCH_TIMESTAMP_TYPE_SET,
    CL_BATCH_DELETE_HORIZON_SET,
    CL_BATCH_UNKNOWN_CODEC,
    CL_BATCH_ZSTD_TOO_EARLY,
    CL_BATCH_SEQUENCE_NEGATIVE,
    CL_BATCH_EPOCH_NEGATIVE,
    CL_BATCH_TRANSACTION_WITHOUT_PRODUCER,
    CL_RECORD_LENGTH_WRONG,
    CL_RECORD_TIMESTAMP_WRONG,
    CL_RECORD_DELTA_WRONG,
    CL_RECORD_KEY_WRONG,
    CL_RECORD_VALUE_WRONG,
    CL_RECORD_HEADERS_WRONG,
    CL_RECORD_TRAILING,
    CL_RECORDS_TRAILING
};

enum {
    CL_CHECK_REFUSE_ZSTD = 1, /* Produce below version 7 */
    CL_CHECK_STORED = 2,      /* of the log: offsets, timestamp type, control bit are ours */
    CL_CHECK_NO_WALK = 4      /* header and CRC only */
};

/* What is known of one batch. Numbers are those of the batch header; max_timestamp of a batch that
 * was walked is the true maximum. All but error and reason are only meaningful where error is 0.
 * In decode_produce the first fields say where topic and batch lie in the frame. */
typedef struct {
    int32_t topic_at;
    int32_t topic_bytes;
    int32_t partition;
    int16_t error;  /* Kafka error code */
    int16_t reason; /* CL_BATCH_..., CL_RECORD_... */
    int32_t batch_at;
    int32_t batch_bytes;
    int32_t record_count;
    int32_t attributes;
    int64_t producer_id;
    int32_t producer_epoch;
    int32_t base_sequence;
    int64_t base_timestamp;
    int64_t max_timestamp;
    int32_t keyless; /* 1: some record has a null key, 0: none has, -1: not walked */
    int32_t zero;
} cl_produce_row;

/* Judge the bytes at address as exactly one batch and fill row (except topic, partition and
 * batch_at). bytes_max -1 means no limit. Never fails. */
void cl_check_batch(uint64_t address, uint64_t size, int64_t bytes_max, int flags,
                    cl_produce_row *row);

/* What a walk over uncompressed records found. */
typedef struct {
    int64_t max_timestamp;
    int64_t found_timestamp;
    int32_t found_delta; /* the first record with a timestamp >= timestamp_wanted, or -1 */
    int32_t keyless;
    int32_t reason;
    int32_t zero;
} cl_walk;

/* Walk the records of a batch (decompressed, without the batch header): exactly record_count of
 * them, offset deltas 0, 1, 2..., every length exact. */
void cl_walk_records(const void *records, uint64_t size, int32_t record_count,
                     int64_t base_timestamp, int64_t timestamp_wanted, cl_walk *walk);

/* ---- Produce and Fetch requests ------------------------------------------------------------ */

/* The head of a Produce request; positions count from the frame's first byte. */
typedef struct {
    int32_t acks;
    int32_t timeout_ms;
    int32_t transactional_at;
    int32_t transactional_bytes; /* -1: null */
    int32_t row_count;
    int32_t zero;
} cl_produce;

/* The head of a Fetch request. */
typedef struct {
    int32_t max_wait_ms;
    int32_t min_bytes;
    int32_t max_bytes;
    int32_t isolation;
    int32_t session_id;
    int32_t session_epoch;
    int32_t rack_at;
    int32_t rack_bytes;
    int32_t row_count;
    int32_t zero;
} cl_fetch;

/* One partition of a Fetch request; from version 13 the topic is its 16-byte id. Fields that a
 * version does not have are -1. */
typedef struct {
    int32_t topic_at;
    int32_t topic_bytes;
    int32_t partition;
    int32_t current_leader_epoch;
    int64_t fetch_offset;
    int32_t last_fetched_epoch;
    int32_t zero;
    int64_t log_start_offset;
    int32_t partition_max_bytes;
    int32_t zero_too;
} cl_fetch_row;

/* Decode the body of a Produce request, versions 3 to 11, that starts at body_at of a frame of
 * size bytes, and judge every batch in it (as cl_check_batch, without a size limit): one bad
 * partition never spoils another. Returns 0; -EBADMSG if the request is malformed (nothing of out
 * or rows counts); -ENOSPC if it has more than rows_max partitions, before any batch is judged. */
int cl_decode_produce(uint64_t address, uint64_t size, uint64_t body_at, int version,
                      cl_produce *out, cl_produce_row *rows, uint32_t rows_max);

/* Decode the body of a Fetch request, versions 4 to 17; errors as above. Forgotten topics are
 * checked for form only: sessions are refused. */
int cl_decode_fetch(uint64_t address, uint64_t size, uint64_t body_at, int version, cl_fetch *out,
                    cl_fetch_row *rows, uint32_t rows_max);
