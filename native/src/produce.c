/* Decodes Produce requests, versions 3 to 12.
 *
 * 3-8: strings and arrays with fixed-width lengths. 9 (KIP-482): compact, with tagged fields.
 * 10 (KIP-951), 11: the request did not change. */
#include "batch.h"
#include "reader.h"

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
