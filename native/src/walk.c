/* Walks the records of a batch. The bytes come from a client (or from decompressing what a client
 * sent), so every length may lie: nothing is read before it is known to lie inside. */
#include "varint.h"

#define NULL_LENGTH (-1)

/* Step over a length and as many bytes. Returns false if they do not fit, or if the length is
 * below length_min (-1 allows null). */
static inline bool skip_bytes(const uint8_t **at, const uint8_t *end, int32_t length_min,
                              int32_t *length)
{
    if (!cl_varint(at, end, length) || *length < length_min)
        return false;
    if (*length == NULL_LENGTH)
        return true;
    if (*length > end - *at)
        return false;
    *at += *length;
    return true;
}

static bool skip_headers(const uint8_t **at, const uint8_t *end)
{
    int32_t count, length;
    if (!cl_varint(at, end, &count) || count < 0)
        return false;
    if (count > end - *at)
        return false; /* each takes two bytes at least: bounds the loop before it starts */
    for (int32_t header = 0; header < count; header++) {
        if (!skip_bytes(at, end, 0, &length))
            return false;
        if (!skip_bytes(at, end, NULL_LENGTH, &length))
            return false;
    }
    return true;
}

/* One record, whose bytes are exactly at..end. */
static inline int walk_record(const uint8_t *at, const uint8_t *end, int32_t delta_expected,
                              int64_t base_timestamp, int64_t *timestamp, int32_t *keyless)
{
    int64_t timestamp_delta;
    int32_t delta, length;
    if (at >= end)
        return CL_RECORD_LENGTH_WRONG;
    at++; /* attributes: unused in this format */
    if (!cl_varlong(&at, end, &timestamp_delta))
        return CL_RECORD_TIMESTAMP_WRONG;
    if (__builtin_add_overflow(base_timestamp, timestamp_delta, timestamp))
        return CL_RECORD_TIMESTAMP_WRONG;
    if (!cl_varint(&at, end, &delta) || delta != delta_expected)
        return CL_RECORD_DELTA_WRONG;
    if (!skip_bytes(&at, end, NULL_LENGTH, &length))
        return CL_RECORD_KEY_WRONG;
    if (length == NULL_LENGTH)
        *keyless = 1;
    if (!skip_bytes(&at, end, NULL_LENGTH, &length))
        return CL_RECORD_VALUE_WRONG;
    if (!skip_headers(&at, end))
        return CL_RECORD_HEADERS_WRONG;
    return at == end ? 0 : CL_RECORD_TRAILING;
}

void cl_walk_records(const void *records, uint64_t size, int32_t record_count,
                     int64_t base_timestamp, int64_t timestamp_wanted, cl_walk *walk)
{
    assert(records != NULL || size == 0);
    assert(walk != NULL);
    const uint8_t *at = records, *end = at + size;
    *walk = (cl_walk){.max_timestamp = INT64_MIN, .found_timestamp = -1, .found_delta = -1};
    for (int32_t delta = 0; delta < record_count; delta++) {
        int32_t length;
        int64_t timestamp = 0;
        walk->reason = CL_RECORD_LENGTH_WRONG;
        if (!cl_varint(&at, end, &length) || length < 0 || length > end - at)
            return;
        walk->reason = walk_record(at, at + length, delta, base_timestamp, &timestamp,
                                   &walk->keyless);
        if (walk->reason != 0)
            return;
        at += length;
        if (timestamp > walk->max_timestamp)
            walk->max_timestamp = timestamp;
        if (walk->found_delta < 0 && timestamp >= timestamp_wanted) {
            walk->found_delta = delta;
            walk->found_timestamp = timestamp;
        }
    }
    if (record_count <= 0)
        walk->max_timestamp = -1;
    if (at != end)
        walk->reason = CL_RECORDS_TRAILING;
}
