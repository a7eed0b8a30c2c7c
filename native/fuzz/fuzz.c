/* Throws mutated requests, batches and byte streams at the C core, under the sanitizers.
 *
 *   fuzz <seed> <iterations> <corpus file>...
 *
 * A corpus file's name says what it is: produce-<version>-*.bin and fetch-<version>-*.bin are
 * frames behind a ten-byte request head, batch-*.bin is one record batch. The same seed does the
 * same again. Every input lies in memory of exactly its size, so that one byte too far is found.
 * Where a mutation only broke a checksum it is mended, or nothing behind it would be reached. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "batch.h"
#include "record.h"

#define CORPUS_MAX 256
#define INPUT_BYTES_MAX (1u << 20)
#define ROWS_MAX 4096
#define HEAD_BYTES 10
#define EVENTS_MAX 512
#define MUTATIONS_MAX 6
#define PLAIN_MAX 8

typedef enum { TARGET_PRODUCE, TARGET_FETCH, TARGET_BATCH } target_kind;

typedef struct {
    target_kind kind;
    int version;
    uint8_t *data;
    size_t size;
} sample;

static sample corpus[CORPUS_MAX];
static size_t corpus_count;
static uint64_t state;
static bool planted;
static uint64_t good_batches, good_requests, good_runs, good_frames;

/* ---- Chance: xorshift64*, Vigna 2014 */

static uint64_t chance(uint64_t below)
{
    assert(below > 0);
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 0x2545f4914f6cdd1du >> 16) % below;
}

static uint8_t odd_byte(void)
{
    static const uint8_t odd[] = {0x00, 0x01, 0x02, 0x7f, 0x80, 0x81, 0xfe, 0xff};
    return chance(2) ? odd[chance(sizeof odd)] : (uint8_t)chance(256);
}

/* Change `data` here and there; returns its new size. It has room for twice its size. */
static size_t mutate(uint8_t *data, size_t size)
{
    for (uint64_t left = chance(MUTATIONS_MAX); left > 0 && size > 0; left--) {
        size_t at = chance(size), run = 1 + chance(8);
        if (run > size - at)
            run = size - at;
        switch (chance(5)) {
        case 0: /* overwrite */
            for (size_t next = at; next < at + run; next++)
                data[next] = odd_byte();
            break;
        case 1: /* one bit */
            data[at] = (uint8_t)(data[at] ^ (1u << chance(8)));
            break;
        case 2: /* cut out */
            memmove(data + at, data + at + run, size - at - run);
            size -= run;
            break;
        case 3: /* insert */
            if (size + run > INPUT_BYTES_MAX)
                break;
            memmove(data + at + run, data + at, size - at);
            for (size_t next = at; next < at + run; next++)
                data[next] = odd_byte();
            size += run;
            break;
        default: /* cut off */
            size = chance(8) == 0 ? at : size;
            break;
        }
    }
    return size;
}

/* ---- Targets */

static void mend_crc(uint8_t *batch, size_t size)
{
    if (size < CL_BATCH_HEADER_BYTES)
        return;
    uint32_t crc = cl_crc32c(0, batch + CL_BATCH_ATTRIBUTES, size - CL_BATCH_ATTRIBUTES);
    cl_put_be32(batch + CL_BATCH_CRC, crc);
}

/* A batch that was found good must survive being written, and be good for the log. */
static void write_batch(const uint8_t *batch, size_t size, const cl_produce_row *row)
{
    uint64_t room = cl_record_size(size);
    uint8_t *to = malloc(room);
    if (to == NULL)
        abort();
    cl_record record = {.kind = CL_KIND_BATCH,
                        .term = 3,
                        .offset = (int64_t)chance(1000),
                        .record_count = (uint32_t)row->record_count,
                        .append_time_ms = chance(2) ? 1234 : -1};
    cl_record_write_batch(to, &record, batch, size);
    cl_produce_row stored;
    memset(&stored, 0, sizeof stored);
    cl_batch_check(to + CL_RECORD_HEADER_BYTES, size, -1, CL_CHECK_STORED, &stored);
    if (stored.error != 0 || stored.record_count != row->record_count)
        abort();
    free(to);
}

static void try_batch(uint8_t *data, size_t size)
{
    cl_produce_row row;
    int flags = (int)chance(8);
    cl_check_batch((uint64_t)(uintptr_t)data, size, -1, flags, &row);
    if (row.reason == CL_BATCH_CRC_WRONG) {
        mend_crc(data, size);
        cl_check_batch((uint64_t)(uintptr_t)data, size, -1, flags, &row);
    }
    if (row.error == 0) {
        good_batches++;
        write_batch(data, size, &row);
    }
    cl_walk walk;
    size_t skip = size < CL_BATCH_HEADER_BYTES ? 0 : CL_BATCH_HEADER_BYTES;
    cl_walk_records(data + skip, size - skip, (int32_t)chance(20), (int64_t)chance(1u << 30),
                    (int64_t)chance(1u << 30), &walk);
}

static void try_produce(uint8_t *data, size_t size, int version)
{
    static cl_produce_row rows[ROWS_MAX];
    cl_produce head;
    if (size < HEAD_BYTES)
        return;
    uint64_t address = (uint64_t)(uintptr_t)data;
    int status = cl_decode_produce(address, size, HEAD_BYTES, version, &head, rows, ROWS_MAX);
    if (status != 0)
        return;
    good_requests++;
    for (int32_t at = 0; at < head.row_count; at++) {
        const cl_produce_row *row = &rows[at];
        if ((uint64_t)row->topic_at + (uint64_t)row->topic_bytes > size ||
            (uint64_t)row->batch_at + (uint64_t)row->batch_bytes > size)
            abort();
        if (row->reason == CL_BATCH_CRC_WRONG)
            mend_crc(data + row->batch_at, (size_t)row->batch_bytes);
        if (row->error == 0)
            write_batch(data + row->batch_at, (size_t)row->batch_bytes, row);
    }
    cl_decode_produce(address, size, HEAD_BYTES, version, &head, rows, ROWS_MAX);
}

/* Put a run of alike requests into an arena of one block, and answer those that went in. */
static void put_run(const cl_plain_run *run, const cl_plain *heads, const cl_produce_row *rows)
{
    static const uint8_t answer[40];
    static uint8_t answers[PLAIN_MAX * sizeof answer];
    cl_entry placed[PLAIN_MAX];
    cl_arena *arena = cl_arena_new(CL_BLOCK_BYTES, CL_BLOCK_BYTES);
    if (arena == NULL)
        abort();
    int64_t chunk = cl_arena_chunk_new(arena, CL_BLOCK_BYTES);
    cl_record record = {.kind = CL_KIND_BATCH,
                        .term = 3,
                        .offset = (int64_t)chance(1000),
                        .append_time_ms = chance(2) ? 1234 : -1};
    uint64_t bytes, limit = chance(CL_BLOCK_BYTES + 1);
    int64_t put = cl_arena_put_plain(arena, chunk, 8 * chance(9), limit, &record, heads, rows,
                                     run->count, placed, &bytes);
    if (put < 0 || put > run->count || (put > 0 && bytes > limit))
        abort();
    for (int64_t at = 0; at < put; at++) {
        cl_produce_row stored = {.error = 0};
        const uint8_t *batch = cl_pointer(cl_arena_address(arena, chunk) + placed[at].position);
        cl_batch_check(batch, placed[at].size, -1, CL_CHECK_STORED, &stored);
        if (stored.error != 0)
            abort();
    }
    if (put > 0 && cl_plain_answers(answer, sizeof answer, 8 + (uint32_t)chance(25), heads, rows,
                                    (uint32_t)put, record.offset, answers) !=
                       placed[put - 1].next_offset)
        abort();
    good_runs += put > 1;
    cl_arena_free(arena);
}

/* Several requests of one turn, of which some are damaged in the same way. */
static void try_plain(const uint8_t *data, size_t size, const sample *whole)
{
    static cl_produce_row rows[PLAIN_MAX];
    cl_plain heads[PLAIN_MAX];
    cl_plain_run runs[PLAIN_MAX];
    cl_frame frames[PLAIN_MAX];
    uint8_t *kept[PLAIN_MAX];
    uint32_t count = 1 + (uint32_t)chance(PLAIN_MAX), run_count;
    size_t tags = whole->version >= 9; /* the header's */
    for (uint32_t at = 0; at < count; at++) {
        bool is_whole = chance(3) > 0 || size < HEAD_BYTES;
        const uint8_t *from = is_whole ? whole->data : data;
        size_t bytes = is_whole ? whole->size : size;
        kept[at] = malloc(bytes + tags);
        if (kept[at] == NULL)
            abort();
        memcpy(kept[at], from, HEAD_BYTES);
        memset(kept[at] + HEAD_BYTES, 0, tags);
        memcpy(kept[at] + HEAD_BYTES + tags, from + HEAD_BYTES, bytes - HEAD_BYTES);
        frames[at] = (cl_frame){.address = (uint64_t)(uintptr_t)kept[at], .size = bytes + tags};
    }
    uint32_t plain = cl_decode_plain(frames, count, whole->version, heads, rows, PLAIN_MAX, runs,
                                     &run_count);
    uint32_t next = 0;
    for (uint32_t at = 0; at < run_count; at++) {
        if (runs[at].first != next || runs[at].count == 0)
            abort();
        next += runs[at].count;
        if (runs[at].is_alike)
            put_run(&runs[at], heads + runs[at].first, rows + runs[at].first_row);
    }
    if (next != plain)
        abort();
    for (uint32_t at = 0; at < count; at++)
        free(kept[at]);
}

static void try_fetch(uint8_t *data, size_t size, int version)
{
    static cl_fetch_row rows[ROWS_MAX];
    cl_fetch head;
    if (size < HEAD_BYTES)
        return;
    int status = cl_decode_fetch((uint64_t)(uintptr_t)data, size, HEAD_BYTES, version, &head, rows,
                                 ROWS_MAX);
    if (status != 0)
        return;
    good_requests++;
    for (int32_t at = 0; at < head.row_count; at++)
        if ((uint64_t)rows[at].topic_at + (uint64_t)rows[at].topic_bytes > size)
            abort();
}

/* ---- The frame cutter: a stream in random pieces must give the frames a plain loop finds */

typedef struct {
    const uint8_t *stream;
    size_t size;
    size_t at; /* the next frame expected */
} expectation;

static void expect_frame(expectation *wanted, const cl_event *event)
{
    if (wanted->size - wanted->at < 4)
        abort();
    uint32_t length = cl_be32(wanted->stream + wanted->at);
    if (event->size != length || wanted->size - wanted->at - 4 < length)
        abort();
    if (memcmp(wanted->stream + wanted->at + 4, cl_pointer(event->address), length) != 0)
        abort();
    wanted->at += 4 + length;
    good_frames++;
}

static bool drain(cl_net *net, expectation *wanted)
{
    static cl_event events[EVENTS_MAX];
    uint32_t others, count = cl_net_poll(net, 0, events, EVENTS_MAX, &others);
    for (uint32_t at = 0; at < count; at++) {
        if (events[at].kind == CL_NET_FRAME)
            expect_frame(wanted, &events[at]);
        if (events[at].kind == CL_NET_CLOSED)
            return false;
    }
    return true;
}

/* Give net a client's socket or a link, and return the descriptors that its other side holds: the
 * second is to be written to, and the first is the same or, of a link, what nobody reads. */
static void connect_to(cl_net *net, bool is_link, int other[2])
{
    int pair[2], back[2];
    if (!is_link) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) != 0 ||
            cl_net_add(net, pair[0]) < 0)
            abort();
        other[0] = other[1] = pair[1];
        return;
    }
    if (pipe2(pair, O_NONBLOCK) != 0 || pipe2(back, O_NONBLOCK) != 0 ||
        cl_net_add_link(net, pair[0], back[1]) < 0)
        abort();
    other[0] = back[0];
    other[1] = pair[1];
}

static void try_stream(const uint8_t *data, size_t size)
{
    int other[2], error;
    bool is_link = chance(3) == 0;
    cl_arena *arena = cl_arena_new(CL_BLOCK_BYTES, CL_BLOCK_BYTES);
    cl_net *net = cl_net_new(arena, 2, 1 + chance(200000), 65536 * (1 + chance(4)), 5000, &error);
    if (net == NULL)
        abort();
    connect_to(net, is_link, other);
    expectation wanted = {.stream = data, .size = size};
    bool open = true;
    for (size_t sent = 0; sent < size && open;) {
        size_t piece = 1 + chance(chance(4) ? 100 : 100000);
        if (piece > size - sent)
            piece = size - sent;
        ssize_t done = write(other[1], data + sent, piece);
        if (done > 0)
            sent += (size_t)done;
        open = drain(net, &wanted);
    }
    for (int turn = 0; turn < 100 && open; turn++)
        open = drain(net, &wanted);
    close(other[1]);
    if (is_link)
        close(other[0]);
    cl_net_free(net);
    cl_arena_free(arena);
}

static size_t stream_make(uint8_t *to, const uint8_t *frame, size_t frame_bytes)
{
    size_t size = 0;
    for (uint64_t count = 1 + chance(6); count > 0; count--) {
        size_t length = chance(3) ? frame_bytes : chance(INPUT_BYTES_MAX / 8);
        cl_put_be32(to + size, (uint32_t)length);
        for (size_t at = 0; at < length; at++)
            to[size + 4 + at] = at < frame_bytes ? frame[at] : (uint8_t)at;
        size += 4 + length;
    }
    return chance(2) ? size : mutate(to, size);
}

/* ---- Running */

static void sample_read(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    sample *entry = &corpus[corpus_count];
    if (corpus_count == CORPUS_MAX)
        abort();
    if (sscanf(name, "produce-%d", &entry->version) == 1)
        entry->kind = TARGET_PRODUCE;
    else if (sscanf(name, "fetch-%d", &entry->version) == 1)
        entry->kind = TARGET_FETCH;
    else
        entry->kind = TARGET_BATCH;
    int fd = open(path, O_RDONLY);
    entry->data = malloc(INPUT_BYTES_MAX);
    ssize_t size = entry->data == NULL ? -1 : read(fd, entry->data, INPUT_BYTES_MAX / 4);
    if (size <= 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    entry->size = (size_t)size;
    close(fd);
    corpus_count++;
}

static void iteration(uint8_t *scratch)
{
    const sample *entry = &corpus[chance(corpus_count)];
    memcpy(scratch, entry->data, entry->size);
    if (chance(64) == 0) {
        size_t size = stream_make(scratch, entry->data, entry->size);
        try_stream(scratch, size);
        return;
    }
    size_t size = mutate(scratch, entry->size);
    uint8_t *exact = malloc(size > 0 ? size : 1);
    if (exact == NULL)
        abort();
    memcpy(exact, scratch, size);
    if (planted && entry->kind == TARGET_BATCH && size > 64)
        state += exact[size]; /* one byte too far: a test sees that this is found */
    if (entry->kind == TARGET_PRODUCE && chance(2))
        try_plain(exact, size, entry);
    else if (entry->kind == TARGET_PRODUCE)
        try_produce(exact, size, entry->version);
    else if (entry->kind == TARGET_FETCH)
        try_fetch(exact, size, entry->version);
    else
        try_batch(exact, size);
    free(exact);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: fuzz <seed> <iterations> <corpus file>...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* what is written to may be closed already */
    state = strtoull(argv[1], NULL, 10) * 2654435761u + 88172645463325252u;
    uint64_t iterations = strtoull(argv[2], NULL, 10);
    planted = getenv("FUZZ_PLANTED") != NULL;
    for (int at = 3; at < argc; at++)
        sample_read(argv[at]);
    uint8_t *scratch = malloc(2 * INPUT_BYTES_MAX);
    if (scratch == NULL)
        return 2;
    for (uint64_t at = 0; at < iterations; at++)
        iteration(scratch);
    printf("%llu iterations: %llu good batches, %llu good requests, %llu runs, %llu frames\n",
           (unsigned long long)iterations, (unsigned long long)good_batches,
           (unsigned long long)good_requests, (unsigned long long)good_runs,
           (unsigned long long)good_frames);
    free(scratch);
    for (size_t at = 0; at < corpus_count; at++)
        free(corpus[at].data);
    return 0;
}
