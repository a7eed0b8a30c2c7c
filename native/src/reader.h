/* Reads the primitive types of the Kafka protocol from a frame that may lie about everything.
 *
 * A read that does not fit sets `bad` and returns 0; every later read then does so too. So a
 * decoder reads straight on, asks once at the end, and its loops stop with `!reader->bad`. */
#ifndef READER_H
#define READER_H

#include "varint.h"

typedef struct {
    const uint8_t *start;
    const uint8_t *at;
    const uint8_t *end;
    bool flexible; /* compact lengths and tagged fields, KIP-482 */
    bool bad;
} cl_reader;

/* A run of bytes, as a position from the reader's start; null is -1 bytes long. */
typedef struct {
    int32_t at;
    int32_t bytes;
} cl_span;

static inline cl_reader cl_reader_make(const uint8_t *start, uint64_t size, uint64_t at,
                                       bool flexible)
{
    assert(start != NULL);
    assert(size <= INT32_MAX);
    assert(at <= size);
    return (cl_reader){.start = start, .at = start + at, .end = start + size, .flexible = flexible};
}

/* Step over size bytes; NULL if there are fewer. */
static inline const uint8_t *cl_read_raw(cl_reader *reader, uint64_t size)
{
    if (reader->bad || size > (uint64_t)(reader->end - reader->at)) {
        reader->bad = true;
        return NULL;
    }
    const uint8_t *from = reader->at;
    reader->at += size;
    return from;
}

static inline int8_t cl_read_i8(cl_reader *reader)
{
    const uint8_t *from = cl_read_raw(reader, 1);
    return from == NULL ? 0 : (int8_t)*from;
}

static inline int16_t cl_read_i16(cl_reader *reader)
{
    const uint8_t *from = cl_read_raw(reader, 2);
    return from == NULL ? 0 : (int16_t)cl_be16(from);
}

static inline int32_t cl_read_i32(cl_reader *reader)
{
    const uint8_t *from = cl_read_raw(reader, 4);
    return from == NULL ? 0 : (int32_t)cl_be32(from);
}

static inline int64_t cl_read_i64(cl_reader *reader)
{
    const uint8_t *from = cl_read_raw(reader, 8);
    return from == NULL ? 0 : (int64_t)cl_be64(from);
}

static inline uint32_t cl_read_uvarint(cl_reader *reader)
{
    uint64_t value = 0;
    if (reader->bad || !cl_uvarint(&reader->at, reader->end, CL_VARINT_BYTES_MAX, &value) ||
        value > UINT32_MAX) {
        reader->bad = true;
        return 0;
    }
    return (uint32_t)value;
}

/* Lengths of strings, bytes and arrays; below -1 is malformed. */
int32_t cl_read_length16(cl_reader *reader);
int32_t cl_read_length32(cl_reader *reader);

/* An array's element count; null is malformed. */
int32_t cl_read_count(cl_reader *reader);

cl_span cl_read_string(cl_reader *reader); /* nullable */
cl_span cl_read_bytes(cl_reader *reader);  /* nullable; records, too */
cl_span cl_read_uuid(cl_reader *reader);

/* Step over tagged fields; does nothing in a version that has none. */
void cl_read_tags(cl_reader *reader);

/* Whether everything was read, and nothing is left. */
bool cl_read_ended(const cl_reader *reader);

#endif
