/* Writes WAL records into memory; the CRC is taken in the pass that copies the payload. */
#include "record.h"

typedef struct {
    uint32_t crc; /* of every byte after it, up to the end of the payload */
    uint32_t length;
    uint32_t generation;
    uint32_t term;
    uint64_t lsn;
    uint64_t durable_upto;
    uint64_t group;
    uint64_t index;
    int64_t next_offset;
    uint8_t kind;
    uint8_t zero[7];
} record_header;

static_assert(sizeof(record_header) == CL_RECORD_HEADER_BYTES, "FORMAT.md says 64");

#define CRC_BYTES sizeof(uint32_t)

/* Write everything of the header but the CRC, and return the CRC of what was written. */
static uint32_t header_write(uint8_t *to, const cl_record *record, uint64_t payload_bytes,
                             int64_t next_offset)
{
    assert(payload_bytes <= CL_PAYLOAD_BYTES_MAX);
    assert(record->kind > 0);
    assert(record->kind <= UINT8_MAX);
    record_header header = {
        .length = (uint32_t)payload_bytes,
        .generation = record->generation,
        .term = record->term,
        .lsn = record->lsn,
        .durable_upto = record->durable_upto,
        .group = record->group,
        .index = record->index,
        .next_offset = next_offset,
        .kind = (uint8_t)record->kind,
    };
    memcpy(to, &header, sizeof header);
    return cl_crc32c(0, to + CRC_BYTES, sizeof header - CRC_BYTES);
}

static void record_finish(uint8_t *to, uint32_t crc, uint64_t payload_bytes)
{
    uint64_t end = CL_RECORD_HEADER_BYTES + payload_bytes;
    memset(to + end, 0, cl_record_size(payload_bytes) - end);
    memcpy(to, &crc, sizeof crc);
}

void cl_record_write(uint8_t *to, const cl_record *record, const uint8_t *payload,
                     uint64_t payload_bytes)
{
    assert(to != NULL);
    assert(payload != NULL || payload_bytes == 0);
    uint32_t crc = header_write(to, record, payload_bytes, record->offset);
    if (payload_bytes > 0)
        crc = cl_crc32c_copy(crc, to + CL_RECORD_HEADER_BYTES, payload, payload_bytes);
    record_finish(to, crc, payload_bytes);
}

/* LogAppendTime changes bytes that the batch's own CRC covers (protocol: base offset and leader
 * epoch are outside of it by design, these are not). */
static void batch_stamp_append_time(uint8_t *batch, uint64_t batch_bytes, int64_t append_time_ms)
{
    uint16_t attributes = cl_be16(batch + CL_BATCH_ATTRIBUTES);
    attributes = (uint16_t)(attributes | CL_ATTRIBUTE_LOG_APPEND_TIME);
    cl_put_be16(batch + CL_BATCH_ATTRIBUTES, attributes);
    cl_put_be64(batch + CL_BATCH_MAX_TIMESTAMP, (uint64_t)append_time_ms);
    uint32_t crc = cl_crc32c(0, batch + CL_BATCH_ATTRIBUTES, batch_bytes - CL_BATCH_ATTRIBUTES);
    cl_put_be32(batch + CL_BATCH_CRC, crc);
}

void cl_record_write_batch(uint8_t *to, const cl_record *record, const uint8_t *batch,
                           uint64_t batch_bytes)
{
    assert(to != NULL);
    assert(batch != NULL);
    assert(batch_bytes >= CL_BATCH_HEADER_BYTES);
    uint8_t *copy = to + CL_RECORD_HEADER_BYTES;
    uint32_t crc = header_write(to, record, batch_bytes, record->offset + record->record_count);

    memcpy(copy, batch, CL_BATCH_HEADER_BYTES);
    cl_put_be64(copy + CL_BATCH_BASE_OFFSET, (uint64_t)record->offset);
    cl_put_be32(copy + CL_BATCH_LEADER_EPOCH, record->term);
    if (record->append_time_ms >= 0) {
        memcpy(copy + CL_BATCH_HEADER_BYTES, batch + CL_BATCH_HEADER_BYTES,
               batch_bytes - CL_BATCH_HEADER_BYTES);
        batch_stamp_append_time(copy, batch_bytes, record->append_time_ms);
        crc = cl_crc32c(crc, copy, batch_bytes);
    } else {
        crc = cl_crc32c(crc, copy, CL_BATCH_HEADER_BYTES);
        crc = cl_crc32c_copy(crc, copy + CL_BATCH_HEADER_BYTES, batch + CL_BATCH_HEADER_BYTES,
                             batch_bytes - CL_BATCH_HEADER_BYTES);
    }
    record_finish(to, crc, batch_bytes);
}
