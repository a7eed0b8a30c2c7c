/* The interface of the C core, continued behind core.cdef.h: entries of logs in memory, and plain
 * requests that become some. */

/* ---- The tail of a log in memory -------------------------------------------------------- */

/* One raft entry; its payload lies in a chunk of the arena. Arrays of them may lie anywhere. */
typedef struct {
    int64_t next_offset;
    int64_t max_timestamp; /* as stored; -1 of a control entry */
    uint64_t lsn;
    int64_t chunk;
    uint32_t position;
    uint32_t size;
    uint32_t term;
    uint32_t kind;
} cl_entry;

typedef struct {
    uint64_t bytes;
    uint64_t trims;
    int64_t newest; /* timestamp */
} cl_tail_sums;

/* What of entries goes to a segment. The caller sets what is known before and what is allowed. */
typedef struct {
    uint64_t begin;        /* bytes of batches that the segment has */
    uint64_t bytes_max;    /* of batches that may be added */
    uint64_t segment_left; /* until it is full; one batch may go beyond in an empty one */
    int64_t segment_ms;    /* how far timestamps may be from oldest */
    int64_t closed_at;     /* nothing behind this offset; -1: no such */
    int64_t oldest;        /* of the segment's first batch; -1: it has none */
    int64_t newest;        /* from here on: as before, then as found */
    uint64_t biggest;
    int64_t last_offset;
    uint64_t last_term;
    uint64_t count; /* from here on: found, of what is added */
    uint64_t batches;
    uint64_t log_bytes;
    uint64_t all_bytes;
} cl_collected;

/* The first entry that ends above offset; count if none does. */
uint64_t cl_tail_find(const void *entries, uint64_t count, int64_t offset);

/* How many entries from the first on lie in the first one's chunk. */
uint64_t cl_tail_same_chunk(const void *entries, uint64_t count);

void cl_tail_sum(const void *entries, uint64_t count, cl_tail_sums *sums);

/* Choose entries from the first on, at least that one, and write their 32-byte rows of an .entries
 * file; rows has room for count. found's last three words are 0 before. */
void cl_tail_collect(const void *entries, uint64_t count, cl_collected *found, void *rows);

/* Copy the batches among entries one after another to position; returns the bytes copied, -EINVAL
 * or -ENOSPC as cl_arena_gather. */
int64_t cl_arena_gather_batches(cl_arena *arena, int64_t chunk, uint64_t position,
                                const void *entries, uint64_t count);

/* ---- Requests that are alike ------------------------------------------------------------ */

/* Write the batches of alike requests, whose frames are still there, as WAL records one behind
 * another from position on, as many as end within limit, and make their entries. record is
 * the first one's (its offset: the base offset); lsn and index rise by one each. Returns how many,
 * and their bytes; -EINVAL and -ENOSPC as cl_arena_put_batch. */
int64_t cl_arena_put_plain(cl_arena *arena, int64_t chunk, uint64_t position, uint64_t limit,
                           const cl_record *record, const cl_plain *heads,
                           const cl_produce_row *rows, uint32_t count, cl_entry *entries,
                           uint64_t *bytes);

/* Write count answers of answer_bytes each to out: every one is a copy of `answer` with the
 * request's correlation id after the length, and at offset_at the base offset of its batch, which
 * is base_offset for the first and rises by the records of each. Returns where it ends. */
int64_t cl_plain_answers(const void *answer, uint32_t answer_bytes, uint32_t offset_at,
                         const cl_plain *heads, const cl_produce_row *rows, uint32_t count,
                         int64_t base_offset, void *out);
