/* Decodes Fetch requests, versions 4 to 17.
 *
 * 4: isolation. 5: log start offset. 7 (KIP-227): sessions, forgotten topics. 9 (KIP-320): current
 * leader epoch. 11 (KIP-392): rack. 12 (KIP-482, KIP-595): compact, last fetched epoch. 13
 * (KIP-516): topic ids. 15 (KIP-903): the replica id becomes a tagged field. 16 (KIP-951), 17
 * (KIP-853, a tagged directory id): nothing to read. */
#include "reader.h"

#define VERSION_MIN 4
#define VERSION_MAX 17
#define LOG_START_FROM 5
#define SESSIONS_FROM 7
#define LEADER_EPOCH_FROM 9
#define RACK_FROM 11
#define FLEXIBLE_FROM 12
#define TOPIC_IDS_FROM 13
#define REPLICA_TAG_FROM 15

static cl_span read_topic_name(cl_reader *reader, int version)
{
    return version >= TOPIC_IDS_FROM ? cl_read_uuid(reader) : cl_read_string(reader);
}

static cl_fetch_row read_partition(cl_reader *reader, cl_span topic, int version)
{
    cl_fetch_row row = {
        .topic_at = topic.at,
        .topic_bytes = topic.bytes,
        .current_leader_epoch = -1,
        .last_fetched_epoch = -1,
        .log_start_offset = -1,
    };
    row.partition = cl_read_i32(reader);
    if (version >= LEADER_EPOCH_FROM)
        row.current_leader_epoch = cl_read_i32(reader);
    row.fetch_offset = cl_read_i64(reader);
    if (version >= FLEXIBLE_FROM)
        row.last_fetched_epoch = cl_read_i32(reader);
    if (version >= LOG_START_FROM)
        row.log_start_offset = cl_read_i64(reader);
    row.partition_max_bytes = cl_read_i32(reader);
    cl_read_tags(reader);
    return row;
}

static int read_topic(cl_reader *reader, int version, cl_fetch *out, cl_fetch_row *rows,
                      uint32_t rows_max)
{
    cl_span topic = read_topic_name(reader, version);
    int32_t partition_count = cl_read_count(reader);
    if (reader->bad || topic.bytes < 0)
        return -EBADMSG;
    for (int32_t at = 0; at < partition_count; at++) {
        cl_fetch_row row = read_partition(reader, topic, version);
        if (reader->bad)
            return -EBADMSG;
        if ((uint32_t)out->row_count >= rows_max)
            return -ENOSPC;
        rows[out->row_count++] = row;
    }
    cl_read_tags(reader);
    return reader->bad ? -EBADMSG : 0;
}

/* Step over what the request forgets; returns how many topics that names. */
static int32_t skip_forgotten(cl_reader *reader, int version)
{
    int32_t topic_count = cl_read_count(reader);
    for (int32_t topic = 0; topic < topic_count && !reader->bad; topic++) {
        read_topic_name(reader, version);
        cl_read_raw(reader, (uint64_t)cl_read_count(reader) * sizeof(int32_t));
        cl_read_tags(reader);
    }
    return topic_count;
}

static cl_fetch read_head(cl_reader *reader, int version)
{
    cl_fetch head = {.session_epoch = -1};
    if (version < REPLICA_TAG_FROM)
        cl_read_i32(reader);
    head.max_wait_ms = cl_read_i32(reader);
    head.min_bytes = cl_read_i32(reader);
    head.max_bytes = cl_read_i32(reader);
    head.isolation = cl_read_i8(reader);
    if (version >= SESSIONS_FROM) {
        head.session_id = cl_read_i32(reader);
        head.session_epoch = cl_read_i32(reader);
    }
    return head;
}

static int read_body(cl_reader *reader, int version, cl_fetch *out, cl_fetch_row *rows,
                     uint32_t rows_max)
{
    *out = read_head(reader, version);
    int32_t topic_count = cl_read_count(reader);
    for (int32_t at = 0; at < topic_count; at++) {
        int status = read_topic(reader, version, out, rows, rows_max);
        if (status != 0)
            return status;
    }
    if (version >= SESSIONS_FROM)
        out->forgotten_count = skip_forgotten(reader, version);
    if (version >= RACK_FROM) {
        cl_span rack = cl_read_string(reader);
        out->rack_at = rack.at;
        out->rack_bytes = rack.bytes > 0 ? rack.bytes : 0;
    }
    cl_read_tags(reader);
    return cl_read_ended(reader) ? 0 : -EBADMSG;
}

int cl_decode_fetch(uint64_t address, uint64_t size, uint64_t body_at, int version, cl_fetch *out,
                    cl_fetch_row *rows, uint32_t rows_max)
{
    assert(out != NULL);
    assert(rows != NULL);
    assert(version >= VERSION_MIN);
    assert(version <= VERSION_MAX);
    cl_reader reader = cl_reader_make(cl_pointer(address), size, body_at, version >= FLEXIBLE_FROM);
    return read_body(&reader, version, out, rows, rows_max);
}
