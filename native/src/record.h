/* The layout of a WAL record and of the Kafka batch header; both are specified in
 * storage/FORMAT.md. */
#ifndef RECORD_H
#define RECORD_H

#include "core.h"

#define CL_RECORD_HEADER_BYTES 64u
#define CL_PAYLOAD_BYTES_MAX (1u << 30)
#define CL_KIND_BATCH 1u

/* Kafka record batch, version 2 (all numbers big-endian). */
#define CL_BATCH_BASE_OFFSET 0
#define CL_BATCH_LENGTH 8
#define CL_BATCH_LEADER_EPOCH 12
#define CL_BATCH_MAGIC 16
#define CL_BATCH_CRC 17
#define CL_BATCH_ATTRIBUTES 21
#define CL_BATCH_LAST_OFFSET_DELTA 23
#define CL_BATCH_BASE_TIMESTAMP 27
#define CL_BATCH_MAX_TIMESTAMP 35
#define CL_BATCH_PRODUCER_ID 43
#define CL_BATCH_PRODUCER_EPOCH 51
#define CL_BATCH_BASE_SEQUENCE 53
#define CL_BATCH_RECORD_COUNT 57
#define CL_BATCH_HEADER_BYTES 61u
#define CL_BATCH_LENGTH_PREFIX 12u /* bytes before those that the batch length counts */

#define CL_ATTRIBUTE_CODEC 0x07
#define CL_ATTRIBUTE_LOG_APPEND_TIME 0x08
#define CL_ATTRIBUTE_TRANSACTIONAL 0x10
#define CL_ATTRIBUTE_CONTROL 0x20
#define CL_ATTRIBUTE_DELETE_HORIZON 0x40

static inline uint64_t cl_record_size(uint64_t payload_bytes)
{
    return cl_round_up(CL_RECORD_HEADER_BYTES + payload_bytes, 8);
}

/* Write header, payload and zeros; `to` has cl_record_size(payload_bytes) bytes. */
void cl_record_write(uint8_t *to, const cl_record *record, const uint8_t *payload,
                     uint64_t payload_bytes);

/* The same for a batch of at least CL_BATCH_HEADER_BYTES, stamping the copy. */
void cl_record_write_batch(uint8_t *to, const cl_record *record, const uint8_t *batch,
                           uint64_t batch_bytes);

#endif
