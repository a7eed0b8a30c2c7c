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
#define CORRELATION_AT 4

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

/* Whether a batch may follow another one without a look at what the partition knows of producers.
 */
static bool sequence_follows(const cl_produce_row *before, const cl_produce_row *row)
{
    if (row->producer_id != before->producer_id)
        return false;
    uint32_t next = (uint32_t)before->base_sequence + (uint32_t)before->record_count;
    return row->producer_id < 0 || (row->producer_epoch == before->producer_epoch &&
                                    row->base_sequence == (int32_t)(next & INT32_MAX));
}

/* Put a request into the last run, or begin another one. */
static void run_add(cl_plain_run *runs, uint32_t *run_count, const cl_plain *head,
                    const cl_produce_row *row, uint32_t number, uint32_t first_row)
{
    cl_plain_run *run = *run_count > 0 ? &runs[*run_count - 1] : NULL;
    bool is_alike = head->row_count == 1;
    if (is_alike && run != NULL && run->is_alike && row->again &&
        row->partition == row[-1].partition && head->acks == head[-1].acks &&
        head->timeout_ms == head[-1].timeout_ms && sequence_follows(row - 1, row)) {
        run->count++;
        run->row_count++;
        run->batch_bytes += row->batch_bytes;
        run->record_count += row->record_count;
        if (row->batch_bytes > run->batch_bytes_max)
            run->batch_bytes_max = row->batch_bytes;
        if (row->max_timestamp < run->oldest)
            run->oldest = row->max_timestamp;
        if (row->max_timestamp > run->newest)
            run->newest = row->max_timestamp;
        return;
    }
    runs[(*run_count)++] = (cl_plain_run){.first = number,
                                          .count = 1,
                                          .first_row = first_row,
                                          .row_count = (uint32_t)head->row_count};
    if (is_alike) {
        run = &runs[*run_count - 1];
        run->is_alike = 1;
        run->batch_bytes = run->batch_bytes_max = row->batch_bytes;
        run->record_count = row->record_count;
        run->oldest = run->newest = row->max_timestamp;
    }
}

/* Decode and judge one frame; false if it is not plain, or has more than rows_max rows. */
static bool decode_plain(const cl_frame *frame, int version, cl_plain *head, cl_produce_row *rows,
                         uint32_t rows_max)
{
    const uint8_t *data = cl_pointer(frame->address);
    cl_reader reader = cl_reader_make(data, frame->size, 0, version >= FLEXIBLE_FROM);
    cl_produce found;
    read_header(&reader);
    if (reader.bad || read_body(&reader, &found, rows, rows_max) != 0)
        return false;
    bool is_plain = (found.acks == 1 || found.acks == -1) && found.transactional_bytes < 0;
    if (!is_plain || !rows_plain(data, version, &found, rows))
        return false;
    *head = (cl_plain){.address = frame->address,
                       .acks = found.acks,
                       .timeout_ms = found.timeout_ms,
                       .row_count = found.row_count,
                       .correlation_id = (int32_t)cl_be32(data + CORRELATION_AT)};
    return true;
}

uint32_t cl_decode_plain(const void *frames, uint32_t count, int version, cl_plain *heads,
                         cl_produce_row *rows, uint32_t rows_max, cl_plain_run *runs,
                         uint32_t *run_count)
{
    assert(frames != NULL || count == 0);
    assert(heads != NULL);
    assert(rows != NULL);
    assert(runs != NULL);
    assert(version >= VERSION_MIN);
    assert(version <= VERSION_MAX);
    const uint8_t *topic = NULL;
    int32_t topic_bytes = -1;
    uint32_t row_count = 0;
    *run_count = 0;
    for (uint32_t at = 0; at < count; at++) {
        cl_frame frame;
        memcpy(&frame, (const uint8_t *)frames + at * sizeof frame, sizeof frame);
        if (!decode_plain(&frame, version, &heads[at], rows + row_count, rows_max - row_count))
            return at;
        const uint8_t *data = cl_pointer(frame.address);
        for (int32_t number = 0; number < heads[at].row_count; number++) {
            cl_produce_row *row = &rows[row_count + (uint32_t)number];
            row->again = same_topic(data, row, topic, topic_bytes);
            topic = data + row->topic_at;
            topic_bytes = row->topic_bytes;
        }
        run_add(runs, run_count, &heads[at], &rows[row_count], at, row_count);
        row_count += (uint32_t)heads[at].row_count;
    }
    return count;
}
