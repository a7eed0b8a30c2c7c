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

/* One of several batches that are put at once. */
typedef struct {
    uint64_t group;
    uint64_t index;
    int64_t base_offset;
    int64_t append_time_ms; /* -1 leaves the producer's timestamps */
    uint64_t address;
    uint32_t size;
    uint32_t term;
    uint32_t record_count;
    uint32_t zero;
} cl_put;

/* cl_arena_put_batch for count batches, one behind another from position on; record says their
 * generation, durable_upto and the first one's lsn, which rises by one each. Returns the bytes of
 * all; an error of one leaves those before it written, which nobody has been told of. */
int64_t cl_arena_put_batches(cl_arena *arena, int64_t chunk, uint64_t position,
                             const cl_record *record, const cl_put *puts, uint32_t count);

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
    int32_t again;   /* of cl_decode_plain: 1 where the topic is that of the row before */
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

/* A run of whole batches: bytes start to end (start -1: none), records up to next_offset.
 * is_cut: it ends only because the data do, at `end`. */
typedef struct {
    int64_t start;
    int64_t end;
    int64_t next_offset;
    int64_t is_cut;
} cl_batch_run;

/* Find, in size bytes of batches, the first that holds offset or a later one, and the last that
 * ends within bytes_max, counted from the first byte, and begins below offset_max. first_always:
 * the first batch of the data is taken whatever its size. Headers are trusted, never read past
 * the end. */
void cl_batches_run(uint64_t address, uint64_t size, int64_t offset, int64_t offset_max,
                    uint64_t bytes_max, int first_always, cl_batch_run *run);

/* ---- Entries from another replica ------------------------------------------------------------ */

/* What is wrong with an entry, besides the reasons of its batch. */
enum {
    CL_RECEIVED_CUT = 64,
    CL_RECEIVED_KIND_WRONG,
    CL_RECEIVED_OFFSET_WRONG,
    CL_RECEIVED_TERM_WRONG
};

/* One entry of {u8 kind, 3 zero bytes, u32 size, payload}..., little-endian. */
typedef struct {
    int64_t next_offset;
    int64_t max_timestamp; /* as the batch's header says; -1 of a control entry */
    uint64_t position;     /* of the payload */
    uint32_t size;
    uint32_t kind;
} cl_received;

/* How far a run of entries of one term was judged; the caller sets position and next_offset. */
typedef struct {
    uint64_t position; /* of the next entry */
    int64_t next_offset;
    uint32_t count; /* rows filled */
    int32_t reason; /* CL_BATCH_..., CL_RECEIVED_...: why the next entry is bad; 0: none was */
} cl_received_run;

/* Judge entries from run->position on, until rows_max or the end: their form and, of a batch, CRC,
 * count, base offset (that of the log, run->next_offset) and leader epoch (= term). */
void cl_received_check(uint64_t address, uint64_t size, uint32_t term, cl_received_run *run,
                       cl_received *rows, uint32_t rows_max);

/* Write judged rows as WAL records one behind another from position on, as many as end within
 * limit. record is the first one's; lsn and index rise by one each, kind and offset are the row's.
 * Returns how many, and their bytes; -EINVAL and -ENOSPC as cl_arena_put_record. */
int64_t cl_arena_put_received(cl_arena *arena, int64_t chunk, uint64_t position, uint64_t limit,
                              const cl_record *record, uint64_t address, const cl_received *rows,
                              uint32_t row_count, uint64_t *bytes);

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
    int32_t forgotten_count; /* topics; partitions of a session that are wanted no more */
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

/* Decode the body of a Produce request, versions 3 to 12, that starts at body_at of a frame of
 * size bytes, and judge every batch in it (as cl_check_batch, without a size limit): one bad
 * partition never spoils another. Returns 0; -EBADMSG if the request is malformed (nothing of out
 * or rows counts); -ENOSPC if it has more than rows_max partitions, before any batch is judged. */
int cl_decode_produce(uint64_t address, uint64_t size, uint64_t body_at, int version,
                      cl_produce *out, cl_produce_row *rows, uint32_t rows_max);

/* A request frame, and what cl_decode_plain found of one. */
typedef struct {
    uint64_t address;
    uint64_t size;
} cl_frame;

typedef struct {
    uint64_t address; /* of the frame */
    int32_t acks;
    int32_t timeout_ms;
    int32_t row_count;
    int32_t correlation_id;
} cl_plain;

/* Requests that follow one another. Alike are those with one batch each, for one partition, with
 * the same acks and time-out, of no producer or of one whose sequence numbers go on from batch to
 * batch; a request that is not like its neighbours is a run of its own, alike if it has one batch.
 * The sums are of alike ones only. */
typedef struct {
    uint32_t first;
    uint32_t count;
    uint32_t first_row;
    uint32_t row_count;
    uint32_t is_alike;
    int32_t batch_bytes_max;
    int64_t batch_bytes; /* of all together */
    int64_t record_count;
    int64_t oldest; /* the least and the greatest of their maximum timestamps */
    int64_t newest;
} cl_plain_run;

/* Decode whole Produce frames of one version, their headers too, for as long as they are plain:
 * well-formed, acks 1 or -1, no transaction, and nothing wrong with any of their batches. Each has
 * its rows behind those of the one before; positions count from its own first byte. frames are the
 * bytes of count cl_frame; heads and runs have room for count. Returns how many are plain, and fit
 * rows_max rows; all of them are in runs, *run_count of these. */
uint32_t cl_decode_plain(const void *frames, uint32_t count, int version, cl_plain *heads,
                         cl_produce_row *rows, uint32_t rows_max, cl_plain_run *runs,
                         uint32_t *run_count);

/* Decode the body of a Fetch request, versions 4 to 17; errors as above. Forgotten topics are
 * checked for form, and counted. */
int cl_decode_fetch(uint64_t address, uint64_t size, uint64_t body_at, int version, cl_fetch *out,
                    cl_fetch_row *rows, uint32_t rows_max);

/* ---- Worker: one thread that does disk jobs in order ---------------------------------------- */

typedef struct cl_worker cl_worker;

enum {
    CL_JOB_WRITE = 1,
    CL_JOB_READ,
    CL_JOB_SEARCH_READ,
    CL_JOB_SYNC,
    CL_JOB_SYNC_FILESYSTEM,
    CL_JOB_ZEROFILL,
    CL_JOB_WRITE_FILE,
    CL_JOB_UNLINK,
    CL_JOB_RENAME,
    CL_JOB_MAKE_DIRECTORY,
    CL_JOB_TRUNCATE,
    CL_JOB_FORGET,
    CL_JOB_LINK
};

enum {
    CL_WRITE_DIRECT = 1, /* O_DIRECT; refused by the file system: buffered */
    CL_WRITE_DSYNC = 2,  /* durable when done: O_DSYNC, or fdatasync after a buffered write */
    CL_WRITE_CREATE = 4, /* the file, and its directories, if absent */
    CL_READ_PARTIAL = 8  /* fewer bytes at the end of the file are no error */
};

/* What is to be done. Which words count, and what values[0] of the answer is:
 *
 * WRITE        the parts at position; then, with size >= 0, cut the file to size. Bytes written.
 * READ         size bytes at position into address. Bytes read; -EIO if they are fewer than size.
 * SEARCH_READ  cl_entries_search over row_count rows of the .entries file paths[0] (its header row
 *              not counted), then at most size bytes of paths[1] from where that entry starts, but
 *              not beyond log_bytes, into address. values: row, start position, bytes read.
 * SYNC         fdatasync each path, and fsync the directories that lead to it.
 * SYNC_FILESYSTEM  syncfs of the file system that holds paths[0].
 * ZEROFILL     a file of size zeros: written and synced under another name, then renamed.
 * WRITE_FILE   the parts are the whole content, durable when done.
 * UNLINK       each path; absent ones are no error. A directory goes only if it is empty.
 * RENAME       paths[0] to paths[1], durable when done.
 * MAKE_DIRECTORY  with its parents, durable when done.
 * TRUNCATE     to size, durable when done.
 * FORGET       close what this worker keeps open of the paths (another worker removed them).
 * LINK         paths are pairs: a second name for each first file, directories made, durable when
 *              done. A second name of that very file is fine, of another one it is replaced. */
typedef struct {
    uint64_t job;
    int32_t op;
    int32_t flags;
    uint64_t position;
    int64_t size;
    uint64_t address;
    uint64_t row_count;
    int64_t key;
    uint64_t log_bytes;
    int32_t column;
    int32_t zero;
} cl_job;

typedef struct {
    uint64_t address;
    uint64_t size;
} cl_part;

typedef struct {
    uint64_t job;
    int32_t result; /* 0 or a negative errno */
    int32_t op;
    int64_t values[3];
} cl_done;

/* Start a thread called name (15 bytes count). Relative paths start at directory ("" is the
 * working directory). unbound: the thread may run on every CPU, wherever its maker is pinned.
 * niceness (0 to 19): how far it gives way to its maker on a CPU they share.
 * Returns NULL, with *error the negative errno. */
cl_worker *cl_worker_new(const char *name, const char *directory, int unbound, int niceness,
                         int *error);

/* Finish all that was submitted, stop the thread, close every file. */
void cl_worker_free(cl_worker *worker);

/* Readable when something was completed since the last reap that found nothing left; whoever reads
 * it must reap until nothing is left. */
int cl_worker_eventfd(const cl_worker *worker);

/* Queue a job. paths is a run of path_count NUL-terminated strings of paths_bytes in all, parts an
 * array of cl_part; both are copied, what the parts point at is borrowed until the answer is
 * reaped. Returns -EAGAIN when too many jobs are under way (reap, then try again), -ENAMETOOLONG
 * for a path of 512 bytes or more, -ENOMEM. */
int cl_worker_submit(cl_worker *worker, const cl_job *job, const void *paths, uint32_t paths_bytes,
                     uint32_t path_count, const void *parts, uint32_t part_count);

/* Do a job at once, on the caller's thread, if the worker has nothing to do (-EBUSY otherwise).
 * *done is the answer; nothing is left to reap. */
int cl_worker_run(cl_worker *worker, const cl_job *job, const void *paths, uint32_t paths_bytes,
                  uint32_t path_count, const void *parts, uint32_t part_count, cl_done *done);

/* Take up to done_max answers, in the order the jobs were done. */
uint32_t cl_worker_reap(cl_worker *worker, cl_done *done, uint32_t done_max);

/* ---- Net: the data connections of a core ---------------------------------------------------- */

typedef struct cl_net cl_net;

enum { CL_NET_FRAME = 1, CL_NET_ACCEPTED, CL_NET_CLOSED, CL_NET_WATCH, CL_NET_DRAINED };

/* Why a connection was closed from here or from there. */
enum {
    CL_CLOSED_EOF = 1,
    CL_CLOSED_RESET,
    CL_CLOSED_FRAME_TOO_LARGE,
    CL_CLOSED_FRAME_NEGATIVE,
    CL_CLOSED_FRAME_SHORT,
    CL_CLOSED_HTTP,
    CL_CLOSED_TLS,
    CL_CLOSED_STALLED,
    CL_CLOSED_BACKLOG,
    CL_CLOSED_MEMORY
};

/* One event of cl_net_poll.
 * FRAME     conn, address and size of the frame after its length prefix, first words of its header.
 *           The memory is readable until the next poll.
 * ACCEPTED  conn, address of "ip:port" (NUL-terminated, until the next poll), size = listener.
 * CLOSED    conn, size = reason. The last event of a conn; its id is never used again.
 * WATCH     size = token, address = what the eventfd held.
 * DRAINED   conn: everything that was sent to it has left. */
typedef struct {
    int64_t kind;
    int64_t conn;
    uint64_t address;
    int64_t size;
    int16_t api_key;
    int16_t api_version;
    int32_t correlation_id;
} cl_event;

typedef struct {
    int64_t connections;
    int64_t accepted; /* from here on: totals since the start */
    int64_t refused;
    int64_t closed;
    int64_t frames;
    int64_t bytes_in;
    int64_t bytes_out;
    int64_t starved;       /* times a connection had to wait for receive memory */
    int64_t receive_bytes; /* from here on: now */
    int64_t receive_bytes_kept;
    int64_t backlog_bytes;
    int64_t backlog_bytes_copied;
    int64_t links; /* which are counted nowhere above, except for kept memory */
    int64_t link_receive_bytes;
    int64_t link_backlog_bytes;
    int64_t link_frames; /* totals again */
    int64_t link_bytes_in;
    int64_t link_bytes_out;
} cl_net_stats;

/* Make a net for at most conns_max connections, whose frames have at most frame_bytes_max bytes.
 *
 * Receive memory grows with the bytes that arrived, never by the length a client claims. When
 * receive_bytes_max is in use, a frame above 16 KiB waits unread for its turn; one at a time may go
 * beyond the limit, so that the others cannot lock each other out. In all at most
 * receive_bytes_max + frame_bytes_max + 16 KiB for each connection with an unfinished frame. One
 * that does not go on for stall_ms although it may, while others wait, is closed.
 * NULL, with *error, if the system refuses. */
cl_net *cl_net_new(cl_arena *arena, uint32_t conns_max, uint64_t frame_bytes_max,
                   uint64_t receive_bytes_max, int64_t stall_ms, int *error);

/* Close every connection and free everything; listening and watched descriptors stay open. */
void cl_net_free(cl_net *net);

/* The nested epoll descriptor, to wait elsewhere until cl_net_poll has something to do. To be asked
 * for before every such wait: what the last poll left over makes it readable only then. */
int cl_net_fd(cl_net *net);

/* Accept from a listening socket, or watch an eventfd; they stay their owner's. -ENOSPC for more
 * than 64 of them. cl_net_unlisten forgets either kind. */
int cl_net_listen(cl_net *net, int fd, int64_t listener);
int cl_net_watch(cl_net *net, int fd, int64_t token);
int cl_net_unlisten(cl_net *net, int fd);

/* Take over a connected socket. Returns its conn; a negative errno, with fd closed, if there is no
 * room for it. */
int64_t cl_net_add(cl_net *net, int fd);

/* Take over a pair of pipes as the link to a process that is as trusted as this one: frames come
 * from read_fd and leave by write_fd. It is always read, whatever waits to be sent to it: two that
 * only wrote would wait for each other for ever. Its frames may have any size below 2 GiB, and its
 * memory is apart from the clients', for receiving and for 256 MiB of copied backlog. It may take
 * 256 frames and 1 MiB in one poll. It is never idle, held or counted as a connection. When the
 * other side closes either pipe, CLOSED comes after all frames that were written whole. SIGPIPE
 * must be ignored. Returns its conn; a negative errno, with both closed, if it cannot be. */
int64_t cl_net_add_link(cl_net *net, int read_fd, int write_fd);

/* Wait up to timeout_us (0: not at all) for something to do, and do it: receive, cut frames, send
 * backlogs, accept. A connection gets at most 64 frames and 1 MiB in one poll, and all of them
 * about 8 MiB. Returns the number of events, at most events_max (at least 1); *others counts those
 * that are not FRAME. Frames of the poll before are gone. Comes back early from a signal. */
uint32_t cl_net_poll(cl_net *net, uint64_t timeout_us, cl_event *events, uint32_t events_max,
                     uint32_t *others);

/* Send ranges (an array of cl_range, whose chunk -1 stands for `heads`) one after another. What the
 * socket does not take is kept: heads copied, chunks retained. Returns the bytes kept; 0 for a
 * conn that is gone; -EINVAL for a range outside of its memory (nothing was sent). */
int64_t cl_net_send(cl_net *net, int64_t conn, const void *heads, uint64_t heads_bytes,
                    const void *ranges, uint32_t range_count);

/* Each does nothing to a conn that is gone. A conn closed here gets no CLOSED event. */
void cl_net_close(cl_net *net, int64_t conn);
void cl_net_pause(cl_net *net, int64_t conn);
void cl_net_resume(cl_net *net, int64_t conn);

/* While held, frames of API key 0 are not cut and their connections are not read. */
void cl_net_hold_produce(cl_net *net, int held);

/* List connections that moved no byte either way for idle_ms, whose frame is unfinished for
 * partial_ms, or that moved none for unsent_ms though an answer waits (-1: do not ask). Returns how
 * many of them fit conns_max. Also closes a connection that holds the turn to go beyond the memory
 * limit and does not use it, and gives kept memory back when little was received since the last
 * call: call it every few seconds. */
uint32_t cl_net_idle(cl_net *net, int64_t idle_ms, int64_t partial_ms, int64_t unsent_ms,
                     int64_t *conns, uint32_t conns_max);

void cl_net_stats_read(const cl_net *net, cl_net_stats *stats);
