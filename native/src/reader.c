/* Reads strings, arrays and tagged fields; see reader.h for how errors travel. */
#include "reader.h"

#define NULL_BYTES (-1)
#define UUID_BYTES 16

static int32_t compact_length(cl_reader *reader)
{
    uint32_t length_plus_one = cl_read_uvarint(reader);
    if (length_plus_one > (uint32_t)INT32_MAX) {
        reader->bad = true;
        return NULL_BYTES;
    }
    return (int32_t)length_plus_one - 1;
}

static int32_t classic_length(cl_reader *reader, int32_t length)
{
    if (length < NULL_BYTES)
        reader->bad = true;
    return reader->bad ? NULL_BYTES : length;
}

int32_t cl_read_length16(cl_reader *reader)
{
    return reader->flexible ? compact_length(reader) : classic_length(reader, cl_read_i16(reader));
}

int32_t cl_read_length32(cl_reader *reader)
{
    return reader->flexible ? compact_length(reader) : classic_length(reader, cl_read_i32(reader));
}

int32_t cl_read_count(cl_reader *reader)
{
    int32_t count = cl_read_length32(reader);
    /* an element takes at least a byte: no count is believed beyond the bytes that are there */
    if (count < 0 || count > reader->end - reader->at)
        reader->bad = true;
    return reader->bad ? 0 : count;
}

static cl_span span(cl_reader *reader, int32_t length)
{
    if (length == NULL_BYTES)
        return (cl_span){.at = 0, .bytes = NULL_BYTES};
    const uint8_t *from = cl_read_raw(reader, (uint64_t)length);
    if (from == NULL)
        return (cl_span){.at = 0, .bytes = NULL_BYTES};
    return (cl_span){.at = (int32_t)(from - reader->start), .bytes = length};
}

cl_span cl_read_string(cl_reader *reader)
{
    return span(reader, cl_read_length16(reader));
}

cl_span cl_read_bytes(cl_reader *reader)
{
    return span(reader, cl_read_length32(reader));
}

cl_span cl_read_uuid(cl_reader *reader)
{
    return span(reader, UUID_BYTES);
}

void cl_read_tags(cl_reader *reader)
{
    if (!reader->flexible)
        return;
    uint32_t count = cl_read_uvarint(reader);
    for (uint32_t tag = 0; tag < count && !reader->bad; tag++) {
        cl_read_uvarint(reader);
        cl_read_raw(reader, cl_read_uvarint(reader));
    }
}

bool cl_read_ended(const cl_reader *reader)
{
    return !reader->bad && reader->at == reader->end;
}
