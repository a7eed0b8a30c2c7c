/* Decodes Produce requests, versions 3 to 12, one by one or a run of plain ones at once.
 *
 * 3-8: strings and arrays with fixed-width lengths. 9 (KIP-482): compact, with tagged fields.
 * 10 (KIP-951), 11: the request did not change. */
#include "batch.h"
#include "reader.h"
#include "record.h"

#define VERSION_MIN 3
#define VERSION_MAX 12
#define FLEXIBLE_FROM 9
#define ZSTD_FROM 7

static int read_partition(cl_reader *reader, cl_span topic, cl_produce *out, cl_produce_row *rows,
                          uint32_t rows_max)
{
    int32_t partition = cl_read_i32(reader);
    cl_span batch = cl_read_bytes(reader);
    cl_read_tags(reader);
    if (reader->bad)
        return -EBADMSG;
    if ((uint32_t)out->row_count >= rows_max)
        return -ENOSPC;
    rows[out->row_count++] = (cl_produce_row){
        .topic_at = topic.at,
        .topic_bytes = topic.bytes,
        .partition = partition,
        .batch_at = batch.at,
        .batch_bytes = batch.bytes > 0 ? batch.bytes : 0,
    };
    return 0;
}

static int read_topic(cl_reader *reader, cl_produce *out, cl_produce_row *rows, uint32_t rows_max)
{
    cl_span topic = cl_read_string(reader);
    int32_t partition_count = cl_read_count(reader);
    if (reader->bad || topic.bytes < 0)
        return -EBADMSG;
    for (int32_t at = 0; at < partition_count; at++) {
        int status = read_partition(reader, topic, out, rows, rows_max);
        if (status != 0)
            return status;
    }
    cl_read_tags(reader);
    return reader->bad ? -EBADMSG : 0;
}

static int read_body(cl_reader *reader, cl_produce *out, cl_produce_row *rows, uint32_t rows_max)
{
    cl_span transactional = cl_read_string(reader);
    *out = (cl_produce){
        .transactional_at = transactional.at,
        .transactional_bytes = transactional.bytes,
    };
    out->acks = cl_read_i16(reader);
    out->timeout_ms = cl_read_i32(reader);
    int32_t topic_count = cl_read_count(reader);
    for (int32_t at = 0; at < topic_count; at++) {
        int status = read_topic(reader, out, rows, rows_max);
        if (status != 0)
            return status;
    }
    cl_read_tags(reader);
    return cl_read_ended(reader) ? 0 : -EBADMSG;
}

int cl_decode_produce(uint64_t address, uint64_t size, uint64_t body_at, int version,
                      cl_produce *out, cl_produce_row *rows, uint32_t rows_max)
{
    assert(out != NULL);
    assert(rows != NULL);
    assert(version >= VERSION_MIN);
    assert(version <= VERSION_MAX);
    const uint8_t *frame = cl_pointer(address);
    cl_reader reader = cl_reader_make(frame, size, body_at, version >= FLEXIBLE_FROM);
    int status = read_body(&reader, out, rows, rows_max);
    if (status != 0)
        return status;
    int flags = version < ZSTD_FROM ? CL_CHECK_REFUSE_ZSTD : 0;
    for (int32_t at = 0; at < out->row_count; at++) {
        cl_produce_row *row = &rows[at];
        cl_batch_check(frame + row->batch_at, (uint64_t)row->batch_bytes, -1, flags, row);
    }
    return 0;
}

/* ---- Plain requests */

/* Read the request header up to the body: key, version and correlation id are 8 bytes. */
static void read_header(cl_reader *reader)
{
    bool flexible = reader->flexible;
    cl_read_raw(reader, 8);
    reader->flexible = false; /* the client id is never compact */
    cl_read_string(reader);
    reader->flexible = flexible;
    cl_read_tags(reader);
}

/* Judge the batches of a request; false if one of them needs more than an append. */
static bool rows_plain(const uint8_t *frame, int version, const cl_produce *head,
                       cl_produce_row *rows)
{
    int flags = version < ZSTD_FROM ? CL_CHECK_REFUSE_ZSTD : 0;
    for (int32_t at = 0; at < head->row_count; at++) {
        cl_produce_row *row = &rows[at];
        cl_batch_check(frame + row->batch_at, (uint64_t)row->batch_bytes, -1, flags, row);
        if (row->error != 0 || (row->attributes & CL_ATTRIBUTE_TRANSACTIONAL))
            return false;
    }
    return true;
}

static bool same_topic(const uint8_t *frame, const cl_produce_row *row, const uint8_t *topic,
                       int32_t topic_bytes)
{
    return row->topic_bytes == topic_bytes &&
           memcmp(frame + row->topic_at, topic, (size_t)topic_bytes) == 0;
}

uint32_t cl_decode_plain(const void *frames, uint32_t count, int version, cl_plain *heads,
                         cl_produce_row *rows, uint32_t rows_max)
{
    assert(frames != NULL || count == 0);
    assert(heads != NULL);
    assert(rows != NULL);
    assert(version >= VERSION_MIN);
    assert(version <= VERSION_MAX);
    const uint8_t *topic = NULL;
    int32_t topic_bytes = -1;
    for (uint32_t at = 0; at < count; at++) {
        cl_frame frame;
        memcpy(&frame, (const uint8_t *)frames + at * sizeof frame, sizeof frame);
        const uint8_t *data = cl_pointer(frame.address);
        cl_reader reader = cl_reader_make(data, frame.size, 0, version >= FLEXIBLE_FROM);
        cl_produce head;
        read_header(&reader);
        if (reader.bad || read_body(&reader, &head, rows, rows_max) != 0)
            return at;
        bool is_plain = (head.acks == 1 || head.acks == -1) && head.transactional_bytes < 0;
        if (!is_plain || !rows_plain(data, version, &head, rows))
            return at;
        for (int32_t row = 0; row < head.row_count; row++) {
            rows[row].again = same_topic(data, &rows[row], topic, topic_bytes);
            topic = data + rows[row].topic_at;
            topic_bytes = rows[row].topic_bytes;
        }
        heads[at] = (cl_plain){
            .acks = head.acks, .timeout_ms = head.timeout_ms, .row_count = head.row_count};
        rows += head.row_count;
        rows_max -= (uint32_t)head.row_count;
    }
    return count;
}
